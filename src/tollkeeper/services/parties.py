"""Parties and the plans that they are sold by: create, change, look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

from tollkeeper.core.numbering import DialRules
from tollkeeper.errors import Conflict, InvalidInput
from tollkeeper.services.fields import (
    check_amount,
    check_choice,
    check_code,
    check_integer,
    check_text,
    check_timezone,
)
from tollkeeper.services.plans import (
    FIRST_PAGE,
    PLAN_CARDS_MAX,
    Page,
    Plan,
    PlanCard,
    check_wallets,
    create_plan,
    get_plan,
    list_plans,
    set_plan_cards,
)
from tollkeeper.services.scope import check_below, operator_only, unknown_party
from tollkeeper.services.tree import KINDS, parent_id_of, plan_id_of
from tollkeeper.services.wallet_terms import follow_billing
from tollkeeper.store import parties as store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.parties import Party
from tollkeeper.store.scope import read_own_code
from tollkeeper.store.terms import set_billing

__all__ = [
    "FIRST_PAGE",
    "PLAN_CARDS_MAX",
    "Page",
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
    "unknown_party",
]

OPERATORS_KINDS = frozenset(("operator", "vendor"))
"""Kinds of parties that only the operator makes."""

OVERCOMMIT_MAX = 10_000
STATUSES = ("active", "suspended", "frozen")
BILLINGS = ("prepaid", "postpaid")
RATE_CHANGES = ("pin", "split")

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
        "overcommit",
        "billing",
        "low_balance",
        "low_sessions",
        "rate_change",
    )
)
DIAL_MARKS_MAX = 8


# --- parties -------------------------------------------------------------------------------------


async def create_party(
    database: Database, party: Party, *, actor: str, scope: int | None = None
) -> Party:
    """Create a party; returns it as stored. One that a scope makes stands below it.

    Raises:
        InvalidInput: a field is out of bounds, or names a plan or parent that does not exist.
        Conflict: the code is taken. Forbidden: a kind or field that is the operator's.
    """
    async with database.write(scope=scope) as connection:
        return await create_party_within(connection, party, actor=actor, scope=scope)


async def create_party_within(
    connection: Connection, party: Party, *, actor: str, scope: int | None = None
) -> Party:
    """As :func:`create_party`, in the caller's transaction."""
    _check(party)
    check_code(party.code)
    check_choice(party.kind, KINDS, field="kind")
    if scope is not None:
        if party.kind in OPERATORS_KINDS:
            raise operator_only(f"a party of kind {party.kind} is made")
        _check_overcommit_allowed(party.overcommit, scope)
        party = replace(party, parent=party.parent or await read_own_code(connection, scope))
    parent_id = await parent_id_of(connection, party.kind, party.parent)
    plan_id = await plan_id_of(connection, party.plan, party.code, parent_id)
    party_id = await store.add_party(connection, party, parent_id=parent_id, plan_id=plan_id)
    if party_id is None:
        raise Conflict(f'the code "{party.code}" is taken', code="party_exists", field="code")
    if party.overcommit is not None:
        await store.set_overcommit(connection, party_id, party.overcommit)
    if party.billing != "postpaid":
        await set_billing(connection, party_id, party.billing)
    await store.add_move(connection, party_id, parent_id=parent_id, actor=actor, reason="created")
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
    database: Database,
    code: str,
    changes: Mapping[str, object],
    *,
    actor: str,
    scope: int | None = None,
) -> Party:
    """Change some of a party's fields (see :data:`CHANGEABLE`); returns it as it is then.

    Raises:
        NotFound: no such party. InvalidInput: a field is unknown or out of bounds.
        Forbidden: the scope itself, or a field that is the operator's.
    """
    unknown = sorted(changes.keys() - CHANGEABLE)
    if unknown:
        raise InvalidInput(f"{unknown[0]}: this cannot be changed", field=unknown[0])
    if "overcommit" in changes:
        _check_overcommit_allowed(changes["overcommit"], scope)
    async with database.write(scope=scope) as connection:
        await check_below(connection, scope, code)
        if await store.lock_party(connection, code) is None:
            raise unknown_party(code)
        before = await _read(connection, code)
        # The keys are checked above, the values by the caller's types and by _check below.
        after = replace(before, **changes)  # type: ignore[arg-type]
        different = {n for n in changes if getattr(before, n) != getattr(after, n)}
        if not different:
            return before
        _check(after)
        replan = "plan" in different
        plan_id = (
            await plan_id_of(connection, after.plan, code, after.id, itself=True)
            if replan
            else None
        )
        if plan_id is not None:
            await check_wallets(connection, after.id, plan_id)
        await store.write_party(connection, after, plan_id=plan_id, replan=replan)
        if "overcommit" in different:
            await store.set_overcommit(connection, after.id, after.overcommit)
        if "billing" in different:
            await set_billing(connection, after.id, after.billing)
            await follow_billing(connection, after.id)
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


async def get_party(database: Database, code: str, *, scope: int | None = None) -> Party:
    """Return a party. Whoever sees no more than a subtree learns nothing of what is above it.

    Raises:
        NotFound: no such party.
    """
    async with database.read(scope=scope) as connection:
        return await _read(connection, code)


async def list_parties(
    database: Database,
    page: Page = FIRST_PAGE,
    *,
    parent: str | None = None,
    subtree: str | None = None,
    scope: int | None = None,
) -> list[Party]:
    """Return parties in the order of their codes: all, the children of ``parent``, or ``subtree``
    and all below it.

    Raises:
        NotFound: no such parent or top of a subtree.
    """  # noqa: D205
    async with database.read(scope=scope) as connection:
        return await store.read_parties(
            connection,
            after=page.after,
            limit=page.limit,
            parent_id=None if parent is None else (await _read(connection, parent)).id,
            below_id=None if subtree is None else (await _read(connection, subtree)).id,
        )


async def _read(connection: Connection, code: str) -> Party:
    party = await store.read_party(connection, code)
    if party is None:
        raise unknown_party(code)
    return party


def _check_overcommit_allowed(share: object, scope: int | None) -> None:
    if scope is not None and share is not None:
        raise operator_only("what a reseller's children may have together is set")


def _check(party: Party) -> None:
    """Check all that may change."""
    check_text(party.name, field="name")
    check_choice(party.status, STATUSES, field="status")
    check_choice(party.billing, BILLINGS, field="billing")
    check_choice(party.rate_change, RATE_CHANGES, field="rate_change")
    check_timezone(party.timezone)
    check_integer(party.max_sessions, field="max_sessions")
    check_integer(party.max_cps, field="max_cps")
    check_integer(party.max_seconds, field="max_seconds", least=1, most=86_400)
    if party.max_cost is not None:
        check_amount(party.max_cost, field="max_cost", zero=True)
    if party.overcommit is not None:
        check_amount(party.overcommit, field="overcommit", zero=True)
        if party.overcommit >= OVERCOMMIT_MAX or party.overcommit != round(party.overcommit, 4):
            raise InvalidInput(
                f"overcommit: give a share below {OVERCOMMIT_MAX} with at most 4 decimals, such as 1.5",
                field="overcommit",
            )
    _check_low(party)
    _check_user(party)
    check_dial_rules(party.dial_rules)


def _check_low(party: Party) -> None:
    """Both parts of the rule for little money, or none of them."""
    if party.low_balance is not None:
        check_amount(party.low_balance, field="low_balance", zero=True)
    check_integer(party.low_sessions, field="low_sessions")
    if (party.low_balance is None) != (party.low_sessions is None):
        missing = "low_balance" if party.low_balance is None else "low_sessions"
        raise InvalidInput(
            f"{missing}: say below how much money (low_balance) how many calls may be up (low_sessions), "
            "or neither",
            field=missing,
        )


def _check_user(party: Party) -> None:
    """A user has no money and no prices of its own: nothing that would need them."""
    if party.kind != "user":
        return
    if party.plan is not None:
        raise InvalidInput(
            f"plan: {party.code} is a user, and a user's calls are priced by the plan of its customer",
            code="user_has_no_plan",
            field="plan",
        )
    for name in ("max_cps", "overcommit"):
        if getattr(party, name) is not None:
            raise InvalidInput(
                f"{name}: {party.code} is a user and has no wallet that this could count on; "
                "set it on its customer",
                field=name,
            )


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
