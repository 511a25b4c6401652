"""One traced call, from before the user's code to after it: read, then hand over to the recorder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context
from opentelemetry.trace import SpanContext

from lstm_trace import conventions as c
from lstm_trace import upstream
from lstm_trace.facts import Prediction, SequenceFacts, Single, StateFacts, StateOrigin, Summary
from lstm_trace.guard import shield
from lstm_trace.instrument.lstm import device, handing, large, outputs, state
from lstm_trace.instrument.lstm.handing import Said
from lstm_trace.instrument.lstm.tree import kind_of
from lstm_trace.instrument.lstm.watch import FRESH
from lstm_trace.recorder import Event, Recorder, ambient
from lstm_trace.recorder.calls import WATCH_KEY, ComponentCall, finish_single
from lstm_trace.recorder.late import LateSpan
from lstm_trace.upstream import context_facts

if TYPE_CHECKING:
    from lstm_trace.instrument.lstm.component import Known, Traced
    from lstm_trace.instrument.lstm.watch import LayerCall

_open: set[Call] = set()
_set: Final[Any] = dict.__setitem__


def live_calls() -> int:
    """Count the component calls that run now and are traced."""
    return len(_open)


class Call(ComponentCall):
    """A traced call: what its span needs, and what the layers inside are given while the user's code runs."""

    __slots__ = ("args", "as_event", "known", "kwargs", "layers", "token", "traced")

    recorder: Recorder
    traced: Traced
    known: Known
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    layers: list[LayerCall]
    token: Any
    as_event: bool
    """Whether it began as an event on the span around it."""
    every_row = False
    """Each row of a large batch is read in full."""

    def __init__(
        self,
        traced: Traced,
        known: Known,
        recorder: Recorder,
        current: Context,
        parent: SpanContext,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.real = self.written = None
        self.recorder = recorder
        self.described = known.described
        self.parent_context = current
        self.parent = parent
        self.attributes = {}
        self.traced = traced
        self.known = known
        self.args = args
        self.kwargs = kwargs
        self.layers = []
        self.start_ns = recorder.clock()

    def enter(self, as_event: bool) -> None:
        """Make the call current, as a span or to be an event on the one that is; the next thing is the user's code."""
        _open.add(self)
        self.as_event = as_event
        inside = Context(self.parent_context)
        _set(inside, WATCH_KEY, self)  # a Context refuses to be changed, but this one nobody has seen
        if not as_event:  # an event has no span of its own: the current one stays
            _set(inside, ambient.SPAN_KEY, LateSpan(self))
        self.token = ambient.enter(inside)

    def is_event(self) -> bool:
        """Tell whether this call is to be an event on the span around it: there is one, and it can be written to."""
        if self.real is not None or not self.recorder.as_event:
            return False
        around: Any = self.parent_context.get(ambient.SPAN_KEY)
        return around is not None and around.is_recording()

    def event(self, event: Any) -> None:
        """Add an event now."""
        if self.is_event():
            around: Any = self.parent_context[ambient.SPAN_KEY]
            around.add_event(event.name, event.attributes, event.time_ns)
        else:
            super().event(event)

    def leave(self) -> None:
        """Make current again what was so before."""
        _open.discard(self)
        token, self.token = self.token, None
        if token is None:
            return  # left before: an answer that comes on another thread
        try:
            ambient.leave(token)
        except ValueError:
            return  # a coroutine that its caller resumed in another context: there is nothing of ours left to leave there

    def done(self, output: Any) -> None:
        """Write the span of a call that returned ``output``."""
        self.leave()
        try:
            end = self.recorder.clock()
            if device.on_cpu_too or not self._done_shortly(output, end):
                if device.defer(self, output):
                    return
                self._done(output, end)
        except Exception as error:  # noqa: BLE001  the shield's own rule, without entering anything
            shield.caught(error)
        self.layers.clear()

    def compiled(self, output: Any) -> None:
        """Write the span of a call that ran inside a compiled region."""
        self.attributes[c.CODE_COMPILED] = True
        self.done(output)

    def _done_shortly(self, output: Any, end: int) -> bool:
        """Write the most common call there is: one sequence in, one row of few logits out, no state passed. Tell whether it was one."""
        known = self.known
        layers = self.layers
        if known.single is None or len(layers) != 1 or layers[0].keys is not FRESH or not outputs.is_small(output):
            return False
        if known.book.is_watching():
            return False
        found = known.source.read_one(self.args, self.kwargs, layers[0])
        if found is None:
            return False
        rows = output.tolist()
        row = rows[0] if len(rows) == 1 and type(rows[0]) is list else rows
        if not row or type(row[0]) is not float:
            return False
        options = self.traced.options
        if options.names is not None and len(row) != len(options.names):
            self.traced.check_labels(len(row))
        said = known.single(row, options.names, options.temperature)
        around: Any = self.parent_context[ambient.SPAN_KEY] if self.as_event else None
        as_event = around is not None and around.is_recording()
        finish_single(self, said, found[0], found[1], found[2], state.NONE, end, as_event=as_event)
        return True

    def captured(self) -> None:
        """Forget a call of which a graph was captured: it was no inference. A span that something inside asked for is ended."""
        if self.real is not None:
            self.recorder.finish(self, self.recorder.constants_of(self.described.component), (), None, None)
        self.layers.clear()

    def handed_over(self) -> None:
        """Say in the caller's own context which trace this was: the finisher, which ends the span, runs in another."""
        if self.parent.is_remote or not self.parent.is_valid:
            upstream.last_outermost.set(self.span_context)

    @property
    def trace_id(self) -> int:
        """The trace that the call is of; 0 where it begins one."""
        return self.parent.trace_id

    def deferred(self, read: Said | None, end: int) -> None:
        """Write the span of a call that ended on its device at ``end``; ``read`` None: its numbers have not come back."""
        self._done(None, end, read or _nothing)
        self.layers.clear()

    def _done(self, output: Any, end: int, read: Said | None = None) -> None:
        sequence: SequenceFacts | None = None
        said: Sequence[Single | Prediction] = ()
        rows: Sequence[int] = ()
        summary: Summary | None = None
        origin: StateFacts | None = None
        with shield:
            sequence = self.known.source.read(self.args, self.kwargs, self.layers)
        lengths = sequence.lengths if sequence is not None else ()
        with shield:
            if read is not None:
                found = read(lengths or None)
            else:
                found = self.traced.predictions(self.known, output, lengths or None, self.recorder.settings.max_events)
            said, rows, summary = found if isinstance(found, large.Many) else (found, (), None)
        with shield:
            origin = self._origin(output, len(lengths) or len(said))
        self._write(said, rows, summary, sequence, origin, end)

    def failed(self, error: BaseException) -> None:
        """Write the span of a call that raised."""
        self.leave()
        with shield:
            sequence = None
            handing.leave_values(self)
            with shield:
                sequence = self.known.source.read(self.args, self.kwargs, self.layers)
            self.recorder.finish_component(self, self.described.component, (), sequence, error=error)
        self.layers.clear()

    def _write(
        self,
        said: Sequence[Single | Prediction],
        rows: Sequence[int],
        summary: Summary | None,
        sequence: SequenceFacts | None,
        origin: StateFacts | None,
        end: int,
    ) -> None:
        recorder, component = self.recorder, self.described.component
        lengths = sequence.lengths if sequence is not None else ()
        one = said[0] if said else None
        as_event = recorder.as_event and self.is_event()
        is_single = len(lengths) <= 1 and len(said) <= 1 and summary is None
        if is_single and not isinstance(one, Prediction) and (sequence is None or (lengths and sequence.time_gap is None)):
            length = lengths[0] if lengths else None
            source, padded = (sequence.source, sequence.padded_steps) if sequence is not None else (None, None)
            finish_single(self, one, length, source, padded, origin, end, as_event=as_event)
            return
        recorder.finish_component(self, component, said, sequence, origin, end_ns=end, rows=rows, summary=summary, as_event=as_event)

    # --- State ---------------------------------------------------------------------------------------------------------------

    def _origin(self, output: Any, rows: int) -> StateFacts | None:
        """Say where the state that went into the recurrent layers came from, and note what they handed out."""
        layers = self.layers
        if not layers:
            return None
        book = self.known.book
        fresh = layers[0].fresh if len(layers) == 1 else all(each.fresh for each in layers)
        if fresh and not book.is_watching() and outputs.is_tensor(output):
            return state.NONE  # nothing passed in, and nowhere to keep what comes out
        return self._judged(book, fresh, output, rows)

    def _judged(self, book: state.StateBook, fresh: bool, output: Any, rows: int) -> StateFacts:
        session = context_facts(self.parent_context).get(c.SESSION_ID)
        each = self.traced.row_sessions(self.known, self.args, self.kwargs)
        if not book.kept and _keeps_state(self.known.alive(), self.known.tree.hidden_size):
            book.kept = True
        by_row: list[StateOrigin] = []
        for number, layer in enumerate(self.layers):
            if not layer.fresh:
                keys = layer.keys
                judged = book.judge(keys, _owners(session, each, number, len(keys or ())))
                by_row = [state.worst(pair) for pair in zip(by_row, judged, strict=False)] if by_row else judged
            out = state.keys_of(layer.out, cell=layer.cell) if layer.out is not None else None
            book.note(out, _owners(session, each, number, len(out or ())))
        origin: StateOrigin = state.worst(by_row) if by_row else "none"
        fresh_rows: list[StateOrigin] = ["none"] * max(1, min(rows, 64))
        steps = self._count(book, by_row or fresh_rows, session, each)
        if origin == "foreign":
            self._leaked()
        return StateFacts(origin, steps, tuple(by_row) if len(by_row) > 1 else ())

    def _count(self, book: state.StateBook, origins: Sequence[StateOrigin], session: str | None, each: Sequence[str] | None) -> int | None:
        steps = None
        for owner, origin in zip(_owners(session, each, 0, len(origins)), origins, strict=False):
            steps, is_reset = book.step(owner, origin)
            if is_reset:
                self.recorder.meters.count_reset(self.traced.name)
        return steps if len(origins) == 1 and book.kept else None

    def _leaked(self) -> None:
        self.recorder.meters.count_leak(self.traced.name)
        self.event(Event(c.EVENT_STATE_FOREIGN, {c.COMPONENT_NAME: self.traced.name, c.STATE_ORIGIN: "foreign"}, self.recorder.clock()))
        self.traced.warn(
            "foreign", "a hidden state of another session or batch row was passed in; every case is counted in lstm.state.leaks"
        )


def _nothing(lengths: Sequence[int] | None) -> Sequence[Single]:
    return ()


def _owners(session: str | None, each: Sequence[str] | None, layer: int, rows: int) -> list[state.Owner]:
    if each is not None:
        return [(one, 0, layer) for one in each[:rows]]
    return [(session, row, layer) for row in range(rows)]


def _keeps_state(module: Any, hidden_size: int | None) -> bool:
    """Tell whether a module holds tensors as wide as its hidden state that are neither parameters nor its layers'."""
    if module is None or hidden_size is None or not hasattr(module, "modules"):
        return False
    for each in module.modules():
        if kind_of(each) is not None:
            continue  # a recurrent layer holds its weights once more, in a list
        held = list(getattr(each, "__dict__", {}).values()) + list((getattr(each, "_buffers", None) or {}).values())
        for value in held:
            for one in value if isinstance(value, (tuple, list)) else (value,):
                if outputs.is_tensor(one) and not one.requires_grad and one.ndim and one.shape[-1] == hidden_size:
                    return True
    return False


__all__ = ["Call", "live_calls"]
