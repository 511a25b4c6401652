"""Replace functions on classes and modules, when and if their module is imported, and put the very same objects back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
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
        """Put every original back, unless somebody else replaced it since: theirs stays, and ours passes straight through."""
        with self._lock:
            self._active = False
            for owner, name, original, ours in reversed(self._originals):
                if vars(owner).get(name) is ours:
                    setattr(owner, name, original)
            self._originals.clear()

    def _patch(self, module: Any) -> None:
        with self._lock:
            if not self._active:
                return
            done = {(id(owner), name) for owner, name, _, _ in self._originals}
            for site in self._sites[module.__name__]:
                owner = module if site.owner is None else getattr(module, site.owner, None)
                original = None if owner is None else vars(owner).get(site.name)
                if original is None or (id(owner), site.name) in done:
                    continue
                ours = site.wrap(original)
                setattr(owner, site.name, ours)
                self._originals.append((owner, site.name, original, ours))
