"""Commands that judge stored traces: evaluate, and sample to draw what a person is to label."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lstm_trace.cli.inspecting import Address, Component, Format, Printed
from lstm_trace.errors import BadInput

if TYPE_CHECKING:
    from lstm_trace.evaluate.gold import Gold
    from lstm_trace.evaluate.result import Evaluator
    from lstm_trace.evaluate.running import Report

_LISTED = 10


def register(app: typer.Typer) -> None:
    """Add this file's commands to ``app``."""
    for command in (evaluate, sample):
        app.command()(command)


def evaluate(
    store: Address,
    gold: Annotated[Path, typer.Option(help='JSON lines: {"trace_id": …, "label": …, "branch": …, "answer": …}.')],
    evaluator: Annotated[
        list[str] | None,
        typer.Option(help="Name of an evaluator, or python:pkg.mod:name. Repeatable. Default: those that gold has something for."),
    ] = None,
    judge: Annotated[str | None, typer.Option(help="Chat model of judged evaluators: provider:model or python:pkg.mod:name.")] = None,
    embeddings: Annotated[str | None, typer.Option(help="Embedding model of context_relevance: provider:model or python:….")] = None,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Evaluations at a time.")] = 8,
    rate: Annotated[float | None, typer.Option(help="Judged evaluations started a second at most.")] = None,
    resume: Annotated[Path | None, typer.Option(help="File that remembers what is done, for going on after an interrupt.")] = None,
    to: Annotated[Path | None, typer.Option(help="Write the evaluations to this folder instead of into STORE.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Send the evaluations to this OTLP receiver instead, such as http://…:4318.")] = None,
    sink: Annotated[
        list[str] | None,
        typer.Option(help="Also write them as annotations of phoenix, mlflow, langfuse or langsmith, or python:…. Repeatable."),
    ] = None,
    format: Printed = Format.table,
) -> None:
    """Run evaluators over stored traces and join their scores to them."""
    from lstm_trace.evaluate.gold import read_gold
    from lstm_trace.evaluate.progress_file import ResumeFile
    from lstm_trace.evaluate.running import Run
    from lstm_trace.evaluate.sinks import sink_named
    from lstm_trace.evaluate.writing import Beside, destination
    from lstm_trace.store import open_store

    if rate is not None and not rate > 0:
        raise BadInput(f"--rate {rate:g}: accepted is a number above 0")
    known = read_gold(gold)
    if not known.lines:
        raise BadInput(f"{gold}: no usable line" + _first_malformed(known))
    chosen = _evaluators(evaluator or _fed_by(known), judge, embeddings)
    sinks = [sink_named(name) for name in dict.fromkeys(sink or ())]
    remembered = ResumeFile(resume)
    with open_store(store) as opened, _Bar(len(known.lines) * len(chosen)) as bar, _judges_traced(chosen) as trace_into:
        exporter = destination(store, to=None if to is None else str(to), endpoint=endpoint)
        there = Beside(exporter, sinks)
        run = Run(chosen, there, workers=workers, per_second=rate, resume=remembered, advance=bar.advance, prepare=trace_into)
        report = run.over(opened, known)
    _show(format, report, gold)
    if report.refused:
        raise BadInput(f"{endpoint or to or store}: took only {report.written} of {report.written + report.refused} spans; run it again")
    short = [f"{each.backend} took only {each.sent} of {each.sent + each.refused}" for each in sinks if each.refused]
    if short:
        raise BadInput(f"{', '.join(short)} evaluations; does it hold the judged traces?")


def sample(
    store: Address,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write; one JSON line a trace, to be labelled.")],
    n: Annotated[int, typer.Option("--n", min=1, help="Traces to draw.")] = 600,
    stratify: Annotated[
        str, typer.Option(help="cohort, release, component, component_version, preprocessing, service.")
    ] = "cohort,release",
    allocate: Annotated[str, typer.Option(help="equal: as many from each stratum; proportional: as many as its share.")] = "equal",
    seed: Annotated[int, typer.Option(help="The same seed draws the same traces.")] = 0,
    component: Component = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that exists.")] = False,
    format: Printed = Format.table,
) -> None:
    """Draw traces to label, independent of any outcome, with the weight that each one carries."""
    from lstm_trace.evaluate.drawing import by_stratum, candidates, draw, to_label
    from lstm_trace.store import open_store

    if allocate not in ("equal", "proportional"):
        raise BadInput(f"--allocate {allocate!r}: accepted are equal and proportional")
    if output.exists() and not force:
        raise BadInput(f"{output}: it exists, and labels in it would be lost; give another name, or --force")
    strata = [name.strip() for name in stratify.split(",") if name.strip()]
    with open_store(store) as opened:
        population = candidates(opened, strata, component=component)
    drawn = draw(population, n, seed=seed, allocate="equal" if allocate == "equal" else "proportional")
    _write_whole(output, "".join(line + "\n" for line in to_label(drawn, strata)))
    rows = by_stratum(population, drawn)
    _print(format, {"drawn": len(drawn), "traces": len(population), "seed": seed, "output": str(output), "strata": rows}, rows)
    if format is Format.table:
        typer.echo(f"{len(drawn):,} of {len(population):,} traces drawn into {output}; fill in label, branch or answer")


# --- What is run ---------------------------------------------------------------------------------------------------------------


def _fed_by(gold: Gold) -> list[str]:
    fed = {
        "ground_truth_match": any(line.label is not None for line in gold.lines),
        "branch_match": any(line.branch is not None for line in gold.lines),
        "answer_correctness": any(line.answer is not None for line in gold.lines),
    }
    names = [name for name, has in fed.items() if has]
    if not names:
        raise BadInput("no gold line has a label, branch or answer: name the evaluators to run with --evaluator")
    return names


def _evaluators(names: Sequence[str], judge: str | None, embeddings: str | None) -> list[Evaluator]:
    from lstm_trace.evaluate.models import Unavailable, chat_model, embedding_model
    from lstm_trace.evaluate.registry import evaluator_named
    from lstm_trace.evaluate.result import stated

    try:
        if judge is not None:
            chat_model(judge)
        if embeddings is not None:
            embedding_model(embeddings)
    except Unavailable as missing:
        raise BadInput(str(missing)) from None
    made = [evaluator_named(name, judge=judge, embeddings=embeddings) for name in dict.fromkeys(names)]
    if judge is None and any(stated(each).annotator == "LLM" for each in made):
        with suppress(Unavailable):  # none is told trace by trace: gold may feed evaluators that need none
            chat_model(None)
    return made


@contextmanager
def _judges_traced(evaluators: Sequence[Evaluator]) -> Generator[Callable[[Any], object]]:
    """Trace the judges' own model calls into the provider that is given, where LangChain is here to make any."""
    from importlib.util import find_spec

    from lstm_trace.evaluate.result import stated

    if not any(stated(each).annotator == "LLM" for each in evaluators) or find_spec("langchain_core") is None:
        yield lambda _: None
        return
    from lstm_trace.instrument.langchain import LangChainInstrumentor

    instrumentor = LangChainInstrumentor()
    try:
        yield lambda provider: instrumentor.instrument(tracer_provider=provider)
    finally:
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()


# --- What is shown -------------------------------------------------------------------------------------------------------------


class _Bar:
    """A progress bar on stderr, gone when it is done; nothing where stderr is no terminal."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = ("evaluating", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
        self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self) -> None:
        """Count one evaluation."""
        self._progress.advance(self._task)


def _show(format: Format, report: Report, gold: Path) -> None:
    _print(format, report.as_dict(), [tally.row() for tally in report.tallies])
    if format is not Format.table:
        return
    for tally in report.tallies:
        for reason, count in tally.reasons.most_common():
            typer.echo(f"{tally.evaluation}: {count:,} without a score: {reason}")
    for line, reason in report.gold.malformed[:_LISTED]:
        typer.echo(f"{gold}:{line}: {reason}")
    _more(len(report.gold.malformed), "malformed lines")
    for trace_id in report.unknown[:_LISTED]:
        typer.echo(f"{trace_id}: not in the store")
    _more(len(report.unknown), "unknown traces")
    counted = [(len(report.gold.malformed), "malformed"), (report.gold.repeated, "repeated"), (len(report.unknown), "unknown")]
    listed = "".join(f", {count:,} {what}" for count, what in counted if count)
    typer.echo(f"{report.gold.read:,} gold lines{listed}; {report.written:,} spans written")


def _more(count: int, what: str) -> None:
    if count > _LISTED:
        typer.echo(f"… and {count - _LISTED:,} more {what} (--format json lists all)")


def _first_malformed(gold: Gold) -> str:
    return f"; line {gold.malformed[0][0]}: {gold.malformed[0][1]}" if gold.malformed else ""


def _print(format: Format, plain: Any, rows: Sequence[dict[str, Any]]) -> None:
    from lstm_trace.report.plain import as_csv, as_json

    if format is Format.json:
        typer.echo(as_json(plain))
    elif format is Format.csv:
        typer.echo(as_csv(rows), nl=False)
    else:
        _table(rows)


def _table(rows: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    # A column that says nothing in any row is left out: most runs have no judge, no resume file and no weights.
    columns = [name for name in rows[0] if name in _ALWAYS or any(row[name] for row in rows)]
    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*(_cell(row[name]) for name in columns))
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)


_ALWAYS = ("evaluation", "judged", "failed", "fail_rate", "stratum", "traces", "drawn", "weight")


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _write_whole(path: Path, text: str) -> None:
    """Write beside the file and move into place: a reader never finds half of it."""
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise BadInput(f"{path}: {error.strerror or error}") from None
