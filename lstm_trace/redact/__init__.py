"""Ready redactors for recorded texts: ``pii`` and ``secrets``. What cannot be redacted is withheld, never recorded as it is."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, NamedTuple, cast

_log = logging.getLogger("lstm_trace")

Redact = Callable[[str], str]

WITHHELD: Final = "[withheld]"
"""What is recorded in place of a text that could not be redacted."""


class Found(NamedTuple):
    """A stretch of a text that is to be replaced: characters ``start`` to ``end``, and what it is."""

    start: int
    end: int
    kind: str


Detect = Callable[[str], Iterable[Found]]
"""A detector: text to what is to be replaced in it, in any order, overlaps allowed."""

_DETECTORS: Final = {"pii": "presidio_analyzer", "secrets": "detect_secrets"}
"""Name of a ready detector, which is the module of this package that makes it, and the library that it needs."""

_SECRET_KEY: Final = re.compile(
    r"passw|passphrase|secret|(?:api|access|private)_?key|authori[sz]ation|(?<![a-z])auth(?![a-z])|credential|cookie|jwt"
    r"|(?<![a-z])pin$|(?<!_)token(?!s)",
    re.IGNORECASE,
)


@dataclass(slots=True, eq=False)
class Ready:
    """One or more ready detectors as one redactor: what they find becomes ``<KIND>``, overlaps become one. Detectors load at first use."""

    names: tuple[str, ...]
    _detectors: tuple[Detect, ...] | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __call__(self, text: str) -> str:
        """Return the text with everything found replaced."""
        return replaced(text, (found for detect in self.load() for found in detect(text)))

    def load(self) -> tuple[Detect, ...]:
        """Import the libraries, which takes a second or two, so that the first recorded text need not wait for them."""
        with self._lock:
            if self._detectors is None:
                self._detectors = tuple(import_module(f"{__name__}.{name}").detector() for name in self.names)
            return self._detectors

    def hides(self, key: str) -> bool:
        """Tell whether the value under this key (``password``, ``api_key`` …) is withheld whatever it is."""
        return "secrets" in self.names and _SECRET_KEY.search(key) is not None

    def __reduce__(self) -> tuple[Any, ...]:
        return redactor, (str(self),)  # settings travel to worker processes

    def __str__(self) -> str:
        return ",".join(self.names)


def redactor(names: str) -> Redact:
    """Return the redactor that ``names`` asks for: ready ones such as ``pii`` or ``pii,secrets``, or your own as ``pkg.mod:name``.

    Raises ValueError for an unknown name, a library that is not installed, or a function that cannot be imported.

    >>> redactor("pij")
    Traceback (most recent call last):
    ValueError: redact='pij': accepted are pii, secrets, both joined by a comma, or pkg.mod:name of a function of yours
    """
    chosen = tuple(part.strip() for part in names.split(",") if part.strip())
    if len(chosen) == 1 and ":" in chosen[0]:
        return _of_the_user(chosen[0])
    if not chosen or not set(chosen) <= set(_DETECTORS):
        ready = ", ".join(_DETECTORS)
        raise ValueError(f"redact={names!r}: accepted are {ready}, both joined by a comma, or pkg.mod:name of a function of yours")
    for name in chosen:
        if find_spec(_DETECTORS[name]) is None:
            raise ValueError(f"redact={names!r}: needs pip install 'lstm-trace[redact]' ({_DETECTORS[name]} is not installed)")
    return _ready(tuple(dict.fromkeys(chosen)))


@lru_cache(maxsize=8)
def _ready(names: tuple[str, ...]) -> Ready:
    return Ready(names)


def _of_the_user(path: str) -> Redact:
    module, _, name = path.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise ValueError(f"redact={path!r} cannot be imported ({type(error).__name__}): accepted is pkg.mod:name") from error
    if not callable(found):
        raise ValueError(f"redact={path!r} is no function: accepted is one that takes a text and returns a text")
    return cast("Redact", found)


def withhold(text: str) -> str:
    """Redact everything: for a redactor that was asked for and cannot be had."""
    return WITHHELD


def safely(redact: Redact | str | None, text: str) -> str:
    """Return the text through the redactor; one that raises or returns no text loses the text, not the span.

    >>> safely(str.upper, "as it should be"), safely(lambda text: 1 / 0, "a secret")
    ('AS IT SHOULD BE', '[withheld]')
    """
    if redact is None:
        return text
    if isinstance(redact, str):  # a Settings has made a function of it
        return WITHHELD
    try:
        safe: Any = redact(text)
    except Exception as error:  # noqa: BLE001 - the user's function, and its text must not leak through a traceback either
        _say(f"raised {type(error).__name__}")
        return WITHHELD
    if not isinstance(safe, str):
        _say(f"returned {type(safe).__name__}")
        return WITHHELD
    return safe


_said: set[str] = set()


def _say(what: str) -> None:
    if what not in _said:
        _said.add(what)
        _log.warning("The redactor %s: such texts are recorded as %s (logged once)", what, WITHHELD)


def replaced(text: str, found: Iterable[Found]) -> str:
    """Return the text with every stretch replaced by its kind; stretches that overlap become one, of the kind that began first.

    >>> replaced("call Ann now", [Found(5, 8, "NAME"), Found(7, 12, "TIME")])
    'call <NAME>'
    """
    parts: list[str] = []
    done = 0
    for start, end, kind in sorted(found):
        if start >= done:
            parts += (text[done:start], f"<{kind}>")
        done = max(done, end)
    parts.append(text[done:])
    return "".join(parts)
