"""Rate cards themselves: create, show, list; of those that are made of another one's prices, too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from tollkeeper.core.money import LIMIT, SCALE, ZERO, Rounding, parse_currency
from tollkeeper.core.rating import PERS
from tollkeeper.core.records import Unit
from tollkeeper.core.services import service_of
from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services.fields import (
    check_amount,
    check_choice,
    check_code,
    check_integer,
    check_text,
)
from tollkeeper.services.plan_book import default_per
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.rates import RateCard, add_card, read_card, read_cards

__all__ = ["CostPlus", "RateCard", "create_card", "find_card", "get_card", "list_cards", "page_of"]

PAGE_MAX = 10_000
"""Items of one list at most, whatever was asked for."""

SIDES = ("sell", "buy")
KEYS = ("called", "network")
ROUNDINGS = tuple(mode.value for mode in Rounding)
SERVICE_PATTERN = r"^[a-z][a-z0-9_]{0,31}$"
PERCENT_MAX = Decimal(100_000)
PERCENT_ULP = Decimal("0.000001")
_SERVICE = re.compile(SERVICE_PATTERN[1:-1])


@dataclass(frozen=True, slots=True)
class CostPlus:
    """A card whose prices are those of ``cost_card``: ``percent`` and ``markup`` more, within bounds.

    ``markup``, ``floor`` and ``ceiling`` are per the card's ``per``.
    """

    cost_card: str
    percent: Decimal = ZERO
    markup: Decimal = ZERO
    floor: Decimal | None = None
    ceiling: Decimal | None = None


async def create_card(
    database: Database,
    *,
    code: str,
    currency: str,
    actor: str,
    name: str = "",
    side: str = "sell",
    service: str = "voice",
    decimals: int | None = None,
    rounding: str | None = None,
    per: int | None = None,
    key: str | None = None,
    cost_plus: CostPlus | None = None,
    scope: int | None = None,
) -> RateCard:
    """Create a rate card without prices; an import brings them.

    A cost-plus card never has rows of its own; it takes ``per``, ``key``, ``decimals`` and
    ``rounding`` from its cost card. With a ``scope`` the card belongs to that party.

    Raises:
        InvalidInput: naming the field. Conflict: the code is taken.
    """
    card = RateCard(
        code=code,
        name=name or code,
        currency=parse_currency(currency),
        side=side,
        service=service,
        decimals=6 if decimals is None else decimals,
        rounding="half_up" if rounding is None else rounding,
        per=60 if per is None else per,
        key="called" if key is None else key,
        owner_id=scope,
    )
    _check_card(card)
    async with database.write(scope=scope) as connection:
        cost_card_id = None
        if cost_plus is None:
            card = replace(card, per=default_per(service) if per is None else per)
            _check_per(card)
        else:
            cost = await _cost_card(connection, card, cost_plus, scope)
            cost_card_id = cost.id
            own = {"per": per, "key": key, "decimals": decimals, "rounding": rounding}
            card = _raised(card, cost, cost_plus, own)
        card_id = await add_card(connection, card, cost_card_id=cost_card_id)
        if card_id is None:
            raise Conflict(
                f'there is a rate card "{code}" already', code="card_exists", field="code"
            )
        await record(
            connection,
            actor=actor,
            action="card.create",
            subject=f"card {code}",
            detail=_shown(card, cost_plus),
            notice=f"card:{card_id}",
        )
        return await find_card(connection, code)


def _shown(card: RateCard, cost_plus: CostPlus | None) -> dict[str, object]:
    """A new card for the audit trail."""
    shown: dict[str, object] = {
        "currency": card.currency,
        "side": card.side,
        "service": card.service,
        "per": card.per,
        "key": card.key,
    }
    if cost_plus is not None:
        shown |= {
            "cost_card": cost_plus.cost_card,
            "markup_percent": str(cost_plus.percent),
            "markup": str(cost_plus.markup),
            "floor": None if cost_plus.floor is None else str(cost_plus.floor),
            "ceiling": None if cost_plus.ceiling is None else str(cost_plus.ceiling),
        }
    return shown


def _check_card(card: RateCard) -> None:
    check_code(card.code)
    check_text(card.name, field="name")
    check_choice(card.side, SIDES, field="side")
    check_choice(card.key, KEYS, field="key")
    if _SERVICE.fullmatch(card.service) is None:
        raise InvalidInput('service: a word such as "voice" or "sms"', field="service")
    check_integer(card.decimals, field="decimals", most=SCALE)
    check_choice(card.rounding, ROUNDINGS, field="rounding")


def _check_per(card: RateCard) -> None:
    """Time is priced by the minute; everything else by a round number of units."""
    if service_of(card.service).unit is Unit.SECOND:
        if card.per != 60:
            raise InvalidInput(
                f"per: prices of {card.service} are per minute, that is per 60 seconds; "
                "sheets with prices per second are converted",
                field="per",
            )
    elif card.per == 60 or card.per not in PERS:
        raise InvalidInput(
            "per: how many units a price is for is a power of 10 or of 2, such as 1, 1000000 or 1048576",
            field="per",
        )


async def _cost_card(
    connection: Connection, card: RateCard, wanted: CostPlus, scope: int | None
) -> RateCard:
    """The card whose prices a cost-plus card raises; checked to fit."""
    cost = await read_card(connection, check_code(wanted.cost_card, field="cost_card"), lock=True)
    if cost is None or (scope is not None and cost.owner_id != scope):
        raise InvalidInput(
            f'cost_card: there is no rate card "{wanted.cost_card}"',
            code="unknown_card",
            field="cost_card",
        )
    if cost.cost_card is not None:
        raise InvalidInput(
            f"cost_card: {cost.code} is a cost-plus card itself; name the card that has the prices, "
            f"{cost.cost_card}",
            code="cost_of_cost",
            field="cost_card",
        )
    if cost.currency != card.currency:
        raise InvalidInput(
            f"currency: the cost card {cost.code} is in {cost.currency}, and a cost-plus card has "
            "the currency of its cost card",
            code="wrong_currency",
            field="currency",
        )
    if cost.service != card.service:
        raise InvalidInput(
            f"service: the cost card {cost.code} prices {cost.service}, not {card.service}",
            code="wrong_service",
            field="service",
        )
    return cost


def _raised(
    card: RateCard, cost: RateCard, wanted: CostPlus, own: Mapping[str, object]
) -> RateCard:
    """A cost-plus card, with what it takes from its cost card."""
    for name, value in own.items():
        taken = getattr(cost, name)
        if value is not None and value != taken:
            raise InvalidInput(
                f"{name}: a cost-plus card takes this from its cost card, where it is {taken}; leave it out",
                field=name,
            )
    percent, markup = wanted.percent, wanted.markup
    if (
        not percent.is_finite()
        or not -100 <= percent <= PERCENT_MAX
        or percent != percent.quantize(PERCENT_ULP)
    ):
        raise InvalidInput(
            "markup_percent: it must be from -100 to 100000, with at most 6 decimals",
            field="markup_percent",
        )
    if not markup.is_finite() or abs(markup) >= LIMIT or markup != round(markup, SCALE):
        raise InvalidInput("markup: an amount below 10^15 with at most 8 decimals", field="markup")
    for name, bound in (("floor", wanted.floor), ("ceiling", wanted.ceiling)):
        if bound is not None:
            check_amount(bound, field=name, zero=True)
    if wanted.floor is not None and wanted.ceiling is not None and wanted.floor > wanted.ceiling:
        raise InvalidInput("floor: it must not be above the ceiling", field="floor")
    return replace(
        card,
        per=cost.per,
        key=cost.key,
        decimals=cost.decimals,
        rounding=cost.rounding,
        cost_card=cost.code,
        markup_percent=percent,
        markup=markup,
        floor_price=wanted.floor,
        ceiling_price=wanted.ceiling,
    )


async def get_card(database: Database, code: str, *, scope: int | None = None) -> RateCard:
    """Return a card.

    Raises:
        NotFound: there is none of that code.
    """
    async with database.read(scope=scope) as connection:
        return await find_card(connection, code)


async def list_cards(
    database: Database, *, after: str = "", limit: int = 100, scope: int | None = None
) -> list[RateCard]:
    """List cards in the order of their codes, those after the code ``after``."""
    async with database.read(scope=scope) as connection:
        return await read_cards(connection, after=after, limit=page_of(limit))


async def find_card(connection: Connection, code: str, *, lock: bool = False) -> RateCard:
    """Return a card, in the caller's transaction; ``lock`` keeps other changes of it away.

    Raises:
        NotFound: there is none of that code.
    """
    card = await read_card(connection, code, lock=lock)
    if card is None:
        raise NotFound(f'there is no rate card "{code}"', code="unknown_card", field="card")
    return card


def page_of(limit: int) -> int:
    """A length of a list that can be served."""
    return max(1, min(limit, PAGE_MAX))
