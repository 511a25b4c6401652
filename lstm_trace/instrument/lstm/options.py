"""What a user says when decorating a component, checked there and then."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Final

OUTPUTS: Final = ("logits", "log_probs", "probs", "multilabel", "tagging", "ctc", "regression", "none")

Labels = Mapping[int, str] | Sequence[str] | type[enum.Enum]
Reader = str | Callable[[tuple[Any, ...], dict[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class Options:
    """The arguments of ``trace_lstm``. Raises ValueError or TypeError that names the argument, the value and what is accepted.

    >>> Options(labels=["refund", "status"]).names
    {0: 'refund', 1: 'status'}
    >>> Options(output="softmax")
    Traceback (most recent call last):
    ...
    ValueError: output='softmax': accepted are logits, log_probs, probs, multilabel, tagging, ctc, regression, none, or a callable
    """

    name: str | None = None
    version: str | None = None
    preprocessing: str | None = None
    labels: Labels | None = None
    output: str | Callable[[Any], Any] = "logits"
    lengths: Reader | None = None
    mask: Reader | None = None
    padding_idx: int | None = None
    prediction: Callable[[Any], Any] | None = None
    session: Reader | None = None
    time_gap: Reader | None = None
    temperature: float = 1.0
    names: Mapping[int, str] | None = None
    """What ``labels`` says, by index; made here."""

    def __post_init__(self) -> None:
        for field in ("name", "version", "preprocessing"):
            value = getattr(self, field)
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{field}={value!r}: accepted is a str")
        if self.name is not None and not self.name.strip():
            raise ValueError(f"name={self.name!r}: accepted is a name that is not empty")
        if not callable(self.output) and self.output not in OUTPUTS:
            raise ValueError(f"output={self.output!r}: accepted are {', '.join(OUTPUTS)}, or a callable")
        for field in ("lengths", "mask", "session", "time_gap"):
            value = getattr(self, field)
            if value is not None and not isinstance(value, str) and not callable(value):
                raise TypeError(f"{field}={value!r}: accepted are the name of an argument, or a callable (args, kwargs) -> value")
        if self.prediction is not None and not callable(self.prediction):
            raise TypeError(f"prediction={self.prediction!r}: accepted is a callable output -> Prediction or list of Prediction")
        if self.padding_idx is not None:
            if isinstance(self.padding_idx, bool) or not isinstance(self.padding_idx, Integral):
                raise TypeError(f"padding_idx={self.padding_idx!r}: accepted is a whole number")
            object.__setattr__(self, "padding_idx", int(self.padding_idx))
        temperature = self.temperature
        if isinstance(temperature, bool) or not isinstance(temperature, Real):
            raise TypeError(f"temperature={temperature!r}: accepted is a number above 0")
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature={temperature!r}: accepted is a number above 0")
        object.__setattr__(self, "temperature", float(temperature))
        if self.labels is not None:
            object.__setattr__(self, "names", _names(self.labels))


def _names(labels: Any) -> Mapping[int, str]:
    if isinstance(labels, type) and issubclass(labels, enum.Enum):
        # An IntEnum says which class it stands for, and so do values that count from 0; any other names the classes in order, as one does
        # whose values are auto(), which counts from 1.
        values = [each.value for each in labels]
        if issubclass(labels, int) or (all(type(each) is int for each in values) and sorted(values) == list(range(len(values)))):
            return {int(each.value): each.name for each in labels}
        return {index: each.name for index, each in enumerate(labels)}
    if hasattr(labels, "tolist"):
        labels = labels.tolist()  # an array, as an encoder's classes_
    if isinstance(labels, str) or not isinstance(labels, (Mapping, Sequence)):
        raise TypeError(f"labels={labels!r}: accepted are a list of names, a mapping from index to name, or an Enum")
    if not len(labels):
        raise ValueError(f"labels={labels!r}: accepted is at least one name")
    if isinstance(labels, Mapping):
        if not all(isinstance(index, int) for index in labels):
            raise TypeError(f"labels={labels!r}: a mapping goes from index (int) to name")
        return {index: str(name) for index, name in labels.items()}
    return {index: str(name) for index, name in enumerate(labels)}
