"""Open, place and close the span of one run, whoever calls: LangChain's run managers or ``trace_chain``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry import context as otel
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext

from lstm_trace import conventions as c
from lstm_trace import upstream
from lstm_trace.facts import Step
from lstm_trace.instrument.langchain import attributes as to
from lstm_trace.instrument.langchain.messages import Answer
from lstm_trace.instrument.langchain.runs import ABANDONED, RUN_KEY, Kind, LiveRuns, Run, Scope
from lstm_trace.instrument.langchain.trajectory import Place, Trajectory, place_of
from lstm_trace.recorder import Event, Recorder, default_recorder
from lstm_trace.upstream import live as live_spans

_PAUSED_LIMIT: Final = 4_096
SUPPRESS_MODEL: Final = "suppress_language_model_instrumentation"
"""The key that model providers' own instrumentations honour; no public constant of OpenTelemetry names it."""


class Handler:
    """Turns starts and ends of runs into spans. One for the process; ``recorder`` is replaced by ``instrument()``."""

    def __init__(self) -> None:
        self._recorder: Recorder | None = None
        self.live = LiveRuns(self._abandon)
        self._paused: OrderedDict[str, SpanContext] = OrderedDict()
        self._vocabulary: to.Vocabulary | None = None
        self.silenced = False

    @property
    def recorder(self) -> Recorder:
        """The recorder given to ``instrument()``, else the one in force."""
        return self._recorder or default_recorder()

    def use(self, recorder: Recorder | None) -> None:
        """Write through ``recorder`` from now on."""
        self._recorder = recorder

    @property
    def vocabulary(self) -> to.Vocabulary:
        """The vocabularies of the settings in force."""
        known, settings = self._vocabulary, self.recorder.settings
        if known is None or known.settings is not settings:
            known = self._vocabulary = to.Vocabulary(settings)
        return known

    def silent(self) -> bool:
        """Tell whether nothing can record, whatever the context: no provider, or a sampler that drops everything."""
        return self.recorder.never_records()

    # --- Start -------------------------------------------------------------------------------------------------------------

    def start(
        self,
        kind: Kind,
        name: str,
        *,
        parent_run_id: Any = None,
        run_id: Any = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        attributes: dict[str, Any] | None = None,
        scope: Scope | None = None,
        session: str | None = None,
        resumes: bool = False,
        current: Context | None = None,
    ) -> Run | None:
        """Open the span of a run that starts now, or return None where nothing records."""
        recorder = self.recorder
        here = otel.get_current() if current is None else current
        parent, context = self._parent(here, parent_run_id)
        if recorder.will_record(context) is False or (context is not here and recorder.suppressed(here)):
            return None
        run = Run(kind, parent, run_id)
        extra: dict[str, Any] = {RUN_KEY: run}
        facts: dict[str, Any] = {}
        place, step = self._place(run, name, tags, metadata or {}, scope, recorder)
        if step is not None:
            facts.update(upstream.step_facts(step))
        elif place.attempt is not None and upstream.current_step(context) is not None:
            facts[c.TRAJECTORY_ATTEMPT] = place.attempt
        if step is None and place.branch and upstream.current_step(context) is not None:
            facts[c.TRAJECTORY_BRANCH] = place.branch
        thread = scope.links_thread if scope is not None else None
        if thread is not None:
            facts[c.GEN_AI_CONVERSATION_ID] = run.thread_id = thread
        if session is not None:
            facts[c.SESSION_ID] = session
        placed = Context({**context, **extra})
        if facts:
            placed = upstream.with_facts(placed, facts)
        links: list[Link] = []
        if resumes and thread is not None and (paused := self._paused.pop(thread, None)) is not None:
            links.append(Link(paused, {c.LINK_KIND: "resume"}))
        group = place.key if place.parallel else scope.group if scope is not None else None
        opened = recorder.open(
            to.span_name(kind, name),
            current=placed,
            attributes=attributes or {},
            links=links,
            group=group,
            kind=to.span_kind(kind),
            dropped=True,
        )
        if opened is None:
            if run.step_of is not None:
                run.step_of.end()
            return None
        run.opened = opened
        run.recording = opened.span.is_recording()
        if kind == "agent" or (scope is not None and scope.graph) or (parent is None and kind == "chain"):
            run.trajectory = Trajectory(upstream.context_facts(placed).get(c.TRAJECTORY_PATH))
        return run

    def adopt(self, run: Run, run_id: Any, thread: str | None, resumes: bool) -> Run:
        """Let a run that ``trace_chain`` opened stand for LangChain's own run as well."""
        self.live.remove(run)
        run.run_id = run_id
        opened = run.opened
        if thread is not None and opened is not None:
            run.thread_id = thread
            opened.attributes[c.GEN_AI_CONVERSATION_ID] = thread
            opened.context = upstream.with_facts(opened.context, {c.GEN_AI_CONVERSATION_ID: thread})
            if resumes and (paused := self._paused.pop(thread, None)) is not None:
                opened.span.add_link(paused, {c.LINK_KIND: "resume"})
        return run

    def _parent(self, here: Context, parent_run_id: Any) -> tuple[Run | None, Context]:
        """Find the run and the context below which a run starts.

        The current context wins where it belongs to the parent run or to something inside it (a span of the user's own), else the
        parent run's context.
        """
        run: Run | None = here.get(RUN_KEY)  # type: ignore[assignment]
        if parent_run_id is None or (run is not None and run.is_or_is_below(parent_run_id)):
            return run, here
        above = self.live.get(parent_run_id)
        context = above.context if above is not None else None
        if above is None or context is None:
            return run, here
        if run is None and above.opened is not None and live_spans.is_below(here, above.opened.span_context):
            return above, Context({**here, RUN_KEY: above})
        return above, context

    def _place(
        self, run: Run, name: str, tags: Sequence[str], metadata: Mapping[str, Any], scope: Scope | None, recorder: Recorder
    ) -> tuple[Place, Step | None]:
        place = place_of(tags, metadata)
        parent = run.parent
        if parent is None:
            return place, None
        if place.branch == "":
            place = Place(place.key, place.parallel, name, place.attempt)
        again = False
        if parent.attempts:
            # Below something that tries again (fallbacks): the attempt that it is at.
            place = Place(place.key, place.parallel, place.branch, parent.attempts)
            again = parent.attempts > 1
        if parent.trajectory is None:
            return place, None
        task = metadata.get("langgraph_checkpoint_ns") if place.key is not None and place.parallel else None
        step = parent.trajectory.begin(place, place.branch, recorder.clock(), task=task, again=again)
        run.step_of = parent.trajectory
        return place, step

    # --- End ---------------------------------------------------------------------------------------------------------------

    def end(
        self, run: Run, attributes: dict[str, Any] | None = None, *, error: BaseException | None = None, end_ns: int | None = None
    ) -> None:
        """Close a run's span once; a second end is ignored."""
        opened, run.opened = run.opened, None
        self.live.remove(run)
        if opened is None:
            return
        if run.step_of is not None:
            run.step_of.end()
        if not run.recording:
            return
        attributes = attributes or {}
        if error is not None:
            error = self._judge(run, error)
        if run.interrupted:
            attributes[c.RUN_INTERRUPTED] = True
            if run.thread_id is not None:
                self._remember_pause(run.thread_id, opened.span_context)
        events: Sequence[Event] = ()
        if run.trajectory is not None:
            events = [Event(c.EVENT_STEP, upstream.step_facts(step), began) for step, began in run.trajectory.steps]
        opened.finish(attributes, events, error=error, end_ns=end_ns)

    def end_model(self, run: Run, answer: Answer, *, error: BaseException | None = None) -> None:
        """Close a model call with its answer's facts, and count it."""
        opened = run.opened
        if opened is None or not run.recording:
            self.end(run, error=error)
            return
        recorder = self.recorder
        now = recorder.clock()
        first = None if run.first_chunk_ns is None else (run.first_chunk_ns - opened.start_ns) / 1e9
        attributes = self.vocabulary.answer(answer, first)
        labels = dict(run.labels or {})
        if answer.model is not None:
            labels[c.GEN_AI_RESPONSE_MODEL] = answer.model
        if error is not None:
            labels[c.ERROR_TYPE] = type(error).__qualname__
        tokens = {kind: count for kind, count in (("input", answer.input_tokens), ("output", answer.output_tokens)) if count is not None}
        context, began = opened.context, opened.start_ns
        self.end(run, attributes, error=error, end_ns=now)
        recorder.record_operation((now - began) / 1e9, tokens, labels, context)

    def _judge(self, run: Run, error: BaseException) -> BaseException | None:
        """Return the error that a span shows: none for a stream closed early or for LangGraph's control flow."""
        names = [each.__name__ for each in type(error).__mro__]
        if "GraphInterrupt" in names:
            run.interrupted = True
            if run.parent is not None and run.parent.trajectory is not None and run.parent.thread_id is not None:
                run.parent.interrupted = True
        if "GraphBubbleUp" in names or isinstance(error, GeneratorExit):
            return None
        return error

    def _remember_pause(self, thread: str, paused: SpanContext) -> None:
        self._paused[thread] = paused
        while len(self._paused) > _PAUSED_LIMIT:
            self._paused.popitem(last=False)

    def _abandon(self, run: Run, end_ns: int) -> None:
        self.end(run, dict(ABANDONED), end_ns=end_ns)

    def forget(self) -> None:
        """Forget every run and pause."""
        self.live.clear()
        self._paused.clear()


handler: Final = Handler()
"""The handler of this process."""
