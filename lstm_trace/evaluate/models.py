"""From what a user names to a LangChain chat or embedding model: an object, `provider:model`, or `python:pkg.mod:name`."""

from __future__ import annotations

import functools
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from lstm_trace.errors import BadInput
from lstm_trace.settings import Settings, variable_of

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings
    from langchain_core.language_models import BaseChatModel

_OURS: Final = "python:"


class Unavailable(Exception):
    """There is no such model here; the message says what is missing."""


def chat_model(judge: Any) -> BaseChatModel:
    """Return the chat model that ``judge`` is or names; None reads the setting. Raises Unavailable, or BadInput for a bad name."""
    named: Any = judge if judge is not None else Settings.from_env().judge
    if named is None:
        raise Unavailable(f"no judge: give judge= a LangChain chat model, or name one in {variable_of('judge')} (provider:model)")
    model: BaseChatModel = _named_chat_model(named) if isinstance(named, str) else named
    return model


def embedding_model(embeddings: Any) -> Embeddings:
    """Return the embedding model that ``embeddings`` is or names; None reads the setting. Raises Unavailable, or BadInput."""
    named: Any = embeddings if embeddings is not None else Settings.from_env().embeddings
    if named is None:
        raise Unavailable(
            f"no embedding model: give embeddings= a LangChain Embeddings, or name one in {variable_of('embeddings')} (provider:model)"
        )
    model: Embeddings = _named_embeddings(named) if isinstance(named, str) else named
    return model


def judge_name(judge: Any) -> str | None:
    """Tell by name which chat model ``judge`` is, None being the setting's; None without one. The model is not made."""
    named: Any = judge if judge is not None else Settings.from_env().judge
    return None if named is None else model_name(named)


def embeddings_name(embeddings: Any) -> str | None:
    """Tell by name which embedding model ``embeddings`` is, None being the setting's; None without one."""
    named: Any = embeddings if embeddings is not None else Settings.from_env().embeddings
    return None if named is None else model_name(named)


def model_name(model: Any) -> str:
    """Tell a model by name: ``openai:gpt-5-mini`` and the object that it names are both ``gpt-5-mini``.

    >>> model_name("openai:gpt-5-mini"), model_name("python:judges:house")
    ('gpt-5-mini', 'python:judges:house')
    """
    if isinstance(model, str):
        return model if model.startswith(_OURS) else model.partition(":")[2] or model
    return str(getattr(model, "model_name", None) or getattr(model, "model", None) or type(model).__name__)


@functools.cache
def _named_chat_model(name: str) -> Any:
    if name.startswith(_OURS):
        return python_object(name, "judge")
    _has_colon(name, "judge")
    try:
        from langchain.chat_models import init_chat_model
    except ModuleNotFoundError as error:
        raise Unavailable(f"{error.name} is not installed, which finds the judge {name!r}: pip install langchain") from None
    return _made(init_chat_model, name, "judge")


@functools.cache
def _named_embeddings(name: str) -> Any:
    if name.startswith(_OURS):
        return python_object(name, "embeddings")
    _has_colon(name, "embeddings")
    try:
        from langchain.embeddings import init_embeddings
    except ModuleNotFoundError as error:
        raise Unavailable(f"{error.name} is not installed, which finds the embedding model {name!r}: pip install langchain") from None
    return _made(init_embeddings, name, "embeddings")


def _has_colon(name: str, what: str) -> None:
    if ":" not in name:
        raise BadInput(f"{what} {name!r}: accepted are provider:model, such as openai:gpt-5-mini, and python:pkg.mod:name")


def _made(make: Any, name: str, what: str) -> Any:
    try:
        return make(name)
    except ImportError as error:
        raise Unavailable(f"{what} {name!r}: {error}") from None
    except Exception as error:  # noqa: BLE001 - without its key a provider's client raises an error of its own
        raise _unusable(name, what, error) from None


def _unusable(name: str, what: str, error: Exception) -> BadInput:
    """Say in one line why a model could not be made."""
    told = str(error).partition("\n")[0]
    return BadInput(f"{what} {name!r}: {told if isinstance(error, ValueError) else f'{type(error).__qualname__}: {told}'}")


def python_object(name: str, what: str) -> Any:
    """Import ``python:pkg.mod:name``; a class or function there is called without arguments. Raises BadInput."""
    module, _, attribute = name.removeprefix(_OURS).partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadInput(f"{what} {name!r}: {error}; accepted is python:pkg.mod:name of one, or of what makes one") from None
    except Exception as error:  # noqa: BLE001 - the module is the user's
        raise _unusable(name, what, error) from None
    try:
        return found() if callable(found) and _makes(found) else found
    except Exception as error:  # noqa: BLE001 - so is what makes it
        raise _unusable(name, what, error) from None


def _makes(found: Any) -> bool:
    return isinstance(found, type) or not (hasattr(found, "invoke") or hasattr(found, "embed_query"))
