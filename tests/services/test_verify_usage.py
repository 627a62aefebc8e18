"""The proof of the books of records: silent on sound ones, naming each fault put into them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from tests.store.usage_frames import hour_frame, leg_frame, record, revision_frame
from tests.store.usage_frames import usage_frame as frame_of
from tests.support import Customer, World
from tollkeeper.core.ledger import Code
from tollkeeper.services.verify import VerifyReport, park_breached, verify
from tollkeeper.store import usage as store
from tollkeeper.store import usage_files as files
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.usage import WalletSum
from tollkeeper.store.usage_files import CdrFile, Counts, NewBatch, NewFile
from tollkeeper.store.verify_usage import note_leaving

NOON = datetime(2024, 2, 29, 12, 0, tzinfo=UTC)
DAY = NOON.date()
NEXT = DAY + timedelta(days=1)
TABLES = ("usage", "usage_leg", "usage_revision")


def money(units: int) -> Decimal:
    """An amount of 10^-8 units."""
    return Decimal(units).scaleb(-8)


@dataclass
class Books:
    """Files that were loaded part by part, re-rated, replayed and rolled back."""

    world: World
    database: Database
    connection: Connection
    acme: Customer
    mid: Customer
    vend: Customer
    batches: dict[str, int] = field(default_factory=dict)

    @property
    def currencies(self) -> dict[int, str]:
        """The currencies of the wallets."""
        return {each.wallet_id: each.currency for each in (self.acme, self.mid, self.vend)}

    async def verify(self) -> VerifyReport:
        """Verify the database."""
        return await verify(self.database)

    async def found(self) -> set[str]:
        """The codes of what verify finds."""
        return set((await self.verify()).found)

    async def post(self, batch: int, *sums: tuple[Customer, Code, int]) -> None:
        """Post sums (in 10^-8) as a batch."""
        now = self.world.one("SELECT now()")
        given = [WalletSum(to.wallet_id, code, money(units)) for to, code, units in sums]
        await store.post_batch(self.connection, batch, now, given, actor="test", reason="test")

    async def file(self, name: str) -> CdrFile:
        """Open a file, or read how it stands."""
        new = NewFile("sw1", name, name, 1000, "csv")
        return await files.open_file(self.connection, new, NOON)

    async def load(
        self,
        name: str,
        rows: Sequence[dict[str, Any]],
        *,
        duplicate: int = 0,
        held: int = 0,
        kind: str = "load",
    ) -> int:
        """A part of a file: records, what was known already, and what was put aside."""
        matched = sum(row["state"] == "matched" for row in rows)
        counts = Counts(
            len(rows) + duplicate + held, len(rows) - matched, matched, duplicate, held, skipped=1
        )
        file = await self.file(name)
        first, last = file.lines_done + 1, file.lines_done + counts.records + 1
        batch = NewBatch(kind, NOON, file.id, "sw1", first, last, counts)
        if kind != "load":
            batch = NewBatch(kind, NOON, switch="sw1", counts=counts)
        async with self.connection.transaction():
            number = await files.add_batch(self.connection, batch)
            await store.copy_usage(self.connection, number, frame_of(rows))
            await store.copy_hours(self.connection, number, hour_frame(rows, self.currencies))
            quarantined = pl.DataFrame(
                {"line": range(held), "reason": "no_rate", "field": "", "value": "", "detail": "",
                 "raw": "", "record": pl.Series([None] * held, dtype=pl.String)}
            )  # fmt: skip
            await store.copy_quarantine(
                self.connection,
                quarantined,
                batch_id=number,
                file_id=file.id,
                switch="sw1",
                at=NOON,
            )
            rated = sum(row["charge"] for row in rows if row["state"] == "rated")
            await self.post(
                number,
                (self.acme, Code.RATED, rated),
                (self.vend, Code.COST, sum(row["cost"] for row in rows)),
            )
            if kind == "load":
                await files.advance_file(
                    self.connection, file, offset=last, line=last, counts=counts
                )
        return number

    def row(self, line: int, *, at: datetime = NOON, **values: Any) -> dict[str, Any]:
        """A call of acme over vend, 61.5 s at 1.25, that cost 0.75."""
        usual = {
            "duration_ms": 61_500, "customer_id": self.acme.id, "vendor_id": self.vend.id,
            "sell_wallet": self.acme.wallet_id, "charge": 125_000_000, "sell_billed": 62,
            "buy_wallet": self.vend.wallet_id, "cost": 75_000_000, "buy_billed": 62, "pdd_ms": 900,
        }  # fmt: skip
        return record(at, line=line, **{**usual, **values})

    async def rerate(self, batch: int, line: int, amount: int, was: int, leg: int = 0) -> int:
        """Change one leg: the revision, the money, and the hourly sums."""
        number = await files.add_batch(self.connection, NewBatch("rerate", NOON))
        wallet = self.acme if leg == 0 else self.vend
        revision = {
            "day": DAY, "batch_id": batch, "line": line, "leg": leg, "wallet_id": wallet.wallet_id,
            "billed": 62, "amount": amount, "was": was, "prefix": "44" if leg == 0 else "",
        }  # fmt: skip
        await store.copy_revisions(self.connection, number, revision_frame([revision]))
        before = self.row(line, **{"charge" if leg == 0 else "cost": was})
        after = {**before, "charge" if leg == 0 else "cost": amount}
        await self.add_hours(number, [after], [before])
        codes = (Code.REVERSAL, Code.RATED) if leg == 0 else (Code.COST_REVERSAL, Code.COST)
        await self.post(number, (wallet, codes[0], was), (wallet, codes[1], amount))
        return number

    async def add_hours(
        self, batch: int, plus: Sequence[dict[str, Any]], minus: Sequence[dict[str, Any]]
    ) -> None:
        """Add the hourly sums of some records and take off those of others."""
        if plus:
            await store.copy_hours(self.connection, batch, hour_frame(plus, self.currencies))
        gone = hour_frame(minus, self.currencies)
        negative = gone.with_columns(-pl.col(name) for name in store.MEASURES)
        await store.copy_hours(self.connection, batch, negative)

    async def undo(self, batch: int, *sums: tuple[Customer, Code, int]) -> int:
        """Take a batch back: the mark and the money."""
        number = await files.add_batch(self.connection, NewBatch("rollback", NOON))
        await files.undo_batches(self.connection, [batch], number)
        await self.post(number, *sums)
        return number

    async def drop(self, *tables: str) -> None:
        """Move a day out of the database."""
        async with self.connection.transaction():
            await note_leaving(self.connection, DAY, tables)
            for table in tables:
                await self.connection.execute(f"DROP TABLE {table}_20240229".encode())


@pytest.fixture
async def books(database_url: str) -> AsyncIterator[Books]:
    """Sound books: two parts of a file, a replay, re-ratings, and two things taken back."""
    world = World(database_url)
    database = Database(database_url)
    await database.open()
    async with database.read() as connection:
        await store.ensure_days(connection, [DAY, NEXT])
        acme, vend = world.customer("acme", balance="5"), world.customer("vend", balance="0")
        made = Books(world, database, connection, acme, world.customer("mid", balance="1"), vend)
        await fill(made)
        yield made
    await database.close()
    world.close()


async def fill(books: Books) -> None:
    """Put the records into the books."""
    one = await books.load("a", [books.row(1), books.row(2, at=NOON + timedelta(days=1))], held=2)
    live = {"state": "matched", "session_id": "0" * 32, "charge": 99_000_000}
    refused = {
        "duration_ms": 0,
        "charge": 0,
        "cost": 0,
        "q850": 17,
        "sell_billed": 0,
        "buy_billed": 0,
    }
    two = await books.load(
        "a", [books.row(7, **live), books.row(8, **refused), books.row(9)], duplicate=3
    )
    # A reseller between the operator and acme pays for one of them, too.
    leg = {"day": DAY, "line": 9, "wallet_id": books.mid.wallet_id, "charge": 100_000_000}
    await store.copy_legs(books.connection, two, leg_frame([leg]))
    await books.post(two, (books.mid, Code.RATED, 100_000_000))
    replay = await books.load("a", [books.row(1)], kind="replay")
    first = await books.rerate(one, 1, 150_000_000, 125_000_000)
    await books.rerate(one, 1, 140_000_000, 150_000_000)
    await books.rerate(two, 7, 80_000_000, 99_000_000)
    cheap = await books.rerate(two, 9, 25_000_000, 75_000_000, leg=1)
    # The vendor's new price was a mistake.
    back = await books.undo(
        cheap, (books.vend, Code.COST, 75_000_000), (books.vend, Code.COST_REVERSAL, 25_000_000)
    )
    priced = books.row(9, cost=25_000_000)
    await books.add_hours(back, [{**priced, "cost": 75_000_000}], [priced])
    # So was a whole file, one record of which had been re-rated meanwhile.
    wrong = await books.load("b", [books.row(1), books.row(2)])
    await books.rerate(wrong, 2, 500_000_000, 125_000_000)
    gone = await books.undo(
        wrong,
        (books.acme, Code.REVERSAL, 625_000_000),
        (books.vend, Code.COST_REVERSAL, 150_000_000),
    )
    await books.add_hours(gone, [], [books.row(1), books.row(2, charge=500_000_000)])
    await files.end_file(books.connection, (await books.file("b")).id, "rolled_back", at=NOON)
    books.batches = {"one": one, "two": two, "replay": replay, "first": first, "gone": gone}


async def test_sound_books_of_records_are_found_clean(books: Books) -> None:
    """Loads, replays, corrections of live calls, re-ratings and things taken back, all in order."""
    report = await books.verify()
    assert report.clean, report.findings
    # Two and three of the first file, the replayed one, and the two that were taken back.
    assert report.records == 8
    paid = money(125_000_000 * 4 + 15_000_000 - 19_000_000)
    assert books.world.wallet(books.acme).balance == 5 - paid
    assert books.world.wallet(books.vend).balance == money(75_000_000 * 5)


async def test_compacted_hours_are_still_the_sums_of_the_records(books: Books) -> None:
    assert await store.compact_hours(books.connection, NEXT + timedelta(days=1)) > 0
    assert await books.found() == set()


FAULTS = {
    "a record lost": ("DELETE FROM usage WHERE line = 8", {"I21.rated", "I23.hour"}),
    "a record doubled": (
        "INSERT INTO usage SELECT * FROM usage WHERE line = 9",
        {"I21.rated", "I22.sell", "I22.buy", "I23.hour"},
    ),
    "a matched record charged here": (
        "UPDATE usage SET state = 'rated' WHERE line = 7",
        {"I21.rated", "I21.matched", "I22.sell"},
    ),
    "a record of no batch": (
        "UPDATE usage SET batch_id = 999 WHERE line = 8",
        {"I21.rated", "I21.stray"},
    ),
    "a charge changed": ("UPDATE usage SET charge = 1.26 WHERE line = 9", {"I22.sell", "I23.hour"}),
    "a cost changed": (
        "UPDATE usage SET cost = 0 WHERE line = 9",
        {"I22.buy", "I23.hour"},
    ),
    "a record given to another wallet": (
        "UPDATE usage SET sell_wallet = buy_wallet WHERE line = 9",
        {"I22.sell"},
    ),
    "a reseller's leg removed": ("DELETE FROM usage_leg", {"I22.sell"}),
    "a record moved to another hour": (
        "UPDATE usage SET start_at = start_at + interval '1 hour' WHERE line = 8",
        {"I23.hour"},
    ),
    "a record moved to another destination": (
        "UPDATE usage SET destination = 'Mars' WHERE line = 8",
        {"I23.hour"},
    ),
    "a cause changed": ("UPDATE usage SET q850 = 34 WHERE line = 8", {"I23.hour"}),
    "an hour changed": (
        "UPDATE usage_hour SET pdd_ms = pdd_ms + 1 WHERE ctid = (SELECT min(ctid) FROM usage_hour)",
        {"I23.hour"},
    ),
    "an hour lost": ("DELETE FROM usage_hour WHERE day = '2024-03-01'", {"I23.hour"}),
    "a quarantined record lost": (
        "DELETE FROM cdr_quarantine WHERE id = (SELECT min(id) FROM cdr_quarantine)",
        {"I21.quarantined"},
    ),
    "a file that counts otherwise than its batches": (
        "UPDATE cdr_file SET records = records + 1, rated = rated + 1 WHERE name = 'a'",
        {"I21.sum"},
    ),
    "a file that does not balance": (
        (
            "ALTER TABLE cdr_file DROP CONSTRAINT cdr_file_check; "
            "UPDATE cdr_file SET records = records + 1 WHERE name = 'a'"
        ),
        {"I21.file", "I21.sum"},
    ),
    "a batch that does not balance": (
        (
            "ALTER TABLE cdr_batch DROP CONSTRAINT cdr_batch_check; "
            "UPDATE cdr_batch SET duplicate = duplicate + 1 WHERE duplicate = 3"
        ),
        {"I21.batch", "I21.sum"},
    ),
    "a part loaded twice": (
        "UPDATE cdr_batch SET first_line = 1 WHERE duplicate = 3",
        {"I21.twice"},
    ),
    "a file that forgot how far it was": (
        "UPDATE cdr_file SET lines_done = 2 WHERE name = 'a'",
        {"I21.lines"},
    ),
    "an entry without its records": (
        "UPDATE entry SET batch_id = batch_id + 1 WHERE code = 'cost' AND wallet_version = 1",
        {"I22.buy"},
    ),
    "a batch that posted to nobody's wallet": (
        "UPDATE entry SET batch_id = NULL WHERE code = 'reversal' AND amount = 6.25",
        {"I22.sell"},
    ),
    "a revision that began elsewhere": (
        "UPDATE usage_revision SET was = 1.30 WHERE amount = 1.4",
        {"I22.was", "I22.sell"},
    ),
    "a revision lost": ("DELETE FROM usage_revision WHERE amount = 1.4", {"I22.sell", "I23.hour"}),
    "a batch taken back without its money": (
        "UPDATE cdr_batch SET undone_by = (SELECT max(id) FROM cdr_batch) WHERE kind = 'replay'",
        {"I22.sell", "I22.buy", "I23.hour"},
    ),
    "a re-rating taken back from under the next one": (
        (
            "UPDATE cdr_batch SET undone_by = (SELECT max(id) FROM cdr_batch) WHERE id = "
            "(SELECT by_batch FROM usage_revision WHERE amount = 1.5)"
        ),
        {"I22.was", "I22.sell"},
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_each_fault_put_into_the_records_is_named(books: Books, fault: str) -> None:
    """I21 to I23: what somebody changes behind the program's back is found, by its own code."""
    change, expected = FAULTS[fault]
    books.world.sql("SET session_replication_role = replica")  # so that the journal can be changed
    for statement in change.split("; "):
        books.world.sql(statement)
    assert await books.found() == expected


async def test_a_finding_says_what_and_how_much(books: Books) -> None:
    """Figures on both sides, so that a person knows where to look."""
    books.world.sql("UPDATE usage SET charge = 1.26 WHERE line = 9")
    found = {finding.code: finding for finding in (await books.verify()).findings}
    money_, hour = found["I22.sell"], found["I23.hour"]
    assert money_.subject == f"batch {books.batches['two']}"
    assert money_.detail == (
        f"posted 1.25000000 to wallet {books.acme.wallet_id} (sell), its legs make 1.26000000"
    )
    assert money_.guarantee == "What a batch posted to a wallet is the sum of its records' legs."
    assert hour.subject.startswith(f"hour 2024-02-29T12:00+00:00 customer {books.acme.id} vendor")
    assert hour.detail.startswith("revenue stands at 4.70000000, adds up to 4.71")
    assert ";" not in hour.detail


async def test_a_wallet_whose_records_do_not_make_its_charge_can_be_parked(books: Books) -> None:
    """I22 is about money; I21 and I23 are not."""
    books.world.sql("UPDATE usage SET cost = 0.76 WHERE line = 1 AND day = '2024-02-29'")
    report = await books.verify()
    assert [wallet.party for wallet in report.breached] == ["vend"]
    await park_breached(books.database, report, actor="test")
    assert books.world.wallet(books.vend).parked
    assert not books.world.wallet(books.acme).parked


async def test_days_that_left_the_database_are_still_proved(books: Books) -> None:
    """The records of a day may leave before its revisions; what they held was noted by batch."""
    before = await books.verify()
    await books.drop("usage")
    after = await books.verify()
    assert after.clean, after.findings
    assert after.records == before.records
    await books.drop("usage_leg", "usage_revision")
    assert await books.found() == set()
    # A record that is late makes the day anew; it leaves in a second part.
    await store.ensure_days(books.connection, [DAY])
    await books.load("c", [books.row(4)])
    assert await books.found() == set()
    await books.drop("usage", "usage_leg")
    report = await books.verify()
    assert report.clean, report.findings
    assert report.records == before.records + 1
    books.world.sql("UPDATE archive_leg SET amount = amount + 1 WHERE side = 'buy'")
    assert await books.found() == {"I22.buy"}


async def test_a_day_that_is_gone_without_a_note_is_found(books: Books) -> None:
    """Dropping a partition by hand loses records, and money that nothing stands for."""
    books.world.sql("DROP TABLE usage_20240229")
    assert {"I21.rated", "I21.matched", "I22.sell", "I22.buy"} <= await books.found()


async def test_a_record_that_turns_out_to_have_been_charged_live_is_taken_back(
    books: Books,
) -> None:
    """A late match posts the reversal of what was rated; the record is worth what was charged live."""
    number = await files.add_batch(books.connection, NewBatch("late_match", NOON))
    revision = {
        "day": DAY, "batch_id": books.batches["two"], "line": 9, "billed": 62,
        "wallet_id": books.acme.wallet_id, "amount": 120_000_000, "was": 125_000_000,
    }  # fmt: skip
    await store.copy_revisions(books.connection, number, revision_frame([revision]))
    await books.post(number, (books.acme, Code.REVERSAL, 125_000_000))
    await books.add_hours(number, [books.row(9, charge=120_000_000)], [books.row(9)])
    report = await books.verify()
    assert report.clean, report.findings
