"""Decide where a component's true lengths are read, once, and read them at each call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from lstm_trace.facts import LengthSource, SequenceFacts
from lstm_trace.guard import shield
from lstm_trace.instrument.lstm import lengths as read
from lstm_trace.instrument.lstm.arguments import MISSING, Arguments
from lstm_trace.instrument.lstm.gaps import largest_gap
from lstm_trace.instrument.lstm.options import Options, Reader
from lstm_trace.instrument.lstm.tree import CELLS, Tree
from lstm_trace.instrument.lstm.watch import LayerCall

_log = logging.getLogger("lstm_trace")
_told: Final[set[int]] = set()

_Kind = Literal["packed", "tensor", "list", "other"]
_Masks = tuple[tuple[Reader, bool], ...]
_kinds: dict[type, _Kind] = {}
_KINDS_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class Source:
    """Where lengths come from, in this order: declared, a mask, packed, an argument's name, the padding id, the shape."""

    arguments: Arguments
    tree: Tree
    lengths: Reader | None
    masks: _Masks
    """Where a mask is looked for, and whether it marks padding; the first that is passed counts."""
    padding_idx: int | None
    time_gap: Reader | None
    declared: bool
    named: bool
    """Something says where to look: a declaration, or a parameter's name."""
    warn: Callable[..., None]
    """Logs one line, once a component and matter."""
    fronts: set[bool] = field(default_factory=set[bool])
    """Whether the batch stood in front, as far as calls have shown it so far."""

    @classmethod
    def of(cls, options: Options, arguments: Arguments, tree: Tree, warn: Callable[..., None]) -> Source:
        """Combine what the user declared with what parameter names and the module tree say."""
        said = options.lengths is not None or options.mask is not None
        lengths: Reader | None = options.lengths
        masks: _Masks = ()
        if options.mask is not None:
            masks = ((options.mask, isinstance(options.mask, str) and options.mask in read.PAD_MASK_NAMES),)
        elif not said:
            lengths = arguments.first(read.LENGTH_NAMES)
            masks = _masks_among(arguments.names)
        padding_idx = options.padding_idx if options.padding_idx is not None else tree.padding_idx
        named = said or lengths is not None or bool(masks) or options.time_gap is not None
        return cls(arguments, tree, lengths, masks, padding_idx, options.time_gap, said, named, warn)

    def read_one(self, args: tuple[Any, ...], kwargs: dict[str, Any], inner: LayerCall) -> tuple[int, LengthSource, int] | None:
        """Return (length, source, padded length) of a call of one sequence of which nothing was declared; None: ``read`` it."""
        if self.named or inner.cell or inner.more or kwargs:
            return None
        shape = inner.value
        axes = len(shape)
        if axes == 3:
            batch, steps = (shape[0], shape[1]) if inner.layer.batch_first else (shape[1], shape[0])
            if batch != 1:
                return None
        elif axes == 2:
            steps = shape[0]
        else:
            return None  # a PackedSequence has four parts
        if self.padding_idx is None:
            return steps, "shape", steps
        if not getattr(args[0], "is_cpu", False):
            return None  # no tensor, or one that had to be waited for
        ids = args[0].tolist()
        row = ids[0] if len(ids) == 1 else ids
        if len(row) != steps or type(row[0]) is not int:
            return None
        if row[0] == self.padding_idx and self.padding_idx not in _told:
            return None  # padded in front, perhaps
        while steps and row[steps - 1] == self.padding_idx:
            steps -= 1
        return steps, "padding", len(row)

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any], layers: Sequence[LayerCall] = ()) -> SequenceFacts | None:
        """Return the lengths of one call, or None where nothing passed in has any.

        ``layers`` are the recurrent layers that were called inside: the first knows what the component made of its input.
        """
        kind, value = _first(args, kwargs)
        facts = self._true(args, kwargs, kind, value, layers)
        gap = self._gap(self.time_gap, args, kwargs) if self.time_gap is not None else None
        return facts if gap is None else replace(facts or SequenceFacts((), "shape"), time_gap=gap)

    def _gap(self, reader: Reader, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | None:
        given = self._get(reader, args, kwargs)
        try:
            return largest_gap(given) if given is not MISSING else None
        except (TypeError, ValueError) as error:
            self.warn("time_gap", "time_gap= is left out: %s", error)
            return None

    def _true(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], kind: _Kind, value: Any, layers: Sequence[LayerCall]
    ) -> SequenceFacts | None:
        if kind == "packed" and not self.declared:
            packed = read.from_packed(value)
            return SequenceFacts(packed, "packed", max(packed, default=0))
        inner = layers[0] if layers else None
        lengths, masks = self.readers(kwargs)
        given: Any = self._get(lengths, args, kwargs) if lengths is not None else MISSING
        if given is not MISSING and given is not None:
            if read.is_packed(given):
                return _within(read.from_packed(given), "packed", self._padded(kind, value, inner))
            found = read.from_lengths(given)
            if found is not None and self._are_rows(len(found), kind, value, layers):
                source: LengthSource = "lengths" if isinstance(lengths, str) else "declared"
                return _within(found, source, self._padded(kind, value, inner))
            self._say_unusable(given, found)
        for reader, inverted in masks:
            given = read.rows_of_mask(self._get(reader, args, kwargs))
            if not read.is_tensor(given):
                continue
            batch_first, is_sure = self._batch_leads(given, inner)
            found = read.from_mask(given, batch_first=batch_first, inverted=inverted)
            if not is_sure and found != read.from_mask(given, batch_first=not batch_first, inverted=inverted):
                continue
            if found is not None and self._are_rows(len(found), kind, value, layers):
                return SequenceFacts(found, "mask", int(given.shape[1 if batch_first else 0]) if given.ndim > 1 else int(given.shape[0]))
        padded = self._padding(kind, value, inner)
        if inner is not None and inner.packed is not None:
            return _packed_inside(inner.packed, padded, self._padded(kind, value, inner))
        return padded or self._shape(kind, value, inner)

    def _are_rows(self, count: int, kind: _Kind, value: Any, layers: Sequence[LayerCall]) -> bool:
        """Tell whether so many lengths may be one a row: of some layer's batch, or of an axis where no layer has another's.

        The first layer may have another batch than the component, as one of characters has below one of words.
        """
        batches = {each.rows_inside() for each in layers}
        if count in batches:
            return True
        axes = tuple(value.shape[:2]) if kind == "tensor" else (len(value),) if kind == "list" else ()
        if not batches.isdisjoint(axes):
            return False
        return count in axes or (self.declared and not layers) or self._fits(count, kind, value, layers[0] if layers else None)

    def _say_unusable(self, given: Any, found: list[int] | None) -> None:
        if found is None:
            if not isinstance(given, (list, tuple, int, float)) and not (read.is_tensor(given) and read.has_values(given)):
                return  # a word, or nothing that could be read: it need not be about lengths at all
            self.warn(
                "lengths", "what was passed as lengths (%s) is left out: accepted are whole numbers from 0, one a row", type(given).__name__
            )
        elif self.declared:
            self.warn("lengths", "lengths= gave %d value(s), not one a row: they are left out", len(found))

    def _padding(self, kind: _Kind, value: Any, inner: LayerCall | None) -> SequenceFacts | None:
        if self.padding_idx is None or kind != "tensor" or read.is_floating(value) or not 1 <= value.ndim <= 2:
            return None
        batch_first, is_sure = self._batch_leads(value, inner)
        found = read.from_padding(value, self.padding_idx, batch_first=batch_first)
        if not is_sure and found != read.from_padding(value, self.padding_idx, batch_first=not batch_first):
            return None
        if (
            found is not None
            and self.padding_idx not in _told
            and read.is_padded_in_front(value, self.padding_idx, batch_first=batch_first)
        ):
            _told.add(self.padding_idx)
            _log.warning(
                "ids begin with padding_idx=%d and do not end with it: such a row is counted as if the padding were steps. Where rows are "
                "padded in front, say mask=lambda args, kwargs: args[0] != %d (logged once)",
                self.padding_idx,
                self.padding_idx,
            )
        return SequenceFacts(found, "padding", int(value.shape[-1 if batch_first or value.ndim == 1 else 0])) if found is not None else None

    def _batch_leads(self, value: Any, inner: LayerCall | None) -> tuple[bool, bool]:
        """Tell whether a (batch, time) or (time, batch) tensor has its batch in front, and whether that is sure.

        What went into the layer settles it, but for as many sequences as steps: then earlier calls do. Failing those, a layer with
        time in front does not say whether the component was given it so or made it so.
        """
        layout = inner.layout() if inner is not None and value.ndim > 1 else None
        if layout is not None:
            first, second = int(value.shape[0]), int(value.shape[1])
            if first != second and layout in ((first, second), (second, first)):
                leads = (first, second) == layout
                if leads not in self.fronts:
                    self.fronts.add(leads)
                return leads, True
            if first == second > 1 and layout == (first, second):
                if len(self.fronts) == 1:
                    return True in self.fronts, True
                leads = self.tree.batch_first is not False
                return leads, self.tree.recurrent_itself or (leads and not self.fronts)
        return self.tree.batch_first is not False, True

    def _padded(self, kind: _Kind, value: Any, inner: LayerCall | None) -> int | None:
        shaped = self._shape(kind, value, inner)
        return shaped.padded_steps if shaped is not None else None

    def readers(self, kwargs: dict[str, Any]) -> tuple[Reader | None, _Masks]:
        """Return where lengths and masks are looked for; what ``**kwargs`` takes is known by its name as well."""
        if not kwargs or self.declared or not self.arguments.open_ended:
            return self.lengths, self.masks
        named = tuple(name for name in kwargs if name not in self.arguments.names)
        return self.lengths or next((name for name in named if name in read.LENGTH_NAMES), None), (*self.masks, *_masks_among(named))

    def _fits(self, rows: int, kind: _Kind, value: Any, inner: LayerCall | None) -> bool:
        shaped = self._shape(kind, value, inner)
        return shaped is None or rows == len(shaped.lengths)

    def _shape(self, kind: _Kind, value: Any, inner: LayerCall | None) -> SequenceFacts | None:
        each = inner.each_row() if inner is not None else None
        listed = _lengths_of_tensors(value) if kind == "list" else None
        if each is not None and len(each) == (len(value) if kind == "list" or (kind == "tensor" and value.ndim) else 0):
            return SequenceFacts(each, "shape", max(each))
        layout = inner.layout() if inner is not None else None
        if listed is not None and (layout is None or layout[0] == len(listed)):
            return SequenceFacts(listed, "shape", max(listed))
        if layout is not None and (kind != "tensor" or layout[0] in value.shape[:2] or layout == (1, *value.shape[:1])):
            batch, steps = layout
            return SequenceFacts((steps,) * batch, "shape", steps)
        if kind == "list":
            if value and isinstance(value[0], (list, tuple)):
                lengths = tuple(len(each) for each in value)
                return SequenceFacts(lengths, "shape", max(lengths))
            return SequenceFacts((len(value),), "shape", len(value))
        if kind != "tensor":
            return None
        tree, shape = self.tree, tuple(value.shape)
        if tree.cell in CELLS and not tree.recurrent_itself and len(shape) < 3:
            return None  # a scripted loop over cells: nobody outside sees how many steps it makes of a waveform
        if tree.recurrent_itself and tree.cell in CELLS:
            return SequenceFacts((1,) * (shape[0] if len(shape) > 1 else 1), "shape", 1)
        if not 1 <= len(shape) <= 3:
            return None
        features = len(shape) == 3 or (read.is_floating(value) and (tree.recurrent_itself or tree.input_size == shape[-1]))
        return read.from_shape(shape, batch_first=tree.batch_first is not False, features=features)

    def _get(self, reader: Reader, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if isinstance(reader, str):
            return self.arguments.get(reader, args, kwargs)
        with shield:
            return reader(args, kwargs)
        return MISSING  # a callable of the user's that raised: what else there is still counts


def _masks_among(names: tuple[str, ...]) -> _Masks:
    return (
        *((name, False) for name in names if name in read.MASK_NAMES),
        *((name, True) for name in names if name in read.PAD_MASK_NAMES),
    )


def _within(lengths: list[int], source: LengthSource, padded: int | None) -> SequenceFacts:
    """Return lengths that were passed: of sequences that the component cut there is no padding to tell."""
    return SequenceFacts(lengths, source, padded if padded is not None and max(lengths, default=0) <= padded else None)


def _packed_inside(packed: Any, padded: SequenceFacts | None, steps: int | None) -> SequenceFacts:
    found = read.from_packed(packed)
    if packed.unsorted_indices is None and padded is not None and sorted(padded.lengths) == sorted(found):
        found = list(padded.lengths)  # the component sorted the rows itself: the ids still have the caller's order
    return SequenceFacts(found, "packed", max(steps or 0, max(found, default=0)))


def _lengths_of_tensors(values: Any) -> list[int] | None:
    """Return the lengths of sequences that came as one tensor each, (time,) or (time, feature)."""
    if not values or not read.is_tensor(values[0]) or not 1 <= values[0].ndim <= 2:
        return None
    first = values[0]
    like = (first.ndim, first.dtype, tuple(first.shape[1:]))
    if not all(read.is_tensor(each) and (each.ndim, each.dtype, tuple(each.shape[1:])) == like for each in values):
        return None
    return [int(each.shape[0]) for each in values]


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
