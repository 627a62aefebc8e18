"""Two telephones that speak just enough SIP for a proxy between them: one calls, the other answers."""

from __future__ import annotations

import asyncio
import itertools
import re
import time

_numbers = itertools.count(1)


def _headers(text: str, *names: str) -> list[str]:
    """The lines of these headers as they stand, in their order."""
    wanted = {name.lower() for name in names}
    return [line for line in text.split("\r\n")[1:] if line.partition(":")[0].lower() in wanted]


class Telephone(asyncio.DatagramProtocol):
    """A SIP endpoint on loopback. ``ended`` is set when it is told BYE, or its call is over."""

    def __init__(self, proxy: tuple[str, int]) -> None:
        self.proxy = proxy
        self.port = 0
        self.ended = asyncio.Event()
        self.answered_at = 0.0
        self.ended_at = 0.0
        self._transport: asyncio.DatagramTransport | None = None
        self._final: asyncio.Future[tuple[int, str]] | None = None
        self._invite: dict[str, str] = {}

    async def open(self) -> None:
        """Take a port."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=("127.0.0.1", 0)
        )
        self.port = self._transport.get_extra_info("sockname")[1]

    def close(self) -> None:
        """Give it back."""
        if self._transport is not None:
            self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer requests; note final answers to the INVITE."""
        text = data.decode()
        first = text.partition("\r\n")[0]
        if first.startswith("SIP/2.0"):
            status = int(first.split()[1])
            if status >= 200 and "INVITE" in "".join(_headers(text, "CSeq")):
                self._acknowledge(text, status)
                if self._final is not None and not self._final.done():
                    self._final.set_result((status, text))
            return
        method = first.split()[0]
        if method == "INVITE":
            self._reply(text, addr, "180 Ringing")
            self._reply(text, addr, "200 OK")
        elif method in {"BYE", "CANCEL", "OPTIONS"}:
            # At once, a proxy that sends both BYEs may lose the second (Kamailio issue 4169).
            asyncio.get_running_loop().call_later(0.02, self._reply, text, addr, "200 OK")
            if method == "BYE":
                self.ended_at = time.monotonic()
                self.ended.set()

    async def call(self, number: str) -> int:
        """INVITE; the final status."""
        id_ = f"{next(_numbers)}-{time.monotonic_ns()}"
        self._invite = {"id": id_, "number": number}
        self._final = asyncio.get_running_loop().create_future()
        self._send(
            f"INVITE sip:{number}@127.0.0.1:{self.proxy[1]} SIP/2.0",
            f"From: <sip:12025550100@127.0.0.1:{self.port}>;tag=a{id_}",
            f"To: <sip:{number}@127.0.0.1>",
            "CSeq: 1 INVITE",
        )
        status, text = await asyncio.wait_for(self._final, 15)
        if status == 200:
            self.answered_at = time.monotonic()
            self._invite["answer"] = text
        return status

    def hang_up(self) -> None:
        """BYE along the route of the call."""
        answer = self._invite["answer"]
        (contact,) = _headers(answer, "Contact")
        uri = re.findall(r"<(.+?)>", contact)[0]
        routes = [
            "Route" + line.partition("Route")[2]
            for line in reversed(_headers(answer, "Record-Route"))
        ]
        self._send(f"BYE {uri} SIP/2.0", *routes, *_headers(answer, "From", "To"), "CSeq: 2 BYE")

    def _acknowledge(self, text: str, status: int) -> None:
        uri, routes = f"sip:{self._invite['number']}@127.0.0.1:{self.proxy[1]}", []
        if status == 200:
            uri = re.findall(r"<(.+?)>", _headers(text, "Contact")[0])[0]
            routes = [
                "Route" + line.partition("Route")[2]
                for line in reversed(_headers(text, "Record-Route"))
            ]
        via = _headers(text, "Via") if status != 200 else []
        self._send(
            f"ACK {uri} SIP/2.0", *routes, *_headers(text, "From", "To"), "CSeq: 1 ACK", via=via
        )

    def _send(self, *lines: str, via: list[str] | None = None) -> None:
        assert self._transport is not None
        own = [f"Via: SIP/2.0/UDP 127.0.0.1:{self.port};branch=z9hG4bK{next(_numbers)}"]
        whole = [
            lines[0], *(via or own), *lines[1:], f"Call-ID: {self._invite['id']}",
            f"Contact: <sip:12025550100@127.0.0.1:{self.port}>", "Max-Forwards: 70",
            "Content-Length: 0", "", "",
        ]  # fmt: skip
        self._transport.sendto("\r\n".join(whole).encode(), self.proxy)

    def _reply(self, request: str, to: tuple[str, int], status: str) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        lines = _headers(request, "Via", "Record-Route", "From", "To", "Call-ID", "CSeq")
        lines = [
            f"{x};tag=b1" if x.lower().startswith("to:") and "tag=" not in x else x for x in lines
        ]
        whole = [
            f"SIP/2.0 {status}", *lines, f"Contact: <sip:callee@127.0.0.1:{self.port}>",
            "Content-Length: 0", "", "",
        ]  # fmt: skip
        self._transport.sendto("\r\n".join(whole).encode(), to)
