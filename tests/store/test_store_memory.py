"""A store larger than the memory that its reader takes, and a reader that may not have what it needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks.make_spans import SPANS_A_SESSION, lines

pytest.importorskip("resource")
pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads what the process holds already from /proc")

MIB = 1 << 20
FIRST, NEXT = '"attributes":[{"key":"openinference.span.kind"', '"attributes":[{"key":"input.value","value":{"stringValue":"%s"}},'

# The peak resident size, everything imported included, is what a container is judged by.
READ = """
import json, resource, sys
from lstm_trace.analyse.cohorts import cohorts
from lstm_trace.store import open_store

small, large, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open_store(small) as store:  # what is loaded and started does not count
    cohorts(store)
def status(name):
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(name))

if limit:
    resource.setrlimit(resource.RLIMIT_DATA, (status("VmData") + limit,) * 2)
with open_store(large) as store:
    table = cohorts(store)
    print(json.dumps([table.spans, table.traces, sum(row.calls for row in table.rows), status("VmHWM")]))
"""


def padded(path: Path, spans: int, text: str) -> int:
    """Spans with a long text on each, packed; returns the bytes of their lines."""
    size = 0
    with pa.CompressedOutputStream(pa.OSFile(str(path), "wb"), "zstd") as file:
        for line in lines(spans):
            written = line.replace(FIRST, NEXT % text + FIRST.removeprefix('"attributes":[')).encode()
            size += len(written)
            file.write(written)
    return size


def read(small: Path, large: Path, limit: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", READ, str(small), str(large), str(limit)], capture_output=True, text=True, check=False)


def test_a_store_larger_than_the_memory_taken_is_read(tmp_path: Path) -> None:
    small, large = tmp_path / "small.jsonl.zst", tmp_path / "large.jsonl.zst"
    padded(small, 80, "x")
    text = padded(large, 24_000, "lorem ipsum " * 5000)
    answer = read(small, large, 0)
    assert answer.returncode == 0, answer.stderr[-2000:]
    *table, peak = json.loads(answer.stdout)
    assert table == [24_000, 24_000 // SPANS_A_SESSION, 24_000 // SPANS_A_SESSION]
    assert peak < 0.8 * text, f"{peak / text:.2f}"


def test_too_little_memory_is_said_in_one_line(tmp_path: Path) -> None:
    small, large = tmp_path / "small.jsonl.zst", tmp_path / "large.jsonl.zst"
    padded(small, 80, "x")
    padded(large, 1600, "lorem ipsum " * 5000)
    answer = read(small, large, 24 * MIB)
    assert answer.stderr.splitlines()[-1].startswith("lstm_trace.errors.BadInput: ")
    assert "not enough memory" in answer.stderr.splitlines()[-1]
