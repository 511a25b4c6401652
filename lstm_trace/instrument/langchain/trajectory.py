"""Number the steps of an agent run or of an outermost chain: contiguous, and one number for what runs side by side."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from lstm_trace import conventions as c

_STEP, _ATTEMPT, _PATH, _BRANCH = c.TRAJECTORY_STEP, c.TRAJECTORY_ATTEMPT, c.TRAJECTORY_PATH, c.TRAJECTORY_BRANCH

_EVENTS_A_SPAN: Final = 128
"""The SDK keeps the last 128 events of a span."""

OWN_NAME: Final = "\0name"
GRAPH_NODE: Final = "\0node"


class Place(NamedTuple):
    """Where LangChain's own tag puts a run among its siblings.

    ``key`` is equal for siblings that run side by side and None where the tag does not say. ``parallel`` says that no sibling with this
    key may see what another one predicted. ``branch`` is what was chosen: a name, or ``OWN_NAME`` or ``GRAPH_NODE`` for where to find it.
    ``attempt`` counts from 1.
    """

    key: str | None = None
    parallel: bool = False
    branch: str | None = None
    attempt: int | None = None


NOWHERE: Final = Place()


@lru_cache(maxsize=2048)
def place_of_tag(tag: str) -> Place | None:
    """Read one tag that LangChain or LangGraph put on a child run; None for the user's own tags.

    >>> place_of_tag("map:key:billing")
    Place(key='map', parallel=True, branch='billing', attempt=None)
    >>> place_of_tag("retry:attempt:2").attempt, place_of_tag("mine")
    (2, None)
    """
    head, found, rest = tag.partition(":")
    if not found:
        return None
    if head == "graph" and rest.startswith("step:"):
        return Place(tag, True, GRAPH_NODE)
    if head == "seq" and rest.startswith("step:"):
        return Place(tag)
    if head == "map" and rest.startswith("key:"):
        return Place("map", True, rest[4:])
    if head == "condition":
        return Place("condition")
    if head == "branch":
        return Place(tag, False, OWN_NAME)
    if head == "retry" and rest.startswith("attempt:") and rest[8:].isdigit():
        return Place(attempt=int(rest[8:]))
    return None


def place_of(tags: Sequence[str]) -> Place:
    """Read a run's tags. LangChain adds its own one last, but where it merges two managers the order of their tags is lost.

    A step of a sequence gives way there: what was merged into it (a branch that was chosen, a retry) says more.
    """
    last = tags[-1]
    if (place := place_of_tag(last)) is not None and (len(tags) == 1 or not last.startswith("seq:")):
        return place
    step = NOWHERE
    for tag in reversed(tags):
        place = place_of_tag(tag)
        if place is not None:
            if not tag.startswith("seq:"):
                return place
            step = place if step is NOWHERE else step
    return step


def branch_of(place: Place, name: str, metadata: Mapping[str, Any]) -> str | None:
    """Return the branch that was chosen: a graph's node, a parallel key, or what a RunnableBranch took."""
    if place.branch is GRAPH_NODE:
        node = metadata.get("langgraph_node")
        return name if node is None else str(node)
    if place.branch is OWN_NAME:
        # A class's default name says nothing: then the branch's number in LangChain's tag is the better name.
        return place.key if name.startswith("Runnable") else name
    return place.branch


class _Taken:
    """One step as it was taken: what runs side by side adds its branch.

    ``facts`` are those of its first run until a second one says more. They are shared by the run's context and the step's event: whoever
    adds to them makes new ones.
    """

    __slots__ = ("began_ns", "branches", "facts", "number")

    def __init__(self, number: int, began_ns: int, facts: dict[str, Any], branch: str | None) -> None:
        self.number = number
        self.began_ns = began_ns
        self.facts: dict[str, Any] = facts
        self.branches: tuple[str, ...] = () if branch is None else (branch,)

    def add(self, attempt: int | None, branch: str | None) -> None:
        """Note what another run of this step says."""
        if attempt is not None and attempt > self.facts[c.TRAJECTORY_ATTEMPT]:
            self.facts = {**self.facts, c.TRAJECTORY_ATTEMPT: attempt}
        if branch is not None and branch not in self.branches:
            self.branches = (*self.branches, branch)
            self.facts = {**self.facts, c.TRAJECTORY_BRANCH: ",".join(self.branches)}


class Trajectory:
    """The steps of one agent run or outermost chain. Safe to use from the threads of a superstep.

    >>> trajectory = Trajectory()
    >>> trajectory.begin("seq:step:1", None, now=1)["agent.trajectory.step"]
    1
    >>> [trajectory.begin("map", key, now=2)["agent.trajectory.step"] for key in ("left", "right")]
    [2, 2]
    >>> trajectory.events()[-1][0]["agent.trajectory.branch"]
    'left,right'
    """

    __slots__ = ("_attempts", "_key", "_last", "_lock", "_open", "_prefix", "_steps")

    def __init__(self, above: str | None = None) -> None:
        self._prefix = f"{above}." if above else ""
        self._lock = threading.Lock()
        self._key: str | None = None
        self._open = 0
        self._attempts: dict[str, int] | None = None
        self._last: _Taken | None = None
        self._steps: deque[_Taken] = deque(maxlen=_EVENTS_A_SPAN)

    def begin(
        self, key: str | None, branch: str | None, now: int, *, attempt: int | None = None, task: str | None = None, again: bool = False
    ) -> dict[str, Any]:
        """Return the attributes of the step that a child run starting ``now`` (ns) belongs to.

        ``task`` names one task of one node: the same task again is its next attempt. ``again`` says that this run repeats the one before.
        """
        with self._lock:
            last = self._last
            if key is None:
                taken = last if self._open or again else None
                self._open += 1
            else:
                taken = last if key == self._key or again else None
            if taken is None:
                number = 1 if last is None else last.number + 1
                self._key, self._attempts = key, None
            else:
                number = taken.number
            if task is not None:
                counted = self._attempts
                if counted is None:
                    self._attempts, attempt = {task: 1}, 1
                else:
                    attempt = counted[task] = counted.get(task, 0) + 1
            facts: dict[str, Any] = {_STEP: number, _ATTEMPT: attempt or 1, _PATH: f"{self._prefix}{number}"}
            if branch is not None:
                facts[_BRANCH] = branch
            if taken is None:
                self._last = _Taken(number, now, facts, branch)
                self._steps.append(self._last)
            else:
                taken.add(attempt, branch)
        return facts

    def end(self) -> None:
        """Note that a child run without a key ended."""
        with self._lock:
            self._open -= 1

    def events(self) -> list[tuple[dict[str, Any], int]]:
        """Return one (attributes, began in ns) a step."""
        return [(taken.facts, taken.began_ns) for taken in self._steps]
