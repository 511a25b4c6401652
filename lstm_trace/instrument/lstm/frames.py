"""Leave at most one frame of ours in the traceback of the user's exception."""

from __future__ import annotations

from types import TracebackType
from typing import Final

_OURS: Final = "lstm_trace.instrument.lstm."


def keep_first(error: BaseException) -> None:
    """Take our frames out of a traceback, but for the one that asks: it stands first.

    A component inside a component, or a recurrent layer inside one, has a frame of ours each.
    """
    above = error.__traceback__
    while above is not None:
        below = above.tb_next
        if below is not None and _is_ours(below):
            while below is not None and _is_ours(below):
                below = below.tb_next
            above.tb_next = below
        above = below


def _is_ours(entry: TracebackType) -> bool:
    return str(entry.tb_frame.f_globals.get("__name__", "")).startswith(_OURS)
