"""The generated sessions tell the story that the demo claims."""

from __future__ import annotations

import random

from lstm_trace.demo.sessions import EVENTS, SPECIFIC, WINDOW, make_sessions

SAMPLE = make_sessions(3000, seed=5)


def _states_its_intent(events: tuple[str, ...], intent: str) -> bool:
    return any(event in SPECIFIC[intent] for event in events)


def test_equal_seeds_make_equal_sessions_and_others_do_not():
    assert make_sessions(50, seed=3) == make_sessions(50, seed=3)
    assert make_sessions(50, seed=3) != make_sessions(50, seed=4)


def test_a_longer_run_begins_with_the_sessions_of_a_shorter_one():
    assert make_sessions(80, seed=3)[:20] == make_sessions(20, seed=3)


def test_making_sessions_leaves_the_global_random_state_alone():
    random.seed(1)
    expected = random.random()
    random.seed(1)
    make_sessions(5, seed=1)
    assert random.random() == expected


def test_events_are_known_and_at_most_the_last_twenty_are_read():
    assert all(set(session.events) <= set(EVENTS) for session in SAMPLE)
    assert max(len(session.window) for session in SAMPLE) == WINDOW
    assert all(session.window == session.events[-WINDOW:] for session in SAMPLE)


def test_up_to_twelve_events_the_last_eight_still_state_the_intent():
    short = [session for session in SAMPLE if len(session.events) <= 12]
    assert len(short) > 1000
    lost = [s for s in short if _states_its_intent(s.window, s.intent) and not _states_its_intent(s.window[-8:], s.intent)]
    assert lost == []


def test_beyond_twelve_events_the_last_eight_lose_the_intent_of_most_sessions():
    long = [session for session in SAMPLE if len(session.events) > 12 and _states_its_intent(session.window, session.intent)]
    lost = [session for session in long if not _states_its_intent(session.window[-8:], session.intent)]
    assert 0.4 < len(lost) / len(long) < 0.75
