"""The local chat model, its retriever, and `--model` for a real one."""

from __future__ import annotations

import pytest

pytest.importorskip("langchain_core")

from langchain_core.messages import HumanMessage, SystemMessage

from lstm_trace.demo.chat import LOCAL, LocalExtractive, best_sentence, chat_model, count_tokens
from lstm_trace.demo.knowledge import ARTICLES, BRANCHES, BranchRetriever
from lstm_trace.demo.sessions import INTENTS, MESSAGES, TOPICS
from lstm_trace.errors import BadInput

ASKED = [SystemMessage("How long is a rental? Up to 14 days. Bring a card."), HumanMessage("rental: How long is it?")]


def test_the_answer_is_a_sentence_of_the_context_and_always_the_same_one():
    assert {LocalExtractive().invoke(ASKED).text for _ in range(3)} == {"Up to 14 days."}


def test_it_names_itself_and_counts_the_tokens_of_what_it_read_and_wrote():
    answer = LocalExtractive().invoke(ASKED)
    assert answer.usage_metadata == {"input_tokens": 15 + 7, "output_tokens": 5, "total_tokens": 27}
    assert count_tokens(ASKED[0].text) == 15
    assert count_tokens(ASKED[1].text) == 7
    assert answer.response_metadata["model_name"] == LOCAL
    assert answer.response_metadata["finish_reason"] == "stop"


def test_no_context_gives_an_empty_answer():
    assert best_sentence("", "How long?") == ""


def test_a_question_in_last_place_stands_for_itself():
    assert best_sentence("Bring a card. How long is a rental?", "rental: how long?") == "How long is a rental?"


def test_every_intent_and_topic_has_one_article_that_states_its_fact():
    assert sorted((article.intent, article.topic) for article in ARTICLES) == sorted((i, t) for i in INTENTS for t in TOPICS)
    assert all(article.fact in article.text for article in ARTICLES)
    assert sorted(intent for intents in BRANCHES.values() for intent in intents) == sorted(INTENTS)


def test_a_branch_finds_only_its_own_articles_best_first_with_scores():
    found = BranchRetriever.of("repairs").invoke("book repair: What does it cost me?")
    assert found[0].id == "book_repair/cost"
    assert {doc.metadata["id"].split("/")[0] for doc in found} <= set(BRANCHES["repairs"])
    assert found[0].metadata["score"] > found[1].metadata["score"] > 0


def test_retrieval_and_answers_are_good_but_not_perfect():
    """Base rates of the handbook with the right intent and branch: faults that both releases share."""
    asked = found = answered = 0
    for article in ARTICLES:
        branch = next(name for name, intents in BRANCHES.items() if article.intent in intents)
        retriever = BranchRetriever.of(branch)
        for message in MESSAGES[article.topic]:
            question = f"{article.intent.replace('_', ' ')}: {message}"
            documents = retriever.invoke(question)
            asked += 1
            if article.id in [doc.id for doc in documents]:
                found += 1
                answered += article.fact in best_sentence("\n".join(doc.page_content for doc in documents), question)
    assert 0.90 < found / asked < 0.99
    assert 0.90 < answered / found < 0.99


@pytest.mark.parametrize("name", [None, LOCAL])
def test_the_local_model_is_the_default_and_has_a_name(name):
    assert isinstance(chat_model(name), LocalExtractive)


@pytest.mark.parametrize("name", ["nobody:nothing", "openai:gpt-4o-mini", "no-provider-at-all"])
def test_a_model_that_cannot_be_had_is_one_line_that_names_it(name, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(BadInput) as caught:
        chat_model(name)
    assert str(caught.value).startswith(f"--model {name}: ")
    assert "accepted are" in str(caught.value)
    assert "\n" not in str(caught.value)
