"""Webhooks: who is told of which events by HTTP; a secret goes out once and never again.

The operator's webhooks are told of everything and may stand anywhere. A party's are told of what
happens at that party and below it; they are https and stand on the open Internet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.gateways.webhook import is_private_literal
from tollkeeper.services.feed import KINDS, envelope
from tollkeeper.services.fields import check_code, check_integer
from tollkeeper.services.switches import check_secret, new_secret
from tollkeeper.store import webhooks as store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.parties import read_party
from tollkeeper.store.scope import read_own_code
from tollkeeper.store.webhooks import Delivery, Webhook

__all__ = [
    "CHANGEABLE",
    "KEEP_HOURS",
    "Delivery",
    "Webhook",
    "change_webhook",
    "create_webhook",
    "delete_webhook",
    "get_webhook",
    "list_deliveries",
    "list_webhooks",
    "redeliver",
    "rotate_secret",
    "try_webhook",
]

CHANGEABLE = frozenset(("url", "events", "enabled"))
URL_MAX = 2000
KEEP_HOURS = 24
"""So long the secret before the present one signs too, unless something else is said."""
KEEP_HOURS_MAX = 24 * 14
TEST_KIND = "webhook.test"
STATES = ("", "waiting", "delivered", "failed")


async def create_webhook(
    database: Database,
    webhook: Webhook,
    *,
    secret: str | None = None,
    actor: str,
    scope: int | None = None,
) -> tuple[Webhook, str | None]:
    """Add a webhook; returns it as stored, and the secret if one was made here.

    With a ``scope`` and no party it is the scope's own.

    Raises:
        InvalidInput: an address, event, party or secret that cannot be. Conflict: the code is taken.
    """
    check_code(webhook.code)
    made = new_secret() if secret is None else None
    used = check_secret(made or secret or "")
    async with database.write(scope=scope) as connection:
        party = webhook.party
        if party is None and scope is not None:
            party = await read_own_code(connection, scope)
        checked = _checked(replace(webhook, party=party))
        party_id = await _party_id(connection, party)
        if await store.add_webhook(connection, checked, party_id=party_id, secret=used) is None:
            raise Conflict(
                f'the code "{webhook.code}" is taken', code="webhook_exists", field="code"
            )
        detail = {"party": party, "url": _shown_url(checked.url), "events": list(checked.events)}
        stored = await _read(connection, checked.code)
        await _record(connection, "create", stored, detail, actor)
        return stored, made


async def change_webhook(
    database: Database,
    code: str,
    changes: Mapping[str, Any],
    *,
    actor: str,
    scope: int | None = None,
) -> Webhook:
    """Change some of a webhook's fields (see :data:`CHANGEABLE`).

    Enabling it, or giving it another address, is a fresh start: what waits is sent, and it is
    disabled again only after days of new failures.

    Raises:
        NotFound: no such webhook. InvalidInput: a field is unknown or wrong.
    """
    unknown = sorted(changes.keys() - CHANGEABLE)
    if unknown:
        raise InvalidInput(f"{unknown[0]}: this cannot be changed", field=unknown[0])
    async with database.write(scope=scope) as connection:
        before = await _locked(connection, code)
        after = _checked(replace(before, **changes))
        different = sorted(n for n in changes if getattr(before, n) != getattr(after, n))
        if not different:
            return before
        fresh = after.enabled and (not before.enabled or before.url != after.url)
        await store.write_webhook(connection, after, fresh=fresh)
        detail = {name: _shown(after, name) for name in different}
        await _record(connection, "change", after, detail, actor)
        return await _read(connection, code)


async def delete_webhook(
    database: Database, code: str, *, actor: str, scope: int | None = None
) -> None:
    """Delete a webhook with all that waits for it.

    Raises:
        NotFound: no such webhook.
    """
    async with database.write(scope=scope) as connection:
        found = await _locked(connection, code)
        await store.delete_webhook(connection, found.id)
        await _record(connection, "delete", found, {}, actor)


async def get_webhook(database: Database, code: str, *, scope: int | None = None) -> Webhook:
    """Return a webhook.

    Raises:
        NotFound: no such webhook, or one that the scope must not know of.
    """
    async with database.read(scope=scope) as connection:
        return await _read(connection, code)


async def list_webhooks(
    database: Database,
    *,
    party: str = "",
    after: str = "",
    limit: int = 100,
    scope: int | None = None,
) -> list[Webhook]:
    """Return webhooks (of one party) in the order of their codes."""
    async with database.read(scope=scope) as connection:
        return await store.read_webhooks(connection, party=party, after=after, limit=limit)


async def rotate_secret(
    database: Database,
    code: str,
    *,
    secret: str | None = None,
    keep_hours: int = KEEP_HOURS,
    now: datetime,
    actor: str,
    scope: int | None = None,
) -> tuple[Webhook, str | None]:
    """Replace the secret; for ``keep_hours`` the one before signs too. Returns what was made here.

    Raises:
        NotFound: no such webhook. InvalidInput: a secret that cannot be, or too long a time.
    """
    check_integer(keep_hours, field="keep_hours", most=KEEP_HOURS_MAX)
    made = new_secret() if secret is None else None
    used = check_secret(made or secret or "")
    # Whose it is the scope says; the secret itself a party may write and never read.
    found = await get_webhook(database, code, scope=scope)
    async with database.write() as connection:
        until = now + timedelta(hours=keep_hours) if keep_hours else None
        await store.rotate_secret(connection, found.id, secret=used, until=until)
        await _record(connection, "rotate", found, {"keep_hours": keep_hours}, actor)
        return await _read(connection, code), made


# --- deliveries ----------------------------------------------------------------------------------


async def try_webhook(
    database: Database, code: str, *, now: datetime, scope: int | None = None
) -> Delivery:
    """Send a webhook an event that means nothing, to try it. It goes the way of all others.

    Raises:
        NotFound: no such webhook. Conflict: it is disabled.
    """
    async with database.write(scope=scope) as connection:
        found = await _locked(connection, code)
        if not found.enabled:
            raise Conflict(
                f'the webhook "{code}" is disabled; enable it first', code="webhook_disabled"
            )
        # Below zero, so that it is never the number of an event; one is made in a microsecond.
        number = -int(now.timestamp() * 1_000_000)
        body = envelope(TEST_KIND, number, now, {"webhook": code})
        text = json.dumps(body, separators=(",", ":"))
        id_ = await store.add_test(
            connection, found.id, feed_id=number, kind=TEST_KIND, body=text, at=now
        )
        return await _delivery(connection, found.id, id_)


async def list_deliveries(
    database: Database,
    code: str,
    *,
    state: str = "",
    before: int = 0,
    limit: int = 100,
    scope: int | None = None,
) -> list[Delivery]:
    """Return what was sent to a webhook, or is to be, the newest first.

    Raises:
        NotFound: no such webhook.
    """
    async with database.read(scope=scope) as connection:
        found = await _read(connection, code)
        return await store.read_deliveries(
            connection, found.id, state=state, before=before, limit=limit
        )


async def redeliver(
    database: Database,
    code: str,
    delivery_id: int,
    *,
    now: datetime,
    actor: str,
    scope: int | None = None,
) -> Delivery:
    """Send something once more, delivered or not, with the same id; attempts begin anew.

    Raises:
        NotFound: no such webhook, or delivery of it. Conflict: the webhook is disabled.
    """
    async with database.write(scope=scope) as connection:
        found = await _locked(connection, code)
        if not found.enabled:
            raise Conflict(
                f'the webhook "{code}" is disabled; enable it first', code="webhook_disabled"
            )
        await _delivery(connection, found.id, delivery_id)
        await store.deliver_again(connection, found.id, delivery_id, now=now)
        await _record(connection, "redeliver", found, {"delivery": delivery_id}, actor)
        return await _delivery(connection, found.id, delivery_id)


# --- within --------------------------------------------------------------------------------------


async def _read(connection: Connection, code: str) -> Webhook:
    found = await store.read_webhook(connection, check_code(code))
    if found is None:
        raise unknown_webhook(code)
    return found


async def _locked(connection: Connection, code: str) -> Webhook:
    if await store.lock_webhook(connection, check_code(code)) is None:
        raise unknown_webhook(code)
    return await _read(connection, code)


async def _delivery(connection: Connection, webhook_id: int, id_: int) -> Delivery:
    found = await store.read_delivery(connection, webhook_id, id_)
    if found is None:
        raise NotFound(f"there is no delivery {id_}", code="unknown_delivery")
    return found


def unknown_webhook(code: str) -> NotFound:
    """The error for a webhook that does not exist, or that whoever asks must not know of."""
    return NotFound(f'there is no webhook "{code}"', code="unknown_webhook")


async def _party_id(connection: Connection, party: str | None) -> int | None:
    if party is None:
        return None
    found = await read_party(connection, check_code(party, field="party"))
    if found is None:
        raise InvalidInput(
            f'party: there is no party "{party}"', code="unknown_party", field="party"
        )
    return found.id


def _checked(webhook: Webhook) -> Webhook:
    _check_url(webhook.url, public=webhook.party is not None)
    if not webhook.events:
        raise InvalidInput("events: name one or more", field="events")
    for kind in webhook.events:
        if kind not in KINDS:
            raise InvalidInput(
                f"events: choose from {', '.join(KINDS)}", code="unknown_event", field="events"
            )
    return replace(webhook, events=tuple(kind for kind in KINDS if kind in webhook.events))


def _check_url(url: str, *, public: bool) -> None:
    readable = len(url) <= URL_MAX and url.isascii() and url.isprintable() and " " not in url
    try:
        parts = urlsplit(url if readable else "")
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good, parts = False, urlsplit("")
    if not good or parts.username is not None or parts.fragment:
        raise InvalidInput(
            "url: give an address such as https://billing.example/tollkeeper, without user name "
            "or #fragment",
            field="url",
        )
    if public and parts.scheme != "https":
        raise InvalidInput("url: the webhook of a party is an https address", field="url")
    if public and is_private_literal(url):
        raise InvalidInput(
            "url: the webhook of a party stands on the open Internet, not on a private network",
            code="private_target",
            field="url",
        )


def _shown_url(url: str) -> str:
    """Without its query, which may hold a password."""
    return url.partition("?")[0]


def _shown(webhook: Webhook, name: str) -> object:
    value = getattr(webhook, name)
    if name == "url":
        return _shown_url(value)
    return list(value) if isinstance(value, tuple) else value


async def _record(
    connection: Connection, what: str, webhook: Webhook, detail: Mapping[str, object], actor: str
) -> None:
    await record(
        connection,
        actor=actor,
        action=f"webhook.{what}",
        subject=f"webhook {webhook.code}",
        detail=detail,
        notice=f"webhook:{webhook.id}",
    )
