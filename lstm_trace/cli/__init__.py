"""The `lstm-trace` command: parse, call one function, print. One file a group of commands; each loads its room when it runs."""

from __future__ import annotations

import signal
import sys
from typing import Final

import typer

from lstm_trace.cli import delivering, demo, evaluating, inspecting, setting
from lstm_trace.errors import BadInput

app = typer.Typer(
    name="lstm-trace",
    help="One trace from an LSTM component through the chain to the score, and what made an answer worse.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _frame() -> None:  # pyright: ignore[reportUnusedFunction]
    """Keep every command a sub-command, however few are registered."""


for group in (demo, inspecting, evaluating, delivering, setting):
    group.register(app)


# Typer carries a click of its own in some releases: take the base of its usage errors from what it exports.
_UsageError: type[Exception] = next(kind for kind in reversed(typer.BadParameter.__mro__) if hasattr(kind, "format_message"))


def main() -> None:
    """Run a command. Exit status: 0 fine, 1 the check found something, 2 bad input or usage (one line on stderr)."""
    # A container is stopped by SIGTERM: end as after Ctrl-C, so that what was unpacked for reading goes at once.
    told: list[int] = []

    def leave(number: int, _: object) -> None:
        told.append(number)
        if (reading := sys.modules.get("lstm_trace.store.stopping")) is not None:
            reading.stop()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        _run()
    except BaseException:
        if told:  # in the middle of a query DuckDB raises an error of its own in place of what the handler raised
            raise SystemExit(128 + told[0]) from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _run() -> None:
    try:
        status = app(standalone_mode=False)
    except MemoryError:
        raise SystemExit(_refuse("not enough memory for this command")) from None
    except BadInput as error:
        raise SystemExit(_refuse(str(error))) from None
    except typer.Abort:
        raise SystemExit(130) from None
    except _UsageError as error:
        raise SystemExit(_refuse(getattr(error, "format_message", error.__str__)())) from None
    except BrokenPipeError:
        # The reader of our output went away (`| head`): not an error, and Python must not complain at exit either.
        sys.stderr.close()
        raise SystemExit(0) from None
    except Exception as error:
        if not _of_an_engine(error):
            raise
        raise SystemExit(_refuse(f"the store could not be read: {error}")) from None
    raise SystemExit(status if isinstance(status, int) else 0)


_REFUSALS: Final = ("Binder", "Catalog", "Constraint", "Dependency", "NotImplemented", "Parser", "Syntax", "Transaction")
_OUR_MISTAKES: Final = {f"duckdb.{name}Exception" for name in _REFUSALS}


def _of_an_engine(error: Exception) -> bool:
    """Tell whether a database gave up: out of memory, a damaged page of a file, a server gone. A query that it refuses is our mistake."""
    kinds = {f"{kind.__module__.partition('.')[0].lstrip('_')}.{kind.__name__}" for kind in type(error).__mro__}
    return bool(kinds & {"duckdb.Error", "clickhouse_connect.ClickHouseError"}) and not kinds & _OUR_MISTAKES


def _refuse(text: str) -> int:
    if not text:  # no arguments: the help was printed
        return 2
    print("lstm-trace: " + " ".join(text.split()), file=sys.stderr)  # noqa: T201
    return 2
