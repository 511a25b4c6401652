"""Tables for other programs: JSON and CSV of plain values."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any


def as_json(value: Any) -> str:
    """Indented JSON, in which a number that is not finite is null."""
    return json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    r"""One line a row below a header of every key that occurs; null is empty. A cell never starts a spreadsheet's formula.

    >>> as_csv([{"cohort": "1-4", "n": 3}, {"cohort": "=HYPERLINK(1)", "n": None}])
    "cohort,n\r\n1-4,3\r\n'=HYPERLINK(1),\r\n"
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(names)
    for row in rows:
        writer.writerow([_cell(row.get(name)) for name in names])
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    if isinstance(value, list | tuple | Mapping):
        return json.dumps(_finite(value), ensure_ascii=False)
    return value
