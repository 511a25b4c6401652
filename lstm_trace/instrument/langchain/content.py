"""What people wrote, as text: only with content capture on, every string of it redacted before it is put into JSON, and bounded."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from lstm_trace import conventions as c
from lstm_trace.recorder import Recorder
from lstm_trace.redact import WITHHELD, safely

Attributes = dict[str, Any]

_ROLES: Final = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant"}
_DEEPEST: Final = 24
_CUT: Final = "…"


class Content:
    """Writes inputs and outputs in the vocabularies that are switched on.

    Strings are redacted one by one, before JSON escapes them: a redactor would miss the card number behind an escaped line break. What
    cannot be made into text is withheld and costs nothing else.
    """

    def __init__(self, recorder: Recorder, openinference: bool, gen_ai: bool) -> None:
        settings = recorder.settings
        self._redact = settings.redact
        self._hides: Callable[[str], bool] | None = getattr(settings.redact, "hides", None)
        self._limit = settings.content_limit
        self._openinference = openinference
        self._gen_ai = gen_ai

    def input(self, value: Any) -> Attributes:
        """Return what a chain was given."""
        return {c.OI_INPUT: self.shown(value)} if self._openinference else {}

    def output(self, value: Any) -> Attributes:
        """Return what a chain gave back."""
        return {c.OI_OUTPUT: self.shown(value)} if self._openinference else {}

    def asked(self, messages: Any) -> Attributes:
        """Return the messages or the prompt that a model was given."""
        said = [each for group in messages or () for each in (group if isinstance(group, list) else [group])]
        return self._messages(said, c.OI_INPUT, c.GEN_AI_INPUT_MESSAGES)

    def answered(self, response: Any) -> Attributes:
        """Return the messages of a model's answer."""
        found = [each for group in getattr(response, "generations", None) or () for each in group]
        return self._messages(
            [getattr(each, "message", None) or getattr(each, "text", "") for each in found], c.OI_OUTPUT, c.GEN_AI_OUTPUT_MESSAGES
        )

    def _messages(self, said: Sequence[Any], openinference: str, gen_ai: str) -> Attributes:
        if not said:
            return {}
        text = self._json(said, _Walk(self).messages)
        return {name: text for name, on in ((openinference, self._openinference), (gen_ai, self._gen_ai)) if on}

    def tool_arguments(self, value: Any) -> Attributes:
        """Return the arguments of a tool call."""
        return self._in_both(value, c.OI_INPUT, c.GEN_AI_TOOL_ARGUMENTS)

    def tool_result(self, value: Any) -> Attributes:
        """Return the result of a tool call."""
        return self._in_both(getattr(value, "content", value), c.OI_OUTPUT, c.GEN_AI_TOOL_RESULT)

    def _in_both(self, value: Any, openinference: str, gen_ai: str) -> Attributes:
        text = self.shown(value)
        return {name: text for name, on in ((openinference, self._openinference), (gen_ai, self._gen_ai)) if on}

    def documents(self, documents: Sequence[Any]) -> Attributes:
        """Return the text of retrieved documents."""
        if not self._openinference:
            return {}
        return {
            f"{c.OI_DOCUMENTS}{index}.document.content": self.shown(getattr(each, "page_content", each))
            for index, each in enumerate(documents)
        }

    def event(self, data: Any) -> Attributes:
        """Return the data of a custom event."""
        return {c.CUSTOM_EVENT_DATA: self.shown(data)}

    def shown(self, value: Any) -> str:
        """Return any value as text: a string as it is, the rest as JSON; redacted, then cut."""
        if isinstance(value, str):
            return safely(self._redact, value)[: self._limit]
        return self._json(value, _Walk(self))

    def _json(self, value: Any, walk: Callable[[Any], Any]) -> str:
        try:
            return json.dumps(walk(value), ensure_ascii=False)[: self._limit]
        except Exception:  # noqa: BLE001 - people's own objects: whatever they raise may hold their words
            return WITHHELD

    def string(self, text: str) -> str:
        """Redact one string, which is cut later."""
        return safely(self._redact, text)

    def number(self, value: float) -> Any:
        """Keep a number, unless the redactor sees something in it (a card number, say): then it is a text."""
        if self._redact is None:
            return value
        plain = str(value)
        safe = safely(self._redact, plain)
        return value if safe == plain else safe

    def hides(self, key: str) -> bool:
        """Tell whether the redactor withholds whatever stands under this key."""
        return self._hides is not None and self._hides(key)

    @property
    def limit(self) -> int:
        """Characters of one text at most."""
        return self._limit


class _Walk:
    """Turns a value into plain JSON data, redacted; stops where enough was collected for the limit, and at loops by their depth."""

    __slots__ = ("_content", "_left")

    def __init__(self, content: Content) -> None:
        self._content = content
        self._left = content.limit

    def messages(self, said: Sequence[Any]) -> list[Any]:
        """Turn messages, and prompts that are plain strings, into GenAI messages."""
        return [self._message(each, 1) for each in said if self._left > 0]

    def __call__(self, value: Any, depth: int = 0) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._spent(self._content.string(value))
        if isinstance(value, (int, float)):
            self._left -= 1
            return self._content.number(value)
        self._left -= 1
        if depth > _DEEPEST:
            return _CUT
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self(each, depth + 1) for each in value if self._left > 0]
        if hasattr(value, "content") and hasattr(value, "type"):
            return self._message(value, depth)
        return self._spent(self._content.string(str(value)))

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, each in value.items():
            if self._left <= 0:
                break
            name = str(key)
            found[self._spent(self._content.string(name))] = WITHHELD if self._content.hides(name) else self(each, depth + 1)
        return found

    def _message(self, said: Any, depth: int) -> Any:
        return message(said, lambda value: self(value, depth + 1))

    def _spent(self, text: str) -> str:
        self._left -= len(text) + 1
        return text


def message(said: Any, shown: Callable[[Any], Any] = lambda value: value) -> dict[str, Any]:
    """Return a message in the shape of OpenTelemetry's GenAI messages, its content and arguments through ``shown``.

    >>> message("hello")
    {'role': 'user', 'parts': [{'type': 'text', 'content': 'hello'}]}
    """
    kind = getattr(said, "type", None)
    content = getattr(said, "content", said)
    parts: list[dict[str, Any]] = [{"type": "text", "content": shown(content)}] if content else []
    parts += [
        {"type": "tool_call", "id": call.get("id"), "name": call.get("name"), "arguments": shown(call.get("args"))}
        for call in getattr(said, "tool_calls", None) or ()
    ]
    return {"role": _ROLES.get(str(kind), str(kind)) if kind else "user", "parts": parts}
