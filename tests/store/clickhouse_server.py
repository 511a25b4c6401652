"""ClickHouse's own engine (chDB) behind ClickHouse's HTTP protocol, so that the real client and the real address are tested.

It answers what ``clickhouse-connect`` sends: a query in the body or the address, its answer in the format that the query names.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from chdb import ChdbError


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(b"")

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def answer(self, body: bytes) -> None:
        server: Any = self.server
        if server.instead and server.instead(self):
            return
        given = dict(parse_qsl(urlsplit(self.path).query))
        text = "\n".join(part for part in (given.get("query", ""), body.decode()) if part)
        try:
            with server.lock:
                content, status = server.session.query(text, given.get("default_format", "TabSeparated")).bytes(), 200
        except ChdbError as error:  # goes to the client, as ClickHouse does
            content, status = str(error).encode(), 404
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-ClickHouse-Summary", "{}")
        if status != 200:
            self.send_header("X-ClickHouse-Exception-Code", "60")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, session: Any) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.session = session
        self.lock = threading.Lock()
        self.instead: Callable[[Handler], bool] | None = None
        """Answers a request in the engine's place, and says whether it did."""

    @property
    def address(self) -> str:
        return f"clickhouse://127.0.0.1:{self.server_port}/default"
