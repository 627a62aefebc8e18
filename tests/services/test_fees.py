"""Fees once, each day, week or month; and what a month falls short of its minimum."""

from __future__ import annotations

import asyncio
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from tests.services.fee_world import Numbers, numbers
from tollkeeper.errors import Conflict, Forbidden, InvalidInput, NotFound

D = Decimal


async def add(n: Numbers, period: str = "month", amount: str | None = "30", **more: Any) -> Any:
    """A fee of acme; 30 dollars a month."""
    given: dict[str, Any] = {"party": "acme", "name": "line rental", "period": period, **more}
    if amount is not None:
        given |= {"amount": D(amount), "currency": "USD"}
    return await n.supplies.fees.add(**given)


@pytest.mark.parametrize(
    ("period", "now", "amount", "first", "then", "second"),
    [
        # Friday, 16 April: 15 of 30 days; then May.
        ("month", "2027-04-16T09:00", "30", "15", "2027-05-01T00:00", "45"),
        # 14 of 28 days in February.
        ("month", "2027-02-15T09:00", "28", "14", "2027-03-01T00:00", "42"),
        # Friday to Sunday: 3 of 7 days; the clock went forward on the Sunday (28 March).
        ("week", "2027-03-26T09:00", "7", "3", "2027-03-28T22:00", "10"),
        # A day of 25 hours costs a day: it ends in Rome at 23:00 UTC.
        ("day", "2027-10-31T09:00", "2", "2", "2027-10-31T23:00", "4"),
        ("once", "2027-04-16T09:00", "25", "25", "2027-06-01T00:00", "25"),
    ],
)
async def test_terms_are_the_partys_and_the_first_costs_the_days_that_are_left(
    database_url: str, period: str, now: str, amount: str, first: str, then: str, second: str
) -> None:
    async with numbers(database_url, now=now) as n:
        fee = await add(n, period, amount)
        # A price of its own is between the party and whoever sells to it.
        assert n.spent() == (D(first), D(0), D(0))
        await n.run_until(then)
        assert n.spent() == (D(second), D(0), D(0))
        status = (await n.supplies.fees.get(fee.id)).status
        assert status == ("ended" if period == "once" else "active")
        await n.proven()


async def test_the_last_term_costs_the_days_until_the_end(database_url: str) -> None:
    """April 15 of 30, May whole, June until the 11th: 10 of 30 days of 30 dollars."""
    async with numbers(database_url) as n:
        fee = await add(n, ends_on=date(2027, 6, 11))
        await n.run_until("2027-06-01T00:00")
        assert n.spent()[0] == D(15) + D(30) + D(10)
        assert (await n.supplies.fees.get(fee.id)).status == "ended"
        await n.run_until("2027-07-02T00:00")
        assert n.spent()[0] == D(55)


async def test_whole_periods_where_nothing_is_prorated(database_url: str) -> None:
    async with numbers(database_url) as n:
        await add(n, prorate=False)
        assert n.spent()[0] == D(30)
        await n.run_until("2027-05-01T00:00")
        assert n.spent()[0] == D(60)


async def test_a_fee_by_the_cards_is_paid_at_every_level(database_url: str) -> None:
    """10, 7 and 4 a month for the class 7, of which 15 of 30 days are left."""
    async with numbers(database_url) as n:
        await add(n, amount=None, called="7")
        assert n.spent() == (D(5), D("3.5"), D(2))


async def test_a_fee_that_begins_later_waits_and_one_that_began_earlier_makes_up(
    database_url: str,
) -> None:
    """From 1 May; and from 1 February on: 30 + 30 + 30."""
    async with numbers(database_url) as n:
        await add(n, begins_on=date(2027, 5, 1))
        assert n.spent()[0] == D(0)
        await n.run_until("2027-04-30T22:00")
        assert n.spent()[0] == D(30)
        await add(n, begins_on=date(2027, 3, 1), ends_on=date(2027, 5, 1))
        assert n.spent()[0] == D(30) + D(60)


async def test_a_fee_is_added_once_for_a_request_and_by_many_processes_charged_once(
    database_url: str,
) -> None:
    async with numbers(database_url) as n:
        first = await add(n, request="1:a")
        assert (await add(n, request="1:a")).id == first.id
        with pytest.raises(Conflict, match="another request"):
            await add(n, request="1:a", amount="31")
        n.forward("2027-05-01T01:00")
        await asyncio.gather(*(n.again().fees.go_on() for _ in range(8)))
        assert n.spent()[0] == D(45)
        await n.proven()


async def test_a_fee_that_is_not_paid_is_tried_again_and_lapses(database_url: str) -> None:
    """One day of grace: tried four times, every six hours, and then no more."""
    async with numbers(database_url) as n:
        fee = await add(n, amount="5000", grace_days=1)
        assert (fee.status, fee.reason, fee.attempts) == ("active", "insufficient_funds", 1)
        await n.run_until("2027-04-16T14:00")
        assert (await n.supplies.fees.get(fee.id)).attempts == 1
        await n.run_until("2027-04-16T15:00")
        assert (await n.supplies.fees.get(fee.id)).attempts == 2
        await n.run_until("2027-04-17T09:00")
        fee = await n.supplies.fees.get(fee.id)
        assert (fee.status, fee.next_at) == ("lapsed", None)
        assert n.spent()[0] == D(0)


async def test_a_fee_ends_on_the_day_that_is_said(database_url: str) -> None:
    async with numbers(database_url) as n:
        fees = n.supplies.fees
        fee, other = await add(n), await add(n)
        ended = await fees.end(fee.id, actor="test")
        assert (ended.status, ended.ends_on) == ("ended", date(2027, 4, 16))
        later = await fees.end(other.id, on=date(2027, 5, 11), actor="test")
        assert (later.status, later.ends_on) == ("active", date(2027, 5, 11))
        with pytest.raises(Conflict, match="over already"):
            await fees.end(fee.id, actor="test")
        with pytest.raises(InvalidInput, match="day to come"):
            await fees.end(other.id, on=date(2027, 4, 1), actor="test")
        await n.run_until("2027-06-01T00:00")
        # 15 + 15, and 30 x 10/31 = 9.677419 of May.
        assert n.spent()[0] == D(30) + D("9.677419")
        order = await n.order()
        with pytest.raises(Conflict, match="belongs to a number"):
            await fees.end(order.fee_id, actor="test")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"period": "year"}, "period"),
        ({"amount": None}, "called"),
        ({"amount": None, "called": "x"}, "called"),
        ({"called": "7"}, "called"),
        ({"amount": "0"}, "amount"),
        ({"service": "voice"}, "service"),
        ({"name": " "}, "name"),
        ({"begins_on": date(2024, 1, 1)}, "begins_on"),
        ({"begins_on": date(2027, 5, 1), "ends_on": date(2027, 5, 1)}, "ends_on"),
        ({"grace_days": -1}, "grace_days"),
    ],
)
async def test_what_is_wrong_is_named(database_url: str, given: dict[str, Any], field: str) -> None:
    async with numbers(database_url) as n:
        with pytest.raises(InvalidInput) as caught:
            await add(n, **given)
        assert caught.value.field == field
        assert n.world.one("SELECT count(*) FROM recurring_fee") == 0


async def test_a_reseller_charges_those_below_it_and_nobody_else(database_url: str) -> None:
    async with numbers(database_url) as n:
        other, fees = n.world.customer("other"), n.supplies.fees
        fee = await add(n, scope=n.south.id)
        with pytest.raises(Forbidden):
            await add(n, scope=n.acme.id)
        with pytest.raises(NotFound):
            await add(n, scope=other.id)
        with pytest.raises(NotFound):
            await fees.get(fee.id, scope=other.id)
        with pytest.raises(NotFound):
            await fees.list(party="acme", scope=other.id)
        with pytest.raises(Forbidden):
            await fees.end(fee.id, actor="x", scope=n.acme.id)
        assert [one.id for one in await fees.list(scope=n.acme.id)] == [fee.id]
        assert await fees.list(scope=other.id) == []
        assert (await fees.end(fee.id, actor="x", scope=n.south.id)).status == "ended"


# --- minimum commitments -------------------------------------------------------------------------

MINIMUM = {"amount": "100", "currency": "USD"}


async def call(n: Numbers, name: str, minutes: int) -> None:
    """A call at 0.6 a minute."""
    charging = n.parts.charging
    await charging.authorise(
        switch="sw", session_id=name, party="acme", called="442071838750",
        requested_seconds=minutes * 60,
    )  # fmt: skip
    await charging.stop(switch="sw", session_id=name, used_ms=minutes * 60_000)


async def test_what_a_month_falls_short_of_its_minimum_is_charged_once(database_url: str) -> None:
    """From 1 April on, 100 a month: 50 minutes are 30, a fee 15, so 55 are short; then all of May."""
    async with numbers(database_url, now="2027-03-31T22:30", commitment=MINIMUM) as n:
        minimums = n.minimums()
        await minimums.go_on()
        n.forward("2027-04-10T10:00")
        await call(n, "a", 50)
        await add(n, "once", "15")
        await n.supplies.fees.add(
            party="south", name="other's", period="once", amount=D(9), currency="USD"
        )
        await minimums.go_on()
        assert n.spent()[0] == D(45)
        n.forward("2027-04-30T23:30")
        await asyncio.gather(*(n.minimums().go_on() for _ in range(6)))
        assert n.spent()[0] == D(100)
        (month,) = [m for m in await minimums.list(party="acme") if m.status != "open"]
        assert (month.month, month.status) == (date(2027, 4, 1), "charged")
        assert (month.spent, month.shortfall) == (D(45), D(55))
        # Of May nothing is used: what was charged for April on 1 May is no use of May.
        n.forward("2027-06-01T00:00")
        await minimums.go_on()
        assert n.spent()[0] == D(200)
        await n.proven()


async def test_a_minimum_counts_from_the_day_on_which_it_was_first_there(
    database_url: str,
) -> None:
    """Seen first on 16 April: 100 x 15/30 = 50, of which 30 are used from then on."""
    async with numbers(database_url, commitment=MINIMUM) as n:
        await n.minimums().go_on()
        await call(n, "a", 50)
        n.forward("2027-05-01T00:00")
        await n.minimums().go_on()
        assert n.spent()[0] == D(50)


async def test_a_month_that_is_used_enough_costs_no_more(database_url: str) -> None:
    async with numbers(database_url, commitment={"amount": "60", "currency": "USD"}) as n:
        await n.minimums().go_on()
        await call(n, "a", 50)
        n.forward("2027-05-01T00:00")
        await n.minimums().go_on()
        (month,) = [m for m in await n.minimums().list() if m.month == date(2027, 4, 1)]
        assert (month.status, month.amount, month.spent) == ("met", D(30), D(30))
        assert n.spent()[0] == D(30)


async def test_a_shortfall_without_money_is_tried_again_each_day(database_url: str) -> None:
    async with numbers(database_url, commitment=MINIMUM) as n:
        await n.minimums().go_on()
        n.world.sql(
            "UPDATE wallet SET debited = credited, stamp = stamp + 1 WHERE id = %s",
            n.acme.wallet_id,
        )
        n.forward("2027-05-01T00:00")
        await n.minimums().go_on()
        (month,) = [m for m in await n.minimums().list() if m.month == date(2027, 4, 1)]
        assert (month.status, month.reason) == ("due", "insufficient_funds")
        n.world.top_up(n.acme, "70")
        await n.minimums().go_on()
        assert n.world.wallet(n.acme).balance == 70
        n.forward("2027-05-02T00:01")
        await n.minimums().go_on()
        assert n.world.wallet(n.acme).balance == 20
