"""What a stored trace holds for an evaluator: the component's label, the branches, the documents and texts, and where to join a score."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from lstm_trace import conventions as c
from lstm_trace.evaluate.gold import GoldLine
from lstm_trace.evaluate.recording import KEYS, Material
from lstm_trace.evaluate.result import Subject
from lstm_trace.facts import TraceRef

Row = Mapping[str, Any]

COLUMNS: Final = (
    "trace_id",
    "span_id",
    "parent_span_id",
    "start_ns",
    "span_kind",
    "evaluation_name",
    "component",
    "label",
    "cohort",
    "confidence",
    "release",
    "step",
    "path",
    "branch",
    "attributes",
)
"""The columns of the spans table that are read."""

_DOCUMENT: Final = re.compile(re.escape(c.OI_DOCUMENTS) + r"(\d+)\.document\.content\Z")
_EXPECTED: Final = c.EVALUATION_EXPECTED.removeprefix(c.EVALUATION_METADATA)
_NO_CONTENT: Final = "record with LSTM_TRACE_CONTENT=on, or give it in the gold line as"


class Missing(Exception):
    """The trace and the gold line do not hold what an evaluator needs; the message says what."""


@dataclass(frozen=True, slots=True)
class Call:
    """One component span."""

    span_id: str
    component: str
    label: str | None
    cohort: str | None
    confidence: float | None


@dataclass(frozen=True, slots=True)
class StoredTrace:
    """One trace, as evaluators see it. Texts are None where content capture was off."""

    trace_id: str
    root: str
    release: str | None = None
    calls: tuple[Call, ...] = ()
    branches: tuple[str, ...] = ()
    retrieval: str | None = None
    documents: tuple[str, ...] | None = None
    searched: str | None = None
    query: str | None = None
    answer: str | None = None

    def ref(self, span_id: str) -> TraceRef:
        """Return the reference of one of its spans."""
        return TraceRef(int(self.trace_id, 16), int(span_id, 16))


@dataclass(frozen=True, slots=True)
class Case:
    """One evaluator's view of one trace: what it judges, where the score goes, and what is known of that span."""

    target: TraceRef
    material: Material
    copies: Mapping[str, Any]
    metadata: Mapping[str, str]


def stored_traces(rows: Iterable[Row]) -> Iterator[StoredTrace]:
    """Read traces from rows of the spans table (``COLUMNS``) that are ordered by ``trace_id`` and then ``start_ns``.

    The spans of evaluations and of their judges are left out; a trace of nothing else is none.
    """
    for trace_id, group in groupby(rows, itemgetter("trace_id")):
        spans = [(row, dict(row["attributes"] or ())) for row in group]
        spans = [(row, said) for row, said in spans if not row["evaluation_name"] and c.EVALUATION_JUDGE_NAME not in said]
        if spans:
            yield _stored_trace(trace_id, spans)


def _stored_trace(trace_id: str, spans: Sequence[tuple[Row, Mapping[str, str]]]) -> StoredTrace:
    known = {row["span_id"] for row, _ in spans}
    root, said = next(((row, said) for row, said in spans if row["parent_span_id"] not in known), spans[0])
    retrievals = [(row, said) for row, said in spans if row["span_kind"] == "RETRIEVER"]
    models = [said for row, said in spans if row["span_kind"] == "LLM"]
    # Every span inside a step carries its branch; steps side by side share a number.
    branches = dict.fromkeys((row["path"] or row["step"], row["branch"]) for row, _ in spans if row["branch"])
    return StoredTrace(
        trace_id,
        root["span_id"],
        _first(row["release"] for row, _ in spans),
        tuple(
            Call(row["span_id"], row["component"], row["label"], row["cohort"], row["confidence"]) for row, _ in spans if row["component"]
        ),
        tuple(branch for _, branch in branches),
        retrievals[-1][0]["span_id"] if retrievals else None,
        _documents([said for _, said in retrievals]),
        _first(each.get(c.OI_INPUT) for _, each in reversed(retrievals)),
        _said(said.get(c.OI_INPUT), KEYS["query"]) or _first(_message(each, _ASKED, "user") for each in models),
        _said(said.get(c.OI_OUTPUT), KEYS["response"]) or _first(_message(each, _ANSWERED, "assistant") for each in reversed(models)),
    )


def _first(texts: Iterable[str | None]) -> str | None:
    return next((text for text in texts if text), None)


def _documents(retrievals: Sequence[Mapping[str, str]]) -> tuple[str, ...] | None:
    found: list[str] = []
    for said in retrievals:
        numbered = sorted((int(match[1]), text) for name, text in said.items() if (match := _DOCUMENT.match(name)))
        found.extend(text for _, text in numbered)
    return tuple(found) or None


def _message(said: Mapping[str, str], names: tuple[str, str], role: str) -> str | None:
    """Read the last text that ``role`` said from the messages under the first of ``names``; a value that is no messages is that text."""
    value = next((said[name] for name in names if name in said), None)
    try:
        messages: Any = json.loads(value or "null")
        mine = [message for message in messages if message["role"] == role]
        return "\n".join(part["content"] for part in mine[-1]["parts"] if part.get("type") == "text") or None
    except (ValueError, LookupError, TypeError, AttributeError):
        return value


def _said(value: str | None, keys: Sequence[str]) -> str | None:
    """Read what a chain was asked or answered: a message's text, what stands under the first of ``keys``, or the value itself."""
    try:
        return _text(json.loads(value or "null"), keys) or value
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):  # no JSON, or of a form that is not ours
        return value


def _text(found: Any, keys: Sequence[str]) -> str | None:
    if isinstance(found, str):
        return found
    if isinstance(found, list):
        return _text(found[-1], keys) if found and isinstance(found[-1], dict) and "role" in found[-1] else None
    if not isinstance(found, dict):
        return None
    if "parts" in found:
        return "\n".join(part["content"] for part in found["parts"] if part.get("type") == "text") or None
    return next((text for key in keys if (text := _text(found.get(key), keys))), None)


_ASKED: Final = (c.GEN_AI_INPUT_MESSAGES, c.OI_INPUT)
_ANSWERED: Final = (c.GEN_AI_OUTPUT_MESSAGES, c.OI_OUTPUT)


def case(trace: StoredTrace, gold: GoldLine, subject: Subject) -> Case:
    """Put together what an evaluator of ``subject`` is given. Raises Missing that says what neither trace nor gold holds."""
    made = {"prediction": _of_prediction, "branch": _of_branch, "retrieval": _of_retrieval, "answer": _of_answer}[subject]
    return made(trace, gold)


def _of_prediction(trace: StoredTrace, gold: GoldLine) -> Case:
    if gold.label is None:
        raise Missing("the gold line has no label")
    calls = [call for call in trace.calls if gold.component in (None, call.component)]
    names = sorted({call.component for call in calls})
    if not calls:
        raise Missing("the trace has no component span" + ("" if gold.component is None else f" of {gold.component!r}"))
    if len(names) > 1:
        raise Missing(f"the trace has several components ({', '.join(names)}): the gold line must name its component")
    call = calls[-1]  # the one that later steps acted on
    response = call.label if gold.response is None else gold.response
    if response is None:
        raise Missing("the component span has no label")
    metadata = {_EXPECTED: gold.label} if isinstance(gold.label, str) else {}
    return Case(trace.ref(call.span_id), Material(response, gold.label), _copies(trace, call), metadata)


def _of_branch(trace: StoredTrace, gold: GoldLine) -> Case:
    if gold.branch is None:
        raise Missing("the gold line has no branch")
    if not trace.branches:
        raise Missing("the trace has no branch")
    metadata = {_EXPECTED: gold.branch} if isinstance(gold.branch, str) else {}
    return Case(trace.ref(trace.root), Material(list(trace.branches), gold.branch), _copies(trace), metadata)


def _of_retrieval(trace: StoredTrace, gold: GoldLine) -> Case:
    query = gold.query or trace.searched or trace.query
    context = trace.documents if gold.context is None else gold.context
    if query is None:
        raise Missing(f"the trace holds no query text: {_NO_CONTENT} query")
    if context is None:
        raise Missing(f"the trace holds no documents' text: {_NO_CONTENT} context")
    return Case(trace.ref(trace.retrieval or trace.root), Material(None, gold.answer, context, query), _copies(trace), {})


def _of_answer(trace: StoredTrace, gold: GoldLine) -> Case:
    response = trace.answer if gold.response is None else gold.response
    context = trace.documents if gold.context is None else gold.context
    if response is None:
        raise Missing(f"the trace holds no answer text: {_NO_CONTENT} response")
    return Case(trace.ref(trace.root), Material(response, gold.answer, context, gold.query or trace.query), _copies(trace), {})


def _copies(trace: StoredTrace, call: Call | None = None) -> dict[str, Any]:
    known = call or next((call for call in reversed(trace.calls) if call.cohort is not None), None)
    copies: dict[str, Any] = {c.RELEASE: trace.release}
    if known is not None:
        copies |= {c.SEQUENCE_COHORT: known.cohort, c.PREDICTION_CONFIDENCE: known.confidence, c.COMPONENT_NAME: known.component}
    return {name: value for name, value in copies.items() if value is not None}
