"""How the tickets of ``desk`` are written down: as the spans of a store, by the recorder itself, or as the cells read from either."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from lstm_trace import conventions as c
from lstm_trace.analyse.cells import Cells
from lstm_trace.analyse.facets import GAPS_S, LENGTHS, dividing
from lstm_trace.analyse.judging import selection
from lstm_trace.analyse.labelled import Labelled, sliced
from lstm_trace.analyse.sessions import Sessions, sessions_of
from lstm_trace.analyse.slices import POSITIONS, STEPS, Cut, Slice
from lstm_trace.export.otlp_json import StoreExporter
from lstm_trace.facts import Component, Evaluation, Prediction, SequenceFacts, TraceRef
from lstm_trace.recorder import Recorder
from lstm_trace.settings import Settings
from lstm_trace.store.opened import Store
from lstm_trace.store.schema import spans_schema
from tests.analyse.desk import COHORTS, EDGES, INTENTS, Case, Desk, Recorded, Tickets, work

NAMES = {
    "classifier": "ground_truth_match",
    "routing": "branch_match",
    "retrieval": "context_relevance",
    "generation": "answer_quality",
}


def columns(tickets: Tickets, desk: Desk, release: str, recorded: Recorded, random: np.random.Generator) -> list[dict[str, Any]]:
    """The spans of a release, column by column: the component's call, and an evaluation a judgement."""
    n = tickets.length.size
    traces = [f"{release}{index:030x}" for index in range(n)]
    start = (1_760_000_000_000_000_000 + (release == "v2") * 10**16 + np.arange(n) * 10**9).tolist()
    latency = random.lognormal(np.log(desk.latency), 0.3, n)
    made: list[dict[str, Any]] = [
        {
            "trace_id": traces, "span_id": [f"{1:016x}"] * n, "name": ["lstm intent"] * n, "span_kind": ["CHAIN"] * n,
            "release": [release] * n, "session_id": [f"{release}-{s}" for s in tickets.session], "component": ["intent"] * n,
            "start_ns": start,
            "duration_s": latency.tolist(), "length": tickets.length.tolist(), "time_gap": tickets.gap_s.tolist(),
            "cohort": [COHORTS[k] for k in np.digitize(tickets.length, EDGES)], "label": [INTENTS[k] for k in tickets.predicted],
            "confidence": tickets.confidence.tolist(), "status": ["unset"] * n, "attributes": [[]] * n,
        }
    ]  # fmt: skip
    drawn, with_gold = random.random(n) < recorded.every, random.random(n) < recorded.gold
    for number, stage in enumerate(recorded.measured, 2):
        kept = np.flatnonzero(drawn & with_gold if stage == "classifier" else drawn)
        wrong = tickets.wrong[stage][kept]
        score = tickets.score[kept] if stage == "generation" and recorded.graded else 1.0 - wrong
        gold = [[(c.EVALUATION_EXPECTED, INTENTS[k])] for k in tickets.intent[kept]]
        made.append(
            {
                "trace_id": [f"{number}{release}{index:029x}" for index in kept], "span_id": [f"{number:016x}"] * kept.size,
                "span_kind": ["EVALUATOR"] * kept.size, "release": [release] * kept.size, "start_ns": [start[k] + 10**10 for k in kept],
                "name": [f"evaluate {NAMES[stage]}"] * kept.size, "evaluation_name": [NAMES[stage]] * kept.size,
                "evaluation_score": score.astype(float).tolist(), "evaluation_status": ["ok"] * kept.size,
                "evaluation_label": [None] * kept.size if recorded.graded else ["fail" if bad else "pass" for bad in wrong],
                "evaluation_identifier": [f"{release}-{number}-{k}" for k in kept], "evaluation_annotator": ["CODE"] * kept.size,
                "evaluation_version": [desk.judge if stage == "generation" else "1"] * kept.size, "status": ["unset"] * kept.size,
                "target_trace_id": [traces[k] for k in kept], "target_span_id": [f"{1:016x}"] * kept.size,
                "attributes": gold if stage == "classifier" and recorded.expected else [[]] * kept.size,
            }
        )  # fmt: skip
    return made


def desk_store(before: Desk, after: Desk, n: tuple[int, int], recorded: Recorded, random: np.random.Generator) -> Store:
    """Both releases as a store in memory."""
    import ibis
    import pyarrow as pa

    schema = spans_schema().to_pyarrow()
    tables: list[Any] = []
    for release, desk, size in (("v1", before, n[0]), ("v2", after, n[1])):
        for held in columns(work(desk, size, random), desk, release, recorded, random):
            rows = len(held["trace_id"])
            empty = {f.name: [[]] * rows if pa.types.is_nested(f.type) else [None] * rows for f in schema}
            tables.append(pa.table({**empty, **held}, schema=schema))
    connection = ibis.duckdb.connect()
    return Store("memory", connection.create_table("spans", pa.concat_tables(tables)), connection=connection, closing=connection.disconnect)


def record(given: Case, n: int, folder: Path, random: np.random.Generator) -> None:
    """Answer ``n`` tickets a release with the recorder itself, whose spans go to ``folder`` as OTLP JSON lines."""
    for release, desk in (("v1", given.before), ("v2", given.after)):
        tickets = work(desk, n, random)
        provider = TracerProvider(resource=Resource({"service.name": "desk", "service.version": release}), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(StoreExporter(folder), max_queue_size=100_000, schedule_delay_millis=50))
        recorder = Recorder(Settings(), tracer_provider=provider)
        component = Component("intent")
        with_gold = random.random(n) < given.recorded.gold
        for k in range(n):
            with provider.get_tracer("desk").start_as_current_span("chain desk", attributes={c.OI_KIND: "CHAIN"}) as root:
                opened = recorder.open_component(component)
                assert opened is not None
                said = Prediction(INTENTS[tickets.predicted[k]], confidence=float(tickets.confidence[k]))
                facts = SequenceFacts((int(tickets.length[k]),), "declared", time_gap=float(tickets.gap_s[k]))
                session = {c.SESSION_ID: f"{release}-{tickets.session[k]}"}
                recorder.finish_component(opened, component, (said,), facts, extra=session)
            where = root.get_span_context()
            target = TraceRef(where.trace_id, where.span_id)
            for stage, name in NAMES.items():
                if stage == "classifier" and not with_gold[k]:
                    continue
                wrong = bool(tickets.wrong[stage][k])
                graded = given.recorded.graded and stage == "generation"
                score, label = (float(tickets.score[k]), None) if graded else (1.0 - wrong, "fail" if wrong else "pass")
                gold = {"expected": INTENTS[tickets.intent[k]]} if stage == "classifier" and given.recorded.expected else {}
                version = desk.judge if stage == "generation" else "1"
                recorder.evaluations.write(Evaluation(target, name, score, label, evaluator_version=version, metadata=gold))
        provider.shutdown()


def rows_of(tickets: Tickets, release: str, recorded: Recorded, random: np.random.Generator) -> list[dict[str, Any]]:
    """One row a judged ticket, as a query of its spans would give them."""
    n = tickets.length.size
    drawn, with_gold = random.random(n) < recorded.every, random.random(n) < recorded.gold
    cohort = np.digitize(tickets.length, EDGES)
    gap, steps = np.searchsorted(GAPS_S, tickets.gap_s), np.searchsorted(LENGTHS, tickets.length)
    position, step = np.searchsorted(POSITIONS, tickets.turn + 1), np.searchsorted(STEPS, tickets.steps)
    return [
        {
            "release": release, "session": int(tickets.session[k]), "cohort": COHORTS[cohort[k]],
            "gap": str(gap[k]), "steps": str(steps[k]), "label": INTENTS[tickets.predicted[k]], "position": str(position[k]),
            "step": str(step[k]),
            "expected": INTENTS[tickets.intent[k]] if recorded.expected and with_gold[k] else None,
            "classifier": int(tickets.wrong["classifier"][k]) if with_gold[k] else None, "routing": int(tickets.wrong["routing"][k]),
            "retrieval": int(tickets.wrong["retrieval"][k]), "failed": int(tickets.wrong["generation"][k]), "weight": 1.0, "n": 1,
        }
        for k in np.flatnonzero(drawn)
    ]  # fmt: skip


def labelled_of(given: Case, n: tuple[int, int], random: np.random.Generator, wide: Any) -> Labelled:
    """The cells of a case without a store between: what ``labelled`` reads from one, in a hundredth of the time."""
    rows = [row for name, desk, size in (("v1", given.before, n[0]), ("v2", given.after, n[1])) for row in
            rows_of(work(desk, size, random), name, given.recorded, random)]  # fmt: skip
    confounded = frozenset({"generation"} if given.before.judge != given.after.judge else ())
    return counted_of(rows, given.before.turns > 1.0, confounded, wide)


def counted_of(rows: list[dict[str, Any]], shared: bool, confounded: frozenset[str], wide: Any) -> Labelled:
    """The cells of rows such as ``rows_of`` makes; ``shared``: several of them belong to one session."""
    facets, names = dividing(rows, ("v1", "v2")), ("v1", "v2")
    rows = [row | {"facet": facets.of(row)} for row in rows]
    mechanisms = ("classifier", "routing", "retrieval")
    cells = Cells.of(rows, mechanisms)
    counts, observed = cells.counted(rows, names)
    sessions = _sessions(rows, cells) if shared else None
    judged = tuple(sum(row["release"] == name and row["failed"] is not None for row in rows) for name in names)
    whole = Labelled("answer_quality", cells.strata, mechanisms, counts, cells.weights, judged, (), confounded, wide, sessions, observed)  # type: ignore[arg-type]
    return replace(whole, slices=sliced(whole, names, _Counted(rows, mechanisms, shared, wide)))


@dataclass(frozen=True)
class _Counted:
    """Slices counted in rows."""

    held: list[dict[str, Any]]
    mechanisms: tuple[str, ...]
    shared: bool
    wide: Any

    def rows(self, cut: Cut) -> list[dict[str, Any]]:
        selected = cut.column == "expected" and selection(self.held, {"classifier": "gold"})
        if selected or (cut.column == "position" and not self.shared):
            return []
        keys = ("release", "cohort", "facet", cut.column, *self.mechanisms, "failed", "weight")
        counted = Counter(tuple(row.get(key) for key in keys) for row in self.held)
        return [dict(zip(keys, row, strict=True)) | {"n": n} for row, n in counted.items()]

    def traces(self, part: Slice) -> Any:
        return self.wide

    def sessions(self, part: Slice, axes: Cells) -> tuple[Sessions, Sessions]:
        return _sessions([row for row in self.held if row[part.cut.column] in part.values], axes)


def _sessions(rows: list[dict[str, Any]], cells: Cells) -> tuple[Sessions, Sessions]:
    one, two = (_sessions_of([row for row in rows if row["release"] == name], cells) for name in ("v1", "v2"))
    return one, two


def _sessions_of(rows: list[dict[str, Any]], cells: Cells) -> Sessions:
    if not cells.partial:
        rows = [row for row in rows if None not in (row["facet"], *(row[name] for name in (*cells.mechanisms, "failed")))]
    labels = [np.array([2 if row[name] is None else row[name] for row in rows]) for name in (*cells.mechanisms, "failed")]
    place = cells.places(np.array([cells.stratum(row) for row in rows]), labels, np.ones(len(rows)))
    return sessions_of(np.array([row["session"] for row in rows]), place, np.ones(len(rows)), int(np.prod(cells.shape)))
