"""The scene of the demonstration: an operator, its customers with their plans, the rate cards, a key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from tollkeeper.cli.demo.deck import DeckRow, change_sheet, sheet
from tollkeeper.cli.demo.reseller import BUYS, RESELLER, SELLS, SELLS_VOLUME, TALKER, TEXTER
from tollkeeper.core.money import ZERO
from tollkeeper.services import keys, parties, rates, wallets
from tollkeeper.services.parties import Party, PlanCard
from tollkeeper.services.rate_import import Say
from tollkeeper.services.rates import ImportReport
from tollkeeper.store.db import Database

ACTOR = "demo"
CURRENCY = "USD"
OPERATOR = "operator"
SWITCH = "lab-switch"
DECK, PROMOTION, FLAT = "WORLD", "EURO-PROMO", "FLAT"
PROMOTED = ("DE", "FR", "GB", "ES", "IT", "NL")
FLAT_RATE = Decimal("0.0600")
"""By the second: a tenth of a cent each, so that any wallet can be used up to the last digit."""
TALKER_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer of the scene; ``share`` is its part of all calls."""

    code: str
    name: str
    plan: str
    money: Decimal
    share: float
    story: str
    credit_limit: Decimal = ZERO
    max_sessions: int | None = None
    kill_on_suspend: bool = False
    kind: str = "customer"
    parent: str = OPERATOR


def customers(*, seconds: int, calls_per_second: int) -> list[Customer]:
    """The customers; the draining wallet is filled so that it lasts about half of the run."""
    drain_share = 0.14
    # 62 of 100 calls are answered and last 95 seconds, at a tenth of a cent a second.
    spent_per_second = Decimal(round(drain_share * 62 * calls_per_second * 95)) / 100_000
    drained = max(Decimal("0.50"), round(spent_per_second * seconds * 45 / 100, 2))
    return [
        Customer("northwind", "Northwind Carrier", "gold", Decimal(25_000), 0.26, "prepaid, ample"),
        Customer("harbour", "Harbour VoIP", "flat", drained, drain_share, "prepaid, runs dry"),
        Customer(
            "meridian",
            "Meridian Telecom",
            "retail",
            ZERO,
            0.26,
            "postpaid, on credit",
            credit_limit=Decimal(20_000),
        ),
        Customer(
            "cedar",
            "Cedar Call Centre",
            "retail",
            Decimal(5_000),
            0.14,
            "prepaid, few channels",
            max_sessions=max(1, calls_per_second // 4),
        ),
        Customer(
            "mirage",
            "Mirage Tel",
            "gold",
            Decimal(5_000),
            0.12,
            "is suspended half-way",
            kill_on_suspend=True,
        ),
        # Whoever stands above others comes before them: so it is there when they are made.
        Customer(
            RESELLER, "Northgate Resale", BUYS, Decimal(25_000), 0, "reseller, prepaid", kind="reseller"
        ),
        Customer(
            TALKER, "Quayside Hotels", SELLS_VOLUME, Decimal(20_000), TALKER_SHARE,
            f"of {RESELLER}, volume price", parent=RESELLER,
        ),
        Customer(
            TEXTER, "Larkspur Clinic", SELLS, Decimal(500), 0.03,
            f"of {RESELLER}, SMS and more", parent=RESELLER,
        ),
    ]  # fmt: skip


def now() -> datetime:
    """The time now, in UTC; the scene is set before the fast clock starts."""
    return datetime.now(UTC)


async def import_cards(
    database: Database,
    deck: Sequence[DeckRow],
    *,
    say: Callable[[ImportReport], None],
    progress: Say,
) -> ImportReport:
    """Import and activate the three cards; returns the dry run of a change to the largest one."""
    promoted = [row for row in deck if row.region in PROMOTED and row.kind == "mobile"]
    cheaper = [_at(row, row.rate * Decimal("0.8")) for row in promoted]
    everywhere = [
        DeckRow(str(digit), "001", "", "Anywhere", "fixed", FLAT_RATE, "1/1")
        for digit in range(1, 10)
    ]
    sheets = {
        DECK: sheet(deck, blemishes=True),
        PROMOTION: sheet(cheaper),
        FLAT: sheet(everywhere),
    }
    for code, data in sheets.items():
        await rates.create_card(database, code=code, currency=CURRENCY, actor=ACTOR)
        report = await rates.import_sheet(
            database,
            card=code,
            data=data,
            actor=ACTOR,
            now=now(),
            file_name=f"{code.lower()}.csv",
            progress=progress,
        )
        assert report.version is not None
        await rates.activate(database, card=code, version=report.version, actor=ACTOR, now=now())
        say(report)
    return await rates.import_sheet(
        database,
        card=DECK,
        data=change_sheet(deck, now().date()),
        actor=ACTOR,
        now=now(),
        mode="partial",
        dry_run=True,
        file_name="world-changes.csv",
    )


def _at(row: DeckRow, rate: Decimal) -> DeckRow:
    exact = rate.quantize(Decimal("0.0001"))
    return DeckRow(
        row.prefix, row.region, row.country, row.destination, row.kind, exact, row.increments
    )


async def create_parties(database: Database, cast: Sequence[Customer]) -> str:
    """Create plans, operator, customers with wallets, and a key; returns its secret."""
    plans = {
        "gold": [PlanCard(DECK)],
        "retail": [PlanCard(PROMOTION, "promotion"), PlanCard(DECK)],
        "flat": [PlanCard(FLAT)],
    }
    for code, cards in plans.items():
        await parties.create_plan(
            database, code=code, name=code.capitalize(), cards=cards, actor=ACTOR
        )
    await parties.create_party(
        database, Party(OPERATOR, "Demo Operator", kind="operator"), actor=ACTOR
    )
    for customer in cast:
        await _create_customer(database, customer)
    made = await keys.create_key(
        database, name="simulated switch", scopes=["charge", "manage"], switch=SWITCH, actor=ACTOR
    )
    return made.secret


async def _create_customer(database: Database, customer: Customer) -> None:
    party = Party(
        customer.code,
        customer.name,
        kind=customer.kind,
        parent=customer.parent,
        plan=customer.plan,
        max_sessions=customer.max_sessions,
        kill_on_suspend=customer.kill_on_suspend,
    )
    async with database.write() as connection:
        await parties.create_party_within(connection, party, actor=ACTOR)
        await wallets.create_wallet_within(
            connection,
            party=customer.code,
            currency=CURRENCY,
            credit_limit=customer.credit_limit,
            actor=ACTOR,
        )
        if customer.money:
            await wallets.top_up_within(
                connection,
                party=customer.code,
                currency=CURRENCY,
                amount=customer.money,
                reason="first payment",
                actor=ACTOR,
                clock=now,
            )
