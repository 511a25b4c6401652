"""See what the recurrent layers inside a component are given, without naming them: their input's layout, and the state passed in and out.

``nn.RNNBase`` and ``nn.RNNCellBase`` (and their quantised relatives) get a ``__call__`` that looks for the component call around it;
without one, it calls straight through. Nothing is put on the user's modules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from lstm_trace.guard import shield
from lstm_trace.instrument.lstm import dynamo, switch
from lstm_trace.instrument.lstm.frames import keep_first
from lstm_trace.instrument.lstm.importing import when_imported
from lstm_trace.instrument.lstm.state import keys_of
from lstm_trace.recorder import ambient
from lstm_trace.recorder.calls import WATCH_KEY

_LAYERS_A_CALL: Final = 16
_ROWS_A_CALL: Final = 4096

MARK: Final = "__lstm_trace_watch__"
"""Marks our ``__call__`` of recurrent layers."""

auto: Callable[..., Any] | None = None
"""Called for a layer that no decorated component surrounds; set by ``layers.turn``."""

_HOMES: Final = {
    "torch.nn.modules.rnn": ("RNNBase", "RNNCellBase"),
    "torch.ao.nn.quantized.dynamic.modules.rnn": ("RNNBase", "RNNCellBase"),
}


class LayerCall:
    """One recurrent layer inside one component call: what it was given, and the state that it handed out (h, or (h, c)).

    A cell that is stepped, and a layer that is called again with the state that it has just handed out (step by step, or in chunks), go
    on with the same sequences. A layer that is called again from nothing has a call of its own for each.
    """

    # Defaults on the class: most layers are called once.
    calls = 1
    more = 0
    """Steps of the calls that went on with these sequences."""
    rows: list[int] | None = None
    """Steps of each further call from nothing, where every one had one sequence: a loop over the rows of a batch."""
    out: Any = None

    def __init__(self, layer: Any, value: Any, keys: list[int] | None, cell: bool) -> None:
        self.layer = layer
        self.value = value
        """The input's shape, or its PackedSequence."""
        self.keys = keys
        """What identifies the state that came from outside of this call; FRESH where none did."""
        self.cell = cell

    @property
    def fresh(self) -> bool:
        """No state came from outside of this call."""
        return self.keys is FRESH

    @property
    def packed(self) -> Any:
        """The PackedSequence that was passed in, if it was one."""
        return self.value if hasattr(self.value, "batch_sizes") else None

    def layout(self) -> tuple[int, int] | None:
        """Return (batch, steps) of a padded input: what the component made of what it was given."""
        shape = self.value
        if hasattr(shape, "batch_sizes"):
            return None
        if self.cell:
            return (int(shape[0]) if len(shape) > 1 else 1), self.calls
        batch, steps = _layout(shape, self.layer)
        return batch, steps + self.more

    def each_row(self) -> list[int] | None:
        """Return the steps of each sequence, where the component called the layer once for every one of them."""
        layout = self.layout()
        return [layout[1], *self.rows] if self.rows and layout is not None and layout[0] == 1 else None

    def rows_inside(self) -> int:
        """Return how many sequences it was given, in one call or one by one."""
        packed, each = self.packed, self.each_row()
        if packed is not None:
            return int(packed.batch_sizes[0]) if len(packed.batch_sizes) else 0
        layout = self.layout()
        return len(each) if each is not None else layout[0] if layout is not None else 0

    def goes_on(self, state: Any) -> bool:
        """Tell whether a state is the one that this layer has just handed out."""
        given, out = (each[0] if isinstance(each, tuple) else each for each in (state, self.out))
        if given is None or out is None:
            return False
        try:
            return given is out or (given.shape == out.shape and given.data_ptr() == out.data_ptr())
        except RuntimeError:
            return False  # no memory to compare: inside vmap, a fake tensor


def _layout(shape: Any, layer: Any) -> tuple[int, int]:
    """Return (batch, steps) of a padded input's shape."""
    if len(shape) == 2:
        return 1, int(shape[0])
    first, second = int(shape[0]), int(shape[1])
    return (first, second) if layer.batch_first else (second, first)


def install() -> None:
    """Watch recurrent layers from their import on; nothing is imported for it."""
    for home, names in _HOMES.items():
        if home not in _installed:
            _installed.add(home)
            when_imported(home, _place(names))


_installed: set[str] = set()


def _place(names: tuple[str, ...]) -> Any:
    def place(module: Any) -> None:
        for name in names:
            cls = getattr(module, name, None)
            if cls is not None:
                switch.place(cls, _watched(cls, cell="Cell" in name))

    return place


def _watched(cls: Any, *, cell: bool) -> Any:
    import torch
    from torch.compiler import is_dynamo_compiling

    owner: Any = torch.nn.Module
    current = ambient.get
    callback = torch._C._dynamo.eval_frame.get_eval_frame_callback  # pyright: ignore[reportAttributeAccessIssue]

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        if is_dynamo_compiling():
            # Only with allow_rnn: otherwise Dynamo stops at these layers by itself.
            if auto is not None and not cell and dynamo.must_break_alone(type(self).__name__):
                dynamo.graph_break()
            return owner.__call__(self, *args, **kwargs)
        call: Any = current().get(WATCH_KEY)
        if call is None:
            if auto is None or cell:
                return owner.__call__(self, *args, **kwargs)
            try:
                return auto(self, watched, args, kwargs)
            except BaseException as error:
                keep_first(error)
                raise
        if callback() is not None:
            return watched(self, call.layers, args, kwargs)
        seen = _before(call.layers, self, args, kwargs, cell)
        output = owner.__call__(self, *args, **kwargs)
        if seen is not None:
            seen.out = output if cell else output[1]
        return output

    def watched(self: Any, layers: list[LayerCall] | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do the same where Dynamo has to be kept out, or for a call that a layer has to itself; ``layers`` None: it is not traced."""
        seen = dynamo.apart(_before, layers, self, args, kwargs, cell) if layers is not None else None
        output = owner.__call__(self, *args, **kwargs)
        if seen is not None:
            seen.out = output if cell else output[1]
        return output

    setattr(__call__, MARK, True)
    dynamo.skip(__call__)
    dynamo.skip(watched)
    return __call__


def _before(layers: list[LayerCall], layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], cell: bool) -> LayerCall | None:
    try:
        value = args[0] if args else kwargs["input"]
        state = args[1] if len(args) > 1 else kwargs.get("hx")
        if layers:
            known = _again(layers, layer, value, state, cell)
            if known is not None or len(layers) >= _LAYERS_A_CALL:
                return known
        # What another layer has handed out inside this call, as an encoder does to its decoder, is none that was passed in. Another is read
        # now: the component may write the next one into the same tensor.
        is_inner = state is None or any(known.goes_on(state) for known in layers)
        keys = FRESH if is_inner else keys_of(state, cell=cell)
        seen = LayerCall(layer, value if isinstance(value, tuple) else value.shape, keys, cell)
        layers.append(seen)
    except Exception as error:  # noqa: BLE001  the shield's own rule, without entering anything
        shield.caught(error)
        return None
    return seen


def _again(layers: list[LayerCall], layer: Any, value: Any, state: Any, cell: bool) -> LayerCall | None:
    """Return the call of this layer that another one goes on with, if it does."""
    for known in layers:
        if known.layer is not layer:
            continue
        if cell:
            known.calls += 1
            return known
        if isinstance(value, tuple):
            continue
        batch, steps = _layout(value.shape, layer)
        if known.goes_on(state):
            known.more += steps
            return known
        if batch == 1 and state is None and known is layers[0]:
            known.rows = known.rows or []
            if len(known.rows) < _ROWS_A_CALL:
                known.rows.append(steps)
    return None


FRESH: Final[list[int]] = []
"""Stands for the keys of a state that was not passed in."""

__all__ = ["FRESH", "LayerCall", "install"]
