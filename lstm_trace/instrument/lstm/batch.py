"""One forward pass for many requests: a batch span linked to them, and a short span in each sampled request's own trace.

A batch is never a child of its first request. Requests that are not sampled are counted in the metrics and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from contextvars import ContextVar, Token
from numbers import Integral
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN_CONTEXT, Link, SpanContext

from lstm_trace import attributes as to
from lstm_trace import conventions as c
from lstm_trace.facts import Prediction, SequenceFacts, Single
from lstm_trace.guard import shield
from lstm_trace.instrument.lstm import device, handing
from lstm_trace.instrument.lstm.call import Call
from lstm_trace.instrument.lstm.handing import Said
from lstm_trace.recorder import ambient
from lstm_trace.recorder.calls import ComponentCall, Described, as_prediction, finish_single

if TYPE_CHECKING:
    from lstm_trace.instrument.lstm.component import Known, Traced
    from lstm_trace.recorder import Recorder

LINKS_A_SPAN: Final = 128
"""The SDK keeps the last 128 links of a span; further ones stand on spans of their own."""

current: ContextVar[batch_scope | None] = ContextVar("lstm_trace_batch", default=None)


class batch_scope:
    """Tell the component that is called inside this block whose requests the rows of its batch are.

    ``contexts``: one OpenTelemetry ``Context`` a row, as ``opentelemetry.context.get_current()`` gave it when the request came in.
    ``enqueued_at``: one ``time.time_ns()`` a row; with it each request's span says how long it waited. Raises ValueError or TypeError
    where the two do not fit.
    """

    def __init__(self, contexts: Sequence[Context], *, enqueued_at: Sequence[int] | None = None) -> None:
        if not isinstance(contexts, Iterable):
            raise TypeError(f"contexts={contexts!r:.80}: accepted is one opentelemetry Context a row")
        self.contexts = list(contexts)
        for each in self.contexts:
            if not isinstance(each, Context):
                raise TypeError(f"contexts={each!r:.80}: accepted is one opentelemetry Context a row")
        self.enqueued_at = list(enqueued_at) if enqueued_at is not None else None
        if self.enqueued_at is not None and len(self.enqueued_at) != len(self.contexts):
            raise ValueError(f"enqueued_at has {len(self.enqueued_at)} times for {len(self.contexts)} contexts: accepted is one a row")
        for when in self.enqueued_at or ():
            if not isinstance(when, Integral):
                raise TypeError(f"enqueued_at={when!r:.80}: accepted is one time.time_ns() a row")
        self._token: Token[batch_scope | None] | None = None

    @property
    def is_open(self) -> bool:
        """The block is not left: a task that was begun inside may outlive it."""
        return self._token is not None

    def __enter__(self) -> batch_scope:
        self._token = current.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._token is not None:
            with suppress(ValueError):  # left in another context than it was entered in
                current.reset(self._token)
            self._token = None


def begin(
    scope: batch_scope, traced: Traced, known: Known, recorder: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> BatchCall | None:
    """Begin the call that answers all requests of a scope; None where none of them is sampled and nothing counts."""
    sampled = [row for row, each in enumerate(scope.contexts) if recorder.will_record(each) is not False]
    if not sampled and not recorder.meters.is_on():
        return None
    here = ambient.get()
    if recorder.suppressed(here):
        return None
    above = here if _is_the_batchers_own(here, scope) else Context()
    parent = _where(above)
    call = BatchCall(traced, known, recorder, above, parent, args, kwargs)
    call.scope = scope
    call.sampled = sampled
    call.links = _links(scope, sampled[:LINKS_A_SPAN])
    call.enter(call.is_event())
    return call


def _is_the_batchers_own(here: Context, scope: batch_scope) -> bool:
    """Tell whether the current span is one that the batcher holds open around its work, so that the batch belongs below it.

    Frameworks start the batcher's task inside the first request that comes (Ray Serve and BentoML do), so for the life of the process
    that request's span stays current there, ended or not. Anything of a trace in which a request came is taken for such a left-over.
    """
    for each in scope.contexts:
        where = _where(each)
        if where.is_valid:
            _requests[where.trace_id] = None
    if len(_requests) > _REQUESTS:
        for trace_id in list(_requests)[: _REQUESTS // 4]:
            _requests.pop(trace_id, None)
    span: Any = here.get(ambient.SPAN_KEY)
    return span is not None and span.is_recording() and span.get_span_context().trace_id not in _requests


_REQUESTS: Final = 4096
_requests: Final[dict[int, None]] = {}
"""Traces of the requests that were answered lately; the oldest go first."""


def _where(context: Context) -> SpanContext:
    span: Any = context.get(ambient.SPAN_KEY)
    return span.get_span_context() if span is not None else INVALID_SPAN_CONTEXT


class Request(ComponentCall):
    """The short span of one row in its request's own trace."""

    __slots__ = ("links",)

    recorder: Recorder

    def __init__(self, recorder: Recorder, described: Described, current: Context, start_ns: int, links: tuple[Link, ...]) -> None:
        self.real = self.written = None
        self.recorder = recorder
        self.described = described
        self.parent_context = current
        self.parent: SpanContext = _where(current)
        self.start_ns = start_ns
        self.attributes = {}
        self.links = links


class BatchCall(Call):
    """A call for many requests: itself the batch span while the user's code runs."""

    __slots__ = ("links", "sampled", "scope")

    scope: batch_scope
    sampled: list[int]
    every_row = True

    @property
    def name(self) -> str:
        """The batch span's name: what a request's own span is called, it is not."""
        return "lstm batch " + self.described.component.name

    def make(self) -> Any:
        """Start the batch span: recorded wherever a sampled request is linked to it, whatever a sampler says of a trace without parent."""
        if not self.sampled:
            return ambient.NOTHING
        return self.recorder.begin(self, certain=True)

    def done(self, output: Any) -> None:
        """Write the batch span and one short span a sampled request."""
        self.leave()
        with shield:
            end = self.recorder.clock()
            if device.defer(self, output):
                return
            self._done(output, end)
        self.layers.clear()

    def _done(self, output: Any, end: int, read: Said | None = None) -> None:
        facts: SequenceFacts | None = None
        said: Any = ()
        with shield:
            facts = self.known.source.read(self.args, self.kwargs, self.layers)
        lengths = facts.lengths if facts is not None else None
        with shield:
            said = read(lengths) if read is not None else self.traced.predictions(self.known, output, lengths)
        rows = len(said) or len(lengths or ())
        if rows and rows != len(self.scope.contexts):
            self.traced.warn("batch", "batch_scope names %d requests for a batch of %d", len(self.scope.contexts), rows)
        self._write_all([as_prediction(each) for each in said], facts, end, None)

    def is_event(self) -> bool:
        """Tell whether the batch itself has no span: each request then has an event on its own."""
        return self.real is None and self.recorder.as_event

    def handed_over(self) -> None:
        """Say in the caller's own context which trace the batch was."""
        if self.sampled and not self.is_event():
            super().handed_over()

    def failed(self, error: BaseException) -> None:
        """Write the batch span, and the error on each sampled request."""
        self.leave()
        with shield:
            facts = None
            handing.leave_values(self)
            with shield:
                facts = self.known.source.read(self.args, self.kwargs, self.layers)
            self._write_all([], facts, self.recorder.clock(), error)
        self.layers.clear()

    def _write_all(self, said: list[Prediction], facts: SequenceFacts | None, end: int, error: BaseException | None) -> None:
        recorder, component = self.recorder, self.described.component
        lengths = facts.lengths if facts is not None else ()
        compute = (end - self.start_ns) / 1e9
        size = len(self.scope.contexts)
        link: tuple[Link, ...] = ()
        if self.sampled and (error is not None or not self.is_event()):
            recorder.finish_batch(self, component, size, compute, said, facts, error, end)
            link = (Link(self.span_context, {c.LINK_KIND: "batch"}),)
            for first in range(LINKS_A_SPAN, len(self.sampled), LINKS_A_SPAN):
                more = _links(self.scope, self.sampled[first : first + LINKS_A_SPAN])
                recorder.continue_batch(self, component, size, more, end)
        sampled = set(self.sampled)
        for row, context in enumerate(self.scope.contexts):
            prediction = said[row] if row < len(said) else None
            length = lengths[row] if row < len(lengths) else None
            if row in sampled:
                self._request(row, context, link, prediction, length, facts, compute, end, error)
            elif recorder.meters.is_on():
                one = SequenceFacts((length,), facts.source) if facts is not None and length is not None else None
                cohort = recorder.cohort(length) if length is not None else None
                recorder.meters.component(component, (prediction,) if prediction is not None else (), one, cohort, compute, context)

    def _request(
        self,
        row: int,
        context: Context,
        link: tuple[Link, ...],
        prediction: Prediction | None,
        length: int | None,
        facts: SequenceFacts | None,
        compute: float,
        end: int,
        error: BaseException | None,
    ) -> None:
        recorder = self.recorder
        request = Request(recorder, self.described, context, self.start_ns, link)
        request.attributes = {c.BATCH_SIZE: len(self.scope.contexts), c.BATCH_INDEX: row, c.BATCH_COMPUTE: compute}
        if self.scope.enqueued_at is not None:
            request.attributes[c.BATCH_QUEUE_WAIT] = max(0, self.start_ns - self.scope.enqueued_at[row]) / 1e9
        around: Any = context.get(ambient.SPAN_KEY)
        as_event = self.is_event() and around is not None and around.is_recording()
        source, padded = (facts.source, facts.padded_steps) if facts is not None else (None, None)
        if not as_event and recorder.will_record(context) is None and not request.start().is_recording():
            return
        if error is not None:
            one = SequenceFacts((length,), source, padded) if length is not None and source is not None else None
            recorder.finish_component(request, self.described.component, (), one, extra=dict(request.attributes), error=error, end_ns=end)
            return
        value = to.exact_float(prediction.value) if prediction is not None else None
        if value is not None:
            request.attributes[c.PREDICTION_VALUE] = value
        single = _single(prediction) if prediction is not None else None
        finish_single(request, single, length, source, padded, None, end, as_event=as_event)


def _single(said: Prediction) -> Single:
    # a component's own reader may have taken them from numpy
    confidence, margin, entropy = to.exact_float(said.confidence), to.exact_float(said.margin), to.exact_float(said.entropy)
    label = None if said.label is None else str(said.label)
    return Single(label, to.exact_int(said.index), confidence, margin, entropy, bool(said.nonfinite))


def _links(scope: batch_scope, rows: Sequence[int]) -> tuple[Link, ...]:
    found: list[Link] = []
    for row in rows:
        where = _where(scope.contexts[row])
        if where.is_valid:
            found.append(Link(where, {c.LINK_KIND: "batch", c.BATCH_INDEX: row}))
    return tuple(found)


__all__ = ["BatchCall", "batch_scope", "begin", "current"]
