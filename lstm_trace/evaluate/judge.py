"""Put an openevals prompt to a LangChain chat model and read its verdict; say what is missing where there is no judge."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lstm_trace.evaluate.matching import plain
from lstm_trace.evaluate.models import Unavailable, chat_model, model_name
from lstm_trace.evaluate.result import EvaluationResult, JudgeUsage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel


class UnusableVerdict(ValueError):
    """The judge answered, but not with a score from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's score from 0 to 1, its reasoning, and what asking it took."""

    score: float
    reasoning: str | None
    usage: JudgeUsage


def judged(judge: Any, prompt: Callable[[], str], threshold: float, **material: str) -> EvaluationResult:
    """Ask ``judge`` and label its score: ``pass`` from ``threshold`` upwards. ``skipped`` without a judge, ``error`` where it fails.

    ``judge`` is a LangChain chat model, its name, or None for the setting ``LSTM_TRACE_JUDGE``. ``prompt`` returns the openevals template
    (called late: openevals is an extra), ``material`` fills it.
    """
    if not 0.0 <= threshold <= 1.0:
        return EvaluationResult.error(ValueError(f"threshold={threshold!r}: accepted is a number from 0 to 1"))
    try:
        model = chat_model(judge)
        template = prompt()
    except Unavailable as missing:
        return EvaluationResult.skipped(str(missing))
    except ModuleNotFoundError as error:
        return EvaluationResult.skipped(f"{error.name} is not installed: pip install 'lstm-trace[judge]'")
    return _ask(model, template, threshold, material)


def _ask(model: BaseChatModel, template: str, threshold: float, material: dict[str, str]) -> EvaluationResult:
    from langchain_core.callbacks import get_usage_metadata_callback

    with get_usage_metadata_callback() as counted:
        try:
            score, reasoning = _verdict(_scorer(template, model)(**material))
        except Exception as error:  # noqa: BLE001 - a provider's client may raise anything; whatever it is, it is no score
            return EvaluationResult.error(error, _usage(model, counted.usage_metadata))
        usage = _usage(model, counted.usage_metadata)
    return EvaluationResult(score, "pass" if score >= threshold else "fail", reasoning, judge=usage)


def _scorer(template: str, model: BaseChatModel) -> Callable[..., Any]:
    from openevals.llm import create_llm_as_judge

    scorer: Callable[..., Any] = create_llm_as_judge(prompt=template, judge=model, continuous=True)
    return scorer


def _verdict(answer: Any) -> tuple[float, str | None]:
    score: Any = answer.get("score")
    if isinstance(score, bool):
        score = float(score)
    if not isinstance(score, int | float) or not 0 <= score <= 1:
        raise UnusableVerdict("the judge gave no score from 0 to 1")
    reasoning = answer.get("comment")
    return float(score), None if reasoning is None else str(reasoning)


def _usage(model: BaseChatModel, counted: dict[str, Any]) -> JudgeUsage:
    tokens_in = sum(usage.get("input_tokens", 0) for usage in counted.values())
    tokens_out = sum(usage.get("output_tokens", 0) for usage in counted.values())
    return JudgeUsage(str(next(iter(counted), None) or model_name(model)), tokens_in, tokens_out)


@functools.cache
def prompts_version() -> str:
    """Version of the judged evaluators: the prompts are those of openevals, so its version is theirs; ``none`` without it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"openevals-{version('openevals')}"
    except PackageNotFoundError:
        return "none"


def as_text(material: Any) -> str:
    r"""Write what a judge is to read: a text as it is, documents one below the other, the rest as JSON.

    >>> as_text(["Bring the receipt.", {"page_content": "30 days."}])
    'Bring the receipt.\n\n30 days.'
    """
    return "\n\n".join(texts(material))


def texts(material: Any) -> list[str]:
    """List the texts of ``material``: a string, a LangChain Document or message, a mapping, or a list of them."""
    if material is None:
        return []
    if isinstance(material, list | tuple):
        return [text for each in material for text in texts(each)]
    if isinstance(material, dict):
        inside = next((material[key] for key in ("page_content", "content", "text") if key in material), None)
        return texts(inside) if inside is not None else [_json(material)]
    for name in ("page_content", "text", "content"):
        inside = getattr(material, name, None)
        if isinstance(inside, str):
            return [inside]
    value = plain(material)
    return [value if isinstance(value, str) else _json(value)]


def _json(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, default=_jsonable)


def _jsonable(value: Any) -> Any:
    found = plain(value)
    return str(value) if found is value else found
