"""Decide where a component's true lengths are read, once, and read them at each call."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from lstm_trace.facts import LengthSource, SequenceFacts
from lstm_trace.instrument.lstm import lengths as read
from lstm_trace.instrument.lstm.arguments import MISSING, Arguments
from lstm_trace.instrument.lstm.options import Options, Reader
from lstm_trace.instrument.lstm.tree import CELLS, Tree

_Kind = Literal["packed", "tensor", "list", "other"]
_kinds: dict[type, _Kind] = {}
_KINDS_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class Source:
    """Where lengths come from, in this order: declared, a mask, packed, an argument's name, the padding id, the shape."""

    arguments: Arguments
    tree: Tree
    lengths: Reader | None
    mask: Reader | None
    mask_inverted: bool
    padding_idx: int | None
    time_gap: Reader | None
    declared: bool

    @classmethod
    def of(cls, options: Options, arguments: Arguments, tree: Tree) -> Source:
        """Combine what the user declared with what parameter names and the module tree say."""
        said = options.lengths is not None or options.mask is not None
        lengths: Reader | None = options.lengths
        mask: Reader | None = options.mask
        inverted = False
        if not said:
            lengths = arguments.first(read.LENGTH_NAMES)
            mask = arguments.first(read.MASK_NAMES)
            if mask is None:
                mask = arguments.first(read.PAD_MASK_NAMES)
                inverted = mask is not None
        else:
            inverted = isinstance(mask, str) and mask in read.PAD_MASK_NAMES
        padding_idx = options.padding_idx if options.padding_idx is not None else tree.padding_idx
        return cls(arguments, tree, lengths, mask, inverted, padding_idx, options.time_gap, said)

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SequenceFacts | None:
        """Return the lengths of one call, or None where nothing passed in has any."""
        kind, value = _first(args, kwargs)
        facts = self._true(args, kwargs, kind, value)
        if self.time_gap is not None:
            gap = _largest(self._get(self.time_gap, args, kwargs))
            if gap is not None:
                facts = replace(facts or SequenceFacts((), "shape"), time_gap=gap)
        return facts

    def _true(self, args: tuple[Any, ...], kwargs: dict[str, Any], kind: _Kind, value: Any) -> SequenceFacts | None:
        if kind == "packed" and not self.declared:
            found = read.from_packed(value)
            return SequenceFacts(found, "packed", max(found, default=0))
        shaped = self._shape(kind, value)
        steps = shaped.padded_steps if shaped is not None else None
        if self.lengths is not None:
            given = self._get(self.lengths, args, kwargs)
            if read.is_packed(given):
                return SequenceFacts(read.from_packed(given), "packed", steps)
            found = read.from_lengths(given)
            if found is not None:
                source: LengthSource = "lengths" if isinstance(self.lengths, str) else "declared"
                return SequenceFacts(found, source, steps)
        if self.mask is not None:
            given = self._get(self.mask, args, kwargs)
            batch_first = self.tree.batch_first is not False or kind != "tensor" or given is MISSING or _leads(given, value)
            found = read.from_mask(given, batch_first=batch_first, inverted=self.mask_inverted)
            if found is not None and (self.declared or shaped is None or len(found) == len(shaped.lengths)):
                return SequenceFacts(found, "mask", steps)
        if self.padding_idx is not None and kind == "tensor" and shaped is not None and not _is_floating(value):
            found = read.from_padding(value, self.padding_idx, batch_first=self.tree.batch_first is not False)
            if found is not None:
                return SequenceFacts(found, "padding", steps)
        return shaped

    def _shape(self, kind: _Kind, value: Any) -> SequenceFacts | None:
        if kind == "list":
            if value and isinstance(value[0], (list, tuple)):
                lengths = tuple(len(each) for each in value)
                return SequenceFacts(lengths, "shape", max(lengths))
            return SequenceFacts((len(value),), "shape", len(value))
        if kind != "tensor":
            return None
        tree, shape = self.tree, tuple(value.shape)
        if tree.recurrent_itself and tree.cell in CELLS:
            return SequenceFacts((1,) * (shape[0] if len(shape) > 1 else 1), "shape", 1)
        features = len(shape) >= 3 or (_is_floating(value) and (tree.recurrent_itself or (tree.input_size == shape[-1:][0] if shape else False)))
        if len(shape) > 3 or not shape:
            return None
        return read.from_shape(shape, batch_first=tree.batch_first is not False, features=features)

    def _get(self, reader: Reader, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.arguments.get(reader, args, kwargs) if isinstance(reader, str) else reader(args, kwargs)


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[_Kind, Any]:
    for value in (*args, *kwargs.values()) if kwargs else args:
        kind = _kinds.get(type(value)) or _kind(value)
        if kind != "other":
            return kind, value
    return "other", None


def _kind(value: Any) -> _Kind:
    kind: _Kind
    if read.is_packed(value):
        kind = "packed"
    elif read.is_tensor(value):
        kind = "tensor"
    elif type(value) in (list, tuple):
        kind = "list"
    else:
        kind = "other"
    if len(_kinds) < _KINDS_LIMIT:
        _kinds[type(value)] = kind
    return kind


def _is_floating(value: Any) -> bool:
    is_floating_point = getattr(value, "is_floating_point", None)
    return bool(is_floating_point()) if is_floating_point is not None else getattr(value.dtype, "kind", "f") == "f"


def _leads(mask: Any, value: Any) -> bool:
    # a mask that is not laid out as the (time, batch) input is: it is (batch, time)
    return tuple(mask.shape[:2]) != tuple(value.shape[:2])


def _largest(value: Any) -> float | None:
    if value is MISSING or value is None:
        return None
    found = value.tolist() if read.is_tensor(value) else value
    while isinstance(found, (list, tuple)):
        flat = [item for each in found for item in (each if isinstance(each, (list, tuple)) else (each,))]
        if not any(isinstance(each, (list, tuple)) for each in flat):
            return max((float(each) for each in flat), default=None)
        found = flat
    return float(found)
