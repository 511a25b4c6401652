"""Read gold: one JSON object a line that names a trace and what is true of it. A bad line is listed and the rest goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lstm_trace.errors import BadInput
from lstm_trace.facts import TraceRef

_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class GoldLine:
    """What is true of one trace; None where the line does not say.

    ``label`` is the component's right label (or structure), ``branch`` the right branch (or path), ``answer`` a reference answer.
    ``response``, ``context`` and ``query`` stand in for what the trace itself does not hold. ``weight`` is the number of traces that this
    one stands for.
    """

    trace_id: str
    component: str | None = None
    label: Any = None
    branch: Any = None
    answer: Any = None
    response: Any = None
    context: Any = None
    query: Any = None
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class Gold:
    """The usable lines, the last one for each trace and component; ``malformed`` lists (line number, why)."""

    lines: tuple[GoldLine, ...]
    malformed: tuple[tuple[int, str], ...] = ()
    repeated: int = 0
    read: int = 0


def read_gold(path: str | os.PathLike[str]) -> Gold:
    """Read a file of gold lines (UTF-8). Raises BadInput where the file cannot be read at all."""
    try:
        with Path(path).open("rb") as file:
            return parse_gold(file)
    except OSError as error:
        raise BadInput(f"{os.fspath(path)}: {error.strerror or error}") from None


def parse_gold(lines: Iterable[bytes | str]) -> Gold:
    """Read gold lines; blank ones are passed over.

    >>> gold = parse_gold(['{"trace_id": "0af7651916cd43dd8448eb211c80319c", "label": "refund"}', "oops"])
    >>> gold.lines[0].label, gold.malformed
    ('refund', ((2, 'not JSON'),))
    """
    found: dict[tuple[str, str | None], GoldLine] = {}
    malformed: list[tuple[int, str]] = []
    read = repeated = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        read += 1
        try:
            gold = _gold_line(line)
        except ValueError as error:
            malformed.append((number, str(error)))
            continue
        key = (gold.trace_id, gold.component)
        repeated += key in found
        found[key] = gold
    return Gold(tuple(found.values()), tuple(malformed), repeated, read)


def _gold_line(line: bytes | str) -> GoldLine:
    try:
        said: Any = json.loads(line)
    except (ValueError, RecursionError):  # a UnicodeDecodeError is a ValueError too
        raise ValueError("not JSON") from None
    if not isinstance(said, Mapping):
        raise ValueError("not a JSON object")
    component = said.get("component")
    if component is not None and not isinstance(component, str):
        raise ValueError("component is not a string")
    return GoldLine(
        _trace_id(said),
        component,
        said.get("label"),
        said.get("branch"),
        said.get("answer"),
        said.get("response"),
        said.get("context"),
        said.get("query"),
        _weight(said.get("weight")),
    )


def _trace_id(said: Mapping[str, Any]) -> str:
    given = said.get("trace_id", said.get("ref"))
    if given is None:
        raise ValueError("no trace_id")
    text = str(given).strip().lower()
    if text.count("-") == 3:
        try:
            return f"{TraceRef.parse(text).trace_id:032x}"
        except ValueError:
            raise ValueError("trace_id is not 32 hex digits") from None
    if len(text) != 32 or not set(text) <= _HEX:
        raise ValueError("trace_id is not 32 hex digits")
    return text


def _weight(given: Any) -> float | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < float("inf"):
        raise ValueError("weight is not a number above 0")
    return float(given)
