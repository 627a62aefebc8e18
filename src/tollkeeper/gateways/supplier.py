"""Asking an outside supplier for something: one HTTP adapter for all of them, driven by configuration.

What is asked and how answers are read is a supplier's :class:`SupplierSettings`. Whatever happens ends
in one of three ways: an :class:`Answer`, :class:`Refused` (the supplier will not), or :class:`Unknown`
(it may have done it, or not). The difference between the last two is the customer's money.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Protocol
from urllib.parse import quote

import httpx
import msgspec

from tollkeeper.gateways.supplier_settings import (
    NULL_URL,
    Operation,
    SupplierConfig,
    at,
    fill,
    fill_all,
)

ANSWER_MAX_BYTES = 1024 * 1024
REASON_MAX = 300
CALL_SECONDS = 75
"""No call takes longer, with all its retries: 4 times 15 s, and the pauses."""

_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
_AGAIN = frozenset((408, 425, 429))
"""Statuses below 500 that say nothing of the order but: not now."""


class Outcome(StrEnum):
    """What a supplier says of what it was asked for. Absent: it knows of no such thing."""

    DONE = "done"
    PENDING = "pending"
    ABSENT = "absent"


class Answer(msgspec.Struct, frozen=True):
    """What a supplier answered; ``fields`` is what its configuration keeps of it."""

    outcome: Outcome
    fields: dict[str, Any] = {}


class Refused(Exception):
    """The supplier said no, for this reason: nothing was done."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Unknown(Exception):
    """Nobody can tell what became of it. Without ``sent`` no request ever left."""

    def __init__(self, detail: str, *, sent: bool = True) -> None:
        super().__init__(detail)
        self.detail = detail
        self.sent = sent


class SupplierGateway(Protocol):
    """Asks suppliers."""

    async def call(
        self, supplier: SupplierConfig, operation: str, values: Mapping[str, str], *, key: str
    ) -> Answer:
        """Ask for one thing; ``key`` is the Idempotency-Key.

        Raises:
            Refused: the supplier will not. Unknown: it may have, or not.
        """

    async def close(self) -> None:
        """Give back what is held."""


class HttpSupplier:
    """The real one."""

    def __init__(self) -> None:
        self._client = httpx.AsyncClient(follow_redirects=False)

    async def call(
        self, supplier: SupplierConfig, operation: str, values: Mapping[str, str], *, key: str
    ) -> Answer:
        """Send the request, again after a pause where that does no harm, and read the answer."""
        settings = supplier.settings
        attempts = 1 + (settings.retries if supplier.may_repeat(operation) else 0)
        sent = False
        for attempt in range(attempts):
            try:
                return await self._once(supplier, operation, values, key)
            except Unknown as error:
                sent = sent or error.sent
                if attempt + 1 == attempts:
                    raise Unknown(error.detail, sent=sent) from None
                await asyncio.sleep(settings.backoff_ms * 2**attempt / 1000)
        raise AssertionError("there is at least one attempt")

    async def _once(
        self, supplier: SupplierConfig, name: str, values: Mapping[str, str], key: str
    ) -> Answer:
        operation = supplier.settings.operations[name]
        try:
            request = self._request(supplier, operation, values, key)
            async with asyncio.timeout(supplier.settings.timeout_seconds):
                status, body = await self._exchange(request)
        except TimeoutError:
            raise Unknown(
                f"no answer within {supplier.settings.timeout_seconds} s to {name}"
            ) from None
        except httpx.InvalidURL:
            raise Unknown(f"{name}: the address cannot be used", sent=False) from None
        except httpx.HTTPError as error:
            # The library's own text may quote the request; its class says enough.
            sent = not isinstance(error, _NOT_SENT)
            raise Unknown(f"{name}: {type(error).__name__}", sent=sent) from None
        return judge(operation, name, status, body, hide=supplier.secret)

    def _request(
        self,
        supplier: SupplierConfig,
        operation: Operation,
        values: Mapping[str, str],
        key: str,
    ) -> httpx.Request:
        quoted = {name: quote(value, safe="") for name, value in values.items()}
        full = {**values, "secret": supplier.secret}
        headers = {
            "accept": "application/json",
            # A small answer that unpacks to a huge one cannot be bounded by its size.
            "accept-encoding": "identity",
            "idempotency-key": _visible(key),
        }
        for name, template in {**supplier.settings.headers, **operation.headers}.items():
            headers[name.lower()] = _visible(fill(template, full))
        content = None
        if operation.body is not None:
            content = json.dumps(fill_all(operation.body, full)).encode()
            headers.setdefault("content-type", "application/json")
        query = {name: fill(template, values) for name, template in operation.query.items()}
        url = supplier.base_url + fill(operation.path, quoted)
        timeout = httpx.Timeout(supplier.settings.timeout_seconds)
        return self._client.build_request(
            operation.method,
            url,
            params=query or None,
            headers=headers,
            content=content,
            timeout=timeout,
        )

    async def _exchange(self, request: httpx.Request) -> tuple[int, bytes]:
        answer = await self._client.send(request, stream=True)
        try:
            body = bytearray()
            async for part in answer.aiter_raw():
                body += part
                if len(body) > ANSWER_MAX_BYTES:
                    raise Unknown(
                        f"it answered {answer.status_code} with more than {ANSWER_MAX_BYTES} bytes"
                    )
            return answer.status_code, bytes(body)
        finally:
            await answer.aclose()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _visible(value: str) -> str:
    """What of a value a header may hold: a supplier's own reference may be anything."""
    return "".join(c for c in value if " " <= c <= "~")


def judge(operation: Operation, name: str, status: int, body: bytes, *, hide: str = "") -> Answer:
    """What an HTTP answer says, by the operation's lists.

    Raises:
        Refused: it says no. Unknown: it does not say.
    """
    try:
        document = json.loads(body) if body.strip() else None
    except (ValueError, RecursionError):
        document = None
        if 200 <= status < 300 and (operation.outcome or operation.answer):
            raise Unknown(f"{name}: it answered {status} with what is no JSON") from None
    why = _reason(operation, status, document, hide)
    if status in operation.refused_statuses:
        raise Refused(why)
    if status in operation.absent_statuses:
        return Answer(Outcome.ABSENT)
    fields = {key: at(document, pointer) for key, pointer in operation.answer.items()}
    if status in operation.done_statuses:
        return Answer(Outcome.DONE, fields)
    if not 200 <= status < 300:
        if 400 <= status < 500 and status not in _AGAIN:
            raise Refused(why)
        raise Unknown(f"{name}: it answered {status}")
    if operation.outcome:
        return _by_value(operation, name, document, fields, why)
    if status in operation.pending_statuses:
        return Answer(Outcome.PENDING, fields)
    return Answer(Outcome.DONE, fields)


def _by_value(
    operation: Operation, name: str, document: Any, fields: dict[str, Any], why: str
) -> Answer:
    found = at(document, operation.outcome)
    value = json.dumps(found) if isinstance(found, bool) else str(found)
    if value in operation.done:
        return Answer(Outcome.DONE, fields)
    if value in operation.pending:
        return Answer(Outcome.PENDING, fields)
    if value in operation.absent:
        return Answer(Outcome.ABSENT)
    if value in operation.refused:
        raise Refused(why)
    raise Unknown(f"{name}: {operation.outcome} is {value[:60]!r}, which no list names")


def _reason(operation: Operation, status: int, document: Any, hide: str) -> str:
    found = at(document, operation.reason) if operation.reason else None
    text = found if isinstance(found, str) and found.strip() else f"it answered {status}"
    if hide:
        text = text.replace(hide, "***")
    return "".join(c if c.isprintable() else " " for c in text)[:REASON_MAX]


Script = Callable[[str, Mapping[str, str]], Answer]


class NullSupplier:
    """A supplier that only pretends: made-up answers, or those of a script; it remembers what it was asked.

    A script gets the operation and the values; it answers, or raises Refused or Unknown.
    """

    def __init__(self, script: Script | None = None) -> None:
        self.asked: list[tuple[str, dict[str, str], str]] = []
        self.script = script or pretend

    async def call(
        self, supplier: SupplierConfig, operation: str, values: Mapping[str, str], *, key: str
    ) -> Answer:
        """Remember, and answer by the script."""
        self.asked.append((operation, dict(values), key))
        return self.script(operation, values)

    async def close(self) -> None:
        """Nothing is held."""


def pretend(operation: str, values: Mapping[str, str]) -> Answer:
    """Answers that look like those of a supplier that has everything, the same each time."""
    order = "".join(c for c in values.get("order_id", "") if c in "0123456789abcdef")[-12:]
    digits = f"{int(order or '0', 16):015d}"[-13:]
    made: dict[str, dict[str, Any]] = {
        "order": {
            "reference": f"null-{order}",
            "iccid": f"890100{digits}",
            "activation_code": f"LPA:1$null.example${order.upper()}",
            "number": values.get("number", ""),
        },
        "lookup": {"status": "active", "mcc_mnc": "00101", "ported": False},
        "search": {"numbers": []},
    }
    return Answer(Outcome.DONE, made.get(operation, {}))


class Suppliers:
    """All suppliers: those at :data:`NULL_URL` pretend, the others are asked."""

    def __init__(self) -> None:
        self._real = HttpSupplier()
        self._null = NullSupplier()

    async def call(
        self, supplier: SupplierConfig, operation: str, values: Mapping[str, str], *, key: str
    ) -> Answer:
        """Ask the one that it is."""
        gateway = self._null if supplier.base_url == NULL_URL else self._real
        return await gateway.call(supplier, operation, values, key=key)

    async def close(self) -> None:
        """Close the connections."""
        await self._real.close()
