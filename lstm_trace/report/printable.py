"""Text from spans made harmless for a terminal: nothing in it can move the cursor, change colours or reorder what is read."""

from __future__ import annotations

import unicodedata
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
    cut = whole if len(whole) <= limit else whole[: limit - 1] + "…"
    if cut.isascii() and cut.isprintable():
        return cut
    return "".join(_spelled(mark) if unicodedata.category(mark) in _HIDDEN else mark for mark in cut)


def _spelled(mark: str) -> str:
    return mark.encode("unicode_escape").decode("ascii")
