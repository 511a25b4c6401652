"""Run something once a module, and torch around it, has finished importing. Nothing is imported for it.

A post-import hook runs while the packages around a module are still half made. ``torch.nn.modules.rnn`` is whole long before ``torch``
is, and whoever touches ``torch.compiler`` there breaks the application's import.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

import wrapt

from lstm_trace.guard import shield

Action = Callable[[Any], None]

_WAITING: Final = "_lstm_trace_waiting"
_watched: Final[dict[type, type]] = {}


def when_imported(name: str, action: Action) -> None:
    """Call ``action`` with the module of this name as soon as it, and torch if that is what imports it, is whole; at once where it is."""
    wrapt.register_post_import_hook(lambda module: _after_torch(module, action), name)


def when_whole(module: ModuleType, action: Action) -> None:
    """Call ``action`` with a module as soon as its import has finished; at once where it has. A failed import calls nothing."""
    spec: Any = getattr(module, "__spec__", None)
    if not is_importing(module) or not _watch(spec):
        with shield:  # an import of the user's must not fail for us
            action(module)
        return
    spec.__dict__.setdefault(_WAITING, []).append((module, action))


def is_importing(module: Any) -> bool:
    """Tell whether a module's own code, or what the import system does after it, is still to be finished."""
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


def torch_if_importing() -> Any:
    """Return torch while it is half made, else None."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and is_importing(torch) else None


def _after_torch(module: Any, action: Action) -> None:
    torch = torch_if_importing()
    if torch is None:
        with shield:
            action(module)
    else:
        when_whole(torch, lambda _: action(module))


def _watch(spec: Any) -> bool:
    """Notice when the import system takes the mark of a module under way off its spec: no other place tells when an import has ended."""
    cls: Any = type(spec)
    if cls in _watched.values():
        return True
    try:
        spec.__class__ = _watched.setdefault(cls, _watching(cls))
    except TypeError:
        return False
    return True


def _watching(cls: type[ModuleSpec]) -> type[ModuleSpec]:
    class Spec(cls):  # type: ignore[misc,valid-type]
        @property
        def _initializing(self) -> bool:
            return bool(self.__dict__.get("_initializing", False))

        @_initializing.setter
        def _initializing(self, value: bool) -> None:
            self.__dict__["_initializing"] = value
            if value:
                return
            self.__class__ = cls  # type: ignore[assignment]
            for module, action in self.__dict__.pop(_WAITING, ()):
                if sys.modules.get(module.__name__) is module:
                    with shield:
                        action(module)

    Spec.__name__, Spec.__qualname__, Spec.__module__ = cls.__name__, cls.__qualname__, cls.__module__
    return Spec


__all__ = ["is_importing", "torch_if_importing", "when_imported", "when_whole"]
