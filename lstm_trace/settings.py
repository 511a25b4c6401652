"""One frozen Settings: argument > environment > default."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from lstm_trace.redact import Redact, redactor, withhold

_log = logging.getLogger("lstm_trace")

_ON: Final = frozenset({"1", "true", "on", "yes"})
_OFF: Final = frozenset({"0", "false", "off", "no", ""})
VOCABULARIES: Final = ("openinference", "gen_ai")


def _flag(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in _ON:
        return True
    if lowered in _OFF:
        return False
    raise ValueError("accepted are on and off")


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _edges(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in _names(text))
    except ValueError:
        raise ValueError("accepted are rising whole numbers, such as 4,8,12,20") from None


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("accepted is a whole number") from None


def _redact(text: str) -> Redact | None:
    return redactor(text) if text.strip() else None


def _setting(default: Any, read: Callable[[str], Any], about: str, *, accepted: tuple[str, ...] = (), unreadable: Any = None) -> Any:
    # ``unreadable`` stands in for a variable that cannot be read, where the default would do harm.
    return field(default=default, metadata={"read": read, "about": about, "accepted": accepted, "unreadable": unreadable})


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting of lstm-trace. Each field is also an environment variable: ``LSTM_TRACE_`` and its name in capitals.

    ``redact`` is a function from text to text, or the name of one: ``pii``, ``secrets``, ``pii,secrets`` (see `lstm_trace.redact`) or
    ``pkg.mod:name``. Raises ValueError that names the field, the value and what is accepted.

    >>> Settings(events="log").events
    'log'
    """

    components: tuple[str, ...] = _setting((), _names, "classes or functions to decorate when their module is imported: pkg.mod:Name,…")
    auto: bool = _setting(False, _flag, "give every undecorated nn.LSTM, nn.GRU and nn.RNN a span of its own")
    release: str | None = _setting(None, str, "the release under comparison; default: service.version of the resource")
    conventions: tuple[str, ...] = _setting(VOCABULARIES, _names, "vocabularies on chain and LLM spans", accepted=VOCABULARIES)
    events: str = _setting("span", str, "where prediction events go", accepted=("span", "log", "both", "off"))
    max_events: int = _setting(64, _whole, "prediction events of one call at most; the span's own attributes summarise the rest")
    span: str = _setting("own", str, "own: a span a component call; event: an event on the current span instead", accepted=("own", "event"))
    content: bool = _setting(False, _flag, "record prompts, messages, documents, tool arguments and exception text")
    content_limit: int = _setting(4096, _whole, "characters of one recorded text at most")
    redact: Redact | str | None = _setting(
        None, _redact, "what every text passes before it is recorded: pii, secrets, both, or pkg.mod:name", unreadable=withhold
    )
    evaluation_span: str = _setting("auto", str, "where an evaluation's span stands", accepted=("auto", "child", "link"))
    cohort_edges: tuple[int, ...] = _setting((4, 8, 12, 20), _edges, "upper edges of the sequence-length cohorts, in steps")
    baggage: bool = _setting(False, _flag, "carry the upstream prediction to other processes as W3C baggage")
    judge: str | None = _setting(None, str, "chat model of judged evaluators: provider:model or python:pkg.mod:name")
    embeddings: str | None = _setting(None, str, "embedding model of context_relevance: provider:model or python:pkg.mod:name")
    store: str = _setting("lstm-traces", str, "folder of the local store")
    model_spans: str = _setting("langchain", str, "who writes the span of a model call, if both would", accepted=("langchain", "provider"))
    langchain_spans: str = _setting("ours", str, "who writes LangChain's spans beside another instrumentation", accepted=("ours", "theirs"))
    strict: bool = _setting(False, _flag, "raise our own mistakes instead of logging them; for tests")

    def __post_init__(self) -> None:
        if isinstance(self.redact, str):
            object.__setattr__(self, "redact", _redact(self.redact))
        elif self.redact is not None and not callable(self.redact):
            raise ValueError(f"redact={self.redact!r}: accepted are a function from text to text, and the name of one")
        for item in fields(self):
            accepted, value = item.metadata["accepted"], getattr(self, item.name)
            chosen = value if isinstance(value, tuple) else (value,)
            if accepted and not (chosen and set(chosen) <= set(accepted)):
                raise ValueError(f"{item.name}={value!r}: accepted are {', '.join(accepted)}")
        edges = self.cohort_edges
        if not edges or edges[0] < 1 or any(high <= low for low, high in itertools.pairwise(edges)):
            raise ValueError(f"cohort_edges={edges!r}: accepted are rising whole numbers from 1, such as (4, 8, 12, 20)")
        for name in ("max_events", "content_limit"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)!r}: accepted is a whole number from 0")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **given: Any) -> Settings:
        """Read ``LSTM_TRACE_*``; ``given`` fields win. A variable that cannot be read is logged in one line and its default stands."""
        env = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for item in fields(cls):
            variable = variable_of(item.name)
            if item.name in given or variable not in env:
                continue
            try:
                value = item.metadata["read"](env[variable])
                cls(**{item.name: value})
            except ValueError as error:
                instead = item.metadata["unreadable"]
                what = "the default stands" if instead is None else "every text is withheld"
                line = f"{variable}={env[variable]!r} is not usable, {what}: {error}"
                if environ is not None or line not in _said:  # the process's own environment is read more than once
                    _log.warning("%s", line)
                if environ is None:
                    _said.add(line)
                if instead is not None:
                    values[item.name] = instead
            else:
                values[item.name] = value
        return cls(**values, **given)

    def cohort(self, length: int) -> str:
        """Name the cohort of a sequence of ``length`` steps.

        >>> [Settings().cohort(n) for n in (0, 4, 5, 21)]
        ['0', '1-4', '5-8', '21+']
        """
        if length < 1:
            return "0"
        low = 1
        for edge in self.cohort_edges:
            if length <= edge:
                return f"{low}-{edge}" if low != edge else str(edge)
            low = edge + 1
        return f"{low}+"


_said: set[str] = set()


def variable_of(name: str) -> str:
    """Name the environment variable of a field: ``events`` is ``LSTM_TRACE_EVENTS``."""
    return f"LSTM_TRACE_{name.upper()}"


def table(settings: Settings) -> list[tuple[str, str, str]]:
    """List every setting as (environment variable, value in force, meaning)."""
    rows: list[tuple[str, str, str]] = []
    for item in fields(settings):
        value = getattr(settings, item.name)
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else {True: "on", False: "off", None: ""}.get(value, str(value))  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
        about = item.metadata["about"] + (f" ({' | '.join(item.metadata['accepted'])})" if item.metadata["accepted"] else "")
        rows.append((variable_of(item.name), shown, about))
    return rows
