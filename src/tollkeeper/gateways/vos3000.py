"""A VOS3000's web interface: balances, payments, calls that are up, and their end.

Each call ends in one of three ways: an answer, :class:`~tollkeeper.wire.vos3000.VosRefused`, or
:class:`VosUnknown`: it may have been done, or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol, TypeVar

import httpx

from tollkeeper.wire import vos3000 as wire
from tollkeeper.wire.vos3000 import Account, CurrentCall, MalformedVos, Payment

T = TypeVar("T")

TIMEOUT_SECONDS = 10.0
KILL_SECONDS = 1.4
"""What asks for the end of a call waits no longer for each of two answers."""
ANSWER_MAX_BYTES = 32 * 1024 * 1024
PATH = "/external/server/"
DISCONNECT = "DisconnectCurrentCall"
CONTENT_TYPE = "text/html;charset=UTF-8"
"""As the manual has it, for JSON."""


class VosUnknown(Exception):
    """No answer that can be read: what was asked for may have been done."""


class VosGateway(Protocol):
    """Asks one platform. All methods raise VosRefused and VosUnknown."""

    async def accounts(self, names: Sequence[str]) -> list[Account]:
        """The accounts of these numbers that there are."""

    async def pay(self, account: str, money: Decimal, memo: str) -> None:
        """Change an account's money by an amount; the memo names the payment in its history."""

    async def payments(self, account: str, begin: datetime, end: datetime) -> list[Payment]:
        """What was paid for an account, by the platform's own clock."""

    async def calls(self) -> list[CurrentCall]:
        """All calls that are up."""

    async def disconnect(self, call_id: int) -> None:
        """End a call."""

    async def close(self) -> None:
        """Give back what is held."""


class HttpVos:
    """The real one. ``base`` is such as ``http://192.0.2.9:8080``; who may ask is set there by address."""

    def __init__(self, base: str, *, path: str = PATH, disconnect: str = DISCONNECT) -> None:
        self._base = base.rstrip("/") + "/" + path.strip("/") + "/"
        self._disconnect = disconnect
        self._client = httpx.AsyncClient(timeout=TIMEOUT_SECONDS, follow_redirects=False)

    async def accounts(self, names: Sequence[str]) -> list[Account]:
        """As :meth:`VosGateway.accounts`."""
        answer = await self._ask("GetCustomer", wire.get_customer(names))
        return _read("GetCustomer", wire.accounts_of, answer)

    async def pay(self, account: str, money: Decimal, memo: str) -> None:
        """As :meth:`VosGateway.pay`."""
        await self._ask("Pay", wire.pay(account, money, memo))

    async def payments(self, account: str, begin: datetime, end: datetime) -> list[Payment]:
        """As :meth:`VosGateway.payments`."""
        answer = await self._ask("GetPayHistory", wire.get_pay_history(account, begin, end))
        return _read("GetPayHistory", wire.payments_of, answer)

    async def calls(self) -> list[CurrentCall]:
        """As :meth:`VosGateway.calls`."""
        answer = await self._ask("GetCurrentCall", wire.get_current_call(), KILL_SECONDS)
        return _read("GetCurrentCall", wire.calls_of, answer)

    async def disconnect(self, call_id: int) -> None:
        """As :meth:`VosGateway.disconnect`."""
        await self._ask(self._disconnect, wire.disconnect((call_id,)), KILL_SECONDS)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _ask(
        self, operation: str, body: bytes, seconds: float = TIMEOUT_SECONDS
    ) -> dict[str, Any]:
        headers = {"content-type": CONTENT_TYPE, "accept-encoding": "identity"}
        try:
            request = self._client.build_request(
                "POST", self._base + operation, content=body, headers=headers, timeout=seconds
            )
            answer = await self._client.send(request, stream=True)
            try:
                data = bytearray()
                async for part in answer.aiter_raw():
                    data += part
                    if len(data) > ANSWER_MAX_BYTES:
                        raise VosUnknown(f"{operation}: more than {ANSWER_MAX_BYTES} bytes")
            finally:
                await answer.aclose()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise VosUnknown(f"{operation}: {type(error).__name__}") from error
        if answer.status_code != 200:
            raise VosUnknown(f"{operation}: it answered {answer.status_code}")
        try:
            return wire.read_answer(bytes(data))
        except MalformedVos as error:
            raise VosUnknown(f"{operation}: {error}") from error


def _read(
    operation: str, read: Callable[[dict[str, Any]], list[T]], answer: dict[str, Any]
) -> list[T]:
    try:
        return read(answer)
    except MalformedVos as error:
        raise VosUnknown(f"{operation}: {error}") from error


class NullVos:
    """A platform in memory; for set-ups and tests without one."""

    def __init__(self) -> None:
        self.money: dict[str, Decimal] = {}
        self.paid: list[Payment] = []
        self.up: list[CurrentCall] = []

    async def accounts(self, names: Sequence[str]) -> list[Account]:
        """Those that there are."""
        return [Account(one, self.money[one], Decimal(0)) for one in names if one in self.money]

    async def pay(self, account: str, money: Decimal, memo: str) -> None:
        """Remember."""
        self.money[account] = self.money.get(account, Decimal(0)) + money
        self.paid.append(Payment(account, money, memo, self.money[account]))

    async def payments(self, account: str, begin: datetime, end: datetime) -> list[Payment]:
        """All of them."""
        return [one for one in self.paid if one.account == account]

    async def calls(self) -> list[CurrentCall]:
        """Those that are up."""
        return list(self.up)

    async def disconnect(self, call_id: int) -> None:
        """It is up no more."""
        self.up = [one for one in self.up if one.call_id != call_id]

    async def close(self) -> None:
        """Nothing is held."""
