"""Counted ids and a counted clock, so that whole traces compare with what is written in a test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator


class CountedIds(IdGenerator):
    """Trace ids 1, 2, 3 … and span ids 1, 2, 3 …."""

    def __init__(self) -> None:
        self._traces = itertools.count(1)
        self._spans = itertools.count(1)

    def generate_trace_id(self) -> int:
        return next(self._traces)

    def generate_span_id(self) -> int:
        return next(self._spans)


class CountedClock:
    """One millisecond a look, from a fixed moment."""

    def __init__(self) -> None:
        self._ticks = itertools.count(1)

    def __call__(self) -> int:
        return 1_700_000_000_000_000_000 + next(self._ticks) * 1_000_000


@dataclass
class Traced:
    """A provider that records everything in memory, and what it recorded."""

    provider: TracerProvider
    memory: InMemorySpanExporter
    clock: CountedClock = field(default_factory=CountedClock)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.memory.get_finished_spans())

    def named(self, name: str) -> ReadableSpan:
        found = [span for span in self.spans if span.name == name]
        assert len(found) == 1, f"{len(found)} spans named {name!r} among {[span.name for span in self.spans]}"
        return found[0]

    def tree(self) -> str:
        """Every trace as an indented tree, in the order in which spans started."""
        spans = sorted(self.spans, key=lambda span: (span.start_time or 0, span.context.span_id))
        known = {span.context.span_id for span in spans}

        def below(parent: int | None, depth: int) -> Iterator[str]:
            for span in spans:
                mine = span.parent.span_id if span.parent is not None and span.parent.span_id in known else None
                if mine == parent:
                    yield "  " * depth + span.name
                    yield from below(span.context.span_id, depth + 1)

        return "\n".join(below(None, 0))
