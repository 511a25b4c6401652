"""Jaeger's query API v3 as its HTTP gateway answers, replayed by a small server: a real Jaeger is not on this machine."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from lstm_trace.errors import BadInput
from lstm_trace.store import open_store
from lstm_trace.store.jaeger import open_jaeger
from tests.store.otlp import START, TRACE, request, rows, span, write

NOW = datetime.fromtimestamp(START / 1e9 + 3600, timezone.utc)
NOT_FOUND = {"error": {"httpCode": 404, "message": "No traces found"}}


class Jaeger(ThreadingHTTPServer):
    """Answers as http_gateway.go does: newest traces first, at most search_depth of them, 404 where there is none."""

    daemon_threads = True

    def __init__(self, traces: dict[str, tuple[str, int, dict[str, Any]]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.traces = traces
        self.asked: list[str] = []
        self.headers: list[Any] = []
        self.canned: tuple[int, bytes] | None = None

    @property
    def address(self) -> str:
        return f"jaeger+http://127.0.0.1:{self.server_port}"

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        path = path.removeprefix("/base")
        if path == "/api/v3/services":
            return 200, {"services": sorted({service for service, _, _ in self.traces.values()})}
        if path == "/api/v3/traces":
            start, end = (datetime.fromisoformat(query[f"query.start_time_{name}"].replace("Z", "+00:00")) for name in ("min", "max"))
            found = [
                (time, whole)
                for service, time, whole in self.traces.values()
                if service == query["query.service_name"] and start.timestamp() * 1e9 <= time <= end.timestamp() * 1e9
            ]
            newest = sorted(found, key=lambda one: -one[0])[: int(query["query.search_depth"])]
            groups = [group for _, whole in newest for group in whole["resourceSpans"]]
            return (200, {"result": {"resourceSpans": groups}}) if groups else (404, NOT_FOUND)
        trace_id = path.removeprefix("/api/v3/traces/")
        return (200, {"result": self.traces[trace_id][2]}) if trace_id in self.traces else (404, NOT_FOUND)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Any = self.server
        parts = urlsplit(self.path)
        server.asked.append(self.path)
        server.headers.append(self.headers)
        if server.canned:
            status, body = server.canned
        else:
            status, held = server.answer(parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()})
            body = json.dumps(held).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def trace(number: int, service: str) -> tuple[str, int, dict[str, Any]]:
    """A trace of two spans that started ``number`` minutes after the first one."""
    time = START + number * 60_000_000_000
    own = {"traceId": f"{number + 1:032x}", "startTimeUnixNano": str(time), "endTimeUnixNano": str(time + 5)}
    made = [span(1, {"lstm.sequence.length": number}, **own), span(2, parentSpanId=f"{1:016x}", **own)]
    return service, time, request(*made, resource={"service.name": service})


@pytest.fixture
def jaeger() -> Iterator[Jaeger]:
    made = [trace(number, "claims" if number % 2 else "voice") for number in range(20)]
    server = Jaeger({f"{number + 1:032x}": one for number, one in enumerate(made)})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def opened(jaeger: Jaeger, options: str = "") -> Any:
    return open_jaeger(jaeger.address + options, jaeger.address + options, now=NOW)


def test_all_services_of_the_last_day_equal_the_same_traces_as_lines(jaeger: Jaeger, tmp_path: Path) -> None:
    lines = write(tmp_path / "spans.jsonl", *(whole for _, _, whole in jaeger.traces.values()))
    with opened(jaeger) as there, open_store(lines) as here:
        assert sorted(there.spans.to_pyarrow().to_pylist(), key=repr) == sorted(here.spans.to_pyarrow().to_pylist(), key=repr)
        assert there.skipped == {"malformed": 0, "duplicate": 0}


def test_one_service_and_a_shorter_range(jaeger: Jaeger) -> None:
    with opened(jaeger, "?service=claims") as store:
        assert set(rows(store, "service")) == {"claims"}
    with opened(jaeger, "?since=50m") as store:
        assert sorted(set(rows(store, "length")) - {None}) == list(range(10, 20))


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_a_range_with_more_traces_than_one_answer_holds_is_asked_in_parts(jaeger: Jaeger, limit: int) -> None:
    with opened(jaeger, f"?limit={limit}") as store:
        assert sorted(set(rows(store, "length")) - {None}) == list(range(20))
        assert store.spans.count().to_pyarrow().as_py() == 40
        assert store.skipped["duplicate"] == 0


def test_one_trace_by_its_id_whenever_it_was(jaeger: Jaeger) -> None:
    with open_store(f"{jaeger.address}?trace={3:032x}") as store:
        assert rows(store, "trace_id", "name") == [(f"{3:032x}", "span 1"), (f"{3:032x}", "span 2")]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("?service=unknown", "no trace of that service"),
        (f"?trace={TRACE}", "no trace of that service, id and time"),
        ("?since=yesterday", "since='yesterday'; accepted is a number and s, m, h or d"),
        ("?limit=0", "limit='0'; accepted is a whole number"),
        ("?servce=x", "unknown option 'servce'"),
    ],
)
def test_what_the_address_asks_wrongly_is_refused_in_one_line(jaeger: Jaeger, options: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        opened(jaeger, options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, b"<html>", "answers no JSON"),
        (200, b"{}", "something else than Jaeger's query API v3"),
        (500, b'{"error": {"message": "storage\\nis down"}}', "answers 500"),
        (404, b"404 page not found\n", "answers 404 (404 page not found)"),
    ],
    ids=["a page", "other JSON", "an error", "no such API"],
)
def test_another_server_is_refused_in_one_line(jaeger: Jaeger, status: int, body: bytes, says: str) -> None:
    jaeger.canned = (status, body)
    with pytest.raises(BadInput) as caught:
        open_store(jaeger.address)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_server_is_refused_in_one_line() -> None:
    with pytest.raises(BadInput, match="Jaeger does not answer"):
        open_store("jaeger+http://127.0.0.1:1")
    with pytest.raises(BadInput, match="Jaeger does not answer"):
        open_store("jaeger+http://")


class OlderJaeger(Jaeger):
    """As it was: only num_traces is a parameter, and without it the storage's own limit holds."""

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        return super().answer(path, {**query, "query.search_depth": query.get("query.num_traces", "4")})


@pytest.fixture
def older() -> Iterator[Jaeger]:
    server = OlderJaeger({f"{number + 1:032x}": trace(number, "claims") for number in range(20)})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_older_jaeger_is_told_how_many_traces_in_its_own_words(older: Jaeger) -> None:
    with opened(older) as store:
        assert sorted(set(rows(store, "length")) - {None}) == list(range(20))


def test_a_streamed_answer_is_one_result_a_line(jaeger: Jaeger) -> None:
    chunks = [json.dumps({"result": whole}) for _, _, whole in list(jaeger.traces.values())[:3]]
    jaeger.canned = (200, "\n".join(chunks).encode())
    with open_store(f"{jaeger.address}?service=claims") as store:
        assert sorted(set(rows(store, "length")) - {None}) == [0, 1, 2]
        assert store.skipped == {"malformed": 0, "duplicate": 0}
    jaeger.canned = (200, json.dumps({"result": jaeger.traces[f"{1:032x}"][2]}, indent=2).encode())
    with open_store(f"{jaeger.address}?service=claims") as store:
        assert sorted(set(rows(store, "length")) - {None}) == [0]


def test_a_stream_that_breaks_off_is_no_store(jaeger: Jaeger) -> None:
    whole = json.dumps({"result": jaeger.traces[f"{1:032x}"][2]})
    jaeger.canned = (200, f'{whole}\n{{"error": {{"httpCode": 500, "message": "storage went away"}}}}\n'.encode())
    with pytest.raises(BadInput, match="Jaeger broke off while it answered \\(storage went away\\)"):
        open_store(f"{jaeger.address}?service=claims")


def test_a_full_range_that_cannot_be_halved_is_counted(jaeger: Jaeger) -> None:
    start = jaeger.traces[f"{1:032x}"][1]
    jaeger.traces = {f"{n + 1:032x}": ("claims", start, request(span(1, traceId=f"{n + 1:032x}"))) for n in range(5)}
    with opened(jaeger, "?limit=3") as store:
        assert store.spans.count().to_pyarrow().as_py() == 3
        assert store.skipped["truncated_ranges"] >= 1


def test_a_trace_that_is_not_there_is_not_found_in_either_wording(jaeger: Jaeger) -> None:
    jaeger.canned = (404, b'{"error": {"httpCode": 404, "message": "trace not found"}}\n')
    with pytest.raises(BadInput, match="Jaeger has no trace of that service, id and time"):
        open_store(f"{jaeger.address}?trace={TRACE}")


def test_results_count_however_they_are_set_apart(jaeger: Jaeger) -> None:
    results = [{"result": whole} for _, _, whole in list(jaeger.traces.values())[:3]]
    for body in (
        "".join(map(json.dumps, results)),
        "\n".join(json.dumps(one, indent=1) for one in results) + "\n",
        "\r\n\r\n".join(map(json.dumps, results)),
        json.dumps(results),
        json.dumps(results, indent=1),
    ):
        jaeger.canned = (200, body.encode())
        with open_store(f"{jaeger.address}?service=claims") as store:
            assert sorted(set(rows(store, "length")) - {None}) == [0, 1, 2]
            assert store.skipped == {"malformed": 0, "duplicate": 0}


@pytest.mark.parametrize("address", ["?service=claims", f"?trace={TRACE}"])
def test_an_answer_that_is_no_trace_is_not_taken_for_none_found(jaeger: Jaeger, address: str) -> None:
    """A page to log in on, or an answer cut short, says nothing of what Jaeger holds."""
    jaeger.canned = (200, b"<html>log in</html>")
    with pytest.raises(BadInput, match=r"/api/v3/traces\S* answers no JSON; accepted is Jaeger's query API v3"):
        open_store(jaeger.address + address)
    whole = json.dumps({"result": jaeger.traces[f"{1:032x}"][2]})
    jaeger.canned = (200, f"{whole}\n{whole[:-40]}".encode())
    with pytest.raises(BadInput, match="Jaeger broke off while it answered"):
        open_store(jaeger.address + address)


def test_a_server_that_heeds_no_times_is_not_asked_for_ever(jaeger: Jaeger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lstm_trace.store.jaeger.MOST_REQUESTS", 20)
    groups = [group for _, _, whole in list(jaeger.traces.values())[:3] for group in whole["resourceSpans"]]
    jaeger.canned = (200, json.dumps({"result": {"resourceSpans": groups}}).encode())
    with opened(jaeger, "?service=claims&limit=3") as store:
        assert store.spans.count().to_pyarrow().as_py() == 6
        assert store.skipped["truncated_ranges"] > 0
    assert len(jaeger.asked) < 60


def test_none_found_in_the_words_of_an_older_gateway(jaeger: Jaeger) -> None:
    jaeger.canned = (404, b'{"code": 5, "message": "trace not found", "details": []}')
    with pytest.raises(BadInput, match="Jaeger has no trace of that service, id and time"):
        open_store(f"{jaeger.address}?trace={TRACE}")


def test_a_name_and_password_in_the_address_are_sent_and_not_shown(jaeger: Jaeger) -> None:
    with open_store(f"{jaeger.address.replace('//', '//me:se%40cret@')}/base?trace={1:032x}") as store:
        assert store.address == f"{jaeger.address.replace('//', '//me:***@')}/base?trace={1:032x}"
    assert jaeger.headers[-1]["Authorization"] == f"Basic {base64.b64encode(b'me:se@cret').decode()}"
    assert jaeger.asked[-1] == f"/base/api/v3/traces/{1:032x}"
