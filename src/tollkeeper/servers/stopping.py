"""An end for answers that have none: when the server stops, event streams are told, and not waited for."""

from __future__ import annotations

from tollkeeper.servers.http_protocol import BoundedProtocol

ON_STOP = "tollkeeper.on_stop"
"""Where such an answer leaves, in the ``state`` of its request, what is called when the server stops."""
LEAVE_SECONDS = 1.0
"""So long it may take its leave; who does not read what it says is cut off then."""


class StoppingProtocol(BoundedProtocol):
    """A connection that tells an answer without an end that the server stops."""

    def shutdown(self) -> None:
        """The server stops, and waits for what is under way."""
        super().shutdown()
        cycle = getattr(self, "cycle", None)  # None before the first request
        if cycle is None or cycle.response_complete:
            return
        on_stop = cycle.scope.get("state", {}).get(ON_STOP)
        if on_stop is not None:
            on_stop()
            self.loop.call_later(LEAVE_SECONDS, self.transport.abort)
