"""Say where a hidden state came from, by comparing what is passed in with what this component handed out before.

A state is recognised by its values: a hash of each batch row's bytes in the last layer. A copy, a view, a detached tensor and a re-ordered
row have the same bytes; a fresh zero state has none but zeros. Nothing is kept of the state itself.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import islice
from typing import Any, Final

from lstm_trace.facts import StateFacts, StateOrigin

ZERO: Final = 0
"""The key of a row that holds only zeros."""

_ROWS: Final = 64
_BYTES: Final = 4096
_OWNERS: Final = 8

Owner = tuple[str | None, int, int]
"""Session, row where one session has several, and the number of the layer inside the component."""

NONE: Final = StateFacts("none")
_GRAVITY: Final[dict[StateOrigin, int]] = {"none": 0, "zero": 1, "carried": 2, "unknown": 3, "foreign": 4}


def keys_of(state: Any, *, cell: bool = False) -> list[int] | None:
    """Return one key a batch row of a state, at most 64; None where its values cannot be read on this thread.

    ``state``: h, or (h, c); h is (layers, batch, hidden) or unbatched (layers, hidden); of a ``cell`` (batch, hidden) or (hidden,).
    """
    h, c = (state[0], state[1]) if isinstance(state, tuple) else (state, None)
    rows = _rows(h, cell)
    if rows is None:
        return None
    keys = [_key(row) for row in rows]
    if c is not None and ZERO in keys:
        others = _rows(c, cell)
        if others is not None:
            keys = [key or _key(other) for key, other in zip(keys, others, strict=False)]
    return keys


def _key(row: bytes) -> int:
    # 0x80 is the sign of a minus zero: a state that was multiplied by 0 is full of them
    return hash(row) or 1 if row.strip(b"\0\x80") else ZERO


def _rows(tensor: Any, cell: bool) -> list[bytes] | None:
    if not getattr(tensor, "is_cpu", False) or tensor.numel() == 0:
        return None
    try:
        plain = tensor.detach()
        if plain.element_size() == 2:
            import torch

            plain = plain.view(torch.int16)  # numpy has no bfloat16, and the bytes are all that counts
        array = plain.numpy()
    except (RuntimeError, TypeError):
        return None  # inside vmap, on the meta device, a fake tensor: there are no values
    if array.ndim == 3:
        array = array[-1]
    elif array.ndim == 2 and not cell:
        array = array[-1:]
    elif array.ndim == 1:
        array = array[None]
    if array.ndim != 2:
        return None
    if len(array) == 1:
        return [array.tobytes()[:_BYTES]]
    return [row.tobytes()[:_BYTES] for row in array[:_ROWS]]


class StateBook:
    """What one component handed out lately, and to whom. Bounded: the oldest entries go first."""

    __slots__ = ("_calls", "_last", "_limit", "_lock", "_owners", "_steps", "kept")

    def __init__(self, *, limit: int = 4096) -> None:
        self._limit = limit
        self._owners: dict[int, tuple[Owner, ...]] = {}
        self._last: dict[Owner, int] = {}
        self._steps: dict[Owner, int] = {}
        self._lock = threading.Lock()
        self._calls = 0
        self.kept = False
        """The component carries states: some call was given one, or the module keeps one."""

    def __len__(self) -> int:
        return len(self._owners) + len(self._last)

    def is_watching(self) -> bool:
        """Tell whether outgoing states are noted: always where states are carried, else during the first calls only."""
        if self.kept:
            return True
        self._calls += 1
        return self._calls <= 4

    def judge(self, keys: Sequence[int] | None, owners: Sequence[Owner]) -> list[StateOrigin]:
        """Return the origin of each row's state. ``keys`` None: it could not be read."""
        self.kept = True
        if keys is None:
            return ["unknown"]
        with self._lock:
            return [self._origin(key, owner) for key, owner in zip(keys, owners, strict=False)]

    def _origin(self, key: int, owner: Owner) -> StateOrigin:
        if key == ZERO:
            return "zero"
        holders = self._owners.get(key, ())
        if self._last.get(owner) == key or owner in holders:
            return "carried"
        # Of the same layer, and of somebody: a state handed out before sessions were told apart accuses nobody.
        others = [each for each in holders if each[2] == owner[2] and (each[0] is None) == (owner[0] is None)]
        return "foreign" if others else "unknown"

    def step(self, owner: Owner, origin: StateOrigin) -> tuple[int, bool]:
        """Count one more call of this owner; return how many since its state was fresh, and whether this one is a reset."""
        with self._lock:
            before = self._steps.get(owner, 0)
            fresh = origin in ("none", "zero")
            now = 1 if fresh else before + 1
            self._steps[owner] = now
            _bound(self._steps, self._limit)
            return now, fresh and before > 0 and self.kept

    def note(self, keys: Sequence[int] | None, owners: Sequence[Owner]) -> None:
        """Note the state that was handed out."""
        if keys is None:
            return
        with self._lock:
            for key, owner in zip(keys, owners, strict=False):
                if key == ZERO:
                    continue
                holders = self._owners.get(key, ())
                if owner not in holders:
                    self._owners[key] = (*holders, owner)[-_OWNERS:]
                self._last[owner] = key
            _bound(self._owners, self._limit)
            _bound(self._last, self._limit)


def _bound(held: dict[Any, Any], limit: int) -> None:
    if len(held) > limit:
        for key in list(islice(held, limit // 4)):
            del held[key]


def worst(origins: Sequence[StateOrigin]) -> StateOrigin:
    """Return the origin that speaks for a whole call: foreign before unknown, carried, zero, none.

    >>> worst(["zero", "foreign", "carried"])
    'foreign'
    """
    heaviest: StateOrigin = "none"
    for each in origins:
        if _GRAVITY[each] > _GRAVITY[heaviest]:
            heaviest = each
    return heaviest
