"""Which exporters the arguments and the ``OTEL_*`` variables ask for: argument > environment > default, signal by signal."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry.sdk._logs.export import LogRecordExporter
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.trace.export import SpanExporter

from lstm_trace.errors import BadInput
from lstm_trace.export.delivery import DeliveringLogExporter, DeliveringMetricExporter, DeliveringSpanExporter
from lstm_trace.export.durable import DurableExporter, durable_store
from lstm_trace.export.endpoint import PREFIX, BadVariable, Signal, Target, resolve, wanted
from lstm_trace.export.otlp_json import StoreExporter
from lstm_trace.export.outage import Outages
from lstm_trace.settings import Settings, variable_of

_log = logging.getLogger("lstm_trace")

_OTLP_NAMES: Final = frozenset({"otlp", "otlp_proto_http", "otlp_proto_grpc"})
_STORE_NAME: Final = "lstm_trace"
_DEFAULT_STORE: Final = Settings().store


@dataclass(frozen=True, slots=True)
class SpanRoute:
    """Where spans go. With ``keep_all`` the store takes every span, else only those that ``target`` does not take.

    ``durable`` has them on the disk before they are sent. ``names`` are exporters of other packages, by entry point.
    """

    target: Target | None
    store: StoreExporter | None
    keep_all: bool
    durable: bool = False
    names: tuple[str, ...] = ()


def span_route(
    settings: Settings, endpoint: str | None, store: str | os.PathLike[str] | None, environ: Mapping[str, str], *, durable: bool = False
) -> SpanRoute:
    """Decide where spans go. Raises BadInput for an argument that cannot be used; what the environment says is logged and passed over."""
    named = _names("OTEL_TRACES_EXPORTER", environ)
    by_otlp = endpoint is not None or (bool(named & _OTLP_NAMES) if named else wanted("traces", environ))
    target = _target("traces", endpoint, environ) if by_otlp else None
    store_is_given = store is not None or variable_of("store") in environ or settings.store != _DEFAULT_STORE or _STORE_NAME in named
    # Without a usable endpoint there is the store, unless the environment names other exporters or none.
    local = store_is_given if not named else store is not None or _STORE_NAME in named
    local = local or (target is None and (by_otlp or not named))
    kept, strict = None, store is not None
    if local or target is not None:
        delivered = target is not None
        kept = (
            durable_store(settings.store, strict=strict, delivered=delivered) if durable else StoreExporter(settings.store, strict=strict)
        )
    return SpanRoute(target, kept, keep_all=local, durable=durable, names=tuple(sorted(named - _OTLP_NAMES - {_STORE_NAME, "none"})))


def _names(variable: str, environ: Mapping[str, str]) -> set[str]:
    return {name.strip() for name in environ.get(variable, "").split(",") if name.strip()}


def _target(signal: Signal, endpoint: str | None, environ: Mapping[str, str]) -> Target | None:
    try:
        return resolve(signal, endpoint, environ)
    except BadVariable as error:
        # What the operator set is no reason for the application not to start.
        if signal == "traces":
            _log.error("%s; spans go to the store", error)
        elif str(error) != _problem_of_spans(endpoint, environ):  # else that one line says it all
            _log.error("%s; %s go nowhere", error, signal)
        return None


def _problem_of_spans(endpoint: str | None, environ: Mapping[str, str]) -> str | None:
    try:
        resolve("traces", endpoint, environ)
    except BadInput as error:
        return str(error)
    return None


def span_exporters(route: SpanRoute, outages: Outages) -> list[SpanExporter]:
    """Make the exporters of ``route``; ``outages`` is shared by all signals, so that one line is said an endpoint."""
    exporters: list[SpanExporter] = []
    if route.target is not None and route.store is not None and route.durable:
        exporters.append(DurableExporter(route.target, route.store, keep=route.keep_all, outages=outages))
    elif route.target is not None:
        exporters.append(DeliveringSpanExporter(route.target, route.store, keep_all=route.keep_all, outages=outages))
    elif route.store is not None:
        exporters.append(route.store)
    return exporters + [kind() for kind in _load("opentelemetry_traces_exporter", "OTEL_TRACES_EXPORTER", route.names)]


def metric_readers(endpoint: str | None, environ: Mapping[str, str], outages: Outages) -> list[MetricReader]:
    """Make a reader for each metrics exporter asked for: none without an OTLP endpoint, so that instruments cost next to nothing."""
    target, names = _other_signal("metrics", endpoint, environ)
    exporters: list[Any] = []
    if target is not None:
        try:
            exporters.append(DeliveringMetricExporter(target, outages=outages))
        except Exception as error:  # noqa: BLE001 - a certificate or time-out that the exporter cannot read is the operator's, not ours
            _log.error("metrics go nowhere: %s is not usable (%s)", target.shown, error)
    exporters += [kind() for kind in _load("opentelemetry_metrics_exporter", "OTEL_METRICS_EXPORTER", names)]
    return [each if isinstance(each, MetricReader) else PeriodicExportingMetricReader(each) for each in exporters]


def log_exporters(endpoint: str | None, environ: Mapping[str, str], outages: Outages) -> list[LogRecordExporter]:
    """Make the exporters of log records asked for: none without an OTLP endpoint."""
    target, names = _other_signal("logs", endpoint, environ)
    exporters: list[LogRecordExporter] = [DeliveringLogExporter(target, outages=outages)] if target is not None else []
    return exporters + [kind() for kind in _load("opentelemetry_logs_exporter", "OTEL_LOGS_EXPORTER", names)]


def _other_signal(signal: Signal, endpoint: str | None, environ: Mapping[str, str]) -> tuple[Target | None, tuple[str, ...]]:
    if environ.get(f"{PREFIX}{signal.upper()}_ENDPOINT"):
        endpoint = None  # the argument names the receiver of spans; the signal's own variable is the more specific word
    named = _names(f"OTEL_{signal.upper()}_EXPORTER", environ)
    by_otlp = bool(named & _OTLP_NAMES) if named else endpoint is not None or wanted(signal, environ)
    return (_target(signal, endpoint, environ) if by_otlp else None), tuple(sorted(named - _OTLP_NAMES - {"none"}))


def _load(group: str, variable: str, names: Sequence[str]) -> list[Any]:
    if not names:
        return []
    from importlib.metadata import entry_points

    found: list[Any] = []
    for name in names:
        known = {point.name: point for point in entry_points(group=group)}
        try:
            found.append(known[name].load())
        except (KeyError, ImportError, AttributeError) as error:
            why = "no installed package has it" if isinstance(error, KeyError) else error
            _log.error("%s names %r: %s; accepted are %s", variable, name, why, ", ".join(sorted({*known, "none"})))
    return found
