"""Rate plans: which cards a party is sold by, in which order, and under which conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from tollkeeper.core.fx import PIVOT
from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services.fields import check_choice, check_code, check_text
from tollkeeper.services.plan_terms import check_cards
from tollkeeper.store import parties as store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.fx import currency_pairs
from tollkeeper.store.parties import Plan, PlanCard
from tollkeeper.store.plans import NO_CONDITIONS, CardTerms, read_card_rows, read_wallet_currencies

__all__ = [
    "NO_CONDITIONS",
    "CardTerms",
    "Page",
    "Plan",
    "PlanCard",
    "check_wallets",
    "create_plan",
    "get_plan",
    "list_plans",
    "set_plan_cards",
    "unknown_plan",
]

PLAN_CARDS_MAX = 100


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is wanted: ``limit`` items whose code comes after ``after``."""

    after: str = ""
    limit: int = 100


FIRST_PAGE = Page()


CARD_KINDS: Final = ("customer", "promotion", "plan", "fallback")
"""In the order in which cards win where their prefixes are equally long."""


async def create_plan(
    database: Database,
    *,
    code: str,
    name: str,
    cards: Sequence[PlanCard] = (),
    actor: str,
    scope: int | None = None,
) -> Plan:
    """Create a rate plan; one that a scope makes is its own, with cards of its own.

    Raises:
        InvalidInput: a field is out of bounds, or names a card that does not exist or is bought by.
        Conflict: the code is taken.
    """
    check_code(code)
    check_text(name, field="name")
    async with database.write(scope=scope) as connection:
        plan_id = await store.add_plan(connection, code, name, owner_id=scope)
        if plan_id is None:
            raise Conflict(f'the code "{code}" is taken', code="plan_exists", field="code")
        await _store_cards(connection, plan_id, cards, scope)
        return await _note_plan(connection, code, action="plan.create", actor=actor)


async def set_plan_cards(
    database: Database,
    code: str,
    cards: Sequence[PlanCard],
    *,
    name: str | None = None,
    actor: str,
    scope: int | None = None,
) -> Plan:
    """Make these the cards of a plan, and give it another name if one is given.

    Cards of equally long prefixes win by kind (customer, promotion, plan, fallback), then in the
    order given; they are kept in that order.

    Raises:
        NotFound: no such plan. InvalidInput: a card is named twice or does not exist, a condition names
            a zone or hours that do not exist, or prices of one service are for different units.
    """
    if name is not None:
        check_text(name, field="name")
    async with database.write(scope=scope) as connection:
        plan_id = await store.lock_plan(connection, code)
        if plan_id is None:
            raise unknown_plan(code)
        if name is not None:
            await store.rename_plan(connection, plan_id, name)
        await _store_cards(connection, plan_id, cards, scope)
        return await _note_plan(connection, code, action="plan.change", actor=actor)


async def get_plan(database: Database, code: str, *, scope: int | None = None) -> Plan:
    """Return a plan with its cards.

    Raises:
        NotFound: no such plan.
    """
    async with database.read(scope=scope) as connection:
        return await _read_plan(connection, code)


async def list_plans(
    database: Database, page: Page = FIRST_PAGE, *, scope: int | None = None
) -> list[Plan]:
    """Return plans in the order of their codes."""
    async with database.read(scope=scope) as connection:
        return await store.read_plans(connection, after=page.after, limit=page.limit)


def unknown_plan(code: str) -> NotFound:
    """The error for a plan that does not exist."""
    return NotFound(f'there is no plan "{code}"', code="unknown_plan")


async def _read_plan(connection: Connection, code: str) -> Plan:
    plan = await store.read_plan(connection, code)
    if plan is None:
        raise unknown_plan(code)
    return plan


async def _store_cards(
    connection: Connection, plan_id: int, cards: Sequence[PlanCard], scope: int | None
) -> None:
    if len(cards) > PLAN_CARDS_MAX:
        raise InvalidInput(f"cards: at most {PLAN_CARDS_MAX} cards in a plan", field="cards")
    codes = [check_code(c.card, field="cards") for c in cards]
    found = await store.find_cards(connection, codes, owner_id=scope)
    seen: set[str] = set()
    for card in cards:
        check_choice(card.kind, CARD_KINDS, field="cards.kind")
        if card.card not in found:
            raise InvalidInput(
                f'cards: there is no rate card "{card.card}"', code="unknown_card", field="cards"
            )
        if card.card in seen:
            raise InvalidInput(
                f"cards: {card.card} is named twice", code="repeated_card", field="cards"
            )
        seen.add(card.card)
    ranked = sorted(cards, key=lambda card: CARD_KINDS.index(card.kind))
    await store.replace_plan_cards(
        connection, plan_id, [(found[c.card][0], c.kind, c.when) for c in ranked]
    )
    await check_cards(connection, plan_id, [(c.card, c.when) for c in cards], scope)


async def _note_plan(connection: Connection, code: str, *, action: str, actor: str) -> Plan:
    plan = await _read_plan(connection, code)
    await record(
        connection,
        actor=actor,
        action=action,
        subject=f"plan {code}",
        detail={"name": plan.name, "cards": [_said(card) for card in plan.cards]},
        notice=f"plan:{plan.id}",
    )
    return plan


def _said(card: PlanCard) -> str:
    text = f"{card.card} ({card.kind})"
    if card.when == NO_CONDITIONS:
        return text
    return f"{text} when {msgspec.json.encode(card.when).decode()}"


async def check_wallets(connection: Connection, party_id: int, plan_id: int) -> None:
    """Refuse a plan with a card that none of the party's wallets could ever pay for.

    A party without any wallet yet may have any plan.

    Raises:
        InvalidInput: a card is in a currency that the party has no wallet in, and no rate leads there.
    """
    wallets = await read_wallet_currencies(connection, party_id)
    if not wallets:
        return
    pairs: set[tuple[str, str]] | None = None
    for row in await read_card_rows(connection, plan_id):
        if row.currency in wallets:
            continue
        if pairs is None:
            given = await currency_pairs(connection)
            pairs = given | {(quote, base) for base, quote in given}
        if not any(_leads(pairs, row.currency, wallet) for wallet in wallets):
            listed = ", ".join(sorted(wallets))
            raise InvalidInput(
                f"plan: the card {row.code} is in {row.currency}, but the party's money is in {listed} and "
                f"no exchange rate leads there; open a wallet in {row.currency} or set a rate",
                code="no_wallet_for_card",
                field="plan",
            )


def _leads(pairs: set[tuple[str, str]], base: str, quote: str) -> bool:
    return (base, quote) in pairs or ((base, PIVOT) in pairs and (PIVOT, quote) in pairs)
