"""Streaming inference: thousands of small calls of a component, one span, and an event only where something was decided."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from contextvars import ContextVar, Token
from numbers import Real
from time import perf_counter_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lstm_trace import attributes as to
from lstm_trace import conventions as c
from lstm_trace.facts import Prediction, Single
from lstm_trace.guard import shield
from lstm_trace.instrument.lstm import device, outputs, watch
from lstm_trace.instrument.lstm.handing import Said
from lstm_trace.recorder import Event, OpenSpan, ambient, default_recorder
from lstm_trace.recorder.calls import as_prediction
from lstm_trace.upstream import with_facts

if TYPE_CHECKING:
    from lstm_trace.instrument.lstm.component import Known, Traced
    from lstm_trace.recorder import Recorder

Decision = Callable[[Any, Any], bool]

current: ContextVar[traced_session | None] = ContextVar("lstm_trace_session", default=None)
"""The innermost session that runs here."""


def label_flips(previous: Single | Prediction | None, now: Single | Prediction) -> bool:
    """Decide where the winning class is another than before: the default.

    >>> label_flips(Prediction(index=0), Prediction(index=1)), label_flips(None, Prediction(index=1))
    (True, False)
    """
    return previous is not None and (previous.index, previous.label) != (now.index, now.label)


class traced_session:
    """Write one span for all calls of ``component`` inside the ``with`` block, and events only where ``decision`` says so.

    ``component`` is decorated (an instance, a function, or a class for any of its instances). Every ``every``-th output is read;
    ``decision(previous, current)`` compares two predictions, by default it is True where the label flips. ``step_duration`` is the
    input that one call covers, in seconds: with it the span says the real-time factor. Call ``reset()`` where the state is reset by
    other means than the component's own ``reset_states()``.

    Raises ValueError or TypeError where an argument is not usable.
    """

    def __init__(
        self,
        component: Any,
        session_id: str,
        *,
        every: int = 1,
        decision: Decision | None = None,
        step_duration: float | None = None,
    ) -> None:
        from lstm_trace.instrument.lstm.decorated import is_module, traced_of

        traced = traced_of(component)
        if traced is None:
            raise ValueError(f"component={component!r:.80}: accepted is a component decorated with trace_lstm")
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every={every!r}: accepted is a whole number from 1")
        if decision is not None and not callable(decision):
            raise TypeError(f"decision={decision!r}: accepted is a callable (previous, current) -> bool")
        if step_duration is not None and (isinstance(step_duration, bool) or not isinstance(step_duration, Real)):
            raise TypeError(f"step_duration={step_duration!r}: accepted are seconds above 0")
        if step_duration is not None and not 0 < step_duration < math.inf:
            raise ValueError(f"step_duration={step_duration!r}: accepted are seconds above 0")
        self.traced: Traced = traced
        # What is neither a module nor called as one (a class, a function, a proxy) stands for every call of its decoration.
        self.module = component if is_module(component) else None
        self.session_id = str(session_id)
        self.every = every
        self.decision: Decision = decision or label_flips
        self.step_duration = step_duration
        self._known: Known | None = None
        self._opened: OpenSpan | None = None
        self._tokens: tuple[Token[Any], Token[Any]] | None = None
        self._around: traced_session | None = None
        self._entered = 0
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.calls = 0
        self.resets = 0
        self.decisions = 0
        self._previous: Single | Prediction | None = None
        self._read = 0
        self._sum = 0.0
        self._lowest: float | None = None
        self._nonfinite = False
        self._compute_ns = 0
        self._until_ns = 0

    def __enter__(self) -> traced_session:
        self._entered += 1
        if self._entered > 1:
            return self  # it is open already
        with shield:
            recorder = default_recorder()
            below = with_facts(ambient.get(), {c.SESSION_ID: self.session_id})
            opened = recorder.open("lstm " + self.traced.name, current=below) if self.traced.is_on() else None
            if opened is not None:
                self._begin_anew()
                self._recorder = recorder
                self._around = current.get()
                self._opened = opened
                self._tokens = (ambient.enter(opened.context), current.set(self))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._entered -= 1
        if self._tokens is not None and not self._entered:
            with shield:
                token, mine = self._tokens
                self._tokens = None
                with contextlib.suppress(ValueError):  # left in another context than it was entered in, as frameworks do with generators
                    current.reset(mine)
                    ambient.leave(token)
                if not device.after(lambda: self._finish(error)):
                    self._finish(error)

    def reset(self) -> None:
        """Note that the component's state was reset."""
        self.resets += 1
        if self._opened is not None:
            with shield:
                self._recorder.meters.count_reset(self.traced.name)

    def covering(self, traced: Traced, module: Any) -> traced_session | None:
        """Return the session that a call of this component belongs to: this one, or one around it that is still open."""
        session: traced_session | None = self
        while session is not None:
            if traced is session.traced and (session.module is None or module is session.module) and session._tokens is not None:
                return session
            session = session._around
        return None

    def begin(self, known: Known) -> SessionCall:
        """Begin one call."""
        self._known = known
        return SessionCall(self, self._recorder, known)

    def reads_now(self) -> bool:
        """Count one call more, and tell whether its output is read."""
        self.calls += 1
        return self.calls % self.every == 0

    def took(self, nanoseconds: int) -> None:
        """Add what a call took."""
        self._compute_ns += nanoseconds

    def took_until(self, start_ns: int, end_ns: int) -> None:
        """Add what a call took on a device, which begins it only when it is done with the one before."""
        self._compute_ns += max(0, end_ns - max(start_ns, self._until_ns))
        self._until_ns = max(end_ns, self._until_ns)

    def note(self, said: Any, calls: int) -> None:
        """Note what the call of this number said."""
        if not said:
            return
        now = said[0] if self.decision is label_flips else as_prediction(said[0])
        if now.nonfinite:
            self._nonfinite = True
            return
        if now.confidence is not None:
            self._read += 1
            self._sum += now.confidence
            if self._lowest is None or now.confidence < self._lowest:
                self._lowest = now.confidence
        if self.decision(self._previous, now):
            self._decide(now, calls)
        self._previous = now

    def _decide(self, now: Single | Prediction, calls: int) -> None:
        self.decisions += 1
        recorder, opened = self._recorder, self._opened
        if opened is not None and recorder.settings.events != "off" and self.decisions <= recorder.settings.max_events:
            event = to.prediction_event(as_prediction(now), 0, None, recorder.settings, None, None)
            event[c.STREAM_CALLS] = calls
            opened.event(Event(c.EVENT_PREDICTION, event, recorder.clock()))

    def _finish(self, error: BaseException | None) -> None:
        opened, recorder = self._opened, self._recorder
        self._opened = None
        if opened is None:
            return
        facts: dict[str, Any] = {c.STREAM_CALLS: self.calls, c.STREAM_RESETS: self.resets, c.STREAM_DECISIONS: self.decisions}
        if self._lowest is not None:
            facts[c.PREDICTION_CONFIDENCE_MIN] = self._lowest
            facts[c.PREDICTION_CONFIDENCE_MEAN] = self._sum / self._read
        if self._nonfinite:
            facts[c.PREDICTION_NONFINITE] = True
        if self.step_duration is not None and self.calls:
            facts[c.STREAM_REAL_TIME_FACTOR] = self._compute_ns / 1e9 / (self.step_duration * self.calls)
        last = as_prediction(self._previous) if self._previous is not None else None
        recorder.finish_stream(opened, self.traced.described(self._known), last, facts, error)


_inside: ContextVar[bool] = ContextVar("lstm_trace_session_call", default=False)


def is_inside() -> bool:
    """Tell whether a session's component runs here: its recurrent layers are its own affair."""
    return _inside.get()


class SessionCall:
    """One call inside a session: no span of its own; what starts inside it hangs below the session's span."""

    __slots__ = ("_began", "_number", "_session", "_start_ns", "_token", "args", "known", "kwargs", "layers", "recorder", "traced")

    every_row = False
    trace_id = 0
    """What it says is seen upstream when its session ends."""

    def __init__(self, session: traced_session, recorder: Recorder, known: Known) -> None:
        self._session = session
        self.recorder = recorder
        self.known = known
        self._token = _inside.set(True) if watch.auto is not None else None
        self._began = perf_counter_ns()

    def done(self, output: Any) -> None:
        """Read what the call returned."""
        elapsed = perf_counter_ns() - self._began
        self.leave()
        session = self._session
        is_read = session.reads_now()
        if not is_read:
            session.took(elapsed)
            return
        self._number = session.calls
        with shield:
            if not outputs.is_small(output) and self._deferred(output, elapsed):
                return
            session.took(elapsed)
            session.note(session.traced.predictions(self.known, output, None), self._number)

    # --- On an accelerator: what device.defer() asks of a call -----------------------------------------------------------

    def _deferred(self, output: Any, elapsed: int) -> bool:
        self.traced: Traced = self._session.traced
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}
        self.layers: list[Any] = []
        self._start_ns = self.recorder.clock() - elapsed
        return device.defer(self, output)

    def captured(self) -> None:
        """Do nothing: a graph was captured, and no span of this call is open."""

    def handed_over(self) -> None:
        """Do nothing: the session's span ends where the session does."""

    def deferred(self, read: Said | None, end: int) -> None:
        """Note what was said when the device was done with it."""
        session = self._session
        session.took_until(self._start_ns, end)
        if read is not None:
            with shield:
                session.note(read(None), self._number)

    def leave(self) -> None:
        """Let recurrent layers that run from here on be seen again."""
        token, self._token = self._token, None
        if token is not None:
            with contextlib.suppress(ValueError):  # a coroutine that its caller resumed in another context
                _inside.reset(token)

    def compiled(self, output: Any) -> None:
        """Read what a call inside a compiled region returned."""
        self.done(output)

    def failed(self, error: BaseException) -> None:
        """Count a call that raised; whether the session failed is known at its end."""
        self.leave()
        self._session.calls += 1


def note_reset(traced: Traced, module: Any) -> None:
    """Count a reset that the component's own ``reset_states()`` made."""
    streamed = current.get()
    covering = streamed.covering(traced, module) if streamed is not None else None
    if covering is not None:
        covering.reset()
    elif traced.is_on() and not traced.known(module).book.kept:
        # Where states are seen to be carried, the next call shows the reset.
        default_recorder().meters.count_reset(traced.name)


__all__ = ["Decision", "SessionCall", "current", "is_inside", "label_flips", "note_reset", "traced_session"]
