"""An asyncio micro-batcher: requests of different traces, one forward pass, and each request's trace says how long it waited.

Run it: python examples/microbatch.py
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

import torch
from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from lstm_trace import batch_scope, trace_lstm

LABELS = ["refund", "status", "cancel"]


@trace_lstm(name="intent", labels=LABELS)
class Intent(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(50, 16, padding_idx=0)
        self.lstm = torch.nn.LSTM(16, 32, batch_first=True)
        self.head = torch.nn.Linear(32, len(LABELS))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(self.embedding(ids))[1][0][-1])


@dataclass
class Waiting:
    events: list[int]
    context: context.Context
    enqueued_at: int
    answer: asyncio.Future[str]


class MicroBatcher:
    """Collects requests for a moment and answers them together."""

    def __init__(self, model: torch.nn.Module, *, size: int = 16, wait_s: float = 0.01) -> None:
        self._model, self._size, self._wait_s = model, size, wait_s
        self._queue: asyncio.Queue[Waiting] = asyncio.Queue()

    async def classify(self, events: list[int]) -> str:
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        # The request's own context goes with it: the forward will run in the batcher's.
        await self._queue.put(Waiting(events, context.get_current(), time.time_ns(), answer))
        return await answer

    async def run(self) -> None:
        while True:
            batch = [await self._queue.get()]
            await asyncio.sleep(self._wait_s)
            while len(batch) < self._size and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            try:
                labels = await asyncio.to_thread(self._forward, batch)
            except Exception as error:  # noqa: BLE001  every waiting request gets the error
                for each in batch:
                    each.answer.set_exception(error)
                continue
            for each, label in zip(batch, labels, strict=True):
                each.answer.set_result(label)

    def _forward(self, batch: list[Waiting]) -> list[str]:
        longest = max(len(each.events) for each in batch)
        ids = torch.tensor([each.events + [0] * (longest - len(each.events)) for each in batch])
        with torch.inference_mode(), batch_scope([each.context for each in batch], enqueued_at=[each.enqueued_at for each in batch]):
            return [LABELS[index] for index in self._model(ids).argmax(1).tolist()]


async def serve(requests: int = 8) -> list[str]:
    tracer = trace.get_tracer("app")
    batcher = MicroBatcher(Intent().eval())
    running = asyncio.create_task(batcher.run())

    async def request(number: int) -> str:
        events = [random.randint(1, 49) for _ in range(random.randint(3, 12))]
        with tracer.start_as_current_span(f"request {number}"):
            return await batcher.classify(events)

    answers = await asyncio.gather(*(request(number) for number in range(requests)))
    running.cancel()
    return list(answers)


def main() -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=_line)))
    trace.set_tracer_provider(provider)
    random.seed(1)
    torch.manual_seed(1)
    print(asyncio.run(serve()))


def _line(span: trace.Span) -> str:
    facts = {
        name: value
        for name, value in span.attributes.items()
        if name.startswith(("lstm.batch", "lstm.prediction.label", "lstm.sequence.length"))
    }
    return f"{span.context.trace_id:032x} {span.name:18} {len(span.links)} links  {facts}\n"


if __name__ == "__main__":
    main()
