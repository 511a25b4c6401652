"""One decorated component: what was said about it, what its module tree says, and how one call of it is read."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from opentelemetry import baggage, context
from opentelemetry.context import Context

from lstm_trace import conventions as c
from lstm_trace.facts import Component, Prediction, SequenceFacts
from lstm_trace.guard import shield
from lstm_trace.instrument.lstm import outputs, prediction, sequence, switch
from lstm_trace.instrument.lstm import session as stream
from lstm_trace.instrument.lstm.arguments import MISSING, Arguments
from lstm_trace.instrument.lstm.options import Options
from lstm_trace.instrument.lstm.tree import Tree, read_tree
from lstm_trace.recorder import OpenSpan, Recorder, default_recorder
from lstm_trace.upstream import context_facts, with_facts

_log = logging.getLogger("lstm_trace")

_open: set[Call] = set()


def live_calls() -> int:
    """Count the component calls that run now and are traced."""
    return len(_open)


@dataclasses.dataclass(frozen=True, slots=True)
class Known:
    """What is known of one module (or function) before it is called."""

    component: Component
    tree: Tree
    arguments: Arguments
    source: sequence.Source
    output: str | Callable[[Any], Any]


class Traced:
    """One decoration. Facts of each module that it covers are read at that module's first traced call and kept as long as it lives."""

    __slots__ = ("_known", "_last", "_warned", "name", "options", "what")

    def __init__(self, name: str, options: Options, what: Callable[..., Any] | None = None) -> None:
        self.name = name
        self.options = options
        self.what = what
        self._known: WeakKeyDictionary[Any, Known] = WeakKeyDictionary()
        self._last: Known | None = None
        self._warned = False

    def known(self, module: Any, call: Callable[..., Any]) -> Known:
        """Return what is known of the module that is called, or of the function where there is none."""
        if module is None:
            if self._last is None:
                self._last = self._read(None, call)
            return self._last
        known = self._known.get(module)
        if known is None:
            known = self._known[module] = self._read(module, call)
        return known

    def _read(self, module: Any, call: Callable[..., Any]) -> Known:
        options = self.options
        tree = read_tree(module) if module is not None else Tree()
        arguments = Arguments.of(call)
        source = sequence.Source.of(options, arguments, tree)
        # A bare recurrent layer returns hidden states, which are nobody's logits.
        output = "none" if tree.recurrent_itself and options.output == "logits" else options.output
        component = Component(
            self.name, options.version, options.preprocessing, tree.cell, tree.layers, tree.hidden_size, tree.bidirectional, is_compiled(module)
        )
        return Known(component, tree, arguments, source, output)

    def begin(self, module: Any, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | stream.SessionCall | None:
        """Open the span of a call, or return None: then the user's code is called as if we were not there."""
        with shield:
            recorder = default_recorder()
            current = context.get_current()
            if recorder.will_record(current) is False or is_exporting():
                return None
            known = self.known(module, call)
            streamed = stream.current.get()
            if streamed is not None and streamed.covers(self, module):
                return streamed.begin(known, args, kwargs)
            session = self._session(known, current, args, kwargs)
            if session is not None:
                current = with_facts(current, {c.SESSION_ID: session})
            opened = recorder.open_component(known.component, current=current)
            if opened is None:
                return None
            begun = Call(self, known, recorder, opened, args, kwargs)
            _open.add(begun)
            return begun
        return None

    def is_on(self) -> bool:
        """Tell whether decorated components are traced now."""
        return switch.on

    def described(self, known: Known | None) -> Component:
        """Return the component's facts, or its name where no call has shown more."""
        return known.component if known is not None else Component(self.name, self.options.version, self.options.preprocessing)

    def _session(self, known: Known, current: Context, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        reader = self.options.session
        if reader is not None:
            found = known.arguments.get(reader, args, kwargs) if isinstance(reader, str) else reader(args, kwargs)
            if isinstance(found, (str, int)) and found != "":
                return str(found)
        if c.SESSION_ID in context_facts(current):
            return None  # inherited as it is
        found = baggage.get_baggage(c.SESSION_ID, current)
        return str(found) if found else _thread_id()

    def predictions(self, known: Known, output: Any, facts: SequenceFacts | None) -> Sequence[Prediction]:
        """Read what the component said about each sequence."""
        options = self.options
        if options.prediction is not None:
            said = options.prediction(output)
            return [said] if isinstance(said, Prediction) else list(said)
        how = known.output
        if how == "none":
            return ()
        tensor = how(output) if callable(how) else outputs.tensor_of(output)
        if tensor is None or 0 in tensor.shape:
            return ()
        kind = how if isinstance(how, str) else "logits"
        try:
            found = prediction.read(tensor, kind, options.names, options.temperature, facts.lengths if facts is not None else None)
        except ValueError as error:
            self._warn("%s: no prediction is recorded", error)
            return ()
        if options.names is not None and kind not in ("tagging", "ctc", "regression"):
            classes = max(2, tensor.shape[-1]) if tensor.ndim else 2
            if classes != len(options.names):
                self._warn("labels name %d classes, the component returned %d: the index stands without a name where there is none",
                           len(options.names), classes)  # fmt: skip
        return found

    def _warn(self, text: str, *details: Any) -> None:
        if not self._warned:
            self._warned = True
            _log.warning("component %s: " + text, self.name, *details)


class Call:
    """One traced call, from before the user's code to after it."""

    __slots__ = ("args", "known", "kwargs", "opened", "recorder", "traced")

    def __init__(
        self, traced: Traced, known: Known, recorder: Recorder, opened: OpenSpan, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.traced = traced
        self.known = known
        self.recorder = recorder
        self.opened = opened
        self.args = args
        self.kwargs = kwargs

    @property
    def context(self) -> Context:
        """What is current while the user's code runs."""
        return self.opened.context

    def done(self, output: Any) -> None:
        """Write the span of a call that returned ``output``."""
        with shield:
            try:
                end = self.recorder.clock()
                facts = self._sequence()
                said: Sequence[Prediction] = ()
                with shield:
                    said = self.traced.predictions(self.known, output, facts)
                self.recorder.finish_component(self.opened, self.known.component, said, facts, end_ns=end)
            finally:
                _open.discard(self)

    def failed(self, error: BaseException) -> None:
        """Write the span of a call that raised."""
        with shield:
            try:
                self.recorder.finish_component(self.opened, self.known.component, (), self._sequence(), error=error)
            finally:
                _open.discard(self)

    def _sequence(self) -> SequenceFacts | None:
        with shield:
            return self.known.source.read(self.args, self.kwargs)
        return None


def is_compiled(module: Any) -> bool:
    """Tell whether a module runs under ``torch.compile``: an optimized module, or one compiled in place."""
    inner = getattr(module, "__dict__", {})
    return "_orig_mod" in inner.get("_modules", {}) or "_orig_mod" in inner or inner.get("_compiled_call_impl") is not None


def is_exporting() -> bool:
    """Tell whether torch records the code instead of running it: ``jit.trace``, ``torch.export``. Nothing is predicted then."""
    torch: Any = sys.modules.get("torch")
    return torch is not None and (torch._C._get_tracing_state() is not None or torch.compiler.is_compiling())


def _thread_id() -> str | None:
    config: Any = sys.modules.get("langchain_core.runnables.config")
    if config is None:
        return None
    inside = config.var_child_runnable_config.get()
    found = inside.get("configurable", {}).get("thread_id") if inside else None
    return str(found) if found is not None else None


__all__ = ["MISSING", "Call", "Known", "Traced", "is_compiled", "live_calls"]
