"""Foretell a sampler's decision from its published description, so that nothing is computed for a span that will not record."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from opentelemetry.trace import SpanContext, TraceFlags

_PARENT_BASED = re.compile(
    r"^ParentBased\{root:(?P<root>.*),remoteParentSampled:AlwaysOnSampler,remoteParentNotSampled:AlwaysOffSampler,"
    r"localParentSampled:AlwaysOnSampler,localParentNotSampled:AlwaysOffSampler\}$"
)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a sampler will say: ``root`` for a span without a parent, ``child`` for one with; None where only the sampler knows.

    ``follows`` says that a child is sampled exactly when its parent is.

    >>> Forecast.of("ParentBased{root:AlwaysOnSampler,remoteParentSampled:AlwaysOnSampler,remoteParentNotSampled:AlwaysOffSampler,"
    ...             "localParentSampled:AlwaysOnSampler,localParentNotSampled:AlwaysOffSampler}")
    Forecast(root=True, child=None, follows=True)
    """

    root: bool | None = None
    child: bool | None = None
    follows: bool = False

    @classmethod
    def of(cls, description: str) -> Forecast:
        """Read ``Sampler.get_description()``."""
        certain = {"AlwaysOnSampler": True, "AlwaysOffSampler": False}
        if description in certain:
            return cls(certain[description], certain[description])
        match = _PARENT_BASED.match(description)
        return cls(certain.get(match["root"]), None, follows=True) if match else cls()

    def records(self, parent: SpanContext) -> bool | None:
        """Tell whether a span below ``parent`` will record; None: start it and see."""
        _, _, _, flags, _, is_valid = parent  # its properties are calls
        if not is_valid:
            return self.root
        return bool(flags & TraceFlags.SAMPLED) if self.follows else self.child


def forecast_of(provider: Any) -> Forecast:
    """Read the forecast of a TracerProvider.

    Only the SDK's own samplers are taken at their word: another's description does not bind it.
    """
    sampler = getattr(provider, "sampler", None)
    if sampler is None or type(sampler).__module__ != "opentelemetry.sdk.trace.sampling":
        return Forecast()
    return Forecast.of(sampler.get_description())
