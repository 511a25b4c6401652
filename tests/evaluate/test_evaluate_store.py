"""`lstm-trace evaluate`: gold over stored traces, and what becomes of bad lines, unknown traces, outages and interrupts."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from lstm_trace import conventions as c
from lstm_trace.cli import main
from lstm_trace.evaluate import EvaluationResult, Groundedness, GroundTruthMatch
from lstm_trace.evaluate.gold import Gold, parse_gold
from lstm_trace.evaluate.progress_file import ResumeFile
from lstm_trace.evaluate.running import Report, Run
from lstm_trace.evaluate.writing import destination
from lstm_trace.export.otlp_json import StoreExporter
from lstm_trace.settings import Settings
from lstm_trace.store import open_store
from tests.evaluate.scripted import ScriptedChatModel, verdict
from tests.evaluate.stores import Answered, write_store


def lstm_trace(capsys: pytest.CaptureFixture[str], *args: str | Path) -> tuple[int, str, str]:
    """Run the command in this process: exit status, stdout, stderr."""
    import sys

    before, sys.argv = sys.argv, ["lstm-trace", *map(str, args)]
    try:
        main()
        status: Any = 0
    except SystemExit as done:
        status = done.code
    finally:
        sys.argv = before
    out, err = capsys.readouterr()
    return status or 0, out, err


def gold_file(path: Path, lines: Iterable[Any]) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def wrong_at(answered: list[Answered], *wrong: int) -> list[dict[str, Any]]:
    """Gold in which the answers at these places were wrong."""
    return [
        {"trace_id": each.trace_id, "label": "other" if place in wrong else each.predicted, "branch": each.branch}
        for place, each in enumerate(answered)
    ]


def evaluations(store: Path) -> list[dict[str, Any]]:
    with open_store(store) as opened:
        return opened.evaluations.order_by("evaluation_name", "target_trace_id").to_pyarrow().to_pylist()


def test_gold_labels_become_scores_on_the_component_spans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    answered = write_store(store, 12)
    gold = gold_file(tmp_path / "gold.jsonl", wrong_at(answered, 3, 7, 8))
    status, out, err = lstm_trace(capsys, "evaluate", store, "--gold", gold, "--format", "json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert [(row["evaluation"], row["judged"], row["failed"], row["errors"]) for row in report["evaluations"]] == [
        ("ground_truth_match", 12, 3, 0),
        ("branch_match", 12, 0, 0),
    ]
    assert report["evaluations"][0]["fail_rate"] == 0.25
    with open_store(store) as opened:
        made = opened.spans.filter(opened.spans.evaluation_name == "ground_truth_match").select("target_trace_id", "attributes")
        stated = {row["target_trace_id"]: dict(row["attributes"])[c.EVALUATION_EXPECTED] for row in made.to_pyarrow().to_pylist()}
    assert stated == {line["trace_id"]: line["label"] for line in wrong_at(answered, 3, 7, 8)}
    assert report["spans"] == {"written": 24, "refused": 0}
    with open_store(store) as opened:
        components = {row["trace_id"]: row for row in opened.spans.filter(opened.spans.name == "lstm intent").to_pyarrow().to_pylist()}
        found = opened.evaluations.filter(opened.evaluations.evaluation_name == "ground_truth_match").to_pyarrow().to_pylist()
    assert {row["target_trace_id"]: row["label"] for row in found} == {
        each.trace_id: "fail" if place in (3, 7, 8) else "pass" for place, each in enumerate(answered)
    }
    for row in found:
        target = components[row["target_trace_id"]]
        assert row["target_span_id"] == target["span_id"]
        assert (row["release"], row["cohort"], row["confidence"]) == ("v1", target["cohort"], 0.75)
        assert (row["annotator"], row["status"], row["trace_id"] == row["target_trace_id"]) == ("CODE", "ok", False)


def test_running_it_again_changes_nothing_that_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    gold = gold_file(tmp_path / "gold.jsonl", wrong_at(write_store(store, 5), 1))
    lstm_trace(capsys, "evaluate", store, "--gold", gold)
    once = evaluations(store)
    lstm_trace(capsys, "evaluate", store, "--gold", gold)
    again = evaluations(store)
    assert [(row["identifier"], row["label"]) for row in once] == [(row["identifier"], row["label"]) for row in again]


def test_bad_lines_and_unknown_traces_are_listed_and_the_rest_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    answered = write_store(store, 4)
    unknown = "f" * 32
    lines: list[Any] = [
        "not json",
        "[]",
        {"label": "refund"},
        {"trace_id": "xyz", "label": "refund"},
        {"trace_id": answered[0].trace_id, "label": "refund", "weight": -1},
        "",
        {"trace_id": unknown, "label": "refund"},
        {"trace_id": answered[1].trace_id.upper(), "label": "other"},
        {"ref": f"00-{answered[2].trace_id}-b7ad6b7169203331-01", "label": answered[2].predicted},
        {"trace_id": answered[1].trace_id, "label": answered[1].predicted},
        {"trace_id": answered[3].trace_id, "label": None},
    ]
    gold = gold_file(tmp_path / "gold.jsonl", lines)
    status, out, _ = lstm_trace(capsys, "evaluate", store, "--gold", gold, "--format", "json")
    report = json.loads(out)
    assert status == 0
    assert report["gold"] == {
        "read": 10,
        "usable": 4,
        "repeated": 1,
        "malformed": [
            {"line": 1, "reason": "not JSON"},
            {"line": 2, "reason": "not a JSON object"},
            {"line": 3, "reason": "no trace_id"},
            {"line": 4, "reason": "trace_id is not 32 hex digits"},
            {"line": 5, "reason": "weight is not a number above 0"},
        ],
        "unknown": [unknown],
    }
    (row,) = report["evaluations"]
    assert (row["judged"], row["passed"], row["skipped"], row["reasons"]) == (2, 2, 1, {"the gold line has no label": 1})
    status, out, _ = lstm_trace(capsys, "evaluate", store, "--gold", gold)
    assert status == 0
    assert f"{gold}:1: not JSON" in out
    assert f"{unknown}: not in the store" in out
    assert "10 gold lines, 5 malformed, 1 repeated, 1 unknown; 2 spans written" in out


@pytest.mark.parametrize(
    ("lines", "args", "said"),
    [
        (["oops"], [], "gold.jsonl: no usable line; line 1: not JSON"),
        ([], [], "gold.jsonl: no usable line"),
        ([{"trace_id": "a" * 32}], [], "no gold line has a label, branch or answer: name the evaluators to run with --evaluator"),
        (
            [{"trace_id": "a" * 32, "label": "x"}],
            ["--evaluator", "nope"],
            "evaluator 'nope': accepted are answer_correctness, branch_match",
        ),
        ([{"trace_id": "a" * 32, "label": "x"}], ["--rate", "0"], "--rate 0: accepted is a number above 0"),
        ([{"trace_id": "a" * 32, "label": "x"}], ["--judge", "gpt"], "judge 'gpt': accepted are provider:model"),
        ([{"trace_id": "a" * 32, "label": "x"}], ["--to", "x", "--endpoint", "http://y"], "--to and --endpoint: give one of them"),
        ([{"trace_id": "a" * 32, "label": "x"}], ["--endpoint", "nowhere"], "endpoint='nowhere' is not usable"),
        ([{"trace_id": "a" * 32, "label": "x"}], ["--workers", "0"], "--workers"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: list[Any], args: list[str], said: str) -> None:
    store = tmp_path / "store"
    write_store(store, 1)
    gold = gold_file(tmp_path / "gold.jsonl", lines)
    status, _, err = lstm_trace(capsys, "evaluate", store, "--gold", gold, *args)
    assert status == 2
    assert err.count("\n") == 1
    assert said in err


def test_a_missing_gold_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_store(tmp_path / "store", 1)
    status, _, err = lstm_trace(capsys, "evaluate", tmp_path / "store", "--gold", tmp_path / "none.jsonl")
    assert (status, err) == (2, f"lstm-trace: {tmp_path}/none.jsonl: No such file or directory\n")


# --- Judges ------------------------------------------------------------------------------------------------------------------


def run(store: Path, gold: Gold, *evaluators: Any, exporter: SpanExporter | None = None, **options: Any) -> Report:
    with open_store(store) as opened:
        chosen = exporter or destination(str(store), to=None, endpoint=None)
        return Run(evaluators, chosen, settings=Settings(), **options).over(opened, gold)


def gold_of(answered: list[Answered], **more: Any) -> Gold:
    return parse_gold(json.dumps({"trace_id": each.trace_id, "label": each.predicted} | more) for each in answered)


def test_a_judge_reads_what_the_trace_holds(tmp_path: Path) -> None:
    (answered,) = write_store(tmp_path, 1, content=True)
    judge = ScriptedChatModel(script=[verdict(0.9)])
    report = run(tmp_path, gold_of([answered]), Groundedness(judge=judge))
    assert report.tallies[0].judged == 1
    article = f"To {answered.predicted}, bring the receipt."
    assert f"<context>\n{article}\n</context>" in judge.prompts[0]
    assert f"<outputs>\n{article}\n</outputs>" in judge.prompts[0]
    assert (report.tallies[0].judge_input_tokens, report.tallies[0].judge_output_tokens) == (210, 17)


def test_without_recorded_content_a_judge_is_not_asked_and_the_reason_is_given(tmp_path: Path) -> None:
    answered = write_store(tmp_path, 2)
    report = run(tmp_path, gold_of(answered), Groundedness(judge=ScriptedChatModel()))
    assert report.tallies[0].reasons == {
        "the trace holds no answer text: record with LSTM_TRACE_CONTENT=on, or give it in the gold line as response": 2
    }
    assert evaluations(tmp_path) == []


def test_gold_may_bring_the_texts_itself(tmp_path: Path) -> None:
    answered = write_store(tmp_path, 1)
    judge = ScriptedChatModel(script=[verdict(1.0)])
    report = run(tmp_path, gold_of(answered, response="Two years.", context=["Two years."]), Groundedness(judge=judge))
    assert report.tallies[0].passed == 1


def test_without_a_judge_it_is_counted_as_skipped_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LSTM_TRACE_JUDGE", raising=False)
    answered = write_store(tmp_path, 3, content=True)
    report = run(tmp_path, gold_of(answered), Groundedness())
    ((reason, count),) = report.tallies[0].reasons.items()
    assert (report.tallies[0].skipped, report.written, count) == (3, 0, 3)
    assert reason.startswith("no judge: ")


def test_an_outage_of_the_judge_is_an_error_and_takes_no_earlier_score_away(tmp_path: Path) -> None:
    one, two = write_store(tmp_path, 2, content=True)
    run(tmp_path, gold_of([one]), Groundedness(judge=ScriptedChatModel(script=[verdict(0.9)])))
    down = Groundedness(judge=ScriptedChatModel(script=[ConnectionError(), ConnectionError()]))
    report = run(tmp_path, gold_of([one, two]), down, workers=1)
    assert (report.tallies[0].errors, report.tallies[0].judged, report.tallies[0].reasons) == (2, 0, {"ConnectionError": 2})
    assert {row["target_trace_id"]: (row["status"], row["score"], row["error_type"]) for row in evaluations(tmp_path)} == {
        one.trace_id: ("ok", 0.9, None),
        two.trace_id: ("error", None, "ConnectionError"),
    }


class Slow:
    """An evaluator that notes how many run at a time."""

    name = "slow"
    subject = "prediction"
    annotator = "LLM"

    def __init__(self, seconds: float = 0.02) -> None:
        self.seconds, self.now, self.most, self.starts = seconds, 0, 0, list[float]()
        self.lock = threading.Lock()

    def evaluate(self, **_: Any) -> EvaluationResult:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.starts.append(time.monotonic())
        time.sleep(self.seconds)
        with self.lock:
            self.now -= 1
        return EvaluationResult(1.0, "pass")


def test_evaluations_run_in_parallel_and_no_wider_than_asked(tmp_path: Path) -> None:
    answered = write_store(tmp_path, 24)
    slow = Slow(0.05)
    report = run(tmp_path, gold_of(answered), slow, workers=4)
    assert report.tallies[0].judged == 24
    assert 2 <= slow.most <= 4


def test_judged_evaluations_keep_below_the_rate(tmp_path: Path) -> None:
    answered = write_store(tmp_path, 6)
    slow = Slow(0.0)
    run(tmp_path, gold_of(answered), slow, workers=6, per_second=50)
    assert max(slow.starts) - min(slow.starts) >= 5 / 50 * 0.9


# --- Going on after an interrupt -----------------------------------------------------------------------------------------------


class Interrupted:
    """Judges some and is then interrupted by the person at the keyboard."""

    name = "ground_truth_match"
    version = "1"
    subject = "prediction"

    def __init__(self, after: int | None) -> None:
        self.left, self.asked = after, 0

    def evaluate(self, **material: Any) -> EvaluationResult:
        self.asked += 1
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        return GroundTruthMatch().evaluate(**material)


def test_a_run_that_was_interrupted_goes_on_where_it_was(tmp_path: Path) -> None:
    store, resume = tmp_path / "store", tmp_path / "resume.jsonl"
    answered = write_store(store, 10)
    with pytest.raises(KeyboardInterrupt):
        run(store, gold_of(answered), Interrupted(6), workers=1, resume=ResumeFile(resume))
    done = [row for row in evaluations(store) if row["status"] == "ok"]
    assert len(done) == 6
    resume.write_text(resume.read_text() + '{"done": "cut o')
    rest = Interrupted(None)
    report = run(store, gold_of(answered), rest, workers=1, resume=ResumeFile(resume))
    assert (rest.asked, report.tallies[0].resumed, report.tallies[0].judged) == (4, 6, 4)
    assert len([row for row in evaluations(store) if row["status"] == "ok"]) == 10
    assert len(ResumeFile(resume)) == 10


def test_corrected_gold_is_judged_again_although_the_file_remembers(tmp_path: Path) -> None:
    store, resume = tmp_path / "store", tmp_path / "resume.jsonl"
    answered = write_store(store, 2)
    run(store, gold_of(answered), GroundTruthMatch(), resume=ResumeFile(resume))
    report = run(store, gold_of(answered, label="other"), GroundTruthMatch(), resume=ResumeFile(resume))
    assert (report.tallies[0].resumed, report.tallies[0].failed) == (0, 2)
    assert {row["label"] for row in evaluations(store)} == {"fail"}


def test_a_file_that_is_no_resume_file_is_not_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    gold = gold_file(tmp_path / "gold.jsonl", wrong_at(write_store(store, 1)))
    before = gold.read_text()
    status, _, err = lstm_trace(capsys, "evaluate", store, "--gold", gold, "--resume", gold)
    assert (status, gold.read_text()) == (2, before)
    assert "not a resume file" in err


class Refusing(SpanExporter):
    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.FAILURE


def test_what_the_receiver_refused_is_counted_and_not_remembered_as_done(tmp_path: Path) -> None:
    store, resume = tmp_path / "store", tmp_path / "resume.jsonl"
    answered = write_store(store, 3)
    report = run(store, gold_of(answered), GroundTruthMatch(), exporter=Refusing(), resume=ResumeFile(resume))
    assert (report.written, report.refused, len(ResumeFile(resume))) == (0, 3, 0)


# --- Where the spans go ----------------------------------------------------------------------------------------------------------


def test_once_the_receiver_refuses_no_further_judge_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lstm_trace.evaluate.running._WRITE_SPANS", 1)
    answered = write_store(tmp_path, 40)
    slow = Slow(0.0)
    report = run(tmp_path, gold_of(answered), slow, exporter=Refusing(), workers=1)
    assert report.written == 0
    assert 1 <= len(slow.starts) <= 5, "what was under way, and no more"


class Kept(SpanExporter):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Any) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.SUCCESS


def test_weights_stand_on_the_spans_and_steer_the_rate(tmp_path: Path) -> None:
    one, two = write_store(tmp_path, 2)
    lines = [
        {"trace_id": one.trace_id, "label": "other", "weight": 9.0},
        {"trace_id": two.trace_id, "label": two.predicted, "weight": 1.0},
    ]
    kept = Kept()
    report = run(tmp_path, parse_gold(map(json.dumps, lines)), GroundTruthMatch(), exporter=kept)
    assert {(span.attributes or {})[c.EVALUATION_WEIGHT] for span in kept.spans} == {9.0, 1.0}
    row = report.tallies[0].row()
    assert (row["fail_rate"], row["weighted"]) == (0.9, True)
    # Two cases of so uneven a weight are worth 1.2 even ones: the interval says nearly nothing.
    assert row["ci_high"] - row["ci_low"] > 0.7


def test_a_folder_may_be_named_instead_of_the_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, beside = tmp_path / "store", tmp_path / "scores"
    gold = gold_file(tmp_path / "gold.jsonl", wrong_at(write_store(store, 2)))
    files = sorted(store.iterdir())
    assert lstm_trace(capsys, "evaluate", store, "--gold", gold, "--to", beside)[0] == 0
    assert sorted(store.iterdir()) == files
    assert len(evaluations(beside)) == 4


def test_a_single_file_needs_a_place_for_the_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    gold = gold_file(tmp_path / "gold.jsonl", wrong_at(write_store(store, 1)))
    (file,) = store.glob("*.jsonl")
    status, _, err = lstm_trace(capsys, "evaluate", file, "--gold", gold)
    assert status == 2
    assert "give --to FOLDER or --endpoint URL" in err


def test_several_components_need_a_name_in_gold(tmp_path: Path) -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    import lstm_trace as lt
    from lstm_trace.recorder import Recorder, set_default_recorder

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(StoreExporter(tmp_path)))
    set_default_recorder(Recorder(Settings(), tracer_provider=provider))
    with provider.get_tracer("app").start_as_current_span("chain") as span:
        lt.record_prediction("intent", label="refund")
        lt.record_prediction("risk", label="high")
        trace_id = f"{span.get_span_context().trace_id:032x}"
    provider.shutdown()
    lines = [{"trace_id": trace_id, "component": "risk", "label": "high"}, {"trace_id": trace_id, "component": "intent", "label": "repair"}]
    named = run(tmp_path, parse_gold(map(json.dumps, lines)), GroundTruthMatch())
    assert (named.tallies[0].passed, named.tallies[0].failed) == (1, 1)
    bare = run(tmp_path, parse_gold([json.dumps({"trace_id": trace_id, "label": "high"})]), GroundTruthMatch())
    assert bare.tallies[0].reasons == {"the trace has several components (intent, risk): the gold line must name its component": 1}


SCRIPTED = ScriptedChatModel()


def test_the_command_traces_its_judge_into_the_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    (answered,) = write_store(store, 1, content=True)
    gold = gold_file(tmp_path / "gold.jsonl", [{"trace_id": answered.trace_id}])
    SCRIPTED.script[:] = [verdict(0.9)]
    named = "python:tests.evaluate.test_evaluate_store:SCRIPTED"
    status, out, err = lstm_trace(
        capsys, "evaluate", store, "--gold", gold, "--evaluator", "groundedness", "--judge", named, "--format", "json"
    )
    assert (status, err) == (0, "")
    row = json.loads(out)["evaluations"][0]
    assert (row["passed"], row["judge_input_tokens"], row["judge_output_tokens"]) == (1, 210, 17)
    with open_store(store) as opened:
        spans = opened.spans.filter(opened.spans.trace_id != answered.trace_id).to_pyarrow().to_pylist()
    evaluation = next(span for span in spans if span["name"] == "evaluate groundedness")
    call = next(span for span in spans if span["name"] == "chat scripted-judge")
    assert call["trace_id"] == evaluation["trace_id"]
    assert (call["input_tokens"], call["output_tokens"]) == (210, 17)
    assert [link["trace_id"] for link in evaluation["links"]] == [answered.trace_id]
    assert dict(call["attributes"])[c.EVALUATION_JUDGE_NAME] == "groundedness"
    assert lstm_trace(capsys, "evaluate", store, "--gold", gold, "--evaluator", "groundedness", "--judge", named)[0] == 0


def test_the_table_is_readable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    gold = gold_file(tmp_path / "gold.jsonl", wrong_at(write_store(store, 4), 1))
    status, out, _ = lstm_trace(capsys, "evaluate", store, "--gold", gold)
    assert status == 0
    assert out.splitlines()[0].split() == ["evaluation", "judged", "passed", "failed", "fail_rate", "ci_low", "ci_high", "score_mean"]
    assert out.splitlines()[1].split()[:5] == ["ground_truth_match", "4", "3", "1", "0.25"]
    status, out, _ = lstm_trace(capsys, "evaluate", store, "--gold", gold, "--format", "csv")
    assert out.splitlines()[1].startswith("ground_truth_match,4,3,1,0,0,0,0.25,")


def test_more_traces_than_one_query_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lstm_trace.evaluate.running._TRACES_A_QUERY", 2)
    monkeypatch.setattr("lstm_trace.evaluate.running._ROWS_A_BATCH", 3)
    answered = write_store(tmp_path, 7)
    report = run(tmp_path, gold_of(answered), GroundTruthMatch())
    assert (report.tallies[0].passed, report.unknown) == (7, ())
