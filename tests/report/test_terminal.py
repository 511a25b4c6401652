"""Tables in a terminal: at any width the columns that name a row and its fail rate are whole, and what is left out is named."""

from __future__ import annotations

import pytest
from rich.console import Console

from lstm_trace.analyse.cohorts import cohorts
from lstm_trace.analyse.drift import drift
from lstm_trace.report.text import cohort_table, drift_table, step_table
from lstm_trace.store import store_of
from tests.report.test_page import made


@pytest.fixture(scope="module")
def store():
    with store_of(made()) as opened:
        yield opened


def printed(shown, width):
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


@pytest.mark.parametrize("width", [60, 80, 200, 1000])
def test_a_row_says_what_it_is_about_at_every_width(store, width):
    table = cohorts(store, ("cohort", "release"))
    lines = printed(cohort_table(table), width).splitlines()
    assert max(map(len, lines)) <= width
    assert {"cohort", "release", "evaluation", "n", "fail", "rate", "95", "%"} <= set(lines[0].split())
    long = next(row for row in table.rows if row.group == {"cohort": "21+", "release": "v2"} and row.evaluation == "answer_quality")
    assert any({"21+", "v2", f"{long.n:,}", f"{100 * long.fail_rate:.1f}"} <= set(line.split()) for line in lines)
    assert ("left out" in "".join(lines)) == (width < 150)


def test_what_is_left_out_is_named(store):
    text = " ".join(printed(cohort_table(cohorts(store, ("cohort", "release"))), 80).split())
    assert "tokens in/out, escalated, thumbs down (--format csv has them)" in text


@pytest.mark.parametrize("width", [60, 80])
def test_drift_and_steps_fit_too(store, width):
    for shown, words in (
        (drift_table(drift(store, "v1", "v2")), {"signal", "cohort", "effect", "threshold"}),
        (step_table(cohorts(store, ("cohort",))), {"release", "step", "traces", "failed"}),
    ):
        lines = printed(shown, width).splitlines()
        assert words <= set(lines[0].split())
        assert not any("…" in line for line in lines)
