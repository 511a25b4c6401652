"""What the demo shows at the end: one trace, the cohorts of both releases, the verdict, and where everything is."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lstm_trace.demo.judging import OUTCOME
from lstm_trace.demo.knowledge import BRANCH_OF
from lstm_trace.demo.run import BASELINE, CANDIDATE, KEEPS, Options

if TYPE_CHECKING:
    from rich.console import Console

    from lstm_trace.store import Store

BRANCH = "branch_match"


def show(options: Options, console: Console) -> None:
    """Read the store that the two releases wrote, write report.html, and print the findings."""
    from rich.rule import Rule
    from rich.text import Text

    from lstm_trace.analyse.diagnose import diagnose
    from lstm_trace.report.page import write
    from lstm_trace.report.text import side_by_side, tree, verdict_text
    from lstm_trace.store import open_store

    with open_store(options.store) as store, console.status("reading the traces"):
        verdict = diagnose(store, BASELINE, CANDIDATE, outcome=OUTCOME)
        trace_id = clearest(store, verdict.exemplars)
        found = tree(store, trace_id)
        answers, branches = (side_by_side(store, BASELINE, CANDIDATE, name) for name in (OUTCOME, BRANCH))
        write(store, options.report, baseline=BASELINE, candidate=CANDIDATE, outcome=OUTCOME)

    kept = f"{BASELINE} keeps the last {KEEPS[BASELINE]} events of a session, {CANDIDATE} the last {KEEPS[CANDIDATE]}"
    console.print(Rule("one trace", align="left"), found, "")
    console.print(Rule(f"answers by sequence length: {kept}", align="left"), answers, "")
    console.print(Rule("routing by sequence length", align="left"), branches, "")
    console.print(Rule("verdict", align="left"), verdict_text(verdict), "")
    console.print(Rule("where it is", align="left"))
    places = (
        ("report", f"{options.report}"),
        ("spans", f"{options.store}  (OTLP JSON lines)"),
        ("this trace", f"{program()} show {options.store} {trace_id}"),
        ("the cohorts", f"{program()} cohorts {options.store}"),
        ("the verdict", f"{program()} diagnose {options.store} --baseline {BASELINE} --candidate {CANDIDATE}"),
    )
    for what, where in places:
        console.print(Text.assemble((f"{what:<12}", "dim"), where), soft_wrap=True)


def program() -> str:
    """Name the command as the user can type it: after `make demo` it lies in .venv/bin, which is on nobody's PATH."""
    called = Path(sys.argv[0])
    if shutil.which("lstm-trace") or called.name != "lstm-trace":
        return "lstm-trace"
    here = Path.cwd()
    return str(called.relative_to(here) if called.is_relative_to(here) else called)


def clearest(store: Store, exemplars: Sequence[str]) -> str:
    """Pick the trace to show: an exemplar whose branch follows from the intent that was read; without exemplars any of the candidate."""
    spans = store.spans
    if not exemplars:
        found = spans.filter((spans.release == CANDIDATE) & spans.component.notnull()).order_by("trace_id").limit(1)
        return str(found.to_pyarrow().column("trace_id")[0].as_py())
    of_exemplars = spans.filter(spans.trace_id.isin(list(exemplars)))
    rows = of_exemplars.select("trace_id", "component", "label", "branch").to_pyarrow().to_pylist()
    due = {row["trace_id"]: f"retrieve_{BRANCH_OF[row['label']]}" for row in rows if row["component"] and row["label"] in BRANCH_OF}
    followed = {row["trace_id"] for row in rows if row["branch"] is not None and row["branch"] == due.get(row["trace_id"])}
    return next((trace_id for trace_id in exemplars if trace_id in followed), exemplars[0])
