"""A small world of prices: a card, a plan, a question, and what it costs."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from tollkeeper.core.plans import (
    Exchange,
    Plan,
    PlanCard,
    Priced,
    Profile,
    Promotion,
    Question,
    Window,
    price_question,
)
from tollkeeper.core.rating import Tariff, price
from tollkeeper.core.reasons import Reason
from tollkeeper.core.tariff import Card, PrefixTable, RateRow

D = Decimal
LONDON = ZoneInfo("Europe/London")
NEW_YORK = ZoneInfo("America/New_York")
MARCH = datetime(2026, 3, 10, 12, tzinfo=UTC)
"""A Tuesday."""

PLACES = {"212555": "NY", "716200": "NY", "201200": "NJ", "973300": "NJ"}


def no_exchange(_base: str, _quote: str) -> None:
    """An exchange that knows no rate."""


def z(text: str) -> datetime:
    """A UTC moment."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def flat(amount: str, connect: str = "0", **more: object) -> Tariff:
    """By the second, per minute unless said otherwise."""
    return Tariff(D(amount), D(amount), 1, 1, D(connect), **more)  # type: ignore[arg-type]


def card(number: int, code: str, currency: str = "USD", **rows: Tariff) -> Card:
    """A card; its rows are given as p44=..., p447=..."""
    table = PrefixTable(RateRow(key[1:], f"to {key[1:]}", one) for key, one in rows.items())
    return Card(number, code, 1, currency, table)


AZ_ROWS = {
    "p44": flat("0.010"),
    "p447": flat("0.030", "0.05"),
    "p49": flat("0.012"),
    "p1": flat("0.006"),
}
AZ = Card(
    1, "az", 1, "USD",
    PrefixTable([
        *(RateRow(key[1:], f"to {key[1:]}", one) for key, one in AZ_ROWS.items()),
        RateRow("882", "satellite", flat("9"), blocked=True),
    ]),
)  # fmt: skip

UK, UK_MOBILE, GERMANY, USA = "442071838750", "447700900123", "4930901820", "12125550100"


def plan(*cards: PlanCard, **more: object) -> Plan:
    return Plan(7, "retail", "voice", cards or (PlanCard(AZ, "plan"),), **more)  # type: ignore[arg-type]


def ask(
    one: Plan,
    called: str = UK,
    at: datetime = MARCH,
    *,
    caller: str = "",
    network: str = "",
    lrn: str = "",
    party: int = 5,
    wallets: dict[str, int] | None = None,
    exchange: Exchange = no_exchange,
    until: datetime | None = None,
) -> Priced | Reason:
    return price_question(
        one,
        Question("voice", called, caller, network, lrn),
        at,
        party_id=party,
        wallets={"USD": 1} if wallets is None else wallets,
        exchange=exchange,
        places=PLACES,
        split=until is not None,
        until=until,
    )


def cost(answer: Priced | Reason, seconds: int = 90) -> Decimal:
    assert isinstance(answer, Priced), answer
    return price(answer.pin.tariff, seconds)


WEEKDAYS = frozenset(range(5))
ALL_DAYS = frozenset(range(7))
OFFICE = Profile("office", LONDON, (Window(WEEKDAYS, 480, 1080),))
"""Monday to Friday 8:00 to 18:00 in London."""

MORE = Promotion("more", D(50), ("44",))
