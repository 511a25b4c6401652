"""Any evaluator of the LangChain world in our call shape: string evaluators, openevals, LangSmith's functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from lstm_trace.evaluate.adapters.mapping import NoVerdict, verdict
from lstm_trace.evaluate.judge import as_text
from lstm_trace.evaluate.result import EvaluationResult, Subject, answers_errors
from lstm_trace.facts import Annotator

_LABELS: Final = {"Y": "pass", "N": "fail", "CORRECT": "pass", "INCORRECT": "fail"}


class LangChainEvaluator:
    """Run a LangChain evaluator: an object with ``evaluate_strings``, or a callable of ``inputs``, ``outputs``, ``reference_outputs``.

    The first are those of ``langchain_classic.evaluation`` (``load_evaluator("string_distance")`` …), the second those of openevals and
    LangSmith. ``passes`` turns a score into pass or fail; without it the evaluator's own ``value`` (Y/N, CORRECT, a category) is the
    label, and a bare number has none: readers take it to pass from 0.5 on, so a distance or a score of 1 to 10 needs ``passes``. Polarity
    and range are the evaluator's own. Tried with langchain-classic 1.0 and openevals 0.2.

    >>> def same_length(*, outputs, reference_outputs, **_):
    ...     return {"key": "same_length", "score": len(outputs) == len(reference_outputs)}
    >>> LangChainEvaluator(same_length).evaluate(response="refund", expected_response="repair").label
    'pass'
    """

    subject: Subject = "answer"

    def __init__(
        self,
        evaluator: Any,
        *,
        name: str | None = None,
        version: str | None = None,
        annotator: Annotator = "CODE",
        passes: Callable[[float], bool] | None = None,
    ) -> None:
        self._strings = callable(getattr(evaluator, "evaluate_strings", None))
        # Those that compare two answers or read an agent's steps are callable too, as chains; nothing here could feed them.
        other = any(hasattr(evaluator, name) for name in ("evaluate_string_pairs", "evaluate_agent_trajectory"))
        if not self._strings and (other or not callable(evaluator)):
            shown = type(evaluator).__name__
            raise TypeError(f"LangChainEvaluator({shown}): accepted are an object with evaluate_strings() and a callable")
        self._evaluator: Any = evaluator
        own = getattr(evaluator, "evaluation_name", None) or getattr(evaluator, "__name__", None) or type(evaluator).__name__
        self.name = name or str(own)
        self.version = version
        self.annotator: Annotator = annotator
        self._passes = passes

    @answers_errors
    def evaluate(self, *, response: Any = None, expected_response: Any = None, context: Any = None, query: Any = None) -> EvaluationResult:
        """Run it; what is None is left out."""
        if self._strings:
            given = {"prediction": response, "reference": expected_response, "input": query}
            said = self._evaluator.evaluate_strings(**{key: as_text(value) for key, value in given.items() if value is not None})
        else:
            given = {"inputs": query, "outputs": response, "reference_outputs": expected_response, "context": context}
            said = self._evaluator(**{key: value for key, value in given.items() if value is not None})
        return self._result(said)

    def _result(self, said: Any) -> EvaluationResult:
        if isinstance(said, Sequence) and not isinstance(said, str):
            if len(said) != 1:
                raise NoVerdict(f"the evaluator gave {len(said)} results, where one is accepted")
            said = said[0]
        read: Callable[[str], Any] = said.get if isinstance(said, Mapping) else lambda key: getattr(said, key, None)
        plain = isinstance(said, bool | int | float | str)
        score = said if plain else read("score")
        reason = None if plain else read("comment") or read("reasoning")
        value = None if plain else read("value")
        found = verdict(score if score is not None else value, None, reason)
        if self._passes is not None and found.score is not None:
            return verdict(found.score, self._passes(found.score), reason)
        label = _LABELS.get(value, value) if isinstance(value, str) and found.label is None else found.label
        return EvaluationResult(found.score, label, found.explanation)
