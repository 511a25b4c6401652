"""A store delivered later: every span arrives once, a second run goes on, and what cannot be delivered is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan

from lstm_trace.errors import BadInput
from lstm_trace.export import forward as forwarding
from lstm_trace.export.forward import forward
from lstm_trace.export.otlp_json import StoreExporter
from tests.export.collector import Collector
from tests.export.receiver import Receiver


@pytest.fixture
def store(tmp_path: Path, spans: list[ReadableSpan]) -> Path:
    """A store of two files, three lines and every shape of span."""
    for part in (spans[:2], spans[2:]):
        exporter = StoreExporter(tmp_path)
        exporter.export(part)
        exporter.shutdown()
    return tmp_path


def _sent(spans: list[ReadableSpan]) -> dict[bytes, str]:
    return {span.span_id: str(span) for group in encode_spans(spans).resource_spans for scope in group.scope_spans for span in scope.spans}


@pytest.mark.real
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_every_span_arrives_as_if_it_had_been_sent_at_once(
    store: Path, collector: Collector, spans: list[ReadableSpan], protocol: str
) -> None:
    endpoint = collector.grpc_endpoint if protocol == "grpc" else collector.http_endpoint
    done = forward(store, endpoint, environ={"OTEL_EXPORTER_OTLP_PROTOCOL": protocol})
    assert (done.spans, done.files, done.malformed, done.refused) == (5, 2, (), ())
    assert {span.span_id: str(span) for span in collector.spans(5)} == _sent(spans)


def test_a_second_run_delivers_what_came_since(store: Path, receiver: Receiver, spans: list[ReadableSpan]) -> None:
    assert forward(store, receiver.url).spans == 5
    assert forward(store, receiver.url).spans == 0
    exporter = StoreExporter(store)
    exporter.export(spans[:1])
    assert forward(store, receiver.url).spans == 1
    exporter.export(spans[1:2])
    exporter.shutdown()
    assert forward(store, receiver.url).spans == 1
    assert len(receiver.spans()) == 7


def test_another_endpoint_gets_everything(store: Path, receiver: Receiver) -> None:
    with Receiver() as other:
        assert [forward(store, receiver.url).spans, forward(store, other.url).spans] == [5, 5]


def test_a_receiver_that_is_away_is_named_and_the_next_run_goes_on(
    store: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "_PATIENCE", 0.2)
    answers = iter([200, 503, 503, 503])
    receiver.answer = lambda path: next(answers, 200)
    with pytest.raises(BadInput, match="does not take spans \\(503 Service Unavailable\\): 2 were delivered; give the same command again"):
        forward(store, receiver.url)
    receiver.answer = lambda path: 200
    assert forward(store, receiver.url).spans == 3
    assert len(receiver.spans()) == 5


def test_a_busy_receiver_is_asked_again(store: Path, receiver: Receiver) -> None:
    answers = iter([503, 429])
    receiver.answer = lambda path: next(answers, 200)
    assert forward(store, receiver.url).spans == 5


def test_what_is_no_otlp_is_named_and_costs_nothing_else(store: Path, receiver: Receiver, spans: list[ReadableSpan]) -> None:
    whole = [file.read_bytes() for file in sorted(store.glob("*.jsonl"))]
    (store / "a.jsonl").write_bytes(
        b"not json\n" + whole[0] + b'{"resourceMetrics": []}\n\n' + b'{"resourceSpans": [{"scopeSpans": 3}]}\n' + whole[1][:100]
    )
    done = forward(store, receiver.url)
    assert done.malformed == ("a.jsonl:1", "a.jsonl:3", "a.jsonl:5")
    assert done.spans == 7
    with (store / "a.jsonl").open("ab") as file:
        file.write(whole[1][100:])  # the line that was being written is whole now
    assert forward(store, receiver.url).spans == 3


def test_a_line_that_the_receiver_finds_fault_with_costs_the_others_nothing(store: Path, receiver: Receiver) -> None:
    # The first file's two lines in one request are refused, then the first of them by itself; everything else is taken.
    files = sorted(store.glob("*.jsonl"))
    line = files[0].read_bytes()
    files[0].write_bytes(line * 2)
    answers = iter([400, 400, 200, 200])
    receiver.answer = lambda path: next(answers, 200)
    done = forward(store, receiver.url)
    assert done.refused == (f"{files[0].name}:1 (400 Bad Request)",)
    assert done.spans == 5


def test_headers_and_password_stay_where_they_belong(store: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret")
    done = forward(store, receiver.url.replace("http://", "http://user:word@"))
    assert receiver.headers[0]["x-key"] == "secret"
    assert "word" not in done.endpoint
    assert not {"secret", "word"} & set((store / ".forwarded.json").read_text().replace(":", '"').replace("@", '"').split('"'))


@pytest.mark.parametrize(("store", "named"), [("nowhere", "is not there"), ("file", "is no folder")])
def test_a_store_that_cannot_be_read_is_named(tmp_path: Path, store: str, named: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=named):
        forward(tmp_path / store, "http://127.0.0.1:9")


def test_a_broken_memory_is_named_and_nothing_is_sent(store: Path, receiver: Receiver) -> None:
    (store / ".forwarded.json").write_text("[broken")
    with pytest.raises(BadInput, match=r"\.forwarded\.json"):
        forward(store, receiver.url)
    assert not receiver.spans()


def test_the_command_says_how_many(
    store: Path, receiver: Receiver, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lstm_trace import cli

    monkeypatch.setattr("sys.argv", ["lstm-trace", "forward", str(store), "--endpoint", receiver.url])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"5 spans of 2 files delivered to {receiver.url}/v1/traces\n"
    monkeypatch.setattr("sys.argv", ["lstm-trace", "forward", str(store), "--endpoint", receiver.url, "--format", "json"])
    with pytest.raises(SystemExit):
        cli.main()
    assert json.loads(capsys.readouterr().out)["spans"] == 0
    monkeypatch.setattr("sys.argv", ["lstm-trace", "forward", str(store), "--endpoint", "nowhere"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
