"""One decorated component: what was said about it, what its module tree says, and what its calls return."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from weakref import ref

import wrapt
from opentelemetry import baggage
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN_CONTEXT

from lstm_trace import conventions as c
from lstm_trace import recorder as recording
from lstm_trace.facts import Component, Prediction, Single
from lstm_trace.guard import shield
from lstm_trace.instrument.lstm import batch, large, outputs, prediction, sequence, switch, whose
from lstm_trace.instrument.lstm import session as stream
from lstm_trace.instrument.lstm.arguments import MISSING, Arguments, taking
from lstm_trace.instrument.lstm.call import Call
from lstm_trace.instrument.lstm.lengths import has_values, is_floating
from lstm_trace.instrument.lstm.modes import is_apart, is_compiled
from lstm_trace.instrument.lstm.options import Options
from lstm_trace.instrument.lstm.state import StateBook
from lstm_trace.instrument.lstm.tree import Tree, innermost, read_tree
from lstm_trace.recorder import ambient
from lstm_trace.recorder.ambient import SPAN_KEY
from lstm_trace.recorder.calls import Described
from lstm_trace.upstream import FACTS_KEY, with_facts

_log = logging.getLogger("lstm_trace")

_REPLICA: Final = "_lstm_trace_context"
_EMPTY: Final[dict[str, Any]] = {}

_Rows = Sequence[Single | Prediction]


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one module (or function) before it is called."""

    described: Described
    tree: Tree
    arguments: Arguments
    source: sequence.Source
    output: str | Callable[[Any], Any]
    single: Callable[[list[float], Any, float], Single] | None
    """How one row of a plain tensor is read; None where the output needs more than that."""
    book: StateBook
    alive: Callable[[], Any]


class Traced:
    """One decoration. Facts of each module that it covers are read at that module's first traced call and kept as long as it lives."""

    __slots__ = ("_arguments", "_known", "_looks", "_warned", "name", "options", "what")

    def __init__(self, name: str, options: Options, what: Callable[..., Any] | None = None, arguments: Arguments | None = None) -> None:
        self._arguments = arguments
        self.name = name
        self.options = options
        self.what = what
        self._known: dict[int, Known] = {}
        self._warned: set[str] = set()
        self._looks = 4
        """How many calls' logits are looked at yet, in case they are probabilities: the first calls never go the short way."""

    def __len__(self) -> int:
        return len(self._known)

    def known(self, module: Any, call: Callable[..., Any] | None = None) -> Known:
        """Return what is known of the module that is called, or of the function where there is none."""
        known = self._known.get(id(module))
        if known is not None and known.alive() is module:
            return known
        return self._learn(module, call)

    def _learn(self, module: Any, call: Callable[..., Any] | None) -> Known:
        if module is not None and not type(module).__weakrefoffset__:
            # An object with __slots__ of which nobody can know how long it lives: all of its class are one, as a function is.
            if id(None) in self._known:
                return self._known[id(None)]
            module, call = None, call or taking(module)
        key = id(module)
        options = self.options
        tree = read_tree(module) if module is not None else Tree()
        arguments = self._arguments
        if arguments is None:
            within = innermost(module)
            arguments = Arguments.of(call or taking(within))
        output = options.output
        if output == "logits" and tree.recurrent_itself:
            output = "none"  # hidden states are nobody's logits
        elif output == "logits" and tree.widths and options.names is None:
            output = outputs.unless_hidden(tree.widths, self._said_to_be_hidden)
        component = Component(
            self.name,
            options.version,
            options.preprocessing,
            tree.cell,
            tree.layers,
            tree.hidden_size,
            tree.bidirectional,
            is_compiled(call if module is None else module),
        )
        forget = self._known.pop
        known = Known(
            Described(component),
            tree,
            arguments,
            sequence.Source.of(options, arguments, tree, self.warn),
            output,
            self._row_reader(output) if isinstance(output, str) and options.prediction is None else None,
            StateBook(),
            (lambda: None) if module is None else ref(module, lambda _: forget(key, None)),
        )
        self._known[key] = known
        return known

    def follow(self, module: Any, replica: Any) -> None:
        """Treat a replica of ``DataParallel`` as the module it was made from, in the context of the call that made it."""
        key = id(replica)
        forget = self._known.pop
        self._known[key] = replace(self.known(module), alive=ref(replica, lambda _: forget(key, None)))
        replica.__dict__[_REPLICA] = ambient.get()

    def begin(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], function: Any = None) -> Call | stream.SessionCall | None:
        """Open a call and make it current, or return None: then the user's code is called as if we were not there."""
        try:
            recorder = recording._default or recording.default_recorder()
            scope = batch.current.get()
            if scope is not None and scope.is_open:
                return batch.begin(scope, self, self.known(module, function), recorder, args, kwargs)
            current = ambient.get()
            if not current and _REPLICA in getattr(module, "__dict__", _EMPTY):
                current = module.__dict__[_REPLICA]
            span: Any = current.get(SPAN_KEY)
            parent = INVALID_SPAN_CONTEXT if span is None else span.get_span_context()
            decision = recorder.will_record_below(parent, current)
            if decision is False or is_apart():
                return None
            known = self._known.get(id(module))
            if known is None or known.alive() is not module:
                known = self._learn(module, function)
            session = stream.current.get()
            streamed = session.covering(self, module) if session is not None else None
            if streamed is not None:
                return streamed.begin(known)
            if self.options.session is not None or _langchain is not None or _BAGGAGE_KEY in current:
                current = self._in_session(known, current, args, kwargs)
            call = Call(self, known, recorder, current, parent, args, kwargs)
            if getattr(module, "_compiled_call_impl", None) is not None:
                call.attributes[c.CODE_COMPILED] = True
            as_event = recorder.as_event and span is not None and span.is_recording()
            if decision is None and not as_event and not call.start().is_recording():
                return None  # only now the sampler has said so
            call.enter(as_event)
        except Exception as error:  # noqa: BLE001  the shield's own rule, without entering anything
            shield.caught(error)
            return None
        return call

    def _in_session(self, known: Known, current: Context, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Context:
        """Return a context that carries the session: from the declared argument, else inherited, from baggage, or LangChain's thread id."""
        found: Any = None
        if self.options.session is not None:
            try:
                found = whose.one_id(self._session_said(known, args, kwargs))
            except TypeError as error:
                self.warn("session", "session= is left out: %s", error)
        if found is None:
            facts: Any = current.get(FACTS_KEY)
            if facts and c.SESSION_ID in facts:
                return current
            if _BAGGAGE_KEY in current:
                found = baggage.get_baggage(c.SESSION_ID, current)
            if not found and _langchain is not None:
                inside = _langchain.get()
                found = inside.get("configurable", {}).get("thread_id") if inside else None
            if not found:
                return current
        return with_facts(current, {c.SESSION_ID: str(found)})

    def row_sessions(self, known: Known, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[str] | None:
        """Return one session a batch row, where the declared session is a list of them."""
        if self.options.session is None:
            return None
        return whose.row_ids(self._session_said(known, args, kwargs))

    def _session_said(self, known: Known, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        reader: Any = self.options.session
        with shield:
            return known.arguments.get(reader, args, kwargs) if isinstance(reader, str) else reader(args, kwargs)
        return None  # a callable of the user's that raised

    def predictions(self, known: Known, output: Any, lengths: Sequence[int] | None, at_most: int | None = None) -> _Rows | large.Many:
        """Read what the component said about each sequence; of a large batch only ``at_most`` rows in full, where that is given."""
        options = self.options
        if options.prediction is not None:
            said = options.prediction(output)
            try:
                return prediction.of_reader(said)
            except ValueError as error:
                self.warn("reader", "%s: no prediction is recorded", error)
                return ()
        if known.output == "none":
            return ()
        return self.predictions_in(known, self.tensor_in(known, output), lengths, at_most)

    def tensor_in(self, known: Known, output: Any) -> Any:
        """Return the tensor of an output that holds what was said."""
        how = known.output
        return outputs.as_tensor(how(output)) if callable(how) else outputs.tensor_of(output)

    def kind_of(self, known: Known) -> str:
        """Return what that tensor holds: the ``output`` that was declared."""
        return known.output if isinstance(known.output, str) else "logits"

    def predictions_in(self, known: Known, tensor: Any, lengths: Sequence[int] | None, at_most: int | None = None) -> _Rows | large.Many:
        """Read what such a tensor says."""
        options, kind = self.options, self.kind_of(known)
        if tensor is None or 0 in tensor.shape:
            return ()
        if kind != "regression" and not is_floating(tensor):
            self.warn("whole", "it returned whole numbers, which are no %s: no prediction is recorded; see output= and prediction=", kind)
            return ()
        if not has_values(tensor) and not (kind in prediction.ROWS and tensor.ndim > 2):
            return ()  # of more axes than can be read, the reader says so
        if self._looks and kind == "logits":
            self._look(tensor)
        if at_most is not None and large.is_large(tensor, kind, at_most):
            if options.names is not None:
                self.check_labels(tensor.shape[-1])
            return self.plausible(kind, large.read(tensor, kind, options.names, options.temperature, at_most))
        try:
            found = prediction.read(tensor, kind, options.names, options.temperature, lengths)
        except ValueError as error:
            self.warn("shape", "%s: no prediction is recorded", error)
            return ()
        if options.names is not None and kind in prediction.ROWS:
            self.check_labels(tensor.shape[-1] if tensor.ndim else 1)
        return self.plausible(kind, found)

    def _look(self, logits: Any) -> None:
        """Look at the first calls' logits, and say so where every one of them is more like probabilities."""
        if not prediction.are_probabilities(logits):
            self._looks = 0
            return
        self._looks -= 1
        if not self._looks:
            self.warn("logits", "each row that it returned adds up to 1, as probabilities do, and is read as logits: see output='probs'")

    def plausible(self, kind: str, found: _Rows | large.Many) -> _Rows | large.Many:
        """Return predictions as they are, and say once where some cannot be the declared output."""
        if kind not in ("probs", "log_probs"):
            return found
        many = found if isinstance(found, large.Many) else None
        rows: Any = found
        if many.summary.outside if many is not None else any(each.confidence is None and each.index is not None for each in rows):
            self.warn("outside", "it returned numbers that are no output=%r: they have no confidence", kind)
        return found

    def _row_reader(self, output: str) -> Callable[[list[float], Any, float], Single] | None:
        of_row = prediction.ROWS.get(output)
        if of_row is None or output not in ("probs", "log_probs"):
            return of_row

        def checked(row: list[float], names: Any, temperature: float) -> Single:
            said = of_row(row, names, temperature)
            self.plausible(output, (said,))
            return said

        return checked

    def check_labels(self, classes: int) -> None:
        """Warn once where the labels do not name as many classes as were returned."""
        names = self.options.names
        if names is None or (classes == 1 and self.options.output == "multilabel"):
            return
        if max(2, classes) != len(names):
            self.warn(
                "labels",
                "labels name %d classes, the component returned %d: an index without a name stands alone",
                len(names),
                max(2, classes),
            )
        elif max(names) >= len(names):
            self.warn("labels", "labels name class %d, the component returned %d, counted from 0", max(names), max(2, classes))

    def _said_to_be_hidden(self) -> None:
        self.warn("hidden", "what it returned is taken for hidden states: no prediction is recorded; where these are logits, say labels=")

    def warn(self, about: str, text: str, *details: Any) -> None:
        """Log one line, once a component and matter."""
        if about not in self._warned:
            self._warned.add(about)
            _log.warning("component %s: " + text, self.name, *details)

    def is_on(self) -> bool:
        """Tell whether decorated components are traced now."""
        return switch.on

    def described(self, known: Known | None) -> Component:
        """Return the component's facts, or its name where no call has shown more."""
        if known is not None:
            return known.described.component
        return Component(self.name, self.options.version, self.options.preprocessing)


_BAGGAGE_KEY: Any = getattr(baggage, "_BAGGAGE_KEY", None)
_langchain: Any = None


def _on_langchain(module: Any) -> None:
    global _langchain
    _langchain = module.var_child_runnable_config


wrapt.register_post_import_hook(_on_langchain, "langchain_core.runnables.config")

__all__ = ["MISSING", "Known", "Traced"]
