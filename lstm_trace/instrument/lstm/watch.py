"""See what the recurrent layers inside a component are given, without naming them: their input's layout, and the state passed in and out.

``nn.RNNBase`` and ``nn.RNNCellBase`` (and their quantised relatives) get a ``__call__`` that looks for the component call around it; without one, it
calls straight through. Nothing is put on the user's modules.
"""

from __future__ import annotations

from typing import Any, Final

import wrapt

from lstm_trace import ambient
from lstm_trace.calls import WATCH_KEY
from lstm_trace.guard import shield
from lstm_trace.instrument.lstm import switch
from lstm_trace.instrument.lstm.state import keys_of

_LAYERS_A_CALL: Final = 16

_HOMES: Final = {
    "torch.nn.modules.rnn": ("RNNBase", "RNNCellBase"),
    "torch.ao.nn.quantized.dynamic.modules.rnn": ("RNNBase", "RNNCellBase"),
}


class LayerCall:
    """One recurrent layer inside one component call: the layout of its input, and its states."""

    __slots__ = ("batch", "cell", "fresh", "keys", "layer", "packed", "out", "steps")

    def __init__(self, layer: Any, value: Any, state: Any, *, cell: bool) -> None:
        self.layer = layer
        self.cell = cell
        self.out: Any = None
        """The state that it handed out: h, or (h, c)."""
        self.fresh = state is None
        # Read now: the component may write the next state into the same tensor.
        self.keys = None if state is None else keys_of(state, cell=cell)
        self.packed: Any = None
        self.batch: int | None = None
        self.steps = 1
        if cell:
            shape = value.shape
            self.batch = int(shape[0]) if len(shape) > 1 else 1
        elif isinstance(value, tuple):
            self.packed = value
        else:
            shape = value.shape
            if len(shape) == 2:
                self.batch, self.steps = 1, int(shape[0])
            else:
                first, second = int(shape[0]), int(shape[1])
                self.batch, self.steps = (first, second) if layer.batch_first else (second, first)


def install() -> None:
    """Watch recurrent layers from their import on; nothing is imported for it."""
    for home, names in _HOMES.items():
        if home not in _installed:
            _installed.add(home)
            wrapt.register_post_import_hook(_place(names), home)


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

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        if is_dynamo_compiling():
            return owner.__call__(self, *args, **kwargs)
        call: Any = ambient.get().get(WATCH_KEY)
        if call is None:
            return owner.__call__(self, *args, **kwargs)
        seen = _before(call, self, args, kwargs, cell)
        output = owner.__call__(self, *args, **kwargs)
        if seen is not None:
            seen.out = output if cell else output[1]
        return output

    __call__.__lstm_trace_call__ = True  # type: ignore[attr-defined]
    return __call__


def _before(call: Any, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], cell: bool) -> LayerCall | None:
    with shield:
        layers: list[LayerCall] = call.layers
        if cell:
            for known in layers:
                if known.layer is layer:
                    known.steps += 1
                    return known
        if len(layers) >= _LAYERS_A_CALL:
            return None
        value = args[0] if args else kwargs["input"]
        seen = LayerCall(layer, value, args[1] if len(args) > 1 else kwargs.get("hx"), cell=cell)
        layers.append(seen)
        return seen
    return None


__all__ = ["LayerCall", "install"]
