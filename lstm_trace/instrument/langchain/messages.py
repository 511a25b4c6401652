"""Read what a model was asked with and what it answered, out of LangChain's own objects; no span in sight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Final, NamedTuple

_MODEL_KEYS_BY_RANK: Final = ("model", "model_name", "model_id", "deployment_name", "azure_deployment")
_MODEL_KEYS: Final = frozenset(_MODEL_KEYS_BY_RANK)


_PROVIDERS: Final = {
    "amazon_bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "google_anthropic_vertex": "gcp.vertex_ai",
    "google_genai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "ibm": "ibm.watsonx.ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "xai": "x_ai",
}
"""What LangChain calls providers for which OpenTelemetry has another name (well-known values of ``gen_ai.provider.name``)."""


class Asked(NamedTuple):
    """The model that a call asks for, what it is asked to do, and whose it is."""

    model: str
    operation: str = "chat"
    provider: str | None = None


class Answer(NamedTuple):
    """What a model's answer says about itself. Tokens are counts; log-probabilities are in nats."""

    model: str | None = None
    response_id: str | None = None
    finish_reasons: tuple[str, ...] | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    logprob_mean: float | None = None
    logprob_min: float | None = None


NOTHING: Final = Answer()
"""What is known of an answer that never came."""


def asked(operation: str, serialized: Any, given: Mapping[str, Any], metadata: Mapping[str, Any]) -> Asked:
    """Read the requested model and its provider.

    >>> asked("chat", {"id": ["langchain", "FakeListChatModel"]}, {}, {"ls_provider": "fakelistchatmodel"})
    Asked(model='FakeListChatModel', operation='chat', provider='fakelistchatmodel')
    """
    params = given.get("invocation_params")
    model: Any = None
    if params and not _MODEL_KEYS.isdisjoint(params):
        model = next((value for key in _MODEL_KEYS_BY_RANK if (value := _text(params.get(key)))), None)
    model = model or _text(metadata.get("ls_model_name")) or _class_name(serialized) or (_text(params.get("_type")) if params else None)
    provider = _text(metadata.get("ls_provider"))
    return Asked(model or "model", operation, None if provider is None else _PROVIDERS.get(provider, provider))


def answer(response: Any) -> Answer:
    """Read an ``LLMResult``: usage from the message, else from ``llm_output``; the rest from the response's metadata."""
    generations: list[Any] = [each for group in getattr(response, "generations", None) or () for each in group]
    if not generations:
        return NOTHING
    first = generations[0]
    message = getattr(first, "message", None)
    said: Any = getattr(message, "response_metadata", None)
    info: Any = getattr(first, "generation_info", None)
    output: Any = getattr(response, "llm_output", None)
    usage: Any = getattr(message, "usage_metadata", None)
    if not (said or info or output or usage):
        return NOTHING
    said, info, output = _mapping(said), _mapping(info), _mapping(output)
    found: dict[str, Any] = _counted(usage) if usage else _counted_raw(said, output)
    found["model"] = (
        _text(said.get("model_name")) or _text(said.get("model")) or _text(output.get("model_name")) or _text(output.get("model"))
    )
    found["response_id"] = _text(said.get("id")) or _text(output.get("id"))
    found["finish_reasons"] = _finish_reasons(generations) or None
    logprobs = _logprobs(said.get("logprobs") or info.get("logprobs") or said.get("logprobs_result") or info.get("logprobs_result"))
    if logprobs:
        found["logprob_mean"] = sum(logprobs) / len(logprobs)
        found["logprob_min"] = min(logprobs)
    return Answer(**found)


def _counted(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Read LangChain's own ``usage_metadata``."""
    found: dict[str, Any] = {
        "input_tokens": _count(usage.get("input_tokens")),
        "output_tokens": _count(usage.get("output_tokens")),
        "total_tokens": _count(usage.get("total_tokens")),
    }
    if details := usage.get("input_token_details"):
        found["cache_read"] = _count(details.get("cache_read"))
        found["cache_write"] = _count(details.get("cache_creation"))
    if details := usage.get("output_token_details"):
        found["reasoning"] = _count(details.get("reasoning"))
    return found


def _counted_raw(said: Mapping[str, Any], output: Mapping[str, Any]) -> dict[str, Any]:
    """Read what a provider's integration left as the provider sent it."""
    raw = _mapping(output.get("token_usage") or output.get("usage") or said.get("token_usage") or said.get("usage"))
    if not raw:
        return {}
    prompt = _count(raw.get("prompt_tokens", raw.get("input_tokens")))
    completion = _count(raw.get("completion_tokens", raw.get("output_tokens")))
    total = _count(raw.get("total_tokens"))
    if total is None and prompt is not None and completion is not None:
        total = prompt + completion
    cached = _mapping(raw.get("prompt_tokens_details")).get("cached_tokens", raw.get("cache_read_input_tokens"))
    return {
        "input_tokens": prompt,
        "output_tokens": completion,
        "total_tokens": total,
        "cache_read": _count(cached),
        "cache_write": _count(raw.get("cache_creation_input_tokens")),
        "reasoning": _count(_mapping(raw.get("completion_tokens_details")).get("reasoning_tokens")),
    }


def _finish_reasons(generations: Sequence[Any]) -> tuple[str, ...]:
    found: list[str] = []
    for each in generations:
        for source in (getattr(getattr(each, "message", None), "response_metadata", None), getattr(each, "generation_info", None)):
            reason = source and (
                source.get("finish_reason") or source.get("stop_reason") or source.get("done_reason") or source.get("stopReason")
            )
            if reason:
                found.append(str(reason))
                break
    return tuple(found)


def _logprobs(given: Any) -> list[float]:
    """Read log-probabilities of the answer's tokens, in the three shapes in which providers give them; what is not finite is left out."""
    tokens: Any = given.get("content") if isinstance(given, dict) else given
    if isinstance(tokens, list):
        values: Any = [token.get("logprob") for token in tokens if isinstance(token, dict)]
    else:
        values = given.get("token_logprobs") if isinstance(given, dict) else ()
    return [float(value) for value in values or () if isinstance(value, (int, float)) and isfinite(value)]


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
    if not isinstance(serialized, dict):
        return None
    identity: Any = serialized.get("id")
    if isinstance(identity, list) and identity:
        return str(identity[-1])
    return _text(serialized.get("name"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) or (value and isinstance(value, Mapping)) else {}


def _count(value: Any) -> int | None:
    return int(value) if isinstance(value, int) or (isinstance(value, float) and isfinite(value)) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
