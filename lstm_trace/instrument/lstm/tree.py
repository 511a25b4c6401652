"""What the module tree says about the recurrent layers inside a component: read once, never at a call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

LAYERS: Final = frozenset({"LSTM", "GRU", "RNN"})
CELLS: Final = frozenset({"LSTMCell", "GRUCell", "RNNCell"})
WRAPPED: Final = ("_orig_mod", "module", "_fsdp_wrapped_module")
"""Where wrappers of torch hold what they wrap."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Facts of the first recurrent layer found below a module (or of the module itself), and how its sequences are laid out.

    ``batch_first`` is None where no layer says so; ``padding_idx`` is the first embedding's; ``classes`` is the width of the head
    where the tree leaves no doubt about it. ``widths`` are those of what the recurrent layers hand out, where nothing in the tree could
    make logits of that: an encoder.
    """

    cell: str | None = None
    layers: int | None = None
    hidden_size: int | None = None
    bidirectional: bool | None = None
    batch_first: bool | None = None
    input_size: int | None = None
    padding_idx: int | None = None
    classes: int | None = None
    recurrent_itself: bool = False
    widths: tuple[int, ...] = ()


def read_tree(module: Any) -> Tree:
    """Read the tree below an ``nn.Module``, a ScriptModule or an optimized module; of anything else, nothing is known."""
    modules = getattr(module, "modules", None)
    if modules is None or isinstance(module, type):
        return Tree()
    every = list(modules())
    recurrent = next(((kind, each) for each in every if (kind := kind_of(each)) is not None), None)
    embedding = next((each for each in every if isinstance(_plain(each, "padding_idx"), int)), None)
    padding_idx = _plain(embedding, "padding_idx") if embedding is not None else None
    classes = _head(every)
    if recurrent is None:
        return Tree(padding_idx=padding_idx, classes=classes)
    kind, layer = recurrent
    bidirectional = _plain(layer, "bidirectional")
    batch_first = _plain(layer, "batch_first")
    return Tree(
        kind,
        _whole(_plain(layer, "num_layers"), 1),
        _whole(_plain(layer, "hidden_size"), None),
        bool(bidirectional) if bidirectional is not None else None,
        bool(batch_first) if batch_first is not None else None,
        _whole(_plain(layer, "input_size"), None),
        padding_idx,
        classes,
        layer is module,
        () if layer is module else _widths(module),
    )


def innermost(module: Any) -> Any:
    """Return the module inside what ``torch.compile``, ``DataParallel`` and the like put around it: theirs takes any arguments."""
    held = getattr(module, "__dict__", {}).get("_modules")
    if isinstance(held, dict) and len(held) == 1 and type(module).__module__.startswith("torch."):  # a ScriptModule's is none
        ((name, inner),) = held.items()
        return innermost(inner) if name in WRAPPED else module
    return module


def kind_of(module: Any) -> str | None:
    """Name the recurrent cell of a layer: ``LSTM`` … ``RNNCell``, also of a subclass, a quantised or a scripted one; else None."""
    for name in _names(module):
        if name in LAYERS or name in CELLS:
            return name
    return None


def _names(module: Any) -> Iterator[str]:
    original = module.__dict__.get("original_name") or getattr(module, "original_name", None)
    if isinstance(original, str):
        yield original
    for base in type(module).__mro__:
        if base.__module__.startswith("torch."):
            yield base.__name__


def _plain(module: Any, name: str) -> Any:
    value = getattr(module, name, None)
    return value if isinstance(value, (int, bool)) else None


def _whole(value: Any, otherwise: int | None) -> int | None:
    return int(value) if value is not None else otherwise


def _head(every: list[Any]) -> int | None:
    # Only where nothing can be mistaken: one linear layer in the whole tree, and it comes last.
    linear = [each for each in every if "Linear" in (type(each).__name__, getattr(each, "original_name", None))]
    if len(linear) != 1 or every[-1] is not linear[0]:
        return None
    return _whole(_plain(linear[0], "out_features"), None)


_WITHOUT_EFFECT: Final = frozenset(
    {"Dropout", "Dropout1d", "Dropout2d", "AlphaDropout", "Identity", "LayerNorm", "RMSNorm", "BatchNorm1d", "ReLU", "GELU", "Tanh"}
    | {"Sequential", "ModuleList", "ModuleDict", "OptimizedModule", "DataParallel"}
)
"""Modules of torch's own that make no logits of hidden states, but for what is inside them."""


def _widths(module: Any) -> tuple[int, ...]:
    widths: set[int] = set()
    tied: set[int | None] = set()
    for each in _outside_of_layers(module):
        if kind_of(each) is not None:
            width = _plain(each, "proj_size") or _plain(each, "hidden_size")
            if width is None:
                return ()
            widths.add(int(width))
        elif isinstance(_plain(each, "embedding_dim"), int):
            tied.add(_plain(each, "embedding_dim"))
        elif type(each).__module__.startswith("torch."):
            if type(each).__name__ not in _WITHOUT_EFFECT:
                return ()
        elif next(iter(each.parameters(recurse=False)), None) is not None:
            return ()
    # hidden states as wide as an embedding may be compared with its weights: logits, over a vocabulary
    if any(width in tied or 2 * width in tied for width in widths):
        return ()
    return tuple(sorted(widths))


def _outside_of_layers(module: Any) -> Iterator[Any]:
    yield module
    if kind_of(module) is None:
        for each in module.children():
            yield from _outside_of_layers(each)
