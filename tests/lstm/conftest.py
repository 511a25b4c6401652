"""A recorder on the in-memory provider for every test of this room, and spans in a short form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lstm_trace.instrument.lstm import batch
from lstm_trace.recorder import Recorder, set_default_recorder
from lstm_trace.settings import Settings
from tests.tracing import Traced


@pytest.fixture
def seen(traced: Traced) -> Traced:
    """The in-memory provider, with a recorder on it in force."""
    set_default_recorder(Recorder(Settings(strict=True), tracer_provider=traced.provider))
    return traced


@pytest.fixture
def settle(traced: Traced) -> Callable[..., Traced]:
    """Put a recorder with these settings in force."""

    def put(**settings: Any) -> Traced:
        set_default_recorder(Recorder(Settings(strict=True, **settings), tracer_provider=traced.provider))
        return traced

    return put


@pytest.fixture(autouse=True)
def _requests_of_other_tests_are_forgotten() -> None:
    batch._requests.clear()  # trace ids are counted from 1 in every test
