"""Spans of every shape that OTLP knows, and a receiver and a collector to send them to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from tests.export.collector import collector
from tests.export.receiver import Receiver
from tests.export.shapes import every_shape

__all__ = ["collector", "receiver", "spans"]


@pytest.fixture
def spans() -> list[ReadableSpan]:
    """Finished spans that use every field and value type of OTLP."""
    return every_shape()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """An OTLP/HTTP receiver that takes everything; set ``.answer`` to make it refuse."""
    with Receiver() as running:
        yield running
