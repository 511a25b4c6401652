"""`lstm-trace forward`: deliver what a store holds to an OTLP receiver."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import Enum
from typing import Annotated

import typer


class Format(str, Enum):
    """How the outcome is printed."""

    text = "text"
    json = "json"


def register(app: typer.Typer) -> None:
    """Add this file's commands to ``app``."""
    app.command()(forward)


def forward(
    store: Annotated[str, typer.Argument(metavar="STORE", help="A folder of OTLP JSON lines, ours or the Collector's.")],
    endpoint: Annotated[str | None, typer.Option(help="An OTLP receiver, such as http://host:4318. Default: OTEL_EXPORTER_OTLP_*.")] = None,
    format: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.text,
) -> int:
    """Deliver every stored span that the endpoint has not been given yet. Given again, it goes on where it stopped."""
    from lstm_trace.export.forward import forward as deliver

    done = deliver(store, endpoint)
    if format is Format.json:
        typer.echo(json.dumps(asdict(done)))
    else:
        typer.echo(f"{done.spans} spans of {done.files} files delivered to {done.endpoint}")
        for what, places in (("no OTLP JSON, passed over", done.malformed), ("refused by the receiver", done.refused)):
            if places:
                typer.echo(f"{len(places)} × {what}: {', '.join(places[:5])}{' …' if len(places) > 5 else ''}", err=True)
    return 1 if done.refused else 0
