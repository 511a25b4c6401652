"""What is in force as a run starts: looked up once for all that happens to the run, which keeps it until its end."""

from __future__ import annotations

from lstm_trace.instrument.langchain.attributes import Vocabulary
from lstm_trace.instrument.langchain.content import Content
from lstm_trace.recorder import Recorder
from lstm_trace.recorder.run_spans import RunSpans


class InForce(RunSpans):
    """The recorder with what follows from its settings and its TracerProvider.

    ``content`` writes people's words; it is None with content capture off.
    """

    __slots__ = ("content", "settings", "vocabulary")

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(recorder)
        self.settings = recorder.settings
        self.vocabulary = Vocabulary(self.settings)
        self.content = Content(recorder, self.vocabulary.openinference, self.vocabulary.gen_ai) if self.settings.content else None
