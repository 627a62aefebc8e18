"""Parties and the plans that they are sold by: create, change, look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from tollkeeper.core.numbering import DialRules
from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services.fields import (
    check_amount,
    check_choice,
    check_code,
    check_integer,
    check_text,
    check_timezone,
)
from tollkeeper.store import parties as store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.parties import Party, Plan, PlanCard

__all__ = [
    "Party",
    "Plan",
    "PlanCard",
    "change_party",
    "create_party",
    "create_party_within",
    "create_plan",
    "get_party",
    "get_plan",
    "list_parties",
    "list_plans",
    "set_plan_cards",
]

KINDS = ("operator", "reseller", "customer", "vendor")
STATUSES = ("active", "suspended")
CARD_KINDS: Final = ("customer", "promotion", "plan", "fallback")
"""In the order in which cards win where their prefixes are equally long."""

CHANGEABLE = frozenset(
    (
        "name",
        "plan",
        "status",
        "kill_on_suspend",
        "timezone",
        "max_sessions",
        "max_cps",
        "max_cost",
        "max_seconds",
        "dial_rules",
    )
)
PLAN_CARDS_MAX = 100
DIAL_MARKS_MAX = 8


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is wanted: ``limit`` items whose code comes after ``after``."""

    after: str = ""
    limit: int = 100


FIRST_PAGE = Page()

# --- parties -------------------------------------------------------------------------------------


async def create_party(database: Database, party: Party, *, actor: str) -> Party:
    """Create a party; returns it as stored.

    Raises:
        InvalidInput: a field is out of bounds, or names a plan or parent that does not exist.
        Conflict: the code is taken.
    """
    async with database.write() as connection:
        return await create_party_within(connection, party, actor=actor)


async def create_party_within(connection: Connection, party: Party, *, actor: str) -> Party:
    """As :func:`create_party`, in the caller's transaction."""
    _check(party)
    check_code(party.code)
    check_choice(party.kind, KINDS, field="kind")
    parent_id = await _parent_id(connection, party)
    plan_id = await _plan_id(connection, party.plan)
    party_id = await store.add_party(connection, party, parent_id=parent_id, plan_id=plan_id)
    if party_id is None:
        raise Conflict(f'the code "{party.code}" is taken', code="party_exists", field="code")
    await record(
        connection,
        actor=actor,
        action="party.create",
        subject=f"party {party.code}",
        detail={name: _plain(getattr(party, name)) for name in sorted(CHANGEABLE)},
        notice=f"party:{party_id}",
    )
    return await _read(connection, party.code)


async def change_party(
    database: Database, code: str, changes: Mapping[str, object], *, actor: str
) -> Party:
    """Change some of a party's fields (see :data:`CHANGEABLE`); returns it as it is then.

    Raises:
        NotFound: no such party. InvalidInput: a field is unknown or out of bounds.
    """
    unknown = sorted(changes.keys() - CHANGEABLE)
    if unknown:
        raise InvalidInput(f"{unknown[0]}: this cannot be changed", field=unknown[0])
    async with database.write() as connection:
        if await store.lock_party(connection, code) is None:
            raise unknown_party(code)
        before = await _read(connection, code)
        # The keys are checked above, the values by the caller's types and by _check below.
        after = replace(before, **changes)  # type: ignore[arg-type]
        different = {n for n in changes if getattr(before, n) != getattr(after, n)}
        if not different:
            return before
        _check(after)
        plan_id = await _plan_id(connection, after.plan)
        await store.write_party(connection, after, plan_id=plan_id)
        shown = {n: [_plain(getattr(before, n)), _plain(getattr(after, n))] for n in different}
        await record(
            connection,
            actor=actor,
            action="party.change",
            subject=f"party {code}",
            detail=shown,
            notice=f"party:{before.id}",
        )
        return after


async def get_party(database: Database, code: str) -> Party:
    """Return a party.

    Raises:
        NotFound: no such party.
    """
    async with database.read() as connection:
        return await _read(connection, code)


async def list_parties(database: Database, page: Page = FIRST_PAGE) -> list[Party]:
    """Return parties in the order of their codes."""
    async with database.read() as connection:
        return await store.read_parties(connection, after=page.after, limit=page.limit)


def unknown_party(code: str) -> NotFound:
    """The error for a party that does not exist."""
    return NotFound(f'there is no party "{code}"', code="unknown_party")


async def _read(connection: Connection, code: str) -> Party:
    party = await store.read_party(connection, code)
    if party is None:
        raise unknown_party(code)
    return party


async def _parent_id(connection: Connection, party: Party) -> int | None:
    if party.parent is None:
        return None
    if party.kind == "operator":
        raise InvalidInput("parent: an operator has no parent", field="parent")
    parent = await store.read_parent(connection, party.parent)
    if parent is None:
        raise InvalidInput(
            f'parent: there is no party "{party.parent}"', code="unknown_parent", field="parent"
        )
    parent_id, kind = parent
    if kind not in {"operator", "reseller"}:
        raise InvalidInput(
            f"parent: only an operator or a reseller can be a parent, and {party.parent} is a {kind}",
            code="invalid_parent",
            field="parent",
        )
    return parent_id


async def _plan_id(connection: Connection, plan: str | None) -> int | None:
    if plan is None:
        return None
    plan_id = await store.read_plan_id(connection, plan)
    if plan_id is None:
        raise InvalidInput(f'plan: there is no plan "{plan}"', code="unknown_plan", field="plan")
    return plan_id


def _check(party: Party) -> None:
    """Check all that may change."""
    check_text(party.name, field="name")
    check_choice(party.status, STATUSES, field="status")
    check_timezone(party.timezone)
    check_integer(party.max_sessions, field="max_sessions")
    check_integer(party.max_cps, field="max_cps")
    check_integer(party.max_seconds, field="max_seconds", least=1, most=86_400)
    if party.max_cost is not None:
        check_amount(party.max_cost, field="max_cost", zero=True)
    check_dial_rules(party.dial_rules)


def check_dial_rules(rules: DialRules) -> None:
    """Check how numbers are said to be written.

    Raises:
        InvalidInput: a mark is not one, or one needs another that is missing.
    """
    marks = {"tech_prefix": rules.tech_prefix, "national": rules.national}
    for name, mark in marks.items():
        if mark:
            _check_mark(mark, field=f"dial_rules.{name}")
    if rules.tech_prefix_required and not rules.tech_prefix:
        raise InvalidInput(
            "dial_rules.tech_prefix: a required tech prefix must be given",
            field="dial_rules.tech_prefix",
        )
    if len(rules.international) > DIAL_MARKS_MAX:
        raise InvalidInput(
            f"dial_rules.international: at most {DIAL_MARKS_MAX} marks",
            field="dial_rules.international",
        )
    for mark in rules.international:
        _check_mark(mark, field="dial_rules.international")
    country = rules.country_code
    if country and not (len(country) <= 3 and country.isascii() and country.isdigit()):
        raise InvalidInput(
            "dial_rules.country_code: a country code has 1 to 3 digits",
            field="dial_rules.country_code",
        )
    if rules.national and not country:
        raise InvalidInput(
            "dial_rules.country_code: national numbers need the country code",
            field="dial_rules.country_code",
        )


def _check_mark(mark: str, *, field: str) -> None:
    """A mark in front of a number: digits, * and #, as a telephone has them."""
    if not 1 <= len(mark) <= 12 or not set(mark) <= set("0123456789*#"):
        raise InvalidInput(f"{field}: give 1 to 12 digits, * or #", field=field)


def _plain(value: object) -> object:
    """A field's value for the audit trail."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, DialRules):
        return {name: getattr(value, name) for name in DialRules.__slots__}
    return value


# --- plans ---------------------------------------------------------------------------------------


async def create_plan(
    database: Database, *, code: str, name: str, cards: Sequence[PlanCard] = (), actor: str
) -> Plan:
    """Create a rate plan.

    Raises:
        InvalidInput: a field is out of bounds, or names a card that does not exist or is bought by.
        Conflict: the code is taken.
    """
    check_code(code)
    check_text(name, field="name")
    async with database.write() as connection:
        plan_id = await store.add_plan(connection, code, name)
        if plan_id is None:
            raise Conflict(f'the code "{code}" is taken', code="plan_exists", field="code")
        await _store_cards(connection, plan_id, cards)
        return await _note_plan(connection, code, action="plan.create", actor=actor)


async def set_plan_cards(
    database: Database,
    code: str,
    cards: Sequence[PlanCard],
    *,
    name: str | None = None,
    actor: str,
) -> Plan:
    """Make these the cards of a plan, and give it another name if one is given.

    Cards of equally long prefixes win by kind (customer, promotion, plan, fallback), then in the
    order given; they are kept in that order.

    Raises:
        NotFound: no such plan. InvalidInput: a card is named twice, does not exist or is bought by.
    """
    if name is not None:
        check_text(name, field="name")
    async with database.write() as connection:
        plan_id = await store.lock_plan(connection, code)
        if plan_id is None:
            raise _unknown_plan(code)
        if name is not None:
            await store.rename_plan(connection, plan_id, name)
        await _store_cards(connection, plan_id, cards)
        return await _note_plan(connection, code, action="plan.change", actor=actor)


async def get_plan(database: Database, code: str) -> Plan:
    """Return a plan with its cards.

    Raises:
        NotFound: no such plan.
    """
    async with database.read() as connection:
        return await _read_plan(connection, code)


async def list_plans(database: Database, page: Page = FIRST_PAGE) -> list[Plan]:
    """Return plans in the order of their codes."""
    async with database.read() as connection:
        return await store.read_plans(connection, after=page.after, limit=page.limit)


def _unknown_plan(code: str) -> NotFound:
    return NotFound(f'there is no plan "{code}"', code="unknown_plan")


async def _read_plan(connection: Connection, code: str) -> Plan:
    plan = await store.read_plan(connection, code)
    if plan is None:
        raise _unknown_plan(code)
    return plan


async def _store_cards(connection: Connection, plan_id: int, cards: Sequence[PlanCard]) -> None:
    if len(cards) > PLAN_CARDS_MAX:
        raise InvalidInput(f"cards: at most {PLAN_CARDS_MAX} cards in a plan", field="cards")
    found = await store.find_cards(connection, [check_code(c.card, field="cards") for c in cards])
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
        connection, plan_id, [(found[c.card][0], c.kind) for c in ranked]
    )


async def _note_plan(connection: Connection, code: str, *, action: str, actor: str) -> Plan:
    plan = await _read_plan(connection, code)
    await record(
        connection,
        actor=actor,
        action=action,
        subject=f"plan {code}",
        detail={"name": plan.name, "cards": [f"{c.card} ({c.kind})" for c in plan.cards]},
        notice=f"plan:{plan.id}",
    )
    return plan
