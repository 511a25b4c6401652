"""The claims handbook, one article an intent and topic, and a retriever over the articles of one branch."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore

BRANCHES: dict[str, tuple[str, ...]] = {
    "intake": ("report_damage",),
    "casework": ("claim_status", "close_claim"),
    "appeals": ("dispute_payout",),
    "repairs": ("book_repair", "rental_car"),
}
"""Branch of the agent -> intents whose articles it searches."""

BRANCH_OF = {intent: branch for branch, intents in BRANCHES.items() for intent in intents}


@dataclass(frozen=True, slots=True)
class Article:
    """One page of the handbook. ``fact`` is the piece of ``text`` that a right answer must state."""

    intent: str
    topic: str
    text: str
    fact: str

    @property
    def id(self) -> str:
        """Name the article: ``book_repair/time``."""
        return f"{self.intent}/{self.topic}"


ARTICLES = (
    Article(
        "report_damage", "time",
        "How long does it take after you report damage, and when is it done? "
        "We call within 24 hours. When you report damage at night you hear a tape.",
        "within 24 hours",
    ),
    Article(
        "report_damage", "papers",
        "Which documents do you need to send or upload to report damage? Four photos and the police report. Originals stay with you.",
        "Four photos and the police report",
    ),
    Article(
        "report_damage", "cost",
        "What does it cost to report damage, and do you pay a fee? The first visit is ours. An excess may follow.",
        "The first visit is ours",
    ),
    Article(
        "claim_status", "time",
        "How long does the status of a claim take, and when is it done? A decision comes in 10 working days. It is sent to the app.",
        "10 working days",
    ),
    Article(
        "claim_status", "papers",
        "Which documents do you need to send or upload for the status of a claim? "
        "The claim number and a photo id. Should the claim change, send them again.",
        "The claim number and a photo id",
    ),
    Article(
        "claim_status", "cost",
        "What does the status of a claim cost, and do you pay a fee? Letters are 5 euros each. Should you ask to pay later, we wait.",
        "5 euros each",
    ),
    Article(
        "dispute_payout", "time",
        "How long does a dispute of a payout take? The panel has 30 days. It reads each letter and hears both sides.",
        "30 days",
    ),
    Article(
        "dispute_payout", "papers",
        "Which documents do you need to send or upload to dispute a payout? The settlement letter and a second estimate. We keep copies.",
        "The settlement letter and a second estimate",
    ),
    Article(
        "dispute_payout", "cost",
        "What does it cost to dispute a payout, and do you pay a fee? The first one is free. Another dispute of the same payout is not.",
        "The first one is free",
    ),
    Article(
        "book_repair", "time",
        "How long does a repair take when you book it, and when is it done? It takes 3 working days. The shop will say which days.",
        "3 working days",
    ),
    Article(
        "book_repair", "papers",
        "Which documents do you need to send or upload to book a repair? The estimate and the registration. The shop asks for no more.",
        "The estimate and the registration",
    ),
    Article(
        "book_repair", "cost",
        "What does it cost to book a repair, and do you pay a fee? "
        "An excess of 300 euros. How much you pay to book a repair abroad is up to the shop.",
        "300 euros",
    ),
    Article(
        "rental_car", "time",
        "How long does a rental car stay with you, and when is it due? Up to 14 days. After that the rental ends.",
        "14 days",
    ),
    Article(
        "rental_car", "papers",
        "Which documents do you need to send or upload for a rental car? The driving licence and a credit card. Copies will do.",
        "The driving licence and a credit card",
    ),
    Article(
        "rental_car", "cost",
        "What does a rental car cost, and do you pay a fee? We cover 40 euros a day. Much larger cars you pay yourself at the rental desk.",
        "40 euros a day",
    ),
    Article(
        "close_claim", "time",
        "How long does it take to close a claim, and when is it done? It is closed in 2 days. The app says so.",
        "2 days",
    ),
    Article(
        "close_claim", "papers",
        "Which documents do you need to close a claim? The signed withdrawal form. No other page.",
        "The signed withdrawal form",
    ),
    Article(
        "close_claim", "cost",
        "What does it cost to close a claim, and do you pay a fee? Nothing while no work was done. Later the shop bills its hours.",
        "Nothing while no work was done",
    ),
)  # fmt: skip

_COMMON = "a an and are at be by do does for from have how i in is it me my of on or the there this to we what which you your"
_STOP = frozenset(_COMMON.split())


def words(text: str) -> list[str]:
    """Split a text into lower-case words, without the commonest ones and without a plural's or verb's last s.

    >>> words("What costs does it have?")
    ['cost']
    """
    return [word.removesuffix("s") for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in _STOP]


class HashedWords(Embeddings):
    """A text as counts of its words, hashed into ``size`` buckets: deterministic, local, no training."""

    def __init__(self, size: int = 512) -> None:
        self.size = size

    def embed_query(self, text: str) -> list[float]:
        vector = [0.0] * self.size
        for word in words(text):
            vector[zlib.crc32(word.encode()) % self.size] += 1.0
        return vector

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


class BranchRetriever(BaseRetriever):
    """The ``k`` articles of one branch that are nearest to the query, best first, each with its ``score`` (cosine) in its metadata."""

    store: InMemoryVectorStore
    k: int = 2

    @classmethod
    def of(cls, branch: str) -> BranchRetriever:
        """Index the articles of ``branch``."""
        store = InMemoryVectorStore(HashedWords())
        store.add_documents([
            Document(article.text, id=article.id, metadata={"id": article.id})
            for article in ARTICLES
            if article.intent in BRANCHES[branch]
        ])  # fmt: skip
        return cls(name=branch, store=store)

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        found = self.store.similarity_search_with_score(query, k=self.k)
        return [Document(doc.page_content, id=doc.id, metadata={**doc.metadata, "score": float(score)}) for doc, score in found]
