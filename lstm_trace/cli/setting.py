"""`lstm-trace settings`: every setting, its value in force and its variable."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add this file's commands to ``app``."""
    app.command()(settings)


def settings() -> None:
    """List every setting with its environment variable and the value in force."""
    from rich.console import Console
    from rich.table import Table

    from lstm_trace.settings import Settings, table

    listing = Table("variable", "in force", "meaning", box=None)
    for row in table(Settings.from_env()):
        listing.add_row(*row)
    Console().print(listing)
