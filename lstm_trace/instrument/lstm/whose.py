"""Read whose call it is from what ``session=`` gave: one id, or one a batch row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from lstm_trace.instrument.lstm.arguments import MISSING
from lstm_trace.instrument.lstm.lengths import has_values


def one_id(given: Any) -> str | None:
    """Return the id of one session; None where there is none: nothing given, empty, or one a row. A list of one is that one's.

    Raises TypeError for what is no id: an object's own text would be another at each call.

    >>> one_id("s-1"), one_id(7), one_id(UUID(int=7)), one_id(["s-1", "s-2"]), one_id("")
    ('s-1', '7', '00000000-0000-0000-0000-000000000007', None, None)
    """
    if isinstance(given, str):
        return given or None
    if given is None or given is MISSING:
        return None
    if isinstance(given, (int, UUID)):
        return str(given)
    each = _listed(given)
    if each is not None:
        return one_id(each[0]) if len(each) == 1 else None
    if hasattr(given, "item") and _is_here(given):
        return one_id(given.item())  # a number of numpy's or torch's
    raise TypeError(f"{type(given).__name__} is no session's id: accepted are text, a whole number, a UUID, or a list of one a batch row")


def row_ids(given: Any) -> list[str] | None:
    """Return one id a batch row, where that was given.

    >>> row_ids(["s-1", 2]), row_ids("s-1")
    (['s-1', '2'], None)
    """
    each = _listed(given)
    return None if each is None else [str(one) for one in each]


def _listed(given: Any) -> Sequence[Any] | None:
    if isinstance(given, (list, tuple)):
        return given
    if getattr(given, "ndim", 0) == 1 and hasattr(given, "tolist") and _is_here(given):
        return given.tolist()  # type: ignore[no-any-return]
    return None


def _is_here(given: Any) -> bool:
    # reading a tensor of an accelerator would wait for it
    return getattr(given, "is_cpu", True) and has_values(given)
