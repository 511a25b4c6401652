"""What both instrumentors do first: put one recorder in force, and our span processor once on the application's TracerProvider."""

from __future__ import annotations

import sys
from typing import Any
from weakref import WeakSet, ref

from opentelemetry import trace

from lstm_trace.guard import shield
from lstm_trace.instrument import baggage
from lstm_trace.recorder import Recorder, default_recorder, set_default_recorder
from lstm_trace.settings import Settings
from lstm_trace.upstream import UpstreamProcessor

_done: WeakSet[Any] = WeakSet()

_GIVEN = ("settings", "tracer_provider", "meter_provider", "logger_provider")


def put_in_force(*, by: str = "", **given: Any) -> Recorder:
    """Return the recorder of ``instrument(**given)``: a new one where anything was given, else the one already in force.

    ``by`` names the instrumentor, which calls ``release(by)`` when it is switched off.
    """
    if unknown := sorted(set(given) - {*_GIVEN, "skip_dep_check", "auto", "raise_exception_on_conflict"}):
        raise TypeError(f"instrument() got {', '.join(unknown)}: accepted are {', '.join(_GIVEN)}")
    settings = given.get("settings")
    if settings is not None and not isinstance(settings, Settings):
        raise TypeError(f"settings={settings!r}: accepted is a lstm_trace.Settings")
    if any(given.get(name) is not None for name in _GIVEN):
        set_default_recorder(
            Recorder(
                settings,
                tracer_provider=given.get("tracer_provider"),
                meter_provider=given.get("meter_provider"),
                logger_provider=given.get("logger_provider"),
            )
        )
    recorder = default_recorder()

    def add(provider: Any) -> None:
        add_upstream_processor(provider, recorder.settings)

    add(given.get("tracer_provider") or trace.get_tracer_provider())
    recorder.on_provider = add
    if recorder.settings.baggage:
        baggage.install(by)
    _load_redactor(recorder.settings)
    return recorder


def release(by: str) -> None:
    """Undo what ``put_in_force(by)`` put into the process, unless another instrumentor still needs it."""
    baggage.uninstall(by)


def _load_redactor(settings: Settings) -> None:
    load = getattr(settings.redact, "load", None) if settings.content else None
    if load is not None:
        with shield:  # one that cannot be loaded withholds every text
            load()


def add_upstream_processor(provider: Any, settings: Settings) -> bool:
    """Add our processor to an SDK TracerProvider that has none yet; tell whether it was added.

    A provider without ``add_span_processor`` (no-op, proxy) is left alone.
    """
    add = getattr(provider, "add_span_processor", None)
    if add is None or provider in _done or _has_ours(provider):
        return False
    _done.add(provider)
    add(_Processor(provider, release=settings.release, read_baggage=settings.baggage))
    return True


class _Processor(UpstreamProcessor):
    """Our processor, which also lets ``force_flush`` wait for the spans that an accelerator still has to complete."""

    def __init__(self, provider: Any, *, release: str | None, read_baggage: bool) -> None:
        super().__init__(release=release, read_baggage=read_baggage)
        self._provider = ref(provider)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Finish what waits for a device, then have the processors that were flushed before us flush once more."""
        device: Any = sys.modules.get("lstm_trace.instrument.lstm.device")
        if device is None or not device.pending():
            return True
        done = bool(device.flush(timeout_millis / 1000))
        for each in _processors(self._provider()):
            if each is not self:
                each.force_flush(timeout_millis)
        return done


def _has_ours(provider: Any) -> bool:
    # `configure()` may have added it: the SDK has no public way to ask, and a missing attribute only means that nobody did.
    return any(isinstance(each, UpstreamProcessor) for each in _processors(provider))


def _processors(provider: Any) -> tuple[Any, ...]:
    return getattr(getattr(provider, "_active_span_processor", None), "_span_processors", ())
