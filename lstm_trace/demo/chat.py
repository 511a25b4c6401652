"""`local-extractive`, a deterministic chat model that answers with a sentence of its documents; and any real model by name."""

from __future__ import annotations

import re
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult

from lstm_trace.demo.knowledge import words
from lstm_trace.errors import BadInput

LOCAL = "local-extractive"


def count_tokens(text: str) -> int:
    """Count the tokens of a text as `local-extractive` defines them: words and single punctuation marks.

    >>> count_tokens("How long does it take?")
    6
    """
    return len(re.findall(r"\w+|[^\w\s]", text))


class LocalExtractive(BaseChatModel):
    """Answer with one sentence of the system message, chosen by words in common with the human message; no network, no weights.

    It can be wrong in an ordinary way: the sentence with the most words in common is not always the one that answers.
    """

    model_name: str = LOCAL

    @property
    def _llm_type(self) -> str:
        return LOCAL

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name}

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: CallbackManagerForLLMRun | None = None, **kwargs: Any
    ) -> ChatResult:
        context = " ".join(message.text for message in messages if message.type == "system")
        question = " ".join(message.text for message in messages if message.type == "human")
        answer = best_sentence(context, question)
        tokens_in, tokens_out = sum(count_tokens(message.text) for message in messages), count_tokens(answer)
        usage = UsageMetadata(input_tokens=tokens_in, output_tokens=tokens_out, total_tokens=tokens_in + tokens_out)
        metadata = {"model_name": self.model_name, "model_provider": "lstm_trace", "finish_reason": "stop"}
        return ChatResult(generations=[ChatGeneration(message=AIMessage(answer, usage_metadata=usage, response_metadata=metadata))])


def best_sentence(context: str, question: str) -> str:
    """Pick the sentence of ``context`` that shares most words with ``question``; where that is itself a question, the one after it.

    The first of equals wins; the answer is empty where there is no sentence.

    >>> best_sentence("Bring a pen. How long does a repair take? It is done in 3 days.", "How long does it take?")
    'It is done in 3 days.'
    """
    asked = set(words(question))
    sentences: list[str] = [sentence.strip() for sentence in re.findall(r"[^.!?\n]+[.!?]", context)]
    if not sentences:
        return ""
    best = max(range(len(sentences)), key=lambda index: len(asked & set(words(sentences[index]))))
    return sentences[min(best + 1, len(sentences) - 1)] if sentences[best].endswith("?") else sentences[best]


def chat_model(name: str | None) -> BaseChatModel:
    """Make the local model, or a real one by LangChain's name for it (``openai:gpt-4o-mini``, ``ollama:llama3``).

    Raises BadInput that names the model and why it cannot be used.
    """
    if name is None or name == LOCAL:
        return LocalExtractive()
    try:
        from langchain.chat_models import init_chat_model

        chosen: BaseChatModel = init_chat_model(name, temperature=0)
        return chosen
    except Exception as error:  # each provider raises its own kinds; all of them mean that this model cannot be used
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"--model {name}: {reason}; accepted are {LOCAL} and names such as openai:gpt-4o-mini or ollama:llama3") from error
