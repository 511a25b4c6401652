"""The claims-support agent: classify → route → retrieve → answer, as a LangGraph graph around the LSTM."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command
from opentelemetry import trace
from torch import Tensor, inference_mode

import lstm_trace
from lstm_trace.demo.judging import judge
from lstm_trace.demo.knowledge import BRANCH_OF, BRANCHES, BranchRetriever
from lstm_trace.demo.model import IntentClassifier
from lstm_trace.demo.sessions import INTENTS, Session
from lstm_trace.facts import TraceRef

PROMPT = "Answer the customer with one fact from these articles.\n\n"

Classify = Callable[[Sequence[Sequence[str]]], Tensor]
Update = dict[str, Any]


class Ticket(TypedDict):
    """What the graph passes from node to node."""

    session: Session
    intent: str
    branch: str
    documents: list[Document]
    answer: str
    steps: Annotated[dict[str, TraceRef], operator.or_]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One answered session: the final ticket, the reference of its trace, and whether the answer was right."""

    ticket: Ticket
    ref: str
    right: bool


def build_graph(classifier: Classify, chat: BaseChatModel) -> Any:
    """Compile the agent. Each branch has a retrieval node of its own, so the chosen branch is a step of the trajectory."""

    def classify(ticket: Ticket) -> Update:
        with inference_mode():
            logits = classifier([ticket["session"].window])
        return {"intent": INTENTS[int(logits.argmax(-1))], "steps": {"classify": this_step()}}

    def route(ticket: Ticket) -> Command[str]:
        legal = "lawyer" in ticket["session"].message
        branch = "appeals" if legal else BRANCH_OF[ticket["intent"]]
        return Command(update={"branch": branch, "steps": {"route": this_step()}}, goto=f"retrieve_{branch}")

    def retrieve_from(branch: str) -> Callable[[Ticket], Update]:
        retriever = BranchRetriever.of(branch)
        return lambda ticket: {"documents": retriever.invoke(question(ticket)), "steps": {"retrieve": this_step()}}

    def answer(ticket: Ticket) -> Update:
        articles = "\n".join(document.page_content for document in ticket["documents"])
        return {"answer": chat.invoke([SystemMessage(PROMPT + articles), HumanMessage(question(ticket))]).text}

    graph: Any = StateGraph(Ticket)
    graph.add_node("classify", classify)
    graph.add_node("route", route, destinations=tuple(f"retrieve_{branch}" for branch in BRANCHES))
    graph.add_node("answer", answer)
    for branch in BRANCHES:
        graph.add_node(f"retrieve_{branch}", retrieve_from(branch))
        graph.add_edge(f"retrieve_{branch}", "answer")
    graph.add_edge(START, "classify")
    graph.add_edge("classify", "route")
    graph.add_edge("answer", END)
    return graph.compile(name="claims-agent")


def this_step() -> TraceRef:
    """Refer to the span of the step that runs now: a score can judge one step as well as a whole trace."""
    span = trace.get_current_span().get_span_context()
    return TraceRef(span.trace_id, span.span_id, span.trace_flags.sampled)


def question(ticket: Ticket) -> str:
    """Say what the customer asks, with the matter that the classifier read from the events."""
    return f"{ticket['intent'].replace('_', ' ')}: {ticket['session'].message}"


def make_agent(classifier: IntentClassifier, chat: BaseChatModel, *, version: str, preprocessing: str) -> Callable[[Session], Outcome]:
    """Trace the classifier and the whole handling of a session; what comes back answers one session.

    The length that is declared is what the session holds, not what the preprocessing left of it: a release that cuts sequences
    short would otherwise hide its long sessions in the short cohorts.
    """
    traced = lstm_trace.trace_lstm(
        classifier,
        name="intent",
        version=version,
        preprocessing=preprocessing,
        labels=INTENTS,
        lengths=lambda args, kwargs: [len(window) for window in args[0]],
    )
    graph = build_graph(traced, chat)

    @lstm_trace.trace_chain(name="claims", session=lambda args, kwargs: args[0].id)
    def handle(session: Session) -> Outcome:
        ticket: Ticket = graph.invoke({"session": session})
        ref = lstm_trace.trace_ref()
        judgements = judge(
            session, ticket["intent"], ticket["branch"], [doc.metadata["id"] for doc in ticket["documents"]], ticket["answer"]
        )
        for judgement in judgements:
            judged = ticket["steps"][judgement.step] if judgement.step else ref
            lstm_trace.record_evaluation(
                judged, judgement.name, score=float(judgement.passed), label="pass" if judgement.passed else "fail", evaluator_version="1"
            )
        return Outcome(ticket, ref, judgements[-1].passed)

    return handle
