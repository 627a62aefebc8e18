"""Webhooks and what was posted to them, as they are stored; a secret is read only to sign."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from psycopg.rows import DictRow

from tollkeeper.store.db import Connection, queries

_SQL = queries("webhooks")


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address that is told of events; ``party`` bounds it to that party and those below it.

    ``failing_since`` is the time of the first of the failures since the last success; until
    ``old_until`` the secret before the present one signs too.
    """

    code: str
    url: str
    events: tuple[str, ...]
    party: str | None = None
    party_id: int | None = None
    enabled: bool = True
    failing_since: datetime | None = None
    disabled_why: str = ""
    old_until: datetime | None = None
    id: int = 0
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event on its way to a webhook, or what came of it: ``status`` of the last answer, if any."""

    id: int
    feed_id: int
    at: datetime
    kind: str
    body: str
    attempts: int
    next_at: datetime
    done_at: datetime | None
    status: int | None
    last_error: str


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is to be told of which kinds of events."""

    id: int
    party_id: int | None
    events: frozenset[str]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A webhook that something is due for, with what signs it."""

    id: int
    url: str
    party_id: int | None
    secret: str = field(repr=False)
    old_secret: str = field(repr=False)
    old_until: datetime | None
    failing_since: datetime | None

    def secrets(self, now: datetime) -> tuple[str, ...]:
        """What signs now: the secret, and the one before it while that still counts."""
        if self.old_secret and self.old_until is not None and now < self.old_until:
            return (self.secret, self.old_secret)
        return (self.secret,)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that this process makes now; ``attempts`` counts this one."""

    id: int
    feed_id: int
    body: str
    attempts: int


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """An event for a webhook."""

    webhook_id: int
    feed_id: int
    kind: str
    body: str


# --- webhooks ------------------------------------------------------------------------------------


async def read_webhook(connection: Connection, code: str) -> Webhook | None:
    """Read one by code."""
    row = await (await connection.execute(_SQL["webhook"], (code,))).fetchone()
    return _webhook(row) if row is not None else None


async def read_webhooks(
    connection: Connection, *, party: str = "", after: str = "", limit: int = 100
) -> list[Webhook]:
    """Read them (of one party) in the order of their codes."""
    values = {"party": party, "after": after, "limit": limit}
    rows = await (await connection.execute(_SQL["webhooks"], values)).fetchall()
    return [_webhook(row) for row in rows]


def _webhook(row: DictRow) -> Webhook:
    return Webhook(**{**row, "events": tuple(row["events"])})


async def lock_webhook(connection: Connection, code: str) -> int | None:
    """Lock one against other changes; return its id."""
    row = await (await connection.execute(_SQL["lock"], (code,))).fetchone()
    return row["id"] if row is not None else None


async def add_webhook(
    connection: Connection, webhook: Webhook, *, party_id: int | None, secret: str
) -> int | None:
    """Insert one; None when the code is taken."""
    values = (
        webhook.code,
        party_id,
        webhook.url,
        secret,
        list(webhook.events),
        webhook.enabled,
    )
    row = await (await connection.execute(_SQL["add"], values)).fetchone()
    return row["id"] if row is not None else None


async def write_webhook(connection: Connection, webhook: Webhook, *, fresh: bool) -> None:
    """Store what may change of one; ``fresh``: its failures so far count no more."""
    values = {
        "id": webhook.id,
        "url": webhook.url,
        "events": list(webhook.events),
        "enabled": webhook.enabled,
        "fresh": fresh,
    }
    await connection.execute(_SQL["change"], values)


async def rotate_secret(
    connection: Connection, webhook_id: int, *, secret: str, until: datetime | None
) -> None:
    """Replace the secret; the one before signs too ``until`` then (None: no more)."""
    await connection.execute(_SQL["rotate"], {"id": webhook_id, "secret": secret, "until": until})


async def delete_webhook(connection: Connection, webhook_id: int) -> None:
    """Delete one with all that is on its way to it."""
    await connection.execute(_SQL["delete"], (webhook_id,))


# --- deliveries ----------------------------------------------------------------------------------


async def read_deliveries(
    connection: Connection, webhook_id: int, *, state: str = "", before: int = 0, limit: int = 100
) -> list[Delivery]:
    """Read deliveries (waiting, delivered or failed ones), the newest first."""
    values = {"webhook_id": webhook_id, "state": state, "before": before, "limit": limit}
    rows = await (await connection.execute(_SQL["deliveries"], values)).fetchall()
    return [Delivery(**row) for row in rows]


async def read_delivery(connection: Connection, webhook_id: int, id_: int) -> Delivery | None:
    """Read one delivery of a webhook."""
    row = await (await connection.execute(_SQL["delivery"], (webhook_id, id_))).fetchone()
    return Delivery(**row) if row is not None else None


async def add_test(
    connection: Connection, webhook_id: int, *, feed_id: int, kind: str, body: str, at: datetime
) -> int:
    """Insert a delivery that stands for no event; returns its id."""
    values = {
        "webhook_id": webhook_id,
        "feed_id": feed_id,
        "at": at,
        "kind": kind,
        "body": body,
    }
    row = await (await connection.execute(_SQL["add_test"], values)).fetchone()
    assert row is not None
    id_: int = row["id"]
    return id_


async def deliver_again(
    connection: Connection, webhook_id: int, id_: int, *, now: datetime
) -> None:
    """Begin a delivery anew."""
    await connection.execute(_SQL["again"], {"webhook_id": webhook_id, "id": id_, "now": now})


async def read_listeners(connection: Connection) -> list[Listener]:
    """Every webhook that is told of events now."""
    rows = await (await connection.execute(_SQL["listening"])).fetchall()
    return [Listener(row["id"], row["party_id"], frozenset(row["events"])) for row in rows]


async def add_deliveries(
    connection: Connection, deliveries: Sequence[NewDelivery], at: datetime
) -> None:
    """Insert deliveries, due at once; one that exists is left as it is."""
    if not deliveries:
        return
    values = {
        "at": at,
        "webhook_id": [one.webhook_id for one in deliveries],
        "feed_id": [one.feed_id for one in deliveries],
        "kind": [one.kind for one in deliveries],
        "body": [one.body for one in deliveries],
    }
    await connection.execute(_SQL["add_deliveries"], values)


async def read_due(
    connection: Connection, now: datetime, *, busy: Collection[int], limit: int
) -> list[Endpoint]:
    """Enabled webhooks that something is due for, but for those that are ``busy``."""
    values = {"now": now, "busy": list(busy), "limit": limit}
    rows = await (await connection.execute(_SQL["due"], values)).fetchall()
    return [Endpoint(**row) for row in rows]


async def claim(
    connection: Connection, webhook_id: int, now: datetime, *, lease: datetime, limit: int
) -> list[Claimed]:
    """Take up deliveries of a webhook that are due, so that nobody else does before ``lease``."""
    values = {"webhook_id": webhook_id, "now": now, "lease": lease, "limit": limit}
    rows = await (await connection.execute(_SQL["claim"], values)).fetchall()
    return [Claimed(**row) for row in sorted(rows, key=lambda row: row["id"])]


async def mark_delivered(connection: Connection, id_: int, now: datetime, status: int) -> None:
    """It was taken."""
    await connection.execute(_SQL["delivered"], {"id": id_, "now": now, "status": status})


async def mark_later(
    connection: Connection, id_: int, next_at: datetime, *, status: int | None, error: str
) -> None:
    """It was not; try again at ``next_at``."""
    values = {"id": id_, "next_at": next_at, "status": status, "error": error}
    await connection.execute(_SQL["later"], values)


async def mark_given_up(
    connection: Connection, id_: int, now: datetime, *, status: int | None, error: str
) -> None:
    """It was not, and is not tried again by itself."""
    values = {"id": id_, "now": now, "status": status, "error": error}
    await connection.execute(_SQL["given_up"], values)


async def note_works(connection: Connection, webhook_id: int) -> None:
    """A delivery succeeded: earlier failures count no more."""
    await connection.execute(_SQL["works"], (webhook_id,))


async def note_fails(connection: Connection, webhook_id: int, now: datetime) -> None:
    """A delivery failed; the first failure since the last success is remembered."""
    await connection.execute(_SQL["fails"], {"id": webhook_id, "now": now})


async def disable(connection: Connection, webhook_id: int, why: str) -> str | None:
    """Tell a webhook nothing more; its code, or None if it was disabled already."""
    row = await (
        await connection.execute(_SQL["disable"], {"id": webhook_id, "why": why})
    ).fetchone()
    return row["code"] if row is not None else None


async def purge(connection: Connection, before: datetime) -> None:
    """Delete deliveries that were done before then, and those that nobody took in that time."""
    await connection.execute(_SQL["purge"], {"before": before})
