"""Where spans rest, read as one canonical spans table: `open_store` takes any STORE address."""

from lstm_trace.store.convert import convert
from lstm_trace.store.memory import store_of
from lstm_trace.store.opened import Store
from lstm_trace.store.opening import open_store

__all__ = ["Store", "convert", "open_store", "store_of"]
