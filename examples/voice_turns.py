"""A turn detector in a voice pipeline: silero-vad, a ScriptModule whose LSTM cell keeps its state between 32 ms chunks.

    pip install 'lstm-trace[torch]' silero-vad
    python examples/voice_turns.py

Thirty chunks a second would be thirty spans a second. `traced_session` makes one span an utterance, with an event where speech
starts and one where it ends. The audio is spoken by espeak-ng when it is installed, otherwise made of pulses and formants.
"""

import math
import shutil
import subprocess
import tempfile
import wave
from pathlib import Path

import torch
from silero_vad import load_silero_vad

import lstm_trace

RATE, CHUNK = 16_000, 512  # 32 ms
TURNS = ("I would like to report damage to my car.", "Yes, I have four photos.")


class EndOfTurn:
    """Speech starts with one loud chunk; it ends after eight quiet ones (256 ms), not at the first breath."""

    def __init__(self, patience: int = 8) -> None:
        self.patience, self.quiet, self.speaking = patience, 0, False

    def __call__(self, previous: lstm_trace.Prediction | None, current: lstm_trace.Prediction) -> bool:
        self.quiet = 0 if current.label == "speech" else self.quiet + 1
        changed = self.quiet == 0 if not self.speaking else self.quiet >= self.patience
        if changed:
            self.speaking = not self.speaking
        return changed


def speech_or_silence(output: torch.Tensor) -> lstm_trace.Prediction:
    """silero gives the probability of speech, shape (batch, 1)."""
    probability = float(output[0, 0])
    spoken = probability >= 0.5
    return lstm_trace.Prediction("speech" if spoken else "silence", int(spoken), max(probability, 1 - probability))


def spoken(text: str) -> torch.Tensor:
    """Half a second of quiet, the text, and 0.7 s of quiet: mono samples at 16 kHz."""
    voice = by_espeak(text) if shutil.which("espeak-ng") else by_formants(seconds=len(text) / 18)
    quiet = torch.Generator().manual_seed(1)
    return torch.cat([0.001 * torch.randn(RATE // 2, generator=quiet), voice, 0.001 * torch.randn(int(0.7 * RATE), generator=quiet)])


def by_espeak(text: str) -> torch.Tensor:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "turn.wav"
        subprocess.run(["espeak-ng", "-w", str(file), text], check=True)
        with wave.open(str(file)) as sound:
            samples = torch.frombuffer(bytearray(sound.readframes(sound.getnframes())), dtype=torch.int16) / 32768
            length = int(len(samples) * RATE / sound.getframerate())
    return torch.nn.functional.interpolate(samples[None, None], length, mode="linear")[0, 0]


def by_formants(seconds: float) -> torch.Tensor:
    """Harmonics of a voice of about 120 Hz, shaped by the formants of four vowels, four syllables a second."""
    time = torch.arange(int(seconds * RATE)) / RATE
    pitch = 120 + 15 * torch.sin(2 * math.pi * 3 * time)
    phase = 2 * math.pi * torch.cumsum(pitch / RATE, 0)
    vowels = torch.tensor([(730.0, 1090.0, 2440.0), (270.0, 2290.0, 3010.0), (300.0, 870.0, 2240.0), (530.0, 1840.0, 2480.0)])
    formants = vowels[(time * 4).long() % len(vowels)]
    strengths = torch.tensor([1.0, 0.5, 0.2])
    sound = torch.zeros_like(time)
    for harmonic in range(1, 40):
        distance = (harmonic * pitch[:, None] - formants) / 80
        sound += (strengths / (1 + distance**2)).sum(-1) * torch.sin(harmonic * phase)
    return 0.3 * sound / sound.abs().max() * (0.5 - 0.5 * torch.cos(2 * math.pi * 4 * time))


def main() -> None:
    torch.set_num_threads(1)
    providers = lstm_trace.configure(service_name="voice-agent", release="2026.11")
    lstm_trace.instrument()
    vad = lstm_trace.trace_lstm(load_silero_vad(), name="vad", version="6", prediction=speech_or_silence)

    for number, text in enumerate(TURNS, 1):
        vad.reset_states()  # a new turn must not begin with the state of the last one
        with (
            torch.inference_mode(),
            lstm_trace.traced_session(vad, f"call-17/turn-{number}", decision=EndOfTurn(), step_duration=CHUNK / RATE),
        ):
            for chunk in spoken(text).split(CHUNK):
                if len(chunk) == CHUNK:
                    vad(chunk, RATE)
    providers.shutdown()
    print(f"{len(TURNS)} utterances traced; look with: lstm-trace show {providers.store or '<your backend>'} <trace id>")


if __name__ == "__main__":
    main()
