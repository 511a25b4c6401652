"""Read what a model was asked with and what it answered, out of LangChain's own objects; no span in sight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_MODEL_KEYS: Final = ("model", "model_name", "model_id", "deployment_name", "azure_deployment")


@dataclass(frozen=True, slots=True)
class Asked:
    """The model that a call asks for, and whose it is."""

    model: str
    provider: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model's answer says about itself. Tokens are counts; log-probabilities are in nats."""

    model: str | None = None
    response_id: str | None = None
    finish_reasons: tuple[str, ...] = ()
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    logprob_mean: float | None = None
    logprob_min: float | None = None


def asked(serialized: Any, given: Mapping[str, Any], metadata: Mapping[str, Any]) -> Asked:
    """Read the requested model and its provider.

    >>> asked({"id": ["langchain", "FakeListChatModel"]}, {}, {"ls_provider": "fakelistchatmodel"})
    Asked(model='FakeListChatModel', provider='fakelistchatmodel')
    """
    params: Mapping[str, Any] = given.get("invocation_params") or {}
    model = next((value for key in _MODEL_KEYS if isinstance(value := params.get(key), str) and value), None)
    model = model or _text(metadata.get("ls_model_name")) or _class_name(serialized) or _text(params.get("_type")) or "model"
    return Asked(model, _text(metadata.get("ls_provider")))


def answer(response: Any) -> Answer:
    """Read an ``LLMResult``: usage from the message, else from ``llm_output``; the rest from the response's metadata."""
    generations: Sequence[Any] = [each for group in getattr(response, "generations", ()) or () for each in group]
    output: Mapping[str, Any] = getattr(response, "llm_output", None) or {}
    messages = [message for each in generations if (message := getattr(each, "message", None)) is not None]
    said: Mapping[str, Any] = (getattr(messages[0], "response_metadata", None) or {}) if messages else {}
    usage = _usage(messages, said, output)
    logprobs = _logprobs(generations)
    return Answer(
        _text(said.get("model_name")) or _text(said.get("model")) or _text(output.get("model_name")) or _text(output.get("model")),
        _text(said.get("id")) or _text(output.get("id")),
        tuple(_finish_reasons(generations)),
        **usage,
        logprob_mean=sum(logprobs) / len(logprobs) if logprobs else None,
        logprob_min=min(logprobs) if logprobs else None,
    )


def _usage(messages: Sequence[Any], said: Mapping[str, Any], output: Mapping[str, Any]) -> dict[str, int | None]:
    found = next((usage for message in messages if (usage := getattr(message, "usage_metadata", None))), None)
    if found is not None:
        into: Mapping[str, Any] = found.get("input_token_details") or {}
        out: Mapping[str, Any] = found.get("output_token_details") or {}
        return {
            "input_tokens": _count(found.get("input_tokens")),
            "output_tokens": _count(found.get("output_tokens")),
            "total_tokens": _count(found.get("total_tokens")),
            "cache_read": _count(into.get("cache_read")),
            "cache_write": _count(into.get("cache_creation")),
            "reasoning": _count(out.get("reasoning")),
        }
    raw = next(
        (each for source in (output, said) for key in ("token_usage", "usage") if isinstance(each := source.get(key), Mapping) and each), {}
    )
    prompt = _first(raw, "prompt_tokens", "input_tokens")
    completion = _first(raw, "completion_tokens", "output_tokens")
    total = _first(raw, "total_tokens")
    into = _mapping(raw.get("prompt_tokens_details"))
    out = _mapping(raw.get("completion_tokens_details"))
    return {
        "input_tokens": prompt,
        "output_tokens": completion,
        "total_tokens": total if total is not None or prompt is None or completion is None else prompt + completion,
        "cache_read": _count(_first(into, "cached_tokens") or raw.get("cache_read_input_tokens")),
        "cache_write": _count(raw.get("cache_creation_input_tokens")),
        "reasoning": _first(out, "reasoning_tokens"),
    }


def _finish_reasons(generations: Sequence[Any]) -> list[str]:
    found: list[str] = []
    for each in generations:
        sources = (getattr(getattr(each, "message", None), "response_metadata", None), getattr(each, "generation_info", None))
        reason = next((r for s in sources if s for k in ("finish_reason", "stop_reason", "done_reason") if (r := _text(s.get(k)))), None)
        if reason is not None:
            found.append(reason)
    return found


def _logprobs(generations: Sequence[Any]) -> list[float]:
    """Log-probabilities of the answer's tokens, in the two shapes in which providers give them."""
    for each in generations:
        for source in (getattr(getattr(each, "message", None), "response_metadata", None), getattr(each, "generation_info", None)):
            given: Any = source.get("logprobs") if source else None
            if isinstance(given, Mapping):
                tokens: Any = given.get("content")
                values: Any = [token.get("logprob") for token in tokens] if isinstance(tokens, Sequence) else given.get("token_logprobs")
                kept = [float(value) for value in values or () if isinstance(value, (int, float))]
                if kept:
                    return kept
    return []


def document_facts(document: Any) -> tuple[str | None, float | None]:
    """Return a retrieved document's id and its score, where it has them."""
    metadata = _mapping(getattr(document, "metadata", None))
    found = getattr(document, "id", None)
    if found is None:
        found = next((value for key in ("id", "doc_id", "document_id") if (value := metadata.get(key)) is not None), None)
    score = next(
        (value for key in ("relevance_score", "score", "_score", "similarity_score") if (value := metadata.get(key)) is not None), None
    )
    try:
        number = None if score is None else float(score)
    except (TypeError, ValueError):
        number = None
    return (None if found is None else str(found)), number


def _class_name(serialized: Any) -> str | None:
    if not isinstance(serialized, Mapping):
        return None
    identity: Any = serialized.get("id")
    if isinstance(identity, Sequence) and not isinstance(identity, str) and identity:
        return str(identity[-1])
    return _text(serialized.get("name"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _first(source: Mapping[str, Any], *keys: str) -> int | None:
    return next((count for key in keys if (count := _count(source.get(key))) is not None), None)


def _count(value: Any) -> int | None:
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
