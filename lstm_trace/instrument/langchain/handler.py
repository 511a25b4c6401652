"""Open, place and close the span of one run, whoever calls: LangChain's run managers or ``trace_chain``."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN_CONTEXT, Link, SpanContext

from lstm_trace import conventions as c
from lstm_trace import upstream
from lstm_trace.attributes import error_type
from lstm_trace.guard import shield
from lstm_trace.instrument.langchain.in_force import InForce
from lstm_trace.instrument.langchain.messages import NOTHING, Answer
from lstm_trace.instrument.langchain.runs import RUN_KEY, Kind, LiveRuns, Run, Scope
from lstm_trace.instrument.langchain.trajectory import NOWHERE, Place, Trajectory, branch_of, place_of
from lstm_trace.recorder import Recorder, ambient, default_recorder
from lstm_trace.upstream import live as live_spans

_PAUSED_LIMIT: Final = 4_096

SUPPRESS_MODEL: Final = "suppress_language_model_instrumentation"
"""The key that model providers' own instrumentations honour; no public constant of OpenTelemetry names it."""


class Handler:
    """Turns starts and ends of runs into spans. One for the process; ``instrument()`` gives it its recorder."""

    def __init__(self) -> None:
        self._recorder: Recorder | None = None
        self.known: InForce | None = None
        """What was in force when somebody looked last."""
        self.silenced = False
        self.live = LiveRuns(self._abandon)
        self._paused: OrderedDict[str, SpanContext] = OrderedDict()

    # --- What is in force ----------------------------------------------------------------------------------------------------

    def use(self, recorder: Recorder | None) -> None:
        """Write through ``recorder`` from now on; through the one that the application's own calls use where there is none."""
        self._recorder = recorder
        self.known = None

    def now(self) -> InForce | None:
        """Return what is in force, or None where nothing records in any context: no provider, one that raises, a sampler that drops all."""
        known = self.known
        if (
            known is None
            or known.recorder is not (self._recorder or default_recorder())
            or known.key is not (known.given or trace._TRACER_PROVIDER)
        ):
            known = self._look()
        return known if known is not None and known.records else None

    def _look(self) -> InForce | None:
        if self.silenced:
            return None
        try:
            self.known = InForce(self._recorder or default_recorder())
        except Exception as error:  # noqa: BLE001
            shield.caught(error)
            self.known = None
        return self.known

    # --- Start ---------------------------------------------------------------------------------------------------------------

    def start(
        self,
        now: InForce,
        kind: Kind,
        name: str,
        run_id: Any,
        callbacks: Any = None,
        scope: Scope | None = None,
        details: Mapping[str, Any] | None = None,
        span_name: str | None = None,
        *,
        session: str | None = None,
        resumes: bool = False,
    ) -> Run | None:
        """Open the span of a run that starts now, or return None where nothing records. ``callbacks`` is LangChain's manager of it."""
        here = ambient.get()
        above: Run | None
        current: Any = here.get(RUN_KEY)
        parent_run_id = None if callbacks is None else callbacks.parent_run_id
        if current is not None and current.context is here and (parent_run_id is None or parent_run_id is current.run_id):
            # In the very context of the run above nobody can have asked for silence since that run began.
            above = directly = current
            context = here
        else:
            above, context = self._above(here, parent_run_id)
            directly = above if above is not None and context is above.context else None
            if above is None:
                upstream.last_outermost.set(INVALID_SPAN_CONTEXT)  # trace_ref() after an unrecorded chain names no older one
            if here and (directly is None or here is not context) and now.recorder.suppressed(here):
                return None
        if kind == "llm" and (now.settings.model_spans == "provider" or _model_is_suppressed(here, above)):
            return None
        run = Run(kind, above, run_id, now)
        place = place_of(callbacks.tags) if callbacks is not None and callbacks.tags else NOWHERE
        if above is None or (place is NOWHERE and above.trajectory is None and above.tries is None):
            facts = None
        else:
            facts = self._facts(run, above, place, name, {} if callbacks is None else callbacks.metadata)
        thread = None if scope is None else scope.thread
        if thread is not None:
            run.thread_id = thread
            facts = {**(facts or {}), c.GEN_AI_CONVERSATION_ID: thread}
        if session is not None:
            facts = {**(facts or {}), c.SESSION_ID: session}
        known: Any = context.get(upstream.FACTS_KEY)
        all_facts: Any = {**known, **facts} if known and facts else facts or known
        verb, span_kind, constants = now.vocabulary.kinds[kind]
        if not now.open(
            run,
            span_name or f"{verb} {name}",
            context,
            span_kind,
            constants,
            details,
            all_facts,
            self._resumed(thread) if resumes else (),
            place.key if place.parallel else upstream.BESIDE if place.key is None else None,
            directly,
        ):
            if run.step_of is not None:
                run.step_of.end()
            return None
        inside: dict[str, object] = {**context, ambient.SPAN_KEY: run.span, RUN_KEY: run}
        if facts:
            inside[upstream.FACTS_KEY] = all_facts
        if kind == "llm":
            inside[SUPPRESS_MODEL] = True
        elif kind == "agent" or (scope is not None and scope.graph) or (above is None and kind == "chain"):
            run.trajectory = Trajectory(all_facts.get(c.TRAJECTORY_PATH) if all_facts else None)
        run.context = Context(inside)
        return run

    def adopt(self, run: Run, run_id: Any, thread: str | None, resumes: bool) -> Run:
        """Let a run that ``trace_chain`` opened stand for LangChain's own run as well."""
        self.live.remove(run)
        run.run_id = run_id
        if thread is not None and run.context is not None and run.span is not None:
            run.thread_id = thread
            run.span.set_attribute(c.GEN_AI_CONVERSATION_ID, thread)
            run.context = upstream.with_facts(run.context, {c.GEN_AI_CONVERSATION_ID: thread})
            for link in self._resumed(thread) if resumes else ():
                run.span.add_link(link.context, link.attributes)
        return run

    def _above(self, here: Context, parent_run_id: Any) -> tuple[Run | None, Context]:
        """Find the run and the context below which a run starts.

        The current context wins where it belongs to the parent run or to something inside it (a span of the user's own), else the
        parent run's context.
        """
        run: Any = here.get(RUN_KEY)
        if parent_run_id is None or (run is not None and (run.run_id is parent_run_id or run.is_or_is_below(parent_run_id))):
            return run, here
        above = self.live.get(parent_run_id)
        context = above.context if above is not None else None
        if above is None or context is None:
            return run, here
        if run is None and here and live_spans.is_below(here, above.span_context):
            return above, ambient.extended(here, {RUN_KEY: above})
        return above, context

    def _facts(self, run: Run, above: Run, place: Place, name: str, metadata: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what stands on this run and everything below it because of where it stands in its trajectory."""
        attempt = place.attempt
        if above.tries is not None:
            attempt = above.attempts = above.attempts + 1
        branch = branch_of(place, name, metadata) if place.branch is not None else None
        trajectory = above.trajectory
        if trajectory is not None:
            if place.key is None:
                run.step_of = trajectory
            # One task of one node has a checkpoint namespace of its own, and keeps it when it is tried again.
            task = metadata.get("langgraph_checkpoint_ns") if place.branch is not None and place.parallel else None
            return trajectory.begin(
                place.key, branch, time.time_ns(), attempt=attempt, task=task, again=attempt is not None and attempt > 1
            )
        if attempt is None and branch is None:
            return None
        facts: dict[str, Any] = {}
        if attempt is not None:
            facts[c.TRAJECTORY_ATTEMPT] = attempt
        if branch is not None:
            facts[c.TRAJECTORY_BRANCH] = branch
        return facts

    def _resumed(self, thread: str | None) -> list[Link]:
        paused = self._paused.pop(thread, None) if thread is not None else None
        return [] if paused is None else [Link(paused, {c.LINK_KIND: "resume"})]

    # --- End -----------------------------------------------------------------------------------------------------------------

    def end(
        self, run: Run, attributes: dict[str, Any] | None = None, *, error: BaseException | None = None, end_ns: int | None = None
    ) -> None:
        """Close a run's span once; a second end is ignored."""
        context, run.context = run.context, None
        if context is None:
            return
        self.live.remove(run)
        if run.step_of is not None:
            run.step_of.end()
        if not run.recording:
            return
        if error is not None:
            error = _judged(run, error, context)
            if error is None and run.left:
                attributes = {**(attributes or {}), c.RUN_LEFT_EARLY: True}
        if run.interrupted:
            attributes = {**(attributes or {}), c.RUN_INTERRUPTED: True}
            if run.thread_id is not None:
                self._remember_pause(run.thread_id, run.span_context)
        trajectory = run.trajectory
        events: Any = () if trajectory is None else [(c.EVENT_STEP, facts, began) for facts, began in trajectory.events()]
        run.now.close(run, attributes, events, error, end_ns)

    def fail(self, run: Run, error: BaseException) -> None:
        """Close a run that ``error`` broke off, and of which LangChain itself says nothing."""
        if run.kind == "llm":
            self.end_model(run, NOTHING, None, error=error)
        else:
            self.end(run, error=error)

    def end_model(self, run: Run, answer: Answer, response: Any, *, error: BaseException | None = None) -> None:
        """Close a model call with its answer's facts, and count it."""
        context = run.context
        if context is None or not run.recording:
            self.end(run, error=error)
            return
        recorder, vocabulary, content = run.now.recorder, run.now.vocabulary, run.now.content
        ended_ns = recorder.clock()
        first = None if run.first_chunk_ns is None else (run.first_chunk_ns - run.start_ns) / 1e9
        attributes = vocabulary.answer(answer, first)
        if content is not None:
            attributes.update(content.answered(response))
        self.end(run, attributes, error=error, end_ns=ended_ns)
        if recorder.meters.is_on():
            labels = vocabulary.metric_labels(run.asked) if run.asked is not None else {}
            if answer.model is not None:
                labels[c.GEN_AI_RESPONSE_MODEL] = answer.model
            if error is not None and _judged(run, error, context) is not None:
                labels[c.ERROR_TYPE] = error_type(error)
            tokens = {
                kind: count for kind, count in (("input", answer.input_tokens), ("output", answer.output_tokens)) if count is not None
            }
            recorder.meters.operation((ended_ns - run.start_ns) / 1e9, tokens, labels, context)

    def _remember_pause(self, thread: str, paused: SpanContext) -> None:
        self._paused[thread] = paused
        while len(self._paused) > _PAUSED_LIMIT:
            self._paused.popitem(last=False)

    def _abandon(self, run: Run, end_ns: int) -> None:
        self.end(run, {c.RUN_ABANDONED: True}, end_ns=end_ns)

    def close_open(self) -> None:
        """Close every run whose end will not be seen any more, the innermost first; a named chain's frame closes its own."""
        for run in reversed(self.live.reported()):
            self._abandon(run, run.now.recorder.clock())

    def forget(self) -> None:
        """Forget every run and pause."""
        self.live.clear()
        self._paused.clear()


def hushed(callbacks: Any) -> bool:
    """Tell whether what ``callbacks`` starts stands below a run that was not sampled, so that it is not either: nothing more is asked."""
    here = ambient.get()
    run: Any = here.get(RUN_KEY)
    if run is None or not run.hushes or run.context is not here:
        return False
    parent_run_id = callbacks.parent_run_id
    if parent_run_id is None or parent_run_id is run.run_id:
        return True
    above = handler.live.get(parent_run_id)  # None: a run below this one, which was not even opened
    return above is None or above is run


def _model_is_suppressed(here: Context, above: Run | None) -> bool:
    """Tell whether somebody else asked for no model spans: not where it was us, around a model's own code."""
    return bool(here.get(SUPPRESS_MODEL)) and (above is None or above.kind != "llm")


def _judged(run: Run, error: BaseException, context: Context) -> BaseException | None:
    """Return the error that a span shows: none for a stream that its reader left, or for LangGraph's control flow."""
    names = [each.__name__ for each in type(error).__mro__]
    if "GraphInterrupt" in names:
        run.interrupted = True
        if run.above is not None and run.above.thread_id is not None:
            run.above.interrupted = True
    if "GraphBubbleUp" in names:
        return None
    if isinstance(error, GeneratorExit) or ("CancelledError" in names and run.was_left(context)):
        run.left = True
        return None
    return error


handler: Final = Handler()
"""The handler of this process."""
