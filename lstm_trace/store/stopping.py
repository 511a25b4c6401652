"""Queries that end when told to: left alone, DuckDB waits until its threads have done their part of one, however long it takes."""

from __future__ import annotations

from typing import Any, Final

_asked: Final[set[Any]] = set()
"""Connections of DuckDB that may have a query under way."""


def stoppable(connection: Any) -> None:
    """Have ``stop`` reach this connection of DuckDB, until it is ``done``."""
    _asked.add(connection)


def done(connection: Any) -> None:
    """Forget a connection, which is about to be closed."""
    _asked.discard(connection)


def stop() -> None:
    """End the queries that are under way, and those that come after; as a signal's handler may."""
    for connection in tuple(_asked):
        connection.interrupt()
