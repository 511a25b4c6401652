"""Where a hidden state came from, through everything that people do to one."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from opentelemetry import baggage, context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from torch import nn

from lstm_trace import trace_lstm
from lstm_trace.instrument.lstm.state import StateBook
from lstm_trace.recorder import Recorder, set_default_recorder
from lstm_trace.settings import Settings
from tests.lstm.models import CellLoop, Given, Intent, Keeps
from tests.tracing import Traced

X = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(0))


def origins(seen: Traced) -> list[Any]:
    return [span.attributes.get("lstm.state.origin") for span in seen.spans]


def each(state: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    return tuple(change(one) for one in state) if isinstance(state, tuple) else change(state)


CHANGES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "as it is": lambda one: one,
    "clone": torch.clone,
    "detach": torch.detach,
    "view": lambda one: one.view(*one.shape),
    "copied into another tensor": lambda one: torch.empty_like(one).copy_(one.detach()),
    "through numpy": lambda one: torch.from_numpy(one.detach().numpy().copy()),
}


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("change", CHANGES)
def test_carried(seen: Traced, kind: type[nn.RNNBase], change: str) -> None:
    model = trace_lstm(Given(kind), name="it", session="session")
    _, state = model(X, None, "a")
    for _ in range(3):
        _, state = model(X, each(state, CHANGES[change]), "a")
    assert origins(seen) == ["none", "carried", "carried", "carried"]
    assert [span.attributes.get("lstm.state.steps") for span in seen.spans][1:] == [2, 3, 4]


@pytest.mark.parametrize("change", CHANGES)
def test_foreign_across_sessions(seen: Traced, change: str) -> None:
    model = trace_lstm(Given(), name="it", session="session")
    _, of_a = model(X, None, "a")
    model(X * 2, None, "b")
    model(X, each(of_a, CHANGES[change]), "b")
    assert origins(seen) == ["none", "none", "foreign"]
    assert "lstm.state.foreign" in [event.name for event in seen.spans[-1].events]


def test_zero_and_fresh_zeros_accuse_nobody(seen: Traced) -> None:
    model = trace_lstm(Given(nn.GRU), name="it", session="session")
    with torch.no_grad():
        for number in range(2000):
            model(X, torch.zeros(1, 1, 8), f"session {number % 7}")
    assert set(origins(seen)) == {"zero"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_a_state_multiplied_by_zero_is_zero(seen: Traced, dtype: torch.dtype) -> None:
    model = trace_lstm(Given().to(dtype), name="it", session="session")
    _, state = model(X.to(dtype), None, "a")
    assert (state[0] < 0).any()
    _, state = model(X.to(dtype), each(state, lambda one: one * 0), "a")
    for one in state:
        one.detach().mul_(0)
    model(X.to(dtype), state, "b")
    assert origins(seen) == ["none", "zero", "zero"]


def test_beams_of_one_session_may_change_places(seen: Traced) -> None:
    model = trace_lstm(Given(nn.GRU), name="it", session="session")
    rows = torch.randn(3, 5, 4)
    _, state = model(rows[:1], None, ["a"])
    _, state = model(rows, state.expand(1, 3, 8).contiguous(), ["a"] * 3)
    model(rows, state[:, [2, 2, 0]], ["a"] * 3)
    assert origins(seen) == ["none", "carried", "carried"]


def test_equal_histories_accuse_nobody(seen: Traced) -> None:
    model = trace_lstm(Given(), name="it", session="session")
    held: dict[str, Any] = {}
    for _ in range(3):
        for session in "abc":
            _, held[session] = model(X, held.get(session), session)
    assert set(origins(seen)) == {"none", "carried"}


def test_a_module_that_keeps_its_state_leaks_it(seen: Traced, caplog: pytest.LogCaptureFixture) -> None:
    model = trace_lstm(Keeps(), name="keeps", session="session")
    with caplog.at_level(logging.WARNING, "lstm_trace"):
        for session in "aabbcc":
            model(X, session)
    assert origins(seen) == ["none", "carried", "foreign", "carried", "foreign", "carried"]
    assert len([record for record in caplog.records if "another session" in record.getMessage()]) == 1, "logged once a component"


def test_a_reset_in_place_is_zero_and_counted() -> None:
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader], shutdown_on_exit=False)
    from opentelemetry.sdk.trace import TracerProvider

    set_default_recorder(Recorder(Settings(strict=True), tracer_provider=TracerProvider(shutdown_on_exit=False), meter_provider=meters))
    model = trace_lstm(Keeps(), name="keeps", session="session")
    model(X, "a")
    model(X, "a")
    for one in model.state:
        one.zero_()
    model(X, "a")
    model(X, "b")
    found = {
        metric.name: sum(point.value for point in metric.data.data_points)
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name.startswith("lstm.state")
    }
    assert found == {"lstm.state.resets": 1, "lstm.state.leaks": 1}
    meters.shutdown()


def test_reordered_rows(seen: Traced) -> None:
    model = trace_lstm(Given(), name="it")
    rows = torch.randn(3, 5, 4)
    _, state = model(rows)
    model(rows, state)
    model(rows, each(state, lambda one: one[:, [1, 0, 2]]))
    assert origins(seen) == ["none", "carried", "foreign"]
    of_rows = [event.attributes["lstm.state.origin"] for event in seen.spans[-1].events if event.name == "lstm.prediction"]
    assert of_rows == ["foreign", "foreign", "carried"]


def test_rows_may_move_with_their_sessions(seen: Traced) -> None:
    model = trace_lstm(Given(), name="it", session="session")
    rows = torch.randn(3, 5, 4)
    _, state = model(rows, None, ["a", "b", "c"])
    model(rows, each(state, lambda one: one[:, [2, 0, 1]]), ["c", "a", "b"])
    model(rows, each(state, lambda one: one[:, [2, 0, 1]]), ["a", "b", "c"])
    assert origins(seen) == ["none", "carried", "foreign"]


def test_inference_mode(seen: Traced) -> None:
    model = trace_lstm(Given(), name="it", session="session")
    with torch.inference_mode():
        _, state = model(X, None, "a")
        model(X, state, "a")
        model(X, state, "b")
    assert origins(seen) == ["none", "carried", "foreign"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(seen: Traced, dtype: torch.dtype) -> None:
    model = trace_lstm(Given().to(dtype), name="it", session="session")
    _, state = model(X.to(dtype), None, "a")
    model(X.to(dtype), state, "b")
    assert origins(seen) == ["none", "foreign"]


def test_cells(seen: Traced) -> None:
    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(4, 8)

        def forward(self, x: torch.Tensor, state: torch.Tensor | None, session: str) -> torch.Tensor:
            return self.cell(x, state)

    model = trace_lstm(Step(), name="it", session="session", output="none")
    state = model(X[:, 0], None, "a")
    state = model(X[:, 1], state, "a")
    model(X[:, 2], state, "b")
    trace_lstm(CellLoop(), name="loop")(X)
    assert origins(seen) == ["none", "carried", "foreign", "none"]


def test_a_stateless_classifier_is_none_and_notes_nothing(seen: Traced) -> None:
    model = trace_lstm(Intent(), name="it")
    for _ in range(20):
        model(torch.tensor([[1, 2, 3]]))
    assert set(origins(seen)) == {"none"}
    assert all("lstm.state.steps" not in span.attributes for span in seen.spans)


def test_made_up_state_is_unknown(seen: Traced) -> None:
    trace_lstm(Given(nn.GRU), name="it")(X, torch.randn(1, 1, 8))
    assert origins(seen) == ["unknown"]


def test_session_from_a_callable_and_from_baggage(seen: Traced) -> None:
    model = trace_lstm(Given(), name="it", session=lambda args, kwargs: kwargs.get("session", {}).get("id") if kwargs else None)
    model(X, session={"id": "s-1"})
    token = context.attach(baggage.set_baggage("session.id", "s-2"))
    model(X)
    context.detach(token)
    assert [span.attributes.get("session.id") for span in seen.spans] == ["s-1", "s-2"]


def test_session_from_langchains_thread_id(seen: Traced) -> None:
    runnables = pytest.importorskip("langchain_core.runnables")
    model = trace_lstm(Intent(), name="it")
    runnables.RunnableLambda(lambda ids: model(ids)).invoke(torch.tensor([[1, 2]]), {"configurable": {"thread_id": "t-9"}})
    assert seen.spans[-1].attributes["session.id"] == "t-9"


def test_the_book_is_bounded() -> None:
    book = StateBook(limit=100)
    for number in range(10_000):
        owner = (f"session {number}", 0, 0)
        book.judge([number + 1], [owner])
        book.note([number + 1], [owner])
        book.step(owner, "carried")
    assert len(book) <= 200
    assert len(book._steps) <= 100


class _EncoderDecoder(nn.Module):
    """Hands the encoder's last state to the decoder."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.encoder, self.decoder = kind(4, 8), kind(4, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        if isinstance(self.encoder, nn.RNNCellBase):
            for step in x:
                state = self.encoder(step, state)
            inside = self.decoder(x[-1], state)
            return self.head(inside[0] if isinstance(inside, tuple) else inside), state
        _, state = self.encoder(x, state)
        return self.head(self.decoder(x, state)[0][-1]), state


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell])
def test_what_an_encoder_hands_its_decoder_is_no_state_that_was_passed_in(seen: Traced, kind: Any) -> None:
    model = trace_lstm(_EncoderDecoder(kind), name="it")
    x = torch.randn(5, 2, 4)
    for _ in range(6):
        _, state = model(x)
    model(x, state)
    assert [span.attributes["lstm.state.origin"] for span in seen.spans] == ["none"] * 6 + ["carried"]


def test_a_row_that_was_not_looked_at_is_accused_of_nothing(seen: Traced) -> None:
    torch.manual_seed(0)
    model = trace_lstm(Given(nn.GRU), name="it")
    x = torch.randn(600, 1, 4)
    with torch.no_grad():
        state = model(x)[1]
        model(x, state[:, torch.tensor([1, 0, *range(2, 600)])])
        model.head = nn.Linear(8, 100)  # large enough for events of the least confident rows alone
        model(x, state[:, torch.tensor([1, 0, *range(2, 600)])])
    assert [span.attributes["lstm.state.origin"] for span in seen.spans] == ["none", "foreign", "foreign"]
    of_rows = {
        event.attributes["lstm.batch.index"]: event.attributes["lstm.state.origin"]
        for span in seen.spans[1:]
        for event in span.events
        if event.name == "lstm.prediction"
    }
    assert (of_rows[0], of_rows[1], of_rows[2]) == ("foreign", "foreign", "carried")
    beyond = [origin for row, origin in of_rows.items() if row >= 64]
    assert beyond == ["unknown"] * len(beyond) != []


@pytest.mark.parametrize(
    ("given", "session"),
    [
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (np.int64(7), "7"),
        (torch.tensor(7), "7"),
        (["s-1"], "s-1"),
        (["s-1", "s-2"], None),
        (np.array(["s-1", "s-2"]), None),
        ("", None),
        (None, None),
    ],
)
def test_a_session_in_any_dress(seen: Traced, caplog: pytest.LogCaptureFixture, given: Any, session: str | None) -> None:
    trace_lstm(Intent(), name="it", session=lambda args, kwargs: given)(torch.ones(2, 4, dtype=torch.long))
    assert seen.spans[-1].attributes.get("session.id") == session
    assert not caplog.records


@pytest.mark.parametrize("given", [b"s-1", 3.5, {"id": 1}, object()])
def test_what_is_no_session_is_left_out_and_said_once(seen: Traced, caplog: pytest.LogCaptureFixture, given: Any) -> None:
    model = trace_lstm(Intent(), name="it", session=lambda args, kwargs: given)
    for _ in range(2):
        model(torch.ones(2, 4, dtype=torch.long))
    assert "session.id" not in seen.spans[-1].attributes
    assert [each.getMessage().partition(":")[0] for each in caplog.records] == ["component it"]
    assert "session= is left out" in caplog.text
