"""Deterministic OTLP JSON lines of any size: claims sessions of eight spans each, half under release v1, half under v2.

A session is what the demo writes: a chain, the classifier, four steps, a chat model, and one evaluation in a trace of its own. In v2
sessions longer than 12 steps are classified with less confidence and judged worse. Equal numbers of spans give equal bytes.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

SPANS_A_SESSION = 8
SESSIONS_A_LINE = 32
LABELS = ("refund", "status", "complaint", "cancel", "upgrade", "fraud", "address", "other")
COHORTS = ((4, "1-4"), (8, "5-8"), (12, "9-12"), (20, "13-20"), (10**9, "21+"))
RESOURCE = (
    '{"attributes":[{"key":"service.name","value":{"stringValue":"claims-agent"}},{"key":"service.version","value":{"stringValue":"%s"}},'
    '{"key":"telemetry.sdk.language","value":{"stringValue":"python"}},{"key":"telemetry.sdk.name","value":{"stringValue":"opentelemetry"}},'
    '{"key":"telemetry.sdk.version","value":{"stringValue":"1.45.1"}},{"key":"deployment.environment.name","value":{"stringValue":"production"}}]}'
)
START = 1_750_000_000_000_000_000
TEN_MINUTES = 600_000_000_000


def text(key: str, value: str) -> str:
    return f'{{"key":"{key}","value":{{"stringValue":"{value}"}}}}'


def whole(key: str, value: int) -> str:
    return f'{{"key":"{key}","value":{{"intValue":"{value}"}}}}'


def real(key: str, value: float) -> str:
    return f'{{"key":"{key}","value":{{"doubleValue":{value!r}}}}}'


def span(trace: str, own: str, parent: str, name: str, start: int, end: int, attributes: list[str], rest: str = "") -> str:
    return (
        f'{{"traceId":"{trace}","spanId":"{own}","parentSpanId":"{parent}","flags":256,"name":"{name}","kind":1,'
        f'"startTimeUnixNano":"{start}","endTimeUnixNano":"{end}","attributes":[{",".join(attributes)}]{rest},"status":{{}}}}'
    )


def session(number: int, release: str, draw: random.Random) -> Iterator[str]:
    """The eight spans of one session, as JSON."""
    trace = f"{number + 1:032x}"
    ids = [f"{number * SPANS_A_SESSION + i + 1:016x}" for i in range(SPANS_A_SESSION)]
    length = min(40, 1 + int(draw.expovariate(1 / 11)))
    cohort = next(name for edge, name in COHORTS if length <= edge)
    hurt = release == "v2" and length > 12
    confidence = round(min(0.999, max(0.15, draw.gauss(0.66 if hurt else 0.88, 0.09))), 6)
    label = LABELS[draw.randrange(len(LABELS))]
    branch = "lookup" if draw.random() < confidence else "fallback"
    failed = draw.random() < (0.18 if hurt else 0.09)
    start = START + number * 250_000_000
    model_s, chat_s = draw.lognormvariate(-4.6, 0.35), draw.lognormvariate(-0.4, 0.5)
    at = start + 900_000
    classified = at + int(model_s * 1e9)
    answered = classified + 12_000_000 + int(chat_s * 1e9)
    who = [text("lstm.release", release), text("session.id", f"s-{number:08d}")]
    upstream = [
        text("lstm.upstream.component", "intent"),
        text("lstm.upstream.label", label),
        real("lstm.upstream.confidence", confidence),
        whole("lstm.upstream.sequence_length", length),
        text("lstm.upstream.cohort", cohort),
        text("lstm.upstream.span_id", ids[2]),
    ]

    def step(i: int, node: str, begin: int, end: int, more: list[str]) -> str:
        place = [whole("agent.trajectory.step", i), text("agent.trajectory.branch", node), text("agent.trajectory.path", str(i))]
        return span(
            trace,
            ids[(0, 1, 3, 4, 5)[i]],
            ids[0],
            f"chain {node}",
            begin,
            end,
            [text("openinference.span.kind", "CHAIN"), *place, *who, *more],
        )

    yield span(trace, ids[0], "", "chain claims", start, answered + 400_000, [text("openinference.span.kind", "AGENT"), *who])
    yield step(1, "classify", at - 300_000, classified + 200_000, [])
    sequence = [
        whole("lstm.sequence.length", length),
        text("lstm.prediction.label", label),
        real("lstm.prediction.confidence", confidence),
        text("lstm.state.origin", "none"),
    ]
    held = ",".join([whole("lstm.batch.index", 0), *sequence])
    event = f',"events":[{{"timeUnixNano":"{classified}","name":"lstm.prediction","attributes":[{held}]}}]'
    component = [
        text("openinference.span.kind", "CHAIN"),
        text("lstm.component.name", "intent"),
        text("lstm.component.version", "3"),
        text("lstm.preprocessing.version", release),
        text("lstm.cell", "LSTM"),
        whole("lstm.batch.size", 1),
        text("lstm.sequence.length_source", "lengths"),
        text("lstm.sequence.cohort", cohort),
        real("lstm.prediction.margin", round(confidence * 0.8, 6)),
        real("lstm.prediction.entropy", round(1.2 - confidence, 6)),
        whole("agent.trajectory.step", 1),
        text("agent.trajectory.branch", "classify"),
    ]
    yield span(trace, ids[2], ids[1], "lstm intent", at, classified, component + sequence + who, event)
    yield step(2, branch, classified + 300_000, classified + 2_000_000, upstream)
    yield step(3, "retrieve", classified + 2_100_000, classified + 9_000_000, upstream)
    yield step(4, "answer", classified + 9_100_000, answered + 200_000, upstream)
    tokens = (draw.randrange(300, 1500), draw.randrange(20, 240))
    chat = [
        text("openinference.span.kind", "LLM"),
        text("gen_ai.operation.name", "chat"),
        text("gen_ai.provider.name", "local"),
        text("gen_ai.response.model", "local-answers-1"),
        text("llm.model_name", "local-answers-1"),
        whole("gen_ai.usage.input_tokens", tokens[0]),
        whole("gen_ai.usage.output_tokens", tokens[1]),
        whole("llm.token_count.prompt", tokens[0]),
        whole("llm.token_count.completion", tokens[1]),
        whole("agent.trajectory.step", 4),
        '{"key":"gen_ai.response.finish_reasons","value":{"arrayValue":{"values":[{"stringValue":"stop"}]}}}',
    ]
    link = f',"links":[{{"traceId":"{trace}","spanId":"{ids[2]}","attributes":[{text("lstm.link.kind", "upstream")}]}}]'
    yield span(trace, ids[6], ids[5], "chat local-answers-1", answered - int(chat_s * 1e9), answered, chat + upstream + who, link)
    judged = [
        text("openinference.span.kind", "EVALUATOR"),
        text("gen_ai.evaluation.name", "answer_quality"),
        real("gen_ai.evaluation.score.value", 0.0 if failed else 1.0),
        text("gen_ai.evaluation.score.label", "fail" if failed else "pass"),
        text("lstm.evaluation.target.trace_id", trace),
        text("lstm.evaluation.target.span_id", ids[0]),
        text("lstm.evaluation.evaluator_version", "1"),
        text("lstm.evaluation.identifier", f"{number:016x}"),
        text("lstm.evaluation.status", "ok"),
        text("lstm.evaluation.annotator", "CODE"),
        text("lstm.sequence.cohort", cohort),
        real("lstm.prediction.confidence", confidence),
    ]
    target = f',"links":[{{"traceId":"{trace}","spanId":"{ids[0]}","attributes":[{text("lstm.link.kind", "evaluation")}]}}]'
    later = answered + TEN_MINUTES
    yield span(f"{number + 1 + (1 << 64):032x}", ids[7], "", "evaluate answer_quality", later, later + 30_000, judged + who[:1], target)


def lines(spans: int, seed: int = 7) -> Iterator[str]:
    """At least ``spans`` spans, rounded up to whole sessions, as export requests of 32 sessions a line."""
    draw = random.Random(seed)
    sessions = -(-spans // SPANS_A_SESSION)
    for first in range(0, sessions, SESSIONS_A_LINE):
        release = "v1" if first < sessions // 2 else "v2"
        made = [one for number in range(first, min(first + SESSIONS_A_LINE, sessions)) for one in session(number, release, draw)]
        scope = f'{{"scope":{{"name":"lstm_trace","version":"0.1.0"}},"spans":[{",".join(made)}]}}'
        yield f'{{"resourceSpans":[{{"resource":{RESOURCE % release},"scopeSpans":[{scope}]}}]}}\n'


def write(path: Path, spans: int) -> int:
    """Write ``spans`` spans to ``path``; returns the bytes."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(lines(spans))
    return path.stat().st_size


if __name__ == "__main__":
    print(write(Path(sys.argv[1]), int(sys.argv[2])), "bytes")
