"""A Ray Serve deployment that answers HTTP requests of different traces with one forward pass.

pip install "ray[serve]", then run it: serve run examples.ray_serve:app     (or: python examples/ray_serve.py)
Send each request with its traceparent header; LSTM_TRACE_STORE or OTEL_EXPORTER_OTLP_ENDPOINT says where the spans go.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import torch
from opentelemetry import context, propagate, trace
from ray import serve
from starlette.requests import Request

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


@dataclass
class Waiting:
    events: list[int]
    context: context.Context
    enqueued_at: int


@serve.deployment
class IntentServer:
    def __init__(self) -> None:
        # Here, not at import: a replica is a process of its own.
        self.providers = lstm_trace.configure(service_name="intent-server")
        self.model = lstm_trace.trace_lstm(Intent().eval(), name="intent", labels=LABELS)
        self.tracer = trace.get_tracer("intent-server")

    async def __call__(self, request: Request) -> dict[str, str]:
        events = (await request.json())["events"]
        above = propagate.extract(request.headers)  # the caller's traceparent
        with self.tracer.start_as_current_span("POST /intent", above, trace.SpanKind.SERVER):
            return {"intent": await self.classify(Waiting(events, context.get_current(), time.time_ns()))}

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.02)
    async def classify(self, waiting: list[Waiting]) -> list[str]:
        # Serve runs this in a task of its own: only what each request brought along says whose it is.
        return await asyncio.to_thread(self.forward, waiting)

    def forward(self, waiting: list[Waiting]) -> list[str]:
        lengths = torch.tensor([len(each.events) for each in waiting])
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(each.events) for each in waiting], batch_first=True)
        requests, enqueued_at = [each.context for each in waiting], [each.enqueued_at for each in waiting]
        with torch.inference_mode(), lstm_trace.batch_scope(requests, enqueued_at=enqueued_at):
            return [LABELS[index] for index in self.model(ids, lengths).argmax(1).tolist()]

    def __del__(self) -> None:
        self.providers.shutdown()  # Serve calls it before it stops the replica


app = IntentServer.bind()

if __name__ == "__main__":
    serve.run(app, blocking=True)
