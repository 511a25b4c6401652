"""The page on evaluations is true: its Python runs, its gold keys and evaluators exist, its commands are known."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

from sybil import Document
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

import lstm_trace.evaluate as room
from lstm_trace.evaluate.gold import GoldLine
from lstm_trace.evaluate.registry import _OURS, GROUP, available

PAGE = Path(__file__).parents[2] / "docs" / "evaluations.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_the_python_on_the_page_runs(tmp_path: Path) -> None:
    blocks = [region.lexemes["source"] for region in FencedCodeBlockLexer("python")(Document(TEXT, str(PAGE)))]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "LSTM_TRACE_"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join([*blocks, "print(answer('How long?')['answer'])"])],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**environ, "PYTHONPATH": str(PAGE.parents[1])},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["1.0 pass ok", "pass", "Two years."]


def test_every_evaluator_of_ours_is_on_the_page() -> None:
    tabled = set(re.findall(r"^\| `(\w+)` \|.*: skipped \|$", TEXT, re.MULTILINE))
    assert tabled == {where.partition(":")[2] for where in _OURS.values()}
    assert tabled <= set(room.__all__)


def test_every_gold_key_is_on_the_page() -> None:
    table = TEXT[TEXT.index("| key | is | read by |") :]
    tabled = {
        key for row in re.findall(r"^\| (`[^|]+) \|", table[: table.index("\n\n")], re.MULTILINE) for key in re.findall(r"`(\w+)`", row)
    }
    assert tabled == {field.name for field in fields(GoldLine)} - {"trace_id"}


def test_our_evaluators_are_those_of_the_entry_point_group() -> None:
    text = (PAGE.parents[1] / "pyproject.toml").read_text()
    section = text[text.index(f'[project.entry-points."{GROUP}"]') :].split("\n\n")[0]
    declared = dict(re.findall(r'^(\w+) = "([\w.:]+)"$', section, re.MULTILINE))
    assert declared == _OURS
    for name, found in available().items():
        assert found.load()().name == name


def test_the_room_lists_what_it_exports() -> None:
    assert sorted(room.__all__) == dir(room)
    for name in room.__all__:
        assert getattr(room, name) is not None
