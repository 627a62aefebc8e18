"""A fake VOS3000: the web interface that its manual describes, over real HTTP on a loopback port.

It charges accounts as the real one does (a payment changes the money, its history has the memo), and can
misbehave: lose an answer after or before the work was done, refuse, answer late or with nonsense.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self


@dataclass
class Money:
    """An account there."""

    money: Decimal
    limit: Decimal = Decimal(0)


class FakeVos:
    """The platform."""

    def __init__(self) -> None:
        self.port = 0
        self.accounts: dict[str, Money] = {}
        self.history: list[dict[str, Any]] = []
        self.calls: dict[int, tuple[str, str]] = {}
        """callId: caller and called."""
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.lose_answer: set[str] = set()
        """Operations that are carried out and then not answered."""
        self.lose_request: set[str] = set()
        """Operations that are neither."""
        self.refuse: dict[str, int] = {}
        self.nonsense: set[str] = set()
        self._server: asyncio.Server | None = None
        self._jobs: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """End."""
        assert self._server is not None
        self._server.close()
        for job in list(self._jobs):
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    def operations(self, name: str) -> list[dict[str, Any]]:
        """The bodies of all requests for an operation."""
        return [body for asked, body in self.asked if asked == name]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._jobs.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = 0
                for line in head.split("\r\n"):
                    if line.lower().startswith("content-length:"):
                        length = int(line.partition(":")[2])
                body = await reader.readexactly(length)
                path = head.split(" ", 2)[1]
                data = self._answer(path, json.loads(body, parse_float=Decimal))
                if data is None:
                    return
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/html;charset=utf-8\r\n"
                    b"Content-Length: %d\r\n\r\n" % len(data) + data
                )
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._jobs.discard(task)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _answer(self, path: str, body: dict[str, Any]) -> bytes | None:
        prefix = "/external/server/"
        assert path.startswith(prefix), path
        name = path.removeprefix(prefix)
        self.asked.append((name, body))
        if name in self.lose_request:
            return None
        if name in self.refuse:
            return b'{"retCode":%d,"exception":"operation failed."}' % self.refuse[name]
        fields = {
            "GetCustomer": self._customer,
            "Pay": self._pay,
            "GetPayHistory": self._payments,
            "GetCurrentCall": self._current,
            "DisconnectCurrentCall": self._disconnect,
        }[name](body)
        if name in self.lose_answer:
            return None
        if name in self.nonsense:
            return b"<html>Tomcat</html>"
        return b'{"retCode":0%s}' % fields.encode()

    def _customer(self, body: dict[str, Any]) -> str:
        rows = [
            f'{{"account":"{one}","name":"{one}","money":{at.money},"limitMoney":{at.limit},"lockType":0}}'
            for one, at in self.accounts.items()
            if one in body["accounts"]
        ]
        return f', "infoCustomers":[{",".join(rows)}]'

    def _pay(self, body: dict[str, Any]) -> str:
        assert body["ownerType"] == 2
        account = self.accounts[body["ownerName"]]
        amount = Decimal(body["money"])
        account.money += amount
        self.history.append(
            {"account": body["ownerName"], "fee": amount, "memo": body["memo"],
             "customerMoney": account.money, "payTime": int(time.time() * 1000), "type": 0}
        )  # fmt: skip
        return (
            f', "infoPay":{{"account":"{body["ownerName"]}","money":{account.money},'
            f'"payMoney":{amount}}}'
        )

    def _payments(self, body: dict[str, Any]) -> str:
        assert len(body["beginTime"]) == len(body["endTime"]) == 14
        rows = [
            json.dumps(row, default=float)
            for row in self.history
            if row["account"] == body["account"]
        ]
        return f', "infoPayHistorys":[{",".join(rows)}]'

    def _current(self, _body: dict[str, Any]) -> str:
        rows = [
            {"callId": id_, "callerE164": caller, "calleeE164": called, "keepTime": 5000}
            for id_, (caller, called) in self.calls.items()
        ]
        return f', "infoCurrentCalls":{json.dumps(rows)}' if rows else ""

    def _disconnect(self, body: dict[str, Any]) -> str:
        for id_ in body["callIds"]:
            self.calls.pop(id_, None)
        return ""
