"""`configure()` in a process of its own: where spans go, what wins, what is said, and how long an exit takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.export.receiver import Receiver

_ROOT = Path(__file__).parents[1]


@dataclass
class Run:
    """What a process printed (its last line as JSON), logged to stderr and left in its folder."""

    said: Any
    errors: str
    status: int
    seconds: float
    folder: Path

    def stored(self, store: str = "lstm-traces") -> list[dict[str, Any]]:
        return [
            {**span, "resource": group["resource"]}
            for file in sorted((self.folder / store).glob("*.jsonl"))
            for line in file.read_bytes().splitlines()
            for group in json.loads(line)["resourceSpans"]
            for scope in group["scopeSpans"]
            for span in scope["spans"]
        ]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """An OTLP/HTTP receiver that takes everything."""
    with Receiver() as running:
        yield running


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Run ``code`` in an empty folder after ``import lstm_trace, trace``; ``answer(x)`` is what it has to say."""

    def run(code: str, timeout: float = 60, **environ: str) -> Run:
        base = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "LSTM_TRACE_"))}
        preamble = (
            "import json, lstm_trace\n"
            "from opentelemetry import trace, metrics, _logs\n"
            "def answer(value): print(json.dumps(value, default=str), flush=True)\n"
            "def work(count=1):\n"
            "    for _ in range(count):\n"
            "        with trace.get_tracer('app').start_as_current_span('work'): pass\n"
        )
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", preamble + textwrap.dedent(code)],
            cwd=tmp_path,
            env={**base, "PYTHONPATH": str(_ROOT), **environ},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        lines = done.stdout.splitlines()
        return Run(json.loads(lines[-1]) if lines else None, done.stderr, done.returncode, time.monotonic() - began, tmp_path)

    return run


def _attributes(owner: dict[str, Any]) -> dict[str, Any]:
    return {item["key"]: next(iter(item["value"].values()), None) for item in owner.get("attributes", [])}


# --- Where spans go --------------------------------------------------------------------------------------------------------


def test_without_an_endpoint_spans_go_to_the_store_and_nothing_is_said(run: Any) -> None:
    done = run("p = lstm_trace.configure(service_name='claims', release='v2'); work(3); answer([p.endpoint, p.store])")
    assert (done.errors, done.status) == ("", 0)
    assert done.said == [None, str(done.folder / "lstm-traces")]
    stored = done.stored()
    assert [span["name"] for span in stored] == ["work"] * 3
    resource = _attributes(stored[0]["resource"])
    assert (resource["service.name"], resource["service.version"]) == ("claims", "v2")
    assert _attributes(stored[0])["lstm.release"] == "v2"


def test_an_endpoint_gets_spans_metrics_and_logs(run: Any, receiver: Receiver) -> None:
    done = run(
        f"""
        p = lstm_trace.configure(service_name='claims', endpoint={receiver.url!r})
        work(2)
        metrics.get_meter('app').create_counter('n').add(1)
        _logs.get_logger('app').emit(_logs.LogRecord(body='hello'))
        answer([p.force_flush(), p.endpoint])
        """
    )
    assert (done.errors, done.said) == ("", [True, f"{receiver.url}/v1/traces"])
    assert [span.name for span in receiver.spans()] == ["work", "work"]
    assert set(receiver.paths) == {"/v1/traces", "/v1/metrics", "/v1/logs"}
    assert receiver.metrics[0].resource_metrics[0].scope_metrics[0].metrics[0].name == "n"
    assert receiver.logs[0].resource_logs[0].scope_logs[0].log_records[0].body.string_value == "hello"
    assert not done.stored()


def test_an_endpoint_and_a_store_both_get_every_span(run: Any, receiver: Receiver) -> None:
    done = run("lstm_trace.configure(store='kept'); work(2)", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    assert len(done.stored("kept")) == len(receiver.spans()) == 2
    assert not done.stored()


def test_the_environments_store_counts_as_asked_for(run: Any, receiver: Receiver) -> None:
    done = run(f"lstm_trace.configure(endpoint={receiver.url!r}); work()", LSTM_TRACE_STORE="kept")
    assert len(done.stored("kept")) == len(receiver.spans()) == 1


def test_without_a_metrics_exporter_instruments_stay_no_ops(run: Any) -> None:
    code = "p = lstm_trace.configure(); answer([type(p.meter_provider).__name__, type(p.logger_provider).__name__])"
    assert run(code).said == ["_ProxyMeterProvider", "LoggerProvider"]
    assert run(code, OTEL_METRICS_EXPORTER="console").said == ["MeterProvider", "LoggerProvider"]


# --- Argument > environment > default --------------------------------------------------------------------------------------


def test_the_environment_names_service_resource_sampler_and_endpoint(run: Any, receiver: Receiver) -> None:
    done = run(
        "lstm_trace.configure(); work(); answer(dict(trace.get_tracer_provider().resource.attributes))",
        OTEL_SERVICE_NAME="by-env",
        OTEL_RESOURCE_ATTRIBUTES="service.version=v9,team=claims",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{receiver.url}/v1/traces",
    )
    assert {name: done.said[name] for name in ("service.name", "service.version", "team")} == {
        "service.name": "by-env",
        "service.version": "v9",
        "team": "claims",
    }
    (span,) = receiver.spans()
    assert {item.key: item.value.string_value for item in span.attributes} == {"lstm.release": "v9"}
    assert set(receiver.paths) == {"/v1/traces"}


def test_arguments_win_over_the_environment(run: Any, receiver: Receiver) -> None:
    done = run(
        f"""
        lstm_trace.configure(service_name='by-argument', release='v2', endpoint={receiver.url!r}, sampler=1.0); work()
        answer(dict(trace.get_tracer_provider().resource.attributes))
        """,
        OTEL_SERVICE_NAME="by-env",
        OTEL_RESOURCE_ATTRIBUTES="service.version=v9",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
        OTEL_TRACES_SAMPLER="always_off",
    )
    assert (done.said["service.name"], done.said["service.version"], len(receiver.spans())) == ("by-argument", "v2", 1)


def test_the_release_setting_names_the_version_where_nothing_else_does(run: Any) -> None:
    code = "lstm_trace.configure(); work(); answer(trace.get_tracer_provider().resource.attributes['service.version'])"
    assert run(code, LSTM_TRACE_RELEASE="v3").said == "v3"
    done = run(code, LSTM_TRACE_RELEASE="v3", OTEL_RESOURCE_ATTRIBUTES="service.version=v9")
    assert done.said == "v9"
    assert _attributes(done.stored()[-1])["lstm.release"] == "v3"


@pytest.mark.parametrize(
    ("environ", "stored"),
    [
        ({"OTEL_TRACES_SAMPLER": "always_off"}, 0),
        ({"OTEL_TRACES_EXPORTER": "none"}, 0),
        ({"OTEL_TRACES_EXPORTER": "lstm_trace"}, 1),
        ({"OTEL_SDK_DISABLED": "true"}, 0),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:9/v1/metrics", "OTEL_METRICS_EXPORTER": "none"}, 1),
    ],
)
def test_the_environment_switches_exporters(run: Any, environ: dict[str, str], stored: int) -> None:
    done = run("lstm_trace.configure(); work()", **environ)
    assert (done.errors, len(done.stored())) == ("", stored)


def test_an_exporter_of_another_package_is_used_by_its_name(run: Any) -> None:
    done = run("import sys; sys.stdout = sys.stderr; lstm_trace.configure(); work()", OTEL_TRACES_EXPORTER="console")
    assert '"name": "work"' in done.errors
    assert not done.stored()


def test_a_sampler_may_be_a_share(run: Any) -> None:
    done = run("lstm_trace.configure(sampler=0.0); work(); answer(trace.get_tracer_provider().sampler.get_description())")
    assert "TraceIdRatioBased{0.0}" in done.said
    assert not done.stored()


# --- A guest ---------------------------------------------------------------------------------------------------------------


def test_an_applications_own_provider_gets_our_processor_once_and_nothing_else(run: Any) -> None:
    done = run(
        """
        from opentelemetry.sdk.trace import TracerProvider
        theirs = TracerProvider()
        trace.set_tracer_provider(theirs)
        p = lstm_trace.configure(release='v2')
        assert lstm_trace.configure(release='v2') is p
        work()
        p.shutdown()
        processors = theirs._active_span_processor._span_processors
        answer([p.tracer_provider is theirs, [type(each).__module__.partition(".")[0] for each in processors], p.endpoint,
                p.store, type(metrics.get_meter_provider()).__name__])
        """
    )
    assert done.errors == ""
    assert done.said == [True, ["lstm_trace"], None, None, "_ProxyMeterProvider"]
    assert not done.stored()


def test_what_cannot_take_effect_beside_an_applications_provider_is_said(run: Any) -> None:
    done = run(
        """
        from opentelemetry.sdk.trace import TracerProvider
        trace.set_tracer_provider(TracerProvider())
        lstm_trace.configure(store='kept')
        """
    )
    assert done.errors.count("\n") == 1
    assert "store= has no effect" in done.errors


def test_a_second_call_changes_nothing_and_says_so_where_it_asks_for_something_else(run: Any) -> None:
    done = run(
        """
        first = lstm_trace.configure(service_name='claims')
        same = [lstm_trace.configure(service_name='claims') is first, lstm_trace.configure() is first]
        answer(same + [lstm_trace.configure(service_name='other') is first])
        work()
        """
    )
    assert done.said == [True, True, True]
    assert done.errors.count("\n") == 1
    assert "no effect" in done.errors
    assert len(done.stored()) == 1


def test_shutdown_twice_is_quiet_and_final(run: Any, receiver: Receiver) -> None:
    done = run(
        f"""
        p = lstm_trace.configure(endpoint={receiver.url!r}); work()
        p.shutdown(); p.shutdown()
        answer(p.force_flush())
        """
    )
    assert done.errors == ""
    assert len(receiver.spans()) == 1


# --- Bad input -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "named"),
    [
        ("endpoint='localhost:4318'", "endpoint='localhost:4318' is not usable: accepted is"),
        ("endpoint='ftp://x'", "endpoint='ftp://x' is not usable: accepted is"),
        ("endpoint='http://host:99999'", "endpoint='http://host:99999' is not usable: accepted is"),
        ("endpoint=''", "endpoint='' is not usable: accepted is"),
        ("endpoint=4318", "endpoint=4318 is not a string: accepted is"),
        ("store=__file__ if '__file__' in globals() else 'file'", "is a file: accepted is a folder"),
        ("store=''", "store='': accepted is the path of a folder"),
        ("service_name=''", "service_name='': accepted is"),
        ("release=2", "release=2: accepted is a string"),
        ("sampler=1.5", "sampler=1.5: accepted is"),
        ("sampler='always_on'", "sampler='always_on': accepted is"),
        ("settings={}", "settings={}: accepted is"),
        ("durable='yes'", "durable='yes': accepted are True and False"),
    ],
)
def test_a_bad_argument_raises_one_line_that_names_it(run: Any, call: str, named: str) -> None:
    done = run(
        f"""
        open('file', 'w').close()
        try:
            lstm_trace.configure({call})
        except (ValueError, TypeError) as error:
            answer([str(error), type(trace.get_tracer_provider()).__name__])
        """
    )
    message, provider = done.said
    assert named in message
    assert "\n" not in message
    assert provider == "ProxyTracerProvider"


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "nowhere"}, "OTEL_EXPORTER_OTLP_ENDPOINT='nowhere' is not usable"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "x://y"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT='x://y' is not usable"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_PROTOCOL='http/json': accepted are http/protobuf and grpc"),
        ({"OTEL_TRACES_EXPORTER": "lstm_trace,nonesuch"}, "OTEL_TRACES_EXPORTER names 'nonesuch'"),
    ],
)
def test_a_bad_variable_costs_one_line_and_the_application_runs(run: Any, environ: dict[str, str], named: str) -> None:
    done = run("lstm_trace.configure(); work()", **environ)
    assert done.status == 0
    assert done.errors.count("\n") == 1
    assert named in done.errors
    assert len(done.stored()) == 1


def test_a_store_of_the_environment_that_is_a_file_gives_way_to_the_default(run: Any) -> None:
    done = run("open('file', 'w').close(); lstm_trace.configure(); work()", LSTM_TRACE_STORE="file")
    assert done.errors.count("\n") == 1
    assert "store='file' is a file" in done.errors
    assert len(done.stored()) == 1


def test_grpc_without_its_package_names_the_extra(run: Any) -> None:
    done = run(
        "import sys; sys.modules['grpc'] = None; lstm_trace.configure(endpoint='http://127.0.0.1:9'); work()",
        OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
    )
    assert done.errors.count("\n") == 1
    assert "pip install 'lstm-trace[grpc]'" in done.errors
    assert len(done.stored()) == 1


# --- Unreachable -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("protocol", "url"), [("http/protobuf", "http://127.0.0.1:9/v1/traces"), ("grpc", "http://127.0.0.1:9")])
def test_an_unreachable_endpoint_costs_one_line_keeps_every_span_and_does_not_hold_up_the_exit(run: Any, protocol: str, url: str) -> None:
    done = run(
        """
        import atexit, time
        lstm_trace.configure(endpoint='http://127.0.0.1:9')
        work(700)
        metrics.get_meter('app').create_counter('n').add(1)
        began = time.monotonic()
        atexit._run_exitfuncs()
        answer(time.monotonic() - began)
        """,
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
    )
    assert done.status == 0
    assert done.said < 4
    assert done.errors.count("\n") == 1
    assert f"{url} does not take spans (Connection refused)" in done.errors
    assert str(done.folder / "lstm-traces") in done.errors
    assert len(done.stored()) == 700


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_silent_endpoint_does_not_hold_up_the_exit(run: Any, protocol: str) -> None:
    with Receiver(lambda path: None) as silent:
        done = run(
            f"""
            import time
            lstm_trace.configure(endpoint={silent.url!r}); work(10)
            metrics.get_meter('app').create_counter('n').add(1)
            _logs.get_logger('app').emit(_logs.LogRecord(body='hello'))
            began = time.monotonic()
            import atexit; atexit._run_exitfuncs(); answer(time.monotonic() - began)
            """,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_TIMEOUT="60",
        )
    assert done.status == 0
    assert done.said < 15  # of the exporter's 60
    assert done.errors.count("\n") == 1
    assert len(done.stored()) == 10


# --- Ends of a process -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(
    "children",
    [
        "for _ in range(3):\n    if os.fork() == 0: work(10); sys.exit(0)\nfor _ in range(3): os.wait()",
        "with multiprocessing.get_context('fork').Pool(3) as pool: pool.map(work, [10] * 3); pool.close(); pool.join()",
        "workers = [multiprocessing.get_context('fork').Process(target=work, args=(10,)) for _ in range(3)]\n"
        "for each in workers: each.start()\nfor each in workers: each.join()",
    ],
    ids=["fork", "Pool", "Process"],
)
def test_forked_workers_keep_their_spans(run: Any, children: str) -> None:
    done = run(f"import multiprocessing, os, sys\nlstm_trace.configure()\nwork(5)\n{children}\nwork(5)")
    assert done.status == 0
    assert len(done.stored()) == 40


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_workers_that_are_started_afresh_keep_their_spans(run: Any, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(
        "import lstm_trace\nfrom opentelemetry import trace\n"
        "def work(count):\n"
        "    lstm_trace.configure()\n"
        "    for _ in range(count):\n"
        "        with trace.get_tracer('app').start_as_current_span('work'): pass\n"
        "if __name__ == '__main__':\n"
        "    import multiprocessing\n"
        "    worker = multiprocessing.get_context('spawn').Process(target=work, args=(10,))\n"
        "    worker.start(); worker.join()\n"
    )
    done = run("import runpy; runpy.run_path('job.py', run_name='__main__')")
    assert (done.errors, len(done.stored())) == ("", 10)


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)", "os.kill(os.getpid(), signal.SIGTERM)"])
def test_a_killed_process_keeps_what_is_older_than_the_delay_in_whole_lines(run: Any, end: str) -> None:
    done = run(f"import os, signal, time\nlstm_trace.configure()\nwork(10); time.sleep(0.6); work(5)\n{end}", OTEL_BSP_SCHEDULE_DELAY="200")
    assert len(done.stored()) == 10


def test_an_exception_and_an_exit_lose_nothing(run: Any) -> None:
    assert len(run("lstm_trace.configure(); work(10); raise SystemExit(3)").stored()) == 10
    done = run("lstm_trace.configure(); work(10); raise RuntimeError")
    assert (done.status, len(done.stored())) == (1, 20)
