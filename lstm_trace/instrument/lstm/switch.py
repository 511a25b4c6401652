"""On or off for every decorated component: off means that the class's own ``__call__`` is back, not that ours returns early."""

from __future__ import annotations

import threading
from typing import Any
from weakref import WeakKeyDictionary

_lock = threading.RLock()
_placed: WeakKeyDictionary[type, tuple[Any, Any]] = WeakKeyDictionary()

on = True
"""Decorating is enough: silence has to be asked for. Functions, which cannot be given back their own code, read this at each call."""


def place(cls: type, call: Any) -> None:
    """Give ``cls`` our ``__call__``, now or as soon as tracing is on again."""
    with _lock:
        known = _placed.get(cls)
        own = known[1] if known is not None else cls.__dict__.get("__call__")
        _placed[cls] = (call, own)
        if on:
            _put(cls, call)


def _put(cls: Any, call: Any) -> None:
    cls.__call__ = call


def holds(cls: type) -> bool:
    """Tell whether a ``__call__`` of ours was given to this class."""
    return cls in _placed


def own(cls: type) -> Any:
    """Return the ``__call__`` that the class had itself before ours, or None."""
    return _placed[cls][1]


def turn(to: bool) -> None:
    """Put our ``__call__`` on every decorated class, or take it off."""
    global on
    with _lock:
        on = to
        for cls, (call, own) in list(_placed.items()):
            if to:
                _put(cls, call)
            elif own is not None:
                _put(cls, own)
            elif "__call__" in cls.__dict__:
                del cls.__call__
