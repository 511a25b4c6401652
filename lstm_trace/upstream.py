"""Which prediction stands upstream of a span that starts now: the spans open in this process, as a tree, and what was predicted below each.

A prediction is noted on every open ancestor of its span. A span that starts looks at its parent first, then at what stood upstream
of the parent when *that* started, and so on: the deepest common ancestor wins, then the latest prediction. What a parallel branch
predicts after this branch began is never seen; branches that start one after the other though they belong side by side (a graph's
superstep, a RunnableParallel) name a common ``group`` and see what stood upstream when the first of them started.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry import baggage, trace
from opentelemetry.context import Context, create_key, get_current, set_value
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext, format_span_id

from lstm_trace import conventions as c
from lstm_trace.facts import Prediction, Step

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, Span

Attributes = dict[str, Any]

FACTS_KEY: Final = create_key("lstm_trace.facts")
_orders: Final = count(1)
_OPEN_LIMIT: Final = 65_536
_RECENT_LIMIT: Final = 8_192


def _chance(text: str) -> float:
    number = float(text)
    if not 0.0 <= number <= 1.0:
        raise ValueError
    return number


def _steps(text: str) -> int:
    number = int(text)
    if not 0 <= number < 1 << 63:  # no attribute has room for more
        raise ValueError
    return number


def _span_id(text: str) -> str:
    if not 0 < int(text, 16) < 1 << 64:
        raise ValueError
    return text


_UPSTREAM_BAGGAGE: Final[dict[str, Callable[[str], Any]]] = {
    c.UPSTREAM_COMPONENT: str,
    c.UPSTREAM_LABEL: str,
    c.UPSTREAM_CONFIDENCE: _chance,
    c.UPSTREAM_SEQUENCE_LENGTH: _steps,
    c.UPSTREAM_COHORT: str,
    c.UPSTREAM_SPAN_ID: _span_id,
}


class Upstream:
    """A prediction as later spans see it: the fact, where its span stands, and the attributes it puts on them.

    ``prediction`` may be the first nine arguments of one: most predictions are never asked for, and building the fact costs more than
    keeping what it is made of.
    """

    __slots__ = ("_attributes", "_prediction", "order", "session_id", "span_context")

    def __init__(
        self,
        prediction: Prediction | tuple[Any, ...],
        span_context: SpanContext,
        attributes: Mapping[str, Any] | None = None,
        session_id: str | None = None,
    ) -> None:
        self._prediction = prediction
        self._attributes = attributes
        self.span_context = span_context
        self.session_id = session_id
        self.order = 0

    @property
    def prediction(self) -> Prediction:
        """The prediction, with component, length and cohort."""
        if not isinstance(self._prediction, Prediction):
            self._prediction = replace(Prediction(*self._prediction), span_id=format_span_id(self.span_context.span_id))  # pyright: ignore[reportCallIssue]
        return self._prediction

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What it puts on later spans."""
        if self._attributes is None:
            said = self._prediction
            if isinstance(said, Prediction):
                five = (said.component, said.label, said.confidence, said.length, said.cohort)
            else:
                five = (said[6], said[0], said[2], said[7], said[8])
            self._attributes = _described(*five, self.span_context.span_id)
        return self._attributes


class Node:
    """One open span. ``span`` is None where it is not recorded by an SDK that we can write to.

    ``latest`` is the latest prediction anywhere below it, ``settled`` the latest one that was not made inside a span that is open still.
    """

    # Defaults on the class: most spans never need their own.
    latest: Upstream | None = None
    settled: Upstream | None = None
    group: object = None
    group_upstream: Upstream | None = None

    span_context: SpanContext
    parent: Node | None
    inherited: Upstream | None
    span: trace.Span | None

    def __init__(self, span_context: SpanContext, parent: Node | None, inherited: Upstream | None, span: trace.Span | None) -> None:
        self.span_context = span_context
        self.parent = parent
        self.inherited = inherited
        self.span = span


BESIDE: Final = object()
"""The group of a span of which nobody says what it follows: a sibling that is still open runs beside it and keeps its predictions."""


class LiveSpans:
    """The open spans of this process by span id. Bounded: the oldest go first, so spans that never end cannot add up."""

    def __init__(self, *, limit: int = _OPEN_LIMIT) -> None:
        self._limit = limit
        self._nodes: dict[int, Node] = {}
        self._roots: dict[int, Node] = {}
        self._recent: dict[int, Upstream] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._nodes)

    def node(self, span_id: int) -> Node | None:
        """Return the open span with this id."""
        return self._nodes.get(span_id)

    def trace_is_open(self, trace_id: int) -> bool:
        """Tell whether the outermost span that this process recorded of a trace has not ended yet."""
        return trace_id in self._roots

    def enter(self, span: trace.Span, parent: SpanContext, *, group: object = None, upstream: Upstream | None = None) -> Node:
        """Note that ``span`` started below ``parent``. Called twice for one span, the first call counts."""
        span_context = span.get_span_context()
        known = self._nodes.get(span_context.span_id)
        if known is not None:
            return known
        above = self._nodes.get(parent.span_id)
        node = Node(span_context, above, upstream or visible(above, group), span if span.is_recording() else None)
        if len(self._nodes) >= self._limit:
            self._evict()
        self._nodes[span_context.span_id] = node
        if above is None:
            self._roots.setdefault(span_context.trace_id, node)
        return node

    def began(self, node: Node) -> None:
        """Note a recording span that nobody can have noted yet, below an open span that the caller has found."""
        if len(self._nodes) >= self._limit:
            self._evict()
        self._nodes[node.span_context[1]] = node  # the ids by place: the context's properties are calls
        if node.parent is None:
            self._roots.setdefault(node.span_context[0], node)

    def leave(self, span_context: SpanContext) -> None:
        """Note that a span ended."""
        node = self._nodes.pop(span_context[1], None)  # the ids by place: the context's properties are calls
        if node is None:
            return  # the recorder and the processor both say it
        above, settled = node.parent, node.settled
        if above is None:
            if self._roots.get(span_context[0]) is node:
                del self._roots[span_context[0]]
        elif settled is not None and (above.settled is None or above.settled.order < settled.order):
            above.settled = settled

    def upstream(self, parent: SpanContext, *, group: object = None) -> Upstream | None:
        """Return what stands upstream of a span that starts now below ``parent``."""
        return visible(self._nodes.get(parent.span_id), group)

    def publish(self, upstream: Upstream, below: SpanContext) -> None:
        """Note a prediction made by a span whose parent is ``below`` on every open ancestor."""
        _, span_id, _, _, _, _ = below  # its properties are calls
        node = self._nodes.get(span_id)
        if node is not None:
            upstream.order = next(_orders)
            node.settled = upstream
        while node is not None:
            node.latest = upstream
            node = node.parent
        if len(self._recent) >= _RECENT_LIMIT:
            with self._lock:
                for key in list(islice(self._recent, _RECENT_LIMIT // 4)):
                    self._recent.pop(key, None)
        trace_id, span_id, _, _, _, _ = upstream.span_context
        self._recent[span_id] = upstream
        self._recent[trace_id] = upstream

    def recent(self, span_context: SpanContext) -> Upstream | None:
        """Return the latest prediction of this span, or of its trace; also shortly after both ended."""
        return self._recent.get(span_context.span_id) or self._recent.get(span_context.trace_id)

    def outermost(self, span_context: SpanContext) -> SpanContext:
        """Return the outermost span above this one that this process recorded."""
        node = self._nodes.get(span_context.span_id)
        if node is None:
            return span_context
        while node.parent is not None and node.parent.span is not None:
            node = node.parent
        return node.span_context

    def is_below(self, context: Context, above: SpanContext) -> bool:
        """Tell whether the current span of ``context`` is open and lies below the span ``above``."""
        node = self._nodes.get(trace.get_current_span(context).get_span_context().span_id)
        while node is not None:
            if node.span_context.span_id == above.span_id:
                return True
            node = node.parent
        return False

    def clear(self) -> None:
        """Forget everything; for tests."""
        self._nodes.clear()
        self._roots.clear()
        self._recent.clear()

    def forked(self) -> None:
        """Go on in the child of a fork: what was predicted stays upstream there, a lock that another thread held would stay locked."""
        self._lock = threading.Lock()

    def _evict(self) -> None:
        with self._lock:
            for key in list(islice(self._nodes, self._limit // 8)):
                node = self._nodes.get(key)
                if node is not None:
                    self.leave(node.span_context)


live = LiveSpans()
"""The open spans of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=live.forked)

settle: Callable[[int], None] | None = None
"""Completes predictions of a trace that wait only for their turn; set where some are made on an accelerator. Asked before looking."""

last_outermost: ContextVar[SpanContext] = ContextVar("lstm_trace_last_outermost", default=INVALID_SPAN_CONTEXT)
"""The outermost span that ended last in this context, so that a caller can ask for it right after the chain returned."""


def visible(parent: Node | None, group: object) -> Upstream | None:
    """Return what stands upstream of a span that starts now below ``parent``, beside those of the same ``group``."""
    if parent is None:
        return None
    if group is BESIDE:
        return parent.settled or parent.inherited
    now = parent.latest or parent.inherited
    if group is None:
        return now
    if parent.group != group:
        parent.group, parent.group_upstream = group, now
    return parent.group_upstream


def describe(prediction: Prediction, span_context: SpanContext, session_id: str | None = None) -> Upstream:
    """Build what later spans see of a prediction."""
    return Upstream(prediction, span_context, None, session_id)


def _described(
    component: str | None, label: str | None, confidence: float | None, length: int | None, cohort: str | None, span_id: int
) -> Attributes:
    attributes: Attributes = {c.UPSTREAM_COMPONENT: component, c.UPSTREAM_SPAN_ID: format_span_id(span_id)}
    if label is not None:
        attributes[c.UPSTREAM_LABEL] = label
    if confidence is not None:
        attributes[c.UPSTREAM_CONFIDENCE] = confidence
    if length is not None:
        attributes[c.UPSTREAM_SEQUENCE_LENGTH] = length
        attributes[c.UPSTREAM_COHORT] = cohort
    return attributes


# --- What every span below inherits: step, session, conversation ---------------------------------------------------------


def context_facts(context: Context) -> Mapping[str, Any]:
    """Return the attributes that a span which starts in ``context`` takes over from above."""
    return cast("Mapping[str, Any]", context.get(FACTS_KEY) or {})


def with_facts(context: Context, facts: Mapping[str, Any]) -> Context:
    """Return a context in which every span that starts takes over ``facts``, beside those already there."""
    return set_value(FACTS_KEY, {**context_facts(context), **facts}, context)


def inherited(context: Context, upstream: Upstream | None) -> Attributes:
    """Return all that a span which starts in ``context`` takes over; nothing of a prediction about another session."""
    return with_upstream(context_facts(context), upstream)


def with_upstream(facts: Mapping[str, Any], upstream: Upstream | None) -> Attributes:
    """Return ``facts`` as attributes with the upstream prediction's, unless that is about another session."""
    attributes: Attributes = dict(facts)
    if upstream is not None:
        session_id = attributes.get(c.SESSION_ID)
        if session_id is None or upstream.session_id is None or session_id == upstream.session_id:
            attributes.update(upstream.attributes)
    return attributes


def step_facts(step: Step) -> Attributes:
    """Return the attributes of a trajectory step."""
    facts: Attributes = {c.TRAJECTORY_STEP: step.number, c.TRAJECTORY_ATTEMPT: step.attempt}
    if step.branch is not None:
        facts[c.TRAJECTORY_BRANCH] = step.branch
    if step.path is not None:
        facts[c.TRAJECTORY_PATH] = step.path
    return facts


def current_step(context: Context | None = None) -> Step | None:
    """Return the trajectory step that the caller's code runs in, or None outside of a trajectory."""
    facts = context_facts(get_current() if context is None else context)
    number = facts.get(c.TRAJECTORY_STEP)
    if number is None:
        return None
    return Step(number, facts.get(c.TRAJECTORY_BRANCH), facts.get(c.TRAJECTORY_PATH), facts.get(c.TRAJECTORY_ATTEMPT, 1))


# --- Across processes ----------------------------------------------------------------------------------------------------


def from_baggage(context: Context) -> Upstream | None:
    """Read the upstream prediction that another process sent as W3C baggage; what is no such fact is left out."""
    found: Attributes = {}
    for name, kind in _UPSTREAM_BAGGAGE.items():
        value = baggage.get_baggage(name, context)
        if value is None:
            continue
        try:
            found[name] = kind(str(value))
        except ValueError:
            continue
    if c.UPSTREAM_COMPONENT not in found:
        return None
    prediction = Prediction(
        label=found.get(c.UPSTREAM_LABEL),
        confidence=found.get(c.UPSTREAM_CONFIDENCE),
        component=found[c.UPSTREAM_COMPONENT],
        length=found.get(c.UPSTREAM_SEQUENCE_LENGTH),
        cohort=found.get(c.UPSTREAM_COHORT),
    )
    parent = trace.get_current_span(context).get_span_context()
    span_id = found.get(c.UPSTREAM_SPAN_ID, "")
    try:
        where = SpanContext(parent.trace_id, int(span_id, 16), is_remote=True, trace_flags=parent.trace_flags)
    except ValueError:
        where = INVALID_SPAN_CONTEXT
    return Upstream(prediction, where, found)


class UpstreamProcessor:
    """A span processor that writes step, session, release and upstream facts on spans of *other* instrumentations as they start.

    Add it to a TracerProvider once; ``configure()`` and ``instrument()`` do that.
    """

    def __init__(self, *, release: str | None = None, read_baggage: bool = False) -> None:
        self._release = release
        self._read_baggage = read_baggage

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Note the span and write what it inherits; the recorder does both for the spans that it makes."""
        scope = span.instrumentation_scope
        if scope is not None and scope.name == c.SCOPE:
            return
        context = get_current() if parent_context is None else parent_context
        parent = trace.get_current_span(context).get_span_context()
        if settle is not None:
            settle(parent.trace_id)
        upstream = from_baggage(context) if self._read_baggage and (parent.is_remote or not parent.is_valid) else None
        node = live.enter(span, parent, upstream=upstream)
        attributes = inherited(context, node.inherited)
        release = self._release or span.resource.attributes.get("service.version")
        if release:
            attributes[c.RELEASE] = release
        if attributes:
            span.set_attributes(attributes)

    def _on_ending(self, span: Span) -> None:
        """Take part in the SDK's processor protocol."""

    def on_end(self, span: ReadableSpan) -> None:
        """Forget the span."""
        span_context = span.context
        if span_context is not None:
            live.leave(span_context)

    def shutdown(self) -> None:
        """Take part in the SDK's processor protocol: there is nothing to release."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Take part in the SDK's processor protocol: there is nothing to flush."""
        return True
