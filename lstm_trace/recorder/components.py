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
from lstm_trace.facts import Component, Prediction, SequenceFacts, StateFacts, Summary
from lstm_trace.recorder.calls import ComponentCall, write
from lstm_trace.recorder.late import LateSpan
from lstm_trace.recorder.meters import Meters
from lstm_trace.recorder.spans import Attributes, Event, OpenSpan, Spans
from lstm_trace.settings import Settings
from lstm_trace.upstream import live

_COHORTS_LIMIT: Final = 4096


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
        if error is None and isinstance(opened, ComponentCall):
            said = {**opened.attributes, **attributes}
            opened.attributes = {}
            inherited = opened.parent_context.get(upstream.FACTS_KEY)
            write(opened, self, self.source(), said, [each.attributes for each in events], inherited, end)
        else:
            self._finish_opened(opened, attributes, events, error, end)
        cohort = None
        if predictions or sequence is not None:
            cohort = self.publish(opened, component, predictions, sequence)
        if self.meters.is_on():
            self.meters.component(component, predictions, sequence, cohort, (end - opened.start_ns) / 1e9, opened.context)

    def _finish_opened(
        self, opened: OpenSpan | ComponentCall, attributes: Attributes, events: Sequence[Event], error: BaseException | None, end: int
    ) -> None:
        if isinstance(opened.span, LateSpan) and opened.span.real is None:
            opened.attributes.update(attributes)  # they go into the one call that starts the span
            attributes = {}
        if self.events_on_span:
            span, note = opened.span, self.source().lane.note
            real = span.start() if isinstance(span, LateSpan) else span
            for event in events:
                note(real, event.name, event.attributes, end)
        opened.finish(attributes, error=error, end_ns=end)
        if self.events_on_log:
            self.log(events, opened.context)

    def finish_as_events(
        self,
        call: ComponentCall,
        component: Component,
        predictions: Sequence[Prediction],
        sequence: SequenceFacts | None,
        state: StateFacts | None,
        end_ns: int,
        *,
        rows: Sequence[int] = (),
        summary: Summary | None = None,
    ) -> None:
        """End a call as one event a sequence on the span that was current around it (``LSTM_TRACE_SPAN=event``).

        A call that says nothing of its sequences is one event. The rest is as for ``finish_component``.
        """
        span = trace.get_current_span(call.parent_context)
        common: Attributes = {**self.constants_of(component), **call.attributes}
        call.attributes = {}
        del common[c.OI_KIND]
        if sequence is not None:
            to.add_sequence(common, sequence, self.settings)
        elif predictions:
            common[c.BATCH_SIZE] = len(predictions)
        if summary is not None:
            to.add_summary(common, summary)
        if state is not None:
            to.add_state(common, state)
        step = upstream.context_facts(call.parent_context).get(c.TRAJECTORY_STEP)
        events = self._prediction_events(predictions, sequence, state, step, end_ns, rows)
        if predictions:
            for name in (c.SEQUENCE_LENGTH_MIN, c.SEQUENCE_LENGTH_MAX, c.SEQUENCE_LENGTH_MEAN):
                common.pop(name, None)  # each event tells its own
        for event in events or [Event(c.EVENT_PREDICTION, {}, end_ns)]:
            self.source().lane.note(span, event.name, {**common, **event.attributes}, end_ns)
        cohort = None
        if len(predictions) == 1 or sequence is not None:
            cohort = self._publish(predictions, sequence, component, call.parent, call.parent_context, call.parent)
        if self.meters.is_on():
            self.meters.component(component, predictions, sequence, cohort, (end_ns - call.start_ns) / 1e9, call.parent_context)

    def finish_stream(
        self, opened: OpenSpan, component: Component, last: Prediction | None, facts: Attributes, error: BaseException | None = None
    ) -> None:
        """End the span of a streamed session; its last prediction is what later spans see. One duration is recorded for all its calls."""
        end = self.clock()
        opened.finish({**self.constants_of(component), **facts}, error=error, end_ns=end)
        if last is not None:
            self.publish(opened, component, (last,), None)
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

    def publish(
        self, opened: OpenSpan | ComponentCall, component: Component, predictions: Sequence[Prediction], sequence: SequenceFacts | None
    ) -> str | None:
        """Let spans that start from now on see this prediction; return its cohort. A batch of several sequences speaks for none of them."""
        return self._publish(predictions, sequence, component, opened.span_context, opened.context, opened.parent)

    def _publish(
        self,
        predictions: Sequence[Prediction],
        sequence: SequenceFacts | None,
        component: Component,
        where: SpanContext,
        current: Context,
        parent: SpanContext,
    ) -> str | None:
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
                trace.format_span_id(where.span_id),
            )
            session = upstream.context_facts(current).get(c.SESSION_ID)
            live.publish(upstream.describe(fact, where, session), parent)
        return cohort

    def constants_of(self, component: Component) -> Attributes:
        """Return what stands on every span of a component; the caller copies it."""
        source = self.source()
        known = source.constants.get(component)
        if known is None:
            known = source.constants[component] = to.component_constants(component, source.release)
        return known

    def cohort(self, length: int) -> str:
        """Name the cohort of a length."""
        return self.cohorts[length]

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
        self.log([Event(c.EVENT_PREDICTION, attributes, now)], current)
