"""`lstm-trace demo`: train, run two releases, read the store back and show what the traces say."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lstm_trace.errors import BadInput

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

BASELINE, CANDIDATE = "v1", "v2"
KEEPS: Final = {BASELINE: 20, CANDIDATE: 8}
"""Release -> how many of the last events its preprocessing keeps. Nothing else differs between the two."""
SESSIONS: Final = 600
"""Enough for a verdict on this incident, and half a minute of work."""
SESSIONS_REAL: Final = 60
"""The default with a real chat model: each session costs two calls of it."""
TRAINING: Final = 3000
MARK: Final = "lstm-trace-demo.json"
NEEDED: Final = ("torch", "langgraph", "langchain_core", "duckdb", "ibis", "altair")


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for, checked by ``checked``."""

    out: Path
    sessions: int
    endpoint: str | None = None
    model: str | None = None

    @property
    def store(self) -> Path:
        """The folder of spans."""
        return self.out / "store"

    @property
    def report(self) -> Path:
        """The page."""
        return self.out / "report.html"


def checked(out: Path, sessions: int | None, endpoint: str | None, model: str | None) -> Options:
    """Check every option before anything is written. Raises BadInput that names the option, its value and what is accepted."""
    from importlib.util import find_spec

    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise BadInput(f"the demo needs packages that are not installed ({', '.join(missing)}): pip install 'lstm-trace[demo]'")
    if sessions is not None and sessions < 1:
        raise BadInput(f"--sessions {sessions}: accepted is a whole number from 1")
    if out.exists() and not out.is_dir():
        raise BadInput(f"--out {out}: is a file; accepted is a folder, new or from an earlier demo")
    if out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file():
        raise BadInput(f"--out {out}: holds files that are not the demo's; accepted is a folder, new, empty or from an earlier demo")
    if (out / "store").is_file():
        raise BadInput(f"--out {out}: its store is a file; accepted is a folder, new, empty or from an earlier demo")
    if endpoint is not None:
        from lstm_trace.export.endpoint import resolve

        try:
            resolve("traces", endpoint, os.environ)
        except BadInput as error:
            raise BadInput(f"--endpoint: {error}") from None
    if model is not None:
        from lstm_trace.demo.chat import chat_model

        chat_model(model)
    return Options(out, sessions or (SESSIONS_REAL if model else SESSIONS), endpoint, model)


def run(options: Options, console: Console) -> None:
    """Do the whole demo and print its findings on ``console``."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from lstm_trace.demo.show import show

    endpoint = reachable(options)
    prepare(options)
    columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        train_classifier(options, progress)
        # side by side: half the wait, and both releases meet the same machine
        with ThreadPoolExecutor(len(KEEPS)) as pool:
            for deployed in [pool.submit(deploy, *release, options, endpoint, progress) for release in KEEPS.items()]:
                deployed.result()
    show(options, console)


def reachable(options: Options) -> str | None:
    """Return the endpoint if something listens there; otherwise say so in one line and go on with the store alone."""
    from lstm_trace.export.endpoint import resolve

    if options.endpoint is None:
        return None
    target = resolve("traces", options.endpoint, os.environ)
    if target.address is None:
        return options.endpoint
    try:
        socket.create_connection(target.address, timeout=2).close()
    except OSError as error:
        print(  # noqa: T201
            f"lstm-trace: --endpoint {target.shown} cannot be reached ({error.strerror or error}): every span is kept in {options.store}, "
            "and `lstm-trace forward` delivers them later",
            file=sys.stderr,
        )
        return None
    return options.endpoint


def prepare(options: Options) -> None:
    """Make the output folder; an earlier demo's store goes, so that two runs never mix."""
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / MARK).write_text(json.dumps({"written by": "lstm-trace demo"}) + "\n")
    except OSError as error:
        raise BadInput(f"--out {options.out}: cannot be written ({error.strerror})") from None
    shutil.rmtree(options.store, ignore_errors=True)
    options.report.unlink(missing_ok=True)


def train_classifier(options: Options, progress: Progress) -> None:
    """Train the intent classifier on sessions that neither release will see, and save its weights."""
    import torch

    from lstm_trace.demo.model import steps, train
    from lstm_trace.demo.sessions import make_sessions

    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread, and lose much on a busy machine
    task = progress.add_task("train the intent LSTM", total=steps(TRAINING))
    model = train(make_sessions(TRAINING, seed=1), on_step=lambda: progress.advance(task))
    torch.save(model.state_dict(), options.out / "intent.pt")


def deploy(release: str, keep: int, options: Options, endpoint: str | None, progress: Progress) -> None:
    """Run one release in a process of its own, as in real life, and follow its progress. What it logs stands in OUT/{release}.log."""
    task = progress.add_task(f"{release}: sessions, last {keep} events kept", total=options.sessions)
    command = [sys.executable, "-m", "lstm_trace.demo.deployment", "--release", release, "--keep", str(keep)]
    command += ["--weights", str(options.out / "intent.pt"), "--store", str(options.store), "--sessions", str(options.sessions)]
    command += ["--endpoint", endpoint] if endpoint else []
    command += ["--model", options.model] if options.model else []
    log = options.out / f"{release}.log"
    pipe, env = subprocess.PIPE, environment(os.environ, endpoint)
    with log.open("w") as errors, subprocess.Popen(command, stdout=pipe, stderr=errors, text=True, env=env) as process:
        try:
            failed = follow(process, progress, task)
        except BaseException:
            process.terminate()
            raise
    said = log.read_text(errors="replace").strip().splitlines()
    if failed or process.returncode:
        raise BadInput(failed or f"release {release} stopped: {said[-1] if said else process.returncode} (its log is {log})")
    if said:
        more = f" (and {len(said) - 1} lines more: {log})" if len(said) > 1 else ""
        progress.console.print(f"{release}: {said[0]}{more}", markup=False, highlight=False, soft_wrap=True)
    else:
        log.unlink()


def environment(environ: Mapping[str, str], endpoint: str | None) -> dict[str, str]:
    """Leave out what would change the story, and where nobody asked for it, what would send it away.

    >>> environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://prod:4318", "HOME": "/root"}, None)
    {'HOME': '/root'}
    """
    aside = {"OTEL_SDK_DISABLED", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_SERVICE_NAME"}
    kept = {name: value for name, value in environ.items() if name not in aside and not name.startswith("LSTM_TRACE_")}
    if endpoint is None:
        kept = {name: value for name, value in kept.items() if not name.startswith("OTEL_EXPORTER_")}
    return kept


def follow(process: subprocess.Popen[str], progress: Progress, task: object) -> str | None:
    """Read a deployment's lines until it ends; return why it failed, if it said so."""
    failed = None
    for line in process.stdout or ():
        with suppress(ValueError):
            said = json.loads(line)
            failed = said.get("failed", failed)
            progress.update(task, completed=said.get("done"))  # type: ignore[arg-type]
    return failed
