"""Compare an answer with gold: exact, normalised, numeric with a tolerance, and JSON structure. Pure; each returns why not, or None."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Final

_FENCE: Final = re.compile(r"\A\s*```[\w-]*\s*\n(?P<inside>.*?)\n?\s*```\s*\Z", re.DOTALL)
_WHOLE: Final = re.compile(r"\A\s*[+-]?[0-9]+\s*\Z")
_EDGES: Final = " \t\r\n.,;:!?\"'`“”‘’«»"
_SHOWN: Final = 80


def plain(value: Any) -> Any:
    """Return what of a value compares: an Enum member's value, an array's list, a model's fields, a chat message's text; else itself.

    >>> from fractions import Fraction
    >>> class Intent(Enum):
    ...     REFUND = "refund"
    >>> plain(Intent.REFUND), plain(Fraction(1, 2))
    ('refund', Fraction(1, 2))
    """
    if isinstance(value, type):
        return value
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        return {each.name: getattr(value, each.name) for each in fields(value)}
    if hasattr(value, "response_metadata") and isinstance(text := getattr(value, "text", None), str):
        return str(text)  # a LangChain message
    for name in ("tolist", "model_dump"):  # numpy and tensors, scalars among them; pydantic
        found = getattr(value, name, None)
        if callable(found):
            return found()
    return value


def exact(response: Any, expected: Any) -> str | None:
    """Compare value and kind: ``True`` is not ``1``, ``"1"`` is not ``1``.

    >>> exact("refund", "refund"), exact("Refund", "refund")
    (None, "got 'Refund', expected 'refund'")
    """
    same_kind = isinstance(response, bool) == isinstance(expected, bool)
    return None if same_kind and response == expected else _differs(response, expected)


def normal_form(value: Any) -> str:
    r"""Return a text in Unicode NFKC, without case, with single spaces, without punctuation at either end.

    >>> normal_form("  Book\u00a0 a REPAIR. ")
    'book a repair'
    """
    text = unicodedata.normalize("NFKC", str(value)).casefold()
    return " ".join(text.split()).strip(_EDGES)


def normalised(response: Any, expected: Any) -> str | None:
    """Compare the normal forms of two texts.

    >>> normalised(" Refund.", "refund") is None
    True
    """
    left, right = normal_form(response), normal_form(expected)
    # A text of punctuation alone has an empty normal form: then the texts themselves must be the same.
    same = left == right if left or right else str(response).strip() == str(expected).strip()
    return None if same else _differs(response, expected)


def number(value: Any) -> int | float | None:
    """Read a finite number; None where there is none. ``"1,200"`` is none: its meaning hangs on the place it was written.

    Whole numbers stay whole, so that two long order numbers do not become the same double.

    >>> number("3.50"), number("9007199254740993"), number(True), number("1,200"), number("1_200")
    (3.5, 9007199254740993, None, None, None)
    """
    if isinstance(value, bool) or value is None or (isinstance(value, str) and "_" in value):
        return None
    try:
        found = int(value) if isinstance(value, int) or (isinstance(value, str) and _WHOLE.match(value)) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if isinstance(found, int) or math.isfinite(found) else None


def numeric(response: Any, expected: Any, *, tolerance: float, relative: float) -> str | None:
    """Compare two numbers; within ``tolerance``, or within ``relative`` of the larger one, they are the same.

    Raises ValueError when ``expected`` is no number: then gold is wrong, not the answer.

    >>> numeric("3.5", 3.49, tolerance=0.02, relative=0) is None
    True
    """
    right = number(expected)
    if right is None:
        raise ValueError(f"expected_response {_shown(expected)} is no number")
    left = number(response)
    if left is None:
        return f"got {_shown(response)}, which is no number, expected {right}"
    try:
        near = left == right or abs(left - right) <= max(tolerance, relative * max(abs(left), abs(right)))
    except OverflowError:  # a whole number beyond every double
        near = False
    return None if near else f"got {_shown(left)}, expected {_shown(right)}"


def structure(response: Any, expected: Any, *, tolerance: float, relative: float) -> str | None:
    """Compare JSON: keys in any order, lists in order, numbers with the tolerance, all else exactly.

    Either side may be JSON text; the response also inside a Markdown code fence. Raises ValueError when ``expected`` is no JSON.

    >>> structure('{"amount": 10.0, "currency": "EUR"}', {"currency": "EUR", "amount": 10}, tolerance=0, relative=0) is None
    True
    >>> structure({"amount": [1, 2]}, {"amount": [1, 3]}, tolerance=0, relative=0)
    'at $.amount[1]: got 2, expected 3'
    """
    try:
        right = _parsed(expected)
    except ValueError:
        raise ValueError(f"expected_response {_shown(expected)} is no JSON") from None
    try:
        left = _parsed(response)
    except ValueError:
        return f"got {_shown(response)}, which is no JSON"
    return _difference(plain(left), plain(right), "$", tolerance, relative)


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    fenced = _FENCE.match(value)
    return json.loads(fenced["inside"] if fenced else value)


def _difference(left: Any, right: Any, where: str, tolerance: float, relative: float) -> str | None:
    if isinstance(right, Mapping):
        if not isinstance(left, Mapping):
            return f"at {where}: got {_shown(left)}, expected an object"
        left, right = ({str(key): inside for key, inside in side.items()} for side in (left, right))  # as JSON has them
        for key in right:
            if key not in left:
                return f"at {where}: {key!r} is missing"
        for key in left:
            if key not in right:
                return f"at {where}: {key!r} is not expected"
        pairs = ((left[key], right[key], f"{where}.{key}") for key in right)
    elif isinstance(right, Sequence) and not isinstance(right, str | bytes):
        if not isinstance(left, Sequence) or isinstance(left, str | bytes):
            return f"at {where}: got {_shown(left)}, expected a list"
        if len(left) != len(right):
            return f"at {where}: got {len(left)} items, expected {len(right)}"
        pairs = ((one, other, f"{where}[{place}]") for place, (one, other) in enumerate(zip(left, right, strict=True)))
    else:
        both = isinstance(left, int | float) and number(left) is not None and number(right) is not None and not isinstance(right, str)
        why = numeric(left, right, tolerance=tolerance, relative=relative) if both else exact(left, right)
        return None if why is None else f"at {where}: {why}"
    return next((why for one, other, place in pairs if (why := _difference(plain(one), plain(other), place, tolerance, relative))), None)


def _differs(response: Any, expected: Any) -> str:
    return f"got {_shown(response)}, expected {_shown(expected)}"


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write out a whole number of thousands of digits
        text = f"a number of {value.bit_length()} bits"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
