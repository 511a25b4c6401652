"""A receiver that is missing, refuses, is silent or comes back: one line, nothing lost, nobody waits."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from lstm_trace.export import courier
from lstm_trace.export.delivery import DeliveringMetricExporter, DeliveringSpanExporter
from lstm_trace.export.endpoint import resolve
from lstm_trace.export.otlp_json import StoreExporter
from lstm_trace.export.outage import Outages
from tests.export.receiver import Receiver

Make = Callable[..., DeliveringSpanExporter]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Make an exporter to ``url`` with the store in ``tmp_path``; an answer that may be tried again is given up after a second."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    made: list[DeliveringSpanExporter] = []

    def make(url: str, *, keep_all: bool = False) -> DeliveringSpanExporter:
        made.append(DeliveringSpanExporter(resolve("traces", url, {}), StoreExporter(tmp_path), keep_all=keep_all, outages=Outages()))
        return made[-1]

    yield make
    for each in made:
        each.shutdown()


def _kept(store: Path) -> list[str]:
    return [
        span["spanId"]
        for file in store.glob("*.jsonl")
        for line in file.read_bytes().splitlines()
        for group in json.loads(line)["resourceSpans"]
        for scope in group["scopeSpans"]
        for span in scope["spans"]
    ]


def _ids(spans: list[ReadableSpan]) -> list[str]:
    return sorted(f"{span.context.span_id:016x}" for span in spans)


def _closed_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def _said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_missing_receiver_costs_one_line_and_no_span(
    make: Make, tmp_path: Path, spans: list[ReadableSpan], caplog: pytest.LogCaptureFixture
) -> None:
    url = _closed_port()
    exporter = make(url)
    began = time.monotonic()
    for _ in range(3):
        exporter.export(spans)
    assert time.monotonic() - began < 2  # a new receiver gets five seconds to come up, on another thread
    exporter.shutdown()
    assert time.monotonic() - began < 4
    assert sorted(_kept(tmp_path)) == sorted(_ids(spans) * 3)
    assert _said(caplog) == [
        f"{url}/v1/traces does not take spans (Connection refused): they are kept for `lstm-trace forward` in {tmp_path} until it does"
    ]


def test_a_receiver_that_comes_up_a_little_later_gets_everything(make: Make, tmp_path: Path, spans: list[ReadableSpan]) -> None:
    with Receiver() as early:
        url = early.url
    exporter = make(url)
    exporter.export(spans)
    time.sleep(0.7)
    with Receiver(port=int(url.rpartition(":")[2])) as late:
        assert exporter.force_flush(10_000)
        assert len(late.spans()) == len(spans)
    assert not _kept(tmp_path)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (503, "(Service Unavailable)"),
        (400, "(400 Bad Request)"),
        (404, "(404 Not Found)"),
        (302, "(it redirects to https://elsewhere/: give that address)"),
    ],
)
def test_a_receiver_that_refuses_costs_one_line_and_no_span(
    make: Make,
    receiver: Receiver,
    tmp_path: Path,
    spans: list[ReadableSpan],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    reason: str,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    receiver.answer = lambda path: status
    exporter = make(receiver.url)
    exporter.export(spans)
    assert exporter.force_flush(10_000)
    assert exporter.export(spans[:1]) is SpanExportResult.SUCCESS
    assert _kept(tmp_path).count(_ids(spans[:1])[0]) == 2
    assert sorted(set(_kept(tmp_path))) == _ids(spans)
    (line,) = _said(caplog)
    assert reason in line
    assert str(tmp_path) in line


def test_a_receiver_that_is_busy_for_a_moment_gets_everything_without_a_line(
    make: Make,
    receiver: Receiver,
    tmp_path: Path,
    spans: list[ReadableSpan],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "10")
    statuses = iter([503])
    receiver.answer = lambda path: next(statuses, 200)
    exporter = make(receiver.url)
    exporter.export(spans)
    assert exporter.force_flush(10_000)
    assert len(receiver.spans()) == len(spans)
    assert not _kept(tmp_path)
    assert not _said(caplog)


def test_a_receiver_that_recovers_gets_what_comes_then(
    make: Make,
    receiver: Receiver,
    tmp_path: Path,
    spans: list[ReadableSpan],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(courier, "_RETRY_FIRST", 0.1)
    receiver.answer = lambda path: 400
    exporter = make(receiver.url)
    exporter.export(spans[:2])
    exporter.force_flush(10_000)
    receiver.answer = lambda path: 200
    time.sleep(0.2)
    exporter.export(spans[2:])
    assert exporter.force_flush(10_000)
    assert sorted(_kept(tmp_path)) == _ids(spans[:2])
    assert len(receiver.spans()) == len(spans[2:])
    assert [line.split(" (")[0].partition("/v1/traces ")[2] for line in _said(caplog)] == ["does not take spans", "takes spans again"]


def test_a_silent_receiver_holds_up_neither_the_application_nor_the_exit(
    make: Make,
    receiver: Receiver,
    tmp_path: Path,
    spans: list[ReadableSpan],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
    receiver.answer = lambda path: None
    exporter = make(receiver.url)
    began = time.monotonic()
    for _ in range(50):  # more than may wait: what is too much goes to the store at once
        exporter.export(spans)
    assert time.monotonic() - began < 5
    exporter.shutdown()
    assert time.monotonic() - began < 15  # of the exporter's 60
    assert sorted(_kept(tmp_path)) == sorted(_ids(spans) * 50)
    (line,) = _said(caplog)
    assert "no answer before the process ended" in line


def test_with_both_asked_for_the_store_holds_every_span_once(
    make: Make, receiver: Receiver, tmp_path: Path, spans: list[ReadableSpan], caplog: pytest.LogCaptureFixture
) -> None:
    exporter = make(receiver.url, keep_all=True)
    exporter.export(spans)
    assert exporter.force_flush(10_000)
    receiver.answer = lambda path: 400
    exporter.export(spans[:1])
    exporter.force_flush(10_000)
    assert sorted(_kept(tmp_path)) == sorted(_ids(spans) + _ids(spans[:1]))
    assert len(receiver.spans()) == len(spans)
    assert len(_said(caplog)) == 1


def test_a_users_own_exporter_keeps_its_voice(
    make: Make, receiver: Receiver, spans: list[ReadableSpan], caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = lambda path: 400
    ours = make(receiver.url)
    ours.export(spans)
    ours.force_flush(10_000)
    theirs = OTLPSpanExporter(endpoint=f"{receiver.url}/v1/traces")
    theirs.export(spans)
    theirs.shutdown()
    names = [record.name for record in caplog.records]
    assert names == ["lstm_trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter"]
    ours.shutdown()
    time.sleep(0.1)
    assert not logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter").filters


def test_the_environments_headers_are_sent(
    make: Make, receiver: Receiver, spans: list[ReadableSpan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret")
    exporter = make(receiver.url)
    exporter.export(spans)
    exporter.force_flush(10_000)
    assert receiver.headers[0]["x-key"] == "secret"


@pytest.mark.parametrize("first", ["spans", "metrics"])
def test_one_line_speaks_of_an_endpoint_that_is_not_there_and_it_says_where_the_spans_are(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, spans: list[ReadableSpan], first: str
) -> None:
    url, outages = _closed_port(), Outages()
    of_spans = DeliveringSpanExporter(resolve("traces", url, {}), StoreExporter(tmp_path), keep_all=False, outages=outages)
    of_metrics = DeliveringMetricExporter(resolve("metrics", url, {}), outages=outages)
    sending: list[tuple[Any, Any]] = [(of_spans, spans), (of_metrics, MetricsData([]))]
    for exporter, batch in sending if first == "spans" else reversed(sending):
        exporter.export(batch)
        exporter.shutdown()
    (line,) = _said(caplog)
    assert f"in {tmp_path}" in line


def _export_in_child(exporter: DeliveringSpanExporter, spans: list[ReadableSpan]) -> None:
    exporter.export(spans)
    exporter.shutdown()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_the_child_of_a_fork_delivers_its_own(make: Make, receiver: Receiver, spans: list[ReadableSpan]) -> None:
    exporter = make(receiver.url)
    exporter.export(spans[:2])
    assert exporter.force_flush(10_000)
    child = multiprocessing.get_context("fork").Process(target=_export_in_child, args=(exporter, spans[2:]))
    child.start()
    child.join(20)
    assert child.exitcode == 0
    assert sorted(span.span_id.hex() for span in receiver.spans()) == _ids(spans)
