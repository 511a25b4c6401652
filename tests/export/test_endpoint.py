"""Where a signal goes: the specification's rules for `OTEL_EXPORTER_OTLP_*`, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_trace.errors import BadInput
from lstm_trace.export.endpoint import BadVariable, resolve, wanted

_GRPC = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}


@pytest.mark.parametrize(
    ("endpoint", "environ", "url"),
    [
        (None, {}, "http://localhost:4318/v1/traces"),
        ("http://host:4318", {}, "http://host:4318/v1/traces"),
        ("http://host:4318/", {}, "http://host:4318/v1/traces"),
        (" https://host ", {}, "https://host/v1/traces"),
        ("https://host/otlp", {}, "https://host/otlp/v1/traces"),
        ("http://host:4318/v1/traces", {}, "http://host:4318/v1/traces"),
        ("http://host:4318/v1/metrics", {}, "http://host:4318/v1/traces"),
        ("http://[::1]:4318", {}, "http://[::1]:4318/v1/traces"),
        ("https://host/x?key=1", {}, "https://host/x/v1/traces?key=1"),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://base:1"}, "http://base:1/v1/traces"),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://own:1/as/it/is"}, "http://own:1/as/it/is"),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b/c"}, "http://b/c"),
        ("http://argument:1", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://own:1/"}, "http://argument:1/v1/traces"),
        (None, _GRPC, "http://localhost:4317"),
        ("http://host:4317", _GRPC, "http://host:4317"),
        ("host:4317", _GRPC, "host:4317"),
        ("unix:/run/otlp.sock", _GRPC, "unix:/run/otlp.sock"),
        (
            "http://host:1",
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
            "http://host:1/v1/traces",
        ),
    ],
)
def test_the_url_of_spans(endpoint: str | None, environ: dict[str, str], url: str) -> None:
    assert resolve("traces", endpoint, environ).url == url


@pytest.mark.parametrize(
    ("url", "protocol", "address"),
    [
        ("http://host", "http/protobuf", ("host", 80)),
        ("https://host", "http/protobuf", ("host", 443)),
        ("http://host:4318/v1/traces", "http/protobuf", ("host", 4318)),
        ("http://[::1]:4318", "http/protobuf", ("::1", 4318)),
        ("http://host", "grpc", None),
        ("host:4317", "grpc", ("host", 4317)),
        ("unix:/run/otlp.sock", "grpc", None),
        ("dns:///host:4317", "grpc", None),
    ],
)
def test_the_address_to_knock_at(url: str, protocol: str, address: tuple[str, int] | None) -> None:
    assert resolve("traces", url, {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol}).address == address


@pytest.mark.parametrize(
    "given", ["", " ", "host:4318", "localhost", "ftp://host", "http://", "http://:4318", "http://host:0", "http://host:x", "http://[::1"]
)
def test_what_is_no_address_is_refused_in_one_line(given: str) -> None:
    with pytest.raises(BadInput, match="accepted is the address of an OTLP receiver") as raised:
        resolve("traces", given, {})
    assert repr(given) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "nowhere"},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "nowhere"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
        {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "carrier/pigeon"},
    ],
)
def test_a_refused_variable_is_named(environ: dict[str, str]) -> None:
    ((name, value),) = environ.items()
    with pytest.raises(BadVariable) as raised:
        resolve("traces", None, environ)
    assert f"{name}={value!r}" in str(raised.value)


@settings(deadline=None)  # a loaded machine is no bug
@given(st.text())
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        target = resolve("traces", text, {})
    except BadInput:
        return
    assert target.url.startswith(("http://", "https://"))
    assert target.address


@pytest.mark.parametrize(
    ("environ", "signals"),
    [
        ({}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, ["traces", "metrics", "logs"]),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "a=b"}, ["traces", "metrics", "logs"]),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://x"}, ["metrics"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, []),
        ({"OTEL_SERVICE_NAME": "x"}, []),
    ],
)
def test_which_signals_the_environment_wants(environ: dict[str, str], signals: list[str]) -> None:
    assert [signal for signal in ("traces", "metrics", "logs") if wanted(signal, environ)] == signals


def test_a_password_in_the_url_is_not_shown() -> None:
    target = resolve("traces", "https://user:secret@host:4318", {})
    assert target.shown == "https://…@host:4318/v1/traces"
    assert target.address == ("host", 4318)


@pytest.mark.parametrize(
    ("endpoint", "protocol", "other"),
    [("http://host:4317", "http/protobuf", "grpc"), ("http://host:4318", "grpc", "http/protobuf")],
)
def test_the_other_protocols_port_is_named_as_a_likely_reason(endpoint: str, protocol: str, other: str) -> None:
    target = resolve("traces", endpoint, {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol})
    assert target.hint.endswith(f"OTEL_EXPORTER_OTLP_PROTOCOL={other}")
    assert resolve("traces", "http://host:4318", {}).hint == ""
