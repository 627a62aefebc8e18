"""Telephone numbers: imported, ordered, paid each month, released, kept from others for a while."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from psycopg.types.json import Jsonb

from tests.gateways.platform import platform
from tests.services.fee_world import FREE, MILANESE, ROMAN, Numbers, numbers
from tests.services.supplying import add_supplier
from tollkeeper.core.records import Outcome
from tollkeeper.errors import Conflict, Forbidden, InvalidInput, NotFound
from tollkeeper.services.did_inventory import pattern_of
from tollkeeper.services.dids import DidFilter

D = Decimal


async def test_a_number_taken_on_16_april_in_rome_pays_15_of_30_days_at_every_level(
    database_url: str,
) -> None:
    """Acme 5 + 10 x 15/30, south 3 + 7 x 15/30, north 1 + 4 x 15/30; in May the whole months."""
    async with numbers(database_url) as n:
        order = await n.order()
        assert (order.status, order.charge, order.currency) == ("done", D(5), "USD")
        assert n.spent() == (D(10), D("6.5"), D(3))
        did = await n.supplies.dids.get(ROMAN)
        assert (did.status, did.party, did.assigned_at) == ("assigned", "acme", n.clock.now)
        # April ends in Rome at 22:00 UTC.
        await n.run_until("2027-04-30T21:59")
        assert n.spent() == (D(10), D("6.5"), D(3))
        await n.run_until("2027-04-30T22:00")
        assert n.spent() == (D(20), D("13.5"), D(7))
        await n.run_until("2027-06-03T00:00")
        assert n.spent() == (D(30), D("20.5"), D(11))
        fee = await n.supplies.fees.get(order.fee_id)
        assert f"fees/did-{fee.id}-2027-05" in {
            row["key"] for row in n.world.sql("SELECT key FROM closed_session")
        }
        await n.proven()


@pytest.mark.parametrize(
    ("now", "zone", "monthly", "first"),
    [
        # The evening of 28 February in UTC is 1 March in Rome: a whole month of 31 days.
        ("2027-02-28T23:30", "Europe/Rome", "31", "31"),
        # ... and still the last day of 28 in New York: 28 x 1/28.
        ("2027-02-28T23:30", "America/New_York", "28", "1"),
        # The clock goes forward on 28 March: the day is shorter, and a day. 31 x 4/31.
        ("2027-03-28T03:00", "Europe/Rome", "31", "4"),
        # And back on 31 October, the last of 31 days.
        ("2027-10-31T00:30", "Europe/Rome", "31", "1"),
        # 10 x 13/28 = 4.642857142... is rounded once, to six decimals.
        ("2027-02-16T12:00", "Europe/Rome", "10", "4.642857"),
    ],
)
async def test_the_first_month_is_that_of_the_party(
    database_url: str, now: str, zone: str, monthly: str, first: str
) -> None:
    async with numbers(database_url, now=now, zone=zone, monthly=(monthly, "0", "0")) as n:
        assert (await n.order()).status == "done"
        assert n.spent() == (D(5) + D(first), D(3), D(1))


async def test_explain_tells_the_share(database_url: str) -> None:
    async with numbers(database_url) as n:
        order = await n.order()
        session = await n.parts.charging.session(f"fees/did-{order.fee_id}-2027-04")
        assert [leg.party_id for leg in session.legs] == [n.acme.id, n.south.id, n.north.id]
        for leg in session.legs:
            assert leg.pin.steps[-1].name == "15 of 30 days"
        assert session.called == ROMAN


async def test_of_32_who_want_a_number_one_gets_it(database_url: str) -> None:
    """The others are told so and pay nothing; two processes take part."""
    async with numbers(database_url) as n:
        other = n.again()
        results = await asyncio.gather(
            *(
                (n.supplies if i % 2 else other).dids.order(
                    party="acme", number=ROMAN, request_id=f"r{i}", actor="test"
                )
                for i in range(32)
            ),
            return_exceptions=True,
        )
        won = [one for one in results if not isinstance(one, BaseException)]
        lost = [one for one in results if isinstance(one, Conflict) and one.code == "number_taken"]
        assert (len(won), len(lost)) == (1, 31), results
        assert won[0].status == "done"
        assert n.spent() == (D(10), D("6.5"), D(3))
        assert n.world.one("SELECT count(*) FROM did_order") == 1
        await n.proven()


async def test_the_same_request_is_the_same_order(database_url: str) -> None:
    async with numbers(database_url) as n:
        orders = await asyncio.gather(*(n.order() for _ in range(8)), return_exceptions=True)
        done = [one for one in orders if not isinstance(one, BaseException)]
        assert len({one.id for one in done}) == 1
        assert await n.order() == done[0]
        assert n.spent() == (D(10), D("6.5"), D(3))
        with pytest.raises(Conflict, match="another order"):
            await n.order(MILANESE)


@pytest.mark.parametrize(
    ("left", "reason"), [("4", "insufficient_funds"), ("7", "insufficient_funds")]
)
async def test_what_is_not_covered_is_not_sold_and_costs_nothing(
    database_url: str, left: str, reason: str
) -> None:
    """With 4 not the half month of 5; with 7 that, but not the set-up: the half month comes back."""
    async with numbers(database_url) as n:
        n.world.sql(
            "UPDATE wallet SET debited = credited - %s, stamp = stamp + 1 WHERE id = %s",
            D(left),
            n.acme.wallet_id,
        )
        order = await n.order()
        assert (order.status, order.reason, order.charge) == ("refused", reason, None)
        assert (n.world.wallet(n.acme).balance, n.status()) == (D(left), "available")
        assert n.spent()[1:] == (D(0), D(0))
        assert await n.order() == order
        n.world.top_up(n.acme, "100")
        assert (await n.order(request="d2")).status == "done"


async def test_a_reseller_without_money_is_upstream(database_url: str) -> None:
    async with numbers(database_url) as n:
        n.world.sql(
            "UPDATE wallet SET debited = credited, stamp = stamp + 1 WHERE id = %s",
            n.north.wallet_id,
        )
        order = await n.order()
        assert (order.status, order.reason) == ("refused", "upstream_refused")
        assert n.spent()[:2] == (D(0), D(0))


async def test_an_order_that_was_left_in_the_middle_is_finished_by_the_next(
    database_url: str,
) -> None:
    """As if the process had died after each step: nothing is paid twice."""
    async with numbers(database_url) as n:
        await n.order()
        n.world.sql("UPDATE did_order SET status = 'pending', ended_at = NULL, charge = NULL")
        n.world.sql(
            "UPDATE did SET status = 'ordered', assigned_at = NULL WHERE number = %s", ROMAN
        )
        await n.run_until("2027-04-16T09:01", process=n.again())
        assert (n.status(), n.spent()) == ("assigned", (D(10), D("6.5"), D(3)))
        (order,) = n.world.sql("SELECT status, charge FROM did_order")
        assert order == {"status": "done", "charge": D(5)}


async def test_a_term_that_was_charged_and_not_noted_is_not_charged_again(
    database_url: str,
) -> None:
    """The process died between the charge and the note of it; much later, too."""
    async with numbers(database_url) as n:
        order = await n.order()
        await n.run_until("2027-05-01T00:00")
        n.world.sql(
            "UPDATE recurring_fee SET paid_until = '2027-05-01', term_from = '2027-05-01',"
            " term_to = '2027-06-01', next_at = '2027-05-01T00:00Z'"
        )
        await asyncio.gather(*(n.again().fees.charge(order.fee_id) for _ in range(4)))
        assert n.spent()[0] == D(20)
        n.world.sql(
            "UPDATE recurring_fee SET paid_until = '2027-05-01', term_from = '2027-05-01',"
            " term_to = '2027-06-01', next_at = '2027-05-01T00:00Z'"
        )
        await n.run_until("2027-05-20T00:00", process=n.again())
        assert n.spent()[0] == D(20)


async def test_many_processes_charge_a_month_once(database_url: str) -> None:
    async with numbers(database_url) as n:
        await n.order()
        n.forward("2027-05-01T08:00")
        await asyncio.gather(*(n.again().fees.go_on() for _ in range(8)))
        assert n.spent() == (D(20), D("13.5"), D(7))


async def test_a_number_that_is_not_paid_is_released_after_its_days_of_grace(
    database_url: str,
) -> None:
    """Three days of grace, then ten of quarantine; a top-up within the three days keeps it."""
    async with numbers(database_url) as n:
        order = await n.order()
        n.world.sql(
            "UPDATE wallet SET debited = credited, stamp = stamp + 1 WHERE id = %s",
            n.acme.wallet_id,
        )
        await n.run_until("2027-05-01T00:00")
        fee = await n.supplies.fees.get(order.fee_id)
        assert (fee.status, fee.reason, fee.attempts) == ("active", "insufficient_funds", 1)
        await n.run_until("2027-05-03T23:59")
        assert n.status() == "assigned"
        await n.run_until("2027-05-04T00:01")
        assert n.status() == "quarantined"
        fee = await n.supplies.fees.get(order.fee_id)
        assert (fee.status, fee.reason) == ("lapsed", "insufficient_funds")
        with pytest.raises(Conflict, match="cannot be ordered"):
            await n.order(request="d2")
        await n.run_until("2027-05-14T00:00")
        assert n.status() == "quarantined"
        await n.run_until("2027-05-14T00:02")
        assert n.status() == "available"
        events = [one.event for one in await n.supplies.dids.history(ROMAN)]
        assert events == ["ordered", "assigned", "released", "available"]


async def test_a_top_up_within_the_days_of_grace_keeps_the_number(database_url: str) -> None:
    async with numbers(database_url) as n:
        order = await n.order()
        n.world.sql(
            "UPDATE wallet SET debited = credited, stamp = stamp + 1 WHERE id = %s",
            n.acme.wallet_id,
        )
        await n.run_until("2027-05-01T00:00")
        n.world.top_up(n.acme, "50")
        await n.run_until("2027-05-02T00:00")
        assert n.world.wallet(n.acme).balance == 40
        fee = await n.supplies.fees.get(order.fee_id)
        assert (f"{fee.paid_until}", fee.reason, fee.attempts) == ("2027-06-01", "", 0)


async def test_a_released_number_is_free_after_its_quarantine_and_costs_no_more(
    database_url: str,
) -> None:
    async with numbers(database_url) as n:
        await n.order()
        paid = n.spent()
        await n.supplies.dids.release(ROMAN, actor="test")
        assert n.status() == "quarantined"
        with pytest.raises(Conflict, match="nobody has it"):
            await n.supplies.dids.release(ROMAN, actor="test")
        await n.run_until("2027-05-02T00:00")
        assert (n.status(), n.spent()) == ("available", paid)
        assert (await n.order(request="again")).status == "done"
        # The rest of May: 10 x 30/31, from the second on.
        assert n.spent()[0] == paid[0] + D(5) + D("9.677419")


async def test_a_price_class_prices_a_number(database_url: str) -> None:
    """The toll-free number has the class 999, which costs 50 a month: 50 x 15/30; no quarantine."""
    async with numbers(database_url) as n:
        assert (await n.order(FREE)).status == "done"
        assert n.spent()[0] == D(5) + D(25)
        await n.supplies.dids.release(FREE, actor="test")
        assert (await n.order(FREE, "d2")).status == "done"
        assert n.spent()[0] == D(60)


async def test_calls_to_a_number_are_charged_to_its_party(database_url: str) -> None:
    """Two minutes in, at 0.06 a minute of the service voice_in."""
    async with numbers(database_url) as n:
        await n.order()
        before = n.spent()[0]
        did = await n.supplies.dids.get(f"+{ROMAN}")
        reply, _ = await n.parts.charging.authorise(
            switch="sw", session_id="in1", party=did.party, called=did.number, service="voice_in"
        )
        assert reply.outcome is Outcome.GRANTED
        reply, _ = await n.parts.charging.stop(switch="sw", session_id="in1", used_ms=120_000)
        assert (reply.charge, n.spent()[0] - before) == (D("0.12"), D("0.12"))


async def test_an_inventory_keeps_its_good_lines_and_tells_the_bad_ones(database_url: str) -> None:
    async with numbers(database_url) as n:
        await n.order()
        report = await n.load(
            "Number;Country;Kind;Item\n"
            "390611111111;IT;mobile;\n"
            "abc;IT;;\n"
            "390622222222;Italy;;\n"
            "390633333333;IT;fixed;\n"
            "390644444444;IT;;x\n"
            "390611111111;IT;;\n"
            "3906;IT\n"
            f"{ROMAN};IT;;39\n"
        )
        assert (report.given, report.added, report.known) == (2, 1, 1)
        told = {bad.line: bad.reason for bad in report.refused}
        assert sorted(told) == [3, 4, 5, 6, 7, 8]
        assert "two letters" in told[4]
        assert "already" in told[7]
        # What is known keeps its party.
        did = await n.supplies.dids.get(ROMAN)
        assert (did.party, did.item) == ("acme", "39")
        with pytest.raises(InvalidInput, match="every line was refused; line 2"):
            await n.load("number,country\nx,IT\n")
        with pytest.raises(InvalidInput, match="titles"):
            await n.load("390611111111,IT\n")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (DidFilter(pattern_of(prefix="+3906")), [ROMAN]),
        (DidFilter(pattern_of(pattern="*5678")), [ROMAN]),
        (DidFilter(pattern_of(pattern="39028765432?")), [MILANESE]),
        (DidFilter(country="US"), [FREE]),
        (DidFilter(kind="toll-free"), [FREE]),
        (DidFilter(status="assigned"), [MILANESE]),
        (DidFilter(party="acme"), [MILANESE]),
        (DidFilter(limit=1), [MILANESE]),
        (DidFilter(after=MILANESE), [ROMAN, FREE]),
    ],
)
async def test_numbers_are_searched(database_url: str, wanted: DidFilter, found: list[str]) -> None:
    async with numbers(database_url) as n:
        await n.order(MILANESE)
        assert [one.number for one in await n.supplies.dids.list(wanted)] == found


async def test_a_party_sees_what_it_may_order_and_what_it_has(database_url: str) -> None:
    async with numbers(database_url) as n:
        other = n.world.customer("other")
        await n.order()
        dids = n.supplies.dids
        everything = DidFilter()
        assert [d.number for d in await dids.list(everything, scope=other.id)] == [MILANESE, FREE]
        assert len(await dids.list(everything, scope=n.south.id)) == 3
        assert (await dids.get(ROMAN, scope=n.acme.id)).party == "acme"
        for work in (dids.get(ROMAN, scope=other.id), dids.history(ROMAN, scope=other.id)):
            with pytest.raises(NotFound):
                await work
        with pytest.raises(NotFound):
            await dids.release(ROMAN, actor="x", scope=other.id)
        with pytest.raises(NotFound):
            await n.order(MILANESE, "x", scope=other.id)
        with pytest.raises(Forbidden):
            await n.order(MILANESE, "x", scope=n.acme.id, supplier="sky")
        assert (await n.order(MILANESE, "x", scope=n.south.id)).status == "done"
        changed = await dids.set_destination(ROMAN, "sip:a@b", actor="x", scope=n.acme.id)
        assert changed.destination == "sip:a@b"
        await dids.release(ROMAN, actor="x", scope=n.acme.id)
        with pytest.raises(NotFound):
            await dids.get(ROMAN, scope=n.acme.id)


async def test_in_its_role_a_party_reads_its_own_rows_only(database_url: str) -> None:
    """Straight SQL, as if a service had forgotten every condition; never who supplies a number."""
    async with numbers(database_url) as n:
        other = n.world.customer("other")
        await n.order()
        seen = {}
        for scope in (n.acme.id, other.id):
            async with n.parts.database.read(scope=scope) as connection:
                for table in ("did", "did_event", "did_order", "recurring_fee", "commitment"):
                    cursor = await connection.execute(f"SELECT count(*) AS rows FROM {table}")
                    seen[scope, table] = (await cursor.fetchone())["rows"]
        assert [seen[n.acme.id, table] for table in ("did", "did_event", "did_order")] == [3, 2, 1]
        assert seen[n.acme.id, "recurring_fee"] == 1
        assert [count for (scope, _), count in seen.items() if scope == other.id] == [2, 0, 0, 0, 0]
        with pytest.raises(Forbidden):
            async with n.parts.database.read(scope=n.acme.id) as connection:
                await connection.execute("SELECT supplier_id FROM did")


async def test_where_calls_went_is_forgotten_with_the_release(database_url: str) -> None:
    async with numbers(database_url) as n:
        await n.order()
        await n.supplies.dids.set_destination(ROMAN, "sip:a@b", actor="x")
        await n.supplies.dids.release(ROMAN, actor="x")
        assert (await n.supplies.dids.get(ROMAN)).destination == ""


def pretend(n: Numbers, **settings: object) -> None:
    """A supplier of numbers that only pretends."""
    n.world.sql(
        "INSERT INTO supplier (code, kind, base_url, settings) VALUES ('sky', 'did', 'null:', %s)",
        Jsonb(settings),
    )


LONDON = "442071838750"


async def test_a_number_is_bought_from_a_supplier_and_given_back(database_url: str) -> None:
    """Its price class is 39, as if it were Italian: 5 for the set-up and 10 x 15/30."""
    async with numbers(database_url) as n:
        pretend(n)
        order = await n.order(LONDON, supplier="sky", item="39")
        assert (order.status, order.charge) == ("done", D(5))
        assert n.spent() == (D(10), D("6.5"), D(3))
        assert (await n.supplies.dids.get(LONDON)).supplier == "sky"
        with pytest.raises(Conflict, match="cannot be ordered"):
            await n.order(LONDON, "d2", supplier="sky")
        await n.supplies.dids.release(LONDON, actor="test")
        await n.run_until("2027-04-16T10:00")
        assert n.status(LONDON) == "released"
        assert (await n.order(LONDON, "d3", supplier="sky", item="39")).status == "done"
        await n.proven()


async def test_a_number_that_no_price_is_for_is_not_bought(database_url: str) -> None:
    async with numbers(database_url) as n:
        pretend(n)
        order = await n.order(LONDON, supplier="sky")
        assert (order.status, order.reason) == ("refused", "no_rate")
        assert n.world.one("SELECT count(*) FROM purchase") == 0
        assert n.status(LONDON) == "released"
        with pytest.raises(NotFound):
            await n.order("390699999999", "d2")
        with pytest.raises(NotFound):
            await n.order(LONDON, "d3", supplier="nobody")


async def test_a_supplier_that_refuses_costs_nothing_and_one_that_takes_its_time_is_waited_for(
    database_url: str,
) -> None:
    """The month that was charged comes back at every level; the second order is done by a job."""
    async with numbers(database_url) as n, platform() as sky:
        add_supplier(n.world, sky.url, kind="did")
        sky.state = "REJECTED"
        order = await n.order(LONDON, supplier="sky", item="39")
        assert (order.status, order.reason) == ("refused", "supplier_refused")
        assert (n.spent(), n.status(LONDON)) == ((D(0), D(0), D(0)), "released")
        sky.state = "PROCESSING"
        order = await n.order(LONDON, "d2", supplier="sky", item="39")
        assert (order.status, n.status(LONDON)) == ("pending", "ordered")
        for one in sky.orders.values():
            one["state"] = "COMPLETED"
        n.forward("2027-04-16T09:01")
        other = n.again()
        await other.purchases.advance()
        await n.run_until("2027-04-16T09:02", process=other)
        order = await n.order(LONDON, "d2", supplier="sky", item="39")
        assert (order.status, n.status(LONDON)) == ("done", "assigned")
        assert n.spent() == (D(10), D("6.5"), D(3))
        await n.proven()
