"""Text from spans made harmless for a terminal: nothing in it can move the cursor, change colours or reorder what is read."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Final

_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that do not show themselves: controls, bidirectional overrides, surrogates, unassigned, line separators."""


def printable(text: object, limit: int = 120) -> str:
    r"""Show ``text`` on one line of at most ``limit`` characters, every invisible character spelled out.

    >>> printable("\x1b[31mred\u202e")
    '\\x1b[31mred\\u202e'
    >>> printable("a" * 9, limit=5)
    'aaaa…'
    """
    whole = str(text)
    # No mark is shown shorter than itself: a text of megabytes is cut before it is spelled, and what then is too long again.
    shown = _shown(whole[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def told_apart(names: Iterable[object], limit: int = 30) -> dict[object, str]:
    """Each of ``names`` shown in at most ``limit`` characters, cut in its middle, no two alike: releases often differ at the end.

    >>> told_apart(["registry/agent:2026.11.2", "registry/agent:2026.11.3", "v1"], limit=12).values()
    dict_values(['regis…6.11.2', 'regis…6.11.3', 'v1'])
    >>> told_apart(["a" * 9 + "b" + "c" * 9, "a" * 9 + "B" + "c" * 9], limit=9).values()
    dict_values(['aaaa…cccc', 'aaa…ccc 2'])
    """
    made: dict[object, str] = {}
    taken: set[str] = set()
    for name in dict.fromkeys(names):
        shown, number = _shortened(name, limit), 1
        while shown in taken:
            number += 1
            shown = f"{_shortened(name, limit - len(str(number)) - 1)} {number}"
        taken.add(shown)
        made[name] = shown
    return made


def _shortened(text: object, limit: int) -> str:
    whole = str(text)
    if len(whole) > 2 * limit:
        whole = whole[:limit] + whole[-limit:]
    shown = _shown(whole)
    if len(shown) <= limit:
        return shown
    tail = limit // 2
    return f"{shown[: limit - 1 - tail]}…{shown[-tail:]}"


def _shown(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spelled(mark) if unicodedata.category(mark) in _HIDDEN else mark for mark in text)


def _spelled(mark: str) -> str:
    return mark.encode("unicode_escape").decode("ascii")
