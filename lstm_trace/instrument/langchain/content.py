"""What people wrote, as text: only with content capture on, and always through the recorder's redaction and bound."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from lstm_trace import conventions as c
from lstm_trace.recorder import Recorder

Attributes = dict[str, Any]

_ROLES: Final = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant"}


class Content:
    """Writes inputs and outputs in the vocabularies that are switched on."""

    def __init__(self, recorder: Recorder, openinference: bool, gen_ai: bool) -> None:
        self._text = recorder.text
        self._openinference = openinference
        self._gen_ai = gen_ai

    def input(self, value: Any) -> Attributes:
        """Return what a chain was given."""
        return {c.OI_INPUT: self._text(shown(value))} if self._openinference else {}

    def output(self, value: Any) -> Attributes:
        """Return what a chain gave back."""
        return {c.OI_OUTPUT: self._text(shown(value))} if self._openinference else {}

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
        text = self._text(json.dumps([message(each) for each in said], ensure_ascii=False, default=str))
        return {name: text for name, on in ((openinference, self._openinference), (gen_ai, self._gen_ai)) if on}

    def tool_arguments(self, value: Any) -> Attributes:
        """Return the arguments of a tool call."""
        return self.input(value) | ({c.GEN_AI_TOOL_ARGUMENTS: self._text(shown(value))} if self._gen_ai else {})

    def tool_result(self, value: Any) -> Attributes:
        """Return the result of a tool call."""
        value = getattr(value, "content", value)
        return self.output(value) | ({c.GEN_AI_TOOL_RESULT: self._text(shown(value))} if self._gen_ai else {})

    def documents(self, documents: Sequence[Any]) -> Attributes:
        """Return the text of retrieved documents."""
        if not self._openinference:
            return {}
        return {
            f"{c.OI_DOCUMENTS}{index}.document.content": self._text(str(getattr(each, "page_content", each)))
            for index, each in enumerate(documents)
        }

    def event(self, data: Any) -> Attributes:
        """Return the data of a custom event."""
        return {c.CUSTOM_EVENT_DATA: self._text(shown(data))}


def message(said: Any) -> Mapping[str, Any]:
    """Return a message in the shape of OpenTelemetry's GenAI messages.

    >>> message("hello")
    {'role': 'user', 'parts': [{'type': 'text', 'content': 'hello'}]}
    """
    kind = getattr(said, "type", None)
    content = getattr(said, "content", said)
    parts: list[dict[str, Any]] = [{"type": "text", "content": content}] if content else []
    parts += [
        {"type": "tool_call", "id": call.get("id"), "name": call.get("name"), "arguments": call.get("args")}
        for call in getattr(said, "tool_calls", None) or ()
    ]
    return {"role": _ROLES.get(str(kind), str(kind)) if kind else "user", "parts": parts}


def shown(value: Any) -> str:
    """Return any value as text: a string as it is, the rest as JSON.

    >>> shown({"question": "where?"})
    '{"question": "where?"}'
    """
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    return message(value) if hasattr(value, "content") and hasattr(value, "type") else str(value)
