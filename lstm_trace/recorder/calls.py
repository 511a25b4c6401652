"""One component call from before the user's code to its finished span: the recorder's short way, for one sequence at a time.

It writes what ``Recorder.finish_component`` writes (a test holds the two together) with one dict, one span made after the user's code,
and no fact built that nobody asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind

from lstm_trace import upstream
from lstm_trace.conventions import (
    BATCH_INDEX,
    BATCH_SIZE,
    EVENT_PREDICTION,
    OI_KIND,
    PREDICTION_CONFIDENCE,
    PREDICTION_ENTROPY,
    PREDICTION_INDEX,
    PREDICTION_LABEL,
    PREDICTION_MARGIN,
    PREDICTION_NONFINITE,
    SEQUENCE_COHORT,
    SEQUENCE_LENGTH,
    SEQUENCE_LENGTH_SOURCE,
    SEQUENCE_PADDING_RATIO,
    SESSION_ID,
    STATE_ORIGIN,
    STATE_STEPS,
    TRAJECTORY_STEP,
)
from lstm_trace.facts import Component, Prediction, Said, SequenceFacts, Single, StateFacts
from lstm_trace.recorder import ambient
from lstm_trace.recorder.late import Late, LateSpan
from lstm_trace.recorder.meters import Meters
from lstm_trace.settings import Settings
from lstm_trace.upstream import FACTS_KEY, Upstream, live

Attributes = dict[str, Any]

WATCH_KEY: Final = "lstm_trace.watch"
"""Where, in the context, the recurrent layers inside a component find the call that they belong to."""


class Writer(Protocol):
    """What a call needs of the recorder, which stands above this module."""

    settings: Settings
    events_on_span: bool
    events_on_log: bool
    meters: Meters
    cohorts: Any
    """Names of cohorts by length."""

    def source(self) -> Any: ...
    def begin(self, opened: Any) -> Span: ...
    def finish(self, opened: Any, attributes: Any, events: Any, error: BaseException | None, end_ns: int | None) -> None: ...
    def constants_of(self, component: Component) -> Attributes: ...
    def log_prediction(self, attributes: Attributes, now: int, current: Context) -> None: ...


def as_prediction(said: Said) -> Prediction:
    """Return what was said as the fact that others are given."""
    return said if isinstance(said, Prediction) else Prediction(*said)


def add_single(attributes: Attributes, said: Single) -> None:
    """Write what was said about one sequence; its numbers are exact already."""
    label, index, confidence, margin, entropy, nonfinite = said
    if label is not None:
        attributes[PREDICTION_LABEL] = label
    if index is not None:
        attributes[PREDICTION_INDEX] = index
    if nonfinite:
        attributes[PREDICTION_NONFINITE] = True
    elif confidence is not None:
        attributes[PREDICTION_CONFIDENCE] = confidence
        if margin is not None:
            attributes[PREDICTION_MARGIN] = margin
        if entropy is not None:
            attributes[PREDICTION_ENTROPY] = entropy


class Described:
    """A component and what stands on every span of one sequence: ``constants``, built once for the ``source`` in force and copied a call.

    ``noted`` is the same for an event, which is of no kind, and names its row.
    """

    __slots__ = ("component", "constants", "noted", "source", "span_name")

    def __init__(self, component: Component) -> None:
        self.component = component
        self.span_name = "lstm " + component.name
        self.source: Any = None
        self.constants: Attributes = {}
        self.noted: Attributes = {}

    def learn(self, recorder: Writer, source: Any) -> None:
        """Build the constants for another source."""
        self.constants = {**recorder.constants_of(self.component), BATCH_SIZE: 1}
        self.noted = {name: value for name, value in self.constants.items() if name != OI_KIND} | {BATCH_INDEX: 0}
        self.source = source


class ComponentCall(Late):
    """A component call under way: all that its span needs, should something touch the stand-in for it.

    Whoever makes one sets every slot: a constructor of its own would cost each call one frame more.
    """

    __slots__ = ("attributes", "described", "parent", "parent_context", "recorder", "start_ns", "written")

    links: tuple[Link, ...] = ()
    kind = SpanKind.INTERNAL
    group: object = None

    recorder: Any
    """A Writer; whoever stands above knows more of it."""
    described: Described
    parent_context: Context
    parent: SpanContext
    start_ns: int
    attributes: Attributes
    written: SpanContext | None
    """Where the call stands once it was written without ever having been touched: whoever kept it and touches it now, finds that."""

    @property
    def context(self) -> Context:
        """What is current while the user's code runs. Not kept: it holds the call, and a cycle would wait for the garbage collector."""
        return Context({**self.parent_context, ambient.SPAN_KEY: LateSpan(self), WATCH_KEY: self})

    def make(self) -> Span:
        """Start the real span: something inside the user's code asked for it."""
        if self.written is not None:
            return NonRecordingSpan(self.written)
        recorder: Writer = self.recorder
        return recorder.begin(self)

    # What an OpenSpan has, so that the recorder's general way can finish a call too.

    @property
    def name(self) -> str:
        """The span's name."""
        return self.described.span_name

    @property
    def span_context(self) -> SpanContext:
        """The real span's own context."""
        return self.start().get_span_context()

    def event(self, event: Any) -> None:
        """Add an event now."""
        self.start().add_event(event.name, event.attributes, event.time_ns)

    def finish(
        self, attributes: Attributes | None = None, events: Any = (), *, error: BaseException | None = None, end_ns: int | None = None
    ) -> None:
        """End the span with what was learned since it started."""
        self.recorder.finish(self, attributes, events, error, end_ns)


def finish_single(
    call: ComponentCall,
    said: Single | None,
    length: int | None,
    source: str | None,
    padded_steps: int | None,
    state: StateFacts | None,
    end_ns: int,
    *,
    as_event: bool = False,
) -> None:
    """End the call of one sequence: its span with its event, its metrics, and what later spans see of it.

    ``as_event`` makes it one event on the span that is current around the call instead (``LSTM_TRACE_SPAN=event``).
    """
    recorder: Writer = call.recorder
    where = recorder.source()
    current = call.parent_context
    described = call.described
    if described.source is not where:
        described.learn(recorder, where)
    attributes = described.noted.copy() if as_event else described.constants.copy()
    if length is None and said is None:
        del attributes[BATCH_SIZE]
    if call.attributes:
        attributes.update(call.attributes)
        call.attributes = {}
    # Of this one sequence: its event says it as well, or nothing but its event does.
    spoken: Attributes = attributes if as_event else {}
    cohort = None
    if length is not None:
        cohort = recorder.cohorts[length]
        attributes[SEQUENCE_LENGTH_SOURCE] = source
        if padded_steps:
            attributes[SEQUENCE_PADDING_RATIO] = 1.0 - length / padded_steps
        spoken[SEQUENCE_LENGTH] = length
        spoken[SEQUENCE_COHORT] = cohort
    if said is not None:
        add_single(spoken, said)
    if state is not None:
        spoken[STATE_ORIGIN] = state.origin
        if state.steps is not None:
            attributes[STATE_STEPS] = state.steps
    if not as_event:
        attributes.update(spoken)
        spoken[BATCH_INDEX] = attributes.get(BATCH_INDEX, 0)
    inherited: Any = current.get(FACTS_KEY)
    if inherited is not None and TRAJECTORY_STEP in inherited:
        spoken[TRAJECTORY_STEP] = inherited[TRAJECTORY_STEP]
    if as_event:
        span_context = call.written = call.parent
        where.lane.note(current[ambient.SPAN_KEY], EVENT_PREDICTION, attributes, end_ns)
    else:
        span_context = write(call, recorder, where, attributes, (spoken,) if said is not None else (), inherited, end_ns)
    if said is not None:
        session = inherited.get(SESSION_ID) if inherited is not None else None
        fact = (*said, described.component.name, length, cohort)
        live.publish(Upstream(fact, span_context, None, session), call.parent)
    if recorder.meters.is_on():
        _metrics(call, said, length, source, cohort, end_ns, span_context)


def write(
    call: ComponentCall, recorder: Writer, where: Any, attributes: Attributes, events: Sequence[Attributes], inherited: Any, end_ns: int
) -> SpanContext:
    """Write the span of a call that is over: whole where nothing has touched it yet, else what is missing on it."""
    current, parent, lane = call.parent_context, call.parent, where.lane
    noted = events if recorder.events_on_span else ()
    span = call.real
    if span is None:
        seen = live.upstream(parent)
        if seen is None and recorder.settings.baggage and (parent.is_remote or not parent.is_valid):
            seen = upstream.from_baggage(current)
        if inherited is not None:
            attributes = {**upstream.with_upstream(inherited, seen), **attributes}
        elif seen is not None:
            attributes.update(seen.attributes)
        span_context: SpanContext = lane.write(
            call.described.span_name, current, parent, call.links, attributes, EVENT_PREDICTION, noted, call.start_ns, end_ns
        )
        call.written = span_context
    else:
        span.set_attributes(attributes)
        for each in noted:
            lane.note(span, EVENT_PREDICTION, each, end_ns)
        span.end(end_ns)
        span_context = span.get_span_context()
        live.leave(span_context)
    if events and recorder.events_on_log:
        for each in events:
            recorder.log_prediction(each, end_ns, ambient.with_span(NonRecordingSpan(span_context), current))
    _, _, is_remote, _, _, is_valid = parent  # its properties are calls
    if is_remote or not is_valid:
        upstream.last_outermost.set(span_context)
    return span_context


def _metrics(
    call: ComponentCall,
    said: Single | None,
    length: int | None,
    source: str | None,
    cohort: str | None,
    end_ns: int,
    span_context: SpanContext,
) -> None:
    predictions = (Prediction(*said),) if said is not None else ()
    sequence = SequenceFacts((length,), source) if length is not None else None  # type: ignore[arg-type]
    seconds = (end_ns - call.start_ns) / 1e9
    call.recorder.meters.component(
        call.described.component,
        predictions,
        sequence,
        cohort,
        seconds,
        ambient.with_span(NonRecordingSpan(span_context), call.parent_context),
    )


__all__ = ["WATCH_KEY", "ComponentCall", "Described", "add_single", "as_prediction", "finish_single", "write"]
