"""Fixtures for every test: a provider that records in memory, and the promise that nothing stays open."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lstm_trace import recorder as recorder_module
from lstm_trace.guard import shield
from lstm_trace.upstream import UpstreamProcessor, live
from tests.tracing import CountedIds, Traced


@pytest.fixture
def traced() -> Iterator[Traced]:
    """An SDK provider with counted ids, our upstream processor and an in-memory exporter. It is not made global."""
    memory = InMemorySpanExporter()
    provider = TracerProvider(id_generator=CountedIds(), shutdown_on_exit=False)
    provider.add_span_processor(UpstreamProcessor())
    provider.add_span_processor(SimpleSpanProcessor(memory))
    yield Traced(provider, memory)
    provider.shutdown()


@pytest.fixture(autouse=True)
def _our_mistakes_raise_and_nothing_stays_open() -> Iterator[None]:
    """In our own tests a mistake of ours is raised, and after each test no span may still be held as open."""
    shield.strict = True
    live.clear()
    _as_in_a_fresh_process()
    yield
    left = len(live)
    live.clear()
    recorder_module.set_default_recorder(None)
    assert left == 0, f"{left} spans are still held as open"


def _as_in_a_fresh_process() -> None:
    """Switch decorated components and chains on: an earlier test's ``uninstrument()`` silenced them."""
    switch = sys.modules.get("lstm_trace.instrument.lstm.switch")
    if switch is not None and not switch.on:
        switch.turn(True)
    langchain = sys.modules.get("lstm_trace.instrument.langchain.handler")
    if langchain is not None:
        langchain.handler.silenced = False
