"""Open, place and close the span of one run, whoever calls: LangChain's run managers or ``trace_chain``."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN_CONTEXT, Link, SpanContext

from lstm_trace import conventions as c
from lstm_trace import upstream
from lstm_trace.attributes import error_type
from lstm_trace.guard import shield
from lstm_trace.instrument.langchain import attributes as to
from lstm_trace.instrument.langchain.content import Content
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
        self._vocabulary: to.Vocabulary | None = None
        self.silenced = False
        self.live = LiveRuns(self._abandon)
        self._paused: OrderedDict[str, SpanContext] = OrderedDict()

    # --- What is in force ----------------------------------------------------------------------------------------------------

    @property
    def recorder(self) -> Recorder:
        """The recorder given to ``instrument()``, else the one that the application's own calls use."""
        return self._recorder or default_recorder()

    def use(self, recorder: Recorder | None) -> None:
        """Write through ``recorder`` from now on."""
        self._recorder = recorder
        self._vocabulary = None if recorder is None else to.Vocabulary(recorder.settings)

    @property
    def vocabulary(self) -> to.Vocabulary:
        """The vocabularies of the settings in force."""
        known = self._vocabulary
        if self._recorder is not None and known is not None:
            return known
        settings = default_recorder().settings
        if known is None or known.settings is not settings:
            known = self._vocabulary = to.Vocabulary(settings)
        return known

    @property
    def content(self) -> Content | None:
        """What writes people's words, or None with content capture off."""
        recorder = self._recorder or default_recorder()
        if not recorder.settings.content:
            return None
        vocabulary = self.vocabulary
        return Content(recorder, vocabulary.openinference, vocabulary.gen_ai)

    def silent(self) -> bool:
        """Tell whether nothing can record, whatever the context: no provider, one that raises, or a sampler that drops everything."""
        try:
            return self.silenced or (self._recorder or default_recorder()).never_records()
        except Exception as error:  # noqa: BLE001
            shield.caught(error)
            return True

    # --- Start ---------------------------------------------------------------------------------------------------------------

    def start(
        self,
        kind: Kind,
        name: str,
        *,
        details: Mapping[str, Any] | None = None,
        run_id: Any,
        parent_run_id: Any = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        scope: Scope | None = None,
        session: str | None = None,
        resumes: bool = False,
        span_name: str | None = None,
    ) -> Run | None:
        """Open the span of a run that starts now, or return None where nothing records."""
        recorder = self._recorder or default_recorder()
        here = ambient.get()
        above, context = self._above(here, parent_run_id)
        if above is None:
            upstream.last_outermost.set(INVALID_SPAN_CONTEXT)  # trace_ref() after an unrecorded chain names no older one
        # In the very context of the run above nobody can have asked for silence since that run began.
        directly = above if above is not None and context is above.context else None
        if here and (directly is None or here is not context) and recorder.suppressed(here):
            return None
        if kind == "llm" and (recorder.settings.model_spans == "provider" or _model_is_suppressed(here, above)):
            return None
        run = Run(kind, above, run_id)
        place = place_of(tags) if tags else NOWHERE
        if above is None or (place is NOWHERE and above.trajectory is None and above.tries is None):
            facts = None
        else:
            facts = self._facts(run, above, place, name, metadata or {})
        if scope is not None and scope.thread is not None:
            run.thread_id = scope.thread
            facts = {**(facts or {}), c.GEN_AI_CONVERSATION_ID: scope.thread}
        if session is not None:
            facts = {**(facts or {}), c.SESSION_ID: session}
        known = context.get(upstream.FACTS_KEY)
        all_facts: Any = {**known, **facts} if known and facts else facts or known  # type: ignore[dict-item]
        verb, span_kind, constants = self.vocabulary.kinds[kind]
        if not recorder.open_run(
            run,
            span_name or f"{verb} {name}",
            context,
            span_kind,
            constants,
            details,
            all_facts,
            self._resumed(scope.thread) if resumes and scope is not None else (),
            place.key if place.parallel else upstream.BESIDE if place.key is None else None,
            directly,
        ):
            if run.step_of is not None:
                run.step_of.end()
            return None
        entries: dict[str, object] = {ambient.SPAN_KEY: run.span, RUN_KEY: run}
        if facts:
            entries[upstream.FACTS_KEY] = all_facts
        if kind == "llm":
            entries[SUPPRESS_MODEL] = True
        run.context = ambient.extended(context, entries)
        if kind == "agent" or (scope is not None and scope.graph) or (above is None and kind == "chain"):
            run.trajectory = Trajectory(all_facts.get(c.TRAJECTORY_PATH) if all_facts else None)
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
        self.live.remove(run)
        if context is None:
            return
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
        (self._recorder or default_recorder()).close_run(run, attributes, events, error, end_ns)

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
        recorder = self._recorder or default_recorder()
        now = recorder.clock()
        first = None if run.first_chunk_ns is None else (run.first_chunk_ns - run.start_ns) / 1e9
        attributes = self.vocabulary.answer(answer, first)
        if (content := self.content) is not None:
            attributes.update(content.answered(response))
        self.end(run, attributes, error=error, end_ns=now)
        if recorder.meters.is_on():
            labels = self.vocabulary.metric_labels(run.asked) if run.asked is not None else {}
            if answer.model is not None:
                labels[c.GEN_AI_RESPONSE_MODEL] = answer.model
            if error is not None and _judged(run, error, context) is not None:
                labels[c.ERROR_TYPE] = error_type(error)
            tokens = {
                kind: count for kind, count in (("input", answer.input_tokens), ("output", answer.output_tokens)) if count is not None
            }
            recorder.meters.operation((now - run.start_ns) / 1e9, tokens, labels, context)

    def _remember_pause(self, thread: str, paused: SpanContext) -> None:
        self._paused[thread] = paused
        while len(self._paused) > _PAUSED_LIMIT:
            self._paused.popitem(last=False)

    def _abandon(self, run: Run, end_ns: int) -> None:
        self.end(run, {c.RUN_ABANDONED: True}, end_ns=end_ns)

    def close_open(self) -> None:
        """Close every run whose end will not be seen any more, the innermost first; a named chain's frame closes its own."""
        for run in reversed(self.live.reported()):
            self._abandon(run, self.recorder.clock())

    def forget(self) -> None:
        """Forget every run and pause."""
        self.live.clear()
        self._paused.clear()


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
