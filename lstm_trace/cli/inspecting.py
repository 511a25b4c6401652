"""Commands that read a store: show, cohorts, drift, diagnose, compare, report, convert."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lstm_trace.errors import BadInput

if TYPE_CHECKING:
    from lstm_trace.analyse.cases import View

Address = Annotated[str, typer.Argument(metavar="STORE", help="A folder or file of spans, clickhouse://…, or jaeger+http://…")]
Edges = Annotated[str | None, typer.Option(help="Upper edges of the length cohorts, such as 4,8,12,20. Default: the cohorts as recorded.")]
Since = Annotated[
    str | None, typer.Option(help="Only traces that started from this moment on, such as 2026-11-20 or 2026-11-20T08:00+01:00.")
]
Until = Annotated[str | None, typer.Option(help="Only traces that started before this moment.")]
Component = Annotated[str | None, typer.Option(help="Only this component.")]


COMPONENTS = ("mix", "classifier", "routing", "retrieval", "generation")


class Format(str, Enum):
    """How a table is printed."""

    table = "table"
    json = "json"
    csv = "csv"


Printed = Annotated[Format, typer.Option("--format", help="How to print.")]


def register(app: typer.Typer) -> None:
    """Add this file's commands to ``app``."""
    for command in (show, cohorts, drift, diagnose, compare, report, convert):
        app.command()(command)


def show(
    store: Address,
    trace: Annotated[str, typer.Argument(metavar="TRACE_ID", help="A trace id, the start of one, or a traceparent.")],
    format: Printed = Format.table,
) -> None:
    """Show one trace as a tree, with the component's facts and the scores on it."""
    from lstm_trace.analyse.onetrace import read_trace
    from lstm_trace.report.text import trace_tree
    from lstm_trace.store import open_store

    with open_store(store) as opened:
        found = read_trace(opened, trace)
        plain = found.as_dict()
        _print(format, trace_tree(found), plain, plain["spans"])


def cohorts(
    store: Address,
    by: Annotated[str, typer.Option(help="One to three of cohort, release, label, branch, time_gap, position … or attribute names.")] = (
        "cohort,release"
    ),
    evaluation: Annotated[str | None, typer.Option(help="Only this evaluation.")] = None,
    edges: Edges = None,
    since: Since = None,
    until: Until = None,
    component: Component = None,
    fail_on: Annotated[float | None, typer.Option(help="Exit with 1 when a cohort's interval lies above this fail rate.")] = None,
    format: Printed = Format.table,
) -> None:
    """Fail rate, confidence, latency and tokens a cohort."""
    from rich.console import Group
    from rich.text import Text

    from lstm_trace.analyse.cohorts import cohorts as tabulate
    from lstm_trace.report.text import cohort_table, step_table
    from lstm_trace.store import open_store

    view, names = _view(edges, since, until, component), _names(by)
    # A dimension with a dot in its name is an attribute: only then is more than the flat columns asked for.
    with open_store(store, flat=not any("." in name for name in names)) as opened:
        table = tabulate(opened, names, evaluation=evaluation, view=view)
    plain = table.as_dict()
    foot = Text(f"{table.traces:,} traces, {table.spans:,} spans" + _skipped(table.skipped), "dim")
    steps: list[Any] = [step_table(table), Text("")] if table.late_steps else []
    _print(format, Group(cohort_table(table), Text(""), *steps, foot), plain, plain["rows"])
    if fail_on is not None and any(row.ci_low is not None and row.ci_low > fail_on for row in table.rows):
        raise typer.Exit(1)


def drift(
    store: Address,
    baseline: Annotated[str, typer.Option(help="A release, or a window START/END such as 2026-11-01/2026-11-08.")],
    candidate: Annotated[str, typer.Option(help="A release, or a window.")],
    gold: Annotated[str, typer.Option(help="The evaluation that says whether the component was right.")] = "ground_truth_match",
    edges: Edges = None,
    component: Component = None,
    watch: Annotated[bool, typer.Option("--watch", help="Test again and again as the store grows, by an always-valid test.")] = False,
    every: Annotated[float, typer.Option(min=0.0, help="Seconds between two looks of --watch.")] = 3600.0,
    looks: Annotated[int | None, typer.Option(min=1, help="Stop --watch after this many looks.")] = None,
    fail_on: Annotated[str | None, typer.Option(help="Exit with 1 when one of these signals moved: any, or confidence,latency …")] = None,
    format: Printed = Format.table,
) -> None:
    """What moved between two releases or windows: confidence, lengths, labels, latency, calibration, foreign states."""
    from lstm_trace.analyse.drift import MATERIAL
    from lstm_trace.analyse.drift import drift as compare_sides
    from lstm_trace.report.text import drift_table
    from lstm_trace.store import open_store

    view = _view(edges, None, None, component)
    if watch:
        _watch(store, baseline, candidate, view, every=every, looks=looks, fail_on=fail_on, format=format)
        return
    chosen = _chosen("--fail-on", fail_on, tuple(MATERIAL))
    with open_store(store, flat=True) as opened:
        found = compare_sides(opened, baseline, candidate, gold=gold, view=view)
    plain = found.as_dict()
    _print(format, drift_table(found), plain, plain["signals"])
    if any(row.flagged and row.signal in chosen for row in found.signals):
        raise typer.Exit(1)


def _watch(
    store: str, baseline: str, candidate: str, view: View, *, every: float, looks: int | None, fail_on: str | None, format: Format
) -> None:
    """Look, print, wait, until ``looks`` are done; with ``fail_on``, leave at the first alarm. JSON is one object a line."""
    import itertools
    import json
    import time

    from lstm_trace.analyse.values import plain as plain_values
    from lstm_trace.analyse.watch import CALL_SIGNALS
    from lstm_trace.analyse.watch import watch as look
    from lstm_trace.report.printable import printable
    from lstm_trace.report.text import watch_table
    from lstm_trace.store import open_store

    chosen = set(_names(fail_on or ""))
    if fail_on is not None and (not chosen or any(not name.startswith("failed ") for name in chosen - {*CALL_SIGNALS, "any"})):
        raise BadInput(f"--fail-on {fail_on!r}: accepted are any, {', '.join(CALL_SIGNALS)}, or 'failed NAME' of an evaluation")
    for number in itertools.count(1):
        with open_store(store, flat=True) as opened:
            shown, rows = opened.address, look(opened, baseline, candidate, view=view)
        plain = [plain_values(row) for row in rows]
        if format is Format.json:
            typer.echo(json.dumps({"look": number, "signals": plain}))
        elif format is Format.table and not rows:
            typer.echo(f"no evidence yet: no call and no judgement of {printable(candidate, 60)} in {shown}")
        else:
            _print(format, watch_table(rows), plain, plain)
        if any(row.flagged and ("any" in chosen or row.signal in chosen) for row in rows):
            raise typer.Exit(1)
        if looks is not None and number >= looks:
            return
        time.sleep(every)


def diagnose(
    store: Address,
    baseline: Annotated[str, typer.Option(help="The release that was fine.")],
    candidate: Annotated[str, typer.Option(help="The release in question.")],
    outcome: Annotated[str | None, typer.Option(help="The evaluation that says whether the answer failed.")] = None,
    mechanism: Annotated[list[str] | None, typer.Option(help="NAME=EVALUATION, such as classifier=ground_truth_match. Repeatable.")] = None,
    edges: Edges = None,
    since: Since = None,
    until: Until = None,
    min_effect: Annotated[float, typer.Option(min=0.0, help="Flag no contribution below this many percentage points.")] = 0.3,
    replay: Annotated[str | None, typer.Option(help="pkg.mod:pipeline, which runs a recorded input again; settles the verdict.")] = None,
    replay_inputs: Annotated[int, typer.Option(min=1, help="Inputs run again for each blamed component, twice each.")] = 300,
    replay_timeout: Annotated[float, typer.Option(min=0.001, help="Seconds for one run of the pipeline; a longer one is counted.")] = 300.0,
    replay_store: Annotated[Path, typer.Option(help="Folder for the traces of the replay.")] = Path("lstm-traces-replay"),
    fail_on: Annotated[str | None, typer.Option(help="Exit with 1 when the verdict names one of these: any, or classifier,mix …")] = None,
    format: Printed = Format.table,
) -> None:
    """Which component made the outcome worse, with its evidence."""
    from lstm_trace.analyse.diagnose import diagnose as judge
    from lstm_trace.report.text import verdict_text
    from lstm_trace.store import open_store

    view, blamable = _view(edges, since, until, None), _chosen("--fail-on", fail_on, COMPONENTS)
    given = _mechanisms(mechanism or [])
    pipeline = None
    if replay is not None:  # loaded first: a name that is wrong is not told after a store was read for minutes
        from lstm_trace.cli.replaying import loaded

        pipeline = loaded(replay)
    with open_store(store, flat=replay is None) as opened:
        verdict = judge(opened, baseline, candidate, outcome=outcome, mechanisms=given, view=view, min_effect_pp=min_effect)
        settled: list[dict[str, Any]] = []
        if pipeline is not None:
            from lstm_trace.analyse.replay import as_dict
            from lstm_trace.analyse.replay import replay as settle
            from lstm_trace.cli.replaying import traced_pipeline

            with traced_pipeline(pipeline, candidate, replay_store, seconds=replay_timeout) as traced:
                verdict, counted = settle(opened, verdict, traced, view=view, at_most=replay_inputs)
            settled = as_dict(counted)
    plain = verdict.as_dict() | ({"replay": settled} if replay is not None else {})
    _print(format, verdict_text(verdict), plain, plain["components"])
    if blamable & set(verdict.verdict):
        raise typer.Exit(1)


def compare(
    store: Address,
    primary: Annotated[str, typer.Option(help="A component, NAME or NAME@RELEASE.")],
    candidate: Annotated[str, typer.Option(help="The other one, which did the same job on the same windows.")],
    gold: Annotated[str, typer.Option(help="The evaluation that judges a component's own span.")] = "ground_truth_match",
    key: Annotated[str | None, typer.Option(help="Attribute that names the window, where the two ran in different traces.")] = None,
    price: Annotated[list[str] | None, typer.Option(help="MODEL=IN,OUT, prices per million tokens. Repeatable.")] = None,
    compute_price: Annotated[float | None, typer.Option(min=0.0, help="Price of one hour of a component that calls no model.")] = None,
    edges: Edges = None,
    since: Since = None,
    until: Until = None,
    format: Printed = Format.table,
) -> None:
    """Two components on matched windows: quality, latency, tokens and cost side by side, tested in pairs."""
    from lstm_trace.analyse.compare import compare as pair
    from lstm_trace.analyse.compare import read_prices
    from lstm_trace.report.text import comparison_text
    from lstm_trace.store import open_store

    view, prices = _view(edges, since, until, None), read_prices(price or [])
    with open_store(store) as opened:
        found = pair(opened, primary, candidate, gold=gold, key=key, prices=prices, compute_price=compute_price, view=view)
    plain = found.as_dict()
    _print(format, comparison_text(found), plain, [plain["primary"], plain["candidate"]])


def convert(
    store: Address,
    output: Annotated[Path, typer.Argument(metavar="OUT.parquet", help="The Parquet file to write.")],
) -> None:
    """Write a store as one Parquet file, the form that large stores are read from fastest."""
    from lstm_trace.store import open_store
    from lstm_trace.store.convert import convert as write

    with open_store(store) as opened:
        spans = write(opened, output)
        skipped = _skipped(opened.skipped)
    typer.echo(f"{output}: {spans:,} spans{skipped}")


def report(
    store: Address,
    output: Annotated[Path, typer.Option("-o", "--output", help="The page to write.")] = Path("report.html"),
    baseline: Annotated[str | None, typer.Option(help="Default: the second newest release.")] = None,
    candidate: Annotated[str | None, typer.Option(help="Default: the newest release.")] = None,
    outcome: Annotated[str | None, typer.Option(help="The evaluation that says whether the answer failed.")] = None,
    trace_url: Annotated[str | None, typer.Option(help="Link to a trace, such as http://localhost:16686/trace/{trace_id}.")] = None,
) -> None:
    """Write one self-contained HTML page: the verdict first, then what it rests on."""
    from lstm_trace.report.page import write
    from lstm_trace.store import open_store

    with open_store(store) as opened:
        write(opened, output, baseline=baseline, candidate=candidate, outcome=outcome, trace_url=trace_url)
    typer.echo(f"{output}")


def _print(format: Format, shown: Any, plain: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a result in the chosen form. Text that is not for a terminal is never wrapped."""
    from rich.console import Console

    from lstm_trace.report.plain import as_csv, as_json

    if format is Format.table:
        console = Console()
        (console if console.is_terminal else Console(width=1000)).print(shown)
    else:
        typer.echo(as_json(plain) if format is Format.json else as_csv(rows), nl=format is Format.json)


def _skipped(skipped: Mapping[str, int]) -> str:
    counted = [f"{count:,} {what.replace('_', ' ')}" for what, count in skipped.items() if count]
    return f"; skipped {', '.join(counted)}" if counted else ""


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _view(edges: str | None, since: str | None, until: str | None, component: str | None) -> View:
    from lstm_trace.analyse.cases import View
    from lstm_trace.analyse.dimensions import checked_edges

    cut: tuple[int, ...] | None = None
    if edges is not None:
        try:
            cut = checked_edges([int(part) for part in _names(edges)])
        except BadInput as error:
            raise BadInput(f"--{error}") from None
        except ValueError:
            raise BadInput(f"--edges {edges!r}: accepted are rising whole numbers from 1, such as 4,8,12,20") from None
    return View(cut, _moment("--since", since), _moment("--until", until), component)


def _moment(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    from lstm_trace.analyse.sides import moment_ns

    try:
        return moment_ns(text)
    except ValueError:
        raise BadInput(f"{option} {text!r}: accepted is an ISO 8601 moment, such as 2026-11-20 or 2026-11-20T08:00+01:00") from None


def _mechanisms(given: Sequence[str]) -> dict[str, str]:
    made: dict[str, str] = {}
    for text in given:
        name, equals, evaluation = text.partition("=")
        if not equals or not name.strip() or not evaluation.strip():
            raise BadInput(f"--mechanism {text!r}: accepted is NAME=EVALUATION, such as classifier=ground_truth_match")
        made[name.strip()] = evaluation.strip()
    return made


def _chosen(option: str, given: str | None, accepted: Sequence[str]) -> set[str]:
    """The names in a comma-separated option; ``any`` stands for all of them. Empty without the option."""
    names = set(_names(given or ""))
    if given is not None and (not names or names - {*accepted, "any"}):
        raise BadInput(f"{option} {given!r}: accepted are any, or out of {', '.join(accepted)}")
    return set(accepted) if "any" in names else names
