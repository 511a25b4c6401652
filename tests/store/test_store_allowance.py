"""Reading keeps to what its container allows: a store larger than that is read, converted and reported on, and nobody is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lstm_trace.errors import BadInput
from lstm_trace.store import allowance
from tests.store.test_store_memory import MIB, padded

pytest.importorskip("resource")

LIMIT = 512 * MIB
SPANS = 80_000
TEXT = "lorem ipsum " * 540
COMMAND = [sys.executable, "-c", "from lstm_trace.cli import main; main()"]
ROOT = Path("/sys/fs/cgroup")
SAID = """
import json, resource, sys
resource.setrlimit(getattr(resource, sys.argv[1]), (int(sys.argv[2]),) * 2)
from lstm_trace.store import allowance, open_store
with open_store(sys.argv[3]) as store:
    (held,) = store.connection.con.execute("select current_setting('memory_limit')").fetchone()
print(json.dumps([allowance.memory(), held]))
"""
Confined = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def confined() -> Iterator[Confined]:
    """Run a command in a control group of ``LIMIT`` bytes, of version 1 or 2."""
    first = (ROOT / "memory/memory.limit_in_bytes").exists()
    group = (ROOT / "memory" if first else ROOT) / f"lstm-trace-test-{id(object()):x}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here ({error})")
    try:
        for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes") if first else ("memory.max", "memory.swap.max"):
            if (group / name).exists():
                (group / name).write_text("0" if name == "memory.swap.max" else str(LIMIT))
        if not any((group / name).exists() for name in ("memory.limit_in_bytes", "memory.max")):
            pytest.skip("control groups here do not limit memory")

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            within = ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh", *COMMAND, *words]
            return subprocess.run(within, capture_output=True, text=True, check=False)

        yield run
    finally:
        group.rmdir()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.jsonl.zst"
    assert padded(path, SPANS, TEXT) > LIMIT
    return path


def test_a_store_larger_than_its_container_is_read_and_converted(confined: Confined, large: Path) -> None:
    converted = large.with_name("large.parquet")
    answer = confined("convert", str(large), str(converted))
    assert (answer.returncode, answer.stderr) == (0, "")
    for store in (large, converted):
        answer = confined("cohorts", str(store), "--format", "json")
        assert (answer.returncode, answer.stderr) == (0, "")
        assert json.loads(answer.stdout)["spans"] == SPANS


@pytest.mark.parametrize("kind", ["RLIMIT_DATA", "RLIMIT_AS"])
def test_limits_of_the_process_are_kept(tmp_path: Path, kind: str) -> None:
    small, limit = tmp_path / "small.jsonl.zst", 16 << 30
    padded(small, 80, "x")
    answer = subprocess.run([sys.executable, "-c", SAID, kind, str(limit), str(small)], capture_output=True, text=True, check=True)
    allowed, held = json.loads(answer.stdout)
    assert allowed <= limit
    assert float(held.split()[0]) * {"MiB": 1 << 20, "GiB": 1 << 30}[held.split()[1]] < allowed


@pytest.mark.parametrize(
    ("held", "allowed", "processors"),
    [
        (
            {"memory/box/memory.limit_in_bytes": "1000", "cpu/box/cpu.cfs_quota_us": "150000", "cpu/box/cpu.cfs_period_us": "100000"},
            1000,
            2,
        ),
        ({"memory/memory.limit_in_bytes": "2000", "memory/box/memory.limit_in_bytes": "9223372036854771712"}, 2000, 8),
        ({"box/memory.max": "max", "memory.max": "3000", "box/cpu.max": "50000 100000"}, 3000, 1),
        ({"box/memory.max": "no number", "box/cpu.max": "max 100000"}, None, 8),
        ({}, None, 8),
    ],
    ids=["version 1", "its own is unlimited", "version 2", "nonsense", "none"],
)
def test_control_groups_of_both_versions_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: dict[str, str], allowed: int | None, processors: int
) -> None:
    for name, text in held.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    own = tmp_path / "own"
    own.write_text("4:memory:/box\n1:cpu,cpuacct:/box\n0::/box\n")
    monkeypatch.setattr(allowance, "_CGROUPS", tmp_path)
    monkeypatch.setattr(allowance, "_OWN", own)
    monkeypatch.setattr(allowance, "_of_process", lambda: iter(()))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8), raising=False)
    assert (allowance.memory(), allowance.processors()) == (allowed, processors)
    assert allowance.within(500, 4) == (500 if allowed is None else min(500, allowed // 4))


@pytest.mark.parametrize(
    ("allowed", "size", "name", "refused"),
    [
        (256 * MIB, 64 * MIB, "spans.jsonl", True),
        (256 * MIB, 8 * MIB, "spans.jsonl.zst", True),
        (256 * MIB, 8 * MIB, "spans.jsonl", False),
        (256 * MIB, 64 * MIB, "spans.parquet", False),
        (384 * MIB, 64 * MIB, "spans.jsonl", False),
        (None, 64 * MIB, "spans.jsonl", False),
    ],
)
def test_what_memory_cannot_hold_is_refused_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: int | None, size: int, name: str, refused: bool
) -> None:
    monkeypatch.setattr(allowance, "memory", lambda: allowed)
    for place in (tmp_path / name, tmp_path):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)  # sparse: takes no room
        if refused:
            with pytest.raises(BadInput, match="in the 256 MB of memory that this process may take; give it 384 MB"):
                allowance.check("here", place)
        else:
            allowance.check("here", place)
