"""Write evaluation spans in chunks to the store or to an OTLP receiver, with back-pressure instead of a queue that drops."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from lstm_trace.errors import BadInput
from lstm_trace.upstream import UpstreamProcessor

if TYPE_CHECKING:
    from lstm_trace.evaluate.sinks.base import Sink


def destination(store: str, *, to: str | None, endpoint: str | None) -> SpanExporter:
    """Choose where evaluation spans go: an OTLP ``endpoint``, the folder ``to``, else the folder of the store itself. Raises BadInput."""
    if endpoint is not None and to is not None:
        raise BadInput("--to and --endpoint: give one of them")
    if endpoint is not None:
        from lstm_trace.export.endpoint import connect, resolve

        exporter: SpanExporter = connect(resolve("traces", endpoint, os.environ))
        return exporter
    folder = to or store
    if to is None and not _is_folder_of_lines(Path(store)):
        raise BadInput(f"{store}: spans can only be added to a folder of OTLP JSON lines; give --to FOLDER or --endpoint URL")
    from lstm_trace.export.otlp_json import StoreExporter

    return StoreExporter(folder)


def _is_folder_of_lines(path: Path) -> bool:
    return path.is_dir() and not any(path.glob("**/*.parquet"))


class Beside(SpanExporter):
    """Exports to ``first``, whose answer counts, and what that took to each of ``sinks``, which count for themselves."""

    def __init__(self, first: SpanExporter, sinks: Sequence[Sink]) -> None:
        self._first = first
        self._sinks = sinks

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export to all."""
        result = self._first.export(spans)
        if result is SpanExportResult.SUCCESS:
            for sink in self._sinks:
                sink.export(spans)
        return result

    def shutdown(self) -> None:
        """Close all."""
        for each in (self._first, *self._sinks):
            each.shutdown()


class ChunkWriter(SpanProcessor):
    """A span processor that keeps finished evaluations until ``write`` exports them; nothing is dropped, what is refused is counted.

    An evaluation and its judge's spans are one trace, exported together once its root ended; ``wanted`` may turn a root, and so its whole
    trace, down.
    """

    def __init__(self, exporter: SpanExporter, wanted: Callable[[ReadableSpan], bool] = lambda _: True) -> None:
        self._exporter = exporter
        self._wanted = wanted
        self._open: dict[int, list[ReadableSpan]] = {}
        self._ready: list[ReadableSpan] = []
        self._lock = threading.Lock()
        self.written = 0
        self.refused = 0

    def __len__(self) -> int:
        """Count the spans that ``write`` would export."""
        return len(self._ready)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Take part in the SDK's processor protocol."""

    def on_end(self, span: ReadableSpan) -> None:
        """Keep a finished span until its trace's root ended."""
        if span.context is None:
            return
        with self._lock:
            if span.parent is not None:
                self._open.setdefault(span.context.trace_id, []).append(span)
                return
            below = self._open.pop(span.context.trace_id, [])
            if self._wanted(span):
                self._ready += [span, *below]

    def write(self) -> bool:
        """Export the traces that ended; True when the receiver took them, or none waited."""
        with self._lock:
            spans, self._ready = self._ready, []
        if not spans:
            return True
        taken = self._exporter.export(spans) is SpanExportResult.SUCCESS
        if taken:
            self.written += len(spans)
        else:
            self.refused += len(spans)
        return taken

    def shutdown(self) -> None:
        """Write the rest and close the exporter."""
        self.write()
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Write what waits."""
        return self.write()


def provider_for(writer: ChunkWriter) -> TracerProvider:
    """Make a provider of its own for evaluations: it records everything, whatever ``OTEL_TRACES_SAMPLER`` says of the application."""
    # Not Resource.create(): the environment may name this process's own service.version, which is nobody's release here.
    provider = TracerProvider(sampler=ALWAYS_ON, resource=Resource({SERVICE_NAME: "lstm-trace evaluate"}), shutdown_on_exit=False)
    processors: list[Any] = [UpstreamProcessor(), writer]
    for processor in processors:
        provider.add_span_processor(processor)
    return provider
