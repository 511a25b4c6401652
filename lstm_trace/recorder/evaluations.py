"""Scores that belong to a span: an evaluation's own span with its link, the marks on the target, and the metrics."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags

from lstm_trace import attributes as to
from lstm_trace import conventions as c
from lstm_trace import upstream
from lstm_trace.facts import Evaluation, TraceRef
from lstm_trace.recorder.components import Components
from lstm_trace.recorder.spans import Attributes, Event, always_on
from lstm_trace.upstream import live

_COUNTED: Final = 8_192
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


class OpenEvaluation(NamedTuple):
    """An evaluation under way: make ``context`` current around the evaluator's work, so that its own calls hang below its span."""

    where: SpanContext
    span: trace.Span
    context: Context


class Evaluations:
    """Writes evaluations, of this process or of another one long ago."""

    def __init__(self, recorder: Components) -> None:
        self._recorder = recorder
        self._counted: OrderedDict[tuple[str, str, str | None], None] = OrderedDict()

    def write(self, evaluation: Evaluation, copies: Mapping[str, Any] | None = None) -> None:
        """Write one evaluation: its span with one link to the target, the target's own attributes while it records, metrics, a log.

        ``copies`` are facts of the target (release, cohort …) that the caller knows from elsewhere, such as a store.
        """
        self.finish(self.open(evaluation.name, evaluation.target), evaluation, copies)

    def open(self, name: str, target: TraceRef, *, placement: str | None = None) -> OpenEvaluation:
        """Start the span of an evaluation that is under way; ``placement`` (``child`` or ``link``) goes before the setting.

        Nothing is recorded where the target was not sampled, nor below the context that it returns.
        """
        flags = TraceFlags(TraceFlags.SAMPLED if target.sampled else TraceFlags.DEFAULT)
        node = _open_target(target.trace_id, target.span_id)
        where = node.span_context if node is not None else SpanContext(target.trace_id, target.span_id, is_remote=True, trace_flags=flags)
        parent = trace.set_span_in_context(NonRecordingSpan(where), Context())
        source = self._recorder.source()
        if not source.records or not target.sampled:
            return OpenEvaluation(where, NonRecordingSpan(where), parent)
        placement = placement or self._recorder.settings.evaluation_span
        if placement == "auto":
            placement = "child" if live.trace_is_open(where.trace_id) else "link"
        tracer = source.tracer
        if placement == "link":
            # A trace of its own: no other span's sampling decision applies, and the target was sampled, so this must be.
            parent = Context()
            tracer = always_on(tracer)
        span = tracer.start_span(
            f"evaluate {name}",
            parent,
            SpanKind.INTERNAL,
            {c.OI_KIND: "EVALUATOR", c.EVALUATION_NAME: name},
            [Link(where, {c.LINK_KIND: "evaluation"})],
            self._recorder.clock(),
        )
        live.enter(span, trace.get_current_span(parent).get_span_context())
        facts = upstream.with_facts(parent, {c.EVALUATION_JUDGE_NAME: name})
        # A stand-in with the same ids: some evaluators write on the current span, an outage as score 0.0 among other things.
        return OpenEvaluation(where, span, trace.set_span_in_context(NonRecordingSpan(span.get_span_context()), facts))

    def finish(self, opened: OpenEvaluation, evaluation: Evaluation, copies: Mapping[str, Any] | None = None) -> None:
        """End an evaluation with its judgement."""
        where, span = opened.where, opened.span
        attributes = to.evaluation_attributes(evaluation)
        attributes.update(self._facts_of_target(where))
        attributes.update(copies or {})
        if span.is_recording():
            span.set_attributes(attributes)
            if evaluation.status == "error":
                span.set_status(StatusCode.ERROR, evaluation.error_type)
            now = self._recorder.clock()
            span.end(now)
            live.leave(span.get_span_context())
            self._recorder.log([Event(c.EVENT_EVALUATION, attributes, now)], trace.set_span_in_context(NonRecordingSpan(where), Context()))
            node = _open_target(where.trace_id, where.span_id)
            if node is not None and node.span is not None and node.span.is_recording():
                self._mark_target(evaluation, node.span, attributes)
        self._count_evaluation(evaluation, attributes)

    def _facts_of_target(self, where: SpanContext) -> Attributes:
        # The release of this process says nothing about a target that ran in another one, perhaps weeks ago.
        seen = live.recent(where)
        facts: Attributes = {}
        if self._recorder.release is not None and (seen is not None or _open_target(where.trace_id, where.span_id) is not None):
            facts[c.RELEASE] = self._recorder.release
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
        if len(self._counted) >= _COUNTED:
            self._counted.popitem(last=False)
        self._counted[key] = None
        self._recorder.meters.evaluation(evaluation, attributes)

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
