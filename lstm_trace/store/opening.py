"""From a STORE address to the reader that understands it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from lstm_trace.errors import BadInput
from lstm_trace.store.opened import Store

ACCEPTED: Final = (
    "a folder or file of OTLP JSON lines or OTLP protobuf, a Parquet file or folder, clickhouse://host:port/database, "
    "or jaeger+http://host:16686"
)


def open_store(address: str | os.PathLike[str]) -> Store:
    """Open the store at ``address``: a path, ``clickhouse://…`` or ``jaeger+http(s)://…``.

    Raises BadInput, one line that names the address and what is accepted, when there is nothing there, it cannot be read, or it
    holds no span.
    """
    text = os.fspath(address)
    path = Path(text)
    if not path.exists():
        raise BadInput(f"{text}: no such file or folder; a store is {ACCEPTED}")
    raise BadInput(f"{text}: not a store; a store is {ACCEPTED}")
