"""Facts to attributes: pure, and exact in type, because the SDK stores a numpy scalar as a string and NaN as invalid JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from lstm_trace import conventions as c
from lstm_trace.facts import Component, Evaluation, Prediction, Said, SequenceFacts, StateFacts, Summary
from lstm_trace.settings import Settings

Attributes = dict[str, Any]


def exact_float(value: Any) -> float | None:
    """Return a finite Python float, or None.

    >>> exact_float(float("nan")), exact_float(1)
    (None, 1.0)
    """
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def exact_int(value: Any) -> int | None:
    """Return a Python int, or None."""
    return None if value is None else int(value)


def error_type(error: BaseException) -> str:
    """Return the name of an exception's class, with its module where that is not ``builtins``.

    >>> import asyncio
    >>> error_type(ValueError()), error_type(asyncio.CancelledError())
    ('ValueError', 'asyncio.exceptions.CancelledError')
    """
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def exact(value: Any) -> str | int | float | bool:
    """Return a value as the plain type that the SDK keeps: a numpy or tensor scalar as its number, a non-finite one, one of more
    than 64 bits and the rest as text.

    >>> exact(True), exact(3), exact(float("inf"))
    (True, 3, 'inf')
    """
    item = getattr(value, "item", None)
    plain = item() if callable(item) else value
    if isinstance(plain, int) and not -(1 << 63) <= plain < 1 << 63:
        return str(plain)  # no attribute has room for it
    if isinstance(plain, str | bool | int):
        return plain
    if isinstance(plain, float):
        return plain if math.isfinite(plain) else str(plain)
    return str(plain)


def component_constants(component: Component, release: str | None) -> Attributes:
    """Return what stands on every span of a component: computed once, copied a call."""
    attributes: Attributes = {c.OI_KIND: "CHAIN", c.COMPONENT_NAME: component.name}
    for name, value in (
        (c.COMPONENT_VERSION, component.version),
        (c.PREPROCESSING_VERSION, component.preprocessing),
        (c.RELEASE, release),
        (c.CELL, component.cell),
        (c.LAYERS, component.layers),
        (c.HIDDEN_SIZE, component.hidden_size),
        (c.BIDIRECTIONAL, component.bidirectional),
        (c.CODE_COMPILED, component.compiled or None),
    ):
        if value is not None:
            attributes[name] = value
    return attributes


def add_prediction(attributes: Attributes, prediction: Said) -> None:
    """Write one prediction's facts."""
    if prediction.label is not None:
        attributes[c.PREDICTION_LABEL] = str(prediction.label)
    if prediction.index is not None:
        attributes[c.PREDICTION_INDEX] = int(prediction.index)
    if prediction.nonfinite:
        attributes[c.PREDICTION_NONFINITE] = True
        return
    for name, value in (
        (c.PREDICTION_CONFIDENCE, prediction.confidence),
        (c.PREDICTION_MARGIN, prediction.margin),
        (c.PREDICTION_ENTROPY, prediction.entropy),
        (c.PREDICTION_VALUE, prediction.value),
    ):
        number = exact_float(value)
        if number is not None:
            attributes[name] = number


def add_sequence(attributes: Attributes, sequence: SequenceFacts, cohort: Callable[[int], str]) -> None:
    """Write true lengths: the one length where all are equal, and its cohort's name, else shortest, longest and mean."""
    lengths, padded = sequence.lengths, sequence.padded_steps
    if not lengths:
        attributes[c.BATCH_SIZE] = 0
        return
    first = lengths[0]
    attributes[c.BATCH_SIZE] = len(lengths)
    if lengths.count(first) == len(lengths):
        attributes[c.SEQUENCE_LENGTH] = first
        attributes[c.SEQUENCE_COHORT] = cohort(first)
        ratio = 1.0 - first / padded if padded is not None and padded > 0 else None
    else:
        attributes[c.SEQUENCE_LENGTH_MIN] = min(lengths)
        attributes[c.SEQUENCE_LENGTH_MAX] = max(lengths)
        attributes[c.SEQUENCE_LENGTH_MEAN] = sum(lengths) / len(lengths)
        ratio = sequence.padding_ratio
    attributes[c.SEQUENCE_LENGTH_SOURCE] = sequence.source
    if ratio is not None:
        attributes[c.SEQUENCE_PADDING_RATIO] = ratio
    gap = exact_float(sequence.time_gap)
    if gap is not None:
        attributes[c.SEQUENCE_TIME_GAP] = gap


def add_batch(attributes: Attributes, predictions: Sequence[Said]) -> None:
    """Write the summary of a batch's predictions: lowest and mean confidence, and whether any output was not finite."""
    confidences = [value for value in (exact_float(each.confidence) for each in predictions) if value is not None]
    if confidences:
        attributes[c.PREDICTION_CONFIDENCE_MIN] = min(confidences)
        attributes[c.PREDICTION_CONFIDENCE_MEAN] = sum(confidences) / len(confidences)
    if any(each.nonfinite for each in predictions):
        attributes[c.PREDICTION_NONFINITE] = True


def add_summary(attributes: Attributes, summary: Summary) -> None:
    """Write the summary of a batch that was computed as one."""
    for name, value in ((c.PREDICTION_CONFIDENCE_MIN, summary.confidence_min), (c.PREDICTION_CONFIDENCE_MEAN, summary.confidence_mean)):
        number = exact_float(value)
        if number is not None:
            attributes[name] = number
    if summary.nonfinite:
        attributes[c.PREDICTION_NONFINITE] = True


def add_state(attributes: Attributes, state: StateFacts) -> None:
    """Write where the hidden state came from."""
    attributes[c.STATE_ORIGIN] = state.origin
    if state.steps is not None:
        attributes[c.STATE_STEPS] = state.steps


def prediction_event(
    prediction: Prediction, row: int, length: int | None, settings: Settings, state: StateFacts | None, step: int | None
) -> Attributes:
    """Return the attributes of one ``lstm.prediction`` event: one a sequence."""
    attributes: Attributes = {c.BATCH_INDEX: row}
    if length is not None:
        attributes[c.SEQUENCE_LENGTH] = length
        attributes[c.SEQUENCE_COHORT] = settings.cohort(length)
    add_prediction(attributes, prediction)
    if state is not None:
        attributes[c.STATE_ORIGIN] = state.of_row(row)
    if step is not None:
        attributes[c.TRAJECTORY_STEP] = step
    return attributes


def evaluation_attributes(evaluation: Evaluation) -> Attributes:
    """Return the attributes of an evaluation's span and event. Only an evaluation that ran has a score."""
    target = evaluation.target
    score = exact_float(evaluation.score) if evaluation.status == "ok" else None
    attributes: Attributes = {
        c.OI_KIND: "EVALUATOR",
        c.EVALUATION_NAME: evaluation.name,
        c.EVALUATION_STATUS: evaluation.status,
        c.EVALUATION_ANNOTATOR: evaluation.annotator,
        c.EVALUATION_IDENTIFIER: evaluation.identifier,
        c.EVALUATION_TARGET_TRACE_ID: f"{target.trace_id:032x}",
        c.EVALUATION_TARGET_SPAN_ID: f"{target.span_id:016x}",
    }
    for name, form, value in (
        (c.EVALUATION_SCORE, "score", score),
        (c.EVALUATION_LABEL, "label", evaluation.label if evaluation.status == "ok" else None),
        (c.EVALUATION_EXPLANATION, "explanation", evaluation.explanation),
    ):
        if value is not None:
            attributes[name] = value
            attributes[c.OI_EVALUATION + form] = value
    attributes[c.OI_EVALUATION + "name"] = evaluation.name
    attributes[c.OI_EVALUATION + "annotator_kind"] = evaluation.annotator
    attributes[c.OI_EVALUATION + "identifier"] = evaluation.identifier
    if evaluation.evaluator_version is not None:
        attributes[c.EVALUATION_EVALUATOR_VERSION] = evaluation.evaluator_version
    if evaluation.error_type is not None:
        attributes[c.ERROR_TYPE] = evaluation.error_type
    weight = exact_float(evaluation.weight)
    if weight is not None:
        attributes[c.EVALUATION_WEIGHT] = weight
    for key, value in evaluation.metadata.items():
        attributes[c.EVALUATION_METADATA + key] = value
    return attributes
