"""The proof of the books: silent on sound ones, and naming each fault that is put into them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from tests.support import BLOCKED, UK_FIXED, UK_MOBILE, Customer, World, runtime
from tollkeeper.services.verify import VerifyReport, park_breached, verify
from tollkeeper.store.db import Database


@dataclass
class Books:
    """Some of everything: settled, released, refused, overrun, late and live sessions."""

    world: World
    customer: Customer
    database: Database
    charging: Any

    async def verify(self, **options: Any) -> VerifyReport:
        """Verify the database."""
        return await verify(self.database, **options)

    async def codes(self, **options: Any) -> set[str]:
        """The codes of what verify finds."""
        return set((await self.verify(**options)).found)


async def call(charging: Any, name: str, called: str, used_seconds: int | None, **more: Any) -> Any:
    """Authorise and, where a usage is given, stop a call."""
    reply, _ = await charging.authorise(
        switch="sw1", session_id=name, party="acme", called=called, requested_seconds=60, **more
    )
    if used_seconds is not None:
        reply, _ = await charging.stop(
            switch="sw1", session_id=name, used_ms=used_seconds * 1000, cause="16"
        )
    return reply


@pytest.fixture
async def books(database_url: str) -> AsyncIterator[Books]:
    """Sound books with a bit of everything in them."""
    world = World(database_url)
    customer = world.customer(balance="100")
    async with runtime(database_url) as parts:
        for number in range(20):
            await call(parts.charging, f"call-{number}", UK_FIXED, number)
        await call(parts.charging, "mobile", UK_MOBILE, 61)
        await call(parts.charging, "over", UK_FIXED, 90)
        await call(parts.charging, "late", UK_FIXED, 10)
        await parts.charging.update(switch="sw1", session_id="late", used_ms=12_000)
        await call(parts.charging, "refused", BLOCKED, None)
        await call(parts.charging, "live", UK_FIXED, None)
        await call(parts.charging, "talking", UK_FIXED, None)
        await parts.charging.start(switch="sw1", session_id="talking")
        await parts.charging.update(switch="sw1", session_id="talking", used_ms=30_000)
        yield Books(world, customer, parts.database, parts.charging)
    world.close()


async def test_sound_books_are_found_clean_and_counted(books: Books) -> None:
    """Nothing is found, everything was looked at, and each currency adds up to zero."""
    steps: list[tuple[str, int, int]] = []
    report = await verify(books.database, lambda *step: steps.append(step))
    assert report.clean, report.findings
    assert (report.wallets, report.live_sessions, report.closed_sessions) == (1, 2, 24)
    # The top-up, 19 calls within their hold, two above it and one with late usage: two lines each.
    assert report.entries == 1 + 19 + 3 * 2
    assert report.messages == 20 * 2 + 2 + 2 + 3 + 1 + 1 + 3
    (book,) = report.books
    assert book.wallets == books.world.wallet(books.customer).balance > 0
    assert book.wallets + book.revenue + book.clearing + book.adjustment + book.cost == 0
    assert [done for step, done, total in steps if done == total]
    assert report.breached == ()


async def test_an_empty_database_is_clean(database_url: str) -> None:
    """There is nothing that could be wrong."""
    database = Database(database_url)
    await database.open()
    try:
        report = await verify(database)
    finally:
        await database.close()
    assert report.clean
    assert report.books == ()


FAULTS = {
    "a wallet credited without an entry": (
        "UPDATE wallet SET credited = credited + 1",
        {"I3.credited", "I3.last_balance", "I1.balance"},
    ),
    "a wallet debited twice": (
        "UPDATE wallet SET debited = debited + 0.01, version = version + 1",
        {"I3.debited", "I3.version", "I3.last_balance", "I1.balance"},
    ),
    "an entry removed": (
        "DELETE FROM entry WHERE wallet_version = 5",
        {"I3.debited", "I3.version", "I3.gap", "I3.balances", "I19.entries", "I1.balance"},
    ),
    "an amount changed": (
        "UPDATE entry SET amount = amount + 0.01 WHERE wallet_version = 5",
        {"I3.debited", "I3.balances", "I19.entries", "I1.balance"},
    ),
    "a balance rewritten": (
        "UPDATE entry SET balance_after = balance_after - 1 WHERE wallet_version = 7",
        {"I3.balances"},
    ),
    "a hold that was never given back": ("UPDATE wallet SET held = held + 3", {"I8.held"}),
    "a live session counted that is gone": ("UPDATE wallet SET live = live + 1", {"I8.live"}),
    "a hold that vanished with its session": (
        "DELETE FROM live_session WHERE key = 'sw1/live'",
        {"I8.held", "I8.live", "I14.other"},
    ),
    "an entry between the wrong accounts": (
        "UPDATE entry SET code = 'withdrawal' WHERE wallet_version = 5",
        {"I5.pair", "I19.entries"},
    ),
    "an account in another currency": (
        "UPDATE account SET currency = 'EUR' WHERE kind = 'revenue'",
        {"I1.currency", "I1.balance"},
    ),
    "a charge that is not the price of the usage": (
        """UPDATE closed_session SET body = jsonb_set(body::jsonb, '{used_ms}', '1000')::json
           WHERE key = 'sw1/call-7'""",
        {"I15.charge"},
    ),
    "a charge column that differs": (
        "UPDATE closed_session SET charge = charge + 1 WHERE key = 'sw1/call-7'",
        {"I19.row"},
    ),
    "a closed session removed": (
        "DELETE FROM closed_session WHERE key = 'sw1/call-7'",
        {"I19.stray", "I14.other"},
    ),
    "a message removed": (
        """DELETE FROM session_message WHERE version = 1
           AND session_id = (SELECT id FROM closed_session WHERE key = 'sw1/mobile')""",
        {"I14.steps"},
    ),
    "a session that nobody closed": (
        """UPDATE live_session SET expires_at = now() - interval '1 hour',
           body = jsonb_set(body::jsonb, '{expires_at}', to_jsonb(now() - interval '1 hour'))::json
           WHERE key = 'sw1/live'""",
        {"I12.overdue"},
    ),
    "a grant longer than its hold": (
        """UPDATE live_session SET body = jsonb_set(body::jsonb, '{granted_seconds}', '600')::json
           WHERE key = 'sw1/live'""",
        {"I9.grant"},
    ),
    "money spent that is not there": (
        "UPDATE wallet SET credited = 20.0, version = version",
        {"I3.credited", "I3.last_balance", "I1.balance"},
    ),
    "a call that is both live and closed": (
        """INSERT INTO closed_session (opened_day, id, key, party_id, closed_at, ending, charge, version, body)
           SELECT opened_day, gen_random_uuid(), key, party_id, now(), 'released', 0, 1, body
           FROM live_session WHERE key = 'sw1/live'""",
        {"I16.twice", "I14.steps", "I8.open", "I8.held", "I19.row"},
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_each_fault_put_into_the_books_is_named(books: Books, fault: str) -> None:
    """I1 to I19: what somebody changes behind the program's back is found, by its own code."""
    change, expected = FAULTS[fault]
    books.world.sql("SET session_replication_role = replica")  # so that the journal can be changed
    books.world.sql(change)
    found = await books.codes()
    assert expected <= found
    # Nothing unrelated is claimed: what else is found must be about the same kind of thing.
    assert {code.partition(".")[0] for code in found} <= (
        {code.partition(".")[0] for code in expected} | {"I7", "I8", "I19"}
    )


async def test_overspending_is_found_unless_it_was_overrun_or_late(books: Books) -> None:
    """I7: only what was used above a hold or after the end may take a wallet below its limit."""
    wallet = books.world.wallet(books.customer)
    books.world.sql("SET session_replication_role = replica")
    books.world.sql("UPDATE entry SET amount = %s WHERE code = 'topup'", wallet.debited)
    books.world.sql("UPDATE wallet SET credited = debited")
    # 0.30 was overrun and 0.02 late, but 1.20 is held for the two live calls.
    assert "I7.overspent" in await books.codes()


async def test_a_session_may_be_overdue_for_as_long_as_patience_says(books: Books) -> None:
    """The clock that is compared with can be given: demonstrations run theirs faster."""
    later = (await books.verify()).at + timedelta(minutes=30)
    assert await books.codes(now=later) == {"I12.overdue"}
    assert await books.codes(now=later, patience=timedelta(hours=1)) == set()


async def test_verify_itself_changes_nothing(books: Books) -> None:
    """The proof runs in a transaction that cannot write."""
    from tollkeeper.store.verify import one_moment

    with pytest.raises(Exception, match="read-only transaction"):
        async with one_moment(books.database) as connection:
            await connection.execute("UPDATE wallet SET parked = true")


async def test_a_breached_wallet_is_parked_once_and_refuses_new_calls(books: Books) -> None:
    """I20: a breach stops the wallet that it concerns, is written down, and repairs nothing."""
    other = books.world.customer("other", balance="5")
    books.world.sql("UPDATE wallet SET held = held + 3 WHERE id = %s", books.customer.wallet_id)
    before = books.world.wallet(books.customer)
    report = await books.verify()
    assert [(w.party, w.currency) for w in report.breached] == [("acme", "USD")]
    stopped = await park_breached(books.database, report, actor="test")
    assert [w.party for w in stopped] == ["acme"]
    after = books.world.wallet(books.customer)
    assert (after.parked, after.stamp) == (True, before.stamp + 1)
    assert (after.held, after.balance) == (before.held, before.balance)
    assert not books.world.wallet(other).parked
    rows = books.world.sql("SELECT subject, actor FROM audit")
    assert [(row["subject"], row["actor"]) for row in rows] == [("wallet acme/USD", "test")]
    reply = await call(books.charging, "after-parking", UK_FIXED, None)
    assert (reply.outcome.value, reply.reason.value) == ("refused", "wallet_parked")
    again = await books.verify()
    assert again.found.keys() == {"I8.held"}
    assert await park_breached(books.database, again, actor="test") == ()
    # What is up goes on to its end.
    reply, _ = await books.charging.stop(switch="sw1", session_id="talking", used_ms=31_000)
    assert str(reply.charge) == "0.310000"


async def test_late_usage_is_no_breach_even_when_the_wallet_is_below_zero(
    database_url: str,
) -> None:
    """F2, F8: overrun takes the wallet below zero, in the books and in order."""
    with World(database_url) as world:
        customer = world.customer(balance="0.60")
        async with runtime(database_url) as parts:
            await call(parts.charging, "only", UK_FIXED, 3600)
            assert world.wallet(customer).balance < 0
            report = await verify(parts.database)
    assert report.clean, report.findings
