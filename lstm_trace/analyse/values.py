"""Plain values out of what holds them: a frozen dataclass, a table of a database."""

from __future__ import annotations

from dataclasses import fields
from typing import Any


def plain(fact: Any) -> dict[str, Any]:
    """The fields of a frozen dataclass by name, one level deep."""
    return {item.name: getattr(fact, item.name) for item in fields(fact)}


def fetched(table: Any) -> list[dict[str, Any]]:
    """Run an ibis expression and return one dict a row."""
    connection = table.get_backend()
    if connection.name == "duckdb":
        # Not through ibis, which imports pandas for it: that takes as long as a query.
        found = connection.con.sql(connection.compile(table)).to_arrow_table().cast(table.schema().to_pyarrow())
    else:
        found = table.to_pyarrow()
    rows: list[dict[str, Any]] = found.to_pylist()
    return rows
