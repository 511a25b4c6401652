"""What the demo shows at the end: one trace, the cohorts of both releases, the verdict, and where everything is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lstm_trace.demo.run import BASELINE, CANDIDATE, KEEPS, Options

if TYPE_CHECKING:
    from rich.console import Console

    from lstm_trace.store import Store

OUTCOME, BRANCH = "answer_quality", "branch_match"


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
        trace_id = (verdict.exemplars or (any_trace(store),))[0]
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
        ("this trace", f"lstm-trace show {options.store} {trace_id}"),
        ("the cohorts", f"lstm-trace cohorts {options.store}"),
        ("the verdict", f"lstm-trace diagnose {options.store} --baseline {BASELINE} --candidate {CANDIDATE}"),
    )
    for what, where in places:
        console.print(Text.assemble((f"{what:<12}", "dim"), where), soft_wrap=True)


def any_trace(store: Store) -> str:
    """Return a trace of the candidate: the one to show where the verdict has no exemplar."""
    spans = store.spans
    named = spans.filter((spans.release == CANDIDATE) & spans.component.notnull()).order_by("trace_id").limit(1)
    return str(named.to_pyarrow().column("trace_id")[0].as_py())
