"""The Ray Serve and the BentoML example, served for real: every request's trace says what its batch did for it.

Skipped where the framework is not installed; `.ci/serving-peers` installs each into an environment of its own and runs this.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.test_readme import clean_environment, read_spans

pytestmark = pytest.mark.real

REQUESTS = 8
UNSAMPLED = 3

RAY = """
import sys
import ray
from ray import serve
ray.init(num_cpus=1, include_dashboard=False)
serve.start(http_options={{"host": "127.0.0.1", "port": {port}}})
from examples.ray_serve import app
serve.run(app, route_prefix="/intent")
print("ready", flush=True)
sys.stdin.read()
serve.shutdown()
ray.shutdown()
"""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def serving(command: list[str], folder: Path, ready: str, says: str = "", *, stop: signal.Signals | None = None) -> Iterator[None]:
    """Run a server until the block ends, and let it stop by itself, as a deployment does.

    It is ready when the address ``ready`` answers with ``says``; it stops when its input ends, or at the signal ``stop``.
    """
    environ = {
        **clean_environment(),
        "LSTM_TRACE_STORE": str(folder / "traces"),
        "BENTOML_HOME": str(folder / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=environ, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 240
        while not answers(ready, says):
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.5)
        yield
        assert server.stdin is not None
        server.stdin.close()
        if stop is not None:
            server.send_signal(stop)
        server.wait(120)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # its own session: nobody else's processes
        server.wait(20)


def answers(address: str, says: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return says in answer.read().decode()
    except OSError:
        return False


def ask_all(url: str) -> list[Any]:
    def ask(number: int) -> Any:
        parent = f"00-{number + 1:032x}-{number + 1:016x}-{'00' if number == UNSAMPLED else '01'}"
        given = urllib.request.Request(
            url, json.dumps({"events": list(range(1, number + 2))}).encode(), {"content-type": "application/json", "traceparent": parent}
        )
        with urllib.request.urlopen(given, timeout=120) as answer:
            return json.load(answer)

    with ThreadPoolExecutor(REQUESTS) as pool:
        return list(pool.map(ask, range(REQUESTS)))


def check(answered: list[Any], spans: list[dict[str, Any]]) -> None:
    assert [each["intent"] in ("refund", "status", "cancel") for each in answered] == [True] * REQUESTS
    sampled = [number for number in range(REQUESTS) if number != UNSAMPLED]
    requests = {span["spanId"]: int(span["traceId"], 16) - 1 for span in spans if span["name"] == "POST /intent"}
    assert sorted(requests.values()) == sampled
    components = [span for span in spans if span["name"] == "lstm intent"]
    assert sorted(int(span["traceId"], 16) - 1 for span in components) == sampled
    batches = {span["spanId"]: span for span in spans if span["name"] == "lstm batch intent"}
    for span in components:
        facts = span["attributes"]
        number = requests[span["parentSpanId"]]
        assert number == int(span["traceId"], 16) - 1
        assert int(facts["lstm.sequence.length"]) == number + 1
        assert 0 <= facts["lstm.batch.queue_wait"] < 60
        assert 0 < facts["lstm.batch.compute"] < 60
        (link,) = span["links"]
        batch = batches[link["spanId"]]
        assert span["parentSpanId"] in {each["spanId"] for each in batch["links"]}
        assert int(batch["attributes"]["lstm.batch.size"]) == int(facts["lstm.batch.size"])
    for batch in batches.values():
        assert not batch.get("parentSpanId"), "a batch is below nobody's request"
        assert int(batch["traceId"], 16) > REQUESTS


@pytest.mark.skipif(find_spec("ray") is None, reason="not installed: ray[serve]")
def test_ray_serve(tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{(port := free_port())}"
    with serving([sys.executable, "-c", RAY.format(port=port)], tmp_path, f"{address}/-/routes", "/intent"):
        answered = ask_all(f"{address}/intent")
    check(answered, read_spans(tmp_path / "traces"))


@pytest.mark.skipif(find_spec("bentoml") is None, reason="not installed: bentoml")
def test_bentoml_service(tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "bentoml", "serve", "examples.bentoml_service:Gateway", "--host", "127.0.0.1", "--port", str(port)]
    with serving(command, tmp_path, f"{address}/readyz", stop=signal.SIGINT):
        answered = ask_all(f"{address}/intent")
    check(answered, read_spans(tmp_path / "traces"))
