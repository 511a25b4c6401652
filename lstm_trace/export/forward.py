"""What a store holds, delivered to an OTLP receiver: how far it came is remembered, so that a second run goes on where one stopped."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import orjson

from lstm_trace.errors import BadInput
from lstm_trace.export import spool
from lstm_trace.export.endpoint import resolve
from lstm_trace.export.stored_lines import Line, batches, lines, together
from lstm_trace.export.wire import Answer, Sender, sender

_PROGRESS: Final = ".forwarded.json"
_PATIENCE: Final = 15.0
"""Seconds of tries before a receiver that is busy or away counts as failed."""


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What became of a store's spans. ``malformed`` and ``refused`` name lines as ``file:line``."""

    endpoint: str
    files: int = 0
    spans: int = 0
    malformed: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


def forward(store: str | os.PathLike[str], endpoint: str | None = None, *, environ: Mapping[str, str] | None = None) -> Forwarded:
    """Deliver every line of ``store`` that ``endpoint`` has not been given yet.

    ``store`` is a folder of OTLP JSON lines, ours or the Collector's. How far each file came is remembered in ``.forwarded.json`` in it, by
    endpoint. A line that is not OTLP, and one that the receiver finds fault with, are passed over and named; the last line of a file that
    is still being written waits for the next run. Of ``configure(durable=True)`` it delivers what no
    living process has in hand. A run that is killed may deliver its last request twice, never less than once.

    Raises BadInput when the store or the endpoint cannot be used, or the receiver stops taking spans; what was delivered is remembered.
    """
    target = resolve("traces", endpoint, os.environ if environ is None else environ)
    folder = Path(store)
    if not folder.is_dir():
        raise BadInput(
            f"store={str(store)!r} is {'no folder' if folder.exists() else 'not there'}: accepted is a folder of OTLP JSON lines"
        )
    progress = _Progress(folder / _PROGRESS, target.shown)
    done = Forwarded(target.shown)
    with closing(sender(target)) as receiver:
        for file in sorted(folder.glob("*.jsonl")):
            if not file.name.startswith(f"{spool.PREFIX}-"):
                done = _deliver_file(file, progress.of(file.name), partial(progress.note, file.name), receiver, done)
                continue
            with spool.claim(file) as ours:
                if ours:
                    done = _deliver_file(file, spool.sent(file), partial(spool.note, file), receiver, done)
    return done


def _deliver_file(file: Path, start: int, note: Callable[[int], None], receiver: Sender, done: Forwarded) -> Forwarded:
    done = replace(done, files=done.files + 1)
    for batch in batches(lines(file, start)):
        done = _deliver(batch, receiver, done)
        note(batch[-1].end)
    return done


def _deliver(batch: Sequence[Line], receiver: Sender, done: Forwarded) -> Forwarded:
    good = [line for line in batch if line.message is not None]
    done = replace(done, malformed=done.malformed + tuple(line.place for line in batch if line.message is None))
    answer = _persist(good, receiver) if good else Answer()
    if answer.bad_data and len(good) > 1:
        # One line may spoil a request for the others.
        for line in good:
            done = _deliver([line], receiver, done)
        return done
    if answer.bad_data:
        return replace(done, refused=(*done.refused, f"{good[0].place} ({answer.reason})"))
    if answer.reason:
        raise BadInput(
            f"{done.endpoint} does not take spans ({answer.reason}): {done.spans} were delivered; give the same command again to go on"
        )
    partly = (f"{good[0].place} and what follows ({answer.rejected} spans rejected)",) if answer.rejected else ()
    return replace(done, spans=done.spans + sum(line.spans for line in good) - answer.rejected, refused=done.refused + partly)


def _persist(batch: Sequence[Line], receiver: Sender) -> Answer:
    deadline, wait = time.monotonic() + _PATIENCE, 0.5
    while True:
        answer = receiver.send(together(batch))
        if not answer.retryable or time.monotonic() + wait > deadline:
            return answer
        time.sleep(wait)
        wait *= 2


class _Progress:
    """Bytes of each file that one endpoint took, in one small JSON file that is replaced whole."""

    def __init__(self, path: Path, endpoint: str) -> None:
        self._path = path
        self._all: dict[str, dict[str, int]] = {}
        try:
            if path.exists():
                self._all = orjson.loads(path.read_bytes())
            self._mine = self._all.setdefault(endpoint, {})
            self._save()
        except (OSError, ValueError, AttributeError) as error:
            raise BadInput(f"{path}: how far a delivery came cannot be kept there ({error}); accepted is a writable store") from None

    def of(self, file: str) -> int:
        return self._mine.get(file, 0)

    def note(self, file: str, end: int) -> None:
        self._mine[file] = end
        self._save()

    def _save(self) -> None:
        draft = self._path.with_suffix(".draft")
        draft.write_bytes(orjson.dumps(self._all, option=orjson.OPT_INDENT_2))
        draft.replace(self._path)
