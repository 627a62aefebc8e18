"""Prepaid and postpaid, limits for a while, caps and alerts: all of it with calls up."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.services.money_world import (
    Clock,
    answered,
    audited,
    call,
    goes_on,
    prove,
    stop,
)
from tests.support import Customer, World, runtime, until
from tollkeeper.core.reasons import Reason
from tollkeeper.errors import Conflict, InvalidInput
from tollkeeper.jobs.terms import WalletTerms
from tollkeeper.services.alerts import Alerts
from tollkeeper.services.parties import change_party
from tollkeeper.services.verify import verify
from tollkeeper.services.wallet_terms import Temporary, change_terms, end_temporary
from tollkeeper.store.wallets import WalletRow

D = Decimal


async def terms(parts: Any, **changes: Any) -> WalletRow:
    return await change_terms(
        parts.database,
        party="acme",
        currency="USD",
        reason="agreed",
        actor="tester",
        now=parts.clock(),
        **changes,
    )


async def bill(parts: Any, billing: str) -> None:
    await change_party(parts.database, "acme", {"billing": billing}, actor="tester")


# --- prepaid and postpaid ------------------------------------------------------------------------


async def test_one_field_switches_to_postpaid_and_back_while_a_call_is_up(
    database_url: str,
) -> None:
    """1.00 of its own and 10.00 agreed: prepaid sees 100 seconds, postpaid 1100, on the same wallet."""
    with World(database_url) as world:
        acme = world.customer(balance="1", billing="prepaid")
        async with runtime(database_url) as parts:
            wallet = await terms(parts, credit_limit=D(10))
            assert (wallet.agreed_limit, wallet.credit_limit) == (10, 0)
            first = await call(parts, "a", 60)
            assert first.granted_seconds == 60
            assert (await call(parts, "b", 60)).granted_seconds == 40
            assert (await call(parts, "c")).reason is Reason.INSUFFICIENT_FUNDS
            await bill(parts, "postpaid")
            assert world.wallet(acme).credit_limit == 10
            assert (await call(parts, "d", 900)).granted_seconds == 900
            await answered(parts, "a")
            assert (await goes_on(parts, "a", 30)).granted_seconds > 60
            await stop(parts, "a", 60)
            await stop(parts, "b", 0)
            await stop(parts, "d", 900)
            assert world.wallet(acme).balance == D("-8.6")
            await prove(parts)


async def test_a_switch_to_prepaid_leaves_less_than_nothing_and_calls_end_with_their_grant(
    database_url: str,
) -> None:
    """The call that is up keeps what it was granted and gets no more; the next one is refused."""
    with World(database_url) as world:
        acme = world.customer(balance="1", credit_limit="10")
        async with runtime(database_url) as parts:
            granted = await call(parts, "a", 300)
            assert granted.granted_seconds == 300
            await answered(parts, "a")
            await bill(parts, "prepaid")
            wallet = world.wallet(acme)
            assert (wallet.credit_limit, wallet.available) == (0, -2)
            assert (await call(parts, "b")).reason is Reason.INSUFFICIENT_FUNDS
            assert (await goes_on(parts, "a", 200)).granted_seconds == 300
            await prove(parts)
            world.sql("UPDATE wallet SET limit_peak = 0")
            report = await verify(parts.database)
            assert report.found == {"I7.overspent": 1}, "had the limit never been higher"
            world.sql("UPDATE wallet SET limit_peak = 10")
            assert (await stop(parts, "a", 300)).charge == 3
            assert world.wallet(acme).balance == -2
            await prove(parts)


async def test_both_processes_that_race_over_a_switch_agree_with_the_last_one(
    database_url: str,
) -> None:
    """Switches and new agreed limits at once: in the end the limit is what the terms say."""
    with World(database_url) as world:
        acme = world.customer(balance="0")
        async with runtime(database_url) as parts:
            await asyncio.gather(
                *(bill(parts, ("prepaid", "postpaid")[n % 2]) for n in range(12)),
                *(terms(parts, credit_limit=D(n)) for n in range(1, 9)),
                return_exceptions=False,
            )
            (row,) = world.sql("SELECT w.*, p.billing FROM wallet w, party p WHERE p.code = 'acme'")
            assert row["credit_limit"] == (
                0 if row["billing"] == "prepaid" else row["agreed_limit"]
            )
            assert row["id"] == acme.wallet_id
            assert world.one("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0  # fmt: skip


async def test_a_lower_agreed_limit_must_cover_what_is_used(database_url: str) -> None:
    with World(database_url) as world:
        world.customer(balance="0", credit_limit="10")
        async with runtime(database_url) as parts:
            await call(parts, "a", 300)
            with pytest.raises(Conflict, match=r"it takes 3\.00 at least"):
                await terms(parts, credit_limit=D("2.99"))
            assert (await terms(parts, credit_limit=D(3))).available == 0


# --- more limit for a while ----------------------------------------------------------------------


async def test_a_temporary_limit_counts_at_once_and_is_taken_back_once(database_url: str) -> None:
    """Two processes look at the same moment: one takes it back, and the audit trail says so once."""
    clock = Clock()
    with World(database_url) as world:
        acme = world.customer(balance="0", credit_limit="1")
        async with runtime(database_url, clock=clock) as parts:
            end = clock() + timedelta(hours=1)
            wallet = await terms(parts, temporary=Temporary(D(5), end))
            assert (wallet.agreed_limit, wallet.temp_limit, wallet.credit_limit) == (1, 5, 6)
            assert (await call(parts, "a", 600)).granted_seconds == 600
            await answered(parts, "a")
            assert await end_temporary(parts.database, clock(), 10) == 0
            clock.forward(hours=1)
            await asyncio.gather(*(end_temporary(parts.database, clock(), 10) for _ in range(4)))
            now = world.wallet(acme)
            assert (now.credit_limit, now.available) == (1, -5)
            assert (await call(parts, "b")).reason is Reason.INSUFFICIENT_FUNDS
            await stop(parts, "a", 600)
            assert world.wallet(acme).balance == -6
            await prove(parts)
            _, ended = audited(world, "wallet.terms")
            assert ended["actor"] == "limits"
            assert ended["detail"]["temp_limit"] == ["5.00", "0.00"]
            assert ended["detail"]["credit_limit"] == ["6.00", "1.00"]


async def test_the_job_takes_a_temporary_limit_back_within_a_second(database_url: str) -> None:
    with World(database_url) as world:
        acme = world.customer(balance="0")
        async with runtime(database_url) as parts:
            loop = asyncio.get_running_loop()
            await terms(
                parts, temporary=Temporary(D(5), parts.clock() + timedelta(milliseconds=300))
            )
            job = WalletTerms(database=parts.database, clock=parts.clock)
            job.start()
            try:
                began = loop.time()
                await until(lambda: world.wallet(acme).credit_limit == 0, seconds=10)
                assert loop.time() - began < 3, (
                    "0.3 s until its end and a second, on a busy machine"
                )
            finally:
                await job.stop()


async def test_a_prepaid_party_gets_no_limit_by_a_temporary_one(database_url: str) -> None:
    with World(database_url) as world:
        world.customer(balance="0", billing="prepaid")
        async with runtime(database_url) as parts:
            later = parts.clock() + timedelta(hours=1)
            assert (await terms(parts, temporary=Temporary(D(5), later))).credit_limit == 0
            assert (await terms(parts, temporary=None)).temp_until is None
            with pytest.raises(InvalidInput, match=r"temporary_limit\.until"):
                await terms(parts, temporary=Temporary(D(5), parts.clock()))


# --- caps and alerts -----------------------------------------------------------------------------


async def test_a_cap_bounds_the_day_whatever_the_balance_and_a_higher_one_counts_at_once(
    database_url: str,
) -> None:
    """100.00 in the wallet, 1.00 a day: a hundred seconds and no more, until the cap is raised."""
    with World(database_url) as world:
        acme = world.customer(balance="100")
        async with runtime(database_url) as parts:
            await terms(parts, daily_cap=D(1))
            await until(lambda: bool(parts.directory.party("acme").caps))
            assert (await call(parts, "a", 70)).granted_seconds == 70
            assert (await call(parts, "b", 70)).granted_seconds == 30
            assert (await call(parts, "c")).reason is Reason.SPEND_LIMIT
            before = world.meter(acme, "spend")
            await terms(parts, daily_cap=D(2))
            after = world.meter(acme, "spend")
            assert (after["cap"], after["stamp"]) == (2, before["stamp"] + 1)
            assert (await call(parts, "d", 300)).granted_seconds == 100
            for name, used in (("a", 70), ("b", 30), ("d", 100)):
                await stop(parts, name, used)
            assert world.meter(acme, "spend")["used"] == 2
            assert world.wallet(acme).balance == 98
            await prove(parts)


def alerts(world: World) -> list[tuple[str, int]]:
    rows = world.sql("SELECT payload FROM outbox WHERE kind = 'wallet.alert' ORDER BY id")
    return [(row["payload"]["of"], row["payload"]["percent"]) for row in rows]


def use(world: World, customer: Customer, amount: str) -> None:
    """As live calls would."""
    world.sql(
        "UPDATE wallet SET held = %s, stamp = stamp + 1 WHERE id = %s",
        D(amount),
        customer.wallet_id,
    )


async def test_each_percent_of_the_limit_is_told_once_and_again_after_the_use_has_fallen(
    database_url: str,
) -> None:
    """Two processes look; each crossing is one event, however the use goes up and down around it."""
    with World(database_url) as world:
        acme = world.customer(balance="0", credit_limit="10")
        async with runtime(database_url) as parts:
            await terms(parts, alert_at=[80, 50, 100, 50])
            lookers = [Alerts(parts.database), Alerts(parts.database)]

            async def at(amount: str) -> list[tuple[str, int]]:
                use(world, acme, amount)
                await asyncio.gather(*(one.look(parts.clock()) for one in lookers))
                return alerts(world)

            assert await at("4.99") == []
            assert await at("5") == [("limit", 50)]
            assert await at("4.6") == [("limit", 50)]
            assert await at("8.5") == [("limit", 50), ("limit", 80)]
            assert await at("7.6") == [("limit", 50), ("limit", 80)]
            assert len(await at("9")) == 2
            assert len(await at("7.4")) == 2
            assert (await at("10"))[2:] == [("limit", 80), ("limit", 100)]
            detail = world.one("SELECT detail FROM outbox ORDER BY id LIMIT 1")
            assert detail == "acme has used 50 % of its credit limit: 5.00 of 10.00 USD"


async def test_crossings_of_a_cap_are_told_once_a_period(database_url: str) -> None:
    with World(database_url) as world:
        world.customer(balance="100")
        async with runtime(database_url) as parts:
            await terms(parts, daily_cap=D(1), alert_at=[50, 100])
            await until(lambda: bool(parts.directory.party("acme").caps))
            looker = Alerts(parts.database)
            await call(parts, "a", 60)
            assert await looker.look(parts.clock()) == 1
            await stop(parts, "a", 10)
            assert await looker.look(parts.clock()) == 0
            await call(parts, "b", 90)
            assert await looker.look(parts.clock()) == 1
            assert alerts(world) == [("USD/day", 50), ("USD/day", 100)]
            assert await Alerts(parts.database).look(parts.clock()) == 0, "another process"


async def test_a_running_process_tells_of_a_crossing_by_itself(database_url: str) -> None:
    """Nobody asks: the job sees it within a second or two, and the outbox delivers it."""
    with World(database_url) as world:
        world.customer(balance="0", credit_limit="1")
        async with runtime(database_url, jobs=True) as parts:
            await terms(parts, alert_at=[50])
            await call(parts, "a", 60)
            done = "SELECT count(*) FROM outbox WHERE kind = 'wallet.alert' AND done_at IS NOT NULL"
            await until(lambda: world.one(done) == 1, what="the alert is delivered")
            await stop(parts, "a", 10)
            await prove(parts)


@pytest.mark.parametrize("percents", [[0], [101], list(range(1, 12))])
async def test_percents_out_of_bounds_are_refused(database_url: str, percents: list[int]) -> None:
    with World(database_url) as world:
        world.customer()
        async with runtime(database_url) as parts:
            with pytest.raises(InvalidInput, match=r"^alert_at: "):
                await terms(parts, alert_at=percents)
