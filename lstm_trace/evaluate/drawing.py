"""Draw the traces that a person is to label: independent of any outcome, by strata, and with the weight that each one carries."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from lstm_trace.errors import BadInput

if TYPE_CHECKING:
    from lstm_trace.store import Store

STRATA: Final = ("cohort", "release", "component", "component_version", "preprocessing", "service")
"""What may be stratified by: known before the answer was judged, so that the draw cannot lean on an outcome."""

Allocation = Literal["equal", "proportional"]
_UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One trace that may be drawn, and the values of its strata."""

    trace_id: str
    component: str
    session_id: str | None
    stratum: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drawn:
    """One drawn trace: ``weight`` is the number of traces that it stands for, 1 over its inclusion probability."""

    candidate: Candidate
    probability: float

    @property
    def weight(self) -> float:
        """1 over the probability with which it was drawn."""
        return 1.0 / self.probability


def candidates(store: Store, stratify: Sequence[str], *, component: str | None = None) -> list[Candidate]:
    """List the traces with a component span; of several, the last one speaks. Raises BadInput where a name or the store offers nothing."""
    wrong = [name for name in stratify if name not in STRATA]
    if wrong:
        raise BadInput(f"--stratify {wrong[0]!r}: accepted are {', '.join(STRATA)}; an outcome may not steer what is labelled")
    import ibis

    spans = store.spans
    calls = spans.filter(spans.component.notnull(), spans.evaluation_name.isnull())
    if component is not None:
        calls = calls.filter(calls.component == component)
    order = ibis.row_number().over(ibis.window(group_by=calls.trace_id, order_by=[calls.start_ns.desc(), calls.span_id]))
    last = calls.mutate(_rank=order)
    columns = dict.fromkeys(("trace_id", "component", "session_id", *stratify))
    found = last.filter(last._rank == 0).select(*columns).to_pyarrow().to_pylist()
    if not found:
        what = "no component span" if component is None else f"no span of component {component!r}"
        raise BadInput(f"{store.address}: {what}, so there is nothing to label")
    return [
        Candidate(row["trace_id"], row["component"], row["session_id"], tuple(str(row[name] or _UNKNOWN) for name in stratify))
        for row in found
    ]


def draw(population: Iterable[Candidate], n: int, *, seed: int = 0, allocate: Allocation = "equal") -> list[Drawn]:
    """Draw about ``n`` candidates, at least one from each stratum; the same seed draws the same ones, and fewer of them for a smaller n.

    Each stratum is a simple random sample without replacement: a candidate's turn is the hash of seed and trace id. Raises BadInput where
    ``n`` is below the number of strata.

    >>> some = [Candidate(f"{i:032x}", "intent", None, ("short",) if i < 90 else ("long",)) for i in range(100)]
    >>> drawn = draw(some, 20)
    >>> len(drawn), sum(each.weight for each in drawn)
    (20, 100.0)
    """
    strata: dict[tuple[str, ...], list[Candidate]] = {}
    for candidate in population:
        strata.setdefault(candidate.stratum, []).append(candidate)
    if n < len(strata):
        raise BadInput(
            f"--n {n}: accepted is a number from {len(strata)}, one for each stratum ({', '.join(map('|'.join, sorted(strata)))})"
        )
    sizes = {stratum: len(members) for stratum, members in sorted(strata.items())}
    shares = _equal(sizes, n) if allocate == "equal" else _proportional(sizes, n)
    drawn: list[Drawn] = []
    for stratum, share in shares.items():
        members = sorted(strata[stratum], key=lambda each: _turn(seed, each.trace_id))
        drawn += [Drawn(member, share / len(members)) for member in members[:share]]
    return drawn


def _turn(seed: int, trace_id: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{trace_id}".encode(), digest_size=16).digest()


def _equal(sizes: Mapping[tuple[str, ...], int], n: int) -> dict[tuple[str, ...], int]:
    """Give each stratum the same number; what a small one cannot use goes to the larger ones."""
    shares: dict[tuple[str, ...], int] = {}
    left = n
    for place, stratum in enumerate(sorted(sizes, key=lambda each: (sizes[each], each))):
        shares[stratum] = min(sizes[stratum], left // (len(sizes) - place))
        left -= shares[stratum]
    return shares


def _proportional(sizes: Mapping[tuple[str, ...], int], n: int) -> dict[tuple[str, ...], int]:
    """Give each stratum its share by largest remainder, and at least one."""
    total = sum(sizes.values())
    left = min(n, total)
    exact = {stratum: left * size / total for stratum, size in sizes.items()}
    shares = {stratum: max(1, int(value)) for stratum, value in exact.items()}
    order = sorted(sizes, key=lambda stratum: (shares[stratum] - exact[stratum], stratum))
    while sum(shares.values()) < left:
        for stratum in order:
            if shares[stratum] < sizes[stratum] and sum(shares.values()) < left:
                shares[stratum] += 1
    return _trimmed(shares, left)


def _trimmed(shares: dict[tuple[str, ...], int], n: int) -> dict[tuple[str, ...], int]:
    # The guarantee of one a stratum may have cost more than there is: the largest shares give it back.
    while sum(shares.values()) > n:
        largest = max(shares, key=lambda stratum: (shares[stratum], stratum))
        shares[largest] -= 1
    return shares


def to_label(drawn: Iterable[Drawn], stratify: Sequence[str]) -> Iterable[str]:
    """Write one JSON line a trace: fill in ``label``, ``branch`` or ``answer`` and it is gold. What was predicted is left out on purpose.

    Source of the weights: Horvitz & Thompson 1952.
    """
    for each in drawn:
        line: dict[str, Any] = {"trace_id": each.candidate.trace_id, "component": each.candidate.component}
        if each.candidate.session_id is not None:
            line["session_id"] = each.candidate.session_id
        line |= dict(zip(stratify, each.candidate.stratum, strict=True))
        line |= {"stratum": "|".join(each.candidate.stratum), "inclusion_probability": each.probability, "weight": each.weight}
        yield json.dumps(line | {"label": None, "branch": None, "answer": None}, ensure_ascii=False)


def by_stratum(population: Iterable[Candidate], drawn: Iterable[Drawn]) -> list[dict[str, Any]]:
    """Tabulate each stratum: how many traces there are, how many were drawn, and what each of those stands for."""
    sizes = Counter(each.stratum for each in population)
    taken = Counter(each.candidate.stratum for each in drawn)
    return [
        {"stratum": "|".join(stratum) or "all", "traces": size, "drawn": taken[stratum], "weight": size / taken[stratum]}
        for stratum, size in sorted(sizes.items())
    ]
