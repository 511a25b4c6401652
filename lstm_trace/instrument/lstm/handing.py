"""What of a call on an accelerator is handed to the finisher: copies of what is read there, and shapes of the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from lstm_trace.instrument.lstm import large, outputs, over_time, prediction
from lstm_trace.instrument.lstm.lengths import has_values, is_floating, is_packed

if TYPE_CHECKING:
    from lstm_trace.instrument.lstm.component import Known, Traced
    from lstm_trace.instrument.lstm.copies import Copies
    from lstm_trace.instrument.lstm.watch import LayerCall
    from lstm_trace.recorder import Recorder

Said = Callable[[Sequence[int] | None], Any]
"""Reads what was said, given the true lengths, once the numbers are on the CPU."""

_REDUCED_ABOVE: Final = 4096
"""Numbers of an output that are reduced on the device instead of copied."""
_BLOCK: Final = 1 << 22
"""Numbers reduced at once, in double precision: more would take too much of the user's device memory."""


class Handing(Protocol):
    """A call, as the finisher knows it."""

    traced: Traced
    known: Known
    recorder: Recorder
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    layers: list[LayerCall]
    every_row: bool

    @property
    def trace_id(self) -> int:
        """The trace that it is of; 0 where it begins one."""
        ...

    def captured(self) -> None:
        """Be forgotten: a graph was captured, which is no inference."""
        ...

    def handed_over(self) -> None:
        """Do what has to be done in the caller's own context."""
        ...

    def deferred(self, read: Said | None, end: int) -> None:
        """Write the span of a call that ended at ``end``; ``read`` None: its numbers have not come back."""
        ...


class _At(NamedTuple):
    """Stands for the copy with this number."""

    number: int


class Packed(NamedTuple):
    """What lengths are read from of a PackedSequence, in its own order of parts."""

    data: None
    batch_sizes: Any
    sorted_indices: None
    unsorted_indices: Any


# --- Where things are -----------------------------------------------------------------------------------------------------


def is_elsewhere(call: Handing, output: Any) -> bool:
    """Tell whether something that would be read is on an accelerator."""
    return device_of(call, output) is not None


def device_of(call: Handing, output: Any) -> Any:
    """Return the accelerator on which a call's output, or one of its arguments, is; None where all is on the CPU."""
    if outputs.is_tensor(output):
        found = _device(output)
    else:
        found = _device(outputs.tensor_of(output)) if output is not None and call.known.output != "none" else None
    if found is not None:
        return found
    for value in (*call.args, *call.kwargs.values()) if call.kwargs else call.args:
        found = _device(value[0] if is_packed(value) else value)
        if found is not None:
            return found
    return None


def _device(value: Any) -> Any:
    if not outputs.is_tensor(value) or value.is_cpu or not has_values(value):
        return None
    return value.device


# --- Handing over ---------------------------------------------------------------------------------------------------------


def hand(call: Handing, output: Any, copies: Copies, room: int) -> Said:
    """Begin the copies, put what the finisher needs in the place of the arguments, and return how it reads the output."""
    said = _output(call, output, copies)
    wanted = _Wanted(call)
    names = call.known.arguments.names
    args = [_handed(value, names[place] if place < len(names) else "", wanted, copies, room) for place, value in enumerate(call.args)]
    kwargs = {name: _handed(value, name, wanted, copies, room) for name, value in call.kwargs.items()}
    for layer in call.layers:
        layer.value = _handed(layer.value, "", wanted, copies, room) if is_packed(layer.value) else layer.value
    copies.begun()
    call.args, call.kwargs = tuple(args), kwargs  # what the user passed may be freed now
    return said


def take_back(call: Handing, copies: Copies) -> None:
    """Put the copies where they are read."""
    call.args = tuple(_filled(each, copies) for each in call.args)
    call.kwargs = {name: _filled(each, copies) for name, each in call.kwargs.items()}
    for layer in call.layers:
        layer.value = _filled(layer.value, copies)


def leave_values(call: Handing) -> None:
    """Leave only shapes of what a call was given on a device: reading more would wait for it."""
    call.args = tuple(_shape_of(each) for each in call.args)
    call.kwargs = {name: _shape_of(each) for name, each in call.kwargs.items()}
    for layer in call.layers:
        layer.value = _shape_of(layer.value)


def _output(call: Handing, output: Any, copies: Copies) -> Said:
    traced, known, options = call.traced, call.known, call.traced.options
    if options.prediction is not None:
        return lambda lengths: traced.predictions(known, output, lengths)  # the user's own reader is given what the user returned
    if known.output == "none":
        return lambda lengths: ()
    found = traced.tensor_in(known, output)
    if found is None or not outputs.is_tensor(found):
        return lambda lengths: traced.predictions_in(known, found, lengths)
    kind = traced.kind_of(known)
    at_most = call.recorder.settings.max_events
    names, temperature = options.names, options.temperature
    may_reduce = found.device.type != "mps"  # which has no double precision
    if kind in ("tagging", "ctc") and 2 <= found.ndim <= 3 and is_floating(found) and may_reduce and found.numel():
        number = copies.add(_in_blocks(found, lambda part: over_time.steps_of(part, kind, temperature)))
        return lambda lengths: over_time.means(copies[number], kind, lengths)
    if kind in prediction.ROWS and (found.ndim > 2 or not is_floating(found) or not found.numel()):
        shape = found.to("meta")
        return lambda lengths: traced.predictions_in(known, shape, lengths)  # there is only something to warn of
    if kind in prediction.ROWS and found.ndim == 2 and found.shape[1] > 1 and found.numel() > _REDUCED_ABOVE and may_reduce:
        number = copies.add(_in_blocks(found, lambda part: prediction.reduce(part, kind, temperature)))
        is_large = not call.every_row and large.is_large(found, kind, at_most)
        classes = found.shape[1]

        def read(lengths: Sequence[int] | None) -> Any:
            traced.check_labels(classes)
            found = large.many_of(copies[number], names, at_most) if is_large else prediction.rows_of(copies[number], names)
            return traced.plausible(kind, found)

        return read
    if kind == "regression" and found.ndim > 1 and found.numel():
        found = prediction.first_target(found.reshape(found.shape[0], -1)).unsqueeze(1)
    number = copies.add(found)
    return lambda lengths: traced.predictions_in(known, copies[number], lengths)


def _in_blocks(found: Any, reduced: Callable[[Any], Any]) -> Any:
    import torch

    found = found.detach()
    if found.numel() <= _BLOCK:
        return reduced(found)
    rows = max(1, _BLOCK * found.shape[0] // found.numel())
    return torch.cat([reduced(part) for part in found.split(rows)])


class _Wanted:
    """Which arguments the finisher reads."""

    def __init__(self, call: Handing) -> None:
        source, options = call.known.source, call.traced.options
        lengths, masks = source.readers(call.kwargs)
        readers = (lengths, *(each for each, _ in masks), source.time_gap, options.session)
        self.all = any(callable(each) for each in readers)
        self.names = {each for each in readers if isinstance(each, str)}
        self.ids = source.padding_idx is not None

    def covers(self, name: str, value: Any) -> bool:
        return self.all or name in self.names or (self.ids and value.ndim <= 2 and not is_floating(value))


def _handed(value: Any, name: str, wanted: _Wanted, copies: Copies, room: int) -> Any:
    if is_packed(value):
        order = value.unsorted_indices
        return Packed(None, value.batch_sizes, None, _At(copies.add(order)) if order is not None else None)
    if not outputs.is_tensor(value):
        return value
    if not has_values(value) or not wanted.covers(name, value) or copies.bytes + value.numel() * value.element_size() > room:
        return value.detach().to("meta")
    return _At(copies.add(value))


def _filled(value: Any, copies: Copies) -> Any:
    if isinstance(value, _At):
        return copies[value.number]
    if isinstance(value, Packed) and isinstance(value.unsorted_indices, _At):
        return value._replace(unsorted_indices=copies[value.unsorted_indices.number])
    return value


def _shape_of(value: Any) -> Any:
    if isinstance(value, _At):
        return None
    if is_packed(value):
        order = value.unsorted_indices
        return Packed(None, value.batch_sizes, None, order if outputs.is_tensor(order) and order.is_cpu else None)
    if outputs.is_tensor(value) and not value.is_cpu and not value.is_meta:
        return value.detach().to("meta")
    return value
