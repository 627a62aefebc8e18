"""Commissions, by figures worked out by hand, on three levels of a tree."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
import pytest_asyncio

from tests.support import Customer, World
from tollkeeper.core.commissions import Sold, work_out
from tollkeeper.core.fx import FxRate
from tollkeeper.errors import Conflict, InvalidInput
from tollkeeper.services import commissions, tree
from tollkeeper.services.commissions import Rule, Run
from tollkeeper.services.verify import verify
from tollkeeper.store.db import Database

WHO = "test"
NOW = datetime(2026, 4, 2, 9, tzinfo=UTC)
MARCH = date(2026, 3, 15)


def euros(base: str, quote: str) -> FxRate | None:
    """One euro is 1.1 dollars; nothing else is known."""
    rates = {("EUR", "USD"): Decimal("1.1"), ("USD", "USD"): Decimal(1)}
    rate = rates.get((base, quote))
    return None if rate is None else FxRate(base, quote, rate, "2026-03-31", "test")


@pytest.mark.parametrize(
    ("basis", "percent", "expected"),
    [
        # 200 + 100 x 1.1 = 310 of turnover; own 150 + 50 x 1.1 = 205; 105 is left.
        ("turnover", "2", "6.2"),
        ("margin", "10", "10.5"),
        ("margin", "33.333333", "35.000000"),
    ],
)
def test_currencies_are_added_at_the_rate_of_the_day_and_rounded_once(
    basis: str, percent: str, expected: str
) -> None:
    sold = [
        Sold("USD", Decimal(200), Decimal(150)),
        Sold("EUR", Decimal(100), Decimal(50)),
    ]
    worked = work_out(sold, basis=basis, percent=Decimal(percent), currency="USD", exchange=euros)
    assert (worked.turnover, worked.own) == (Decimal(310), Decimal(205))
    assert worked.commission == Decimal(expected)


def test_a_loss_earns_nothing() -> None:
    worked = work_out(
        [Sold("USD", Decimal(10), Decimal(12))],
        basis="margin",
        percent=Decimal(50),
        currency="USD",
        exchange=euros,
    )
    assert worked.commission == 0


# --- over the journal ----------------------------------------------------------------------------


class Books:
    """op above r above s above c; entries of services put into the journal of March 2026."""

    def __init__(self, url: str) -> None:
        self.world = World(url)
        self.world.sql("SELECT ensure_partitions('2026-02-27', 40)")
        self.r = self.world.customer("r", kind="reseller", balance="1000")
        self.s = self.world.customer("s", kind="reseller", balance="1000", parent=self.r)
        self.c = self.world.customer("c", balance="1000", parent=self.s)
        self.other = self.world.customer("other", balance="1000", kind="reseller")

    def entry(
        self, who: Customer, service: str, amount: str, day: str = "2026-03-10", code: str = "usage"
    ) -> None:
        """A charge (or, by its code, something given back) on a day."""
        back = code in {"refund", "rebate", "correction"}
        money = Decimal(amount)
        account = self.world.one(
            "INSERT INTO account (kind, currency, name) VALUES ('revenue', %s, %s)"
            " ON CONFLICT (kind, currency, name) DO UPDATE SET name = excluded.name RETURNING id",
            who.currency,
            service,
        )
        (wallet,) = self.world.sql(
            "UPDATE wallet SET credited = credited + %s, debited = debited + %s, version = version + 1,"
            " stamp = stamp + 1 WHERE id = %s RETURNING version, credited - debited AS balance",
            money if back else 0,
            0 if back else money,
            who.wallet_id,
        )
        sides = (account, who.wallet_id) if back else (who.wallet_id, account)
        self.world.sql(
            "INSERT INTO entry (day, at, code, debit_account, credit_account, amount, currency, wallet_id,"
            " wallet_version, balance_after) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            day, f"{day}T12:00:00Z", code, *sides, money, who.currency, who.wallet_id,
            wallet["version"], wallet["balance"],
        )  # fmt: skip

    def call(self, c: str, s: str, r: str, day: str = "2026-03-10", service: str = "voice") -> None:
        """What a call cost at each level."""
        for who, amount in ((self.c, c), (self.s, s), (self.r, r)):
            self.entry(who, service, amount, day)


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


async def rule(database: Database, party: str, percent: str, **more: object) -> Rule:
    values: dict[str, object] = {"service": "voice", "basis": "margin", "currency": "USD", **more}
    values.setdefault("valid_from", date(2026, 1, 1))
    return await commissions.add_rule(
        database,
        Rule(party=party, percent=Decimal(percent), **values),  # type: ignore[arg-type]
        actor=WHO,
    )


async def post(database: Database, made: Rule, day: date = MARCH, period: str = "month") -> Run:
    return await commissions.post_run(
        database, made.id, period=period, day=day, actor=WHO, clock=lambda: NOW
    )


async def test_three_levels_earn_by_what_stands_directly_below_them(
    books: Books, database: Database
) -> None:
    """Customer c pays 30 + 12, s 20 + 8, r 15 + 6; 2 of it is given back to c and 1 to s.

    s: turnover 30 + 12 - 2 = 40, own 20 + 8 - 1 = 27, margin 13, of that 10 % = 1.30.
    r: turnover 27, own 21, margin 6, of that 25 % = 1.50; of turnover 2 % = 0.54.
    """
    books.call("30", "20", "15", "2026-03-01")
    books.call("12", "8", "6", "2026-03-31")
    books.entry(books.c, "voice", "2", "2026-03-20", code="refund")
    books.entry(books.s, "voice", "1", "2026-03-20", code="refund")
    # Neither of another month, nor of another service, nor somebody else's.
    books.call("100", "50", "1", "2026-02-28")
    books.call("100", "50", "1", "2026-04-01")
    books.call("100", "50", "1", service="sms")
    books.entry(books.other, "voice", "500")
    of_s = await post(database, await rule(database, "s", "10"))
    assert (of_s.turnover, of_s.own, of_s.commission) == (40, 27, Decimal("1.3"))
    of_r = await post(database, await rule(database, "r", "25"))
    assert (of_r.turnover, of_r.own, of_r.commission) == (27, 21, Decimal("1.5"))
    sms = await rule(database, "r", "2", service="sms", basis="turnover")
    assert (await post(database, sms)).commission == 1
    wallet = books.world.wallet(books.r)
    assert wallet.balance == 1000 - 15 - 6 - 1 - 1 - 1 + Decimal("1.5") + 1
    (entry,) = books.world.sql("SELECT * FROM entry WHERE id = %s", of_r.entry_id)
    assert (entry["code"], entry["wallet_id"], entry["amount"]) == (
        "commission",
        books.r.wallet_id,
        Decimal("1.5"),
    )
    assert (await verify(database)).clean


async def test_a_period_is_paid_once_however_often_it_is_asked_for(
    books: Books, database: Database
) -> None:
    books.call("30", "20", "15")
    made = await rule(database, "s", "10")
    first = await post(database, made)
    books.call("30", "20", "15", "2026-03-11")
    assert await post(database, made) == first
    with pytest.raises(Conflict) as error:
        await post(database, made, date(2026, 3, 11), period="day")
    assert error.value.code == "period_posted"
    with pytest.raises(Conflict) as error:
        await commissions.end_rule(database, made.id, valid_to=date(2026, 3, 20), actor=WHO)
    assert error.value.code == "period_posted"
    count = "SELECT count(*) FROM entry WHERE code = 'commission'"
    assert books.world.one(count) == 1
    assert [run.id for run in await commissions.list_runs(database, party="s")] == [first.id]


async def test_a_period_that_is_not_over_is_only_shown(books: Books, database: Database) -> None:
    books.call("30", "20", "15", "2026-04-02")
    made = await rule(database, "s", "10")
    with pytest.raises(Conflict) as error:
        await post(database, made, date(2026, 4, 2))
    assert error.value.code == "period_open"
    shown = await commissions.preview(database, made.id, period="day", day=date(2026, 4, 2))
    assert (shown.commission, shown.id, shown.entry_id) == (1, 0, None)


async def test_the_general_rule_takes_what_no_special_one_has(
    books: Books, database: Database
) -> None:
    """Voice has a rule of its own from 16 March on: until then it belongs to the general one.

    General, 10 % of turnover: voice 30 before that day, sms 5 and 7, is 42: 4.20. Voice, 50 %: 12: 6.
    """
    books.call("30", "20", "15", "2026-03-15")
    books.call("12", "8", "6", "2026-03-16")
    books.call("5", "1", "1", "2026-03-15", service="sms")
    books.call("7", "1", "1", "2026-03-16", service="sms")
    general = await rule(database, "s", "10", service="", basis="turnover")
    special = await rule(database, "s", "50", basis="turnover", valid_from=date(2026, 3, 16))
    assert (await post(database, general)).commission == Decimal("4.2")
    assert (await post(database, special)).commission == 6


async def test_what_a_customer_pays_counts_for_whoever_it_stands_below(
    books: Books, database: Database
) -> None:
    """It moves on 12 March: before that it is s's turnover, after that the other reseller's."""
    world = books.world
    for who, day in (("s", "2026-01-01"), ("other", "2026-03-12")):
        world.sql(
            "INSERT INTO party_move (party_id, parent_id, at)"
            " SELECT %s, id, %s FROM party WHERE code = %s",
            books.c.id, f"{day}T00:00:00Z", who,
        )  # fmt: skip
    world.sql("UPDATE party SET parent_id = %s WHERE id = %s", books.other.id, books.c.id)
    books.entry(books.c, "voice", "40", "2026-03-11")
    books.entry(books.c, "voice", "60", "2026-03-12")
    assert [one.parent for one in await tree.list_moves(database, "c")] == ["s", "other"]
    for party, expected in (("s", 40), ("other", 60)):
        made = await rule(database, party, "100", basis="turnover")
        assert (await post(database, made)).commission == expected


async def test_other_currencies_need_the_rate_of_the_last_day(
    books: Books, database: Database
) -> None:
    """100 EUR at 1.25 of 31 March, not at 2 of the day before: 125 USD, of that 4 % = 5."""
    euro = books.world.customer("euro", currency="EUR", balance="1000", parent=books.s)
    books.entry(euro, "voice", "100")
    made = await rule(database, "s", "4", basis="turnover")
    with pytest.raises(Conflict) as error:
        await post(database, made)
    assert error.value.code == "no_fx_rate"
    assert "EUR to USD is known for 2026-03-31" in error.value.detail
    for day, rate in (("2026-03-30", "2"), ("2026-03-31", "1.25"), ("2026-04-01", "3")):
        books.world.sql(
            "INSERT INTO fx_rate (base, quote, day, rate, source) VALUES ('EUR', 'USD', %s, %s, 'test')",
            day, rate,
        )  # fmt: skip
    run = await post(database, made)
    assert (run.turnover, run.commission) == (125, 5)
    (line,) = run.lines
    assert (line.currency, line.turnover, line.rate) == ("EUR", 100, Decimal("1.25"))


async def test_rules_that_cannot_be_are_refused(books: Books, database: Database) -> None:
    await rule(database, "s", "10", valid_to=date(2026, 6, 1))
    with pytest.raises(Conflict) as error:
        await rule(database, "s", "5", valid_from=date(2026, 5, 31))
    assert error.value.code == "overlapping_rule"
    follow = await rule(database, "s", "5", valid_from=date(2026, 6, 1))
    for percent in ("0", "100.1", "1.1234567"):
        with pytest.raises(InvalidInput, match="percent"):
            await rule(database, "r", percent)
    with pytest.raises(InvalidInput, match="valid_to"):
        await rule(database, "r", "1", valid_to=date(2026, 1, 1))
    with pytest.raises(InvalidInput) as wrong:
        await post(database, follow)
    assert wrong.value.code == "rule_not_valid"
