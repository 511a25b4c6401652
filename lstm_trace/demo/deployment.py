"""One release of the agent as a process of its own, as a deployment is: answer sessions, record what was judged, say how far it is.

Its standard output is one JSON object a line: ``{"done": 40}`` while it works, ``{"failed": "…"}`` where it cannot go on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lstm_trace.errors import BadInput

SEED = 2026
"""Seed of the held-out sessions: both releases answer the same ones, and the classifier never saw them."""
EARLY = 3
"""Sessions that may fail in a row from the start before the release gives up."""


def main(
    release: Annotated[str, typer.Option()],
    keep: Annotated[int, typer.Option()],
    weights: Annotated[Path, typer.Option()],
    store: Annotated[Path, typer.Option()],
    sessions: Annotated[int, typer.Option()],
    endpoint: Annotated[str | None, typer.Option()] = None,
    model: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Answer the held-out sessions under one release."""
    import torch

    import lstm_trace
    from lstm_trace.demo.chain import make_agent
    from lstm_trace.demo.chat import chat_model
    from lstm_trace.demo.judging import OUTCOME, react
    from lstm_trace.demo.model import load
    from lstm_trace.demo.sessions import make_sessions

    torch.set_num_threads(1)  # one session at a time: more threads only add hand-over
    providers = lstm_trace.configure(service_name="claims-agent", release=release, store=store, endpoint=endpoint)
    lstm_trace.instrument()
    agent = make_agent(load(weights, keep=keep), chat_model(model), version="1", preprocessing=f"last-{keep}")
    held_out = make_sessions(sessions, seed=SEED)
    answered = 0
    for number, session in enumerate(held_out, 1):
        try:
            outcome = agent(session)
        except Exception as error:
            lstm_trace.record_evaluation(lstm_trace.trace_ref(), OUTCOME, error=error, evaluator_version="1")
            # A chat model that stumbles once is part of life (its span says so); one that never answers is a wrong --model.
            if not answered and number >= min(EARLY, sessions):
                providers.shutdown()
                raise BadInput(f"--model {model}: {type(error).__name__} on each of the first {number} sessions") from error
            continue
        answered += 1
        reaction = react(session, outcome.right)
        if reaction.rating:
            lstm_trace.record_feedback(outcome.ref, reaction.rating)
        if reaction.escalated:
            lstm_trace.record_escalation(outcome.ref, reason="asked for a person")
        if number % 10 == 0 or number == sessions:
            say(done=number)
    providers.shutdown()


def say(**what: int | str) -> None:
    """Print one line for the process that started this one."""
    print(json.dumps(what), flush=True)  # noqa: T201


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app()
    except BadInput as error:
        say(failed=str(error))
        raise SystemExit(2) from None
