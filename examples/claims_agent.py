"""A claims agent in front of customers, in one file: an LSTM reads the events of a session, a LangGraph graph answers.

    pip install 'lstm-trace[demo]' fastapi uvicorn
    python examples/claims_agent.py                                  # answers two sessions and shows where the spans are
    uvicorn examples.claims_agent:app                                # the same behind HTTP
    curl localhost:8000/answer -H 'content-type: application/json' -d '{"id": "s-1", "events": [3, 1, 4], "message": "How long?"}'
    curl localhost:8000/feedback -H 'content-type: application/json' -d '{"ref": "<ref of the answer>", "rating": "down"}'

The classifier here is not trained: `lstm-trace demo` shows a trained one, with what its traces can tell.
"""

from typing import Any, TypedDict

import torch
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel

import lstm_trace

INTENTS = ("report_damage", "claim_status", "dispute_payout")
HANDBOOK = {
    "report_damage": "Send four photos and the police report.",
    "claim_status": "A decision comes in 10 working days.",
    "dispute_payout": "The panel has 30 days.",
}


@lstm_trace.trace_lstm(name="intent", version="1", preprocessing="last-20", labels=INTENTS)
class IntentClassifier(torch.nn.Module):
    """Event numbers of shape (batch, time) in, logits of shape (batch, intents) out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(32, 16)
        self.lstm = torch.nn.LSTM(16, 32, batch_first=True)
        self.head = torch.nn.Linear(32, len(INTENTS))

    def forward(self, events: torch.Tensor) -> torch.Tensor:
        output, _ = self.lstm(self.embed(events))
        return self.head(output[:, -1])


class Ticket(TypedDict, total=False):
    events: list[int]
    message: str
    intent: str
    answer: str


def build(classifier: torch.nn.Module, chat: Any) -> Any:
    def classify(ticket: Ticket) -> Ticket:
        with torch.inference_mode():
            return {"intent": INTENTS[int(classifier(torch.tensor([ticket["events"][-20:]])).argmax())]}

    def answer(ticket: Ticket) -> Ticket:
        return {"answer": chat.invoke(f"{HANDBOOK[ticket['intent']]}\n\n{ticket['message']}").text}

    graph = StateGraph(Ticket)
    graph.add_node("classify", classify)
    graph.add_node("answer", answer)
    graph.add_edge(START, "classify")
    graph.add_edge("classify", "answer")
    graph.add_edge("answer", END)
    return graph.compile(name="claims-agent")


providers = lstm_trace.configure(service_name="claims-agent", release="2026.11.2")
lstm_trace.instrument()
torch.manual_seed(1)
agent = build(IntentClassifier().eval(), FakeListChatModel(responses=list(HANDBOOK.values())))


@lstm_trace.trace_chain(name="claims", session="session")
def answer(session: str, events: list[int], message: str) -> dict[str, str]:
    """Answer one message. The reference goes out with the answer: feedback comes back with it, in an hour or in a week."""
    ticket: Ticket = agent.invoke({"events": events, "message": message})
    ref = lstm_trace.trace_ref()
    lstm_trace.record_evaluation(ref, "answered", score=float(bool(ticket["answer"])), label="pass" if ticket["answer"] else "fail")
    return {"answer": ticket["answer"], "ref": ref}


class Question(BaseModel):
    id: str
    events: list[int]
    message: str


class Feedback(BaseModel):
    ref: str
    rating: str


try:
    from fastapi import FastAPI
except ImportError:  # plain functions do as well
    app = None
else:
    app = FastAPI()

    @app.post("/answer")
    def http_answer(question: Question) -> dict[str, str]:
        return answer(question.id, question.events, question.message)

    @app.post("/feedback")
    def http_feedback(feedback: Feedback) -> dict[str, str]:
        return {"id": lstm_trace.record_feedback(feedback.ref, feedback.rating)}


if __name__ == "__main__":
    said = answer("s-1", [3, 1, 4], "How long does it take?")
    answer("s-2", [1 + number % 30 for number in range(26)], "What do you need from me?")
    lstm_trace.record_feedback(said["ref"], "down")
    providers.shutdown()
    print(said["answer"], "\nspans are in", providers.store or providers.endpoint)
