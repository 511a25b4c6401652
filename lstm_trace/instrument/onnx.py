"""ONNX Runtime sessions: every ``run``, ``run_with_iobinding``, ``run_with_ort_values`` and ``run_async`` is a component call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lstm_trace.guard import shield
from lstm_trace.instrument.lstm import switch
from lstm_trace.instrument.lstm.arguments import Arguments
from lstm_trace.instrument.lstm.component import Traced
from lstm_trace.instrument.lstm.options import Labels, Options, Reader


def wrap_onnx(
    session: Any,
    *,
    name: str,
    version: str | None = None,
    preprocessing: str | None = None,
    labels: Labels | None = None,
    output: str | Callable[[Any], Any] = "logits",
    output_name: str | None = None,
    lengths: Reader | None = None,
    mask: Reader | None = None,
    padding_idx: int | None = None,
    prediction: Callable[[Any], Any] | None = None,
    session_id: Reader | None = None,
    time_gap: Reader | None = None,
    temperature: float = 1.0,
) -> Any:
    """Trace an ``onnxruntime.InferenceSession`` and return the same object.

    The model's inputs take the place of arguments: ``lengths``, ``mask``, ``session_id`` and ``time_gap`` name one or are callables
    ``(args, inputs) -> value``. ``output_name`` is the output that holds the prediction, by default the first of floating point; a
    callable ``output``, and ``prediction``, are given the list of all outputs. The rest is as for ``trace_lstm``. An ``io_binding`` does
    not tell its inputs, so lengths are read there only from a callable, which is given ``(io_binding,)`` as args.

    Raises TypeError where ``session`` is no InferenceSession, ValueError where a name is none of the model's.
    """
    missing = [each for each in ("run", "run_with_iobinding", "get_inputs", "get_outputs") if not hasattr(session, each)]
    if missing:
        raise TypeError(f"wrap_onnx({session!r:.80}): accepted is an onnxruntime.InferenceSession")
    inputs = tuple(each.name for each in session.get_inputs())
    outputs = [each.name for each in session.get_outputs()]
    options = Options(
        name, version, preprocessing, labels, output, lengths, mask, padding_idx, prediction, session_id, time_gap, temperature
    )  # fmt: skip
    for field in ("lengths", "mask", "session", "time_gap"):
        said = getattr(options, field)
        if isinstance(said, str) and said not in inputs:
            raise ValueError(f"{field}={said!r} is not an input of the model: it has {', '.join(inputs)}")
    if output_name is not None and output_name not in outputs:
        raise ValueError(f"output_name={output_name!r} is not an output of the model: it has {', '.join(outputs)}")
    traced = Traced(name, options, session, Arguments(inputs))
    session.__class__ = _traced_class(type(session), traced, outputs, output_name)
    return session


def _traced_class(cls: Any, traced: Traced, outputs: list[str], output_name: str | None) -> Any:
    if "__lstm_trace__" in cls.__dict__:
        cls = cls.__mro__[1]  # wrapped once more: the new wrapping replaces the old
    whole = callable(traced.options.output) or traced.options.prediction is not None

    def read(found: Sequence[Any], asked: Sequence[str] | None) -> Any:
        names = list(asked) if asked else outputs
        if whole:
            return list(found)
        if output_name is not None:
            return found[names.index(output_name)] if len(found) == len(names) and output_name in names else None
        return next((each for each in found if getattr(getattr(each, "dtype", None), "kind", "") == "f"), None)

    def begin(session: Any, given: Callable[[], dict[str, Any]]) -> Any:
        if switch.on:
            with shield:
                feed = given()
                return traced.begin(session, tuple(feed.values()), feed)
        return None

    def done(call: Any, found: Callable[[], Sequence[Any]], asked: Sequence[str] | None) -> None:
        said = None
        with shield:
            said = read(found(), asked)
        call.done(said)

    class Session(cls):  # type: ignore[misc]
        __lstm_trace__ = traced

        def run(self, output_names: Any, input_feed: Any, run_options: Any = None) -> Any:
            call = begin(self, lambda: _feed(input_feed))
            if call is None:
                return super().run(output_names, input_feed, run_options)
            try:
                found = super().run(output_names, input_feed, run_options)
            except BaseException as error:
                call.failed(error)
                raise
            done(call, lambda: found, output_names)
            return found

        def run_with_iobinding(self, iobinding: Any, run_options: Any = None) -> None:
            call = traced.begin(self, (iobinding,), {}) if switch.on else None
            if call is None:
                return super().run_with_iobinding(iobinding, run_options)  # type: ignore[no-any-return]
            try:
                super().run_with_iobinding(iobinding, run_options)
            except BaseException as error:
                call.failed(error)
                raise
            done(call, lambda: [_on_cpu(each) for each in iobinding.get_outputs()], _bound(iobinding))
            return None

        def run_with_ort_values(self, output_names: Any, input_dict_ort_values: Any, run_options: Any = None) -> Any:
            call = begin(self, lambda: {name: _on_cpu(each) for name, each in _feed(input_dict_ort_values).items()})
            if call is None:
                return super().run_with_ort_values(output_names, input_dict_ort_values, run_options)
            try:
                found = super().run_with_ort_values(output_names, input_dict_ort_values, run_options)
            except BaseException as error:
                call.failed(error)
                raise
            done(call, lambda: [_on_cpu(each) for each in found], output_names)
            return found

        def run_async(self, output_names: Any, input_feed: Any, callback: Any, user_data: Any, run_options: Any = None) -> Any:
            call = begin(self, lambda: _feed(input_feed))
            if call is None:
                return super().run_async(output_names, input_feed, callback, user_data, run_options)
            call.leave()  # the answer comes on another thread, at another time: nothing of this call stays current here

            def answered(found: Any, data: Any, error: str) -> None:
                try:
                    if error:
                        call.failed(RuntimeError(error))
                    else:
                        done(call, lambda: found, output_names)
                finally:
                    callback(found, data, error)

            try:
                return super().run_async(output_names, input_feed, answered, user_data, run_options)
            except BaseException as error:
                call.failed(error)
                raise

    Session.__name__, Session.__qualname__, Session.__module__, Session.__doc__ = (
        cls.__name__,
        cls.__qualname__,
        cls.__module__,
        cls.__doc__,
    )
    return Session


def _feed(given: Any) -> dict[str, Any]:
    return dict(given) if isinstance(given, Mapping) else {}  # what is no feed is the runtime's to refuse


def _bound(iobinding: Any) -> list[str] | None:
    """Return the names of what is bound as outputs, in the order in which they come back, where this ONNX Runtime tells; else None."""
    return list(getattr(iobinding, "_bound_outputs", ())) or None


def _on_cpu(value: Any) -> Any:
    """Return an OrtValue as an array where that costs no copy from a device; one that stays there, a map or a sequence is not read."""
    return value.numpy() if value.is_tensor() and value.device_name() == "cpu" else None
