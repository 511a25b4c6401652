"""Run evaluators over stored traces, in parallel: gold in, evaluation spans out, and a report of what was judged and what was not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from lstm_trace import conventions as c
from lstm_trace.evaluate.gold import Gold, GoldLine
from lstm_trace.evaluate.pacing import Pace
from lstm_trace.evaluate.progress_file import ResumeFile, key_of
from lstm_trace.evaluate.recording import record_run
from lstm_trace.evaluate.result import EvaluationResult, Evaluator, stated
from lstm_trace.evaluate.stored import COLUMNS, Case, Missing, case, stored_traces
from lstm_trace.evaluate.tally import Tally
from lstm_trace.evaluate.writing import ChunkWriter, provider_for
from lstm_trace.facts import Evaluation
from lstm_trace.recorder import Recorder
from lstm_trace.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

    from lstm_trace.store import Store

_TRACES_A_QUERY: Final = 5_000
_ROWS_A_BATCH: Final = 2_000
_WRITE_SPANS: Final = 500
_WRITE_SECONDS: Final = 2.0


@dataclass(frozen=True)
class Report:
    """What came of a run. ``unknown`` lists the traces of gold that the store does not hold."""

    gold: Gold
    tallies: tuple[Tally, ...]
    unknown: tuple[str, ...]
    written: int
    refused: int

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        return {
            "gold": {
                "read": self.gold.read,
                "usable": len(self.gold.lines),
                "repeated": self.gold.repeated,
                "malformed": [{"line": line, "reason": reason} for line, reason in self.gold.malformed],
                "unknown": list(self.unknown),
            },
            "evaluations": [tally.row() | {"reasons": dict(tally.reasons)} for tally in self.tallies],
            "spans": {"written": self.written, "refused": self.refused},
        }


@dataclass(frozen=True)
class _Job:
    tally: Tally
    evaluator: Evaluator
    case: Case
    weight: float | None
    key: str


@dataclass
class Run:
    """One run over a store. ``workers`` evaluations at a time, ``per_second`` judged ones started a second at most.

    An evaluation that was skipped is counted and not written; one that failed is written unless a score under the same identifier stands
    already: a judge's outage takes no score away. Once the exporter refuses a chunk nothing more is judged.
    """

    evaluators: Sequence[Evaluator]
    exporter: SpanExporter
    settings: Settings = field(default_factory=Settings.from_env)
    workers: int = 8
    per_second: float | None = None
    resume: ResumeFile = field(default_factory=lambda: ResumeFile(None))
    advance: Callable[[], object] = lambda: None
    prepare: Callable[[TracerProvider], object] = lambda _: None

    def __post_init__(self) -> None:
        self._writer = ChunkWriter(self.exporter, self._wanted)
        self._standing: set[str] = set()
        self._tallies = [Tally(each.name) for each in self.evaluators]
        self._unknown: list[str] = []
        self._to_note: list[str] = []
        self._pace = Pace(self.per_second)
        self._write_at = time.monotonic() + _WRITE_SECONDS
        self._refused = False

    def over(self, store: Store, gold: Gold) -> Report:
        """Judge every usable line of ``gold`` that the store holds; what is done when an interrupt comes is written all the same."""
        provider = provider_for(self._writer)
        self.prepare(provider)
        recorder = Recorder(self.settings, tracer_provider=provider)
        try:
            with ThreadPoolExecutor(self.workers, "lstm-trace-evaluate") as pool:
                try:
                    self._work_off(pool, recorder, self._jobs(store, gold))
                except BaseException:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise
        finally:
            self._write()
            provider.shutdown()
        return Report(gold, tuple(self._tallies), tuple(self._unknown), self._writer.written, self._writer.refused)

    # --- What is to be judged ------------------------------------------------------------------------------------------------

    def _jobs(self, store: Store, gold: Gold) -> Iterator[_Job]:
        lines: dict[str, list[GoldLine]] = {}
        for line in gold.lines:
            lines.setdefault(line.trace_id, []).append(line)
        self._standing = _standing(store, [each.name for each in self.evaluators])
        left = dict.fromkeys(lines)
        for trace in stored_traces(_rows(store, lines)):
            del left[trace.trace_id]
            for line in lines[trace.trace_id]:
                for tally, evaluator in zip(self._tallies, self.evaluators, strict=True):
                    try:
                        found = case(trace, line, stated(evaluator).subject)
                    except Missing as missing:
                        tally.skip(str(missing))
                        self.advance()
                        continue
                    yield self._job(tally, evaluator, found, line.weight)
        self._unknown += left
        for trace_id in left:
            for _ in range(len(lines[trace_id]) * len(self.evaluators)):
                self.advance()

    @staticmethod
    def _job(tally: Tally, evaluator: Evaluator, found: Case, weight: float | None) -> _Job:
        identifier = Evaluation(found.target, evaluator.name, evaluator_version=stated(evaluator).version).identifier
        material = found.material
        return _Job(
            tally,
            evaluator,
            found,
            weight,
            key_of(identifier, [material.response, material.expected_response, material.context, material.query]),
        )

    # --- Judging -------------------------------------------------------------------------------------------------------------

    def _work_off(self, pool: ThreadPoolExecutor, recorder: Recorder, jobs: Iterable[_Job]) -> None:
        finished: SimpleQueue[tuple[Future[EvaluationResult], _Job]] = SimpleQueue()
        running = 0
        for job in jobs:
            if self._refused:
                break  # judging costs money, and there is nowhere to put it
            if job.key in self.resume:
                job.tally.resumed += 1
                self.advance()
                continue
            if running >= 4 * self.workers:
                self._collect(*finished.get())
                running -= 1
            future = pool.submit(self._judge, recorder, job)
            future.add_done_callback(partial(_note, finished, job))
            running += 1
        for _ in range(running):
            self._collect(*finished.get())

    def _judge(self, recorder: Recorder, job: _Job) -> EvaluationResult:
        if stated(job.evaluator).annotator == "LLM":
            self._pace.wait()
        return record_run(
            recorder,
            job.case.target,
            job.evaluator,
            job.case.material,
            copies=job.case.copies,
            metadata=job.case.metadata,
            weight=job.weight,
            placement="link",
        )

    def _collect(self, future: Future[EvaluationResult], job: _Job) -> None:
        result = future.result()
        job.tally.add(result, job.weight)
        self.advance()
        if result.status == "ok":
            self._to_note.append(job.key)
        # By time as well: what a slow judge said is safe two seconds later, also from kill -9.
        if len(self._writer) >= _WRITE_SPANS or time.monotonic() >= self._write_at:
            self._write()

    # --- Writing -------------------------------------------------------------------------------------------------------------

    def _wanted(self, root: ReadableSpan) -> bool:
        said = root.attributes or {}
        status = said.get(c.EVALUATION_STATUS)
        return status == "ok" or (status == "error" and said.get(c.EVALUATION_IDENTIFIER) not in self._standing)

    def _write(self) -> None:
        keys, self._to_note = self._to_note, []
        self._write_at = time.monotonic() + _WRITE_SECONDS
        if self._writer.write():
            self.resume.add(keys)
        else:
            self._refused = True


def _note(finished: SimpleQueue[tuple[Future[EvaluationResult], _Job]], job: _Job, future: Future[EvaluationResult]) -> None:
    finished.put((future, job))


def _rows(store: Store, trace_ids: Iterable[str]) -> Iterator[dict[str, Any]]:
    import ibis

    waiting = iter(trace_ids)
    while ids := list(islice(waiting, _TRACES_A_QUERY)):
        # One literal, not thousands: compiling those takes longer than reading the spans. Not a table in memory: that travels to ClickHouse
        # as an upload, which not every server and proxy takes.
        listed: Any = ibis.literal(",".join(ids))
        named = listed.split(",").unnest().name("trace_id").as_table()
        found = store.spans.semi_join(named, "trace_id").select(*COLUMNS).order_by("trace_id", "start_ns", "span_id")
        for batch in found.to_pyarrow().to_batches(max_chunksize=_ROWS_A_BATCH):
            yield from batch.to_pylist()


def _standing(store: Store, names: Sequence[str]) -> set[str]:
    """Identifiers of these evaluations that have a score or label in the store."""
    known = store.evaluations
    found = known.filter(known.status == "ok", known.identifier.notnull(), known.evaluation_name.isin(list(names)))
    return set(found.select("identifier").to_pyarrow()["identifier"].to_pylist())
