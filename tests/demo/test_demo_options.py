"""`lstm-trace demo` with what cannot be used: one line, exit status 2, nothing written."""

from __future__ import annotations

import socket
import sys

import pytest

pytest.importorskip("langgraph")
pytest.importorskip("torch")
pytest.importorskip("ibis")

from lstm_trace.cli import main
from lstm_trace.demo import run
from lstm_trace.demo.run import MARK, Options, checked, environment, prepare, reachable
from lstm_trace.errors import BadInput


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command, expect exit status 2, and return its one line."""
    monkeypatch.setattr(sys, "argv", ["lstm-trace", "demo", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    written = capsys.readouterr()
    assert ended.value.code == 2
    assert written.out == ""
    assert written.err.startswith("lstm-trace: ")
    assert written.err.count("\n") == 1
    return written.err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--sessions", "0"], "--sessions 0"),
        (["--sessions", "-3"], "--sessions -3"),
        (["--sessions", "many"], "'--sessions'"),
        (["--endpoint", "not-an-address"], "'not-an-address'"),
        (["--endpoint", "ftp://localhost:4318"], "'ftp://localhost:4318'"),
        (["--endpoint", ""], "''"),
        (["--model", "nobody:nothing"], "--model nobody:nothing"),
        (["--models", "local-extractive"], "--models"),
        (["surplus"], "surplus"),
    ],
)
def test_a_bad_value_is_named_in_one_line_and_nothing_is_written(arguments, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert named in refused(monkeypatch, capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_a_file_stays_as_it_was(tmp_path, monkeypatch, capsys):
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    assert f"--out {file}: is a file" in refused(monkeypatch, capsys, "--out", str(file))
    assert file.read_text() == "mine"


def test_an_output_below_a_file_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert "cannot be written" in refused(monkeypatch, capsys, "--out", str(tmp_path / "notes.txt" / "demo"))


def test_a_folder_with_someone_elses_files_is_left_alone(tmp_path, monkeypatch, capsys):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "mine.jsonl").write_text("{}")
    assert "holds files that are not the demo's" in refused(monkeypatch, capsys, "--out", str(tmp_path))
    assert (tmp_path / "store" / "mine.jsonl").read_text() == "{}"


def test_a_store_that_is_a_file_stays_as_it_was(tmp_path, monkeypatch, capsys):
    prepare(Options(tmp_path / "out", 5))
    (tmp_path / "out" / "store").write_text("mine")
    assert "its store is a file" in refused(monkeypatch, capsys, "--out", str(tmp_path / "out"))
    assert (tmp_path / "out" / "store").read_text() == "mine"


def test_an_earlier_demos_store_goes_and_other_files_stay(tmp_path):
    options = Options(tmp_path / "out", 5)
    prepare(options)
    options.store.mkdir()
    (options.store / "spans-1.jsonl").write_text("{}")
    (options.out / "my-notes.txt").write_text("mine")
    assert checked(options.out, 5, None, None) == options
    prepare(options)
    assert sorted(path.name for path in options.out.iterdir()) == [MARK, "my-notes.txt"]


def test_a_real_model_has_a_smaller_default(tmp_path, monkeypatch):
    monkeypatch.setattr("lstm_trace.demo.chat.chat_model", lambda name: None)
    assert checked(tmp_path / "new", None, None, "openai:gpt-4o-mini").sessions == run.SESSIONS_REAL
    assert checked(tmp_path / "new", None, None, None).sessions == run.SESSIONS
    assert checked(tmp_path / "new", 7, None, "openai:gpt-4o-mini").sessions == 7


def test_missing_packages_are_named_with_the_extra_that_brings_them(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "NEEDED", ("torch", "no_such_package"))
    with pytest.raises(BadInput, match=r"\(no_such_package\): pip install 'lstm-trace\[demo\]'"):
        checked(tmp_path / "new", None, None, None)


def test_an_endpoint_where_nothing_listens_is_one_line_and_the_store_stays(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        port = taken.getsockname()[1]
        assert reachable(Options(tmp_path, 5, f"http://127.0.0.1:{port}")) is None
    line = capsys.readouterr().err
    assert line.startswith(f"lstm-trace: --endpoint http://127.0.0.1:{port}/v1/traces cannot be reached (")
    assert f"every span is kept in {tmp_path / 'store'}" in line
    assert line.count("\n") == 1


def test_an_endpoint_that_listens_is_used(tmp_path, capsys):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        endpoint = f"http://127.0.0.1:{listening.getsockname()[1]}"
        assert reachable(Options(tmp_path, 5, endpoint)) == endpoint
    assert capsys.readouterr().err == ""


def test_nothing_is_sent_anywhere_unless_it_was_asked_for():
    theirs = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://prod", "OTEL_SDK_DISABLED": "true", "LSTM_TRACE_CONTENT": "on", "PATH": "/bin"}
    assert environment(theirs, None) == {"PATH": "/bin"}
    assert environment({**theirs, "OTEL_EXPORTER_OTLP_HEADERS": "k=v"}, "http://mine") == {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://prod",
        "OTEL_EXPORTER_OTLP_HEADERS": "k=v",
        "PATH": "/bin",
    }


def test_the_two_releases_differ_in_preprocessing_alone():
    assert run.KEEPS == {"v1": 20, "v2": 8}


@pytest.mark.parametrize(
    ("called", "on_path", "named"),
    [
        ("/usr/bin/lstm-trace", True, "lstm-trace"),
        (".venv/bin/lstm-trace", False, ".venv/bin/lstm-trace"),
        ("{here}/.venv/bin/lstm-trace", False, ".venv/bin/lstm-trace"),
        ("/opt/tools/lstm-trace", False, "/opt/tools/lstm-trace"),
        ("-c", False, "lstm-trace"),
    ],
)
def test_the_next_commands_are_named_as_they_can_be_typed(called, on_path, named, tmp_path, monkeypatch):
    from lstm_trace.demo import show

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [called.format(here=tmp_path)])
    monkeypatch.setattr(show.shutil, "which", lambda name: f"/usr/bin/{name}" if on_path else None)
    assert show.program() == named
