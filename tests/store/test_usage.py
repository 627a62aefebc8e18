"""Writing records into the books: days, rows, files, keys, halves and money."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from tests.store.usage_frames import (
    UNITS,
    hour_frame,
    leg_frame,
    record,
    revision_frame,
    usage_frame,
)  # fmt: skip
from tests.support import UK_FIXED, World, runtime
from tollkeeper.core.ledger import Code
from tollkeeper.core.usage import Half, Usage
from tollkeeper.errors import Breach
from tollkeeper.services.verify import verify
from tollkeeper.store import usage as store
from tollkeeper.store import usage_files as files
from tollkeeper.store.db import OPTIONS, Connection, Database
from tollkeeper.store.usage import WalletSum
from tollkeeper.store.usage_files import Counts, NewBatch, NewFile, StoredHalf

NOON = datetime(2024, 2, 29, 12, 0, tzinfo=UTC)
DAY = NOON.date()
FILE = NewFile("sw1", "day.csv", "ab" * 32, 1000, "csv", {"format": "csv"}, actor="test")


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[Connection]:
    """A connection as services have it."""
    async with await connect(database_url) as opened:
        yield opened


async def connect(url: str) -> Connection:
    """A connection in autocommit."""
    return await AsyncConnection.connect(
        url, row_factory=dict_row, options=OPTIONS, autocommit=True
    )


async def rows_of(connection: Connection, query: str, *values: Any) -> list[dict[str, Any]]:
    """The rows that a query answers."""
    return await (await connection.execute(query.encode(), values or None)).fetchall()


async def a_batch(connection: Connection, kind: str = "load", **values: Any) -> int:
    """Enter a batch."""
    return await files.add_batch(connection, NewBatch(kind, NOON, **values))


# --- days ----------------------------------------------------------------------------------------


async def test_days_of_the_past_get_their_partitions_once(connection: Connection) -> None:
    """Apart or in a row, in any order; a second time there is nothing to make."""
    days = [
        date(2019, 5, 3),
        date(2019, 5, 1),
        date(2019, 5, 2),
        date(1999, 1, 1),
        date(2019, 5, 1),
    ]
    assert await store.ensure_days(connection, days) == 4 * len(store.DAILY)
    assert await store.ensure_days(connection, days) == 0
    await store.copy_usage(connection, 7, usage_frame([record(datetime(1999, 1, 1, tzinfo=UTC))]))
    (row,) = await rows_of(connection, "SELECT day, batch_id FROM usage")
    assert row == {"day": date(1999, 1, 1), "batch_id": 7}


async def test_days_that_several_make_at_once_are_made_once(database_url: str) -> None:
    """Each has looked at the tables before: what it remembers of them is older than the others' work."""
    connections = [await connect(database_url) for _ in range(6)]
    try:
        for number in range(4):
            days = [DAY + timedelta(days=n) for n in range(3 * number, 3 * number + 3)]
            made = await asyncio.gather(*(store.ensure_days(one, days) for one in connections))
            assert sorted(made) == [0] * 5 + [3 * len(store.DAILY)]
    finally:
        for one in connections:
            await one.close()


async def test_a_day_that_was_made_in_part_is_completed(connection: Connection) -> None:
    """Somebody may have made one table's partition and not the others'."""
    await connection.execute("SELECT ensure_partitions(ARRAY['usage'], %s, 1)", (DAY,))
    assert await store.ensure_days(connection, [DAY]) == len(store.DAILY) - 1


async def test_partitions_are_made_while_the_tables_are_read_and_written(
    database_url: str, connection: Connection
) -> None:
    """A long report or another load neither waits for a new day nor makes it wait."""
    await store.ensure_days(connection, [DAY])
    async with await connect(database_url) as other, other.transaction():
        await other.execute("SELECT count(*) FROM usage")
        await store.copy_usage(other, 1, usage_frame([record(NOON)]))
        await connection.execute("SET lock_timeout = '1ms'")
        made = await store.ensure_days(connection, [DAY + timedelta(days=1)])
    assert made == len(store.DAILY)


async def test_records_of_a_day_without_a_partition_are_refused(connection: Connection) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable, match="usage_20240229"):
        await store.copy_usage(connection, 1, usage_frame([record(NOON)]))


# --- rows ----------------------------------------------------------------------------------------


async def test_a_record_is_stored_with_all_its_columns(connection: Connection) -> None:
    """Each column of the frame is found in the column of its name, in the partition of its day."""
    await store.ensure_days(connection, [DAY, DAY + timedelta(days=1)])
    one = record(
        NOON, line=3, answer_at=None, duration_ms=61_500, call_id="x\x00y", leg="a", caller="39055",
        customer_id=1, vendor_id=2, trunk_in=3, trunk_out=4, sip=200, q850=16, pdd_ms=1200, mos=431,
        state="matched", session_id=str(uuid.UUID(int=5)), sell_wallet=6, sell_version=7, sell_row=8,
        sell_billed=62, charge=-123_456_789, buy_wallet=9, buy_version=10, buy_row=11,
        buy_prefix="4420", buy_billed=60, cost=5 * UNITS,
    )  # fmt: skip
    two = record(NOON + timedelta(days=1), line=4)
    assert await store.copy_usage(connection, 9, usage_frame([one, two])) == 2
    stored, other = await rows_of(connection, "SELECT * FROM usage ORDER BY line")
    assert stored == {
        **one,
        "batch_id": 9,
        "start_at": NOON,
        "answer_at": NOON,
        "call_id": "x\u2400y",
        "session_id": uuid.UUID(int=5),
        "charge": Decimal("-1.23456789"),
        "cost": Decimal(5),
    }
    assert (other["sip"], other["session_id"], other["answer_at"]) == (None, None, None)
    (count,) = await rows_of(connection, "SELECT count(*) AS n FROM usage_20240301")
    assert count["n"] == 1


async def test_legs_revisions_hours_and_mismatches_are_stored(connection: Connection) -> None:
    """Each into its own table, with the numbers of the batch."""
    await store.ensure_days(connection, [DAY])
    await store.copy_legs(connection, 4, leg_frame([{"day": DAY, "wallet_id": 3, "charge": UNITS}]))
    revision = {"day": DAY, "batch_id": 4, "leg": 1, "amount": 2 * UNITS, "was": UNITS}
    await store.copy_revisions(connection, 5, revision_frame([revision]))
    hours = hour_frame([record(NOON, duration_ms=1000, charge=UNITS, sell_wallet=3)], {3: "USD"})
    await store.copy_hours(connection, 4, hours)
    noted = pl.DataFrame(
        {
            "kind": ["long_call"], "day": [DAY], "line": [8], "call_id": ["c"], "customer_id": [1],
            "vendor_id": [0], "session_id": [None], "expected": ["1"], "found": ["2"],
            "detail": [""],
        }
    )  # fmt: skip
    await store.copy_mismatches(connection, noted, batch_id=4, file_id=None, at=NOON)
    (leg,) = await rows_of(connection, "SELECT batch_id, wallet_id, charge FROM usage_leg")
    assert leg == {"batch_id": 4, "wallet_id": 3, "charge": 1}
    (row,) = await rows_of(connection, "SELECT batch_id, by_batch, amount, was FROM usage_revision")
    assert row == {"batch_id": 4, "by_batch": 5, "amount": 2, "was": 1}
    (hour,) = await rows_of(
        connection, "SELECT hour, attempts, revenue, sell_currency FROM usage_hour"
    )
    assert hour == {"hour": NOON, "attempts": 1, "revenue": 1, "sell_currency": "USD"}
    (miss,) = await rows_of(connection, "SELECT kind, batch_id, file_id, at FROM cdr_mismatch")
    assert miss == {"kind": "long_call", "batch_id": 4, "file_id": None, "at": NOON}


async def test_quarantined_records_keep_what_they_were(connection: Connection) -> None:
    """Any bytes that a switch may write end in the table, NUL too; no record is NULL."""
    batch = await a_batch(connection, counts=Counts(records=2, quarantined=2))
    held = pl.DataFrame(
        {
            "line": [1, 2], "reason": ["malformed", "no_rate"], "field": ["start", "called"],
            "value": ["\x00", "999"], "detail": ["no time", "no rate"], "raw": ["a\x00;b", ""],
            "record": [None, '{"call_id":"a\\u0000b"}'],
        }
    )  # fmt: skip
    await store.copy_quarantine(
        connection, held, batch_id=batch, file_id=None, switch="sw1", at=NOON
    )
    one, two = await rows_of(connection, "SELECT * FROM cdr_quarantine ORDER BY line")
    assert (one["value"], one["raw"], one["record"]) == ("\u2400", "a\u2400;b", None)
    assert (two["record"], two["status"], two["switch"]) == ({"call_id": "a\u2400b"}, "open", "sw1")


async def test_hourly_sums_are_put_together_and_stay_the_same(connection: Connection) -> None:
    """What was added and taken back vanishes, everything else is one row a group."""
    await store.ensure_days(connection, [DAY])
    rows = [
        record(NOON, duration_ms=1000, charge=UNITS),
        record(NOON + timedelta(minutes=59), duration_ms=500, charge=2 * UNITS, pdd_ms=300),
        record(NOON + timedelta(hours=1), q850=17),
    ]
    for batch in (1, 2):
        await store.copy_hours(connection, batch, hour_frame(rows, {}))
    gone = hour_frame([record(NOON, customer_id=8, charge=UNITS)], {})
    await store.copy_hours(connection, 3, gone)
    negative = gone.with_columns(-pl.col(name) for name in store.MEASURES)
    await store.copy_hours(connection, 4, negative)
    query = "SELECT hour, sum(attempts) AS n, sum(revenue) AS r, sum(pdd_ms) AS p, sum(effective) AS e FROM usage_hour GROUP BY 1 ORDER BY 1"
    before = await rows_of(connection, query)
    assert [(row["n"], row["r"], row["p"], row["e"]) for row in before] == [
        (4, 6, 600, 4),
        (2, 0, 0, 2),
    ]
    assert await store.compact_hours(connection, DAY) == 0
    assert await store.compact_hours(connection, DAY + timedelta(days=1)) == 4
    assert await store.compact_hours(connection, DAY + timedelta(days=1)) == 0
    assert await rows_of(connection, query) == before
    (count,) = await rows_of(connection, "SELECT count(*) AS n, max(batch_id) AS b FROM usage_hour")
    assert count == {"n": 2, "b": 0}


# --- files ---------------------------------------------------------------------------------------


async def test_one_loads_a_switch_at_a_time(database_url: str, connection: Connection) -> None:
    """Others are told at once; another switch is free; closing the connection frees it."""
    first = await connect(database_url)
    assert await files.lock_switch(first, "sw1")
    assert not await files.lock_switch(connection, "sw1")
    assert await files.lock_switch(connection, "sw2")
    await files.unlock_switch(first, "sw1")
    assert await files.lock_switch(connection, "sw1")
    await first.close()


async def test_the_number_of_the_lock_is_the_same_in_every_release() -> None:
    """Two processes of different releases must not load one switch at a time."""
    assert files.lock_key("sw1") == 5564927464411919364


async def test_a_file_is_known_by_its_content(connection: Connection) -> None:
    """The same content under another name is the same file; on another switch it is not."""
    one = await files.open_file(connection, FILE, NOON)
    again = await files.open_file(connection, replace(FILE, name="copy.csv"), NOON)
    other = await files.open_file(connection, replace(FILE, switch="sw2"), NOON)
    assert one == again
    assert one.mapping == {"format": "csv"}
    assert (one.status, one.offset_bytes, one.lines_done, one.created_at) == ("loading", 0, 0, NOON)
    assert other.id != one.id
    assert await files.find_file(connection, "sw1", FILE.sha256) == one
    assert await files.find_file(connection, "sw3", FILE.sha256) is None
    assert await files.read_file(connection, other.id) == other


async def test_a_file_that_was_rolled_back_may_come_again(connection: Connection) -> None:
    one = await files.open_file(connection, FILE, NOON)
    await files.end_file(connection, one.id, "rolled_back", at=NOON)
    assert await files.find_file(connection, "sw1", FILE.sha256) is None
    assert (await files.open_file(connection, FILE, NOON)).id != one.id


async def test_a_file_moves_on_part_by_part(connection: Connection) -> None:
    """Counts add up; who stands at another line is refused, and so is a file that has ended."""
    file = await files.open_file(connection, FILE, NOON)
    counts = Counts(records=10, rated=6, matched=1, duplicate=2, quarantined=1, skipped=3)
    await files.advance_file(connection, file, offset=500, line=13, counts=counts)
    with pytest.raises(Breach, match=r"day\.csv does not stand at line 0 any more"):
        await files.advance_file(connection, file, offset=500, line=13, counts=counts)
    file = await files.open_file(connection, FILE, NOON)
    assert (file.offset_bytes, file.lines_done, file.records, file.skipped) == (500, 13, 10, 3)
    await files.advance_file(connection, file, offset=1000, line=26, counts=counts)
    await files.end_file(connection, file.id, "failed", at=NOON, error="the disk is full")
    failed = await files.read_file(connection, file.id)
    assert failed is not None
    assert (failed.status, failed.error, failed.ended_at) == ("failed", "the disk is full", NOON)
    assert (failed.records, failed.rated, failed.quarantined) == (20, 12, 2)
    with pytest.raises(Breach):
        await files.advance_file(connection, failed, offset=1000, line=27, counts=counts)
    assert await files.resume_file(connection, file.id)
    assert not await files.resume_file(connection, file.id)


async def test_a_file_whose_records_do_not_add_up_is_refused(connection: Connection) -> None:
    """The table itself holds that no record is lost."""
    file = await files.open_file(connection, FILE, NOON)
    with pytest.raises(psycopg.errors.CheckViolation):
        await files.advance_file(connection, file, offset=1, line=1, counts=Counts(records=1))


async def test_batches_are_numbered_and_taken_back_once(connection: Connection) -> None:
    file = await files.open_file(connection, FILE, NOON)
    first = await a_batch(connection, file_id=file.id, counts=Counts(records=1, rated=1))
    second = await a_batch(connection, file_id=file.id, summary={"days": 1})
    assert second > first
    back = await a_batch(connection, "rollback", file_id=file.id)
    assert await files.undo_batches(connection, [first, second], back) == 2
    assert await files.undo_batches(connection, [first, second, back], back) == 0
    assert await files.batches_of_file(connection, file.id) == {
        first: back, second: back, back: None,
    }  # fmt: skip


# --- halves and keys -----------------------------------------------------------------------------


async def test_halves_wait_until_the_other_one_comes(connection: Connection) -> None:
    """A begin keeps its call; the first of two with one key stays; what is joined is gone."""
    file = await files.open_file(connection, FILE, NOON)
    usage = Usage(1, "a\x00b", 10**15, 0, price=Decimal("0.10"))
    begin = Half(1, "k1", True, 10**15 + 1, "INVITE \x00", usage)
    end = Half(2, "k2", False, 10**15 + 2, "BYE")
    waiting = [StoredHalf(begin, file.id), StoredHalf(end, file.id)]
    assert await files.replace_halves(connection, "sw1", joined=[], waiting=waiting) == 2
    again = [StoredHalf(replace_half(end, line=9), file.id)]
    assert await files.replace_halves(connection, "sw1", joined=[], waiting=again) == 0
    kept = Half(
        1,
        "k1",
        True,
        10**15 + 1,
        "INVITE \u2400",
        Usage(1, "a\u2400b", 10**15, 0, price=Decimal("0.10")),
    )
    assert await files.read_halves(connection, "sw1") == [StoredHalf(kept, file.id), waiting[1]]
    assert await files.read_halves(connection, "sw1", ["k2", "k3"]) == [waiting[1]]
    assert await files.read_halves(connection, "sw2") == []
    await files.replace_halves(connection, "sw1", joined=[("k1", True), ("k2", True)], waiting=[])
    assert await files.read_halves(connection, "sw1") == [waiting[1]]


def replace_half(half: Half, **values: Any) -> Half:
    """A half with other values."""
    return Half(**{name: values.get(name, getattr(half, name)) for name in Half.__struct_fields__})


async def test_keys_are_read_from_where_one_stopped(connection: Connection) -> None:
    """By day and switch; those of a batch that is taken back are forgotten."""
    await store.ensure_days(connection, [DAY])
    assert len(await store.read_secret(connection)) == 16
    for batch, switch in ((1, "sw1"), (2, "sw2"), (3, "sw1")):
        keys = bytes([batch] * 16)
        await store.add_keys(connection, batch, switch, DAY, keys=keys, matches=b"\x00\xff")
    one, three = await store.read_keys(connection, DAY, "sw1")
    assert (one.batch_id, one.keys, one.matches) == (1, b"\x01" * 16, b"\x00\xff")
    assert await store.read_keys(connection, DAY, "sw1", after_id=one.id) == [three]
    assert await store.drop_keys(connection, [1, 2]) == 2
    assert await store.read_keys(connection, DAY, "sw1") == [three]


# --- money ---------------------------------------------------------------------------------------


async def test_a_batch_posts_one_entry_a_sum_and_the_books_stay_sound(
    database_url: str, connection: Connection
) -> None:
    """Gapless versions after what is there, balances in a chain, both ways, both accounts."""
    with World(database_url) as world:
        acme, vend = world.customer("acme", balance="100"), world.customer("vend", balance="0")
        before = world.wallet(acme)
        batch = await a_batch(connection)
        at = world.one("SELECT now()")
        sums = [
            WalletSum(vend.wallet_id, Code.COST, Decimal("7.5"), "USD"),
            WalletSum(acme.wallet_id, Code.RATED, Decimal("120.00000001")),
            WalletSum(acme.wallet_id, Code.REVERSAL, Decimal("0.5"), service="sms"),
            WalletSum(vend.wallet_id, Code.COST_REVERSAL, Decimal(9)),
            WalletSum(acme.wallet_id, Code.RATED, Decimal(0)),
        ]
        async with connection.transaction():
            made = await store.post_batch(
                connection, batch, at, sums, actor="loader", reason="day.csv"
            )
        assert made == 4
        after = world.wallet(acme)
        assert after.balance == Decimal("-19.50000001")
        assert (after.version, after.stamp) == (before.version + 2, before.stamp + 1)
        assert world.wallet(vend).balance == Decimal("-1.5")
        entries = world.sql(
            "SELECT e.code, e.wallet_version, e.balance_after, e.batch_id, e.actor, e.reason, e.at,"
            " d.kind || ':' || d.name AS debit, c.kind || ':' || c.name AS credit"
            " FROM entry e JOIN account d ON d.id = debit_account JOIN account c ON c.id = credit_account"
            " WHERE wallet_id = %s AND batch_id IS NOT NULL ORDER BY wallet_version",
            acme.wallet_id,
        )
        shared = {"batch_id": batch, "actor": "loader", "reason": "day.csv", "at": at}
        assert entries == [
            {"code": "rated", "wallet_version": 2, "balance_after": Decimal("-20.00000001"),
             "debit": "wallet:acme", "credit": "revenue:voice", **shared},
            {"code": "reversal", "wallet_version": 3, "balance_after": Decimal("-19.50000001"),
             "debit": "revenue:sms", "credit": "wallet:acme", **shared},
        ]  # fmt: skip
        database = Database(database_url)
        await database.open()
        report = await verify(database)
        await database.close()
        # The money is in order; that it belongs to no record is what I22 says.
        assert {code.partition(".")[0] for code in report.found} <= {"I22"}
        (book,) = report.books
        assert (book.cost, book.wallets + book.others) == (Decimal("1.5"), 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"wallet_id": 999},
            "batch 5 posts to wallet 999, which does not exist; nothing was posted",
        ),
        ({"currency": "EUR"}, "posts EUR to wallet .*, which is in USD; nothing was posted"),
        ({"amount": Decimal(-1)}, "a rated entry of -1 on wallet .* is not legal"),
        ({"code": Code.TOPUP}, "batch 5 cannot post topup: that is no code of records"),
    ],
)
async def test_a_sum_that_cannot_be_posted_posts_nothing(
    database_url: str, connection: Connection, change: dict[str, Any], words: str
) -> None:
    """Not even the sums before it."""
    with World(database_url) as world:
        acme = world.customer("acme", balance="1")
        good = WalletSum(acme.wallet_id, Code.RATED, Decimal(1), "USD")
        with pytest.raises(Breach, match=words):
            await store.post_batch(
                connection, 5, NOON, [good, replace(good, **change)], actor="", reason=""
            )
        assert world.wallet(acme).debited == 0


async def test_charging_goes_on_after_a_batch_on_the_same_wallet(
    database_url: str, connection: Connection
) -> None:
    """The lane decides again on what the batch has left: nothing is spent that is gone."""
    with World(database_url) as world:
        acme = world.customer("acme", balance="1.00")
        async with runtime(database_url) as parts:
            call = {"switch": "sw1", "party": "acme", "called": UK_FIXED, "requested_seconds": 60}
            reply, _ = await parts.charging.authorise(session_id="one", **call)
            assert reply.granted_seconds == 60
            at = world.one("SELECT now()")
            sums = [WalletSum(acme.wallet_id, Code.RATED, Decimal("0.30"))]
            await store.post_batch(connection, 1, at, sums, actor="loader", reason="")
            reply, _ = await parts.charging.authorise(session_id="two", **call)
            assert reply.granted_seconds == 10


# --- sessions ------------------------------------------------------------------------------------


async def test_sessions_to_match_are_found_by_switch_day_and_time(
    database_url: str, connection: Connection
) -> None:
    """Closed ones since a time, live ones, and whole sessions by key; refused ones charged nothing."""
    with World(database_url) as world:
        world.customer("acme", balance="5")
        async with runtime(database_url) as parts:
            for switch, name, called in (
                ("sw1", "a", UK_FIXED), ("sw1", "b", UK_FIXED), ("sw1x", "a", UK_FIXED),
                ("sw1", "refused", "9991234567"),
            ):  # fmt: skip
                await parts.charging.authorise(
                    switch=switch, session_id=name, party="acme", called=called, requested_seconds=9
                )
            await parts.charging.stop(switch="sw1", session_id="a", used_ms=3000)
        today = world.one("SELECT (now() AT TIME ZONE 'UTC')::date")
        long_ago = NOON - timedelta(days=1000)
        keys, last = await store.new_sessions(connection, "sw1", today, today, long_ago)
        assert keys == ["sw1/a"]
        assert await store.new_sessions(connection, "sw1", today, today, last) == ([], last)
        tomorrow = today + timedelta(days=1)
        assert (await store.new_sessions(connection, "sw1", tomorrow, tomorrow, long_ago))[0] == []
        assert await store.live_keys(connection, "sw1") == ["sw1/b"]
        (session,) = await store.sessions_by_key(connection, ["sw1/a", "sw1/b", "sw9/a"])
        assert (session.key, session.used_ms) == ("sw1/a", 3000)
        assert await store.sessions_by_key(connection, ["sw1/a"], since_day=tomorrow) == []
        id_ = uuid.UUID(session.id)
        assert await store.sessions_by_id(connection, [id_]) == {id_: session}


async def test_a_batch_tells_the_processes_that_know_its_wallets(
    database_url: str, connection: Connection
) -> None:
    """Else a call could be refused on a balance that a reversal has raised since."""
    with World(database_url) as world:
        acme = world.customer("acme", balance="1")
        async with await connect(database_url) as ear:
            await ear.execute("LISTEN tollkeeper")
            sums = [
                WalletSum(acme.wallet_id, Code.REVERSAL, Decimal(1)),
                WalletSum(acme.wallet_id, Code.COST, Decimal(2)),
            ]
            at = world.one("SELECT now()")
            await store.post_batch(connection, 1, at, sums, actor="", reason="")
            heard = [notice.payload async for notice in ear.notifies(timeout=10, stop_after=1)]
    assert heard == [f"party:{acme.id}"]
