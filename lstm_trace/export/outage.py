"""One log line when an endpoint stops taking what it is sent, and one when it takes it again, whatever the number of signals."""

from __future__ import annotations

import logging
from typing import Final

from lstm_trace.export.endpoint import Target

_log = logging.getLogger("lstm_trace")

_NAMES: Final = {"traces": "spans"}


class Outages:
    """What has been said of the endpoints of one configuration. The line about spans says where they are, so it goes before the others'."""

    def __init__(self) -> None:
        self._said: set[Target] = set()
        self._span_hosts: set[str] = set()

    def watch(self, target: Target) -> None:
        """Note that ``target`` will be sent to, and will be spoken of."""
        if target.signal == "traces":
            self._span_hosts.add(target.host)

    def begins(self, target: Target, reason: str, fate: str, *, unreachable: bool = False) -> None:
        """Say that ``target`` does not take what it is sent, and its fate. A host that is ``unreachable`` is so for all signals."""
        if target in self._said:
            return
        if target.signal != "traces" and (self.spans_failed(target) or (unreachable and target.host in self._span_hosts)):
            return
        self._said.add(target)
        _log.warning("%s does not take %s (%s%s): they are %s until it does", target.shown, _what(target), reason, target.hint, fate)

    def ends(self, target: Target) -> None:
        """Say that ``target`` takes again what it is sent, where the outage was spoken of."""
        if target in self._said:
            self._said.discard(target)
            _log.warning("%s takes %s again", target.shown, _what(target))

    def spans_failed(self, target: Target) -> bool:
        """Tell whether the host of ``target`` is known not to take spans."""
        return any(each.signal == "traces" and each.host == target.host for each in list(self._said))


def _what(target: Target) -> str:
    return _NAMES.get(target.signal, target.signal)
