"""Which tracer is in force, and whether a span that starts here and now would record."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from opentelemetry import _logs, context, trace
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext

from lstm_trace import conventions as c
from lstm_trace.facts import Component
from lstm_trace.recorder.ambient import SPAN_KEY
from lstm_trace.recorder.lane import Lane
from lstm_trace.recorder.sampling import Forecast, forecast_of
from lstm_trace.recorder.starting import Starting
from lstm_trace.settings import Settings

SUPPRESS_KEY: Final = context.create_key("lstm_trace.suppress")
_SUPPRESS_PLAIN: Final = "suppress_instrumentation"
_SILENCERS: Final = frozenset({_SUPPRESS_INSTRUMENTATION_KEY, _SUPPRESS_PLAIN, SUPPRESS_KEY})


class Source(NamedTuple):
    """What follows from one TracerProvider: kept as long as the provider in force stays the same."""

    key: Any
    tracer: trace.Tracer
    forecast: Forecast
    records: bool
    release: str | None
    lane: Lane
    starting: Starting
    never: bool
    constants: dict[Component, dict[str, Any]]
    """What stands on every span of a component: filled as components are met."""


class Sources:
    """Knows the TracerProvider that was given, or else the global one in force at call time."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        logger_provider: _logs.LoggerProvider | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.settings = settings or Settings.from_env()
        self.clock = clock
        self._tracer_provider = tracer_provider
        self._logger_provider = logger_provider
        self._source_cache: Source | None = None
        self.on_provider: Callable[[Any], None] | None = None
        """Called with each TracerProvider that comes into force: an application may set its own after ``instrument()``."""

    def source(self) -> Source:
        """Return the provider in force and what follows from it."""
        key = self._tracer_provider or trace._TRACER_PROVIDER  # None until the application sets one
        known = self._source_cache
        if known is not None and known.key is key:
            return known
        provider: Any = key or trace.get_tracer_provider()
        key = self._tracer_provider or trace._TRACER_PROVIDER  # asking may have loaded the one that the environment names
        tracer = provider.get_tracer(c.SCOPE, schema_url=None)
        records = not isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider))
        resource = getattr(provider, "resource", None)
        version = resource.attributes.get("service.version") if resource is not None else None
        forecast = forecast_of(provider)
        never = not records or (forecast.root is False and forecast.child is False)
        lane = Lane(tracer)
        source = Source(key, tracer, forecast, records, self.settings.release or version, lane, Starting(tracer, lane), never, {})
        self._source_cache = source
        if self.on_provider is not None:
            self.on_provider(provider)
        return source

    @property
    def release(self) -> str | None:
        """The release that stands on every span: the setting, else ``service.version`` of the resource."""
        return self.source().release

    def suppressed(self, current: Context) -> bool:
        """Tell whether the user, or OpenTelemetry itself, asked for silence in this context."""
        return not _SILENCERS.isdisjoint(current) and any(map(current.get, _SILENCERS))

    def will_record(self, current: Context) -> bool | None:
        """Tell whether a span that starts in this context records; None where only the sampler knows."""
        span: Any = current.get(SPAN_KEY)
        return self.will_record_below(INVALID_SPAN_CONTEXT if span is None else span.get_span_context(), current)

    def will_record_below(self, parent: SpanContext, current: Context) -> bool | None:
        """Tell the same where the span of ``current`` has been asked already."""
        source = self._source_cache
        if source is None or source.key is not (self._tracer_provider or trace._TRACER_PROVIDER):
            source = self.source()
        if not source.records:
            return False
        forecast = source.forecast
        _, _, _, flags, _, is_valid = parent  # its properties are calls
        if not is_valid:
            decision = forecast.root
        elif not forecast.follows:
            decision = forecast.child
        elif flags & 1:
            decision = True
        else:
            return False  # below an unsampled parent nothing else is looked at
        return False if current and self.suppressed(current) else decision

    def never_records(self) -> bool:
        """Tell whether no span can record in any context: no provider, or a sampler that drops everything."""
        source = self._source_cache
        if source is None or source.key is not (self._tracer_provider or trace._TRACER_PROVIDER):
            source = self.source()
        return source.never
