"""The local store: whole lines, one file a process, across forks, rotation, a full disk and a folder that is taken away."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import resource
import shutil
import stat
import threading
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from lstm_trace.errors import BadInput
from lstm_trace.export.line_file import LineFile
from lstm_trace.export.otlp_json import StoreExporter


def _lines(store: Path) -> list[bytes]:
    lines = [line for file in sorted(store.glob("*.jsonl")) for line in file.read_bytes().splitlines(keepends=True)]
    assert all(line.endswith(b"\n") and json.loads(line) for line in lines)
    return lines


def _span_names(store: Path) -> list[str]:
    return [
        span["name"]
        for line in _lines(store)
        for group in json.loads(line)["resourceSpans"]
        for scope in group["scopeSpans"]
        for span in scope["spans"]
    ]


def test_an_export_is_one_line_and_the_folder_comes_with_the_first(tmp_path: Path, spans: list[ReadableSpan]) -> None:
    store = tmp_path / "deep" / "store"
    exporter = StoreExporter(store)
    assert not store.exists()
    assert exporter.export(spans) is SpanExportResult.SUCCESS
    assert exporter.export(spans[:2]) is SpanExportResult.SUCCESS
    exporter.shutdown()
    assert len(_lines(store)) == 2
    assert sorted(_span_names(store)) == sorted(span.name for span in [*spans, *spans[:2]])
    (file,) = store.iterdir()
    assert file.name.startswith("spans-")
    assert f"-{os.getpid()}-" in file.name


def test_without_arguments_the_store_is_the_one_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spans: list[ReadableSpan]
) -> None:
    monkeypatch.setenv("LSTM_TRACE_STORE", str(tmp_path / "by-env"))
    exporter = StoreExporter()
    exporter.export(spans)
    exporter.shutdown()
    assert _span_names(tmp_path / "by-env")


def test_two_exporters_of_one_process_write_to_two_files(tmp_path: Path, spans: list[ReadableSpan]) -> None:
    first, second = StoreExporter(tmp_path), StoreExporter(tmp_path)
    for exporter in (first, second, first):
        exporter.export(spans[:1])
    first.shutdown()
    second.shutdown()
    assert len(list(tmp_path.iterdir())) == 2
    assert len(_lines(tmp_path)) == 3


def test_a_new_file_begins_at_the_size_limit(tmp_path: Path, spans: list[ReadableSpan]) -> None:
    exporter = StoreExporter(tmp_path, max_file_bytes=3000)
    for _ in range(6):
        exporter.export(spans[:1])
    exporter.shutdown()
    sizes = [file.stat().st_size for file in tmp_path.iterdir()]
    assert len(sizes) > 1
    assert max(sizes) <= 3000
    assert len(_lines(tmp_path)) == 6


def test_many_threads_leave_whole_lines(tmp_path: Path, spans: list[ReadableSpan]) -> None:
    exporter = StoreExporter(tmp_path)
    threads = [threading.Thread(target=lambda: [exporter.export(spans) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    exporter.shutdown()
    assert len(_lines(tmp_path)) == 80


def _export_in_child(exporter: StoreExporter, spans: list[ReadableSpan]) -> None:
    exporter.export(spans)
    exporter.shutdown()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12 warns of forking a process with threads; that is the case under test
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_the_child_of_a_fork_writes_to_a_file_of_its_own(tmp_path: Path, spans: list[ReadableSpan]) -> None:
    exporter = StoreExporter(tmp_path)
    exporter.export(spans[:1])
    child = multiprocessing.get_context("fork").Process(target=_export_in_child, args=(exporter, spans))
    child.start()
    child.join(20)
    assert child.exitcode == 0
    exporter.export(spans[:1])
    exporter.shutdown()
    by_pid = {file.name.split("-")[2]: len(file.read_bytes().splitlines()) for file in tmp_path.iterdir()}
    assert by_pid == {str(os.getpid()): 2, str(child.pid): 1}
    _lines(tmp_path)


def test_a_removed_store_is_made_again(tmp_path: Path, spans: list[ReadableSpan]) -> None:
    store = tmp_path / "store"
    exporter = StoreExporter(store)
    exporter.export(spans)
    shutil.rmtree(store)
    assert exporter.export(spans[:1]) is SpanExportResult.SUCCESS
    exporter.shutdown()
    assert _span_names(store) == [spans[0].name]


def test_a_relative_store_stays_where_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spans: list[ReadableSpan]) -> None:
    monkeypatch.chdir(tmp_path)
    exporter = StoreExporter("here")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    exporter.export(spans)
    exporter.shutdown()
    assert _span_names(tmp_path / "here")


def test_a_disk_that_takes_only_a_part_leaves_whole_lines_and_says_so_once(
    tmp_path: Path, spans: list[ReadableSpan], caplog: pytest.LogCaptureFixture
) -> None:
    exporter = StoreExporter(tmp_path)
    exporter.export(spans[:1])
    (file,) = tmp_path.iterdir()
    whole = file.stat().st_size
    # A limit on the file's size acts as a full disk does: the kernel writes what fits, and refuses the rest.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole + 100, hard))
    try:
        with caplog.at_level(logging.INFO):
            assert exporter.export(spans) is SpanExportResult.FAILURE
            assert exporter.export(spans) is SpanExportResult.FAILURE
            said_while_full = [record.getMessage() for record in caplog.records]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.stat().st_size == whole
    assert len(said_while_full) == 1
    assert str(tmp_path) in said_while_full[0]
    assert exporter.export(spans[:1]) is SpanExportResult.SUCCESS
    exporter.shutdown()
    assert caplog.records[-1].getMessage().endswith("10 were dropped in between")
    assert len(_lines(tmp_path)) == 2


def test_what_comes_after_shutdown_is_refused(tmp_path: Path, spans: list[ReadableSpan]) -> None:
    exporter = StoreExporter(tmp_path)
    exporter.shutdown()
    exporter.shutdown()
    assert exporter.export(spans) is SpanExportResult.FAILURE
    assert not list(tmp_path.iterdir())


def test_a_store_that_is_a_file_is_named_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    for path in (file, file / "below"):
        with pytest.raises(BadInput, match="accepted is a folder") as raised:
            StoreExporter(path)
        assert str(path) in str(raised.value)
        assert "\n" not in str(raised.value)
    assert file.read_text() == "precious"


def test_a_store_of_the_environment_that_is_a_file_gives_way_to_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spans: list[ReadableSpan], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LSTM_TRACE_STORE", "file")
    exporter = StoreExporter()
    exporter.export(spans)
    exporter.shutdown()
    assert _span_names(tmp_path / "lstm-traces")
    (record,) = caplog.records
    assert record.getMessage().startswith("store='file' is a file: accepted is a folder")


def test_where_even_the_default_cannot_be_used_the_first_export_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spans: list[ReadableSpan], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "lstm-traces").touch()
    monkeypatch.chdir(tmp_path)
    exporter = StoreExporter()
    assert not caplog.records
    assert [exporter.export(spans), exporter.export(spans)] == [SpanExportResult.FAILURE] * 2
    (record,) = caplog.records
    assert "takes no spans" in record.getMessage()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_that_cannot_be_written_to_is_named_in_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(BadInput, match="accepted is a writable folder"):
        StoreExporter(tmp_path / "store")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that refuses even root")
def test_a_folder_that_cannot_be_made_costs_one_log_line(spans: list[ReadableSpan], caplog: pytest.LogCaptureFixture) -> None:
    exporter = StoreExporter("/proc/lstm-traces")
    assert exporter.export(spans) is SpanExportResult.FAILURE
    assert exporter.export(spans) is SpanExportResult.FAILURE
    (record,) = caplog.records
    assert record.getMessage().startswith("the store /proc/lstm-traces takes no spans (")


@pytest.mark.parametrize("size", [0, -1])
def test_a_senseless_size_is_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(BadInput, match="max_file_bytes"):
        LineFile(tmp_path, max_file_bytes=size)
