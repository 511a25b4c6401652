"""A BentoML service whose adaptive batching answers requests of different traces with one forward pass.

pip install bentoml, then run it: bentoml serve examples.bentoml_service:Gateway
Send each request with its traceparent header; LSTM_TRACE_STORE or OTEL_EXPORTER_OTLP_ENDPOINT says where the spans go.
"""

from __future__ import annotations

import time

import bentoml
import torch
from opentelemetry import propagate, trace
from pydantic import BaseModel

import lstm_trace

LABELS = ["refund", "status", "cancel"]


class Intent(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(50, 16, padding_idx=0)
        self.lstm = torch.nn.LSTM(16, 32, batch_first=True)
        self.head = torch.nn.Linear(32, len(LABELS))

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        rows = torch.nn.utils.rnn.pack_padded_sequence(self.embedding(ids), lengths, batch_first=True, enforce_sorted=False)
        return self.head(self.lstm(rows)[1][0][-1])


class Waiting(BaseModel):
    """One request's row. It crosses to the model's process, so its trace goes with it as text."""

    events: list[int]
    carrier: dict[str, str]
    enqueued_at: int


@bentoml.service
class Classifier:
    """The model, in a process of its own. BentoML puts waiting rows together and calls it once for all."""

    def __init__(self) -> None:
        self.providers = lstm_trace.configure(service_name="intent-model")
        self.model = lstm_trace.trace_lstm(Intent().eval(), name="intent", labels=LABELS)

    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=2000)
    def classify(self, waiting: list[Waiting]) -> list[str]:
        lengths = torch.tensor([len(each.events) for each in waiting])
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(each.events) for each in waiting], batch_first=True)
        requests = [propagate.extract(each.carrier) for each in waiting]
        with torch.inference_mode(), lstm_trace.batch_scope(requests, enqueued_at=[each.enqueued_at for each in waiting]):
            return [LABELS[index] for index in self.model(ids, lengths).argmax(1).tolist()]

    @bentoml.on_shutdown
    def stop(self) -> None:
        self.providers.shutdown()


@bentoml.service
class Gateway:
    classifier = bentoml.depends(Classifier)

    def __init__(self) -> None:
        self.providers = lstm_trace.configure(service_name="intent-gateway")
        self.tracer = trace.get_tracer("intent-gateway")

    @bentoml.api(route="/intent")
    async def intent(self, events: list[int], ctx: bentoml.Context) -> dict[str, str]:
        above = propagate.extract(ctx.request.headers)  # the caller's traceparent
        with self.tracer.start_as_current_span("POST /intent", above, trace.SpanKind.SERVER):
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
            row = Waiting(events=events, carrier=carrier, enqueued_at=time.time_ns())
            (label,) = await self.classifier.to_async.classify([row])
            return {"intent": label}

    @bentoml.on_shutdown
    def stop(self) -> None:
        self.providers.shutdown()
