"""Conventions, facts, settings and the guard: the vocabulary everything else rests on."""

from __future__ import annotations

import logging

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lstm_trace import conventions
from lstm_trace.facts import _TRACEPARENT, Evaluation, Prediction, SequenceFacts, TraceRef
from lstm_trace.guard import Shield
from lstm_trace.settings import Settings, table


def names(prefix: str = "") -> dict[str, str]:
    return {key: value for key, value in vars(conventions).items() if key.isupper() and key.startswith(prefix) and isinstance(value, str)}


def attributes() -> set[str]:
    skipped = ("EVENT_", "METRIC_", "SCHEMA_", "SCOPE")
    return {value for key, value in names().items() if not key.startswith(skipped)}


def test_no_attribute_is_also_the_namespace_of_another() -> None:
    plain = {name for name in attributes() if not name.endswith(".")}
    clashes = {(short, long) for short in plain for long in attributes() if long.startswith(short + ".")}
    assert clashes == set()


def test_each_attribute_stands_once() -> None:
    values = [value for key, value in names().items() if not key.startswith(("EVENT_", "METRIC_"))]
    assert sorted(values) == sorted(set(values))


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_a_reference_survives_its_text(trace_id: int, span_id: int, sampled: bool) -> None:
    ref = TraceRef(trace_id, span_id, sampled)
    assert TraceRef.parse(str(ref)) == ref


@given(st.text(max_size=60))
def test_any_other_text_is_refused_in_one_line(text: str) -> None:
    assume(not _TRACEPARENT.match(text.strip().lower()))
    with pytest.raises(ValueError, match="traceparent") as caught:
        TraceRef.parse(text)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["00-" + "0" * 32 + "-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01"])
def test_all_zero_ids_are_invalid(text: str) -> None:
    with pytest.raises(ValueError, match="traceparent"):
        TraceRef.parse(text)


def test_identifier_depends_on_target_name_and_version_only() -> None:
    ref = TraceRef(1, 2)
    first = Evaluation(ref, "quality", 0.1, "fail")
    assert first.identifier == Evaluation(ref, "quality", 0.9, "pass").identifier
    others = {
        Evaluation(ref, "quality", evaluator_version="2").identifier,
        Evaluation(ref, "other").identifier,
        Evaluation(TraceRef(1, 3), "quality").identifier,
    }
    assert len(others | {first.identifier}) == 4


def test_facts_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Prediction(label="a").label = "b"  # type: ignore[misc]


def test_padding_ratio_needs_a_padded_length() -> None:
    assert SequenceFacts((3,), "shape").padding_ratio is None
    assert SequenceFacts((), "shape", 4).padding_ratio is None
    assert SequenceFacts((4, 2), "mask", 4).padding_ratio == 0.25


@given(st.integers(-5, 500), st.lists(st.integers(1, 300), min_size=1, max_size=6, unique=True))
def test_every_length_has_exactly_the_cohort_that_names_it(length: int, edges: list[int]) -> None:
    cohort = Settings(cohort_edges=tuple(sorted(edges))).cohort(length)
    if length < 1:
        assert cohort == "0"
    elif cohort.endswith("+"):
        assert length >= int(cohort[:-1]) == max(edges) + 1
    else:
        low, _, high = cohort.partition("-")
        assert int(low) <= length <= int(high or low)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"events": "loud"}, "events"),
        ({"cohort_edges": (8, 4)}, "cohort_edges"),
        ({"cohort_edges": ()}, "cohort_edges"),
        ({"conventions": ("x",)}, "conventions"),
        ({"max_events": -1}, "max_events"),
    ],
)
def test_a_wrong_setting_names_the_field_the_value_and_what_is_accepted(given: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=rf"{named}=.*accepted") as caught:
        Settings(**given)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_environment_below_arguments(caplog: pytest.LogCaptureFixture) -> None:
    environ = {
        "LSTM_TRACE_EVENTS": "log",
        "LSTM_TRACE_CONTENT": "on",
        "LSTM_TRACE_COHORT_EDGES": "3,6",
        "LSTM_TRACE_COMPONENTS": "a.b:C, d:E",
    }
    settings = Settings.from_env(environ, events="both")
    assert (settings.events, settings.content, settings.cohort_edges, settings.components) == ("both", True, (3, 6), ("a.b:C", "d:E"))
    assert caplog.records == []


@pytest.mark.parametrize("variable", ["LSTM_TRACE_EVENTS", "LSTM_TRACE_CONTENT", "LSTM_TRACE_COHORT_EDGES", "LSTM_TRACE_MAX_EVENTS"])
def test_an_unusable_variable_is_one_line_and_its_default_stands(variable: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="lstm_trace"):
        assert Settings.from_env({variable: "quite wrong"}) == Settings()
    assert [variable in record.getMessage() and "accepted" in record.getMessage() for record in caplog.records] == [True]


def test_a_bad_variable_of_the_process_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("LSTM_TRACE_MAX_EVENTS", "said once")
    with caplog.at_level(logging.WARNING, logger="lstm_trace"):
        assert Settings.from_env() == Settings.from_env()
    assert len(caplog.records) == 1


def test_the_table_lists_every_field() -> None:
    assert len(table(Settings())) == len(Settings.__dataclass_fields__)


def test_our_mistake_is_logged_once_a_place_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    shield = Shield()
    for _ in range(3):
        with shield:
            raise KeyError("the user's secret")
    assert shield.mistakes == 3
    assert len(caplog.records) == 1
    assert "secret" not in caplog.text


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_not_a_mistake_passes(error: type[BaseException]) -> None:
    shield = Shield()
    with pytest.raises(error), shield:
        raise error
    assert shield.mistakes == 0


def test_strict_raises() -> None:
    with pytest.raises(KeyError), Shield(strict=True):
        raise KeyError
