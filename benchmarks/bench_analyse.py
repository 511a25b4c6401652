"""`make bench-analyse`: time and memory of stores of 1M and 10M spans, beside a direct SQL on the same file in the same run.

    python benchmarks/bench_analyse.py [--sizes 1000000,10000000] [--folder DIR] [--runs 5]

Data is made by `make_spans.py` in a temporary folder and removed (`--folder` keeps it): 1M spans as OTLP JSON lines (1.1 GB),
converted to Parquet, and copied ten times under other trace ids for 10M. Every time is the median of runs that alternate between
`cohorts` and the SQL; every peak is the largest resident set of a process that does only that. The targets are those of docs/scale.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

LINES = 1_000_000
KINDS = ("seconds", "cpu")
TARGETS = {
    "JSON lines of 1M spans, cold cohorts": "15 s",
    "1M: cohorts / SQL": "1.5",
    "1M: cohorts, peak": "500 MB",
    "10M: cohorts, warm": "1 s",
    "10M: cohorts, peak": "2000 MB",
}

# What `cohorts --by cohort,release` answers, written by hand for DuckDB on the same Parquet file: the rows, then the late steps.
SPANS = """
with spans as (select * from read_parquet('{file}')),
work as (select * from spans where coalesce(span_kind, '') <> 'EVALUATOR' and target_trace_id is null),
judged as (
    select evaluation_name, target_trace_id trace_id, target_span_id span_id,
        case when evaluation_label in ('fail', 'down', 'escalated') then 1
            when evaluation_label in ('pass', 'up') or evaluation_score >= 0.5 then 0 else 1 end failed
    from spans where evaluation_name is not null and superseded is not true and evaluation_status = 'ok'
)
"""
ROWS = (
    SPANS
    + """,
own as (select trace_id, span_id, start_ns, release, cohort, confidence, duration_s from work where component is not null),
elsewhere as (
    select trace_id, min(span_id) span_id, min(start_ns) start_ns, min(release) release,
        arg_min(upstream_cohort, start_ns) filter (upstream_component is not null) cohort,
        arg_min(upstream_confidence, start_ns) filter (upstream_component is not null) confidence, null::double duration_s
    from work where trace_id not in (select trace_id from own) group by trace_id
),
units as (from own union all from elsewhere),
first as (select trace_id, arg_min(release, start_ns) release, arg_min(cohort, start_ns) cohort from units group by trace_id),
tokens as (select trace_id, sum(input_tokens) given, sum(output_tokens) made from work where span_kind = 'LLM' group by trace_id),
facts as (
    select cohort, release, count(*) calls, avg(confidence) confidence_mean,
        quantile_cont(duration_s, 0.5) p50, quantile_cont(duration_s, 0.99) p99
    from units group by all
),
whole as (
    select cohort, release, count(*) traces, avg(given) input_tokens_mean, avg(made) output_tokens_mean
    from (select distinct trace_id, cohort, release from units) left join tokens using (trace_id) group by all
),
counted as (
    select coalesce(own.cohort, first.cohort) cohort, coalesce(own.release, first.release) release, evaluation_name,
        count(*) n, sum(failed) failed, count(distinct judged.trace_id) filter (failed = 1) failed_traces
    from judged left join own on own.trace_id = judged.trace_id and own.span_id = judged.span_id
    left join first on first.trace_id = judged.trace_id group by all
)
select release, cohort, n, failed, traces, calls, confidence_mean, p50, p99, input_tokens_mean, output_tokens_mean, failed_traces,
    (select count(*) from spans) spans, (select count(distinct trace_id) from work) all_traces
from facts join whole using (cohort, release) join counted using (cohort, release)
"""
)
STEPS = (
    SPANS
    + """,
bad as (select distinct trace_id, span_id, 1 bad from judged where failed = 1),
marked as (
    select trace_id, step, min(release) release, max((coalesce(status = 'error', false) or bad is not null)::int) wrong
    from work left join bad using (trace_id, span_id) where step is not null group by trace_id, step
)
select release, step, count(*) n, sum(wrong) failed from marked group by all order by all
"""
)


def sql(file: str) -> Any:
    import duckdb

    duck = duckdb.connect()
    return [duck.execute(query.format(file=file.replace("'", "''"))).fetchall() for query in (ROWS, STEPS)]


def cohorts(file: str) -> Any:
    from lstm_trace.analyse.cohorts import cohorts as grouped
    from lstm_trace.store import open_store

    with open_store(file, flat=True) as store:
        return grouped(store)


def decode(file: str) -> Any:
    """The yardstick for JSON lines: nothing but `orjson.loads` of each line, on one thread."""
    import orjson

    with open(file, "rb") as lines:
        return sum(len(orjson.loads(line)) for line in lines)


def convert_to(file: str) -> Any:
    from lstm_trace.store import convert, open_store

    source, _, target = file.partition(":")
    with open_store(source) as store:
        return convert(store, target)


def same_answer(file: str) -> bool:
    """Whether `cohorts` and the SQL count the same: a benchmark of two different questions would say nothing."""
    table, (rows, steps) = cohorts(file), sql(file)
    ours = sorted((row.group["release"], row.group["cohort"], row.n, row.failed, row.traces, row.calls) for row in table.rows)
    late = [(row.release, row.step, row.n, row.failed) for row in table.late_steps]
    return ours == sorted(row[:6] for row in rows) and late == steps and {(table.spans, table.traces)} == {row[-2:] for row in rows}


DOES = {"sql": sql, "cohorts": cohorts, "decode": decode, "same_answer": same_answer, "convert": convert_to}


def loaded() -> None:
    """Import what every run needs, so that a time is the work's and not the import's."""
    import ibis

    import lstm_trace.analyse.cohorts
    import lstm_trace.store  # noqa: F401

    ibis.duckdb.connect().disconnect()


def timed(name: str, file: str) -> tuple[float, float, Any]:
    """Seconds by the clock, and of processor time, of one run; and what it answered."""
    start, worked = time.perf_counter(), time.process_time()
    answer = DOES[name](file)
    return time.perf_counter() - start, time.process_time() - worked, answer


def child(names: list[str], file: str, runs: int) -> dict[str, Any]:
    """Alternate between ``names`` in a process of its own; seconds and processor seconds of each run, and the process's peak in MB."""
    command = [sys.executable, __file__, "--child", ",".join(names), "--file", file, "--runs", str(runs)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))}
    answer = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return dict(json.loads(answer.stdout.splitlines()[-1]))


def in_child(names: list[str], file: str, runs: int) -> None:
    loaded()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    answers: list[int | None] = []
    for _ in range(runs):
        for name in names:
            took, worked, answer = timed(name, file)
            answers.append(answer if isinstance(answer, bool | int) else None)
            seconds[name].append(took)
            cpu[name].append(worked)
    print(
        json.dumps(
            {"seconds": seconds, "cpu": cpu, "answers": answers, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
        )
    )


def multiplied(source: Path, target: Path, times: int) -> None:
    """Copy a converted file ``times`` times into one, each copy under trace ids and evaluation identifiers of its own."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from lstm_trace.store.parquet import MARKED

    file = pq.ParquetFile(source)
    metadata = dict(file.schema_arrow.metadata)
    counts = json.loads(metadata[MARKED])
    steps = [row | {"n": row["n"] * times, "failed": row["failed"] * times} for row in counts["steps"]]
    metadata[MARKED] = json.dumps(counts | {name: counts[name] * times for name in ("spans", "traces")} | {"steps": steps}).encode()
    schema = file.schema_arrow.with_metadata(metadata)
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for copy in range(times):
            for number in range(file.num_row_groups):
                group = file.read_row_group(number)
                for name, size in (("trace_id", 2), ("target_trace_id", 2), ("evaluation_identifier", 0)):
                    head = pa.scalar(f"{copy:02x}")
                    renamed = pc.binary_join_element_wise(head, pc.utf8_slice_codeunits(group[name], size), "")
                    group = group.set_column(group.schema.get_field_index(name), name, renamed)
                writer.write_table(group.cast(schema))


def show(what: str, value: str, cpu: float | None = None) -> None:
    worked = "" if cpu is None else f"   {cpu:.2f} s of processor"
    target = f"   target {TARGETS[what]}" if what in TARGETS else ""
    print(f"{what:42} {value:>12}{worked}{target}", flush=True)


def report(label: str, file: str, runs: int) -> None:
    both = child(["cohorts", "sql"], file, runs)
    seconds, cpu = (
        {name: statistics.median(both[kind][name][1:] or both[kind][name]) for name in DOES if name in both[kind]} for kind in KINDS
    )
    show(f"{label}: same answer", str(child(["same_answer"], file, 1)["answers"][0]))
    show(f"{label}: cohorts, first run", f"{both['seconds']['cohorts'][0]:.2f} s")
    show(f"{label}: cohorts, warm", f"{seconds['cohorts']:.3f} s", cpu["cohorts"])
    show(f"{label}: SQL, warm", f"{seconds['sql']:.3f} s", cpu["sql"])
    show(f"{label}: cohorts / SQL", f"{seconds['cohorts'] / seconds['sql']:.2f}")
    show(f"{label}: cohorts / SQL, processor time", f"{cpu['cohorts'] / cpu['sql']:.2f}")
    for name in ("cohorts", "sql"):
        show(f"{label}: {name if name == 'cohorts' else 'SQL'}, peak", f"{child([name], file, 1)['peak_mb']:.0f} MB")


def main() -> None:
    given = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    given.add_argument("--sizes", default="1000000,10000000")
    given.add_argument("--folder")
    given.add_argument("--runs", type=int, default=5)
    given.add_argument("--child")
    given.add_argument("--file", default="")
    options = given.parse_args()
    if options.child:
        in_child(options.child.split(","), options.file, options.runs)
        return
    sizes = [int(size) for size in options.sizes.split(",")]
    with tempfile.TemporaryDirectory(prefix="lstm-trace-bench-") as made:
        folder = Path(options.folder or made)
        folder.mkdir(parents=True, exist_ok=True)
        run(folder, sizes, options.runs)


def run(folder: Path, sizes: list[int], runs: int) -> None:
    from make_spans import write

    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} before; python {sys.version.split()[0]}")
    base = min(LINES, sizes[0])
    label = f"{base // 1_000_000}M" if base >= 1_000_000 else f"{base // 1000}k"
    lines, parquet = folder / f"spans-{label}.jsonl", folder / f"spans-{label}.parquet"
    if not lines.exists():
        write(lines, base)
    show(f"{label}: JSON lines", f"{lines.stat().st_size / 1e6:.0f} MB")
    cold = child(["cohorts"], str(lines), 1)
    decoded = child(["decode"], str(lines), 1)
    show(f"JSON lines of {label} spans, cold cohorts", f"{cold['seconds']['cohorts'][0]:.1f} s", cold["cpu"]["cohorts"][0])
    show(f"{label}: orjson.loads of the same lines", f"{decoded['seconds']['decode'][0]:.1f} s", decoded["cpu"]["decode"][0])
    show(f"JSON lines of {label} spans, peak", f"{cold['peak_mb']:.0f} MB")
    if not parquet.exists():
        converted = child(["convert"], f"{lines}:{parquet}", 1)
        show(f"{label}: convert to Parquet", f"{converted['seconds']['convert'][0]:.1f} s")
    show(f"{label}: Parquet", f"{parquet.stat().st_size / 1e6:.0f} MB")
    report(label, str(parquet), runs)
    for size in sizes[1:]:
        times = size // base
        larger = f"{size // 1_000_000}M" if size >= 1_000_000 else f"{size // 1000}k"
        file = folder / f"spans-{larger}.parquet"
        if not file.exists():
            multiplied(parquet, file, times)
        show(f"{larger}: Parquet", f"{file.stat().st_size / 1e6:.0f} MB")
        report(larger, str(file), runs)
    print(f"load {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()
