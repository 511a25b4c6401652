"""A store behind Jaeger's query API v3: the traces of its services within a time range, fetched over HTTP.

Source: jaegertracing/jaeger, ``apiv3/http_gateway.go``: ``GET /api/v3/services``, ``/api/v3/traces?query.service_name=…`` and
``/api/v3/traces/{id}`` answer ``{"result": {"resourceSpans": …}}``, which is OTLP JSON; gRPC-gateway, from which that form comes, answers
as many of them as it likes, one a line. Jaeger returns the newest ``query.search_depth`` traces of a range and no cursor, so a range that
is full is halved and asked again. An older Jaeger knows that parameter as ``query.num_traces`` and ignores any other name: both are sent.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

import orjson

from lstm_trace.errors import BadInput
from lstm_trace.store.lenient import Tally
from lstm_trace.store.opened import Store
from lstm_trace.store.parquet import open_files
from lstm_trace.store.spool import Spool, tables_of

_FORM: Final = "jaeger+http://host:16686?service=NAME&since=24h&limit=1000, or ?trace=ID"
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SHORTEST_RANGE: Final = timedelta(milliseconds=1)
MOST_REQUESTS: Final = 10_000
"""After these no range is halved: what answers all traces at any time would be asked for ever."""
_TIMEOUT_S: Final = 60.0


def open_jaeger(address: str, shown: str, *, now: datetime | None = None) -> Store:
    """Open ``jaeger+http(s)://…``. Raises BadInput, see ``open_store``; ``shown`` is the address as error messages give it.

    Options in the address: ``service`` (default: all), ``since`` (default 24h), ``limit``: traces that one request asks for, and
    ``trace``: only that one, of any time.
    """
    import httpx

    parts = urlsplit(address)
    options = dict(parse_qsl(parts.query))
    since, limit = _range(options, shown)
    base = urlunsplit((parts.scheme.removeprefix("jaeger+"), parts.netloc, parts.path.rstrip("/"), "", ""))
    end = now or datetime.now(timezone.utc)
    tally = Tally()
    spool = Spool()
    try:
        with httpx.Client(base_url=base, timeout=_TIMEOUT_S, follow_redirects=True) as client:
            asked = _Asked(client, limit, shown)
            if "trace" in options:
                blocks = asked.trace(options["trace"])
            else:
                services = [options["service"]] if "service" in options else asked.services()
                blocks = (block for service in services for block in asked.traces(service, end - since, end))
            spool.fill(tables_of(blocks, tally))
        if not spool.rows:
            unread = f" ({tally.malformed} malformed skipped)" if tally.malformed else ""
            raise BadInput(f"{shown}: Jaeger has no trace of that service, id and time{unread}; accepted is {_FORM}")
        return open_files(
            shown,
            [spool.file],
            {"malformed": tally.malformed} | ({"truncated_ranges": asked.truncated} if asked.truncated else {}),
            scratch=spool.folder,
            closing=spool.close,
            evaluation_events=tally.evaluation_events > 0,
            # A trace of two services or two ranges comes twice: that is our asking, and nothing was delivered twice.
            count_repeated=False,
        )
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        spool.close()
        raise BadInput(f"{shown}: Jaeger does not answer ({type(error).__name__}: {_first_line(error)})") from None
    except BaseException:
        spool.close()
        raise


def _range(options: dict[str, str], shown: str) -> tuple[timedelta, int]:
    if unknown := set(options) - {"service", "since", "limit", "trace"}:
        raise BadInput(f"{shown}: unknown option {sorted(unknown)[0]!r}; accepted is {_FORM}")
    since = re.fullmatch("([0-9]{1,6})([smhd])", options.get("since", "24h"))
    limit = options.get("limit", "1000")
    if since is None:
        raise BadInput(f"{shown}: since={options['since']!r}; accepted is a number and s, m, h or d, such as 24h")
    if not limit.isdecimal() or not 0 < int(limit) <= 1_000_000:
        raise BadInput(f"{shown}: limit={limit!r}; accepted is a whole number of traces from 1")
    return timedelta(seconds=int(since[1]) * _UNITS[since[2]]), int(limit)


class _Asked:
    """One Jaeger, asked for services and traces."""

    def __init__(self, client: Any, limit: int, shown: str) -> None:
        self._client = client
        self._limit = limit
        self._shown = shown
        self.truncated = 0
        self._requests = 0

    def services(self) -> list[str]:
        held = self._json("/api/v3/services", {})
        names = held.get("services") if isinstance(held, dict) else None
        if not isinstance(names, list):
            raise BadInput(f"{self._shown}: /api/v3/services answers something else than Jaeger's query API v3")
        return [str(name) for name in names]

    def trace(self, trace_id: str) -> Iterator[bytes]:
        """One trace, as at most one block of OTLP JSON."""
        found = self._found(f"/api/v3/traces/{quote(trace_id, safe='')}", {})
        if found is not None:
            yield found[0]

    def traces(self, service: str, start: datetime, end: datetime) -> Iterator[bytes]:
        """The traces of ``service`` in a time range, as blocks of OTLP JSON."""
        query = {
            "query.service_name": service,
            "query.start_time_min": _rfc3339(start),
            "query.start_time_max": _rfc3339(end),
            "query.search_depth": str(self._limit),
            "query.num_traces": str(self._limit),
        }
        found = self._found("/api/v3/traces", query)
        if found is None:
            return
        answer, traces = found
        if traces >= self._limit:
            if end - start > _SHORTEST_RANGE and self._requests < MOST_REQUESTS:
                middle = start + (end - start) / 2
                yield from self.traces(service, start, middle)
                yield from self.traces(service, middle, end)
                return
            self.truncated += 1
        yield answer

    def _json(self, path: str, query: dict[str, str]) -> Any:
        try:
            return orjson.loads(self._get(path, query) or b"null")
        except orjson.JSONDecodeError:
            raise BadInput(f"{self._shown}: {path} answers no JSON; accepted is Jaeger's query API v3") from None

    def _get(self, path: str, query: dict[str, str]) -> bytes | None:
        """The body; None where Jaeger answers that it found no traces."""
        self._requests += 1
        response = self._client.get(path, params=query)
        content: bytes = response.content
        # Its own answer has a body of JSON; that of a server without such a path has not.
        if response.status_code == 404 and any(_error_in(held) is not None for held in _documents(content)):
            return None
        if response.status_code != 200:
            why = _first_line(Exception(response.text))
            raise BadInput(f"{self._shown}: {path} answers {response.status_code} ({why}); accepted is Jaeger's query API v3")
        return content

    def _found(self, path: str, query: dict[str, str]) -> tuple[bytes, int] | None:
        """An answer as lines of OTLP JSON, and of how many traces; None where there are none. Raises BadInput where Jaeger broke off."""
        content = self._get(path, query)
        if content is None:
            return None
        documents = _documents(content)
        broken = next((error for error in map(_error_in, documents) if error is not None), None)
        if broken is not None:
            raise BadInput(f"{self._shown}: Jaeger broke off while it answered ({_first_line(Exception(broken))})")
        if documents and documents[-1] is _NO_JSON:
            if len(documents) == 1:
                raise BadInput(f"{self._shown}: {path} answers no JSON; accepted is Jaeger's query API v3")
            raise BadInput(f"{self._shown}: Jaeger broke off while it answered (within a result)")
        ids = {trace_id for held in documents for trace_id in _trace_ids(held)}
        return b"\n".join(map(_line, documents)), len(ids)


_NO_JSON: Final = object()


def _documents(content: bytes) -> list[Any]:
    """The JSON documents of an answer, however they are set apart; ``_NO_JSON`` as the last one where something else follows."""
    for texts in ([content], content.splitlines()):  # the quick ways first
        with contextlib.suppress(ValueError):
            return [document for text in texts if text.strip() for document in _each(orjson.loads(text))]
    text, found, decoder = content.decode("utf-8", "replace"), list[Any](), json.JSONDecoder()
    at = _past_space(text, 0)
    while at < len(text):
        try:
            document, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return [*found, _NO_JSON]
        found += _each(document)
        at = _past_space(text, end)
    return found


def _each(document: Any) -> list[Any]:
    return document if isinstance(document, list) else [document]


def _past_space(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _line(document: Any) -> bytes:
    """A document on one line; half a surrogate pair, or a number beyond 64 bits, is left to the reader."""
    try:
        return orjson.dumps(document)
    except TypeError:
        return json.dumps(document).encode()


def _error_in(document: Any) -> str | None:
    """What the gateway says instead of a result, also in the middle of a stream that began well; gRPC-gateway outside of one, too."""
    error = document.get("error") if isinstance(document, dict) else None
    if error is None and isinstance(document, dict) and isinstance(document.get("code"), int):
        error = document
    return str(error.get("message", "")) if isinstance(error, dict) else None


def _trace_ids(document: Any) -> Iterator[Any]:
    try:
        for group in document["result"]["resourceSpans"]:
            for scope in group["scopeSpans"]:
                yield from [span["traceId"] for span in scope["spans"]]
    except (KeyError, TypeError):
        return  # the reader counts it as malformed


def _rfc3339(time: datetime) -> str:
    return time.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]
