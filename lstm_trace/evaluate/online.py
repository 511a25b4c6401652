"""Evaluators that run after an answer, off its path: sampled, in the background, their scores linked to the answer's span."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from opentelemetry.trace import SpanContext

from lstm_trace.background import Background
from lstm_trace.evaluate.recording import KEYS, Material, record_run
from lstm_trace.evaluate.registry import evaluator_named
from lstm_trace.evaluate.result import EvaluationResult, Evaluator
from lstm_trace.facts import TraceRef
from lstm_trace.recorder import default_recorder

Arguments = tuple[Any, ...]
ReadMaterial = Callable[[Arguments, dict[str, Any], Any], Mapping[str, Any]]

_FIELDS: Final = ("response", "expected_response", "context", "query")

background: Final = Background("evaluate", workers=2, capacity=256)
"""Where online evaluations run: ``dropped`` counts those that found the queue full, ``drain()`` waits for the rest."""


class OnlineEvaluators:
    """What ``trace_chain(evaluators=…)`` calls after each answer.

    ``sample`` is the share of sampled traces that are judged, decided by the trace id, so that every evaluator judges the same ones; each
    score carries 1 / sample as its weight. ``read`` turns (args, kwargs, result) into the evaluators' keywords, by default
    ``material_of``; it runs in the background too. Raises ValueError or TypeError for a wrong argument.
    """

    def __init__(
        self,
        evaluators: Sequence[Evaluator | str],
        *,
        sample: float = 1.0,
        read: ReadMaterial | None = None,
        run_in: Background = background,
    ) -> None:
        if isinstance(sample, bool) or not isinstance(sample, int | float) or not 0 <= sample <= 1:
            raise ValueError(f"evaluate_sample={sample!r}: accepted is a share from 0 to 1")
        if isinstance(evaluators, str) or not isinstance(evaluators, Sequence):
            raise TypeError(f"evaluators={evaluators!r}: accepted is a list of evaluators or of their names")
        self.evaluators = tuple(_evaluator(each) for each in evaluators)
        self._sample = sample
        self._bound = round(sample * 2**64)
        self._weight = 1.0 / sample if 0 < sample < 1 else None
        self._read = read or material_of
        self._background = run_in

    def __deepcopy__(self, memo: dict[int, Any]) -> OnlineEvaluators:
        return self  # a copied chain is judged like the original, through the same queue

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_again, (self.evaluators, self._sample, self._read)

    def chosen(self, where: SpanContext) -> bool:
        """Tell whether this answer is one of those to judge."""
        if not where.trace_flags.sampled or not self._bound:
            return False
        # Hashed: ratio samplers keep the traces with the lowest ids, so of what they kept the ids themselves would choose all.
        digest = hashlib.blake2b(where.trace_id.to_bytes(16, "big"), digest_size=8, person=b"evaluate").digest()
        return int.from_bytes(digest, "big") < self._bound

    def __call__(self, where: SpanContext, args: Arguments, kwargs: dict[str, Any], result: Any) -> None:
        """Judge the answer of the span ``where`` in the background; returns at once."""
        if not self.chosen(where):
            return
        if not self._background.submit(lambda: self._judge(where, args, kwargs, result)):
            recorder = default_recorder()
            for evaluator in self.evaluators:
                recorder.meters.dropped_evaluation(evaluator.name)

    def _judge(self, where: SpanContext, args: Arguments, kwargs: dict[str, Any], result: Any) -> None:
        target = TraceRef(where.trace_id, where.span_id)
        recorder = default_recorder()
        # A child that ends long after the answer would stretch its trace: only who asks for `child` gets that.
        placement = "child" if recorder.settings.evaluation_span == "child" else "link"
        for evaluator in self.evaluators:
            record_run(
                recorder,
                target,
                _Reading(evaluator, self._read, args, kwargs, result),
                Material(),
                weight=self._weight,
                placement=placement,
            )


def _made_again(evaluators: Sequence[Evaluator], sample: float, read: ReadMaterial) -> OnlineEvaluators:
    return OnlineEvaluators(evaluators, sample=sample, read=read)


class _Reading:
    """An evaluator that first reads its material from a call: a reader that breaks is an error of the evaluation, like any other."""

    def __init__(self, evaluator: Evaluator, read: ReadMaterial, args: Arguments, kwargs: dict[str, Any], result: Any) -> None:
        self._evaluator = evaluator
        self.name = evaluator.name
        self._given = (read, args, kwargs, result)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._evaluator, name)

    def evaluate(self, **_: Any) -> EvaluationResult:
        read, args, kwargs, result = self._given
        said = read(args, kwargs, result)
        unknown = set(said) - set(_FIELDS)
        if unknown:
            raise ValueError(f"evaluate_with returned {sorted(unknown)[0]!r}: accepted are {', '.join(_FIELDS)}")
        return self._evaluator.evaluate(**said)


def material_of(args: Arguments, kwargs: dict[str, Any], result: Any) -> dict[str, Any]:
    """Read what evaluators are given from a call and its result: the result is the response, the first argument the query.

    Where they are mappings, the keys ``response``, ``answer``, ``output`` or ``messages`` (its last one), ``context`` or ``documents``, and
    ``query``, ``question`` or ``input`` are looked up in the result, then in the first argument.

    >>> material_of(({"question": "How long?"},), {}, {"answer": "Two years.", "documents": ["Warranty: two years."]})
    {'response': 'Two years.', 'context': ['Warranty: two years.'], 'query': 'How long?'}
    >>> material_of(("How long?",), {}, "Two years.")
    {'response': 'Two years.', 'query': 'How long?'}
    """
    asked: Any = args[0] if args else next(iter(kwargs.values()), None)
    answered = isinstance(result, Mapping)
    response = _first(KEYS["response"], result) if answered else result
    if isinstance(response, list) and response:
        response = response[-1]
    query = _first(KEYS["query"], result, asked)
    if query is None and not isinstance(asked, Mapping):
        query = asked
    found = {"response": response, "context": _first(KEYS["context"], result, asked), "query": query}
    return {name: value for name, value in found.items() if value is not None}


def _first(keys: Sequence[str], *sources: Any) -> Any:
    found = (source[key] for source in sources if isinstance(source, Mapping) for key in keys if source.get(key) is not None)
    return next(found, None)


def _evaluator(given: Evaluator | str) -> Evaluator:
    if isinstance(given, str):
        return evaluator_named(given)
    if not callable(getattr(given, "evaluate", None)) or not isinstance(getattr(given, "name", None), str):
        raise TypeError(f"evaluators=[{given!r}]: it has no name or no evaluate(); see lstm_trace.evaluate.Evaluator")
    return given
