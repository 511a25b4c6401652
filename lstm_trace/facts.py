"""What was observed, as frozen values: the vocabulary between the rooms that read and the room that writes telemetry."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

LengthSource = Literal["declared", "packed", "lengths", "mask", "padding", "shape"]
StateOrigin = Literal["none", "zero", "carried", "foreign", "unknown"]
Annotator = Literal["CODE", "LLM", "HUMAN"]
Status = Literal["ok", "error", "skipped"]


@dataclass(frozen=True, slots=True)
class Component:
    """A decorated component: what stays the same from call to call.

    ``cell``, ``layers``, ``hidden_size`` and ``bidirectional`` come from the module tree, once; None where there is no tree to read.
    """

    name: str
    version: str | None = None
    preprocessing: str | None = None
    cell: str | None = None
    layers: int | None = None
    hidden_size: int | None = None
    bidirectional: bool | None = None
    compiled: bool = False


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a component said about one sequence.

    ``confidence`` and ``margin`` are probabilities (0 to 1), ``entropy`` is in nats. ``nonfinite`` says that the output held NaN
    or Inf; then the three are None. ``value`` is the number that a regression predicted. ``component``, ``length`` and ``cohort`` are
    filled in where the prediction stands for itself, as in ``upstream_prediction()``.

    >>> Prediction(label="refund", index=2, confidence=0.91).label
    'refund'
    """

    label: str | None = None
    index: int | None = None
    confidence: float | None = None
    margin: float | None = None
    entropy: float | None = None
    nonfinite: bool = False
    component: str | None = None
    length: int | None = None
    cohort: str | None = None
    span_id: str | None = None
    value: float | None = None


class Single(NamedTuple):
    """What was said about one sequence: ``Prediction`` without the cost of a frozen fact."""

    label: str | None = None
    index: int | None = None  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleMethodOverride]
    confidence: float | None = None
    margin: float | None = None
    entropy: float | None = None
    nonfinite: bool = False

    @property
    def value(self) -> None:
        """No number was predicted: that is a ``Prediction``."""


Said = Single | Prediction
"""What was said about one sequence, either way."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a component said about a whole batch that is too large to keep every row of."""

    confidence_min: float | None
    confidence_mean: float | None
    nonfinite: bool = False
    outside: bool = False
    """Some rows hold no probabilities although that was declared: they are in none of the numbers."""


@dataclass(frozen=True, slots=True)
class SequenceFacts:
    """True lengths of the sequences of one call, in steps, and where they were read.

    >>> SequenceFacts((4, 2), source="lengths", padded_steps=4).padding_ratio
    0.25
    """

    lengths: Sequence[int]
    source: LengthSource
    padded_steps: int | None = None
    time_gap: float | None = None

    @property
    def padding_ratio(self) -> float | None:
        """Padded share of the batch (batch, padded_steps), 0 to 1; None when the padded length is not known."""
        if self.padded_steps is None or not self.lengths or self.padded_steps <= 0:
            return None
        if self.lengths.count(self.padded_steps) == len(self.lengths):
            return 0.0  # counting is many times as fast as adding
        return 1.0 - sum(self.lengths) / (self.padded_steps * len(self.lengths))


@dataclass(frozen=True, slots=True)
class StateFacts:
    """Where the hidden state of one call came from, and how many calls old it is.

    >>> StateFacts("foreign", row_origins=("carried", "foreign")).of_row(2)
    'unknown'
    """

    origin: StateOrigin
    steps: int | None = None
    row_origins: Sequence[StateOrigin] = ()
    """Of each batch row that was looked at, where rows differ."""

    def of_row(self, row: int) -> StateOrigin:
        """Return the origin of one batch row; of one beyond those that were looked at it is not known."""
        if not self.row_origins:
            return self.origin
        return self.row_origins[row] if row < len(self.row_origins) else "unknown"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an agent's trajectory. ``path`` holds the steps of nested agents from the outermost: ``2.1``."""

    number: int
    branch: str | None = None
    path: str | None = None
    attempt: int = 1


_TRACEPARENT = re.compile(r"^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$")


@dataclass(frozen=True, slots=True)
class TraceRef:
    """The span that an evaluation judges: a W3C traceparent.

    >>> ref = TraceRef.parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    >>> ref.sampled, str(ref)
    (True, '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01')
    """

    trace_id: int
    span_id: int
    sampled: bool = True

    @classmethod
    def parse(cls, text: str) -> TraceRef:
        """Read a traceparent. Raises ValueError that names the text and the accepted form. Source: W3C Trace Context, 3.2."""
        match = _TRACEPARENT.match(text.strip().lower())
        if match is None or not int(match[1], 16) or not int(match[2], 16):
            raise ValueError(
                f"trace reference {text!r} is not a W3C traceparent: "
                "give the string that trace_ref() returned (00-<32 hex>-<16 hex>-<2 hex>)"
            )
        return cls(int(match[1], 16), int(match[2], 16), bool(int(match[3], 16) & 1))

    def __str__(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A judgement of one span. Only ``status == "ok"`` may carry a score; an evaluator that failed has none.

    ``label`` is ``pass`` or ``fail`` (``up``/``down`` for feedback, ``escalated`` for an escalation).
    ``weight`` is the number of traces that this one stands for where it was drawn with a known probability.
    """

    target: TraceRef
    name: str
    score: float | None = None
    label: str | None = None
    explanation: str | None = None
    status: Status = "ok"
    error_type: str | None = None
    annotator: Annotator = "CODE"
    evaluator_version: str | None = None
    metadata: Mapping[str, str | int | float | bool] = field(default_factory=dict[str, "str | int | float | bool"])
    weight: float | None = None

    @property
    def identifier(self) -> str:
        """Hash of target, name and evaluator version: the latest evaluation with the same identifier counts."""
        text = f"{self.target.trace_id:032x}:{self.target.span_id:016x}:{self.name}:{self.evaluator_version or ''}"
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
