"""Providers, exporters and the local store for an application that has none; our upstream processor for one that has."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from lstm_trace import background
from lstm_trace.errors import BadInput
from lstm_trace.guard import shield

if TYPE_CHECKING:
    from opentelemetry import _logs, metrics, trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.sampling import Sampler

    from lstm_trace.settings import Settings

# Nearly everything is imported inside the functions: `import lstm_trace` loads this module, and must cost next to nothing.

_log = logging.getLogger("lstm_trace")

_EXIT_MILLIS: Final = 5_000
_DURABLE_DELAY_MILLIS: Final = 100


class Providers:
    """What ``configure()`` set up or found.

    ``endpoint`` is the URL that spans are sent to and ``store`` the folder that they are kept in; each is None where it is not used, both
    where the application had a TracerProvider of its own.
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider,
        meter_provider: metrics.MeterProvider,
        logger_provider: _logs.LoggerProvider,
        settings: Settings,
        *,
        endpoint: str | None = None,
        store: str | None = None,
        owned: Sequence[Any] = (),
    ) -> None:
        self.tracer_provider = tracer_provider
        self.meter_provider = meter_provider
        self.logger_provider = logger_provider
        self.settings = settings
        self.endpoint = endpoint
        self.store = store
        self._owned = list(owned)

    def __repr__(self) -> str:
        return f"Providers(endpoint={self.endpoint!r}, store={self.store!r})"

    def force_flush(self, timeout_millis: int = 10_000) -> bool:
        """Hand over everything that waits, to the receiver or the store. False when ``timeout_millis`` were not enough."""
        deadline = time.monotonic() + timeout_millis / 1000
        flushed = background.drain_all(timeout_millis / 1000)  # online evaluations have spans of their own to hand over
        for provider in (self.tracer_provider, self.meter_provider, self.logger_provider):
            flush = getattr(provider, "force_flush", None)
            if flush is None:
                continue
            done = False
            with shield:
                done = flush(max(0, int((deadline - time.monotonic()) * 1000))) is not False
            flushed = flushed and done
        return flushed

    def shutdown(self, timeout_millis: int = _EXIT_MILLIS) -> None:
        """Flush and stop what ``configure()`` set up, within about ``timeout_millis``; runs at exit by itself, and twice does no harm.

        An application's own providers are left alone.
        """
        deadline = time.monotonic() + timeout_millis / 1000
        if self._owned:
            background.drain_all(timeout_millis / 1000)
        while self._owned:
            provider = self._owned.pop(0)
            left = max(100, int((deadline - time.monotonic()) * 1000))
            if getattr(provider, "_shutdown", False):  # somebody did it before; the meter provider complains about a second time
                continue
            limit = {"timeout_millis": left} if provider is self.meter_provider else {}
            with shield:
                provider.shutdown(**limit)
        atexit.unregister(self.shutdown)


_lock = threading.Lock()
_current: Providers | None = None
_current_arguments: tuple[Any, ...] = ()


def configure(
    *,
    service_name: str | None = None,
    release: str | None = None,
    endpoint: str | None = None,
    store: str | os.PathLike[str] | None = None,
    durable: bool = False,
    sampler: Sampler | float | None = None,
    settings: Settings | None = None,
) -> Providers:
    """Set up OpenTelemetry for an application that has not; for one that has, only add what puts upstream facts on its spans.

    ``endpoint`` is an OTLP receiver (``http://host:4318``), ``store`` the folder of the local store; given both, spans go to both. Given
    neither, and no ``OTEL_EXPORTER_OTLP_*``, they go to the store ``./lstm-traces``. Arguments win over ``OTEL_*`` variables, and those
    over defaults. ``release`` becomes ``service.version`` of the resource and ``lstm.release`` on every span; ``sampler`` is a Sampler or
    the share of traces to record, 0 to 1. Spans that an endpoint does not take are kept in the store. With ``durable`` spans are on the
    disk before they are sent, and what a killed process left there is delivered by the next one. Calling it again changes nothing.

    Raises ValueError or TypeError, one line that names the argument, its value and what is accepted.
    """
    global _current, _current_arguments
    from opentelemetry import _logs, metrics, trace

    from lstm_trace.recorder import Recorder, set_default_recorder

    _check(service_name, release, settings)
    if not isinstance(durable, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"durable={durable!r}: accepted are True and False")
    arguments = (service_name, release, endpoint, store, durable or None, sampler, settings)
    with _lock:
        if _current is not None and trace.get_tracer_provider() is _current.tracer_provider:
            if any(argument is not None for argument in arguments) and arguments != _current_arguments:
                _log.warning("configure() was called before: what it set up then stands, and these arguments have no effect")
            return _current
        in_force = _effective(settings, release, store)
        if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return Providers(trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider(), in_force)
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            providers = _set_up(in_force, service_name, release, endpoint, store, durable, _sampler(sampler))
        else:
            providers = _join(in_force, endpoint=endpoint, store=store, durable=durable or None, sampler=sampler, service_name=service_name)
        set_default_recorder(Recorder(in_force))
        _current, _current_arguments = providers, arguments
        return providers


def _check(service_name: object, release: object, settings: object) -> None:
    from lstm_trace.settings import Settings

    for name, value in (("service_name", service_name), ("release", release)):
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{name}={value!r}: accepted is a string")
        if value == "":
            raise BadInput(f"{name}='': accepted is a string that is not empty")
    if settings is not None and not isinstance(settings, Settings):
        raise TypeError(f"settings={settings!r}: accepted is lstm_trace.Settings(...)")


def _effective(settings: Settings | None, release: str | None, store: str | os.PathLike[str] | None) -> Settings:
    from lstm_trace.settings import Settings

    chosen = Settings.from_env() if settings is None else settings
    if release is not None:
        chosen = replace(chosen, release=release)
    if store is not None:
        if not isinstance(store, (str, os.PathLike)):
            raise TypeError(f"store={store!r}: accepted is the path of a folder")
        chosen = replace(chosen, store=os.fspath(store))
    return chosen


def _sampler(given: Sampler | float | None) -> Sampler | None:
    from opentelemetry.sdk.trace import sampling

    if given is None or isinstance(given, sampling.Sampler):
        return given  # without one the SDK reads OTEL_TRACES_SAMPLER
    if isinstance(given, (int, float)) and not isinstance(given, bool) and 0 <= given <= 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        return sampling.ParentBasedTraceIdRatio(given)
    raise TypeError(f"sampler={given!r}: accepted is a Sampler of the OpenTelemetry SDK or the share of traces to record, 0 to 1")


# --- An application with providers -----------------------------------------------------------------------------------------


def _join(settings: Settings, **given: Any) -> Providers:
    from opentelemetry import _logs, metrics, trace

    from lstm_trace.instrument.processor import add_upstream_processor

    unused = [f"{name}=" for name, value in given.items() if value is not None]
    if unused:
        _log.warning(
            "this application has a TracerProvider, which is used as it is: %s has no effect (add exporters to that provider)",
            ", ".join(unused),
        )
    provider = trace.get_tracer_provider()
    add_upstream_processor(provider, settings)
    return Providers(provider, metrics.get_meter_provider(), _logs.get_logger_provider(), settings)


# --- An application without ------------------------------------------------------------------------------------------------


def _set_up(
    settings: Settings,
    service_name: str | None,
    release: str | None,
    endpoint: str | None,
    store: str | os.PathLike[str] | None,
    durable: bool,
    sampler: Sampler | None,
) -> Providers:
    from opentelemetry import _logs, metrics, trace
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

    from lstm_trace.export.delivery import PromptLogProcessor, PromptSpanProcessor
    from lstm_trace.export.outage import Outages
    from lstm_trace.export.routes import log_exporters, metric_readers, span_exporters, span_route
    from lstm_trace.instrument.processor import add_upstream_processor

    environ = dict(os.environ)
    outages = Outages()
    route = span_route(settings, endpoint, store, environ, durable=durable)
    resource = _resource(settings, service_name, release)
    exit_is_ours: Mapping[str, Any] = {"resource": resource, "shutdown_on_exit": False}

    tracer_provider = TracerProvider(sampler=sampler, **exit_is_ours)
    add_upstream_processor(tracer_provider, settings)
    for exporter in span_exporters(route, outages):
        prompt = PromptSpanProcessor(exporter, delay_millis=_DURABLE_DELAY_MILLIS) if durable else PromptSpanProcessor(exporter)
        tracer_provider.add_span_processor(prompt)  # pyright: ignore[reportArgumentType]
    trace.set_tracer_provider(tracer_provider)
    owned: list[Any] = [tracer_provider]

    # By their names: the API's stand-ins for "none set" are private for two of the three signals.
    readers = metric_readers(endpoint, environ, outages) if type(metrics.get_meter_provider()).__name__ == "_ProxyMeterProvider" else []
    # Without a reader an SDK provider takes some twenty times as long for a measurement that nobody reads as the API's own no-op.
    if readers:
        meter_provider = MeterProvider(metric_readers=readers, **exit_is_ours)
        metrics.set_meter_provider(meter_provider)
        owned.append(meter_provider)
    if type(_logs.get_logger_provider()).__name__ == "ProxyLoggerProvider":
        logger_provider = LoggerProvider(**exit_is_ours)
        for log_exporter in log_exporters(endpoint, environ, outages):
            logger_provider.add_log_record_processor(PromptLogProcessor(log_exporter))
        _logs.set_logger_provider(logger_provider)
        owned.append(logger_provider)

    providers = Providers(
        tracer_provider,
        metrics.get_meter_provider(),
        _logs.get_logger_provider(),
        settings,
        endpoint=route.target.url if route.target else None,
        store=route.store.store if route.store else None,
        owned=owned,
    )
    atexit.register(providers.shutdown)
    _flush_in_worker_processes(providers)
    return providers


def _flush_in_worker_processes(providers: Providers) -> None:
    """Have the children of ``multiprocessing`` flush too: they end by ``os._exit``, which calls no atexit function."""
    from multiprocessing import util

    def at_end(each: Providers) -> None:
        util.Finalize(None, each.shutdown, exitpriority=0)

    at_end(providers)  # where configure() was called in a worker
    util.register_after_fork(providers, at_end)


def _resource(settings: Settings, service_name: str | None, release: str | None) -> Resource:
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource

    given = {SERVICE_NAME: service_name, SERVICE_VERSION: release}
    resource = Resource.create({name: value for name, value in given.items() if value is not None})
    # LSTM_TRACE_RELEASE is the release of our spans; it names the service's version only where nothing else does.
    if settings.release and not resource.attributes.get(SERVICE_VERSION):
        resource = resource.merge(Resource({SERVICE_VERSION: settings.release}))
    return resource
