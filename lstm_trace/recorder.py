"""The only room that starts spans, adds events and links and records metrics: facts in, telemetry out."""

from __future__ import annotations

import copy
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry import _logs, context, metrics, trace
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context
from opentelemetry.trace import INVALID_SPAN_CONTEXT, Link, NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags

from lstm_trace import ambient, upstream
from lstm_trace import attributes as to
from lstm_trace import conventions as c
from lstm_trace.ambient import SPAN_KEY
from lstm_trace.facts import Component, Evaluation, Prediction, SequenceFacts, StateFacts, Step, Summary, TraceRef
from lstm_trace.guard import shield
from lstm_trace.lane import Lane
from lstm_trace.late import LateSpan
from lstm_trace.sampling import Forecast, forecast_of
from lstm_trace.settings import Settings
from lstm_trace.upstream import live

if TYPE_CHECKING:
    from lstm_trace.calls import ComponentCall

Attributes = dict[str, Any]

SUPPRESS_KEY: Final = context.create_key("lstm_trace.suppress")
_SUPPRESS_PLAIN: Final = "suppress_instrumentation"
_LINKS_A_SPAN: Final = 128
_COHORTS_LIMIT: Final = 4096
_METERED_ROWS: Final = 64
_COUNTED_EVALUATIONS: Final = 8_192


class Event(NamedTuple):
    """One event to put on a span, at ``time_ns`` since the epoch (None: now)."""

    name: str
    attributes: Attributes
    time_ns: int | None = None


class OpenEvaluation(NamedTuple):
    """An evaluation under way: make ``context`` current around the evaluator's work, so that its own calls hang below its span."""

    where: SpanContext
    span: trace.Span
    context: Context


class OpenSpan:
    """A span held open while the user's code runs. ``context`` is what to make current around that code.

    ``attributes`` may be added to until ``finish``; they reach the span in one call.
    """

    __slots__ = ("_recorder", "attributes", "context", "group", "kind", "links", "name", "parent", "parent_context", "span", "start_ns")

    def __init__(self, recorder: Recorder, name: str, parent_context: Context, parent: SpanContext, start_ns: int) -> None:
        self._recorder = recorder
        self.name = name
        self.parent_context = parent_context
        self.parent = parent
        self.start_ns = start_ns
        self.attributes: Attributes = {}
        self.links: Sequence[Link] = ()
        self.kind = SpanKind.INTERNAL
        self.group: object = None
        self.span: trace.Span
        self.context: Context

    @property
    def span_context(self) -> SpanContext:
        """The span's own context; a late span starts when it is asked for it."""
        return self.span.get_span_context()

    def begin(self) -> trace.Span:
        """Start the real span with all that is known by now."""
        return self._recorder.begin(self)

    def event(self, event: Event) -> None:
        """Add an event now."""
        self.span.add_event(event.name, event.attributes, event.time_ns)

    def finish(
        self,
        attributes: Attributes | None = None,
        events: Sequence[Event] = (),
        *,
        error: BaseException | None = None,
        end_ns: int | None = None,
    ) -> None:
        """End the span with what was learned since it started."""
        self._recorder.finish(self, attributes, events, error, end_ns)


class RunSpan:
    """The open span of one run of a chain. The caller gives it the ``context`` to make current around that run's code."""

    __slots__ = ("context", "outermost", "recording", "span", "span_context", "start_ns")

    def __init__(self, span: trace.Span, span_context: SpanContext, start_ns: int, recording: bool, outermost: bool) -> None:
        self.span = span
        self.span_context = span_context
        self.start_ns = start_ns
        self.recording = recording
        self.outermost = outermost
        self.context: Context


class Source(NamedTuple):
    """What follows from one TracerProvider: kept as long as the provider in force stays the same."""

    key: Any
    tracer: trace.Tracer
    forecast: Forecast
    records: bool
    release: str | None
    lane: Lane
    never: bool


class Recorder:
    """Writes facts as telemetry to the given providers, or to the global ones in force at call time."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
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
        self._cohorts: dict[int, str] = {}
        sink = self.settings.events if self.settings.max_events else "off"
        self.events_on_span = sink in ("span", "both")
        self.events_on_log = sink in ("log", "both")
        self.as_event = self.settings.span == "event" and sink != "off"
        self._constants: dict[Component, Attributes] = {}
        self._counted: OrderedDict[tuple[str, str, str | None], None] = OrderedDict()
        meter = metrics.get_meter(c.SCOPE, meter_provider=meter_provider)
        self._duration = meter.create_histogram(c.METRIC_DURATION, "s", "Duration of a component call.")
        self._waits_for_meters = hasattr(self._duration, "_real_instrument")
        self._meters = not isinstance(self._duration, metrics.NoOpHistogram)
        self._confidence = meter.create_histogram(c.METRIC_CONFIDENCE, "1", "Confidence of a prediction.")
        self._length = meter.create_histogram(c.METRIC_LENGTH, "{step}", "True length of a sequence.")
        self._evaluations = meter.create_counter(c.METRIC_EVALUATIONS, "{result}", "Evaluations.")
        self._dropped = meter.create_counter(c.METRIC_EVALUATIONS_DROPPED, "{evaluation}", "Online evaluations that were dropped.")
        self._escalations = meter.create_counter(c.METRIC_ESCALATIONS, "{escalation}", "Escalations.")
        self._feedback = meter.create_counter(c.METRIC_FEEDBACK, "{feedback}", "Feedback.")
        self._resets = meter.create_counter(c.METRIC_STATE_RESETS, "{reset}", "State resets.")
        self._leaks = meter.create_counter(c.METRIC_STATE_LEAKS, "{leak}", "Foreign states passed in.")
        self._operation = meter.create_histogram(c.METRIC_OPERATION_DURATION, "s", "Duration of a model call.")
        self._tokens = meter.create_histogram(c.METRIC_TOKEN_USAGE, "{token}", "Tokens of a model call.")

    # --- Where telemetry goes ----------------------------------------------------------------------------------------------

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
        source = Source(key, tracer, forecast, records, self.settings.release or version, Lane(tracer), never)
        self._constants = {}
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
        get = current.get
        return bool(get(_SUPPRESS_INSTRUMENTATION_KEY) or get(_SUPPRESS_PLAIN) or get(SUPPRESS_KEY))

    def will_record(self, current: Context) -> bool | None:
        """Tell whether a span that starts in this context records; None where only the sampler knows."""
        source = self._source_cache
        if source is None or source.key is not (self._tracer_provider or trace._TRACER_PROVIDER):
            source = self.source()
        if not source.records:
            return False
        if not current:
            return source.forecast.root
        span: Any = current.get(SPAN_KEY)
        if span is None:
            return False if self.suppressed(current) else source.forecast.root
        parent = span.get_span_context()
        # the parent's flag first: below an unsampled parent nothing else is looked at
        if source.forecast.follows and parent.is_valid and not parent.trace_flags & 1:
            return False
        return False if self.suppressed(current) else source.forecast.records(parent)

    def never_records(self) -> bool:
        """Tell whether no span can record in any context: no provider, or a sampler that drops everything."""
        source = self._source_cache
        if source is None or source.key is not (self._tracer_provider or trace._TRACER_PROVIDER):
            source = self.source()
        return source.never

    # --- Spans -------------------------------------------------------------------------------------------------------------

    def open(
        self,
        name: str,
        *,
        current: Context | None = None,
        attributes: Attributes | None = None,
        links: Sequence[Link] = (),
        kind: SpanKind = SpanKind.INTERNAL,
        group: object = None,
        start_ns: int | None = None,
        late: bool = False,
    ) -> OpenSpan | None:
        """Open a span below ``current`` (default: the current context), or return None where it would not record.

        ``late`` defers the real span to the first touch or to ``finish``. ``group`` marks siblings that belong side by side.
        """
        parent_context = context.get_current() if current is None else current
        forecast = self.will_record(parent_context)
        if forecast is False:
            return None
        parent = trace.get_current_span(parent_context).get_span_context()
        opened = OpenSpan(self, name, parent_context, parent, self.clock() if start_ns is None else start_ns)
        if attributes:
            opened.attributes = attributes
        opened.links, opened.kind, opened.group = links, kind, group
        # Only where the decision is certain may the start wait: else facts would be computed for a span that the sampler drops.
        span = LateSpan(opened.begin) if late and forecast else opened.begin()
        if not isinstance(span, LateSpan) and not span.is_recording():
            return None
        opened.span = span
        opened.context = ambient.with_span(span, parent_context)
        return opened

    def open_run(
        self,
        name: str,
        current: Context,
        attributes: Mapping[str, Any],
        details: Mapping[str, Any] | None = None,
        facts: Mapping[str, Any] | None = None,
        links: Sequence[Link] = (),
        kind: SpanKind = SpanKind.INTERNAL,
        group: object = None,
    ) -> RunSpan | None:
        """Open the span of a chain's run below ``current``, or return None where it is certain that it would not record.

        A sampler sees ``attributes``; ``details`` and ``facts`` join them, and ``facts`` are also what the caller is to hand down. A span
        that the sampler refused is returned as well, so that what runs below it is refused with it. Suppression is the caller's to ask for.
        """
        source = self.source()
        above: Any = current.get(SPAN_KEY)
        parent: SpanContext = INVALID_SPAN_CONTEXT if above is None else above.get_span_context()
        if not source.records or (source.forecast.root if above is None else source.forecast.records(parent)) is False:
            return None
        below = live.node(parent.span_id) if above is not None else None
        seen = upstream.visible(below, group) if below is not None else None
        if seen is None and self.settings.baggage and (parent.is_remote or not parent.is_valid):
            seen = upstream.from_baggage(current)
        if seen is not None and attributes.get(c.OI_KIND, attributes.get(c.GEN_AI_OPERATION)) in _LLM_KINDS and seen.span_context.is_valid:
            links = [*links, Link(seen.span_context, {c.LINK_KIND: "upstream"})]
        now = self.clock()
        span = source.tracer.start_span(name, current, kind, attributes, links, now, record_exception=False)
        span_context = span.get_span_context()
        recording = span.is_recording()
        if recording:
            more = upstream.with_upstream(facts or {}, seen)
            if details:
                more.update(details)
            if source.release is not None:
                more[c.RELEASE] = source.release
            if more:
                source.lane.put(span, more)
            live.began(span, span_context, below, seen)
        return RunSpan(span, span_context, now, recording, above is None or parent.is_remote)

    def close_run(
        self,
        opened: RunSpan,
        attributes: Attributes,
        events: Sequence[tuple[str, Attributes, int]],
        error: BaseException | None,
        end_ns: int,
    ) -> None:
        """End the span of a chain's run: clean attributes, ``(name, attributes, time in ns)`` events, then the error."""
        span = opened.span
        if attributes or events:
            lane = self.source().lane
            if attributes:
                lane.put(span, attributes)
            for name, details, when in events:
                lane.note(span, name, details, when)
        if error is not None:
            self._fail(span, error)
        span.end(end_ns)
        live.leave(opened.span_context)
        if opened.outermost:
            upstream.last_outermost.set(opened.span_context)

    def begin(self, opened: OpenSpan | ComponentCall, *, certain: bool = False) -> trace.Span:
        """Start the real span of ``opened`` with its attributes, all that it inherits, and its links.

        ``certain``: it is recorded whatever the sampler would say.
        """
        source = self.source()
        seen = live.upstream(opened.parent, group=opened.group)
        if seen is None and self.settings.baggage and (opened.parent.is_remote or not opened.parent.is_valid):
            seen = upstream.from_baggage(opened.parent_context)
        attributes = upstream.inherited(opened.parent_context, seen)
        if source.release is not None:
            attributes[c.RELEASE] = source.release
        attributes.update(opened.attributes)
        opened.attributes = {}
        links = opened.links
        if seen is not None and attributes.get(c.OI_KIND, attributes.get(c.GEN_AI_OPERATION)) in _LLM_KINDS and seen.span_context.is_valid:
            links = [*links, Link(seen.span_context, {c.LINK_KIND: "upstream"})]
        tracer = _always_on(source.tracer) if certain else source.tracer
        span = tracer.start_span(
            opened.name, opened.parent_context, opened.kind, attributes, links, opened.start_ns, record_exception=False
        )
        if span.is_recording():
            live.enter(span, opened.parent, group=opened.group, upstream=seen)
        return span

    def finish(
        self,
        opened: OpenSpan | ComponentCall,
        attributes: Attributes | None,
        events: Sequence[Event],
        error: BaseException | None,
        end_ns: int | None,
    ) -> None:
        """End the span of ``opened``: attributes in one call, then events, then the error."""
        if attributes:
            opened.attributes.update(attributes)
        span = opened.span
        if isinstance(span, LateSpan):
            span = span.start()
        if opened.attributes:
            span.set_attributes(opened.attributes)
        for event in events:
            span.add_event(event.name, event.attributes, event.time_ns)
        if error is not None:
            self._fail(span, error)
        span.end(self.clock() if end_ns is None else end_ns)
        span_context = span.get_span_context()
        live.leave(span_context)
        if not opened.parent.is_valid or opened.parent.is_remote:
            upstream.last_outermost.set(span_context)

    def _fail(self, span: trace.Span, error: BaseException) -> None:
        kind = type(error)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        details: Attributes = {"exception.type": name, "exception.escaped": "True"}
        text = None
        if self.settings.content:
            text = self.text(str(error))
            details["exception.message"] = text
            details["exception.stacktrace"] = self.text("".join(traceback.format_exception(error)))
        span.set_attribute(c.ERROR_TYPE, name)
        span.add_event(c.EVENT_EXCEPTION, details)
        span.set_status(StatusCode.ERROR, f"{name}: {text}" if text else name)

    def text(self, content: str) -> str:
        """Prepare a text that the user allowed us to record: redacted, then bounded."""
        redact = self.settings.redact
        if redact is not None:
            content = redact(content)
        return content[: self.settings.content_limit]

    # --- Components --------------------------------------------------------------------------------------------------------

    def open_component(self, component: Component, *, current: Context | None = None, start_ns: int | None = None) -> OpenSpan | None:
        """Open the span of one component call, or return None where it would not record."""
        return self.open("lstm " + component.name, current=current, start_ns=start_ns, late=True)

    def finish_component(
        self,
        opened: OpenSpan | ComponentCall,
        component: Component,
        predictions: Sequence[Prediction] = (),
        sequence: SequenceFacts | None = None,
        state: StateFacts | None = None,
        *,
        extra: Mapping[str, Any] | None = None,
        error: BaseException | None = None,
        end_ns: int | None = None,
        rows: Sequence[int] = (),
        summary: Summary | None = None,
    ) -> None:
        """End one component call: attributes, one event a sequence, metrics; then let later spans see its prediction.

        ``predictions`` and ``sequence.lengths`` run over the rows of the batch; either may be empty where it is not known. Of a large
        batch ``predictions`` are those of ``rows``, and ``summary`` speaks for all.
        """
        end = self.clock() if end_ns is None else end_ns
        constants = self.constants_of(component)
        attributes = dict(constants)
        if extra:
            attributes.update(extra)
        if sequence is not None:
            to.add_sequence(attributes, sequence, self.settings)
        elif predictions:
            attributes[c.BATCH_SIZE] = len(predictions)
        if summary is not None:
            to.add_summary(attributes, summary)
        elif len(predictions) == 1:
            to.add_prediction(attributes, predictions[0])
        elif predictions:
            to.add_batch(attributes, predictions)
        if state is not None:
            to.add_state(attributes, state)
        on_span, on_log = self.events_on_span, self.events_on_log
        step = upstream.context_facts(opened.parent_context).get(c.TRAJECTORY_STEP) if on_span or on_log else None
        events = self._prediction_events(predictions, sequence, state, step, end, rows) if on_span or on_log else []
        if isinstance(opened.span, LateSpan) and opened.span.real is None:
            opened.attributes.update(attributes)  # they go into the one call that starts the span
            attributes = {}
        if on_span:
            span, note = opened.span, self.source().lane.note
            real = span.start() if isinstance(span, LateSpan) else span
            for event in events:
                note(real, event.name, event.attributes, end)
        opened.finish(attributes, error=error, end_ns=end)
        if on_log:
            self._log(events, opened.context)
        cohort = None
        if predictions or sequence is not None:
            cohort = self.publish(opened, component, predictions, sequence)
        if self.is_metering():
            self.component_metrics(component, predictions, sequence, cohort, (end - opened.start_ns) / 1e9, opened.context)

    def finish_as_events(
        self,
        call: ComponentCall,
        component: Component,
        predictions: Sequence[Prediction],
        sequence: SequenceFacts | None,
        state: StateFacts | None,
        end_ns: int,
    ) -> None:
        """End the call of a batch as one event a sequence on the span that was current around it (``LSTM_TRACE_SPAN=event``)."""
        span = trace.get_current_span(call.parent_context)
        constants = self.constants_of(component)
        step = upstream.context_facts(call.parent_context).get(c.TRAJECTORY_STEP)
        for event in self._prediction_events(predictions, sequence, state, step, end_ns):
            attributes = {**constants, c.BATCH_SIZE: len(predictions), **event.attributes}
            del attributes[c.OI_KIND]
            self.source().lane.note(span, event.name, attributes, end_ns)
        if self.is_metering():
            self.component_metrics(component, predictions, sequence, None, (end_ns - call.start_ns) / 1e9, call.parent_context)

    def finish_stream(
        self, opened: OpenSpan, component: Component, last: Prediction | None, facts: Attributes, error: BaseException | None = None
    ) -> None:
        """End the span of a streamed session; its last prediction is what later spans see. One duration is recorded for all its calls."""
        end = self.clock()
        opened.finish({**self.constants_of(component), **facts}, error=error, end_ns=end)
        if last is not None:
            self.publish(opened, component, (last,), None)
        self._duration.record((end - opened.start_ns) / 1e9, self._labels(component.name, None), opened.context)

    def finish_batch(
        self,
        call: ComponentCall,
        component: Component,
        size: int,
        compute: float,
        predictions: Sequence[Prediction],
        sequence: SequenceFacts | None,
        error: BaseException | None,
        end_ns: int,
    ) -> None:
        """End the span of a forward pass made for ``size`` requests; what it said about each stands on the request's own span."""
        attributes = {**self.constants_of(component), c.BATCH_SIZE: size, c.BATCH_COMPUTE: compute}
        to.add_batch(attributes, predictions)
        ratio = sequence.padding_ratio if sequence is not None else None
        if ratio is not None:
            attributes[c.SEQUENCE_PADDING_RATIO] = ratio
        self.finish(call, attributes, (), error, end_ns)

    def continue_batch(self, call: ComponentCall, component: Component, size: int, links: Sequence[Link], end_ns: int) -> None:
        """Write the links that the batch span had no room for on a span below it."""
        opened = self.open(
            call.name,
            current=trace.set_span_in_context(NonRecordingSpan(call.span_context), Context()),
            attributes={**self.constants_of(component), c.BATCH_SIZE: size},
            links=links,
            start_ns=call.start_ns,
        )
        if opened is not None:
            opened.finish(end_ns=end_ns)

    def publish(
        self, opened: OpenSpan | ComponentCall, component: Component, predictions: Sequence[Prediction], sequence: SequenceFacts | None
    ) -> str | None:
        """Let spans that start from now on see this prediction; return its cohort. A batch of several sequences speaks for none of them."""
        lengths: Sequence[int] = sequence.lengths if sequence is not None else ()
        length = lengths[0] if len(lengths) == 1 else None
        cohort = self.settings.cohort(length) if length is not None else None
        if len(predictions) == 1:
            seen = predictions[0]
            fact = Prediction(
                seen.label,
                seen.index,
                to.exact_float(seen.confidence),
                seen.margin,
                seen.entropy,
                seen.nonfinite,
                component.name,
                length,
                cohort,
                trace.format_span_id(opened.span_context.span_id),
            )
            session = upstream.context_facts(opened.context).get(c.SESSION_ID)
            live.publish(upstream.describe(fact, opened.span_context, session), opened.parent)
        return cohort

    def constants_of(self, component: Component) -> Attributes:
        """Return what stands on every span of a component; the caller copies it."""
        release = self.source().release
        known = self._constants.get(component)
        if known is None:
            known = self._constants[component] = to.component_constants(component, release)
        return known

    def cohort(self, length: int) -> str:
        """Name the cohort of a length; remembered, because the same few hundred lengths come for ever."""
        known = self._cohorts.get(length)
        if known is None:
            if len(self._cohorts) >= _COHORTS_LIMIT:
                self._cohorts.clear()
            known = self._cohorts[length] = self.settings.cohort(length)
        return known

    def _prediction_events(
        self,
        predictions: Sequence[Prediction],
        sequence: SequenceFacts | None,
        state: StateFacts | None,
        step: int | None,
        now: int,
        rows: Sequence[int] = (),
    ) -> list[Event]:
        lengths: Sequence[int] = sequence.lengths if sequence is not None else ()
        shown = predictions[: self.settings.max_events]
        return [
            Event(
                c.EVENT_PREDICTION,
                to.prediction_event(each, row, lengths[row] if row < len(lengths) else None, self.settings, state, step),
                now,
            )
            for row, each in zip(rows or range(len(shown)), shown, strict=False)
        ]

    def log_prediction(self, attributes: Attributes, now: int, current: Context) -> None:
        """Write one ``lstm.prediction`` as a log event."""
        self._log([Event(c.EVENT_PREDICTION, attributes, now)], current)

    def _log(self, events: Sequence[Event], current: Context) -> None:
        logger = _logs.get_logger(c.SCOPE, logger_provider=self._logger_provider)
        for event in events:
            logger.emit(timestamp=event.time_ns, context=current, event_name=event.name, attributes=event.attributes)

    # --- Metrics -----------------------------------------------------------------------------------------------------------

    def _labels(self, component: str | None, cohort: str | None) -> Attributes:
        labels: Attributes = {}
        if component is not None:
            labels[c.COMPONENT_NAME] = component
        if cohort is not None:
            labels[c.SEQUENCE_COHORT] = cohort
        release = self.source().release
        if release is not None:
            labels[c.RELEASE] = release
        return labels

    def component_metrics(
        self,
        component: Component,
        predictions: Sequence[Prediction],
        sequence: SequenceFacts | None,
        cohort: str | None,
        seconds: float,
        current: Context,
    ) -> None:
        """Record one call's duration (seconds), and the length and confidence of its sequences: the first 64 of a larger batch."""
        self._duration.record(seconds, self._labels(component.name, cohort), current)
        lengths: Sequence[int] = sequence.lengths[:_METERED_ROWS] if sequence is not None else ()
        for length in lengths:
            self._length.record(length, self._labels(component.name, self.settings.cohort(length)), current)
        for row, each in enumerate(predictions[:_METERED_ROWS]):
            confidence = to.exact_float(each.confidence)
            if confidence is not None:
                where = self.settings.cohort(lengths[row]) if row < len(lengths) else None
                self._confidence.record(confidence, self._labels(component.name, where), current)

    def is_metering(self) -> bool:
        """Tell whether anything records our metrics; the API's stand-in for a provider that is not there yet does not."""
        if self._waits_for_meters:
            real = self._duration._real_instrument  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
            if real is None:
                return False
            self._waits_for_meters = False
            self._meters = not isinstance(real, metrics.NoOpHistogram)
        return self._meters

    def count_reset(self, component: str) -> None:
        """Count a reset of a component's state."""
        self._resets.add(1, self._labels(component, None))

    def count_leak(self, component: str) -> None:
        """Count a foreign state that was passed to a component."""
        self._leaks.add(1, self._labels(component, None))

    def record_operation(self, seconds: float, tokens: Mapping[str, int], labels: Attributes, current: Context) -> None:
        """Record a model call's duration (seconds) and its ``input`` and ``output`` tokens."""
        self._operation.record(seconds, labels, current)
        for kind, count in tokens.items():
            self._tokens.record(count, {**labels, c.GEN_AI_TOKEN_TYPE: kind}, current)

    # --- Trajectory --------------------------------------------------------------------------------------------------------

    def step_event(self, agent: OpenSpan, step: Step, time_ns: int | None = None) -> None:
        """Put one ``agent.trajectory.step`` event on the agent's span."""
        agent.event(Event(c.EVENT_STEP, upstream.step_facts(step), time_ns))

    # --- Evaluations -------------------------------------------------------------------------------------------------------

    def evaluate(self, evaluation: Evaluation, copies: Mapping[str, Any] | None = None) -> None:
        """Write one evaluation: its span with one link to the target, the target's own attributes while it records, metrics, a log.

        ``copies`` are facts of the target (release, cohort …) that the caller knows from elsewhere, such as a store.
        """
        self.finish_evaluation(self.open_evaluation(evaluation.name, evaluation.target), evaluation, copies)

    def open_evaluation(self, name: str, target: TraceRef, *, placement: str | None = None) -> OpenEvaluation:
        """Start the span of an evaluation that is under way; ``placement`` (``child`` or ``link``) goes before the setting.

        Nothing is recorded where the target was not sampled, nor below the context that it returns.
        """
        flags = TraceFlags(TraceFlags.SAMPLED if target.sampled else TraceFlags.DEFAULT)
        node = _open_target(target.trace_id, target.span_id)
        where = node.span_context if node is not None else SpanContext(target.trace_id, target.span_id, is_remote=True, trace_flags=flags)
        parent = trace.set_span_in_context(NonRecordingSpan(where), Context())
        source = self.source()
        if not source.records or not target.sampled:
            return OpenEvaluation(where, NonRecordingSpan(where), parent)
        placement = placement or self.settings.evaluation_span
        if placement == "auto":
            placement = "child" if live.trace_is_open(where.trace_id) else "link"
        tracer = source.tracer
        if placement == "link":
            # A trace of its own: no other span's sampling decision applies, and the target was sampled, so this must be.
            parent = Context()
            tracer = _always_on(tracer)
        span = tracer.start_span(
            f"evaluate {name}",
            parent,
            SpanKind.INTERNAL,
            {c.OI_KIND: "EVALUATOR", c.EVALUATION_NAME: name},
            [Link(where, {c.LINK_KIND: "evaluation"})],
            self.clock(),
        )
        live.enter(span, trace.get_current_span(parent).get_span_context())
        facts = upstream.with_facts(parent, {c.EVALUATION_JUDGE_NAME: name})
        # A stand-in with the same ids: some evaluators write on the current span, an outage as score 0.0 among other things.
        return OpenEvaluation(where, span, trace.set_span_in_context(NonRecordingSpan(span.get_span_context()), facts))

    def finish_evaluation(self, opened: OpenEvaluation, evaluation: Evaluation, copies: Mapping[str, Any] | None = None) -> None:
        """End an evaluation with its judgement."""
        where, span = opened.where, opened.span
        attributes = to.evaluation_attributes(evaluation)
        attributes.update(self._facts_of_target(where))
        attributes.update(copies or {})
        if span.is_recording():
            span.set_attributes(attributes)
            if evaluation.status == "error":
                span.set_status(StatusCode.ERROR, evaluation.error_type)
            now = self.clock()
            span.end(now)
            live.leave(span.get_span_context())
            self._log([Event(c.EVENT_EVALUATION, attributes, now)], trace.set_span_in_context(NonRecordingSpan(where), Context()))
            node = _open_target(where.trace_id, where.span_id)
            if node is not None and node.span is not None and node.span.is_recording():
                self._mark_target(evaluation, node.span, attributes)
        self._count_evaluation(evaluation, attributes)

    def count_dropped_evaluation(self, name: str) -> None:
        """Count an online evaluation that did not run because its queue was full."""
        self._dropped.add(1, {c.EVALUATION_NAME: name})

    def _facts_of_target(self, where: SpanContext) -> Attributes:
        # The release of this process says nothing about a target that ran in another one, perhaps weeks ago.
        seen = live.recent(where)
        facts: Attributes = {}
        if self.release is not None and (seen is not None or _open_target(where.trace_id, where.span_id) is not None):
            facts[c.RELEASE] = self.release
        if seen is not None:
            prediction = seen.prediction
            for name, value in (
                (c.SEQUENCE_COHORT, prediction.cohort),
                (c.PREDICTION_CONFIDENCE, prediction.confidence),
                (c.COMPONENT_NAME, prediction.component),
            ):
                if value is not None:
                    facts[name] = value
        return facts

    def _count_evaluation(self, evaluation: Evaluation, attributes: Mapping[str, Any]) -> None:
        # A webhook that is delivered twice is one judgement: the same answer under the same identifier counts once.
        key = (evaluation.identifier, evaluation.status, evaluation.label)
        if key in self._counted:
            return
        if len(self._counted) >= _COUNTED_EVALUATIONS:
            self._counted.popitem(last=False)
        self._counted[key] = None
        labels = {name: attributes[name] for name in (c.COMPONENT_NAME, c.SEQUENCE_COHORT, c.RELEASE) if name in attributes}
        judged = {**labels, c.EVALUATION_NAME: evaluation.name, c.EVALUATION_STATUS: evaluation.status}
        if evaluation.label is not None:
            judged[c.EVALUATION_LABEL] = evaluation.label
        self._evaluations.add(1, judged)
        if evaluation.name == "escalation":
            self._escalations.add(1, labels)
        elif evaluation.name == "feedback":
            self._feedback.add(1, {**labels, c.EVALUATION_LABEL: evaluation.label or ""})

    def _mark_target(self, evaluation: Evaluation, span: trace.Span, attributes: Attributes) -> None:
        shown: Attributes = {name: attributes[name] for name in _EVALUATION_EVENT if name in attributes}
        span.add_event(c.EVENT_EVALUATION, shown)
        if c.EVALUATION_SCORE in attributes:
            span.set_attribute(c.EVALUATION_SCORE_OF + evaluation.name, attributes[c.EVALUATION_SCORE])
        if c.EVALUATION_LABEL in attributes:
            span.set_attribute(c.EVALUATION_LABEL_OF + evaluation.name, attributes[c.EVALUATION_LABEL])


def _open_target(trace_id: int, span_id: int) -> upstream.Node | None:
    node = live.node(span_id)
    return node if node is not None and node.span_context.trace_id == trace_id else None


_LLM_KINDS: Final = frozenset({"LLM", "chat", "text_completion"})
_EVALUATION_EVENT: Final = (
    c.EVALUATION_NAME,
    c.EVALUATION_SCORE,
    c.EVALUATION_LABEL,
    c.EVALUATION_EXPLANATION,
    c.EVALUATION_STATUS,
    c.EVALUATION_IDENTIFIER,
    c.EVALUATION_EVALUATOR_VERSION,
    c.EVALUATION_ANNOTATOR,
    c.ERROR_TYPE,
)


def _always_on(tracer: trace.Tracer) -> trace.Tracer:
    if not hasattr(tracer, "sampler"):
        return tracer
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    mine = copy.copy(tracer)
    mine.sampler = ALWAYS_ON  # pyright: ignore[reportAttributeAccessIssue]
    return mine


# --- The recorder in force -------------------------------------------------------------------------------------------------

_default: Recorder | None = None


def default_recorder() -> Recorder:
    """Return the recorder that the application's own calls use: set by ``instrument()`` or made from the environment."""
    global _default
    if _default is None:
        _default = Recorder()
        shield.strict = shield.strict or _default.settings.strict
    return _default


def set_default_recorder(recorder: Recorder | None) -> None:
    """Put ``recorder`` in force; None forgets it."""
    global _default
    _default = recorder
    if recorder is not None and recorder.settings.strict:
        shield.strict = True
