"""``trace_lstm``: the one line a user adds to a component."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict, TypeVar, overload

from typing_extensions import Unpack

from lstm_trace.instrument.lstm import forms
from lstm_trace.instrument.lstm.options import Labels, Options, Reader

T = TypeVar("T")


class _Said(TypedDict, total=False):
    name: str | None
    version: str | None
    preprocessing: str | None
    labels: Labels | None
    output: str | Callable[[Any], Any]
    lengths: Reader | None
    mask: Reader | None
    padding_idx: int | None
    prediction: Callable[[Any], Any] | None
    session: Reader | None
    time_gap: Reader | None
    temperature: float


@overload
def trace_lstm(target: None = None, **said: Unpack[_Said]) -> Callable[[T], T]: ...
@overload
def trace_lstm(target: T, **said: Unpack[_Said]) -> T: ...
def trace_lstm(
    target: Any = None,
    *,
    name: str | None = None,
    version: str | None = None,
    preprocessing: str | None = None,
    labels: Labels | None = None,
    output: str | Callable[[Any], Any] = "logits",
    lengths: Reader | None = None,
    mask: Reader | None = None,
    padding_idx: int | None = None,
    prediction: Callable[[Any], Any] | None = None,
    session: Reader | None = None,
    time_gap: Reader | None = None,
    temperature: float = 1.0,
) -> Any:
    """Trace every call of a recurrent component: a class, an ``nn.Module``, a ScriptModule, a function, a method, a coroutine function.

    Usable as ``@trace_lstm``, ``@trace_lstm(name=…)`` and ``trace_lstm(model, name=…)``. Returns the same class or instance where that is
    possible. Nothing else has to be called: a decorated component is traced as soon as a TracerProvider records.

    ``output`` says what the component returns: ``logits`` (batch, classes), ``log_probs``, ``probs``, ``multilabel``, ``tagging``
    (batch, time, classes), ``ctc`` (time, batch, classes), ``regression``, ``none``, or a callable from output to logits. ``lengths``,
    ``mask``, ``session`` and ``time_gap`` (seconds) name an argument or are callables ``(args, kwargs) -> value``; lengths are otherwise
    read from a PackedSequence, from arguments called ``lengths`` or ``mask``, from an embedding's ``padding_idx``, else from the shape.
    ``prediction`` is a callable from output to ``Prediction`` or a list of them, for an output that is something else.

    Raises ValueError or TypeError that names the argument, the value and what is accepted.

    >>> @trace_lstm(name="intent", labels=["refund", "status"])
    ... def classify(events, lengths=None):
    ...     return [0.1, 2.3]
    >>> classify(["login", "order_status"])
    [0.1, 2.3]
    """
    options = Options(
        name, version, preprocessing, labels, output, lengths, mask, padding_idx, prediction, session, time_gap, temperature
    )  # fmt: skip
    if target is None:
        return lambda found: forms.decorate(found, options)
    return forms.decorate(target, options)
