"""A Parquet file with damaged pages: opened, because its footer is whole, and refused in one line where a query meets the damage."""

from __future__ import annotations

import random

import pytest

from lstm_trace.cli import main
from lstm_trace.store import open_store
from lstm_trace.store.convert import convert
from tests.store.otlp import request, span, write


@pytest.fixture
def whole(tmp_path):
    made = [span(n, {"lstm.component.name": "intent", "lstm.sequence.length": n, "lstm.release": "v1"}) for n in range(1, 40)]
    with open_store(write(tmp_path / "spans.jsonl", request(*made))) as store:
        convert(store, tmp_path / "whole.parquet")
    return (tmp_path / "whole.parquet").read_bytes()


@pytest.mark.parametrize("seed", range(8))
def test_damaged_pages_are_one_line(whole, tmp_path, monkeypatch, capsys, seed):
    draw = random.Random(seed)
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    damaged = bytearray(whole)
    if seed == 0:
        damaged[4:footer] = b"\xff" * (footer - 4)
    else:
        for _ in range(20):
            damaged[draw.randrange(4, footer)] ^= 1 << draw.randrange(8)
    path, target = tmp_path / "damaged.parquet", tmp_path / "out.parquet"
    path.write_bytes(damaged)
    for words in (["cohorts", str(path)], ["convert", str(path), str(target)]):
        monkeypatch.setattr("sys.argv", ["lstm-trace", *words])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr().err
        assert (left.value.code, said.count("\n")) in ((0, 0), (2, 1))
        assert target.exists() == (words[0] == "convert" and left.value.code == 0)
        if left.value.code == 2:
            assert str(path) in said
    assert not list(tmp_path.glob(".*unfinished"))
    if seed == 0:
        assert left.value.code == 2
