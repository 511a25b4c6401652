"""The metric instruments, and what is measured with each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from opentelemetry import metrics
from opentelemetry.context import Context

from lstm_trace import attributes as to
from lstm_trace import conventions as c
from lstm_trace.facts import Component, Evaluation, Said, SequenceFacts
from lstm_trace.settings import Settings

Attributes = dict[str, Any]

_METERED_ROWS: Final = 64


class Meters:
    """Instruments of the given MeterProvider, or of the global one as soon as there is one."""

    def __init__(self, settings: Settings, release: Callable[[], str | None], meter_provider: metrics.MeterProvider | None = None) -> None:
        self._settings = settings
        self._release = release
        meter = metrics.get_meter(c.SCOPE, meter_provider=meter_provider)
        self._duration = meter.create_histogram(c.METRIC_DURATION, "s", "Duration of a component call.")
        self._waits = hasattr(self._duration, "_real_instrument")
        self._on = not isinstance(self._duration, metrics.NoOpHistogram)
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

    def _labels(self, component: str | None, cohort: str | None) -> Attributes:
        labels: Attributes = {}
        if component is not None:
            labels[c.COMPONENT_NAME] = component
        if cohort is not None:
            labels[c.SEQUENCE_COHORT] = cohort
        release = self._release()
        if release is not None:
            labels[c.RELEASE] = release
        return labels

    def component(
        self,
        component: Component,
        predictions: Sequence[Said],
        sequence: SequenceFacts | None,
        cohort: str | None,
        seconds: float,
        current: Context,
    ) -> None:
        """Record one call's duration (seconds), and the length and confidence of its sequences: the first 64 of a larger batch."""
        self._duration.record(seconds, self._labels(component.name, cohort), current)
        lengths: Sequence[int] = sequence.lengths[:_METERED_ROWS] if sequence is not None else ()
        for length in lengths:
            self._length.record(length, self._labels(component.name, self._settings.cohort(length)), current)
        for row, each in enumerate(predictions[:_METERED_ROWS]):
            confidence = to.exact_float(each.confidence)
            if confidence is not None:
                where = self._settings.cohort(lengths[row]) if row < len(lengths) else None
                self._confidence.record(confidence, self._labels(component.name, where), current)

    def is_on(self) -> bool:
        """Tell whether anything records our metrics; the API's stand-in for a provider that is not there yet does not."""
        if self._waits:
            real = self._duration._real_instrument  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
            if real is None:
                return False
            self._waits = False
            self._on = not isinstance(real, metrics.NoOpHistogram)
        return self._on

    def count_reset(self, component: str) -> None:
        """Count a reset of a component's state."""
        self._resets.add(1, self._labels(component, None))

    def count_leak(self, component: str) -> None:
        """Count a foreign state that was passed to a component."""
        self._leaks.add(1, self._labels(component, None))

    def operation(self, seconds: float, tokens: Mapping[str, int], labels: Attributes, current: Context) -> None:
        """Record a model call's duration (seconds) and its ``input`` and ``output`` tokens."""
        self._operation.record(seconds, labels, current)
        for kind, count in tokens.items():
            self._tokens.record(count, {**labels, c.GEN_AI_TOKEN_TYPE: kind}, current)

    def stream(self, component: str, seconds: float, current: Context) -> None:
        """Record the duration (seconds) of a streamed session's calls."""
        self._duration.record(seconds, self._labels(component, None), current)

    def evaluation(self, evaluation: Evaluation, attributes: Mapping[str, Any]) -> None:
        """Count an evaluation, and an escalation or feedback under its own name as well."""
        labels = {name: attributes[name] for name in (c.COMPONENT_NAME, c.SEQUENCE_COHORT, c.RELEASE) if name in attributes}
        judged = {**labels, c.EVALUATION_NAME: evaluation.name, c.EVALUATION_STATUS: evaluation.status}
        if evaluation.label is not None:
            judged[c.EVALUATION_LABEL] = evaluation.label
        self._evaluations.add(1, judged)
        if evaluation.name == "escalation":
            self._escalations.add(1, labels)
        elif evaluation.name == "feedback":
            self._feedback.add(1, {**labels, c.EVALUATION_LABEL: evaluation.label or ""})

    def dropped_evaluation(self, name: str) -> None:
        """Count an online evaluation that did not run because its queue was full."""
        self._dropped.add(1, {c.EVALUATION_NAME: name})
