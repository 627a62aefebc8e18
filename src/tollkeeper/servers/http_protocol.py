"""HTTP connections within bounds: of time, of a request's head, of requests that wait behind another.

uvicorn bounds only how long an answered connection may stay open. Here a connection must bring a whole
head within ``HEAD_SECONDS``, no body may pause for ``BODY_SECONDS``, and an answer that fills its buffer
must be read on within ``READ_SECONDS``. While an answer is made, nothing is bounded: event streams live
long. A connection that sends request after request and reads no answer is not read on itself. What is no
HTTP is counted, and logged once as the faults of all protocols are.
"""

from __future__ import annotations

import asyncio

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tollkeeper.telemetry import PeerMeter

HEAD_SECONDS = 15.0
BODY_SECONDS = 30.0
READ_SECONDS = 60.0
HEAD_BYTES_MAX = 65_536
PIPELINED_MAX = 100
PROTOCOL = "http"
ON_STOP = "tollkeeper.on_stop"
"""In a request's state: what is called when the server stops while its answer is still being made."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with an end to all waiting for the other side; it knows no WebSockets."""

    _patience: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _in_head = False
    _in_body = False
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request's head."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._wait(None)
        super().connection_lost(exc)
        self._end_unread()

    def data_received(self, data: bytes) -> None:
        """Bytes came: of a body, more may come for as long again."""
        self._unset_keepalive_if_required()
        if self._in_body:
            self._wait(BODY_SECONDS)
        self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fault("upgrade", "asks for another protocol than HTTP/1.1")
        except httptools.HttpParserError as error:
            self._refuse(str(error) or type(error).__name__)
        else:
            if self._in_head and self._head_bytes > HEAD_BYTES_MAX:
                self._refuse("the head of a request does not end")
        cycle = getattr(self, "cycle", None)  # None before the first request
        answered = cycle is None or cycle.response_complete
        if self._patience is None and answered and not self.transport.is_closing():
            # Empty lines before a request: they end the waiting for it, and begin nothing.
            self._await_head()

    # --- what the parser finds -------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins: its head has to follow. The first one's time runs since the connection."""
        if not self._in_head:
            self._await_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is there; a body may follow."""
        if len(self.pipeline) >= PIPELINED_MAX:
            raise ValueError(f"more than {PIPELINED_MAX} requests wait for answers")
        self._in_head, self._in_body = False, True
        self._wait(BODY_SECONDS)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole: it is our turn."""
        self._in_body, self._head_bytes = False, 0
        self._wait(None)
        super().on_message_complete()

    # --- answers ---------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """The next one of those that wait; more are read when none does."""
        super().on_response_complete()
        if self.pipeline:
            self.flow.pause_reading()

    def pause_writing(self) -> None:
        """The other side does not read its answer."""
        super().pause_writing()
        self._end_unread()
        self._unread = self.loop.call_later(READ_SECONDS, self._let_go, "slow_reader")

    def resume_writing(self) -> None:
        """It reads on."""
        self._end_unread()
        super().resume_writing()

    def shutdown(self) -> None:
        """The server stops: an answer without an end is told to come to one."""
        super().shutdown()
        cycle = getattr(self, "cycle", None)
        if cycle is not None and not cycle.response_complete:
            stop = cycle.scope.get("state", {}).get(ON_STOP)
            if stop is not None:
                stop()

    # --- how -------------------------------------------------------------------------------------

    def _await_head(self) -> None:
        self._in_head, self._head_bytes = True, 0
        self._wait(HEAD_SECONDS)

    def _wait(self, seconds: float | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._patience = None if seconds is None else self.loop.call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        self._patience = None
        if self._in_body and self.flow.read_paused:
            self._wait(BODY_SECONDS)  # it is we who do not read
            return
        self._let_go("silent")

    def _end_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _let_go(self, fault: str) -> None:
        if not self.transport.is_closing():
            self._fault(fault, "the connection is closed")
            self.transport.abort()

    def _refuse(self, detail: str) -> None:
        if not self.transport.is_closing():
            self._fault("malformed", detail)
            self.send_400_response("Invalid HTTP request received.")

    def _fault(self, fault: str, detail: str) -> None:
        address = self.client[0] if self.client else "somewhere"
        PeerMeter.of("", PROTOCOL).fault(fault, f"{address}: {detail}")
