"""Folders as they are in life: others write, rename, remove and forbid in them while they are read."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import parquet

from lstm_trace.errors import BadInput
from lstm_trace.store import convert, open_store
from lstm_trace.store.blocks import BLOCK, whole_blocks
from tests.store.otlp import request, rows, span, write


def test_a_pipe_in_a_folder_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", request(span(1)))
    os.mkfifo(tmp_path / "b.jsonl")
    with open_store(tmp_path) as store:
        assert rows(store, "name") == ["span 1"]
        assert store.skipped == {"malformed": 0, "duplicate": 0}


def test_parquet_that_is_cut_off_or_still_written_costs_no_other_file(tmp_path: Path) -> None:
    with open_store(write(tmp_path / "a.jsonl", request(span(1)))) as store:
        convert(store, tmp_path / "b.parquet")
    whole = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "c.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "d.parquet").write_bytes(b"PAR1")
    with open_store(tmp_path) as store:
        assert rows(store, "name") == ["span 1"]
        assert store.skipped == {"malformed": 0, "duplicate": 1, "unreadable": 2}
    (tmp_path / "a.jsonl").unlink()
    (tmp_path / "b.parquet").unlink()
    with pytest.raises(BadInput, match="nothing can be read \\(2 unreadable\\)"):
        open_store(tmp_path)


def test_a_file_that_goes_while_the_folder_is_read_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.jsonl", request(span(1)))
    gone = write(tmp_path / "b.jsonl", request(span(2)))
    write(tmp_path / "c.jsonl", request(span(3)))
    from lstm_trace.store import local

    looked = local.sniff

    def delivered_in_between(path: Path) -> object:
        found = looked(path)
        gone.unlink(missing_ok=path != gone)
        return found

    monkeypatch.setattr(local, "sniff", lambda path: delivered_in_between(path) if path == gone else looked(path))
    with open_store(tmp_path) as store:
        assert rows(store, "name") == ["span 1", "span 3"]
        assert store.skipped == {"malformed": 0, "duplicate": 0, "unreadable": 1}


@pytest.fixture
def shut() -> Iterator[Path]:
    """A folder with a readable file, a file and a folder that nobody may read, for a user who is not root."""
    folder = Path(tempfile.mkdtemp(prefix="shut-"))
    folder.chmod(0o755)
    write(folder / "a.jsonl", request(span(1))).chmod(0o644)
    write(folder / "b.jsonl", request(span(2))).chmod(0)
    write(folder / "c" / "d.jsonl", request(span(3)))
    (folder / "c").chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    (folder / "c").chmod(0o700)
    shutil.rmtree(folder)


def test_what_is_forbidden_is_counted_or_named(shut: Path) -> None:
    with open_store(shut) as store:
        assert rows(store, "name") == ["span 1"]
        assert store.skipped == {"malformed": 0, "duplicate": 0, "unreadable": 2}
    with pytest.raises(BadInput, match="cannot be listed"):
        open_store(shut / "c")
    with pytest.raises(BadInput, match=r"b.jsonl: cannot be read \(Permission denied\)"):
        open_store(shut / "b.jsonl")


def test_small_files_are_parsed_together() -> None:
    small = [f"{number}\n".encode() for number in range(1000)]
    assert b"".join(whole_blocks(small)).split() == b"".join(small).split()
    assert len(list(whole_blocks(small))) == 1
    large = [b"x" * (BLOCK - 1)] * 3
    assert list(whole_blocks(large)) == large


def test_many_small_files_are_one_store(tmp_path: Path) -> None:
    for number in range(1, 301):
        path = write(tmp_path / f"{number:03}.jsonl", request(span(number)))
        path.write_bytes(path.read_bytes().rstrip() if number % 2 else path.read_bytes() + b'{"cut')
    with open_store(tmp_path) as store:
        assert store.spans.count().to_pyarrow().as_py() == 300
        assert store.skipped == {"malformed": 150, "duplicate": 0}


def test_parquet_of_other_columns_beside_ours(tmp_path: Path) -> None:
    with open_store(write(tmp_path / "a.jsonl", request(span(1, {"lstm.sequence.length": 3})))) as store:
        convert(store, tmp_path / "b.parquet")
    (tmp_path / "a.jsonl").unlink()
    table = parquet.read_table(tmp_path / "b.parquet").select(["trace_id", "span_id", "name"])
    table = table.set_column(1, "span_id", [["2" * 16]]).append_column("new_in_a_later_version", [[1]])
    parquet.write_table(table, tmp_path / "c.parquet")
    with open_store(tmp_path) as store:
        assert rows(store, "span_id", "length") == [("0" * 15 + "1", 3), ("2" * 16, None)]
