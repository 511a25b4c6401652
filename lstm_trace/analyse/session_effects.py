"""How alike the calls of one session are, signal by signal: the design effect that a null threshold has to carry, summed in the engine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from lstm_trace.analyse.sessions import FEWEST
from lstm_trace.analyse.values import fetched

ALL: Final = "all"
Effects = Mapping[tuple[str, str], float]
"""Design effect, at least 1, by (signal, cohort)."""


class _Spread(NamedTuple):
    """One side's variance of a mean: of whole sessions, and of as many independent calls."""

    whole: float
    independent: float


def session_effects(rows: Any, numbers: Mapping[str, Any], categories: Mapping[str, Any]) -> Effects:
    """Design effects of ``numbers`` and ``categories`` (signal to column expression) over all ``rows`` and within each cohort.

    ``rows`` has ``release``, ``cohort``, ``session_id`` and ``trace_id``. Empty, which means 1 throughout, where every session holds one
    row or a release has too few sessions to tell.
    """
    import ibis

    named = rows.mutate(
        session=ibis.coalesce(rows.session_id.nullif(""), rows.trace_id),
        **{f"n_{name}": value.cast("float64") for name, value in numbers.items()},
        **{f"c_{name}": value.cast("string") for name, value in categories.items()},
    ).select("release", "cohort", "session", *(f"n_{name}" for name in numbers), *(f"c_{name}" for name in categories))
    shared = fetched(named.group_by("release").aggregate(rows=named.count(), sessions=named.session.nunique()))
    if all(row["rows"] == row["sessions"] for row in shared) or min(row["sessions"] for row in shared) < FEWEST:
        return {}
    found: dict[tuple[str, str], list[_Spread]] = defaultdict(list)
    for row in fetched(_of_numbers(named, tuple(numbers))):
        for name in numbers:
            if row[f"m_{name}"]:
                sums = {key: row[f"{key}_{name}"] for key in ("m", "s", "q", "mm", "ss", "ms")}
                found[name, row["cohort"]].append(_number_spread(sums))
    for name in categories:
        groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
        for row in fetched(_of_category(named, named[f"c_{name}"])):
            groups[row["cohort"], row["release"]].append(row)
        for (cohort, _), held in groups.items():
            found[name, cohort].append(_category_spread(held))
    return {key: _effect(sides) for key, sides in found.items()}


def _of_numbers(rows: Any, names: tuple[str, ...]) -> Any:
    """Sums over sessions of each number: calls ``m``, its sum ``s``, their products, and the sum of its squares ``q``."""
    sums: dict[str, Any] = {}
    for name in names:
        value = rows[f"n_{name}"]
        sums |= {f"m_{name}": value.count().cast("float64"), f"s_{name}": value.sum(), f"q_{name}": (value * value).sum()}
    each = _and_all(rows.group_by("release", "cohort", "session").aggregate(**sums), ("session",), tuple(sums))
    whole = {column: each[column].sum() for column in sums}
    for name in names:
        m, s = each[f"m_{name}"], each[f"s_{name}"]
        whole |= {f"mm_{name}": (m * m).sum(), f"ss_{name}": (s * s).sum(), f"ms_{name}": (m * s).sum()}
    return each.group_by("release", "cohort").aggregate(**whole)


def _and_all(each: Any, keys: tuple[str, ...], sums: tuple[str, ...]) -> Any:
    """Sums by release, cohort and ``keys``, and once more over all cohorts, out of those and not out of the rows."""
    import ibis

    every = each.group_by("release", *keys).aggregate(**{name: each[name].sum() for name in sums}).mutate(cohort=ibis.literal(ALL))
    return ibis.union(each, every.select(each.columns))


def _number_spread(row: Mapping[str, Any]) -> _Spread:
    n, mean = row["m"], row["s"] / row["m"]
    whole = row["ss"] - 2.0 * mean * row["ms"] + mean * mean * row["mm"]
    return _Spread(max(whole, 0.0) / n**2, max(row["q"] - mean * row["s"], 0.0) / n**2)


def _of_category(rows: Any, value: Any) -> Any:
    """Sums over sessions of one category's calls ``k`` and all of a session's calls ``m``."""
    import ibis

    given = rows.mutate(x=value).filter(value.notnull())
    each = given.group_by("release", "cohort", "session", "x").aggregate(k=given.count().cast("float64"))
    each = _and_all(each, ("session", "x"), ("k",))
    each = each.mutate(m=each.k.sum().over(ibis.window(group_by=["release", "cohort", "session"])))
    return each.group_by("release", "cohort", "x").aggregate(k=each.k.sum(), kk=(each.k * each.k).sum(), km=(each.k * each.m).sum())


def _category_spread(rows: list[Mapping[str, Any]]) -> _Spread:
    n = sum(row["k"] for row in rows)
    squares = sum(row["km"] for row in rows)  # of all the sessions' sizes
    whole = independent = 0.0
    for row in rows:
        share = row["k"] / n
        whole += row["kk"] - 2.0 * share * row["km"] + share * share * squares
        independent += row["k"] * (1.0 - share)
    return _Spread(max(whole, 0.0) / n**2, independent / n**2)


def _effect(sides: list[_Spread]) -> float:
    independent = sum(side.independent for side in sides)
    return max(1.0, sum(side.whole for side in sides) / independent) if independent > 0 else 1.0
