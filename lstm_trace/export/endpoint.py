"""Where one signal goes over OTLP, from an argument or the ``OTEL_EXPORTER_OTLP_*`` variables, and the exporter that takes it there."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import SplitResult, urlsplit

from lstm_trace.errors import BadInput

if TYPE_CHECKING:
    import requests

Signal = Literal["traces", "metrics", "logs"]
Protocol = Literal["http/protobuf", "grpc"]

PREFIX: Final = "OTEL_EXPORTER_OTLP_"
_FORMS: Final = "accepted is the address of an OTLP receiver: http://host:4318 or https://host, with or without /v1/traces"
_BARE: Final = re.compile(r"^(\[[^\]]+\]|[^:/]+):(\d{1,5})$")
_PATHS: Final[Mapping[Signal, str]] = {"traces": "/v1/traces", "metrics": "/v1/metrics", "logs": "/v1/logs"}
_EXPORTERS: Final[Mapping[Signal, tuple[str, str]]] = {
    "traces": ("trace_exporter", "OTLPSpanExporter"),
    "metrics": ("metric_exporter", "OTLPMetricExporter"),
    "logs": ("_log_exporter", "OTLPLogExporter"),
}


class BadVariable(BadInput):
    """An environment variable, not an argument, cannot be used."""


_PORT_HINTS: Final[Mapping[tuple[Protocol, int], str]] = {
    ("http/protobuf", 4317): "; port 4317 is usually OTLP/gRPC: OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
    ("grpc", 4318): "; port 4318 is usually OTLP/HTTP: OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
}


@dataclass(frozen=True, slots=True)
class Target:
    """One signal's receiver: ``url`` with the signal's path for http/protobuf, without one for grpc."""

    signal: Signal
    url: str
    protocol: Protocol

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port to connect to, or None where the URL does not say (``unix:/run/otlp``, gRPC without a port)."""
        if not self.url.startswith(("http://", "https://")):
            bare = _BARE.match(self.url)
            return (bare[1].strip("[]"), int(bare[2])) if bare else None
        parts = urlsplit(self.url)
        port = parts.port or (None if self.protocol == "grpc" else 443 if parts.scheme == "https" else 80)
        return (parts.hostname, port) if parts.hostname and port else None

    @property
    def host(self) -> str:
        """The receiver without the signal's path: ``host:port``, or the URL where that does not say."""
        return self.url if self.address is None else "{}:{}".format(*self.address)

    @property
    def hint(self) -> str:
        """What to add to a failure's reason where port and protocol do not go together."""
        address = self.address
        return _PORT_HINTS.get((self.protocol, address[1]), "") if address else ""

    @property
    def shown(self) -> str:
        """The URL as log lines show it: without a user name and password."""
        head, at, tail = self.url.rpartition("@")
        return f"{head.partition('://')[0]}://…@{tail}" if at and "://" in head else self.url


def wanted(signal: Signal, environ: Mapping[str, str]) -> bool:
    """Tell whether the environment asks for OTLP for this signal: a general ``OTEL_EXPORTER_OTLP_*`` or the signal's own is set."""
    others = tuple(f"{PREFIX}{other.upper()}_" for other in _PATHS if other != signal)
    return any(name.startswith(PREFIX) and value and not name.startswith(others) for name, value in environ.items())


def resolve(signal: Signal, endpoint: str | None, environ: Mapping[str, str]) -> Target:
    """Read where ``signal`` goes. Raises BadInput that names the argument or variable, its value and what is accepted.

    ``endpoint`` is a base address: the signal's path is added, and a path of another signal replaced. The general variable is treated the
    same way, the signal's own is taken as it is. Source: OpenTelemetry, "OTLP Exporter Configuration".

    >>> resolve("traces", "http://localhost:4318", {}).url
    'http://localhost:4318/v1/traces'
    >>> resolve("metrics", None, {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}).url
    'http://localhost:4317'
    """
    own = f"{PREFIX}{signal.upper()}_"
    protocol = _protocol(own, environ)
    own_endpoint, base = environ.get(f"{own}ENDPOINT"), environ.get(f"{PREFIX}ENDPOINT")
    if endpoint is not None:
        return Target(signal, _base_url("endpoint", endpoint, signal, protocol), protocol)
    if own_endpoint:
        _check(f"{own}ENDPOINT", own_endpoint, protocol)
        return Target(signal, own_endpoint, protocol)
    if base:
        return Target(signal, _base_url(f"{PREFIX}ENDPOINT", base, signal, protocol), protocol)
    return Target(signal, "http://localhost:4317" if protocol == "grpc" else f"http://localhost:4318{_PATHS[signal]}", protocol)


def connect(target: Target) -> Any:
    """Make the OTLP exporter for ``target``; what else it needs (headers, time-out, certificates) it reads from the environment."""
    transport = "grpc" if target.protocol == "grpc" else "http"
    module, name = _EXPORTERS[target.signal]
    make = getattr(import_module(f"opentelemetry.exporter.otlp.proto.{transport}.{module}"), name)
    if transport == "grpc" or any("_CREDENTIAL_PROVIDER" in variable for variable in os.environ):
        return make(endpoint=target.url)
    import requests

    session = requests.Session()
    session.hooks["response"].append(_refuse_redirect)
    return make(endpoint=target.url, session=session)


def _refuse_redirect(response: requests.Response, **_: Any) -> None:
    # The OTLP exporters take a redirect for a success, and what was sent is gone.
    if response.is_redirect:
        response.close()
        raise RedirectRefused(f"it redirects to {response.headers['location']}: give that address")


class RedirectRefused(Exception):
    """An OTLP receiver answered with a redirect."""


def _protocol(own: str, environ: Mapping[str, str]) -> Protocol:
    for variable in (f"{own}PROTOCOL", f"{PREFIX}PROTOCOL"):
        value = environ.get(variable, "").strip().lower()
        if value == "grpc":
            if find_spec("grpc") is None or find_spec("opentelemetry.exporter.otlp.proto.grpc") is None:
                raise BadVariable(f"{variable}=grpc needs a package that is not installed: pip install 'lstm-trace[grpc]'")
            return "grpc"
        if value == "http/protobuf":
            return "http/protobuf"
        if value:
            raise BadVariable(f"{variable}={value!r}: accepted are http/protobuf and grpc")
    return "http/protobuf"


def _base_url(name: str, given: str, signal: Signal, protocol: Protocol) -> str:
    parts = _check(name, given, protocol)
    if protocol == "grpc":
        return given.strip()
    path = parts.path.rstrip("/")
    for known in _PATHS.values():
        path = path.removesuffix(known)
    return parts._replace(path=f"{path}{_PATHS[signal]}").geturl()


def _check(name: str, given: str, protocol: Protocol) -> SplitResult:
    if not isinstance(given, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{name}={given!r} is not a string: {_FORMS}")
    text = given.strip()
    if protocol == "grpc" and text and not text.startswith(("http://", "https://")):
        return SplitResult("", text, "", "", "")  # gRPC has names of its own: host:port, dns:///host, unix:/path
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        problem = f"{name}={given!r} is not usable: {_FORMS}"
        raise BadVariable(problem) if name.startswith(PREFIX) else BadInput(problem)
    return urlsplit(text)
