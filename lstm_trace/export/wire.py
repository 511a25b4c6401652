"""One OTLP export request to one receiver, already a protobuf message: sent once, and answered with what became of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

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


Send = Callable[[ExportTraceServiceRequest], Answer]


def sender(target: Target) -> Send:
    """Return what sends to ``target``, with headers, time-out and certificates from ``OTEL_EXPORTER_OTLP_*``."""
    return _over_grpc(target) if target.protocol == "grpc" else _over_http(target)


def _variable(name: str) -> str:
    return os.environ.get(f"{PREFIX}TRACES_{name}") or os.environ.get(f"{PREFIX}{name}") or ""


def _timeout() -> float:
    try:
        return float(_variable("TIMEOUT") or 10)
    except ValueError:
        return 10.0


def _over_http(target: Target) -> Send:
    session = requests.Session()
    session.headers.update({"Content-Type": "application/x-protobuf", **parse_env_headers(_variable("HEADERS"), liberal=True)})
    session.verify = _variable("CERTIFICATE") or True
    if _variable("CLIENT_CERTIFICATE"):
        session.cert = (
            (_variable("CLIENT_CERTIFICATE"), _variable("CLIENT_KEY")) if _variable("CLIENT_KEY") else _variable("CLIENT_CERTIFICATE")
        )

    def send(request: ExportTraceServiceRequest) -> Answer:
        try:
            response = session.post(target.url, data=request.SerializeToString(), timeout=_timeout(), allow_redirects=False)
        except requests.RequestException as error:
            return Answer(f"{error}", retryable=isinstance(error, (requests.ConnectionError, requests.Timeout)))
        with response:
            if response.status_code == 200:
                return Answer(rejected=_rejected(response.content))
            if response.is_redirect:
                return Answer(f"it redirects to {response.headers['location']}: give that address")
            status = response.status_code
            return Answer(f"{status} {response.reason}", retryable=status in _RETRYABLE_STATUS, bad_data=status in _BAD_DATA_STATUS)

    return send


def _rejected(body: bytes) -> int:
    try:
        return int(ExportTraceServiceResponse.FromString(body).partial_success.rejected_spans)
    except ValueError:  # a receiver that answers 200 with something of its own took the request
        return 0


def _over_grpc(target: Target) -> Send:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

    grpc: Any = import_module("grpc")
    plain = target.url.startswith("http://") or _variable("INSECURE").lower() == "true"
    where = target.url.partition("://")[2].partition("/")[0] if target.url.startswith(("http://", "https://")) else target.url
    if plain:
        channel = grpc.insecure_channel(where)
    else:
        root = Path(_variable("CERTIFICATE")).read_bytes() if _variable("CERTIFICATE") else None
        channel = grpc.secure_channel(where, grpc.ssl_channel_credentials(root))
    stub: Any = TraceServiceStub(channel)
    metadata = tuple(parse_env_headers(_variable("HEADERS"), liberal=True).items())

    def send(request: ExportTraceServiceRequest) -> Answer:
        try:
            response = stub.Export(request, metadata=metadata, timeout=_timeout())
        except grpc.RpcError as error:
            code = error.code().name
            return Answer(f"{code}: {error.details()}", retryable=code in _RETRYABLE_CODE, bad_data=code == "INVALID_ARGUMENT")
        return Answer(rejected=int(response.partial_success.rejected_spans))

    return send
