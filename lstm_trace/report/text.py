"""A trace, a cohort table and a verdict on a terminal, as rich renderables. Strings from spans are text, never markup."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from lstm_trace.analyse.cohorts import CohortRow, CohortTable, cohorts
from lstm_trace.analyse.compare import Comparison
from lstm_trace.analyse.diagnose import Verdict
from lstm_trace.analyse.drift import Drift, Estimate, Signal
from lstm_trace.analyse.onetrace import Placed, Score, Trace, read_trace
from lstm_trace.analyse.watch import Watched
from lstm_trace.report.fitting import FittingTable, Heading
from lstm_trace.report.numbers import between, moment, number, points, seconds, share
from lstm_trace.report.printable import printable, told_apart
from lstm_trace.store import Store

LOW_CONFIDENCE = 0.7
"""Below this a confidence is shown as a warning; `confidence_router` hands over at the same value."""


def tree(store: Store, trace_id: str) -> Tree:
    """One trace as a tree: durations, the component's facts, steps, tokens, models, and the scores on the spans that they judge."""
    return trace_tree(read_trace(store, trace_id))


def trace_tree(trace: Trace) -> Tree:
    """The tree of a trace that is already read."""
    heading = Text.assemble(("trace ", "dim"), (trace.trace_id, "bold"), (f"  {seconds(trace.duration_s)}", "dim"))
    release = next((span.facts["release"] for span in trace.spans if span.facts["release"]), None)
    if release:
        heading.append(f"  release {printable(release)}", "dim")
    whole = Tree(heading, guide_style="dim")
    branches: list[Tree] = []
    for span in trace.spans:
        # A tree deeper than the terminal is wide cannot be read: what lies deeper is shown at this depth.
        del branches[min(span.depth, 40) :]
        parent = branches[-1] if branches else whole
        branches.append(parent.add(_line(span)))
        for score in span.scores:
            branches[-1].add(_score(score))
    for score in trace.scores:
        whole.add(_score(score))
    return whole


def span_words(span: Placed) -> list[str]:
    """What a span's facts say, one short text each."""
    return [text for text, _ in _facts(span.facts)]


def score_words(score: Score) -> str:
    """A judgement in words."""
    return _score(score).plain


def _line(span: Placed) -> Text:
    facts = span.facts
    line = Text.assemble(
        (printable(facts["name"]), "bold cyan" if facts["component"] else "bold"), (f"  {seconds(facts['duration_s'])}", "dim")
    )
    if facts["status"] == "error":
        line.append(f"  error {printable(facts['error_type'] or '')}".rstrip(), "bold red")
    for text, style in _facts(facts):
        line.append("  ")
        line.append(text, style)
    return line


def _facts(facts: Any) -> list[tuple[str, str]]:
    made: list[tuple[str, str]] = []
    if facts["component"]:
        if facts["label"] is not None:
            made.append((printable(facts["label"], 40), "magenta"))
        if facts["confidence"] is not None:
            low = facts["confidence"] < LOW_CONFIDENCE
            made.append((f"confidence {facts['confidence']:.2f}", "yellow" if low else "green"))
        if facts["length"] is not None:
            guessed = " (guessed from the shape)" if facts["length_source"] == "shape" else ""
            made.append((f"{facts['length']} steps{guessed}", ""))
        if facts["cohort"] is not None:
            made.append((f"cohort {printable(facts['cohort'], 40)}", "dim"))
        if facts["state_origin"] not in (None, "none", "zero"):
            made.append((f"state {printable(facts['state_origin'], 40)}", "red" if facts["state_origin"] == "foreign" else "dim"))
    if facts["step"] is not None:
        branch = f" {printable(facts['branch'], 40)}" if facts["branch"] else ""
        made.append((f"step {facts['step']}{branch}", "blue"))
    if (facts["attempt"] or 1) > 1:
        made.append((f"attempt {facts['attempt']}", "yellow"))
    if facts["model"] is not None:
        made.append((printable(facts["model"], 60), "magenta"))
    if facts["input_tokens"] is not None or facts["output_tokens"] is not None:
        made.append((f"{number(facts['input_tokens'])} → {number(facts['output_tokens'])} tokens", ""))
    return made


def _score(score: Score) -> Text:
    if score.failed is None:
        return Text.assemble(("○ ", "yellow"), printable(score.name, 60), (f"  no score ({printable(score.status, 40)})", "yellow"))
    mark, style = ("✗ ", "red") if score.failed else ("✓ ", "green")
    line = Text.assemble((mark, style), printable(score.name, 60))
    if score.score is not None:
        line.append(f"  {score.score:.2f}", style)
    if score.label:
        line.append(f"  {printable(score.label, 40)}", style)
    if score.explanation:
        line.append(f"  {printable(score.explanation, 80)}", "dim")
    return line


_FIGURES: Final = (
    Heading("n"), Heading("failed", weight=5), Heading("errors", weight=3), Heading("fail rate"), Heading("95 %"),
    Heading("confidence", weight=8), Heading("p50", weight=6), Heading("p99", weight=7), Heading("tokens in/out", weight=4),
    Heading("escalated", weight=2), Heading("thumbs down", weight=1),
)  # fmt: skip


def cohort_table(table: CohortTable) -> FittingTable:
    """Every row of a cohort table."""
    named = {row.evaluation for row in table.rows}
    words = [*(printable(name, 40) for name in table.by), *(["evaluation"] if len(named) > 1 else [])]
    shown = FittingTable((*(Heading(word, number=False) for word in words), *_FIGURES))
    groups = {name: told_apart((row.group[name] for row in table.rows), 40) for name in table.by}
    for row in table.rows:
        cells = [Text(groups[name][row.group[name]]) for name in table.by]
        cells += [Text(printable(row.evaluation or "–", 40))] if len(named) > 1 else []
        shown.add_row(*cells, *_figures(row))
    return shown


def _figures(row: CohortRow) -> list[str]:
    return [
        number(row.n),
        number(row.failed),
        number(row.errors),
        share(row.fail_rate),
        between(row.ci_low, row.ci_high),
        number(row.confidence_mean, 3),
        seconds(row.latency_p50_s),
        seconds(row.latency_p99_s),
        f"{number(row.input_tokens_mean)} / {number(row.output_tokens_mean)}",
        share(row.escalation_rate),
        share(row.thumbs_down_rate),
    ]


def step_table(table: CohortTable) -> FittingTable:
    """Fail rate by step of the trajectory, so that what goes wrong late shows."""
    shown = FittingTable((Heading("release", number=False), *map(Heading, ("step", "traces", "failed", "fail rate", "95 %"))))
    releases = told_apart((row.release for row in table.late_steps), 40)
    for row in table.late_steps:
        cells = (str(row.step), number(row.n), number(row.failed), share(row.fail_rate), between(row.ci_low, row.ci_high))
        shown.add_row(Text(releases[row.release]), *cells)
    return shown


def side_by_side(store: Store, baseline: str, candidate: str, evaluation: str) -> Table:
    """Cohorts of two releases beside each other: fail rate with its interval, the change, and the confidence.

    The change is marked where the two intervals do not overlap; that is a sign, not the test behind a verdict.
    """
    table = cohorts(store, ("cohort", "release"), evaluation=evaluation)
    rows = {(row.group["cohort"], row.group["release"]): row for row in table.rows}
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("steps", no_wrap=True)
    for release in told_apart((baseline, candidate), 20).values():
        for title in ("n", "fails", "95 %"):
            shown.add_column(f"{release} {title}", justify="right", no_wrap=True)
    for title in ("change", "confidence"):
        shown.add_column(title, justify="right", no_wrap=True)
    for cohort in dict.fromkeys(row.group["cohort"] for row in table.rows):
        pair = [rows.get((cohort, release)) for release in (baseline, candidate)]
        cells = [
            text
            for row in pair
            for text in ((number(row.n), share(row.fail_rate), between(row.ci_low, row.ci_high)) if row else ("–",) * 3)
        ]
        shown.add_row(
            Text(printable(cohort, 40)), *cells, _change(pair), " → ".join(number(row.confidence_mean, 2) if row else "–" for row in pair)
        )
    return shown


def _change(pair: Sequence[CohortRow | None]) -> Text:
    before, after = pair
    if before is None or after is None or before.fail_rate is None or after.fail_rate is None:
        return Text("–", "dim")
    change = Text(points(100 * (after.fail_rate - before.fail_rate)))
    if before.ci_high is not None and after.ci_low is not None and after.ci_low > before.ci_high:
        change.stylize("bold red")
    if after.ci_high is not None and before.ci_low is not None and after.ci_high < before.ci_low:
        change.stylize("bold green")
    return change


def drift_table(drift: Drift) -> Group:
    """Every signal of a comparison, flagged ones marked, and the estimate that needs no labels."""
    sides = told_apart((drift.baseline, drift.candidate), 20).values()
    figures = (
        *(Heading(side, weight=2) for side in sides),
        Heading("calls", weight=1),
        Heading("effect"),
        Heading("threshold"),
        Heading(""),
    )
    shown = FittingTable((Heading("signal", number=False), Heading("cohort", number=False), *figures))
    for row in drift.signals:
        mark = Text("moved", "bold red") if row.flagged else Text("")
        shown.add_row(
            row.signal, Text(printable(row.cohort, 40)), *own_words(row), f"{number(row.n[0])} / {number(row.n[1])}",
            number(row.effect, 4), number(row.null_threshold, 4), mark,
        )  # fmt: skip
    return Group(shown, Text(""), Text(estimate_words(drift.estimate), "dim"))


def own_words(row: Signal) -> tuple[str, str]:
    """Each side's own value of a signal: a median duration, a mean, a share."""
    before, after = (seconds(value) if row.signal == "latency" else number(value, 3) for value in (row.baseline, row.candidate))
    return before, after


def estimate_words(estimate: Estimate) -> str:
    """The label-free estimate with its assumption, or why there is none."""
    if estimate.withheld is not None:
        return f"{estimate.metric}: withheld, because {estimate.withheld}"
    return f"{estimate.metric}: {share(estimate.baseline)} → {share(estimate.candidate)}, assuming that {estimate.assumption}"


def watch_table(rows: Sequence[Watched]) -> FittingTable:
    """Every signal of one look."""
    figures = (Heading("pairs", weight=2), Heading("evidence"), Heading("alarms at", weight=1), Heading("candidate"), Heading("since"))
    shown = FittingTable((Heading("signal", number=False), Heading("cohort", number=False), *figures))
    for row in rows:
        since = Text("–") if row.alarmed_at_ns is None else Text(moment(row.alarmed_at_ns), "bold red")
        shown.add_row(
            Text(printable(row.signal, 60)),
            row.cohort,
            number(row.pairs),
            f"{row.e_value:.3g}",
            number(row.threshold),
            row.direction,
            since,
        )
    return shown


def comparison_text(found: Comparison) -> Group:
    """Two contenders beside each other, the paired tests, and quality by cohort."""
    sides = (found.primary, found.candidate)
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("")
    names = tuple(told_apart((side.name for side in sides), 40).values())
    for name in names:
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("paired", justify="right", no_wrap=True)
    quality = "–" if found.quality_p_value is None else f"p = {found.quality_p_value:.2g}"
    ratio = "–" if found.latency_ratio is None else f"× {found.latency_ratio:.2f}, p = {found.latency_p_value:.2g}"
    shown.add_row("fails", *(share(side.fail_rate) for side in sides), quality)
    shown.add_row("95 %", *(between(side.ci_low, side.ci_high) for side in sides), "")
    shown.add_row("only this one failed", number(found.only_primary_failed), number(found.only_candidate_failed), "")
    shown.add_row("p50", *(seconds(side.latency_p50_s) for side in sides), ratio)
    shown.add_row("p99", *(seconds(side.latency_p99_s) for side in sides), "")
    shown.add_row("tokens in", *(number(side.input_tokens_mean, 1) for side in sides), "")
    shown.add_row("tokens out", *(number(side.output_tokens_mean, 1) for side in sides), "")
    shown.add_row("cost per 1000", *(number(side.cost_per_1000, 4) for side in sides), "")
    cohorts = Table(box=None, pad_edge=False, header_style="bold")
    cohorts.add_column("steps")
    for title in ("windows", *(f"{name} fails" for name in names), "q"):
        cohorts.add_column(title, justify="right", no_wrap=True)
    for row in found.cohorts:
        rates = (share(row.primary_fail_rate), share(row.candidate_fail_rate))
        cohorts.add_row(Text(printable(row.cohort, 40)), number(row.n), *rates, f"{row.q_value:.2g}")
    agree = "" if found.agreement is None else f", same label in {share(found.agreement)}"
    lines: list[Any] = [Text(f"{found.windows:,} matched windows, {found.both_judged:,} judged for both{agree}"), Text(""), shown]
    lines += [Text(""), cohorts] if found.cohorts else []
    return Group(*lines, *(Text(f"note: {printable(note, 300)}", "dim") for note in found.notes))


def verdict_text(verdict: Verdict) -> Group:
    """A verdict: its sentence, what each component added, where, and what limits it."""
    blamed = verdict.verdict not in (("none",), ("insufficient_evidence",))
    parts = Table(box=None, pad_edge=False, header_style="bold")
    parts.add_column("component")
    for title in ("added", "95 %", "p", ""):
        parts.add_column(title, justify="right", no_wrap=True)
    for part in verdict.components:
        parts.add_row(
            part.name, points(part.contribution_pp), f"{part.ci_low:+.1f} to {part.ci_high:+.1f}", f"{part.p_value:.2g}",
            Text("got worse", "bold red") if part.flagged else Text(""),
        )  # fmt: skip
    lines: list[Any] = [Text(printable(verdict.sentence, 400), "bold red" if blamed else "bold"), Text(""), parts]
    if verdict.where:
        lines.append(Text(""))
    for place in verdict.where:
        what = "share of traffic" if place.component == "mix" else "own fail rate"
        lines.append(Text(f"{place.component} {printable(place.words, 60)}: {what} {share(place.baseline)} → {share(place.candidate)}"))
    lines += [Text(f"note: {printable(note, 300)}", "dim") for note in verdict.notes]
    if verdict.exemplars:
        lines.append(Text(f"look at: {' '.join(verdict.exemplars[:3])}", "dim"))
    return Group(*lines)
