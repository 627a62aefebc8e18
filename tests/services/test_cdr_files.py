"""Files, batches and mismatches as they are looked at; halves that wait too long; files that are brought."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.services.cdr_world import (
    HEADER,
    MAPPING,
    NOON,
    NOW,
    SWITCH,
    Call,
    CdrWorld,
    job,
    load,
    write_file,
)
from tests.support import UNSOLD, Row, tariff
from tollkeeper.core.usage import Half, Usage
from tollkeeper.errors import Busy, Conflict, InvalidInput, NotFound, TollkeeperError
from tollkeeper.services.cdr import brought as bringing
from tollkeeper.services.cdr import files
from tollkeeper.services.cdr.brought import OWNER, Bringing, Brought
from tollkeeper.services.cdr.files import BatchFilter, FileFilter
from tollkeeper.services.cdr.load import LoadJob, load_file
from tollkeeper.services.cdr.prepare import LoadPolicy
from tollkeeper.services.cdr.preview import preview_file
from tollkeeper.services.cdr.quarantine import Filter, fix, listed, replay
from tollkeeper.services.cdr.reference import microseconds
from tollkeeper.services.cdr.rollback import roll_back_file
from tollkeeper.services.spool import Spool
from tollkeeper.services.verify import verify
from tollkeeper.store.db import Database
from tollkeeper.store.loading import loading
from tollkeeper.store.usage_files import StoredHalf, replace_halves

DAY = NOON.date()
Clock = Callable[[], datetime]


@pytest.fixture
def world(database_url: str) -> Iterator[CdrWorld]:
    with CdrWorld(database_url) as made:
        yield made


@pytest.fixture
async def database(world: CdrWorld) -> AsyncIterator[Database]:
    opened = Database(world.url, size=3)
    await opened.open()
    yield opened
    await opened.close()


async def proven(database: Database) -> None:
    assert [str(one) for one in (await verify(database)).findings] == []


# --- files ---------------------------------------------------------------------------------------


async def test_a_file_shows_its_parts_its_reasons_and_its_money(
    world: CdrWorld, database: Database, tmp_path: Path
) -> None:
    calls = [Call("a"), Call("b"), Call("c", called=UNSOLD), Call("d", trunk="stranger")]
    report = await load(world.url, write_file(tmp_path / "a.csv", calls), records_per_part=2)
    view = await files.get_file(database, report.file.id)
    assert view.file.records == 4
    assert view.reasons == {"no_rate": 1, "unknown_customer": 1}
    assert view.settled == {}
    (money,) = view.money
    assert (money.currency, money.charged, money.cost) == ("USD", Decimal("1.2"), Decimal("0.6"))
    assert [(b.first_line, b.last_line, b.records) for b in view.batches] == [(1, 3, 2), (4, 5, 2)]
    with pytest.raises(NotFound):
        await files.get_file(database, report.file.id + 1)


async def test_files_and_batches_are_listed_page_by_page_the_newest_first(
    world: CdrWorld, database: Database, tmp_path: Path
) -> None:
    for n in range(3):
        path = write_file(tmp_path / f"{n}.csv", [Call(f"c{n}")])
        await load(
            world.url, path, now=NOW + timedelta(hours=n), switch="sw2" if n == 1 else SWITCH
        )
    names = [file.name for file in await files.list_files(database, limit=2)]
    assert names == ["2.csv", "1.csv"]
    last = (await files.list_files(database, limit=2))[-1].id
    assert [file.name for file in await files.list_files(database, before=last)] == ["0.csv"]
    for wanted, expected in (
        (FileFilter(switch="sw2"), ["1.csv"]),
        (FileFilter(since=NOW + timedelta(hours=2)), ["2.csv"]),
        (FileFilter(status="failed"), []),
    ):
        assert [file.name for file in await files.list_files(database, wanted)] == expected
    batches = await files.list_batches(database, BatchFilter(kind="load"))
    assert [batch.file for batch in batches] == ["2.csv", "1.csv", "0.csv"]
    assert await files.list_batches(database, BatchFilter(kind="rerate")) == []
    assert [b.file for b in await files.list_batches(database, before=batches[1].id)] == ["0.csv"]
    with pytest.raises(InvalidInput):
        await files.list_files(database, FileFilter(status="lost"))
    with pytest.raises(InvalidInput):
        await files.list_batches(database, BatchFilter(kind="magic"))


async def test_a_call_sold_below_its_cost_in_another_currency_is_reported(
    world: CdrWorld, database: Database, tmp_path: Path
) -> None:
    """A minute is sold for 0.60 USD and bought for 0.55 EUR.

    At 1.0909 USD for a euro (1 USD = 0.916674305619 EUR, 0.60 USD = 0.5500045834 EUR) it covers its cost, at
    1.0910 (0.916590284143, 0.5499541705) it does not; for the first of March there is no rate young enough.
    """
    card = world.card("euro-buy", [Row("44", "UK", tariff("0.55"))], currency="EUR")
    world.sql("UPDATE rate_card SET side = 'buy' WHERE id = %s", card)
    plan = world.plan("euro-plan", card)
    seller = world.customer("euro", balance="0", plan=plan, currency="EUR", kind="vendor")
    world.trunk("euro-out", seller, direction="out")
    for day, rate in (("2026-02-18", "9"), ("2026-03-02", "1.0909"), ("2026-03-03", "1.0910")):
        world.sql(
            "INSERT INTO fx_rate (base, quote, day, rate, source) VALUES ('EUR', 'USD', %s, %s, 't')",
            day, Decimal(rate),
        )  # fmt: skip
    calls = [Call(f"d{n}", out="euro-out", start=NOON + timedelta(days=n)) for n in range(3)]
    later = NOW + timedelta(days=3)
    await load(world.url, write_file(tmp_path / "a.csv", calls), now=later)
    page = await files.mismatches(database, first=DAY, last=DAY + timedelta(days=3))
    (found,) = page.items
    assert (found.kind, found.call_id, found.found, found.expected) == (
        "negative_margin", "d2", "0.60000000", "0.55000000",
    )  # fmt: skip
    assert "sold in USD and bought in EUR" in found.detail


async def test_mismatches_are_listed_by_day_kind_and_customer(
    world: CdrWorld, database: Database, tmp_path: Path
) -> None:
    other = world.customer("other", balance="10")
    world.trunk("other-in", other)
    calls = [
        Call("a", seconds="20000"),
        Call("b", out="nowhere", trunk="other-in"),
        Call("c", seconds="20000", start=NOON - timedelta(days=1)),
    ]
    report = await load(world.url, write_file(tmp_path / "a.csv", calls))
    page = await files.mismatches(database, first=DAY, last=DAY)
    assert page.counts == {"long_call": 1, "unknown_vendor": 1}
    shown = {(m.kind, m.call_id, m.customer, m.vendor, m.line) for m in page.items}
    assert shown == {
        ("long_call", "a", "acme", "carrier", 2),
        ("unknown_vendor", "b", "other", "", 3),
    }
    wide: dict[str, Any] = {"first": DAY - timedelta(days=1), "last": DAY}
    assert (await files.mismatches(database, **wide)).counts["long_call"] == 2
    page = await files.mismatches(database, **wide, customer="other")
    assert [m.call_id for m in page.items] == ["b"]
    page = await files.mismatches(database, **wide, kind="long_call", limit=1)
    assert len(page.items) == 1
    rest = await files.mismatches(database, **wide, kind="long_call", before=page.items[0].id)
    assert {page.items[0].call_id, *(m.call_id for m in rest.items)} == {"a", "c"}
    with pytest.raises(NotFound):
        await files.mismatches(database, **wide, customer="nobody")
    with pytest.raises(InvalidInput):
        await files.mismatches(database, first=DAY, last=date(2026, 1, 1))
    await roll_back_file(database, report.file.id, actor="t", reason="wrong", clock=lambda: NOW)
    assert (await files.mismatches(database, **wide)).items == []


async def test_the_only_switch_is_meant_where_none_is_named(
    world: CdrWorld, database: Database, tmp_path: Path
) -> None:
    assert await files.only_switch(database) == "main"
    world.key("charge", switch="sw1")
    assert await files.only_switch(database) == "sw1"
    await load(world.url, write_file(tmp_path / "a.csv", [Call("a")]), switch="sw9")
    with pytest.raises(InvalidInput, match="sw1, sw9"):
        await files.only_switch(database)


# --- dry run -------------------------------------------------------------------------------------


async def test_a_dry_run_says_what_loading_does_and_writes_nothing(
    world: CdrWorld, database: Database, tmp_path: Path
) -> None:
    """The same counts and the same money, with the repeats in the file and in the books."""
    await load(world.url, write_file(tmp_path / "old.csv", [Call("a")]))
    calls = [Call("a"), Call("b"), Call("b"), Call("c", called=UNSOLD), Call("d", seconds="20000")]
    path = write_file(tmp_path / "a.csv", calls)
    before = world.one("SELECT count(*) FROM entry"), world.one("SELECT count(*) FROM cdr_batch")
    told: list[str] = []
    found = await preview_file(
        database, job(path, records_per_part=2), clock=lambda: NOW, say=lambda p: told.append(p.stage)
    )  # fmt: skip
    assert (world.one("SELECT count(*) FROM entry"), world.one("SELECT count(*) FROM cdr_batch")) == before  # fmt: skip
    assert world.one("SELECT count(*) FROM cdr_file") == 1
    assert set(told) == {"pricing"}
    assert [(p.line, p.reason.value) for p in found.problems] == [(5, "no_rate")]
    assert found.mismatches["long_call"] == 1
    report = await load(world.url, path)
    view = await files.get_file(database, report.file.id)
    loaded = view.file
    counts = found.counts
    assert (counts.records, counts.rated, counts.duplicate, counts.quarantined) == (5, 2, 2, 1)
    assert (loaded.records, loaded.rated, loaded.duplicate, loaded.quarantined) == (5, 2, 2, 1)
    assert found.money == view.money
    assert found.money[0].charged == Decimal("200.6")


async def test_a_dry_run_of_a_file_that_is_cut_short_says_so(
    world: CdrWorld, database: Database, tmp_path: Path
) -> None:
    path = write_file(tmp_path / "a.csv", [Call(f"c{n}") for n in range(2000)])
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes())[:-200])
    found = await preview_file(database, job(packed), clock=lambda: NOW)
    assert found.error
    assert 0 < found.counts.rated < 2000
    with pytest.raises(NotFound):
        await preview_file(database, job(tmp_path / "none"), clock=lambda: NOW)


# --- halves --------------------------------------------------------------------------------------


async def waiting_halves(world: CdrWorld, tmp_path: Path) -> int:
    """A begin and an end of different calls that wait since NOON in a file of NOW; its number."""
    report = await load(world.url, write_file(tmp_path / "a.csv", [Call("whole")]))
    usage = {"call_id": "h1", "start": microseconds(NOON), "called": "442071838750", "trunk_in": "acme-in"}  # fmt: skip
    begin = Usage(line=7, duration_ms=0, **usage)  # type: ignore[arg-type]
    halves = [
        Half(7, "h1", True, microseconds(NOON), "INVITE h1", begin),
        Half(8, "h2", False, microseconds(NOON), "BYE h2"),
    ]
    async with loading(world.url, SWITCH) as connection:
        stored = [StoredHalf(half, report.file.id) for half in halves]
        await replace_halves(connection, SWITCH, joined=[], waiting=stored)
    return report.file.id


async def test_halves_whose_other_one_does_not_come_are_put_aside(
    world: CdrWorld, database: Database, tmp_path: Path
) -> None:
    """With their lines; they count as records of their file, and the books are proven."""
    file_id = await waiting_halves(world, tmp_path)
    clock = lambda: NOW + timedelta(hours=50)  # noqa: E731
    assert await files.expire_halves(database, NOW, actor="t", clock=clock) == 0
    later = NOW + timedelta(seconds=1)
    async with loading(world.url, SWITCH):
        assert await files.expire_halves(database, later, actor="t", clock=clock) == 0
    assert await files.expire_halves(database, later, actor="t", clock=clock) == 2
    assert await files.expire_halves(database, later, actor="t", clock=clock) == 0
    held = await listed(database, Filter(file_id=file_id))
    assert [(q.line, q.reason, q.raw) for q in held] == [
        (7, "malformed", "INVITE h1"), (8, "malformed", "BYE h2"),
    ]  # fmt: skip
    view = await files.get_file(database, file_id)
    assert (view.file.records, view.file.quarantined) == (3, 2)
    await proven(database)


async def test_a_begin_goes_into_the_books_when_its_duration_is_given_and_not_before(
    world: CdrWorld, database: Database, tmp_path: Path
) -> None:
    file_id = await waiting_halves(world, tmp_path)
    clock = lambda: NOW + timedelta(hours=50)  # noqa: E731
    await files.expire_halves(database, clock(), actor="t", clock=clock)
    begin, end = await listed(database, Filter(file_id=file_id))
    assert end.record is None

    async def again() -> Any:
        return await replay(
            database, Filter(file_id=file_id), policy=LoadPolicy(), actor="t", clock=clock
        )

    report = await again()
    assert (report.rated, report.still, report.unreadable) == (0, 1, 1)
    await fix(database, begin.id, {"duration_ms": 60_000}, actor="t")
    report = await again()
    assert (report.rated, report.still) == (1, 0)
    assert world.balance(world.acme) == Decimal(100) - 2 * Decimal("0.6")
    await proven(database)


# --- files that are brought ----------------------------------------------------------------------


class Here:
    """Loads in this process what the real worker loads in another one."""

    def __init__(self, database: Database, clock: Clock = lambda: NOW) -> None:
        self.database = database
        self.clock = clock
        self.fault: BaseException | None = None
        self.loaded: list[str] = []

    async def load(self, one: LoadJob) -> Any:
        """Load a file."""
        if self.fault is not None:
            raise self.fault
        self.loaded.append(one.name)
        return await load_file(self.database, one, clock=self.clock)


@pytest.fixture
async def here(database: Database) -> Here:
    return Here(database)


@pytest.fixture
async def desk(database: Database, here: Here, tmp_path: Path) -> AsyncIterator[Bringing]:
    spool = Spool(tmp_path / "spool", max_bytes=1_000_000)
    made = Bringing(database=database, spool=spool, worker=here, clock=lambda: NOW)  # type: ignore[arg-type]
    yield made
    await made.stop()


async def chunks(*calls: Call) -> AsyncIterator[bytes]:
    yield (HEADER + "\n").encode()
    for call in calls:
        yield (call.line() + "\n").encode()


WHAT = Brought(SWITCH, "a.csv", "csv", MAPPING, actor="t")


def spooled(tmp_path: Path) -> list[str]:
    ready = tmp_path / "spool" / (OWNER + SWITCH) / "ready"
    return [path.name for path in ready.iterdir()] if ready.is_dir() else []


async def test_a_file_that_is_brought_is_loaded_once(
    world: CdrWorld, desk: Bringing, tmp_path: Path
) -> None:
    file, known = await desk.bring(WHAT, chunks(Call("a")), patience=30)
    assert (file.status, file.rated, file.actor, known) == ("done", 1, "t", False)
    file, known = await desk.bring(WHAT, chunks(Call("a")), patience=30)
    assert (file.status, file.rated, known) == ("done", 1, True)
    assert spooled(tmp_path) == []


async def test_a_file_that_cannot_be_loaded_now_is_loaded_by_the_clock(
    world: CdrWorld, desk: Bringing, here: Here, tmp_path: Path
) -> None:
    """Its sender is told that it is safe; it is not loaded twice when somebody is at it."""
    here.fault = Busy("not now")
    file, known = await desk.bring(WHAT, chunks(Call("a")), patience=30)
    assert (file.status, known) == ("loading", False)
    assert len(spooled(tmp_path)) == 1
    here.fault = None
    async with loading(world.url, SWITCH):
        await desk.go_on()
    assert here.loaded == []
    await desk.go_on()
    assert here.loaded == ["a.csv"]
    assert world.counts()["rated"] == 1
    assert spooled(tmp_path) == []


async def test_a_fault_inside_fails_the_file_and_it_may_be_brought_again_read_otherwise(
    world: CdrWorld, desk: Bringing, here: Here, database: Database, tmp_path: Path
) -> None:
    unfit = {**MAPPING, "fields": {**MAPPING["fields"], "called": "number"}}  # type: ignore[dict-item]
    what = Brought(SWITCH, "a.csv", "csv", unfit)
    file, _ = await desk.bring(what, chunks(Call("a")), patience=30)
    assert file.status == "failed"
    assert file.error
    assert spooled(tmp_path) == []
    here.fault = TollkeeperError("it broke", code="load_failed")
    file, _ = await desk.bring(WHAT, chunks(Call("a")), patience=30)
    assert (file.status, file.error, spooled(tmp_path)) == ("failed", "it broke", [])
    here.fault = None
    file, known = await desk.bring(WHAT, chunks(Call("a")), patience=30)
    assert (file.status, file.rated, known) == ("done", 1, False)
    world.sql("UPDATE cdr_file SET status = 'failed'")
    with pytest.raises(Conflict):
        await desk.bring(what, chunks(Call("a")), patience=30)


async def test_what_is_said_about_a_file_is_checked_before_it_is_taken(
    world: CdrWorld, desk: Bringing
) -> None:
    for what, code, field in (
        (Brought("", "a.csv", "csv", MAPPING), "invalid_code", "switch"),
        (Brought(SWITCH, "../a", "csv", MAPPING), "invalid_input", "name"),
        (Brought(SWITCH, "a", "punched-cards"), "invalid_input", "format"),
        (Brought(SWITCH, "a", "csv"), "mapping_missing", "mapping"),
        (Brought(SWITCH, "a", "jsonl", MAPPING), "invalid_input", "mapping"),
        (Brought(SWITCH, "a", "csv", MAPPING, "Mars/Olympus"), "unknown_timezone", "timezone"),
        (Brought(SWITCH, "a"), "mapping_missing", "mapping"),
    ):
        with pytest.raises(InvalidInput) as caught:
            await desk.bring(what, chunks(Call("a")), patience=30)
        assert (caught.value.code, caught.value.field) == (code, field), what
    assert world.one("SELECT count(*) FROM cdr_file") == 0


def test_a_packed_file_is_recognised_by_what_is_in_it(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.csv", [Call("a"), Call("b")])
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    guess = bringing.sniff_file(packed, packed.name)
    assert guess.format == "csv"
    assert guess == bringing.sniff_file(path, path.name)
    with pytest.raises(NotFound):
        bringing.sniff_file(tmp_path / "none", "none")
