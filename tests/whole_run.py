"""One small claims agent with a real nn.LSTM in front of a LangGraph graph: what the whole-run tests trace."""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from langchain_core.documents import Document
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.retrievers import BaseRetriever
from langgraph.graph import END, START, StateGraph
from torch import Tensor, nn

import lstm_trace

LABELS = ("refund", "repair")
EVENTS = 14


class IntentClassifier(nn.Module):
    """Embedding, LSTM, head; the weights are fixed so that the confidence is the same on every machine to six digits."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(8, 4)
        self.lstm = nn.LSTM(4, 6, batch_first=True)
        self.head = nn.Linear(6, len(LABELS))
        with torch.no_grad():
            for number, parameter in enumerate(self.parameters()):
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).reshape(parameter.shape) * (1 + number % 3))

    def forward(self, events: Tensor) -> Tensor:
        output, _ = self.lstm(self.embed(events))
        return self.head(output[:, -1])


class State(TypedDict, total=False):
    events: list[int]
    intent: str
    documents: list[Document]
    answer: str


class Shelf(BaseRetriever):
    """A retriever over two documents."""

    def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        return [
            Document(f"How to ask for a {query}", id=f"{query}-1", metadata={"relevance_score": 0.75}),
            Document(f"More of {query}", id=f"{query}-2", metadata={"relevance_score": 0.5}),
        ]


def chat_model() -> GenericFakeChatModel:
    answer = AIMessage(
        "Ask within 30 days.",
        usage_metadata={"input_tokens": 12, "output_tokens": 5, "total_tokens": 17},
        response_metadata={"model_name": "scripted-1", "finish_reason": "stop"},
    )
    return GenericFakeChatModel(messages=iter([answer]))


def build() -> Any:
    """Return a function that answers one session and gives back (ticket, trace reference)."""
    classifier = lstm_trace.trace_lstm(
        IntentClassifier().eval(), name="intent", version="3", preprocessing="2", labels=LABELS, padding_idx=0
    )
    shelf, chat = Shelf(), chat_model()

    @torch.inference_mode()
    def classify(state: State) -> State:
        return {"intent": LABELS[int(classifier(torch.tensor([state["events"]])).argmax(-1))]}

    def retrieve(state: State) -> State:
        return {"documents": shelf.invoke(state["intent"])}

    def answer(state: State) -> State:
        return {"answer": str(chat.invoke(f"{state['documents'][0].page_content}?").content)}

    graph: Any = StateGraph(State)
    for node in (classify, retrieve, answer):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "classify")
    graph.add_edge("classify", "retrieve")
    graph.add_edge("retrieve", "answer")
    graph.add_edge("answer", END)
    agent = graph.compile(name="claims-agent")

    @lstm_trace.trace_chain(name="claims", session=lambda args, kwargs: args[0])
    def handle(session: str, events: list[int]) -> tuple[State, str]:
        ticket: State = agent.invoke({"events": events})
        ref = lstm_trace.trace_ref()
        lstm_trace.record_evaluation(ref, "answer_quality", score=1.0, label="pass", evaluator_version="1")
        return ticket, ref

    return handle
