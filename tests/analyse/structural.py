"""A second simulator, which knows nothing of cells: customers with sessions, matters, lengths and hard days, on a scale of log odds.

A release is a ``Shop``. A wrong classification leads to a wrong branch, that to irrelevant documents, those to a wrong answer, each only
with some probability; difficulty differs by length, by matter and by customer, and strikes every stage at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lstm_trace.analyse.labelled import Labelled
from lstm_trace.analyse.sessions import sessions_of
from tests.analyse.incidents import COHORTS

Array = Any


@dataclass(frozen=True)
class Shop:
    """How a release behaves. Rates are at the middle of all difficulties; ``worse_*`` are log odds added by an incident."""

    log_length: float = 2.15
    matters: tuple[float, ...] = (0.4, 0.25, 0.15, 0.1, 0.06, 0.04)
    classifier: float = 0.08
    by_cohort: float = 0.35
    routing: float = 0.02
    retrieval: float = 0.06
    generation: float = 0.05
    per_session: float = 1.0
    customer: float = 0.0
    worse_classifier: float = 0.0
    worse_classifier_long: float = 0.0
    worse_on_first_matter: float = 0.0
    worse_routing: float = 0.0
    worse_retrieval: float = 0.0
    worse_retrieval_in_one_branch: float = 0.0
    worse_generation: float = 0.0
    worse_generation_long: float = 0.0
    worse_late: float = 0.0
    tool_errors: float = 0.0
    foreign: float = 0.0


def likely(rate: float, more: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-(np.log(rate / (1.0 - rate)) + more)))


def serve(shop: Shop, n: int, random: np.random.Generator) -> tuple[Array, Array]:
    """(session, cell) of ``n`` traces; cells are of (cohort, classifier, routing, retrieval, failed)."""
    sizes = random.geometric(1.0 / shop.per_session, n)
    session = np.repeat(np.arange(n), sizes)[:n]
    hard = random.normal(0.0, shop.customer, n)[session]
    length = np.exp(random.normal(shop.log_length, 0.65, n)[session] + random.normal(0.0, 0.1, n)).round().clip(1, 60)
    cohort = np.digitize(length, [5, 9, 13, 21])
    matter = random.choice(6, n, p=shop.matters)
    long, rank = cohort >= 3, cohort - 1.5

    def happens(rate: float, more: Array) -> Array:
        return random.random(n) < likely(rate, more)

    more = shop.worse_classifier + shop.worse_classifier_long * long + shop.worse_on_first_matter * (matter == 0)
    mistaken = happens(shop.classifier, shop.by_cohort * rank + 0.2 * (matter - 2.5) + hard + more)
    mistaken |= (random.random(n) < shop.foreign) & (random.random(n) < 0.55)
    astray = happens(shop.routing, 0.5 * hard + shop.worse_routing) | (mistaken & (random.random(n) < 0.75))
    branch = np.where(astray, (matter + 1) % 3, matter % 3)
    lost = happens(shop.retrieval, 0.5 * hard + shop.worse_retrieval + shop.worse_retrieval_in_one_branch * (branch == 0))
    lost |= astray & (random.random(n) < 0.8)
    late = 2 + random.poisson(3.0, n) >= 6
    more = shop.worse_generation + shop.worse_generation_long * long + shop.worse_late * late
    failed = happens(shop.generation, hard + more) | (random.random(n) < shop.tool_errors) | (lost & (random.random(n) < 0.6))
    failed |= astray & ~lost & (random.random(n) < 0.5)
    failed |= mistaken & ~astray & ~lost & (random.random(n) < 0.25)
    return session, np.ravel_multi_index((cohort, *(x.astype(int) for x in (mistaken, astray, lost, failed))), (5, 2, 2, 2, 2))


def labelled_of(before: Shop, after: Shop, n: tuple[int, int], random: np.random.Generator, wide: Any) -> Labelled:
    """The cells of two releases, with their sessions, as ``labelled`` reads them from a store."""
    sides = [serve(shop, size, random) for shop, size in zip((before, after), n, strict=True)]
    counts = np.stack([np.bincount(cell, minlength=80).reshape(5, 2, 2, 2, 2, 1) for _, cell in sides]).astype(float)
    sessions = tuple(sessions_of(session, cell, np.ones(cell.size), 80) for session, cell in sides)
    shared = before.per_session > 1.0
    names = ("classifier", "routing", "retrieval")
    return Labelled("ok", COHORTS, names, counts, np.ones(1), n, (), frozenset(), wide, sessions if shared else None)  # type: ignore[arg-type]
