"""The canonical spans table and the evaluations table as data: what every reader fills in and every analysis may rely on.

A column's value is the first of ``attributes`` that the span has and that reads as the column's type, else the first of
``resource`` that its resource has, else null. A text that does not read as the type, and a double that is not finite, is null in
the column and stays as it was in ``attributes``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from lstm_trace import conventions as c
from lstm_trace.store import foreign as f

MAP: Final = "map<string, string>"
EVENTS: Final = f"array<struct<name: string, time_ns: int64, attributes: {MAP}>>"
LINKS: Final = f"array<struct<trace_id: string, span_id: string, attributes: {MAP}>>"


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its ibis type, what it means, and the attributes it is coalesced from, first one first.

    ``case``: texts of every writer are brought to ``lower`` or ``upper`` case.
    """

    name: str
    type: str
    meaning: str
    attributes: tuple[str, ...] = ()
    resource: tuple[str, ...] = ()
    case: Literal["lower", "upper"] | None = None


COLUMNS: Final[tuple[Column, ...]] = (
    # --- the span itself
    Column("trace_id", "string", "32 lower-case hex digits; never null"),
    Column("span_id", "string", "16 lower-case hex digits; never null, unique within its trace"),
    Column("parent_span_id", "string", "16 lower-case hex digits; null for a root"),
    Column("name", "string", "the span's name"),
    Column("kind", "string", "`internal` `server` `client` `producer` `consumer` or `unspecified`"),
    Column("service", "string", "the service", resource=(f.SERVICE_NAME,)),
    Column("scope", "string", "name of the instrumentation scope"),
    Column("start_ns", "int64", "start, nanoseconds since 1970"),
    Column("end_ns", "int64", "end, nanoseconds since 1970"),
    Column("duration_s", "float64", "end minus start, seconds; null when either is missing or the end lies before the start"),
    Column("status", "string", "`unset` `ok` or `error`"),
    Column(
        "span_kind",
        "string",
        "OpenInference kind in capitals, from whichever vocabulary the span speaks; else derived from `gen_ai.operation.name`, "
        "`llm.request.type` or `traceloop.span.kind`",
        (c.OI_KIND, f.TRACEAI_KIND, f.TRACEAI_GEN_AI_KIND),
        case="upper",
    ),
    Column("release", "string", "the release under comparison", (c.RELEASE,), (c.RELEASE, f.SERVICE_VERSION)),
    Column("session_id", "string", "session or conversation", (c.SESSION_ID, c.GEN_AI_CONVERSATION_ID)),
    Column("user_id", "string", "user", (c.USER_ID, f.ENDUSER_ID)),
    # --- the component
    Column("component", "string", "name of the component", (c.COMPONENT_NAME,)),
    Column("component_version", "string", "version of the model", (c.COMPONENT_VERSION,)),
    Column("preprocessing", "string", "version of the feature code in front of it", (c.PREPROCESSING_VERSION,)),
    Column("cell", "string", "`LSTM` `GRU` …", (c.CELL,)),
    Column("batch_size", "int64", "sequences in the call", (c.BATCH_SIZE,)),
    Column("length", "int64", "true length, steps; one sequence, or all equal", (c.SEQUENCE_LENGTH,)),
    Column("length_min", "int64", "shortest true length of a batch", (c.SEQUENCE_LENGTH_MIN,)),
    Column("length_max", "int64", "longest true length of a batch", (c.SEQUENCE_LENGTH_MAX,)),
    Column("length_mean", "float64", "mean true length of a batch", (c.SEQUENCE_LENGTH_MEAN,)),
    Column("length_source", "string", "where the length was read; `shape` is a guess", (c.SEQUENCE_LENGTH_SOURCE,)),
    Column("cohort", "string", "cohort of the length as recorded", (c.SEQUENCE_COHORT,)),
    Column("time_gap", "float64", "largest gap between two steps, seconds", (c.SEQUENCE_TIME_GAP,)),
    Column("label", "string", "winning class", (c.PREDICTION_LABEL,)),
    Column("confidence", "float64", "largest class probability", (c.PREDICTION_CONFIDENCE,)),
    Column("confidence_min", "float64", "lowest confidence of a batch or streamed session", (c.PREDICTION_CONFIDENCE_MIN,)),
    Column("confidence_mean", "float64", "mean confidence of a batch or streamed session", (c.PREDICTION_CONFIDENCE_MEAN,)),
    Column("margin", "float64", "largest minus second largest probability", (c.PREDICTION_MARGIN,)),
    Column("entropy", "float64", "entropy of the class probabilities, nats", (c.PREDICTION_ENTROPY,)),
    Column("nonfinite", "boolean", "the output held NaN or Inf", (c.PREDICTION_NONFINITE,)),
    Column("state_origin", "string", "`none` `zero` `carried` `foreign` `unknown`", (c.STATE_ORIGIN,)),
    Column("state_steps", "int64", "calls since the session's last reset", (c.STATE_STEPS,)),
    # --- the trajectory
    Column("step", "int64", "step of the trajectory, from 1", (c.TRAJECTORY_STEP,)),
    Column("branch", "string", "graph node or branch of the step", (c.TRAJECTORY_BRANCH,)),
    Column("path", "string", "steps of nested agents, `2.1`", (c.TRAJECTORY_PATH,)),
    Column("attempt", "int64", "1 on the first try", (c.TRAJECTORY_ATTEMPT,)),
    # --- the prediction upstream
    Column("upstream_component", "string", "component whose prediction stands upstream", (c.UPSTREAM_COMPONENT,)),
    Column("upstream_label", "string", "its label", (c.UPSTREAM_LABEL,)),
    Column("upstream_confidence", "float64", "its confidence", (c.UPSTREAM_CONFIDENCE,)),
    Column("upstream_length", "int64", "the length it read, steps", (c.UPSTREAM_SEQUENCE_LENGTH,)),
    Column("upstream_cohort", "string", "the cohort of that length", (c.UPSTREAM_COHORT,)),
    Column("upstream_span_id", "string", "its span, hex", (c.UPSTREAM_SPAN_ID,), case="lower"),
    # --- models and tools
    Column(
        "model",
        "string",
        "the model that answered, else the one asked for",
        (c.GEN_AI_RESPONSE_MODEL, c.OI_MODEL, f.TRACEAI_MODEL, f.OI_EMBEDDING_MODEL, c.GEN_AI_REQUEST_MODEL),
    ),
    Column("provider", "string", "such as `openai`", (c.GEN_AI_PROVIDER, f.OI_PROVIDER, f.GEN_AI_SYSTEM, f.OI_SYSTEM)),
    Column("input_tokens", "int64", "input tokens", (c.GEN_AI_INPUT_TOKENS, c.OI_TOKENS_PROMPT, f.GEN_AI_PROMPT_TOKENS)),
    Column("output_tokens", "int64", "output tokens", (c.GEN_AI_OUTPUT_TOKENS, c.OI_TOKENS_COMPLETION, f.GEN_AI_COMPLETION_TOKENS)),
    Column("tool", "string", "the tool's name", (c.GEN_AI_TOOL_NAME, c.OI_TOOL_NAME)),
    # --- an evaluation that is a span of its own; every form of evaluation stands in the evaluations table
    Column("evaluation_name", "string", "what was judged", (c.EVALUATION_NAME, c.OI_EVALUATION + "name")),
    Column("evaluation_score", "float64", "the score", (c.EVALUATION_SCORE, c.OI_EVALUATION + "score")),
    Column("evaluation_label", "string", "`pass` `fail` `up` `down` `escalated`", (c.EVALUATION_LABEL, c.OI_EVALUATION + "label")),
    Column(
        "evaluation_status",
        "string",
        "`ok` `error` `skipped`; of a foreign one `ok` with a score or label, else `error`",
        (c.EVALUATION_STATUS,),
    ),
    Column("evaluation_identifier", "string", "equal ones: the latest counts", (c.EVALUATION_IDENTIFIER, c.OI_EVALUATION + "identifier")),
    Column("evaluation_version", "string", "version of the evaluator", (c.EVALUATION_EVALUATOR_VERSION,)),
    Column("evaluation_annotator", "string", "`CODE` `LLM` `HUMAN`", (c.EVALUATION_ANNOTATOR, c.OI_EVALUATION + "annotator_kind")),
    Column("evaluation_explanation", "string", "the reason given", (c.EVALUATION_EXPLANATION, c.OI_EVALUATION + "explanation")),
    Column(
        "target_trace_id",
        "string",
        "trace of the judged span, hex",
        (c.EVALUATION_TARGET_TRACE_ID,),
        case="lower",
    ),
    Column(
        "target_span_id",
        "string",
        "the judged span, hex; a foreign evaluator's: what its first link points to, else its parent (kind `EVALUATOR`), else itself",
        (c.EVALUATION_TARGET_SPAN_ID,),
        case="lower",
    ),
    Column("judge", "string", "the evaluator that this span's work was done for", (c.EVALUATION_JUDGE_NAME,)),
    Column("error_type", "string", "the exception's class", (c.ERROR_TYPE,)),
    # --- everything, also what has no column
    Column("attributes", MAP, "every attribute as text: numbers in decimal, `true`/`false`, arrays and maps as JSON"),
    Column("resource", MAP, "the resource's attributes, likewise"),
    Column("events", EVENTS, "the span's events in order"),
    Column("links", LINKS, "the span's links in order"),
)
"""The canonical spans table. Only ``trace_id`` and ``span_id`` are never null."""

NESTED: Final = ("attributes", "resource", "events", "links")
"""The columns that hold everything, also what has no column of its own."""

EVALUATION_COLUMNS: Final[tuple[Column, ...]] = (
    Column("evaluation_name", "string", "what was judged; never null"),
    Column("score", "float64", "the score; null when the evaluator failed or gave a label only"),
    Column("label", "string", "`pass` `fail` `up` `down` `escalated`, or a foreign evaluator's own, as recorded"),
    Column("status", "string", "`ok` `error` `skipped`; of foreign ones `ok` with a score or label, else `error`; never null"),
    Column("identifier", "string", "of equal ones only the latest is in the table"),
    Column("version", "string", "version of the evaluator"),
    Column("annotator", "string", "`CODE` `LLM` `HUMAN`"),
    Column("explanation", "string", "the reason given"),
    Column("error_type", "string", "why the evaluator failed"),
    Column("target_trace_id", "string", "trace of the judged span, hex; never null"),
    Column("target_span_id", "string", "the judged span, hex; null when only the trace is known"),
    Column("time_ns", "int64", "when it was judged, nanoseconds since 1970"),
    Column("release", "string", "copy from the span that carries the evaluation"),
    Column("cohort", "string", "likewise"),
    Column("confidence", "float64", "likewise"),
    Column("session_id", "string", "likewise"),
    Column("trace_id", "string", "the trace that carries the evaluation, hex"),
    Column("span_id", "string", "the span that carries the evaluation, hex"),
)
"""The evaluations table: one row for each judgement, whichever form it was recorded in."""

PROMOTED: Final = tuple(column for column in COLUMNS if column.attributes or column.resource)
"""The columns that are read from attributes."""


def spans_schema() -> Any:
    """The ibis schema of the spans table."""
    return _schema(COLUMNS)


def evaluations_schema() -> Any:
    """The ibis schema of the evaluations table."""
    return _schema(EVALUATION_COLUMNS)


def _schema(columns: tuple[Column, ...]) -> Any:
    import ibis

    return ibis.schema({column.name: column.type for column in columns})
