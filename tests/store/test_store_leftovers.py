"""A process that is killed leaves files: the next one removes them, and never those of a process that lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lstm_trace.store import convert, open_store
from tests.store.otlp import request, rows, span, write

pytest.importorskip("fcntl")

OPEN_AND_WAIT = "import sys; from lstm_trace.store import open_store; store = open_store(sys.argv[1]); print('open', flush=True); input()"


def made_old(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (time.time() - 3600,) * 2)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_what_a_killed_reader_left_is_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    path = write(tmp_path / "spans.jsonl", request(span(1)))
    foreign = scratch / "lstm-trace-not-ours"  # no lock in it: another program's
    foreign.mkdir()
    command = [sys.executable, "-c", OPEN_AND_WAIT, str(path)]
    environment = os.environ | {"TMPDIR": str(scratch)}
    readers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True)
        for _ in range(2)
    ]
    alive, killed = readers
    try:
        assert [reader.stdout.readline() for reader in readers if reader.stdout] == ["open\n"] * 2
        folders = set(scratch.iterdir()) - {foreign}
        killed.send_signal(sent)
        killed.wait(10)
        made_old(foreign, *folders)
        monkeypatch.setattr("tempfile.tempdir", str(scratch))
        with open_store(path) as store:
            left = folders & set(scratch.iterdir())
            assert len(left) == 1
            assert rows(store, "name") == ["span 1"]
        alive.communicate("\n", timeout=20)
        assert list(scratch.iterdir()) == [foreign]
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()


def test_an_unfinished_file_of_a_killed_convert_is_removed_by_the_next(tmp_path: Path) -> None:
    left, fresh = (tmp_path / f".out[1].parquet.{number}.unfinished" for number in (123456, 123457))
    left.write_bytes(b"PAR1")
    made_old(left)
    fresh.write_bytes(b"PAR1")  # may be another's, just begun
    with open_store(write(tmp_path / "spans.jsonl", request(span(1)))) as store:
        convert(store, tmp_path / "out[1].parquet")
    assert sorted(item.name for item in tmp_path.iterdir()) == sorted([fresh.name, "out[1].parquet", "spans.jsonl"])
