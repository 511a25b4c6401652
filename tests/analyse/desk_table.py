"""Print how often the verdict names the cause, by kind and traces a release: ``python -m tests.analyse.desk_table 600 1000``."""

from __future__ import annotations

import argparse
import tempfile
import zlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from lstm_trace.analyse.diagnose import diagnose, judge
from lstm_trace.store import open_store
from tests.analyse.desk import CAUSES, KINDS, NO_ALARM, Case, case
from tests.analyse.desk_written import desk_store, labelled_of, record
from tests.analyse.test_incidents import NoTraces

WAYS = ("cells", "spans", "recorder")


def verdict_of(given: Case, n: int, random: np.random.Generator, seed: int, way: str = "cells") -> frozenset[str]:
    """The verdict on one incident, by way of its cells alone, of spans in memory, or of files that the recorder wrote."""
    if way == "cells":
        return frozenset(judge(labelled_of(given, (n, n), random, NoTraces()), "v1", "v2", seed=seed).verdict)
    if way == "spans":
        with desk_store(given.before, given.after, (n, n), given.recorded, random) as store:
            return frozenset(diagnose(store, "v1", "v2", seed=seed).verdict)
    with tempfile.TemporaryDirectory() as folder:
        record(given, n, Path(folder), random)
        with open_store(folder) as store:
            return frozenset(diagnose(store, "v1", "v2", seed=seed).verdict)


def outcome_of(kind: str, seed: int, n: int, way: str = "cells") -> tuple[str, str]:
    """One draw of a kind: what became of it in a word, and the verdict."""
    random = np.random.default_rng([seed, zlib.crc32(kind.encode())])
    given = case(kind, random)
    found = verdict_of(given, n, random, seed, way)
    told = ",".join(sorted(found))
    if kind in NO_ALARM:
        return ("alarm" if found & CAUSES else "quiet"), told
    if found in given.right:
        return "right", told
    if found == {"insufficient_evidence"} or found == {"none"}:
        return next(iter(found)), told
    return ("part" if given.right and found < given.right[0] else "else"), told


def main() -> None:
    """Print a table for each number of traces, and below it the kinds that went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n", type=int, nargs="+", help="traces a release")
    parser.add_argument("--runs", type=int, default=10, help="draws of every kind")
    parser.add_argument("--first", type=int, default=0, help="seed of the first one")
    parser.add_argument("--way", choices=WAYS, default="cells")
    given = parser.parse_args()
    for n in given.n:
        counted: Counter[str] = Counter()
        wrong: dict[str, Counter[str]] = defaultdict(Counter)
        for kind in KINDS:
            for seed in range(given.first, given.first + given.runs):
                became, told = outcome_of(kind, seed, n, given.way)
                if kind == "hidden difficulty":  # nobody can tell it from what it looks like: its verdict is printed, not counted
                    wrong[kind][told] += 1
                    continue
                counted[became] += 1
                if became not in ("right", "quiet"):
                    wrong[kind][told] += 1
        alarms, quiet = counted.pop("alarm", 0), counted.pop("quiet", 0)
        whole = counted.total()
        shares = ", ".join(f"{name} {count / whole:.1%}" for name, count in counted.most_common())
        print(f"{n} traces a release, {whole} incidents: {shares}; {alarms} alarms in {alarms + quiet} comparisons without harm")
        for kind, verdicts in wrong.items():
            print(f"  {kind}: {', '.join(f'{told} {count}' for told, count in verdicts.most_common())}")


if __name__ == "__main__":
    main()
