"""Access lines for the flows of a relay, only while somebody would read them."""

from __future__ import annotations

from collections.abc import Callable

from qanat.observe.access import write_access
from qanat.observe.logs import Logs
from qanat.relay.relay import Relay

__all__ = ["FlowLog"]


class FlowLog:
    """Listens to a relay's ended flows while the log's level wants them.

    At other levels the relay is not even asked, so that its engine makes no records.
    """

    def __init__(self, relay: Relay, logs: Logs) -> None:
        self._relay = relay
        self._logs = logs
        self._leave: Callable[[], None] | None = None
        self.follow()

    def follow(self) -> None:
        """Go by the level that the log has now."""
        if self._logs.access_wanted and self._leave is None:
            self._leave = self._relay.on_ended(write_access)
        elif not self._logs.access_wanted and self._leave is not None:
            self._leave()
            self._leave = None
