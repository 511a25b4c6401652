"""Did other classes come, rather than the same ones be told apart worse? What the predicted labels say of it.

The true class of a wrong prediction is not recorded, so a mix of classes that moved within a cohort cannot be taken out of the
classifier's part. But it shows: predictions that turned wrong move the mix of labels by their own share at most.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from lstm_trace.analyse.divergence import null_threshold, within
from lstm_trace.analyse.labelled import Labelled
from lstm_trace.analyse.values import fetched

FALSE_ALARMS: Final = 0.01
MATERIAL: Final = 0.05
"""Share of a cohort's predictions that has to have moved to another label, beyond what turned wrong."""
MOST: Final = 2000
"""Cells (cohort and label) above which nothing is said: labels so many are no classes."""


def classes_moved(cells: Labelled, baseline: str, candidate: str) -> str | None:
    """What to say of a flagged classifier whose cohorts hold other labels than before; None where they do not."""
    if "classifier" not in cells.mechanisms:
        return None
    rows = cells.wide.filter(cells.wide.label.notnull(), cells.wide.classifier.notnull())
    found = fetched(rows.group_by("release", "cohort", "label").aggregate(n=rows.count(), wrong=rows.classifier.sum()))
    cohorts, labels = (sorted({row[name] for row in found}) for name in ("cohort", "label"))
    if len(labels) < 2 or len(cohorts) * len(labels) > MOST or {row["release"] for row in found} != {baseline, candidate}:
        return None
    counts = np.zeros((2, 2, len(cohorts), len(labels)))  # all, wrong
    for row in found:
        counts[:, (baseline, candidate).index(row["release"]), cohorts.index(row["cohort"]), labels.index(row["label"])] = (
            row["n"], row["wrong"],
        )  # fmt: skip
    shape = (len(cohorts), len(labels))
    moved = float(within(counts[0, 0].ravel(), counts[0, 1].ravel(), shape))
    sizes = counts[0].sum(axis=-1)
    weight = sizes.prod(axis=0) / np.maximum(sizes.sum(axis=0), 1.0)
    wrong = (counts[1].sum(axis=-1) / np.maximum(sizes, 1.0)) @ weight / max(weight.sum(), 1e-300)
    explained = max(float(wrong[1] - wrong[0]), 0.0)
    random = np.random.default_rng(0)
    chance = null_threshold(
        counts[0, 0].ravel(), counts[0, 1].ravel(), lambda one, two: within(one, two, shape), FALSE_ALARMS, random
    )  # fmt: skip
    if moved <= explained + max(chance, MATERIAL):
        return None
    told = (
        f"{moved:.0%} of the predictions within cohorts went to other labels, and those that turned wrong explain {explained:.0%} at most"
    )
    return f"{told}: classes that are harder to tell and come more often look like a worse classifier; --replay settles it"
