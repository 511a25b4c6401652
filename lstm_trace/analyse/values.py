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


def quantile(values: Any, level: float) -> Any:
    """The exact quantile of a group, interpolated, as an ibis expression: ClickHouse's own draws a sample of more than 8192 values."""
    import ibis

    if values.get_backend().name == "duckdb":
        return values.quantile(level)
    ordered = values.collect().sort()
    place = (ordered.length() - 1) * level
    below = place.floor().cast("int64")
    low, high = ordered[below], ordered[place.ceil().cast("int64")]
    return (ordered.length() > 0).ifelse(low + (high - low) * (place - below), ibis.null("float64"))
