"""The SDK's exporter interfaces over a courier: spans that cannot be delivered are kept in the store, metrics and logs are dropped."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, Final

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from lstm_trace.export.courier import Courier
from lstm_trace.export.endpoint import Target, connect
from lstm_trace.export.otlp_json import StoreExporter
from lstm_trace.export.outage import Outages

_EXIT_SECONDS: Final = 3.0
"""Seconds that spans get at shutdown; an exit must not hang on a receiver that never answers."""
_EXIT_SECONDS_OTHERS: Final = 1.0
_SCHEDULE_DELAY_MILLIS: Final = 1000
"""Instead of the SDK's 5000: what a killed process loses is what it did in this time."""


class DeliveringSpanExporter(SpanExporter):
    """Deliver spans to ``target``; what cannot be delivered is kept in ``store``.

    With ``keep_all`` every span is written to the store first, and a failed delivery costs nothing more. Without a store they are dropped.
    """

    def __init__(self, target: Target, store: StoreExporter | None, *, keep_all: bool, outages: Outages) -> None:
        self._store = store
        self._keep_all = keep_all
        kept = "kept" if keep_all else "kept for `lstm-trace forward`"
        fate = "dropped" if store is None else f"{kept} in {store.store}"
        self._courier = Courier(target, lambda: connect(target), self._undelivered, fate=fate, outages=outages)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Hand ``spans`` on. Waits for the disk at most, never for the network."""
        if self._keep_all:
            kept = self._keep(spans)
            self._courier.offer(spans)
            return kept
        return SpanExportResult.SUCCESS if self._courier.offer(spans) else self._keep(spans)

    def _keep(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.FAILURE if self._store is None else self._store.export(spans)

    def _undelivered(self, spans: Sequence[ReadableSpan]) -> None:
        if not self._keep_all:
            self._keep(spans)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait until what was exported is delivered or in the store."""
        return self._courier.drain(timeout_millis / 1000)

    def shutdown(self, timeout_millis: float = 30_000) -> None:
        """Deliver what waits within three seconds at most, keep the rest in the store, and stop."""
        self._courier.close(min(timeout_millis / 1000, _EXIT_SECONDS))
        if self._store is not None:
            self._store.shutdown()


class PromptSpanProcessor(BatchSpanProcessor):
    """The SDK's batch processor with a delay of one second (``OTEL_BSP_SCHEDULE_DELAY`` wins), whose flush reaches the receiver."""

    def __init__(self, exporter: SpanExporter, *, delay_millis: int = _SCHEDULE_DELAY_MILLIS) -> None:
        delay = None if os.environ.get("OTEL_BSP_SCHEDULE_DELAY") else delay_millis
        super().__init__(exporter, schedule_delay_millis=delay)
        self._delivers = exporter

    def force_flush(self, timeout_millis: int | None = None) -> bool:
        """Export what waits, then wait until it is delivered. False when the time is over before."""
        deadline = time.monotonic() + (30.0 if timeout_millis is None else timeout_millis / 1000)
        exported = super().force_flush(timeout_millis)
        left = max(0, int((deadline - time.monotonic()) * 1000))
        # An exporter of another package may have no flush of its own: the SDK's interface returns None then.
        return exported and self._delivers.force_flush(left) is not False


class PromptLogProcessor(BatchLogRecordProcessor):
    """The SDK's batch processor for log records, whose flush reaches the receiver."""

    def __init__(self, exporter: LogRecordExporter) -> None:
        super().__init__(exporter)
        self._delivers = exporter

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export what waits, then wait until it is delivered or dropped. False when the time is over before."""
        exported = super().force_flush(timeout_millis)
        flush = getattr(self._delivers, "force_flush", None)
        return bool(exported and (flush is None or flush(timeout_millis)))


class DeliveringMetricExporter(MetricExporter):
    """Deliver metrics to ``target``; what cannot be delivered is dropped: the next collection of a cumulative metric contains it."""

    def __init__(self, target: Target, *, outages: Outages) -> None:
        asked = connect(target)  # which temporality the environment asks for is known to the exporter only
        super().__init__(preferred_temporality=asked._preferred_temporality, preferred_aggregation=asked._preferred_aggregation)
        asked.shutdown()  # the courier makes its own, and another after a fork
        fate = "dropped (OTEL_METRICS_EXPORTER=none stops them)"
        self._courier = Courier(target, lambda: connect(target), _dropped, fate=fate, outages=outages)

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Hand ``metrics_data`` on without waiting."""
        return MetricExportResult.SUCCESS if self._courier.offer(metrics_data) else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Wait until what was exported is delivered or dropped."""
        return self._courier.drain(timeout_millis / 1000)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Deliver what waits within a second at most, and stop."""
        self._courier.close(min(timeout_millis / 1000, _EXIT_SECONDS_OTHERS))


class DeliveringLogExporter(LogRecordExporter):
    """Deliver log records to ``target``; what cannot be delivered is dropped."""

    def __init__(self, target: Target, *, outages: Outages) -> None:
        self._courier = Courier(
            target, lambda: connect(target), _dropped, fate="dropped (OTEL_LOGS_EXPORTER=none stops them)", outages=outages
        )

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Hand ``batch`` on without waiting."""
        return LogRecordExportResult.SUCCESS if self._courier.offer(batch) else LogRecordExportResult.FAILURE

    def force_flush(self, timeout_millis: int = 10_000) -> bool:
        """Wait until what was exported is delivered or dropped."""
        return self._courier.drain(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Deliver what waits within a second at most, and stop."""
        self._courier.close(_EXIT_SECONDS_OTHERS)


def _dropped(batch: object) -> None:
    """Let an undelivered batch go: the courier's line has said so."""
