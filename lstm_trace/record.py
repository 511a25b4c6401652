"""What an application says itself: a prediction made elsewhere, a score, feedback, an escalation, and the reference to keep for them."""

from __future__ import annotations

import logging
import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextlib import suppress as suppressed
from enum import Enum
from typing import Any, Final, get_args

from opentelemetry import context, trace

from lstm_trace import upstream
from lstm_trace.attributes import exact
from lstm_trace.facts import Annotator, Component, Evaluation, Prediction, SequenceFacts, Status, TraceRef
from lstm_trace.guard import shield
from lstm_trace.recorder import SUPPRESS_KEY, default_recorder
from lstm_trace.upstream import live

_log = logging.getLogger("lstm_trace")

_LONGEST: Final = 1e9
"""Seconds that a prediction may have taken: a span cannot start before 1970."""
_COUNTS: Final = 1 << 63
"""Whole numbers from here on have no place in an attribute."""
_ROUNDING: Final = 1e-6
"""A probability that was added up in single precision may miss 0 or 1 by this."""


def trace_ref(span: trace.Span | None = None) -> str:
    """Return the W3C traceparent of the outermost span that this process recorded of the current trace.

    Keep it beside the answer: ``record_evaluation`` takes it, now or a week later, in this process or another. Right after a chain
    returned, outside of any span, it names the chain that ended last in this context. Returns ``""`` where nothing was traced.
    Source: W3C Trace Context, traceparent header.
    """
    found = (span or trace.get_current_span()).get_span_context()
    found = live.outermost(found) if found.is_valid else upstream.last_outermost.get()
    return str(TraceRef(found.trace_id, found.span_id, found.trace_flags.sampled)) if found.is_valid else ""


def upstream_prediction() -> Prediction | None:
    """Return the prediction that a span which started here and now would have upstream of it."""
    current = trace.get_current_span().get_span_context()
    if upstream.settle is not None:
        upstream.settle(current.trace_id)
    seen = live.upstream(current)
    if seen is None and default_recorder().settings.baggage:
        seen = upstream.from_baggage(context.get_current())
    return seen.prediction if seen is not None else None


def record_prediction(
    component: str,
    *,
    label: str | None = None,
    confidence: float | None = None,
    sequence_length: int | None = None,
    duration: float | None = None,
    index: int | None = None,
    margin: float | None = None,
    entropy: float | None = None,
    version: str | None = None,
    preprocessing: str | None = None,
    cell: str | None = None,
    **facts: str | int | float | bool | None,
) -> None:
    """Write the span of a component that ran elsewhere (ONNX, Triton, sklearn …): it ends now and took ``duration`` seconds.

    It counts as an upstream prediction. ``sequence_length`` is in steps, ``confidence`` and ``margin`` are probabilities, ``entropy``
    is in nats. Further ``facts`` become attributes by their own names. A fact that is not usable is left out in one log line, and the
    others are recorded; a confidence that is NaN or infinite is ``lstm.prediction.nonfinite``, as it is in a component's own output.
    """
    with shield:
        recorder = default_recorder()
        end = recorder.clock()
        seconds = _number("duration", duration, _LONGEST)
        length, place = _whole("sequence_length", sequence_length), _whole("index", index)
        chance, lead = _number("confidence", confidence, 1.0), _number("margin", margin, 1.0)
        spread = _number("entropy", entropy)
        name = _text("label", label)
        what = Component(
            _name_of(component), _text("version", version), _text("preprocessing", preprocessing), _text("cell", cell)
        )  # fmt: skip
        opened = recorder.open_component(what, start_ns=end - int((seconds or 0.0) * 1e9))
        if opened is None:
            return
        prediction = Prediction(name, place, chance, lead, spread, _is_nonfinite(confidence))
        sequence = SequenceFacts((length,), "declared") if length is not None else None
        said = (prediction,) if prediction != Prediction() else ()
        extra = {key: _plain(value) for key, value in facts.items() if key and value is not None}
        recorder.finish_component(opened, what, said, sequence, extra=extra, end_ns=end)


def record_evaluation(
    ref: str | TraceRef,
    name: str,
    *,
    score: float | None = None,
    label: str | bool | None = None,
    explanation: str | None = None,
    error: str | BaseException | type[BaseException] | None = None,
    annotator: Annotator = "CODE",
    evaluator_version: str | None = None,
    metadata: Mapping[str, str | int | float | bool] | None = None,
) -> str:
    """Join a score to the span that ``ref`` names (from ``trace_ref()``) and return the evaluation's identifier.

    ``label`` is ``pass`` or ``fail`` (or True, False). With ``error`` (an exception, its class or its name) the evaluation has status
    ``error`` and no score, whatever else was given; with neither score nor label it is ``skipped``; a score that is NaN, infinite or no
    number is an error too. The latest of equal identifiers (target, name, evaluator version) counts. ``explanation`` is recorded as
    given, through the redaction hook. An unusable reference is logged in one line and returns ``""``: a telemetry call does not break a
    request.

    >>> import lstm_trace
    >>> lstm_trace.record_evaluation("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "groundedness", score=0.4, label="fail")
    'bf2f7003b200097a'
    """
    with shield:
        target = _target(ref)
        if target is None:
            return ""
        if not isinstance(name, str) or not name:
            _log.warning("record_evaluation: name %r is not recorded: accepted is what was judged, such as 'groundedness'", name)
            return ""
        if metadata is not None and not isinstance(metadata, Mapping):
            _log.warning("record_evaluation: metadata of type %s is left out: accepted is a mapping", type(metadata).__qualname__)
            metadata = None
        if annotator not in get_args(Annotator):
            _log.warning("record_evaluation: annotator %r is none of CODE, LLM, HUMAN: CODE stands", annotator)
            annotator = "CODE"
        evaluation = _evaluation(target, str(name), score, label, explanation, error, annotator, evaluator_version, metadata or {})
        default_recorder().evaluations.write(evaluation)
        return evaluation.identifier
    return ""


def _evaluation(
    target: TraceRef,
    name: str,
    score: Any,
    label: Any,
    explanation: str | None,
    error: Any,
    annotator: Annotator,
    evaluator_version: str | None,
    metadata: Mapping[str, Any],
) -> Evaluation:
    number, unusable = _score(score)
    error_type = _error_type(error) or unusable
    said = None if label is None else exact(label)
    label = {True: "pass", False: "fail"}[said] if isinstance(said, bool) else None if said is None else str(said) or None
    status: Status = "error" if error_type is not None else "skipped" if number is None and label is None else "ok"
    judged = status == "ok"
    text = None if explanation is None else default_recorder().text(str(explanation))
    return Evaluation(
        target,
        name,
        number if judged else None,
        label if judged else None,
        text,
        status,
        error_type,
        annotator,
        None if evaluator_version is None else str(evaluator_version),
        {str(key): exact(value) for key, value in metadata.items() if value is not None},
    )


def _number(name: str, value: Any, high: float = math.inf) -> float | None:
    """Return a number that can be recorded, else None and one line that names it: the other facts are kept."""
    if value is None:
        return None
    number = math.nan
    if not isinstance(value, bool):
        with suppressed(TypeError, ValueError, OverflowError, RuntimeError):
            number = float(value)
    if math.isfinite(number) and -_ROUNDING <= number <= high + _ROUNDING:
        return min(max(number, 0.0), high)
    _left_out(name, value, "a number, 0 or more" if high == math.inf else f"a number, 0 to {high:g}")
    return None


def _whole(name: str, value: Any) -> int | None:
    """Return a count, likewise."""
    if value is None:
        return None
    with suppressed(TypeError, ValueError, OverflowError, RuntimeError):
        number = int(value)
        if not isinstance(value, bool) and 0 <= number < _COUNTS and (isinstance(value, str) or number == value):
            return number
    _left_out(name, value, "a whole number, 0 or more")
    return None


def _text(name: str, value: Any) -> str | None:
    """Return a name, likewise: of an Enum its member's, unless that is text itself."""
    if value is None:
        return None
    text = _words(value)
    if text.strip():
        return text
    _left_out(name, value, "text that is not empty")
    return None


def _name_of(component: Any) -> str:
    name = "" if component is None else _words(component)
    if name.strip():
        return name
    _log.warning("record_prediction: component=%r is recorded as 'component': accepted is a name that is not empty", component)
    return "component"


def _words(value: Any) -> str:
    if isinstance(value, str):
        return str.__str__(value)
    return value.name if isinstance(value, Enum) else str(_one(value))


def _plain(value: Any) -> Any:
    return tuple(_one(each) for each in value) if isinstance(value, (list, tuple)) else _one(value)


def _one(value: Any) -> str | int | float | bool:
    try:
        return exact(value)
    except (TypeError, ValueError, RuntimeError):
        return str(value)  # of more than one number


def _is_nonfinite(confidence: Any) -> bool:
    with suppressed(TypeError, ValueError, OverflowError, RuntimeError):
        return confidence is not None and not math.isfinite(float(confidence))
    return False


def _left_out(name: str, value: Any, accepted: str) -> None:
    _log.warning("record_prediction: %s=%.80r is left out: accepted is %s", name, value, accepted)


def _score(score: Any) -> tuple[float | None, str | None]:
    """Return a finite score, or why there is none: an evaluator that answers NaN or a word did not judge."""
    if score is None:
        return None, None
    try:
        number = float(score)
    except (TypeError, ValueError, OverflowError):
        _log.warning("record_evaluation: score of type %s is no number: recorded as status=error", type(score).__qualname__)
        return None, "unusable_score"
    return (number, None) if math.isfinite(number) else (None, "nonfinite_score")


def record_feedback(ref: str | TraceRef, rating: str, *, comment: str | None = None) -> str:
    """Join a user's ``up`` or ``down`` to the answer that ``ref`` names and return the identifier."""
    if rating not in ("up", "down"):
        _log.warning("record_feedback: rating %r is neither up nor down: nothing recorded", rating)
        return ""
    return record_evaluation(ref, "feedback", label=rating, explanation=comment, annotator="HUMAN")


def record_escalation(ref: str | TraceRef, *, reason: str | None = None) -> str:
    """Note that a person had to take over the conversation that ``ref`` names; return the identifier. It counts as a failure."""
    return record_evaluation(ref, "escalation", label="escalated", explanation=reason, annotator="HUMAN")


@contextmanager
def suppress() -> Generator[None]:
    """Trace nothing of ours inside this block. OpenTelemetry's own suppression keys are honoured as well."""
    token = context.attach(context.set_value(SUPPRESS_KEY, True))
    try:
        yield
    finally:
        context.detach(token)


def _target(ref: str | TraceRef) -> TraceRef | None:
    if isinstance(ref, TraceRef):
        return ref
    if ref == "":
        return None  # trace_ref() where nothing was traced: there is nothing to judge
    try:
        return TraceRef.parse(ref if isinstance(ref, str) else repr(ref))
    except ValueError as error:
        _log.warning("evaluation not recorded: %s", error)
        return None


def _error_type(error: Any) -> str | None:
    """Name what broke; ``_OTHER`` (OpenTelemetry's word) where the caller only knows that something did."""
    if error is None or error is False:
        return None
    if isinstance(error, BaseException):
        return type(error).__qualname__
    if isinstance(error, type):
        return error.__qualname__
    return error if isinstance(error, str) and error else "_OTHER"


__all__ = [
    "record_escalation",
    "record_evaluation",
    "record_feedback",
    "record_prediction",
    "suppress",
    "trace_ref",
    "upstream_prediction",
]
