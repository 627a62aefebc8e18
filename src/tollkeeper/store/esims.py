"""eSIM profiles as they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tollkeeper.store.db import Connection, queries

_SQL = queries("esims")


@dataclass(frozen=True, slots=True)
class Esim:
    """A profile. ``bytes_left`` of its volume can still be held; None: it has none (yet)."""

    id: int
    iccid: str
    party_id: int
    party: str
    order_id: str
    purchase_id: int
    item: str
    status: str
    activation_code: str
    data_bytes: int | None
    package: str
    days: int
    bytes_left: Decimal | None
    created_at: datetime
    activated_at: datetime | None
    expires_at: datetime | None
    released_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewEsim:
    """A profile that was just delivered."""

    iccid: str
    party_id: int
    purchase_id: int
    item: str
    activation_code: str
    data_bytes: int | None
    package: str
    days: int
    created_at: datetime
    supplier_id: int


@dataclass(frozen=True, slots=True)
class Volume:
    """The data that comes with a profile: units of a package, from its activation to its end."""

    party_id: int
    plan: str
    code: str
    request: str
    units: int
    meter_id: int
    begins_at: datetime
    ends_at: datetime
    actor: str


async def add_esim(connection: Connection, new: NewEsim) -> bool:
    """Insert a profile; False when its ICCID is known already."""
    values = (
        new.iccid,
        new.party_id,
        new.purchase_id,
        new.item,
        new.activation_code,
        new.data_bytes,
        new.package,
        new.days,
        new.created_at,
        new.supplier_id,
    )
    return (await (await connection.execute(_SQL["add"], values)).fetchone()) is not None


async def read_esim(connection: Connection, iccid: str) -> Esim | None:
    """Read one profile by its ICCID."""
    row = await (await connection.execute(_SQL["esim"], (iccid,))).fetchone()
    return Esim(**row) if row is not None else None


async def iccid_of(connection: Connection, purchase_id: int) -> str | None:
    """The ICCID that an order brought, if it did."""
    row = await (await connection.execute(_SQL["of_purchase"], (purchase_id,))).fetchone()
    return row["iccid"] if row is not None else None


async def read_esims(
    connection: Connection, *, party: str, status: str, after: int, limit: int
) -> list[Esim]:
    """List profiles, the oldest first; an empty party or status means all."""
    values = {"party": party, "status": status, "after": after, "limit": limit}
    rows = await (await connection.execute(_SQL["esims"], values)).fetchall()
    return [Esim(**row) for row in rows]


async def lock_esim(connection: Connection, id_: int) -> str:
    """Lock a profile against other changes; return where it stands."""
    row = await (await connection.execute(_SQL["lock"], (id_,))).fetchone()
    return row["status"] if row is not None else ""


async def payer_of(connection: Connection, party_id: int) -> tuple[int, str]:
    """Who pays for a party's data, and the code of its plan ("" for none)."""
    row = await (await connection.execute(_SQL["payer"], (party_id,))).fetchone()
    return (row["party_id"], row["plan"]) if row is not None else (party_id, "")


async def add_volume(connection: Connection, volume: Volume) -> None:
    """Insert a package that is paid for already: it came with a profile."""
    values = {
        "party": volume.party_id,
        "plan": volume.plan,
        "code": volume.code,
        "request": volume.request,
        "begins": volume.begins_at,
        "ends": volume.ends_at,
        "units": volume.units,
        "meter": volume.meter_id,
        "actor": volume.actor,
    }
    await connection.execute(_SQL["add_volume"], values)


async def end_volume(connection: Connection, id_: int) -> int | None:
    """End the package of a profile before its time; returns whose it was, None if there is none."""
    row = await (await connection.execute(_SQL["end_volume"], (id_,))).fetchone()
    return row["party_id"] if row is not None else None


async def mark_activated(
    connection: Connection, id_: int, now: datetime, expires_at: datetime, meter_id: int | None
) -> None:
    """The profile is active until then."""
    values = (now, expires_at, expires_at, meter_id, id_)
    await connection.execute(_SQL["activated"], values)


async def due_esims(connection: Connection, now: datetime, limit: int) -> list[str]:
    """ICCIDs of profiles of which something is to be done by now."""
    rows = await (await connection.execute(_SQL["due"], (now, limit))).fetchall()
    return [row["iccid"] for row in rows]


async def mark_expired(connection: Connection, id_: int, next_at: datetime | None) -> None:
    """Its time is over; at ``next_at`` it is given back to the supplier."""
    await connection.execute(_SQL["expired"], (next_at, id_))


async def mark_released(connection: Connection, id_: int, now: datetime) -> bool:
    """It was given back; False when that was so before."""
    return (await connection.execute(_SQL["released"], (now, id_))).rowcount == 1


async def mark_later(connection: Connection, id_: int, next_at: datetime | None) -> None:
    """Try again then; None: no more."""
    await connection.execute(_SQL["later"], (next_at, id_))


async def notify_party(connection: Connection, party_id: int) -> None:
    """Tell all processes that what a party has was changed."""
    await connection.execute(_SQL["notify"], (party_id,))
