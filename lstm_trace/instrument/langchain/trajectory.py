"""Number the steps of an agent run or of an outermost chain: contiguous, and one number for what runs side by side."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from lstm_trace.facts import Step

_EVENTS_A_SPAN: Final = 128
_GRAPH: Final = "graph:step:"
_SEQUENCE: Final = "seq:step:"
_MAP: Final = "map:key:"
_CONDITION: Final = "condition:"
_BRANCH: Final = "branch:"
_RETRY: Final = "retry:attempt:"


@dataclass(frozen=True, slots=True)
class Place:
    """Where LangChain's own tags put a run among its siblings.

    ``key`` is equal for siblings that run side by side and None where the tags do not say. ``parallel`` says that no sibling with
    this key may see what another one predicted. ``branch`` is what was chosen; an empty string says "the run's own name".
    """

    key: str | None = None
    parallel: bool = False
    branch: str | None = None
    attempt: int | None = None


_NOWHERE: Final = Place()


def place_of(tags: Sequence[str], metadata: Any) -> Place:
    """Read the tags that LangChain and LangGraph put on a child run.

    >>> place_of(["map:key:billing"], {})
    Place(key='map', parallel=True, branch='billing', attempt=None)
    >>> place_of(["seq:step:2"], {}).key
    'seq:step:2'
    """
    for tag in tags:
        if tag.startswith(_GRAPH):
            return Place(tag, True, metadata.get("langgraph_node") or "")
        if tag.startswith(_SEQUENCE):
            return Place(tag)
        if tag.startswith(_MAP):
            return Place("map", True, tag[len(_MAP) :])
        if tag.startswith(_CONDITION):
            return Place("condition")
        if tag.startswith(_BRANCH):
            return Place(tag, False, "")
        if tag.startswith(_RETRY):
            return Place(attempt=int(tag[len(_RETRY) :]))
    return _NOWHERE


class Trajectory:
    """The steps of one agent run or outermost chain. Safe to use from the threads of a superstep."""

    __slots__ = ("_attempts", "_branches", "_key", "_lock", "_open", "_prefix", "number", "steps")

    def __init__(self, prefix: str | None = None) -> None:
        self._prefix = f"{prefix}." if prefix else ""
        self._lock = threading.Lock()
        self._key: str | None = None
        self._open = 0
        self._attempts: dict[str, int] = {}
        self._branches: list[str] = []
        self.number = 0
        self.steps: deque[tuple[Step, int]] = deque(maxlen=_EVENTS_A_SPAN)

    def begin(self, place: Place, branch: str | None, now: int, *, task: str | None = None, again: bool = False) -> Step:
        """Return the step that a child run starting now belongs to.

        ``task`` is one node's one task: the same task again is its next attempt. ``again`` says that this run repeats the step before it.
        """
        with self._lock:
            repeats = again or (place.attempt is not None and place.attempt > 1)
            beside = self._open > 0 if place.key is None else place.key == self._key
            if self.number == 0 or not (beside or repeats):
                self.number += 1
                self._key = place.key
                self._branches = []
                self._attempts = {}
            attempt = place.attempt or 1
            if task is not None:
                attempt = self._attempts[task] = self._attempts.get(task, 0) + 1
            self._open += 1
            step = Step(self.number, branch, f"{self._prefix}{self.number}", attempt)
            self._note(step, now)
            return step

    def end(self) -> None:
        """Note that a child run ended."""
        with self._lock:
            self._open -= 1

    def retried(self, attempt: int) -> None:
        """Note that something inside the current step is tried again."""
        with self._lock:
            if self.steps and self.steps[-1][0].number == self.number:
                last, began = self.steps[-1]
                if attempt > last.attempt:
                    self.steps[-1] = (Step(last.number, last.branch, last.path, attempt), began)

    def _note(self, step: Step, now: int) -> None:
        # One event a step: what runs side by side is one step whose branch names them all.
        if step.branch is not None and step.branch not in self._branches:
            self._branches.append(step.branch)
        joined = ",".join(self._branches) or None
        if self.steps and self.steps[-1][0].number == step.number:
            last, began = self.steps[-1]
            self.steps[-1] = (Step(step.number, joined, step.path, max(last.attempt, step.attempt)), began)
        else:
            self.steps.append((Step(step.number, joined, step.path, step.attempt), now))
