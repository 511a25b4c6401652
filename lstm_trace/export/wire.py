"""One OTLP export request to one receiver, already a protobuf message: sent once, and answered with what became of it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol

import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.util.re import parse_env_headers

from lstm_trace.export.endpoint import PREFIX, Target

_RETRYABLE_STATUS: Final = frozenset({429, 502, 503, 504})
_RETRYABLE_CODE: Final = frozenset(
    {"CANCELLED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
)
_BAD_DATA_STATUS: Final = frozenset({400, 413, 422})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver said: ``reason`` is empty where it took the request, but for ``rejected`` spans.

    ``retryable`` says that the same request may be taken later, ``bad_data`` that another request may be taken now.
    """

    reason: str = ""
    rejected: int = 0
    retryable: bool = False
    bad_data: bool = False


class Sender(Protocol):
    """Sends requests to one receiver until it is closed."""

    def send(self, request: ExportTraceServiceRequest) -> Answer:
        """Send once, and wait for the answer."""
        ...

    def close(self) -> None:
        """Give the connection back."""
        ...


def sender(target: Target) -> Sender:
    """Return what sends to ``target``, with headers, time-out and certificates from ``OTEL_EXPORTER_OTLP_*``."""
    return _GrpcSender(target) if target.protocol == "grpc" else _HttpSender(target)


def _variable(name: str) -> str:
    return os.environ.get(f"{PREFIX}TRACES_{name}") or os.environ.get(f"{PREFIX}{name}") or ""


def _timeout() -> float:
    try:
        return float(_variable("TIMEOUT") or 10)
    except ValueError:
        return 10.0


class _HttpSender:
    def __init__(self, target: Target) -> None:
        self._url = target.url
        self._session = session = requests.Session()
        session.headers.update({"Content-Type": "application/x-protobuf", **parse_env_headers(_variable("HEADERS"), liberal=True)})
        session.verify = _variable("CERTIFICATE") or True
        certificate, key = _variable("CLIENT_CERTIFICATE"), _variable("CLIENT_KEY")
        if certificate:
            session.cert = (certificate, key) if key else certificate

    def send(self, request: ExportTraceServiceRequest) -> Answer:
        try:
            response = self._session.post(self._url, data=request.SerializeToString(), timeout=_timeout(), allow_redirects=False)
        except requests.RequestException as error:
            return Answer(_plain(error), retryable=isinstance(error, (requests.ConnectionError, requests.Timeout)))
        with response:
            if response.status_code == 200:
                return Answer(rejected=_rejected(response.content))
            if response.is_redirect:
                return Answer(f"it redirects to {response.headers['location']}: give that address")
            status = response.status_code
            return Answer(f"{status} {response.reason}", retryable=status in _RETRYABLE_STATUS, bad_data=status in _BAD_DATA_STATUS)

    def close(self) -> None:
        self._session.close()


def _plain(error: requests.RequestException) -> str:
    found = re.search(r"\[Errno -?\d+\] ([^'\")]+)", str(error))
    return found[1] if found else "no answer in time" if isinstance(error, requests.Timeout) else " ".join(str(error).split())[:160]


def _rejected(body: bytes) -> int:
    try:
        return int(ExportTraceServiceResponse.FromString(body).partial_success.rejected_spans)
    except ValueError:  # a receiver that answers 200 with something of its own took the request
        return 0


class _GrpcSender:
    def __init__(self, target: Target) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

        self._grpc: Any = import_module("grpc")
        url = target.url
        where = url.partition("://")[2].partition("/")[0] if url.startswith(("http://", "https://")) else url
        if url.startswith("http://") or _variable("INSECURE").lower() == "true":
            self._channel = self._grpc.insecure_channel(where)
        else:
            root = Path(_variable("CERTIFICATE")).read_bytes() if _variable("CERTIFICATE") else None
            self._channel = self._grpc.secure_channel(where, self._grpc.ssl_channel_credentials(root))
        self._stub: Any = TraceServiceStub(self._channel)
        self._metadata = tuple(parse_env_headers(_variable("HEADERS"), liberal=True).items())

    def send(self, request: ExportTraceServiceRequest) -> Answer:
        try:
            response = self._stub.Export(request, metadata=self._metadata, timeout=_timeout())
        except self._grpc.RpcError as error:
            code = error.code().name
            return Answer(f"{code}: {error.details()}", retryable=code in _RETRYABLE_CODE, bad_data=code == "INVALID_ARGUMENT")
        return Answer(rejected=int(response.partial_success.rejected_spans))

    def close(self) -> None:
        self._channel.close()
