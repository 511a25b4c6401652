"""LangChain switched on for a test, writing to the test's own provider; afterwards nothing may be left open."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from lstm_trace import LangChainInstrumentor, Settings
from tests.tracing import Traced


@pytest.fixture
def settings() -> Settings:
    return Settings(strict=True)


@pytest.fixture
def langchain(traced: Traced, settings: Settings) -> Iterator[Traced]:
    instrumentor = LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=traced.provider, settings=settings)
    yield traced
    gc.collect()
    left = instrumentor.live_runs()
    instrumentor.uninstrument()
    assert left == 0, f"{left} runs are still open"


def attributes(span: Any, prefix: str = "") -> dict[str, Any]:
    return {name: value for name, value in (span.attributes or {}).items() if name.startswith(prefix)}


def parent_of(traced: Traced, name: str) -> str | None:
    span = traced.named(name)
    if span.parent is None:
        return None
    return next((each.name for each in traced.spans if each.context.span_id == span.parent.span_id), "outside")
