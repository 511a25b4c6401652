"""From a STORE address to the reader that understands it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from lstm_trace.errors import BadInput
from lstm_trace.store.opened import ACCEPTED, Store

_PASSWORD: Final = re.compile("(://[^/@:]*):[^/@]*@")


def open_store(address: str | os.PathLike[str], *, flat: bool = False) -> Store:
    """Open the store at ``address``: a path, ``clickhouse://…`` or ``jaeger+http(s)://…``.

    ``flat``: for an analysis that asks for none of the nested columns (``schema.NESTED``), which JSON and protobuf files are then read
    without, in two thirds of the time.

    Raises BadInput, one line that names the address and what is accepted, when there is nothing there, it cannot be read, or it
    holds no span.
    """
    text = os.fspath(address)
    if not text:
        raise BadInput(f"an empty address names no store; a store is {ACCEPTED}")
    # Error messages are one line, whatever a file is called, and show no password.
    shown = _PASSWORD.sub(r"\1:***@", text if text.isprintable() else repr(text))
    scheme, found, _ = text.partition("://")
    if found and scheme == "clickhouse":
        from lstm_trace.store.clickhouse import open_clickhouse

        return open_clickhouse(text, shown)
    if found and scheme in ("jaeger+http", "jaeger+https"):
        from lstm_trace.store.jaeger import open_jaeger

        return open_jaeger(text, shown)
    if found:
        raise BadInput(f"{shown}: no store has addresses of the form {shown.partition('://')[0]}://; a store is {ACCEPTED}")
    from lstm_trace.store import allowance
    from lstm_trace.store.local import open_path

    allowance.check(shown, Path(text).expanduser())
    return open_path(shown, Path(text).expanduser(), flat=flat)
