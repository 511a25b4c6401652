"""The upstream prediction crosses a process boundary as W3C baggage, where that is switched on."""

from __future__ import annotations

import pytest
from opentelemetry import baggage, context, propagate

import lstm_trace
from lstm_trace import LangChainInstrumentor, LSTMInstrumentor, Settings
from lstm_trace.instrument.baggage import UpstreamBaggage, install, uninstall
from lstm_trace.instrument.langchain.handler import handler
from lstm_trace.recorder import Recorder, set_default_recorder
from tests.tracing import Traced


@pytest.fixture(autouse=True)
def _not_silenced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "silenced", False)  # as in a process that never called uninstrument()


@pytest.fixture
def sender(traced: Traced) -> dict[str, str]:
    """The headers of a request made after a prediction, from an application with baggage of its own."""
    set_default_recorder(Recorder(Settings(strict=True, baggage=True), tracer_provider=traced.provider))
    carrier: dict[str, str] = {}
    install()
    install()
    token = context.attach(baggage.set_baggage("tenant", "acme"))
    try:
        with traced.provider.get_tracer("sender").start_as_current_span("request"):
            lstm_trace.record_prediction("intent", label="réfund, all", confidence=0.5, sequence_length=30)
            propagate.inject(carrier)
    finally:
        context.detach(token)
        uninstall()
    return carrier


def test_the_other_process_sees_the_prediction_and_the_applications_own_baggage(traced: Traced, sender: dict[str, str]) -> None:
    assert set(sender) == {"traceparent", "baggage"}
    received = propagate.extract(sender)
    assert baggage.get_baggage("tenant", received) == "acme"
    token = context.attach(received)
    try:
        lstm_trace.trace_chain(lambda: None, name="other process")()
        seen = lstm_trace.upstream_prediction()
    finally:
        context.detach(token)
    there = traced.named("chain other process").attributes or {}
    assert (there["lstm.upstream.label"], there["lstm.upstream.confidence"], there["lstm.upstream.cohort"]) == ("réfund, all", 0.5, "21+")
    assert seen is not None
    assert seen.length == 30
    handed_on: dict[str, str] = {}
    UpstreamBaggage().inject(handed_on, received)
    assert "lstm.upstream.label" in handed_on["baggage"]


def test_nothing_is_sent_where_nothing_was_predicted_or_it_is_off(traced: Traced) -> None:
    carrier: dict[str, str] = {}
    UpstreamBaggage().inject(carrier)
    assert carrier == {}
    before = propagate.get_global_textmap()
    instrumentor = LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=traced.provider, settings=Settings())
    assert propagate.get_global_textmap() is before
    instrumentor.uninstrument()
    instrumentor.instrument(tracer_provider=traced.provider, settings=Settings(baggage=True))
    assert propagate.get_global_textmap() is not before
    instrumentor.uninstrument()
    assert propagate.get_global_textmap() is before


@pytest.mark.parametrize("order", [("lstm", "langchain"), ("langchain", "lstm")])
def test_either_instrumentor_switches_it_on_and_the_last_one_off(traced: Traced, order: tuple[str, str]) -> None:
    before = propagate.get_global_textmap()
    both = {"lstm": LSTMInstrumentor(), "langchain": LangChainInstrumentor()}
    settings = Settings(strict=True, baggage=True)

    def sends() -> bool:
        carrier: dict[str, str] = {}
        with traced.provider.get_tracer("sender").start_as_current_span("request"):
            lstm_trace.record_prediction("intent", label="refund", confidence=0.5, sequence_length=3)
            propagate.inject(carrier)
        return "lstm.upstream.label" in carrier.get("baggage", "")

    first, second = (both[name] for name in order)
    try:
        first.instrument(tracer_provider=traced.provider, settings=settings)
        alone = sends()
        second.instrument(tracer_provider=traced.provider, settings=settings)
        first.uninstrument()
        one_left = sends()
    finally:
        for each in both.values():
            if each.is_instrumented_by_opentelemetry:
                each.uninstrument()
    assert (alone, one_left) == (True, True)
    assert propagate.get_global_textmap() is before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("confidence", "nan"),
        ("confidence", "inf"),
        ("confidence", "1.5"),
        ("confidence", "high"),
        ("sequence_length", "1" + "0" * 30),
        ("sequence_length", "-1"),
        ("span_id", "zz"),
        ("span_id", "0"),
    ],
)
def test_what_a_header_claims_wrongly_is_left_out(traced: Traced, name: str, text: str) -> None:
    set_default_recorder(Recorder(Settings(strict=True, baggage=True), tracer_provider=traced.provider))
    sent = {"component": "intent", "label": "refund", "confidence": "0.5", "sequence_length": "3", "span_id": "b" * 16, name: text}
    header = {"baggage": ",".join(f"lstm.upstream.{key}={value}" for key, value in sent.items())}
    token = context.attach(propagate.extract(header))
    try:
        lstm_trace.record_prediction("next", label="x")
    finally:
        context.detach(token)
    found = {key.removeprefix("lstm.upstream."): value for key, value in traced.spans[0].attributes.items() if "upstream" in key}
    assert name not in found
    assert found["component"] == "intent"
    assert len(found) == 4
