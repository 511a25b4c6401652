"""Decorate the components that ``LSTM_TRACE_COMPONENTS`` names when their modules are imported, and import nothing for it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any, Final

from lstm_trace.instrument.lstm.decorated import traced_of
from lstm_trace.instrument.lstm.forms import decorate
from lstm_trace.instrument.lstm.importing import is_importing, when_imported, when_whole
from lstm_trace.instrument.lstm.options import Options

_log = logging.getLogger("lstm_trace")

_asked: Final[set[str]] = set()


def watch(components: Iterable[str]) -> None:
    """Decorate each ``package.module:Name`` at import, once. What cannot be found is one log line; the application starts."""
    for component in components:
        if component in _asked:
            continue
        _asked.add(component)
        module, _, path = component.partition(":")
        if not (module and path) or not all(part.isidentifier() for part in (*module.split("."), *path.split("."))):
            _log.warning("LSTM_TRACE_COMPONENTS: %r is not usable: accepted is package.module:Name", component)
            continue
        if module not in sys.modules and not _exists(module):
            _log.warning(
                "LSTM_TRACE_COMPONENTS: no module %s is found for %r: it is traced only if the application imports it", module, component
            )
        if module == "__main__":
            _log.warning("LSTM_TRACE_COMPONENTS: %r is not traced: the script itself is never imported; decorate it there", component)
            continue
        when_imported(module, _on_import(path, component))


def _on_import(path: str, component: str) -> Any:
    def place(module: Any) -> None:
        try:
            *parents, name = path.split(".")
            owner = module
            for parent in parents:
                owner = getattr(owner, parent, None)
            found = getattr(owner, name, None)
            if found is None and is_importing(module):
                when_whole(module, place)  # a name that the package takes over from elsewhere further down
            elif found is None:
                _log.warning("LSTM_TRACE_COMPONENTS: %r is not traced: %s has no %s", component, module.__name__, path)
            elif traced_of(found) is None:
                setattr(owner, name, decorate(found, Options()))
        except Exception as error:  # noqa: BLE001  the application's import must not fail for us
            _log.warning("LSTM_TRACE_COMPONENTS: %r is not traced: %s", component, error)

    return place


def _exists(module: str) -> bool:
    # Looks without importing: importlib.util.find_spec would import the parents. The application's own folder is not on sys.path
    # yet when this runs from sitecustomize.
    main = sys.argv[0] if getattr(sys, "argv", None) else ""
    path: Any = [*sys.path, os.path.dirname(os.path.abspath(main)) if main not in ("", "-c", "-m") else os.getcwd()]
    found: ModuleSpec | None = None
    full = ""
    for part in module.split("."):
        full = f"{full}.{part}" if full else part
        if full in sys.builtin_module_names:
            return True
        found = PathFinder.find_spec(full, path)
        if found is None:
            return False
        path = found.submodule_search_locations or []
    return True
