"""One self-contained HTML page: no script, no network, no live markup from span values, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from lstm_trace.analyse.cohorts import CohortRow
from lstm_trace.errors import BadInput
from lstm_trace.report import charts, numbers
from lstm_trace.report.content import FINE, Content, gather
from lstm_trace.report.printable import printable, told_apart
from lstm_trace.report.text import estimate_words, own_words, score_words, span_words
from lstm_trace.report.waterfall import bars
from lstm_trace.store import Store

LIMIT_BYTES: Final = 2_000_000
STEP_FEWEST: Final = 10
"""Traces that reached a step, below which the chart leaves it out: their intervals would dwarf every other."""
ROWS_SHOWN: Final = 60
"""Rows of a table on the page; what is left out is said."""
SCORES_SHOWN: Final = 12
"""Scores beside a span; likewise."""
COHORTS_CHARTED: Final = 16
"""Cohorts in a chart; of more those with the most calls."""
LABEL: Final = 14
"""Characters of a cohort's label in a chart."""


def write(
    store: Store,
    path: str | os.PathLike[str],
    *,
    baseline: str | None = None,
    candidate: str | None = None,
    outcome: str | None = None,
    trace_url: str | None = None,
) -> Path:
    """Write the report of a store to ``path`` and return it.

    ``trace_url`` is a template with ``{trace_id}``, such as ``http://localhost:16686/trace/{trace_id}``. Raises BadInput where it
    is not, where a release or the outcome is not in the store, and where ``path`` cannot be written.
    """
    target = Path(path)
    if target.is_dir():
        raise BadInput(f"{target}: is a folder; give the name of a file to write")
    linked = _checked(trace_url)  # before anything is read, which may take long
    page = render(gather(store, baseline=baseline, candidate=candidate, outcome=outcome), trace_url=linked)
    unfinished: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=target.parent, suffix=".part", delete=False, encoding="utf-8", errors="replace") as part:
            unfinished = Path(part.name)
            part.write(page)
        unfinished.chmod(0o644)
        os.replace(unfinished, target)
    except OSError as error:
        raise BadInput(f"{target}: cannot be written ({error.strerror or error})") from None
    finally:
        if unfinished is not None:  # a full disk, or Ctrl-C
            unfinished.unlink(missing_ok=True)
    return target


def render(content: Content, *, trace_url: str | None = None) -> str:
    """The page as text, under ``LIMIT_BYTES``: traces whose spans say too much are left out."""
    page = _rendered(content, trace_url)
    worst = content.worst
    while worst and len(page.encode(errors="replace")) >= LIMIT_BYTES:
        worst = worst[:-1]
        page = _rendered(replace(content, worst=worst), trace_url)
    return page


def _rendered(content: Content, trace_url: str | None) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lstm_trace.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters.update(
        share=numbers.share, seconds=numbers.seconds, number=numbers.number, points=numbers.points,
        plain=lambda text: printable(text, 400), cell=lambda text: printable(text, 120),
    )  # fmt: skip
    template = environment.get_template("report.html")
    figures = _figures(content)
    traces = [(trace, bars(trace)) for trace in content.worst]
    link = (lambda trace_id: trace_url.replace("{trace_id}", trace_id)) if trace_url else None
    made = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    named = told_apart(content.releases)
    return template.render(
        content=content, named=named, cohorts_left_out=_left_out(content), scores_shown=SCORES_SHOWN, rows_shown=ROWS_SHOWN,
        figures=figures, traces=traces, link=link, made=made, between=numbers.between,
        rows=_shown(content),
        hidden_rows=max(0, len(content.table.rows) - ROWS_SHOWN), span_words=span_words, score_words=score_words,
        estimate_words=estimate_words, own_words=own_words,
    )  # fmt: skip


def _checked(trace_url: str | None) -> str | None:
    if trace_url is None:
        return None
    if not trace_url.startswith(("http://", "https://")) or "{trace_id}" not in trace_url:
        raise BadInput(
            f"--trace-url {trace_url!r}: accepted is an http or https address with {{trace_id}}, "
            "such as http://localhost:16686/trace/{trace_id}"
        )
    return trace_url


def _figures(content: Content) -> Mapping[str, Any]:
    """Every chart that the store has figures for."""
    made: dict[str, Any] = {}
    # A place stands for a release in the drawing: two long names may look alike there.
    series = {name: str(place) for place, name in enumerate(content.releases)}
    names = list(series.values())
    of_cohort = told_apart(_charted(content), LABEL)
    cohorts = list(of_cohort.values())
    rows = [row for row in _of_releases(content) if row.group["cohort"] in of_cohort]
    rated = [
        {
            "cohort": of_cohort[row.group["cohort"]], "release": series[row.group["release"]], "rate": row.fail_rate,
            "low": row.ci_low, "high": row.ci_high,
            "tip": f"{row.group['release']}, {row.group['cohort']}: {row.failed} of {row.n} failed, {numbers.share(row.fail_rate)}"
            f" ({numbers.between(row.ci_low, row.ci_high)})",
        }
        for row in rows if row.n
    ]  # fmt: skip
    if rated:
        made["cohorts"] = charts.both(lambda width: charts.cohort_rates(rated, names, cohorts, width))
    if content.verdict is not None and min(content.verdict.n):
        parts = [
            {
                "component": part.name, "pp": part.contribution_pp, "low": part.ci_low, "high": part.ci_high, "flagged": part.flagged,
                "tip": f"{part.name}: {numbers.points(part.contribution_pp)} ({part.ci_low:+.2f} to {part.ci_high:+.2f}),"
                f" p = {part.p_value:.2g}",
            }
            for part in content.verdict.components
        ]  # fmt: skip
        made["contributions"] = charts.both(lambda width: charts.contributions(parts, width))
    if content.confidence:
        made["confidence"] = charts.both(lambda width: charts.distribution(_shares(content.confidence, series), names, width))
    if content.reliability:
        curve = [
            {"release": series[row.release], "confidence": row.confidence, "accuracy": row.accuracy, "n": row.n,
             "tip": f"{row.release}: {row.n} predictions, confidence {row.confidence:.2f}, right {numbers.share(row.accuracy)}"}
            for row in content.reliability
        ]  # fmt: skip
        made["reliability"] = charts.both(lambda width: charts.reliability(curve, names, width))
    timed = [
        {"release": series[row.group["release"]], "cohort": of_cohort[row.group["cohort"]], "ms": 1000 * value, "quantile": quantile,
         "tip": f"{row.group['release']}, {row.group['cohort']}: {quantile} {numbers.seconds(value)}"}
        for row in rows
        for quantile, value in (("p50", row.latency_p50_s), ("p99", row.latency_p99_s))
        if value is not None
    ]  # fmt: skip
    if timed:
        made["latency"] = charts.both(lambda width: charts.latencies(timed, names, cohorts, width))
    steps = [
        {"release": series[row.release], "step": row.step, "rate": row.fail_rate, "low": row.ci_low, "high": row.ci_high,
         "tip": f"{row.release}, step {row.step}: {row.failed} of {row.n} failed, {numbers.share(row.fail_rate)}"}
        for row in content.table.late_steps if row.release in series and row.step <= 40 and row.n >= STEP_FEWEST
    ]  # fmt: skip
    if steps:
        made["steps"] = charts.both(lambda width: charts.step_rates(steps, names, width))
    return made


def _shown(content: Content) -> list[CohortRow]:
    """The rows of the table; where they are too many, those of the compared releases stand first."""
    rows = list(content.table.rows)
    if len(rows) > ROWS_SHOWN:
        rows.sort(key=lambda row: row.group["release"] not in content.releases)
    return rows[:ROWS_SHOWN]


def _of_releases(content: Content) -> list[CohortRow]:
    return [row for row in content.table.rows if row.group["release"] in content.releases]


def _charted(content: Content) -> list[str]:
    """The cohorts that are drawn, in their order: all, or those with the most calls."""
    calls: dict[str, int] = {}
    for row in _of_releases(content):
        calls[row.group["cohort"]] = calls.get(row.group["cohort"], 0) + row.calls
    kept = set(sorted(calls, key=lambda name: -calls[name])[:COHORTS_CHARTED])
    return [name for name in calls if name in kept]


def _left_out(content: Content) -> int:
    return len({row.group["cohort"] for row in _of_releases(content)}) - len(_charted(content))


def _shares(counted: Sequence[Mapping[str, Any]], series: Mapping[str, str]) -> list[dict[str, Any]]:
    """Every twentieth of confidence of every release, empty ones too, so that the outline falls to zero between."""
    whole: dict[str, int] = {}
    for row in counted:
        whole[row["release"]] = whole.get(row["release"], 0) + row["n"]
    found = {(row["release"], row["bin"]): row["n"] for row in counted}
    return [
        {
            "release": series[release], "at": index / FINE, "share": found.get((release, index), 0) / n,
            "tip": f"{release}: {found.get((release, index), 0)} of {n} predictions at {index / FINE:.2f} to {(index + 1) / FINE:.2f}",
        }
        for release, n in whole.items() for index in range(FINE)
    ] + [  # the outline ends where the last twentieth does
        {"release": series[release], "at": 1.0, "share": found.get((release, FINE - 1), 0) / n, "tip": ""} for release, n in whole.items()
    ]  # fmt: skip
