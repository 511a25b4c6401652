"""Find what the user passed by the name of its parameter, without binding a signature at every call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import MethodType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from lstm_trace.instrument.lstm.options import Options

MISSING: Final = object()
"""The argument was not passed."""


class Arguments:
    """The parameters of one callable: looks an argument up by name in ``(args, kwargs)`` of a call.

    >>> def forward(ids, lengths=None): ...
    >>> Arguments.of(forward).get("lengths", ([1, 2], [2]), {})
    [2]
    """

    __slots__ = ("_places", "names", "open_ended")

    def __init__(self, names: tuple[str, ...], *, open_ended: bool = False) -> None:
        self.names = names
        self.open_ended = open_ended
        self._places = {name: place for place, name in enumerate(names)}

    @classmethod
    def of(cls, call: Callable[..., Any], *, bound: bool = True) -> Arguments:
        """Read a callable's parameters; ``bound=False`` leaves the first (``self``) out. Not readable: nothing can be found by name."""
        try:
            parameters = list(inspect.signature(call).parameters.values())
        except (TypeError, ValueError):
            return cls(_scripted(call), open_ended=True)
        positional = [each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
        open_ended = any(each.kind in (each.VAR_KEYWORD, each.VAR_POSITIONAL) for each in parameters)
        named = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
        found = positional[0 if bound else 1 :]
        made = cls((*found, *named), open_ended=open_ended)
        for name in named:
            made._places[name] = -1
        return made

    def get(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the argument, or MISSING."""
        if name in kwargs:
            return kwargs[name]
        place = self._places.get(name, -1)
        return args[place] if 0 <= place < len(args) else MISSING

    def first(self, candidates: frozenset[str]) -> str | None:
        """Return the first parameter whose name is one of these."""
        return next((name for name in self.names if name in candidates), None)


def taking(component: Any) -> Callable[..., Any]:
    """Return what says which arguments a class, or an instance, is called with: its ``__call__`` where that names any, else ``forward``."""
    is_class = isinstance(component, type)
    own: Any = component.__call__ if is_class else MethodType(type(component).__call__, component)
    forward: Any = getattr(component, "forward", None)
    found: Callable[..., Any] = own if forward is None or Arguments.of(own, bound=not is_class).names else forward
    return found


def check_names(options: Options, call: Callable[..., Any]) -> None:
    """Raise TypeError for a generator, and ValueError where a decoration names an argument that is not taken."""
    if inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call):
        raise TypeError(
            f"trace_lstm({getattr(call, '__qualname__', call)}): a generator returns before it has run. Accepted is the component that it "
            "calls; traced_session puts many calls into one span"
        )
    try:
        parameters = inspect.signature(call).parameters
    except (TypeError, ValueError):
        return
    if any(each.kind in (each.VAR_KEYWORD, each.VAR_POSITIONAL) for each in parameters.values()):
        return
    for field in ("lengths", "mask", "session", "time_gap"):
        name = getattr(options, field)
        if isinstance(name, str) and name not in parameters:
            raise ValueError(
                f"{field}={name!r} is not an argument of {getattr(call, '__qualname__', call)}: it has {', '.join(parameters)}"
            )


def _scripted(call: Any) -> tuple[str, ...]:
    # a ScriptMethod has no Python signature, but a schema
    schema = getattr(call, "schema", None)
    return tuple(each.name for each in schema.arguments if each.name != "self") if schema is not None else ()
