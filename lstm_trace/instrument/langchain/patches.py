"""Replace functions on classes and modules, when and if their module is imported, and put the very same objects back."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any, NamedTuple

import wrapt

Wrap = Callable[[Any], Any]


class Site(NamedTuple):
    """One function to replace: ``owner`` is a class of the module, or None for the module itself."""

    module: str
    owner: str | None
    name: str
    wrap: Wrap


class Patches:
    """Every replaced function with its original. A site that a version of LangChain does not have is passed over."""

    def __init__(self, sites: Iterable[Site]) -> None:
        self._sites: dict[str, list[Site]] = {}
        for site in sites:
            self._sites.setdefault(site.module, []).append(site)
        self._originals: list[tuple[Any, str, Any, Any]] = []
        self._active = False
        self._hooked = False
        self._lock = threading.Lock()

    def apply(self) -> None:
        """Replace now what is imported, and the rest as it is imported."""
        self._active = True
        if self._hooked:
            import sys

            for name in self._sites:
                if (module := sys.modules.get(name)) is not None:
                    self._patch(module)
            return
        self._hooked = True
        for name in self._sites:
            wrapt.register_post_import_hook(self._patch, name)

    def restore(self) -> None:
        """Put every original back, unless somebody else replaced ours since: theirs stays, and ours passes straight through."""
        with self._lock:
            self._active = False
            for owner, name, original, ours in reversed(self._originals):
                if vars(owner).get(name) is ours:
                    setattr(owner, name, original)
            # What stands below somebody else's is in force again with the next apply(), instead of a second time.
            self._originals = [each for each in self._originals if _is_or_wraps(vars(each[0]).get(each[1]), each[3])]

    def _patch(self, module: Any) -> None:
        with self._lock:
            if not self._active:
                return
            self._originals = [each for each in self._originals if _is_or_wraps(vars(each[0]).get(each[1]), each[3])]
            done = {(id(owner), name) for owner, name, _, _ in self._originals}
            for site in self._sites[module.__name__]:
                owner = module if site.owner is None else getattr(module, site.owner, None)
                original = None if owner is None else vars(owner).get(site.name)
                if original is None or (id(owner), site.name) in done:
                    continue
                ours = site.wrap(original if site.owner is None else callable_of(original))
                setattr(owner, site.name, ours)
                self._originals.append((owner, site.name, original, ours))


def _is_or_wraps(found: Any, ours: Any) -> bool:
    """Tell whether ``found`` is ours, or calls ours in the end."""
    while found is not None and found is not ours:
        found = getattr(found, "__wrapped__", None)
    return found is ours


def callable_of(descriptor: Any) -> Any:
    """Return a function that calls what stands in a class as the class would: other instrumentations put wrapt's objects there."""
    if type(descriptor) is FunctionType:  # wrapt's objects pass isinstance() as well
        return descriptor

    @functools.wraps(descriptor)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return descriptor.__get__(self, type(self))(*args, **kwargs)

    return call
