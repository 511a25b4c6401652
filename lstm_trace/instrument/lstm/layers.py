"""Nothing named at all: every recurrent layer of undecorated models gets a span of its own (``LSTM_TRACE_AUTO=1``)."""

from __future__ import annotations

from typing import Any, Final

from lstm_trace.instrument.lstm import dynamo, session, watch
from lstm_trace.instrument.lstm.component import Traced
from lstm_trace.instrument.lstm.options import Options
from lstm_trace.instrument.lstm.tree import kind_of

_traced: Final[dict[str, Traced]] = {}


def turn(to: bool) -> None:
    """Give layers spans of their own, or no longer."""
    watch.auto = _call if to else None
    if to:
        watch.install()


def _call(layer: Any, watched: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    is_apart = dynamo.callback() is not None
    call = dynamo.apart(_begin, layer, args, kwargs) if is_apart else _begin(layer, args, kwargs)
    if call is None:
        return watched(layer, None, args, kwargs)
    try:
        output = watched(layer, call.layers, args, kwargs)
    except BaseException as error:
        call.failed(error)
        raise
    if is_apart:
        dynamo.apart(call.compiled, output)
    else:
        call.done(output)
    return output


def _begin(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if session.is_inside():
        return None
    kind = kind_of(layer) or type(layer).__name__
    traced = _traced.get(kind)
    if traced is None:
        # A layer's output is hidden states: there is a length and a state to tell, and no confidence.
        traced = _traced[kind] = Traced(kind, Options(output="none"))
    return traced.begin(layer, args, kwargs)


dynamo.skip(_call)
