"""Carry the upstream prediction to the next process as W3C baggage, where that is switched on (``LSTM_TRACE_BAGGAGE``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry import baggage, context, propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import CarrierT, Getter, Setter, TextMapPropagator, default_getter, default_setter

from lstm_trace import upstream
from lstm_trace.guard import shield


class UpstreamBaggage(TextMapPropagator):  # pyright: ignore[reportUntypedBaseClass]
    """Adds what stands upstream of the current span to the ``baggage`` header, beside the application's own entries.

    Source: W3C Baggage. The other side reads it where its own ``baggage`` setting is on: spans there carry ``lstm.upstream.*`` too.
    """

    def __init__(self) -> None:
        self._w3c = W3CBaggagePropagator()

    def inject(self, carrier: CarrierT, context: Context | None = None, setter: Setter[CarrierT] = default_setter) -> None:
        """Write the header; nothing where nothing was predicted."""
        with shield:
            here = _current(context)
            facts = outgoing(here)
            if facts:
                for name, value in facts.items():
                    here = baggage.set_baggage(name, str(value), here)
                self._w3c.inject(carrier, here, setter)

    def extract(self, carrier: CarrierT, context: Context | None = None, getter: Getter[CarrierT] = default_getter) -> Context:
        """Read the header, for an application whose propagators leave baggage out."""
        here = _current(context)
        return here if baggage.get_all(here) else self._w3c.extract(carrier, here, getter)

    @property
    def fields(self) -> set[str]:
        """The header that is written."""
        return {"baggage"}


def _current(given: Context | None) -> Context:
    return context.get_current() if given is None else given


def outgoing(here: Context) -> Mapping[str, Any]:
    """Return the attributes of the prediction upstream of a span that would start in ``here``: made in this process, or handed on."""
    current = trace.get_current_span(here).get_span_context()
    if upstream.settle is not None:
        upstream.settle(current.trace_id)
    seen = upstream.live.upstream(current) or upstream.from_baggage(here)
    return {} if seen is None else seen.attributes


_put: tuple[TextMapPropagator, TextMapPropagator] | None = None
_wanted_by: set[str] = set()


def install(by: str = "") -> None:
    """Add ours behind the application's propagators, for ``by``. Calling it again changes nothing."""
    global _put
    _wanted_by.add(by)
    theirs = propagate.get_global_textmap()
    if _put is None or theirs is not _put[1]:
        ours = CompositePropagator([theirs, UpstreamBaggage()])
        _put = theirs, ours
        propagate.set_global_textmap(ours)


def uninstall(by: str = "") -> None:
    """Put the application's propagators back once nobody wants ours any more, unless it has set others since."""
    global _put
    _wanted_by.discard(by)
    if _wanted_by:
        return
    if _put is not None and propagate.get_global_textmap() is _put[1]:
        propagate.set_global_textmap(_put[0])
    _put = None
