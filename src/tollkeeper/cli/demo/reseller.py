"""The reseller of the demonstration: its prices, what its customers buy beside calls, its margin."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
from rich.console import Console

from tollkeeper.cli.common import table
from tollkeeper.core.money import ZERO, plain
from tollkeeper.core.records import Ending
from tollkeeper.errors import NotFound
from tollkeeper.gateways.supplier_settings import NULL_URL
from tollkeeper.services import parties, plan_terms, rate_cards, rates, suppliers
from tollkeeper.services.did_inventory import load_inventory
from tollkeeper.services.explain import Explanation, explain
from tollkeeper.services.parties import PlanCard
from tollkeeper.store.commissions import read_charged
from tollkeeper.store.db import Database
from tollkeeper.store.parties import read_party
from tollkeeper.store.plans import PlanTerms, StepTerms, TierTerms
from tollkeeper.store.suppliers import Supplier

ACTOR = "demo"
CURRENCY = "USD"
RESELLER, TALKER, TEXTER = "northgate", "quayside", "larkspur"
BUYS, SELLS, SELLS_VOLUME = "wholesale", "ng-retail", "ng-volume"
VOICE = "NG-WORLD"
MARKUP = Decimal(25)
STEP_PERCENTS = (100, 95, 90, 85)
ANSWERED_SHARE, TALK_SECONDS = 62, 95
"""Of a hundred calls, and how long they last on average."""
ATTEMPTS, RETRY_SECONDS, BUSY = 8, 0.25, 503
STEP_SHARE = 15
"""A step for each so many hundredths of what is talked."""

PRICES = {
    "sms": ("0.0300", "0.0450"),
    "lookup": ("0.0060", "0.0100"),
    "did": ("1.5000", "2.5000"),
    "did_setup": ("1.0000", "2.0000"),
}
"""What the reseller buys and sells one at."""

NUMBERS = ("442045770101", "442045770102")
PATIENT = "447700900123"
TEXTS = (
    "Your appointment is tomorrow at 10:30.",
    "Larkspur Clinic: please bring your doctor's letter, a list of your medicines and your card. "
    * 2,
    "Дякуємо! Ваш запис підтверджено на вівторок, 10:30. Якщо ви не можете прийти, дайте нам знати.",
    "We miss you \U0001f600",
)
MESSAGES = 12
UNDELIVERED = 1
"""Which of them does not arrive: a long one."""


# --- the scene -----------------------------------------------------------------------------------


def volume_steps(*, share: float, seconds: int, calls_per_second: int) -> list[tuple[int, int]]:
    """From which minute on which percent of the price is due; a customer with this share of calls reaches all."""
    talked = Decimal(round(share * 100)) * calls_per_second * seconds * ANSWERED_SHARE
    each = max(1, int(talked * TALK_SECONDS / 60 / 10_000 * STEP_SHARE / 100))
    return [(number * each, percent) for number, percent in enumerate(STEP_PERCENTS)]


async def set_prices(
    database: Database, *, deck: str, volume: Iterable[tuple[int, int]], now: Callable[[], datetime]
) -> None:
    """Cards, plans, a supplier of lookups that only pretends, and two numbers to be ordered."""
    await rate_cards.create_card(
        database,
        code=VOICE,
        currency=CURRENCY,
        cost_plus=rate_cards.CostPlus(deck, percent=MARKUP),
        actor=ACTOR,
    )
    bought, sold = [PlanCard(deck)], [PlanCard(VOICE)]
    for service, (cost, price) in PRICES.items():
        bought.append(PlanCard(await _card(database, service, "BUY", cost, now)))
        sold.append(PlanCard(await _card(database, service, "SELL", price, now)))
    for code, name, cards in (
        (BUYS, "Wholesale", bought),
        (SELLS, "Northgate retail", sold),
        (SELLS_VOLUME, "Northgate volume", sold),
    ):
        await parties.create_plan(database, code=code, name=name, cards=cards, actor=ACTOR)
    steps = tuple(StepTerms(start, percent=Decimal(percent)) for start, percent in volume)
    terms = PlanTerms(tiers=(TierTerms("volume", steps, period="month"),))
    await plan_terms.set_terms(database, SELLS_VOLUME, terms, actor=ACTOR)
    settings = {"lookup": {"kinds": ["hlr"], "charge_cached": "no"}}
    await suppliers.create_supplier(
        database, Supplier("hlr", "lookup", NULL_URL, settings=settings), actor=ACTOR
    )
    stock = "number,country\n" + "".join(f"{number},GB\n" for number in NUMBERS)
    await load_inventory(database, stock.encode(), now=now(), actor=ACTOR, file_name="numbers.csv")


async def _card(
    database: Database, service: str, side: str, price: str, now: Callable[[], datetime]
) -> str:
    code = f"{service.replace('_', '-').upper()}-{side}"
    await rates.create_card(database, code=code, currency=CURRENCY, service=service, actor=ACTOR)
    lines = "".join(f"Anywhere,{digit},{price},1/1\n" for digit in range(1, 10))
    report = await rates.import_sheet(
        database,
        card=code,
        data=f"Destination,Prefix,Rate,Billing Increment\n{lines}".encode(),
        actor=ACTOR,
        now=now(),
        file_name=f"{code.lower()}.csv",
    )
    assert report.version is not None
    await rates.activate(database, card=code, version=report.version, actor=ACTOR, now=now())
    return code


# --- beside calls --------------------------------------------------------------------------------


async def sell_services(http: httpx.AsyncClient, tell: Callable[[str], None]) -> None:
    """Messages, one of which is not delivered, a lookup asked twice, a number ordered."""
    sent = [await _send(http, number) for number in range(MESSAGES)]
    segments = sum(answer["units"] for answer in sent)
    total = sum((Decimal(answer["charge"]) for answer in sent), ZERO)
    tell(
        f"{TEXTER} sends {len(sent)} messages of {segments} segments for {plain(total)} {CURRENCY}"
    )
    lost = sent[UNDELIVERED]
    back = await _post(http, f"/v1/events/{lost['event_id']}/refund", {"reason": "undelivered"})
    refunded = Decimal(lost["charge"]) - Decimal(back["charge"])
    tell(
        f"{lost['event_id']} of {lost['units']} segments is not delivered: "
        f"{plain(refunded)} {back['currency']} {back['outcome']}"
    )
    for number in (1, 2):
        body = {"request_id": f"hlr-{number}", "party": TEXTER, "number": PATIENT}
        found = await _post(http, "/v1/lookups", body)
        where = "from the cache" if found["cached"] else "by the supplier"
        charge = f"{found['charge']} {found['currency']}" if found["charge"] else "free"
        network = found["answer"].get("mcc_mnc", "")
        tell(
            f"lookup of {found['number']}: {found['outcome']} {where}, network {network}, {charge}"
        )
    stock = await _get(http, "/v1/dids?status=available&limit=1")
    wanted = stock["items"][0]["number"]
    order = {"request_id": "desk", "party": TEXTER, "number": wanted}
    made = await _post(http, "/v1/did-orders", order)
    fee = await _get(http, f"/v1/fees/{made['fee_id']}")
    tell(
        f"{TEXTER} orders the number {made['number']}: {made['status']}, set-up {made['charge']} "
        f"{made['currency']}, the month paid until {fee['paid_until']}"
    )


async def _send(http: httpx.AsyncClient, number: int) -> dict[str, Any]:
    body = {
        "event_id": f"message-{number + 1}",
        "party": TEXTER,
        "called": PATIENT,
        "text": TEXTS[number % len(TEXTS)],
    }
    return await _post(http, "/v1/events", body)


async def _post(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Ask until there is an answer: each request has a name, so nothing is done twice."""
    for _ in range(ATTEMPTS - 1):
        with suppress(httpx.TransportError):
            answer = await http.post(path, json=body)
            if answer.status_code != BUSY:
                break
        await asyncio.sleep(RETRY_SECONDS)
    else:
        answer = await http.post(path, json=body)
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


async def _get(http: httpx.AsyncClient, path: str) -> dict[str, Any]:
    found: dict[str, Any] = (await http.get(path)).raise_for_status().json()
    return found


# --- the end -------------------------------------------------------------------------------------


async def find_crossing(database: Database, names: Iterable[str]) -> Explanation | None:
    """Find a call of these sessions within which a volume reached its next step; best a usual one."""
    first: Explanation | None = None
    for name in names:
        try:
            found = await explain(database, name)
        except NotFound:
            continue  # the switch did not come to send it
        if any(part.crossed is not None for leg in found.legs for part in leg.parts):
            if found.session.ending is Ending.SETTLED and not found.session.marks:
                return found
            first = first or found
    return first


async def print_margin(out: Console, database: Database) -> None:
    """What the reseller's customers paid, what it paid itself, and what is left, by service."""
    # By the demonstration's clock the day may have changed in the meantime.
    today = datetime.now(UTC).date()
    async with database.read() as connection:
        party = await read_party(connection, RESELLER)
        assert party is not None
        charged = await read_charged(
            connection, party.id, today - timedelta(days=1), today + timedelta(days=60)
        )
    sums: dict[str, dict[bool, Decimal]] = {}
    for one in charged:
        sums.setdefault(one.service, {True: ZERO, False: ZERO})[one.own] += one.amount
    sums["all"] = {own: sum((each[own] for each in sums.values()), ZERO) for own in (False, True)}
    rows = [
        (
            service,
            plain(each[False]),
            plain(each[True]),
            plain(each[False] - each[True]),
            f"{100 * (each[False] - each[True]) / each[False]:.1f} %" if each[False] else "",
        )
        for service, each in sums.items()
    ]
    columns = ("service", "its customers paid>", "it paid>", "margin>", ">")
    out.print(table("", columns, rows))
