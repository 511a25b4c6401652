from __future__ import annotations

from pathlib import Path

import pytest

from lstm_trace.store import schema

PAGE = (Path(__file__).parents[2] / "docs" / "stores.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("column", schema.COLUMNS + schema.EVALUATION_COLUMNS, ids=lambda column: column.name)
def test_the_page_has_every_column_with_its_meaning_and_its_sources(column: schema.Column) -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{column.name}` |") and column.meaning in line)
    assert all(f"`{name}`" in row for name in column.attributes + column.resource)


def test_the_page_has_no_column_that_is_not_there() -> None:
    named = {line.split("`")[1] for line in PAGE.partition("## Columns of `spans`")[2].splitlines() if line.startswith("| `")}
    assert named == {column.name for column in schema.COLUMNS + schema.EVALUATION_COLUMNS}
