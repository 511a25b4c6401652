"""Judged traces counted in cells: cohort, what divides it further, which mechanisms went wrong, whether the outcome failed, weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lstm_trace.analyse.completing import Observed
from lstm_trace.analyse.dimensions import UNKNOWN, cohort_rank
from lstm_trace.analyse.shapley import Floats

Row: TypeAlias = Mapping[str, Any]
WEIGHTS: Final = 64
"""Distinct inclusion weights that are told apart; more are rounded to the nearest of as many in equal ratios."""


@dataclass(frozen=True, slots=True)
class Cells:
    """The axes of a table of cells. ``present`` are the strata: pairs of a cohort's and a facet's number.

    ``partial``: some traces lack a label and are counted all the same, in a last place of each axis.
    """

    cohorts: tuple[str, ...]
    facets: tuple[str, ...]
    present: tuple[tuple[int, int], ...]
    mechanisms: tuple[str, ...]
    weights: Floats
    partial: bool

    @classmethod
    def of(cls, rows: Sequence[Row], mechanisms: tuple[str, ...]) -> Cells:
        """The axes that rows of (cohort, facet, each mechanism, failed, weight, n) need; None is a label that is missing.

        Where traces weigh differently those that lack a label are left out: their weights say what they stand for already.
        """
        whole = [row for row in rows if all(row[name] is not None for name in ("facet", *mechanisms, "failed"))]
        partial = len(whole) < len(rows) and all(row["weight"] == 1.0 for row in rows)
        known = [row for row in (rows if partial else whole) if row["facet"] is not None]
        cohorts = tuple(sorted({row["cohort"] for row in (rows if partial else whole)}, key=cohort_rank)) or (UNKNOWN,)
        facets = tuple(sorted({row["facet"] for row in known})) or ("",)
        present = sorted({(cohorts.index(row["cohort"]), facets.index(row["facet"])) for row in known}) or [(0, 0)]
        weights = _few(np.array([[row["weight"], row["n"]] for row in whole] or [[1.0, 1.0]]))
        return cls(cohorts, facets, tuple(present), mechanisms, weights, partial)

    @property
    def strata(self) -> tuple[str, ...]:
        """The cohort of each stratum."""
        return tuple(self.cohorts[cohort] for cohort, _ in self.present)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one release's cells; where some traces are partial, of the traces as they were observed."""
        labels = len(self.mechanisms) + 1
        if self.partial:
            return (len(self.cohorts), len(self.facets) + 1, *[3] * labels)
        return (len(self.present), *[2] * labels, self.weights.size)

    def stratum(self, row: Row) -> int:
        """The number of a row's cohort and facet in the leading axes of ``shape``, one after the other."""
        cohort = self.cohorts.index(row["cohort"])
        facet = len(self.facets) if row["facet"] is None else self.facets.index(row["facet"])
        return cohort * (len(self.facets) + 1) + facet if self.partial else self.present.index((cohort, facet))

    def places(self, stratum: NDArray[np.int64], labels: Sequence[NDArray[np.int64]], weight: Floats) -> NDArray[np.int64]:
        """The cells of traces, numbered; a label that is missing is a 2."""
        if self.partial:
            inner: tuple[NDArray[np.int64], ...] = (stratum, *labels)
            shape = (len(self.cohorts) * (len(self.facets) + 1), *self.shape[2:])
        else:
            inner, shape = (stratum, *labels, nearest(self.weights, weight)), self.shape
        return np.asarray(np.ravel_multi_index(inner, shape))

    def counted(self, rows: Sequence[Row], names: tuple[str, str]) -> tuple[Floats, Observed | None]:
        """Counts (2, strata, 2, …, 2, weights) of two releases, and what was observed where some traces are partial, else None."""
        labels = (*self.mechanisms, "failed")
        if not self.partial:
            rows = [row for row in rows if all(row[name] is not None for name in ("facet", *labels))]
        flat = np.zeros((2, int(np.prod(self.shape))))
        if rows:
            stratum = np.array([self.stratum(row) for row in rows])
            told = [np.array([2 if row[name] is None else row[name] for row in rows]) for name in labels]
            places = self.places(stratum, told, np.array([row["weight"] for row in rows], dtype=np.float64))
            np.add.at(flat, (np.array([names.index(row["release"]) for row in rows]), places), [row["n"] for row in rows])
        table = flat.reshape(2, *self.shape)
        if not self.partial:
            return table, None
        observed = Observed(table, np.array([cohort * len(self.facets) + facet for cohort, facet in self.present]))
        return np.stack([side[0] for side in observed.completed(table[:1], table[1:])])[..., None], observed


def _few(weighed: Floats) -> Floats:
    """The distinct weights of rows of (weight, traces), rising. Where there are more than ``WEIGHTS``, as many that lie between them."""
    weights = np.unique(weighed[:, 0])
    if weights.size <= WEIGHTS:
        return weights
    return np.geomspace(weights[0], weights[-1], WEIGHTS)


def nearest(weights: Floats, given: Floats) -> NDArray[np.int64]:
    """For each weight given, the place of the nearest one in ``weights``, which rise."""
    after = np.clip(np.searchsorted(weights, given), 1, max(weights.size - 1, 1)) if weights.size > 1 else np.zeros(given.size, np.int64)
    before = np.maximum(after - 1, 0)
    return np.asarray(np.where(np.abs(given - weights[before]) <= np.abs(weights[after] - given), before, after))
