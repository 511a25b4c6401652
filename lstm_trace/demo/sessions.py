"""Generated support sessions: events in order, the customer's last message, and what the customer really wanted.

The first specific event of a session states the matter; later specific events are side questions. In a long session that
event often lies far back, before the waiting and refreshing. A reader of the last few events alone cannot know the intent.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

WINDOW = 20
"""Events of a session that the classifier reads at most: the last ones."""

SPECIFIC: dict[str, tuple[str, ...]] = {
    "report_damage": ("damage_photo_uploaded", "new_claim_opened"),
    "claim_status": ("claim_number_searched", "adjuster_page_opened"),
    "dispute_payout": ("settlement_letter_opened", "payout_breakdown_opened"),
    "book_repair": ("repair_shop_searched", "repair_estimate_opened"),
    "rental_car": ("rental_terms_opened", "rental_extension_clicked"),
    "close_claim": ("withdrawal_form_opened", "cancel_claim_clicked"),
}
"""Intent -> the events that state it."""

GENERAL = (
    "login", "home_opened", "claims_listed", "page_refreshed", "help_searched", "chat_opened", "agent_greeted", "on_hold",
    "customer_typing", "idle_five_minutes", "notification_sent", "policy_viewed", "callback_offered", "survey_shown",
)  # fmt: skip
"""Events of every session, whatever it is about."""

INTENTS = tuple(SPECIFIC)
EVENTS = GENERAL + tuple(event for events in SPECIFIC.values() for event in events)

MESSAGES: dict[str, tuple[str, ...]] = {
    "time": ("How long does this take?", "How many days will it take?", "By when is it done?", "When do I hear from you?", "How long now?"),
    "papers": ("Which documents do you need?", "What do I have to send?", "What should I upload?", "Which papers do you need from me?"),
    "cost": ("What does it cost me?", "Do I pay anything myself?", "How much do I pay?", "What is the cost for me?", "Is there a fee?"),
}
"""Topic -> how customers ask about it. The message names the topic and leaves the matter to the events before it."""

TOPICS = tuple(MESSAGES)


@dataclass(frozen=True, slots=True)
class Session:
    """One support session; ``intent`` and ``topic`` are the truth that the evaluations compare with."""

    id: str
    events: tuple[str, ...]
    message: str
    topic: str
    intent: str

    @property
    def window(self) -> tuple[str, ...]:
        """The events that the classifier is asked to read: the last ``WINDOW`` of them."""
        return self.events[-WINDOW:]


def make_sessions(count: int, *, seed: int) -> list[Session]:
    """Make ``count`` sessions; equal seeds make equal sessions.

    >>> first, second = make_sessions(2, seed=1)
    >>> first == make_sessions(1, seed=1)[0], set(first.events) <= set(EVENTS)
    (True, True)
    """
    rng = random.Random(seed)
    return [_session(rng, f"s{seed}-{number:05d}") for number in range(count)]


def _session(rng: random.Random, name: str) -> Session:
    intent, topic = rng.choice(INTENTS), rng.choice(TOPICS)
    length = _length(rng)
    events = [rng.choice(GENERAL) for _ in range(length)]
    if rng.random() > 0.03:  # a few customers never say what they want: no reader of the events can know
        stated = _stated_at(rng, length)
        events[stated] = rng.choice(SPECIFIC[intent])
        for later in range(stated + 1, length):
            if rng.random() < 0.06:
                events[later] = rng.choice(SPECIFIC[rng.choice(INTENTS)])
    if rng.random() < 0.02:  # and a few open the wrong page first
        intent = rng.choice(INTENTS)
    message = rng.choice(MESSAGES[topic])
    if rng.random() < 0.05:
        message = f"My lawyer wants to know. {message}"
    return Session(name, tuple(events), message, topic, intent)


def _length(rng: random.Random) -> int:
    low, high = rng.choices(((2, 4), (5, 8), (9, 12), (13, 26)), weights=(15, 25, 25, 35))[0]
    return rng.randint(low, high)


def _stated_at(rng: random.Random, length: int) -> int:
    """Where the matter is stated, from 0: near the end, but early in two of three sessions that are longer than 12 events."""
    if length > 12 and rng.random() < 0.65:
        oldest_read = max(0, length - WINDOW)
        return rng.randint(oldest_read, min(oldest_read + 4, length - 9))
    return rng.randint(max(0, length - 8), max(0, length - 3))
