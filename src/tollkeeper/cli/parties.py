"""The commands ``party`` and ``plan``: who we do business with, and what they are sold by."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Literal

from cyclopts import App, Parameter

from tollkeeper.cli.common import actor, console, given, run, table
from tollkeeper.core.money import ZERO, parse_amount, plain
from tollkeeper.services import parties, wallets
from tollkeeper.services.parties import Page, Party, Plan, PlanCard
from tollkeeper.store.db import Database

Kind = Literal["operator", "reseller", "customer", "vendor"]
Status = Literal["active", "suspended"]

party_app = App(name="party", help="Customers, resellers, vendors: create, list, change.")
plan_app = App(name="plan", help="Rate plans: which rate cards a customer is sold by.")


@party_app.command
def create(
    code: str,
    *,
    name: str | None = None,
    kind: Kind = "customer",
    parent: str | None = None,
    plan: str | None = None,
    currency: str | None = None,
    credit_limit: str = "0",
    top_up: str | None = None,
    max_sessions: int | None = None,
    max_cps: int | None = None,
    max_cost: str | None = None,
    max_seconds: int = 14_400,
) -> None:
    """Create a party, and with --currency a wallet for it.

    Args:
        code: Its short name, used everywhere.
        name: Its name for people; the code if left out.
        kind: What it is to us.
        parent: Code of the operator or reseller above it.
        plan: Code of the rate plan it is sold by.
        currency: Currency of its first wallet, such as USD.
        credit_limit: How far that wallet may go below zero; 0 is prepaid.
        top_up: Money to put into that wallet at once.
        max_sessions: Calls at once.
        max_cps: Calls begun in one second.
        max_cost: Money that one call may cost.
        max_seconds: Seconds that one call may last.
    """
    party = Party(
        code=code,
        name=name or code,
        kind=kind,
        parent=parent,
        plan=plan,
        max_sessions=max_sessions,
        max_cps=max_cps,
        max_cost=None if max_cost is None else parse_amount(max_cost, field="max_cost"),
        max_seconds=max_seconds,
    )
    limit = parse_amount(credit_limit, field="credit_limit")
    money = None if top_up is None else parse_amount(top_up, field="top_up")

    async def work(database: Database) -> None:
        # One transaction: a wrong currency must not leave a party without its wallet behind.
        async with database.write() as connection:
            await parties.create_party_within(connection, party, actor=actor())
            if currency is None:
                return
            await wallets.create_wallet_within(
                connection, party=code, currency=currency, credit_limit=limit, actor=actor()
            )
            if money is not None and money != ZERO:
                await wallets.top_up_within(
                    connection,
                    party=code,
                    currency=currency,
                    amount=money,
                    reason="first top-up",
                    actor=actor(),
                    clock=lambda: datetime.now(UTC),
                )

    run(work)
    purse = "" if currency is None else f", wallet in {currency} with {plain(money or ZERO)}"
    console().print(f"{kind} {code} created{purse}")


@party_app.command(name="list")
def list_parties(*, after: str = "", limit: int = 1000) -> None:
    """List parties in the order of their codes.

    Args:
        after: Begin after this code.
        limit: How many at most.
    """
    found = run(lambda database: parties.list_parties(database, Page(after, limit)))
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
    kill_on_suspend: bool | None = None,
    timezone: str | None = None,
    max_sessions: int | None = None,
    max_cps: int | None = None,
    max_cost: str | None = None,
    max_seconds: int | None = None,
    tech_prefix: str | None = None,
    tech_prefix_required: bool | None = None,
    national: str | None = None,
    country_code: str | None = None,
    unlimited: Annotated[
        list[Literal["max_sessions", "max_cps", "max_cost"]] | None, Parameter(negative=())
    ] = None,
) -> None:
    """Change a party; what is not named stays as it is.

    Args:
        code: The party.
        name: Its name for people.
        plan: Code of the rate plan it is sold by.
        status: A suspended party makes no calls.
        kill_on_suspend: Whether calls that are up end too when it is suspended.
        timezone: Such as Europe/London.
        max_sessions: Calls at once.
        max_cps: Calls begun in one second.
        max_cost: Money that one call may cost.
        max_seconds: Seconds that one call may last.
        tech_prefix: Digits before each number it sends.
        tech_prefix_required: Whether numbers without them are refused.
        national: Digits that mark a national number, such as 0.
        country_code: Country of its national numbers.
        unlimited: A limit to take away; may be given several times.
    """
    values: dict[str, object] = {
        "name": name,
        "plan": plan,
        "status": status,
        "kill_on_suspend": kill_on_suspend,
        "timezone": timezone,
        "max_sessions": max_sessions,
        "max_cps": max_cps,
        "max_cost": None if max_cost is None else parse_amount(max_cost, field="max_cost"),
        "max_seconds": max_seconds,
    }
    dial: dict[str, object] = {
        "tech_prefix": tech_prefix,
        "tech_prefix_required": tech_prefix_required,
        "national": national,
        "country_code": country_code,
    }
    changes: dict[str, object] = given(**values, **dial, unlimited=unlimited)
    changes.pop("unlimited", None)
    changes |= dict.fromkeys(unlimited or [])
    dialled = {key: changes.pop(key) for key in dial if key in changes}

    async def work(database: Database) -> Party:
        if dialled:
            before = await parties.get_party(database, code)
            # The values are checked where the party is changed.
            changes["dial_rules"] = replace(before.dial_rules, **dialled)  # type: ignore[arg-type]
        return await parties.change_party(database, code, changes, actor=actor())

    party = run(work)
    console().print(f"{party.code} is {party.status}, plan {party.plan or 'none'}")


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
        card: A rate card of it, as CODE or CODE:KIND (customer, promotion, plan, fallback); several in
            the order in which they win among equally long prefixes.
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
        card: A rate card of it, as CODE or CODE:KIND; may be given several times.
        name: Another name for people.
    """
    cards = [_plan_card(text) for text in card]
    plan = run(
        lambda database: parties.set_plan_cards(database, code, cards, name=name, actor=actor())
    )
    console().print(f"plan {plan.code} is sold by {_cards(plan)}")


def _plan_card(text: str) -> PlanCard:
    code, _, kind = text.partition(":")
    return PlanCard(code, kind or "plan")


def _cards(plan: Plan) -> str:
    return ", ".join(f"{card.card} ({card.kind})" for card in plan.cards)
