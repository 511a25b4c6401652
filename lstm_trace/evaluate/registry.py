"""Find evaluators by name: the entry-point group `lstm_trace.evaluators`, or `python:pkg.mod:name`."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, get_args

from lstm_trace.errors import BadInput
from lstm_trace.evaluate.models import python_object
from lstm_trace.evaluate.result import Evaluator, Subject

GROUP: Final = "lstm_trace.evaluators"

_OURS: Final = {
    "ground_truth_match": "lstm_trace.evaluate.ground_truth_match:GroundTruthMatch",
    "branch_match": "lstm_trace.evaluate.branch_match:BranchMatch",
    "groundedness": "lstm_trace.evaluate.groundedness:Groundedness",
    "context_relevance": "lstm_trace.evaluate.context_relevance:ContextRelevance",
    "hallucination_score": "lstm_trace.evaluate.hallucination_score:HallucinationScore",
    "answer_correctness": "lstm_trace.evaluate.answer_correctness:AnswerCorrectness",
}
"""Also known without installed package metadata, as in a source tree; a test holds this against pyproject.toml."""


def available() -> dict[str, EntryPoint]:
    """Map the names of every evaluator that is installed to where it stands; an installed one wins over ours of the same name.

    >>> "ground_truth_match" in available()
    True
    """
    ours = {name: EntryPoint(name, where, GROUP) for name, where in _OURS.items()}
    return ours | {found.name: found for found in entry_points(group=GROUP)}


def evaluator_named(name: str, **options: Any) -> Evaluator:
    """Make the evaluator of that name; ``options`` reach it where it takes them. Raises BadInput that lists what there is.

    >>> evaluator_named("branch_match").name
    'branch_match'
    """
    if name.startswith("python:"):
        return _checked(python_object(name, "evaluator"), name)
    known = available()
    if name not in known:
        raise BadInput(f"evaluator {name!r}: accepted are {', '.join(sorted(known))}, and python:pkg.mod:name")
    try:
        found = known[name].load()
    except (ImportError, AttributeError) as error:
        raise BadInput(f"evaluator {name!r} ({known[name].value}): {error}") from None
    taken = {key: value for key, value in options.items() if value is not None and key in getattr(found, "__dataclass_fields__", ())}
    try:
        return _checked(found(**taken) if isinstance(found, type) else found, name)
    except (TypeError, ImportError) as error:
        raise BadInput(f"evaluator {name!r} ({known[name].value}): {error}") from None


def _checked(found: Any, name: str) -> Evaluator:
    if not callable(getattr(found, "evaluate", None)) or not isinstance(getattr(found, "name", None), str):
        raise BadInput(f"evaluator {name!r}: {type(found).__qualname__} has no name or no evaluate(); see lstm_trace.evaluate.Evaluator")
    subject = getattr(found, "subject", "answer")
    if subject not in get_args(Subject):
        raise BadInput(f"evaluator {name!r}: its subject is {subject!r}; accepted are {', '.join(get_args(Subject))}")
    evaluator: Evaluator = found
    return evaluator
