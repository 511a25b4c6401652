"""What `import lstm_trace` costs beside `import opentelemetry.trace`: interleaved fresh processes, medians of CPU time in milliseconds."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

_ROUNDS = 15
_TIMED = "import time; t = time.process_time(); import {}; print(time.process_time() - t)"


def _milliseconds(module: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", _TIMED.format(module)], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    return float(done.stdout) * 1000


def main() -> None:
    modules = ("opentelemetry.trace", "lstm_trace", "opentelemetry.sdk.trace")
    times: dict[str, list[float]] = {module: [] for module in modules}
    for _ in range(_ROUNDS):
        for module in modules:
            times[module].append(_milliseconds(module))
    median = {module: statistics.median(values) for module, values in times.items()}
    base = median["opentelemetry.trace"]
    for module in modules:
        print(f"{module:26} {median[module]:7.1f} ms   × {median[module] / base:.2f}   + {median[module] - base:.1f} ms")


if __name__ == "__main__":
    main()
