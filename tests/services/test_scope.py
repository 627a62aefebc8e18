"""What is left out within a row: legs of others, makings of a price, records of others and their costs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import pytest_asyncio

from tests.services.usage_rows import DAY, FIRST, NOW, Books
from tests.support import tariff
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import Leg, Outcome, Pin, Reply, Role, Session, State, Step
from tollkeeper.errors import InvalidInput
from tollkeeper.services.archive import ArchivePlace, archive_day
from tollkeeper.services.scope import payer_of, shown_reply, shown_session
from tollkeeper.services.usage_export import prepare
from tollkeeper.services.usage_search import UsageQuery, report, search
from tollkeeper.store.db import Database

CUSTOMER, RESELLER, TOP = 1, 2, 3
AT = datetime(2026, 3, 1, tzinfo=UTC)


def leg(role: Role, party: int) -> Leg:
    """A leg whose card has the party's number, with every kind of step."""
    steps = tuple(Step(kind, kind, "1") for kind in ("fx", "markup", "promotion", "surcharge"))
    pin = Pin(party, f"card-{party}", 7, 3, "44", "UK", "USD", tariff("0.6"), steps)
    return Leg(role, party, 10 * party, pin)


SESSION = Session(
    id="x", key="sw1/c1", party_id=CUSTOMER, service="voice", caller="", called="44", opened_at=AT,
    expires_at=AT, state=State.ACTIVE, slice_seconds=60, max_seconds=60,
    legs=(leg(Role.CUSTOMER, CUSTOMER), leg(Role.RESELLER, RESELLER), leg(Role.RESELLER, TOP)),
    reason=Reason.INSUFFICIENT_FUNDS, refused_by=TOP,
)  # fmt: skip


def test_only_legs_of_parties_that_are_seen_are_there() -> None:
    shown = shown_session(SESSION, {CUSTOMER, RESELLER}, {CUSTOMER, RESELLER})
    assert [one.party_id for one in shown.legs] == [CUSTOMER, RESELLER]
    assert shown.legs == SESSION.legs[:2]


def test_whoever_pays_by_anothers_card_learns_the_price_and_not_how_it_was_made() -> None:
    """The customer's card is the reseller's own: there it sees what it put on."""
    shown = shown_session(SESSION, {CUSTOMER, RESELLER}, {CUSTOMER})
    own, bought = (one.pin for one in shown.legs)
    assert [step.kind for step in own.steps] == ["fx", "markup", "promotion", "surcharge"]
    assert [step.kind for step in bought.steps] == ["fx", "promotion", "surcharge"]
    assert (bought.card, bought.card_id, bought.version, bought.row_id) == ("", 0, 0, 0)
    assert (bought.tariff, bought.prefix) == (SESSION.legs[1].pin.tariff, "44")


@pytest.mark.parametrize(
    ("visible", "reason", "by"),
    [
        ({CUSTOMER, RESELLER}, Reason.UPSTREAM, 0),
        ({CUSTOMER, RESELLER, TOP}, Reason.INSUFFICIENT_FUNDS, TOP),
    ],
)
def test_who_refused_is_told_to_those_who_see_that_party(
    visible: set[int], reason: Reason, by: int
) -> None:
    shown = shown_session(SESSION, visible)
    reply = Reply(Outcome.REFUSED, "x", reason=Reason.INSUFFICIENT_FUNDS, refused_by=TOP)
    for one in (shown, shown_reply(reply, visible)):
        assert (one.reason, one.refused_by) == (reason, by)


def test_a_user_does_not_learn_what_its_customer_was_charged() -> None:
    """The extension's key sees the extension only; the leg is its customer's."""
    reply = Reply(Outcome.CLOSED, "x", currency="USD", charge=Decimal(5))
    payer = payer_of(SESSION)
    assert payer == CUSTOMER
    hidden = shown_reply(reply, {99}, payer=payer)
    assert (hidden.charge, hidden.currency) == (None, "")
    assert shown_reply(reply, {CUSTOMER}, payer=payer) == reply


# --- records -------------------------------------------------------------------------------------


@pytest.fixture
def books(database_url: str) -> Iterator[Books]:
    made = Books(database_url)
    yield made
    made.world.close()


@pytest_asyncio.fixture
async def database(books: Books) -> AsyncIterator[Database]:
    opened = Database(books.world.url, size=3)
    await opened.open()
    yield opened
    await opened.close()


async def test_records_of_others_are_not_found_in_tables_nor_in_the_archive(
    books: Books, database: Database, tmp_path: Path
) -> None:
    """Two days, one of them archived: acme's records without vendor, trunks, file and cost."""
    batch = books.batch()
    for number in range(4):
        start = FIRST + timedelta(days=number % 2, seconds=number)
        others = {"customer_id": books.beta.id, "sell_wallet": books.beta.wallet_id}
        books.add(batch, 2 * number, start)
        books.add(batch, 2 * number + 1, start, **others)
    await archive_day(
        database, ArchivePlace((tmp_path / "archive").as_uri(), tmp_path / "work"), DAY, now=NOW
    )
    acme = books.acme.id
    for wanted in ({}, {"called": "442071838750"}, {"caller": "390612345678"}):
        query = UsageQuery(since=FIRST, until=NOW, **wanted)
        page = await search(database, query, now=NOW, scope=acme)
        assert [view.line for view in page.items] == [0, 4, 2, 6]
        assert len((await search(database, query, now=NOW)).items) == 8
        for view in page.items:
            assert (view.customer, view.charge) == ("acme", Decimal("0.62"))
            hidden = (view.vendor, view.trunk_in, view.trunk_out, view.file, view.switch)
            assert hidden == ("",) * 5
            assert (view.cost, view.buy_billed, view.buy_prefix, view.buy_currency) == (
                0,
                0,
                "",
                "",
            )
            # Sold by a card of the operator.
            assert (view.sell_card, view.sell_currency) == ("", "USD")
    export = await prepare(
        database, UsageQuery(since=FIRST, until=NOW), kind="csv", now=NOW, scope=acme
    )
    text = b"".join([chunk async for chunk in export.chunks()]).decode()
    _, text = text.split("\r\n", 1)  # the titles name what is left out
    assert text.count("acme") == 4
    for word in ("beta", "vend", "march.csv", "0.31", "retail"):
        assert word not in text


async def test_nobody_asks_for_what_is_the_operators(books: Books, database: Database) -> None:
    acme = books.acme.id
    for query in (UsageQuery(vendor="vend"), UsageQuery(customer="beta")):
        with pytest.raises(InvalidInput):
            await search(database, query, now=NOW, scope=acme)
    for by in ("vendor", "trunk_in", "trunk_out"):
        with pytest.raises(InvalidInput):
            await report(database, now=NOW, by=[by], scope=acme)
