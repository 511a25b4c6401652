"""The micro-batcher of the examples: every request's trace says what its batch did for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_microbatch() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "microbatch.py")],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        check=True,
    )
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines() if "links" in line]
    requests = {trace for trace, rest in lines if rest.startswith("request")}
    components = {trace for trace, rest in lines if rest.startswith("lstm intent")}
    (batch,) = [(trace, rest) for trace, rest in lines if rest.startswith("lstm batch")]
    assert len(requests) == 8
    assert components == requests
    assert batch[0] not in requests
    assert "8 links" in batch[1]
