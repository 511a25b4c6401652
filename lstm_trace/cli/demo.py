"""`lstm-trace demo`: the claims-support agent end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add this file's commands to ``app``."""
    app.command()(demo)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the store, the weights and report.html.")] = Path("lstm-trace-demo"),
    sessions: Annotated[int | None, typer.Option(help="Held-out sessions a release (600; with a real --model 60).")] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="Send everything to this OTLP receiver as well, such as http://localhost:4318.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A real chat model by LangChain's name: openai:gpt-4o-mini, ollama:llama3 …")] = None,
) -> None:
    """Run a claims-support agent under two releases, and see in its traces which component made the answers worse."""
    from rich.console import Console

    from lstm_trace.demo.run import checked, run

    options = checked(out, sessions, endpoint, model)
    console = Console()
    run(options, console if console.is_terminal else Console(width=140))
