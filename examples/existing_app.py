"""An application that has OpenTelemetry already: its own provider, sampler and exporter, and OpenInference on its LangChain calls.

    pip install 'lstm-trace[torch]' langchain-core openinference-instrumentation-langchain
    python examples/existing_app.py

lstm-trace is a guest: it takes the provider that is there, replaces nothing, and adds the classifier's span. Its upstream facts
land on every span that starts after a prediction, also on those of the other instrumentation: one search for
`lstm.upstream.cohort = 13-20` finds the LLM calls that long sessions led to.
"""

import torch
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from openinference.instrumentation.langchain import LangChainInstrumentor as OpenInference
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased

import lstm_trace

INTENTS = ("report_damage", "claim_status", "dispute_payout")


class Printing(SpanExporter):
    """Their exporter: stands for whatever backend the application has."""

    def export(self, spans: "tuple[ReadableSpan, ...]") -> SpanExportResult:
        for span in spans:
            facts = span.attributes or {}
            seen = {name: facts[name] for name in ("lstm.sequence.length", "lstm.upstream.label", "lstm.upstream.cohort") if name in facts}
            print(f"{span.instrumentation_scope.name if span.instrumentation_scope else '?':45} {span.name:22} {seen}")
        return SpanExportResult.SUCCESS


def their_setup() -> TracerProvider:
    """What the application did before it heard of lstm-trace."""
    provider = TracerProvider(resource=Resource.create({"service.name": "claims"}), sampler=ParentBased(ALWAYS_ON))
    provider.add_span_processor(SimpleSpanProcessor(Printing()))
    trace.set_tracer_provider(provider)
    OpenInference().instrument(tracer_provider=provider)
    return provider


# --- added: one decorator, and two lines in main() ----------------------------------------------------------------------
@lstm_trace.trace_lstm(name="intent", labels=INTENTS)
class IntentClassifier(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(32, 16)
        self.lstm = torch.nn.LSTM(16, 32, batch_first=True)
        self.head = torch.nn.Linear(32, len(INTENTS))

    def forward(self, events: torch.Tensor) -> torch.Tensor:
        output, _ = self.lstm(self.embed(events))
        return self.head(output[:, -1])


def main() -> None:
    provider = their_setup()
    lstm_trace.configure()  # providers are there: this only adds the upstream processor to them
    lstm_trace.LSTMInstrumentor().instrument()  # the classifier only; LangChain stays with OpenInference

    torch.manual_seed(1)
    classifier, chat = IntentClassifier().eval(), FakeListChatModel(responses=["It takes 3 working days."])
    tracer = trace.get_tracer("their.app")
    with tracer.start_as_current_span("POST /claims"):
        with torch.inference_mode():
            intent = INTENTS[int(classifier(torch.randint(0, 32, (1, 15))).argmax())]
        chat.invoke(f"{intent}: how long does it take?")
    provider.shutdown()


if __name__ == "__main__":
    main()
