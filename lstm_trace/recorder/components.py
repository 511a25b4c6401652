"""The span, events and metrics of a component call: one sequence, a batch, a stream, or a batch made for several requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from opentelemetry import _logs, metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext

from lstm_trace import attributes as to
from lstm_trace import conventions as c
from lstm_trace import upstream
from lstm_trace.facts import Component, Prediction, Said, SequenceFacts, Single, StateFacts, Summary
from lstm_trace.recorder.calls import ComponentCall, add_single, write
from lstm_trace.recorder.meters import Meters
from lstm_trace.recorder.spans import Attributes, Event, OpenSpan, Spans
from lstm_trace.settings import Settings
from lstm_trace.upstream import live

_COHORTS_LIMIT: Final = 4096
_COMPONENTS_LIMIT: Final = 4096


class Cohorts(dict[int, str]):
    """Names of cohorts by length, remembered: the same few hundred lengths come for ever."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    def __missing__(self, length: int) -> str:
        if len(self) >= _COHORTS_LIMIT:
            self.clear()
        name = self[length] = self._settings.cohort(length)
        return name


class Components(Spans):
    """Writes what is known of a component call."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        logger_provider: _logs.LoggerProvider | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        super().__init__(settings, tracer_provider=tracer_provider, logger_provider=logger_provider, clock=clock)
        self.meters = Meters(self.settings, lambda: self.release, meter_provider)
        sink = self.settings.events if self.settings.max_events else "off"
        self.events_on_span = sink in ("span", "both")
        self.events_on_log = sink in ("log", "both")
        self.as_event = self.settings.span == "event" and sink != "off"
        self.cohorts = Cohorts(self.settings)

    def open_component(self, component: Component, *, current: Context | None = None, start_ns: int | None = None) -> OpenSpan | None:
        """Open the span of one component call, or return None where it would not record."""
        return self.open("lstm " + component.name, current=current, start_ns=start_ns, late=True)

    def finish_component(
        self,
        opened: OpenSpan | ComponentCall,
        component: Component,
        predictions: Sequence[Said] = (),
        sequence: SequenceFacts | None = None,
        state: StateFacts | None = None,
        *,
        extra: Mapping[str, Any] | None = None,
        error: BaseException | None = None,
        end_ns: int | None = None,
        rows: Sequence[int] = (),
        summary: Summary | None = None,
        as_event: bool = False,
    ) -> None:
        """End one component call: attributes, one event a sequence, metrics; then let later spans see its prediction.

        ``predictions`` and ``sequence.lengths`` run over the rows of the batch; either may be empty where it is not known. Of a large
        batch ``predictions`` are those of ``rows``, and ``summary`` speaks for all. ``as_event`` writes no span: its events stand on the
        one that was current around the call, and say all that it would (``LSTM_TRACE_SPAN=event``).
        """
        end = self.clock() if end_ns is None else end_ns
        attributes = self.constants_of(component).copy()
        if isinstance(opened, ComponentCall):
            attributes.update(opened.attributes)
            opened.attributes = {}
        if extra:
            attributes.update(extra)
        if sequence is not None:
            to.add_sequence(attributes, sequence, self.cohort)
        elif predictions:
            attributes[c.BATCH_SIZE] = len(predictions)
        if summary is not None:
            to.add_summary(attributes, summary)
        elif not as_event:
            if len(predictions) == 1:
                to.add_prediction(attributes, predictions[0])
            elif predictions:
                to.add_batch(attributes, predictions)
        if state is not None:
            to.add_state(attributes, state)
        events: list[Attributes] = []
        if as_event or self.events_on_span or self.events_on_log:
            step = upstream.context_facts(opened.parent_context).get(c.TRAJECTORY_STEP)
            events = self._prediction_events(predictions, sequence, state, step, rows)
        if as_event:
            where = self._note_around(opened, attributes, events, end)
        elif error is None and isinstance(opened, ComponentCall):
            inherited = opened.parent_context.get(upstream.FACTS_KEY)
            where = write(opened, self, self.source(), attributes, events, inherited, end)
        else:
            where = self._finish_opened(opened, attributes, events, error, end)
        cohort = self._publish(component, predictions, sequence, where, opened)
        if self.meters.is_on():
            current = opened.parent_context if as_event else opened.context
            self.meters.component(component, predictions, sequence, cohort, (end - opened.start_ns) / 1e9, current)

    def _note_around(self, opened: OpenSpan | ComponentCall, attributes: Attributes, events: Sequence[Attributes], end: int) -> SpanContext:
        """Write a call as events on the span around it; one that says nothing of its sequences is one event."""
        del attributes[c.OI_KIND]
        if events:
            for name in (c.SEQUENCE_LENGTH_MIN, c.SEQUENCE_LENGTH_MAX, c.SEQUENCE_LENGTH_MEAN):
                attributes.pop(name, None)  # each event tells its own
        span, note = trace.get_current_span(opened.parent_context), self.source().lane.note
        for event in events or ({},):
            note(span, c.EVENT_PREDICTION, {**attributes, **event}, end)
        return opened.parent

    def _finish_opened(
        self,
        opened: OpenSpan | ComponentCall,
        attributes: Attributes,
        events: Sequence[Attributes],
        error: BaseException | None,
        end: int,
    ) -> SpanContext:
        if opened.real is None:
            opened.attributes.update(attributes)  # they go into the one call that starts the span
            attributes = {}
        if self.events_on_span:
            span, note = opened.start(), self.source().lane.note
            for event in events:
                note(span, c.EVENT_PREDICTION, event, end)
        opened.finish(attributes, error=error, end_ns=end)
        if self.events_on_log:
            for event in events:
                self.log_prediction(event, end, opened.context)
        return opened.span_context

    def finish_stream(
        self, opened: OpenSpan, component: Component, last: Prediction | None, facts: Attributes, error: BaseException | None = None
    ) -> None:
        """End the span of a streamed session; its last prediction is what later spans see. One duration is recorded for all its calls."""
        end = self.clock()
        opened.finish({**self.constants_of(component), **facts}, error=error, end_ns=end)
        if last is not None:
            self._publish(component, (last,), None, opened.span_context, opened)
        self.meters.stream(component.name, (end - opened.start_ns) / 1e9, opened.context)

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

    def _publish(
        self,
        component: Component,
        predictions: Sequence[Said],
        sequence: SequenceFacts | None,
        where: SpanContext,
        opened: OpenSpan | ComponentCall,
    ) -> str | None:
        """Let spans that start from now on see this prediction; return its cohort. A batch of several sequences speaks for none of them."""
        lengths: Sequence[int] = sequence.lengths if sequence is not None else ()
        length = lengths[0] if len(lengths) == 1 else None
        cohort = self.cohorts[length] if length is not None else None
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
                trace.format_span_id(where.span_id),
            )
            session = upstream.context_facts(opened.parent_context).get(c.SESSION_ID)
            live.publish(upstream.describe(fact, where, session), opened.parent)
        return cohort

    def constants_of(self, component: Component) -> Attributes:
        """Return what stands on every span of a component; the caller copies it."""
        source = self.source()
        known = source.constants.get(component)
        if known is None:
            known = to.component_constants(component, source.release)
            if len(source.constants) < _COMPONENTS_LIMIT:  # record_prediction takes any name and version
                source.constants[component] = known
        return known

    def cohort(self, length: int) -> str:
        """Name the cohort of a length."""
        return self.cohorts[length]

    def _prediction_events(
        self,
        predictions: Sequence[Said],
        sequence: SequenceFacts | None,
        state: StateFacts | None,
        step: int | None,
        rows: Sequence[int] = (),
    ) -> list[Attributes]:
        """Return the attributes of one ``lstm.prediction`` event a sequence, up to the bound."""
        lengths: Sequence[int] = sequence.lengths if sequence is not None else ()
        shown = predictions[: self.settings.max_events]
        events: list[Attributes] = []
        for row, each in zip(rows or range(len(shown)), shown, strict=False):
            event: Attributes = {c.BATCH_INDEX: row}
            if row < len(lengths):
                event[c.SEQUENCE_LENGTH] = length = lengths[row]
                event[c.SEQUENCE_COHORT] = self.cohorts[length]
            if isinstance(each, Single):
                add_single(event, each)
            else:
                to.add_prediction(event, each)
            if state is not None:
                event[c.STATE_ORIGIN] = state.of_row(row)
            if step is not None:
                event[c.TRAJECTORY_STEP] = step
            events.append(event)
        return events

    def log_prediction(self, attributes: Attributes, now: int, current: Context) -> None:
        """Write one ``lstm.prediction`` as a log event."""
        self.log([Event(c.EVENT_PREDICTION, attributes, now)], current)
