"""What is copied from a CUDA device: order, memory and times. Streams and events stand for a device's; the rest is as it runs there."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from lstm_trace.instrument.lstm import copies

CPU = torch.device("cpu")


class Event:
    """An event of a device that is done with everything at once, or not until it is waited for."""

    now_ms = 0.0
    is_behind = False

    def __init__(self, enable_timing: bool = False, blocking: bool = False) -> None:
        self.at = 0.0

    def record(self, stream: Any) -> None:
        self.at = Event.now_ms

    def query(self) -> bool:
        return not Event.is_behind

    def synchronize(self) -> None:
        return None

    def elapsed_time(self, other: Event) -> float:
        return other.at - self.at


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the buffers that had to be made."""
    found: list[int] = []

    def pinned(size: int) -> torch.Tensor:
        found.append(size)
        with torch.inference_mode(False), copies.captures_elsewhere_allowed():
            return torch.empty(size, dtype=torch.uint8, device="cpu")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "the caller's")
    monkeypatch.setattr(copies, "_pinned", pinned)
    monkeypatch.setattr(copies._CudaCopies, "_pool", copies._Pool(limit=1 << 12))
    monkeypatch.setattr(copies._CudaCopies, "_anchors", {})
    Event.now_ms, Event.is_behind = 0.0, False
    return found


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Take tensors for a device's."""
    held: list[torch.Tensor] = []
    own = torch.Tensor.detach

    def put(tensor: torch.Tensor) -> torch.Tensor:
        held.append(tensor)
        return tensor

    def detach(self: torch.Tensor) -> torch.Tensor:
        found = own(self)
        if any(self is each for each in held):
            held.append(found)
        return found

    monkeypatch.setattr(torch.Tensor, "detach", detach)
    monkeypatch.setattr(torch.Tensor, "is_cpu", property(lambda self: not any(self is each for each in held)))
    return put


def copied(*tensors: torch.Tensor) -> copies.Copies:
    found = copies._CudaCopies(CPU)
    for each in tensors:
        found.add(each)
    found.begun()
    return found


def test_values_and_memory(on_device: Any, made: list[int]) -> None:
    given = [torch.randn(3, 4), torch.arange(5), torch.tensor([True, False]), torch.randn(4, 3).T, torch.randn(2).bfloat16()]
    for _ in range(3):
        found = copied(*(on_device(each.clone()) for each in given))
        assert found.are_ready()
        found.wait(lambda: 1)
        found.fetch()
        for number, each in enumerate(given):
            assert torch.equal(found[number], each)
        found.release()
    assert made == [512] * 5, "memory is used again"


def test_lengths_that_stay_on_the_cpu_may_be_changed_after_the_call(made: list[int]) -> None:
    lengths = torch.tensor([3, 2])
    found = copies._CudaCopies(torch.device("cuda:0"))
    found.add(lengths)
    lengths.zero_()
    assert found[0].tolist() == [3, 2]
    assert made == []


def test_memory_made_in_inference_mode_is_written_to_outside_of_it(on_device: Any) -> None:
    with torch.inference_mode():
        copied(on_device(torch.ones(2))).release()
    found = copied(on_device(torch.ones(2)))
    assert found[0].tolist() == [1.0, 1.0]


def test_what_is_kept_is_bounded() -> None:
    pool = copies._Pool(limit=1 << 12)
    pool.give([pool.take(1 << 10) for _ in range(10)])
    assert pool._kept == 1 << 12
    assert sum(len(each) for each in pool._free.values()) == 4


def test_the_time_at_which_the_device_was_done() -> None:
    clock = iter(itertools.count(1_000_000_000, 1_000_000)).__next__
    Event.is_behind = True
    first = copied().wait(clock)
    assert first == 1_000_000_000, "this thread saw it happen"
    Event.is_behind = False
    Event.now_ms = 0.25
    late = copied()
    for _ in range(100):
        clock()
    assert late.wait(clock) == first + 250_000, "it came late, and the device knows how long after the first it was"
    Event.now_ms = 1e9
    assert copied().wait(clock) < 2_000_000_000, "never later than now"
