"""Telephone numbers that are sold, and their orders, as they are stored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tollkeeper.store.db import Connection, queries

_SQL = queries("dids")


@dataclass(frozen=True, slots=True)
class Did:
    """A number; what its states mean is written in the migration that makes the table.

    ``item``: the digits by which cards price it, empty: its own. What concerns the operator alone
    (from the supplier on) is empty where a party looks.
    """

    id: int
    number: str
    country: str
    kind: str
    item: str
    status: str
    party_id: int | None
    party: str
    destination: str
    created_at: datetime
    assigned_at: datetime | None
    supplier: str = ""
    supplier_id: int | None = None
    purchase_id: int | None = None
    quarantine_days: int = 0
    grace_days: int = 0
    released_at: datetime | None = None
    quarantine_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class NewDid:
    """A number of our own inventory."""

    number: str
    country: str
    kind: str
    item: str
    destination: str
    quarantine_days: int
    grace_days: int


@dataclass(frozen=True, slots=True)
class DidEvent:
    """Something that happened to a number."""

    at: datetime
    event: str
    party: str
    detail: str


@dataclass(frozen=True, slots=True)
class DidOrder:
    """An order of a number; ``charge`` is its set-up fee, ``fee_id`` the monthly one."""

    id: int
    did_id: int
    number: str
    item: str
    party_id: int
    party: str
    request_id: str
    fee_id: int
    supplier: str
    status: str
    reason: str
    charge: Decimal | None
    currency: str
    actor: str
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class DidFilter:
    """Which numbers to list; what is empty is not asked. ``like`` is a pattern of SQL's LIKE."""

    like: str = "%"
    country: str = ""
    kind: str = ""
    status: str = ""
    party: str = ""
    after: str = ""
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A number whose quarantine is over."""

    id: int
    number: str
    supplier_id: int | None
    purchase_id: int | None


async def put_dids(
    connection: Connection, numbers: Iterable[NewDid], now: datetime
) -> tuple[int, int]:
    """Insert numbers of our own, or change what is said of them; returns how many are new and were known."""
    added = known = 0
    for number in numbers:
        values = {name: getattr(number, name) for name in NewDid.__slots__}
        row = await (await connection.execute(_SQL["put"], {**values, "now": now})).fetchone()
        if row is not None and row["added"]:
            added += 1
        else:
            known += 1
    return added, known


async def reserve(connection: Connection, number: str, party_id: int, now: datetime) -> int | None:
    """Take a number of our own for an order; None when it cannot be ordered."""
    values = {"number": number, "party_id": party_id, "now": now}
    row = await (await connection.execute(_SQL["reserve"], values)).fetchone()
    return row["id"] if row is not None else None


async def reserve_new(
    connection: Connection,
    number: str,
    *,
    item: str,
    party_id: int,
    supplier_id: int,
    now: datetime,
) -> int | None:
    """Take a number that a supplier is to deliver; None when it is in our inventory."""
    values = {
        "number": number,
        "item": item,
        "party_id": party_id,
        "supplier_id": supplier_id,
        "now": now,
    }
    row = await (await connection.execute(_SQL["reserve_new"], values)).fetchone()
    return row["id"] if row is not None else None


async def read_did(connection: Connection, number: str, *, own: bool) -> Did | None:
    """Read a number; ``own``: as a party may see it."""
    query = _SQL["own_did" if own else "did"]
    row = await (await connection.execute(query, (number,))).fetchone()
    return Did(**row) if row is not None else None


async def read_dids(connection: Connection, wanted: DidFilter, *, own: bool) -> list[Did]:
    """List numbers in their order; ``own``: as a party may see them."""
    values = {name: getattr(wanted, name) for name in DidFilter.__slots__}
    rows = await (await connection.execute(_SQL["own_dids" if own else "dids"], values)).fetchall()
    return [Did(**row) for row in rows]


async def read_item(connection: Connection, did_id: int) -> tuple[str, str]:
    """A number and the digits of its price class."""
    row = await (await connection.execute(_SQL["item"], (did_id,))).fetchone()
    return (row["number"], row["item"]) if row is not None else ("", "")


async def set_destination(connection: Connection, did_id: int, destination: str) -> None:
    """Where calls to a number go."""
    await connection.execute(_SQL["set_destination"], (destination, did_id))


async def assign(
    connection: Connection, did_id: int, *, country: str, purchase_id: int | None, now: datetime
) -> int | None:
    """The party has the number now; returns the days of grace of its fee."""
    values = {"id": did_id, "country": country, "purchase_id": purchase_id, "now": now}
    row = await (await connection.execute(_SQL["assign"], values)).fetchone()
    return row["grace_days"] if row is not None else None


async def give_up(connection: Connection, did_id: int) -> None:
    """An order came to nothing: the number is free again."""
    await connection.execute(_SQL["give_up"], {"id": did_id})


async def quarantine(
    connection: Connection, did_id: int, now: datetime, detail: str, actor: str
) -> bool:
    """Take a number from its party; nobody gets it for a while. False when nobody had it."""
    row = await (await connection.execute(_SQL["holder"], (did_id,))).fetchone()
    if (await connection.execute(_SQL["quarantine"], {"id": did_id, "now": now})).rowcount != 1:
        return False
    party_id = row["party_id"] if row is not None else None
    await add_event(connection, did_id, now, "released", party_id, detail, actor)
    return True


async def out_of_quarantine(connection: Connection, now: datetime, limit: int) -> list[Quarantined]:
    """Numbers whose quarantine is over."""
    values = {"now": now, "limit": limit}
    rows = await (await connection.execute(_SQL["out_of_quarantine"], values)).fetchall()
    return [Quarantined(**row) for row in rows]


async def end_quarantine(connection: Connection, did_id: int, status: str) -> bool:
    """A number is ``available`` again, or ``released`` to its supplier; False when it was before."""
    values = {"id": did_id, "status": status}
    return (await connection.execute(_SQL["end_quarantine"], values)).rowcount == 1


async def later(connection: Connection, did_id: int, at: datetime) -> None:
    """Look at a number again then."""
    await connection.execute(_SQL["later"], (at, did_id))


async def add_event(
    connection: Connection,
    did_id: int,
    at: datetime,
    event: str,
    party_id: int | None,
    detail: str,
    actor: str,
) -> None:
    """Write down what happened to a number."""
    await connection.execute(_SQL["add_event"], (did_id, at, event, party_id, detail, actor))


async def read_events(connection: Connection, number: str) -> list[DidEvent]:
    """What happened to a number, the oldest first."""
    rows = await (await connection.execute(_SQL["events"], (number,))).fetchall()
    return [DidEvent(**row) for row in rows]


# --- orders --------------------------------------------------------------------------------------


async def add_order(
    connection: Connection,
    *,
    did_id: int,
    party_id: int,
    request_id: str,
    fee_id: int,
    supplier: str,
    actor: str,
    now: datetime,
) -> int | None:
    """Insert an order; None when the party's request id is known."""
    values = {
        "did_id": did_id,
        "party_id": party_id,
        "request_id": request_id,
        "fee_id": fee_id,
        "supplier": supplier,
        "actor": actor,
        "now": now,
    }
    row = await (await connection.execute(_SQL["add_order"], values)).fetchone()
    return row["id"] if row is not None else None


async def read_order(connection: Connection, order_id: int) -> DidOrder | None:
    """Read an order by id."""
    row = await (await connection.execute(_SQL["order"], (order_id,))).fetchone()
    return DidOrder(**row) if row is not None else None


async def lock_order(connection: Connection, order_id: int) -> DidOrder | None:
    """Read an order and keep others from changing it until the transaction ends."""
    row = await (await connection.execute(_SQL["lock_order"], (order_id,))).fetchone()
    return DidOrder(**row) if row is not None else None


async def find_order(connection: Connection, party_id: int, request_id: str) -> DidOrder | None:
    """Read an order by the buyer's own name of it."""
    row = await (await connection.execute(_SQL["by_request"], (party_id, request_id))).fetchone()
    return DidOrder(**row) if row is not None else None


async def pending_orders(
    connection: Connection, before: datetime, after: int, limit: int
) -> list[int]:
    """Ids of orders that are not decided, of those made before that."""
    rows = await (await connection.execute(_SQL["pending"], (before, after, limit))).fetchall()
    return [row["id"] for row in rows]


async def end_order(
    connection: Connection,
    order_id: int,
    *,
    status: str,
    now: datetime,
    reason: str = "",
    charge: Decimal | None = None,
    currency: str = "",
) -> None:
    """Decide an order."""
    values = {
        "id": order_id,
        "status": status,
        "reason": reason,
        "charge": charge,
        "currency": currency,
        "now": now,
    }
    await connection.execute(_SQL["end_order"], values)


async def fee_of(connection: Connection, did_id: int) -> int | None:
    """The monthly fee that a number has at the moment."""
    row = await (await connection.execute(_SQL["fee_of"], (did_id,))).fetchone()
    return row["id"] if row is not None else None
