"""A made-up supplier on loopback: takes orders over HTTP, and fails in the ways that the test names.

It is the supplier of docs/how-to/connect-a-supplier.md, whose settings are below.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

SECRET = "correct-horse-battery"

SETTINGS: dict[str, Any] = {
    "headers": {"Authorization": "Bearer {secret}"},
    "timeout_seconds": 1,
    "retries": 2,
    "backoff_ms": 1,
    "poll_seconds": 10,
    "give_up_seconds": 600,
    "operations": {
        "order": {
            "path": "/orders",
            "body": {"client_order": "{order_id}", "product": "{item}", "number": "{number}"},
            "idempotent": True,
            "outcome": "/state",
            "done": ["COMPLETED"],
            "pending": ["PROCESSING"],
            "refused": ["REJECTED"],
            "reason": "/error/message",
            "answer": {
                "reference": "/id",
                "iccid": "/profile/iccid",
                "activation_code": "/profile/lpa",
            },
        },
        "status": {
            "method": "GET",
            "path": "/orders/{order_id}",
            "absent_statuses": [404],
            "outcome": "/state",
            "done": ["COMPLETED"],
            "pending": ["PROCESSING"],
            "refused": ["REJECTED", "CANCELLED"],
            "reason": "/error/message",
            "answer": {
                "reference": "/id",
                "iccid": "/profile/iccid",
                "activation_code": "/profile/lpa",
            },
        },
        "cancel": {
            "method": "DELETE",
            "path": "/orders/{order_id}",
            "absent_statuses": [404],
            "reason": "/error/message",
        },
        "activate": {"path": "/orders/{order_id}/activate"},
        "release": {"path": "/orders/{order_id}/release", "absent_statuses": [404]},
        "lookup": {
            "method": "GET",
            "path": "/numbers/{number}",
            "query": {"type": "{kind}"},
            "absent_statuses": [404],
            "answer": {"mcc_mnc": "/network/code", "ported": "/ported"},
        },
        "search": {
            "method": "GET",
            "path": "/stock",
            "query": {"q": "{query}"},
            "answer": {"numbers": "/numbers"},
        },
    },
}


@dataclass
class Request:
    """What arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Platform:
    """The supplier, with what it took and what it is to do wrong.

    ``faults`` are spent one a request: drop, take_and_drop, slow, take_and_hang, huge, garbage, or an
    HTTP status; "" is none.
    """

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[str | int] = field(default_factory=list)
    state: str = "COMPLETED"
    can_cancel: bool = True
    known_numbers: bool = True
    released: list[str] = field(default_factory=list)
    activated: list[str] = field(default_factory=list)

    def asked(self, method: str = "", path: str = "") -> list[Request]:
        """Requests of a method, to a path that begins so."""
        return [r for r in self.requests if r.method.startswith(method) and r.path.startswith(path)]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        try:
            await self._one(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, _ = head[0].split(" ")
        lines = (line.partition(":") for line in head[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in lines}
        raw = await reader.readexactly(int(headers.get("content-length", "0")))
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        request = Request(
            method, unquote(parts.path), query, headers, json.loads(raw) if raw else None
        )
        self.requests.append(request)
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "drop":
            return
        if fault == "slow":
            await asyncio.sleep(30)
        if isinstance(fault, int):
            await self._answer(writer, fault, {"error": {"message": f"fault {SECRET}"}})
            return
        status, document = self._do(request)
        if fault == "take_and_drop":
            return
        if fault == "take_and_hang":
            await asyncio.sleep(30)
        if fault == "huge":
            document = {**document, "padding": "x" * (2 * 1024 * 1024)}
        await self._answer(writer, status, document, garbage=fault == "garbage")

    def _do(self, request: Request) -> tuple[int, dict[str, Any]]:
        assert request.headers["authorization"] == f"Bearer {SECRET}"
        if request.path.startswith("/numbers/"):
            if not self.known_numbers:
                return 404, {}
            return 200, {"network": {"code": "26201"}, "ported": True}
        if request.path == "/stock":
            return 200, {"numbers": ["4930100000", "4930100001"]}
        if request.path == "/orders":
            return self._order(request)
        order_id, _, action = request.path.removeprefix("/orders/").partition("/")
        order = self.orders.get(order_id)
        if order is None:
            return 404, {}
        if action == "activate":
            self.activated.append(order_id)
        elif action == "release":
            self.released.append(order_id)
        elif request.method == "DELETE":
            if not self.can_cancel:
                return 409, {"error": {"message": "too late"}}
            order["state"] = "CANCELLED"
        return 200, order

    def _order(self, request: Request) -> tuple[int, dict[str, Any]]:
        key = request.headers["idempotency-key"]
        assert key == request.body["client_order"]
        if key not in self.orders:
            number = 8_901_000_000_000_000_000 + len(self.orders)
            self.orders[key] = {
                "id": f"ref-{len(self.orders)}",
                "state": self.state,
                "profile": {"iccid": str(number), "lpa": f"LPA:1$rsp.example${number}"},
            }
            if self.state == "REJECTED":
                self.orders[key]["error"] = {"message": "out of stock"}
        return 200, self.orders[key]

    async def _answer(
        self,
        writer: asyncio.StreamWriter,
        status: int,
        document: dict[str, Any],
        *,
        garbage: bool = False,
    ) -> None:
        body = b"<html>" if garbage else json.dumps(document).encode()
        writer.write(
            f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
        )
        writer.write(body)
        await writer.drain()


@asynccontextmanager
async def platform() -> AsyncIterator[Platform]:
    """A supplier that listens on an ephemeral port of loopback."""
    made = Platform()
    tasks: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(made.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
