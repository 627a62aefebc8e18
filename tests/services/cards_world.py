"""What the tests of calling cards share: batches, access, and how a card stands in the database."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from tests.support import World
from tollkeeper.services import card_batches
from tollkeeper.services.card_batches import Made, Order
from tollkeeper.services.card_terms import CardTerms
from tollkeeper.services.cards import Access, Asking, Cards

D = Decimal


def id_of(world: World, code: str) -> int:
    """The id of a party."""
    return int(world.one("SELECT id FROM party WHERE code = %s", code))


async def make(parts: Any, code: str = "gold", **more: Any) -> Made:
    """A batch of two cards of 3 dollars, unless ``more`` says otherwise."""
    scope = more.pop("scope", None)
    values = {
        "count": 2,
        "plan": "retail",
        "amount": D(3),
        "currency": "USD",
        "valid_days": 30,
        "expires_at": parts.clock() + timedelta(days=365),
        **more,
    }
    return await card_batches.make_batch(
        parts.database, Order(code=code, **values), actor="tester", clock=parts.clock, scope=scope
    )


def cards_of(parts: Any) -> Cards:
    """What lets cards be used."""
    return Cards(parts.database, parts.directory, parts.charging, parts.clock)


async def access(parts: Any, pin: str | None = None, **more: Any) -> Access:
    """Use a card as a switch does."""
    who = {name: more.pop(name) for name in ("key_id", "scope") if name in more}
    return await cards_of(parts).access(Asking(pin, **more), actor="tester", **who)


def terms_of(parts: Any) -> CardTerms:
    """What comes with time."""
    return CardTerms(parts.database, parts.charging, parts.clock)


def card_row(world: World, code: str) -> dict[str, Any]:
    """A card and its balance."""
    (row,) = world.sql(
        "SELECT c.*, w.credited - w.debited AS balance FROM calling_card c JOIN party p ON p.id = c.party_id"
        " JOIN wallet w ON w.party_id = p.id WHERE p.code = %s",
        code,
    )
    return row
