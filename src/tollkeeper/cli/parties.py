"""The commands ``party`` and ``plan``: who we do business with, and what they are sold by."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from cyclopts import App, Parameter

from tollkeeper.cli.common import actor, console, given, run, table
from tollkeeper.cli.plan_terms import terms
from tollkeeper.core.money import ZERO, parse_amount, plain
from tollkeeper.errors import InvalidInput
from tollkeeper.services import parties, tree, wallets
from tollkeeper.services.parties import Page, Party, Plan, PlanCard
from tollkeeper.services.plan_terms import CardTerms
from tollkeeper.store.db import Database

Kind = Literal["operator", "reseller", "customer", "vendor", "user", "card"]
Status = Literal["active", "suspended", "frozen"]
Billing = Literal["prepaid", "postpaid"]
RateChange = Literal["pin", "split"]
Bound = Literal["max_sessions", "max_cps", "max_cost", "low_balance", "low_sessions"]
DIAL_FIELDS = ("tech_prefix", "tech_prefix_required", "national", "country_code")

party_app = App(name="party", help="Customers, resellers, vendors: create, list, change.")
plan_app = App(name="plan", help="Rate plans: which rate cards a customer is sold by.")
plan_app.command(terms, name="terms")


@Parameter(name="*")
@dataclass(frozen=True)
class Dialling:
    """How a party writes numbers, as far as it is given on the command line.

    Attributes:
        tech_prefix: Digits before each number it sends.
        tech_prefix_required: Whether numbers without them are refused.
        national: Digits that mark a national number, such as 0.
        country_code: Country of its national numbers.
    """

    tech_prefix: str | None = None
    tech_prefix_required: bool | None = None
    national: str | None = None
    country_code: str | None = None


NO_DIALLING = Dialling()


@party_app.command
def create(
    code: str,
    *,
    name: str | None = None,
    kind: Kind = "customer",
    parent: str | None = None,
    plan: str | None = None,
    billing: Billing = "postpaid",
    currency: str | None = None,
    credit_limit: str = "0",
    top_up: str | None = None,
    max_sessions: int | None = None,
    max_cps: int | None = None,
    max_cost: str | None = None,
    max_seconds: int = 14_400,
    low_balance: str | None = None,
    low_sessions: int | None = None,
    rate_change: RateChange = "pin",
) -> None:
    """Create a party, and with --currency a wallet for it.

    Args:
        code: Its short name, used everywhere.
        name: Its name for people; the code if left out.
        kind: What it is to us.
        parent: Code of the operator or reseller above it; of a user, the customer whose money it spends.
        plan: Code of the rate plan it is sold by; a user has none.
        billing: Whether it pays before (no limit counts) or after.
        currency: Currency of its first wallet, such as USD.
        credit_limit: How far that wallet of a postpaid party may go below zero.
        top_up: Money to put into that wallet at once.
        max_sessions: Calls at once.
        max_cps: Calls begun in one second.
        max_cost: Money that one call may cost.
        max_seconds: Seconds that one call may last.
        low_balance: While less money than this is available, it may have fewer calls at once ...
        low_sessions: ... namely so many.
        rate_change: What its calls that are up do when their price changes: keep it, or go on at the new.
    """
    party = Party(
        code=code,
        name=name or code,
        kind=kind,
        parent=parent,
        plan=plan,
        billing=billing,
        max_sessions=max_sessions,
        max_cps=max_cps,
        max_cost=_money(max_cost, "max_cost"),
        max_seconds=max_seconds,
        low_balance=_money(low_balance, "low_balance"),
        low_sessions=low_sessions,
        rate_change=rate_change,
    )
    limit = parse_amount(credit_limit, field="credit_limit")
    money = None if top_up is None else parse_amount(top_up, field="top_up")

    run(lambda database: _create(database, party, currency, limit, money))
    purse = "" if currency is None else f", wallet in {currency} with {plain(money or ZERO)}"
    console().print(f"{kind} {code} created{purse}")


def _money(text: str | None, field: str) -> Decimal | None:
    return None if text is None else parse_amount(text, field=field)


async def _create(
    database: Database, party: Party, currency: str | None, limit: Decimal, money: Decimal | None
) -> None:
    # One transaction: a wrong currency must not leave a party without its wallet behind.
    async with database.write() as connection:
        await parties.create_party_within(connection, party, actor=actor())
        if currency is None:
            return
        await wallets.create_wallet_within(
            connection, party=party.code, currency=currency, credit_limit=limit, actor=actor()
        )
        if money is not None and money != ZERO:
            await wallets.top_up_within(
                connection,
                party=party.code,
                currency=currency,
                amount=money,
                reason="first top-up",
                actor=actor(),
                clock=lambda: datetime.now(UTC),
            )


@party_app.command(name="list")
def list_parties(
    *,
    parent: str | None = None,
    subtree: str | None = None,
    after: str = "",
    limit: int = 1000,
) -> None:
    """List parties in the order of their codes.

    Args:
        parent: Only those directly below this one.
        subtree: Only this one and all below it.
        after: Begin after this code.
        limit: How many at most.
    """
    found = run(
        lambda database: parties.list_parties(
            database, Page(after, limit), parent=parent, subtree=subtree
        )
    )
    columns = ["code", "name", "kind", "parent", "plan", "status", "sessions>", "cps>", "seconds>"]
    rows = [
        (
            p.code,
            p.name,
            p.kind,
            p.parent,
            p.plan,
            p.status,
            p.max_sessions,
            p.max_cps,
            p.max_seconds,
        )
        for p in found
    ]
    console().print(table(f"{len(found)} parties", columns, rows))


@party_app.command(name="set")
def change(
    code: str,
    *,
    name: str | None = None,
    plan: str | None = None,
    status: Status | None = None,
    billing: Billing | None = None,
    kill_on_suspend: bool | None = None,
    timezone: str | None = None,
    max_sessions: int | None = None,
    max_cps: int | None = None,
    max_cost: str | None = None,
    max_seconds: int | None = None,
    dialling: Dialling = NO_DIALLING,
    overcommit: str | None = None,
    low_balance: str | None = None,
    low_sessions: int | None = None,
    rate_change: RateChange | None = None,
    unlimited: Annotated[list[Bound] | None, Parameter(negative=())] = None,
) -> None:
    """Change a party; what is not named stays as it is.

    Args:
        code: The party.
        name: Its name for people.
        plan: Code of the rate plan it is sold by.
        status: A suspended party makes no calls; of a frozen one calls are ended, and money only
            comes in.
        billing: Whether it pays before (no limit counts) or after; calls may be up.
        kill_on_suspend: Whether calls that are up end too when it is suspended.
        timezone: Such as Europe/London.
        max_sessions: Calls at once.
        max_cps: Calls begun in one second.
        max_cost: Money that one call may cost.
        max_seconds: Seconds that one call may last.
        dialling: How it writes numbers.
        overcommit: What all its children may have available together, as a share of what it has
            itself, such as 1.5; "none" is not looked at.
        low_balance: While less money than this is available, it may have fewer calls at once ...
        low_sessions: ... namely so many.
        rate_change: What its calls that are up do when their price changes: keep it, or go on at the new.
        unlimited: A limit to take away; may be given several times.
    """
    changes = given(
        name=name,
        plan=plan,
        status=status,
        billing=billing,
        kill_on_suspend=kill_on_suspend,
        timezone=timezone,
        max_sessions=max_sessions,
        max_cps=max_cps,
        max_cost=_money(max_cost, "max_cost"),
        max_seconds=max_seconds,
        **asdict(dialling),
        low_balance=_money(low_balance, "low_balance"),
        low_sessions=low_sessions,
        rate_change=rate_change,
        overcommit=overcommit,
        unlimited=unlimited,
    )
    changes |= _bounds(unlimited or [], overcommit)
    party = run(lambda database: _change(database, code, changes))
    console().print(f"{party.code} is {party.status}, plan {party.plan or 'none'}")


def _bounds(unlimited: list[Bound], overcommit: str | None) -> dict[str, object]:
    """The limits to take away, and the share that children may have."""
    changes: dict[str, object] = dict.fromkeys(unlimited)
    if overcommit is not None:
        changes["overcommit"] = None if overcommit == "none" else _money(overcommit, "overcommit")
    return changes


async def _change(database: Database, code: str, changes: dict[str, object]) -> Party:
    changes.pop("unlimited", None)
    dialled = {key: changes.pop(key) for key in DIAL_FIELDS if key in changes}
    if dialled:
        before = await parties.get_party(database, code)
        # The values are checked where the party is changed.
        changes["dial_rules"] = replace(before.dial_rules, **dialled)  # type: ignore[arg-type]
    return await parties.change_party(database, code, changes, actor=actor())


@party_app.command
def move(
    code: str,
    *,
    parent: str | None = None,
    top: bool = False,
    reason: str,
    plan: str | None = None,
) -> None:
    """Put a party, and all below it, under another parent; calls that are up keep their legs.

    Args:
        code: The party.
        parent: The operator, reseller or customer that it shall stand below.
        top: Below nobody, in place of a parent.
        reason: Why, for its history.
        plan: Code of the plan that it is sold by there; left out, it keeps its plan.
    """
    if (parent is None) != top:
        raise InvalidInput("say either --parent or --top", field="parent")
    party = run(
        lambda database: tree.move_party(
            database, code, parent=parent, plan=plan, reason=reason, actor=actor()
        )
    )
    console().print(f"{party.code} stands below {party.parent or 'nobody'} now")


@party_app.command
def moves(code: str, *, after: int = 0, limit: int = 1000) -> None:
    """Show where a party stood, and since when.

    Args:
        code: The party.
        after: Begin after this number.
        limit: How many at most.
    """
    found = run(lambda database: tree.list_moves(database, code, after=after, limit=limit))
    rows = [
        (place.id, f"{place.at:%Y-%m-%d %H:%M}", place.parent, place.reason, place.actor)
        for place in found
    ]
    columns = ["number>", "since", "below", "reason", "by"]
    console().print(table(f"places of {code}", columns, rows))


@plan_app.command(name="create")
def create_plan(
    code: str,
    *,
    name: str | None = None,
    card: Annotated[list[str] | None, Parameter(negative=())] = None,
) -> None:
    """Create a rate plan.

    Args:
        code: Its short name.
        name: Its name for people; the code if left out.
        card: A rate card of it, as CODE or CODE:KIND (customer, promotion, plan, fallback), and after
            that conditions under which it counts, such as "night:plan:profile=night" or
            "eea:plan:origins=eea,33;cli=cli"; several in the order in which they win among equally long
            prefixes.
    """
    cards = [_plan_card(text) for text in card or []]
    plan = run(
        lambda database: parties.create_plan(
            database, code=code, name=name or code, cards=cards, actor=actor()
        )
    )
    console().print(f"plan {plan.code} created with {_cards(plan) or 'no cards yet'}")


@plan_app.command(name="list")
def list_plans(*, after: str = "", limit: int = 1000) -> None:
    """List plans with their cards.

    Args:
        after: Begin after this code.
        limit: How many at most.
    """
    found = run(lambda database: parties.list_plans(database, Page(after, limit)))
    rows = [(plan.code, plan.name, _cards(plan)) for plan in found]
    console().print(table(f"{len(found)} plans", ["code", "name", "cards"], rows))


@plan_app.command(name="set")
def set_plan(
    code: str, *, card: Annotated[list[str], Parameter(negative=())], name: str | None = None
) -> None:
    """Make these the cards of a plan, in this order.

    Args:
        code: The plan.
        card: A rate card of it, as CODE, CODE:KIND or CODE:KIND:CONDITIONS; may be given several times.
        name: Another name for people.
    """
    cards = [_plan_card(text) for text in card]
    plan = run(
        lambda database: parties.set_plan_cards(database, code, cards, name=name, actor=actor())
    )
    console().print(f"plan {plan.code} is sold by {_cards(plan)}")


def _plan_card(text: str) -> PlanCard:
    code, _, rest = text.partition(":")
    kind, _, conditions = rest.partition(":")
    return PlanCard(code, kind or "plan", _when(conditions))


def _when(text: str) -> CardTerms:
    """Conditions as ``origins=eea,33;cli=cli``."""
    found: dict[str, object] = {}
    for part in text.split(";") if text else ():
        name, mark, value = part.strip().partition("=")
        if not mark or name not in CardTerms.__struct_fields__:
            raise InvalidInput(
                f'card: "{part[:40]}" is no condition; give {", ".join(CardTerms.__struct_fields__)}, '
                "such as origins=eea,33",
                field="card",
            )
        listed = name in {"origins", "not_origins"}
        found[name] = tuple(filter(None, value.split(","))) if listed else value
    return msgspec.convert(found, CardTerms)


def _cards(plan: Plan) -> str:
    return ", ".join(_said(card) for card in plan.cards)


def _said(card: PlanCard) -> str:
    """A card in a plan as it was given."""
    conditions = [
        f"{name}={value if isinstance(value, str) else ','.join(value)}"
        for name, value in msgspec.to_builtins(card.when).items()
    ]
    when = f" when {'; '.join(conditions)}" if conditions else ""
    return f"{card.card} ({card.kind}){when}"
