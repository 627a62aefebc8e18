"""Files become money: each record once, each cent derived."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.services.cdr_world import (
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
from tests.support import BLOCKED, UK_MOBILE, UNSOLD
from tollkeeper.errors import Busy, InvalidInput
from tollkeeper.services.cdr.load import Progress, load_file
from tollkeeper.services.verify import verify
from tollkeeper.store.db import Database
from tollkeeper.store.loading import loading


@pytest.fixture
def world(database_url: str) -> Iterator[CdrWorld]:
    """A carrier of this test alone."""
    with CdrWorld(database_url) as made:
        yield made


async def proven(url: str) -> None:
    database = Database(url, size=2)
    await database.open()
    try:
        assert [str(one) for one in (await verify(database)).findings] == []
    finally:
        await database.close()


async def test_a_record_costs_the_customer_and_earns_the_vendor(
    database_url: str, world: CdrWorld, tmp_path: Path
) -> None:
    """60 s at 0.6 a minute, bought at 0.3: one entry each, and the books are proven."""
    report = await load(database_url, write_file(tmp_path / "a.csv", [Call("c1")]))
    assert (report.file.status, report.file.records, report.file.rated) == ("done", 1, 1)
    assert world.balance(world.acme) == Decimal("99.4")
    assert world.balance(world.vendor) == Decimal("0.3")
    (row,) = world.sql("SELECT * FROM usage")
    assert (row["charge"], row["cost"], row["sell_billed"]) == (Decimal("0.6"), Decimal("0.3"), 60)
    assert (row["destination"], row["sell_prefix"], row["called"]) == (
        "United Kingdom",
        "44",
        "442071838750",
    )
    (hour,) = world.sql("SELECT * FROM usage_hour")
    assert (hour["hour"], hour["attempts"], hour["answers"], hour["revenue"], hour["cost"]) == (
        NOON, 1, 1, Decimal("0.6"), Decimal("0.3"),
    )  # fmt: skip
    await proven(database_url)


async def test_what_cannot_be_booked_is_put_aside_and_the_rest_goes_on(
    database_url: str, world: CdrWorld, tmp_path: Path
) -> None:
    """Each with its line and its reason."""
    calls: list[Call | str] = [
        Call("good"),
        Call("who", trunk="stranger"),
        Call("odd", called="tel:banana"),
        Call("unsold", called=UNSOLD),
        Call("blocked", called=BLOCKED),
        Call("old", start=NOON - timedelta(days=20_000)),
        Call("minus", seconds="-5"),
        "torn,2026-03-01T12:00",
        Call("tried", called=UNSOLD, seconds="0", sip="404"),
    ]
    report = await load(database_url, write_file(tmp_path / "a.csv", calls))
    assert (report.file.records, report.file.rated, report.file.quarantined) == (9, 2, 7)
    held = world.sql("SELECT line, reason, detail, raw FROM cdr_quarantine ORDER BY line")
    assert [(row["line"], row["reason"]) for row in held] == [
        (3, "unknown_customer"), (4, "bad_number"), (5, "no_rate"), (6, "blocked"), (7, "bad_time"),
        (8, held[5]["reason"]), (9, "malformed"),
    ]  # fmt: skip
    assert held[5]["reason"] in {"bad_duration", "malformed"}
    assert all(row["detail"] for row in held)
    assert held[0]["raw"].startswith("who,2026-03-01")
    await proven(database_url)


async def test_a_record_counts_once_in_a_file_and_over_files(
    database_url: str, world: CdrWorld, tmp_path: Path
) -> None:
    """The first line of the first file stays."""
    first = write_file(tmp_path / "a.csv", [Call("c1"), Call("c1", seconds="70"), Call("c2")])
    report = await load(database_url, first, records_per_part=1)
    assert (report.file.rated, report.file.duplicate) == (2, 1)
    second = write_file(tmp_path / "b.csv", [Call("c2", seconds="90"), Call("c3")])
    report = await load(database_url, second)
    assert (report.file.rated, report.file.duplicate) == (1, 1)
    again = await load(database_url, second)
    assert again.known
    rows = world.sql("SELECT call_id, duration_ms FROM usage ORDER BY call_id")
    assert [(row["call_id"], row["duration_ms"]) for row in rows] == [
        ("c1", 60_000), ("c2", 60_000), ("c3", 60_000),
    ]  # fmt: skip
    assert world.balance(world.acme) == Decimal(100) - 3 * Decimal("0.6")
    await proven(database_url)


async def test_every_leg_of_the_tree_is_charged_at_its_own_plan(
    database_url: str, world: CdrWorld, tmp_path: Path
) -> None:
    """The reseller above the customer pays by its own card."""
    reseller = world.seller("upstream")
    world.sql("UPDATE party SET kind = 'reseller' WHERE id = %s", reseller.id)
    world.sql("UPDATE rate_card SET side = 'sell' WHERE code = 'upstream-buy'")
    world.sql("UPDATE party SET parent_id = %s WHERE id = %s", reseller.id, world.acme.id)
    await load(database_url, write_file(tmp_path / "a.csv", [Call("c1", called=UK_MOBILE)]))
    (leg,) = world.sql("SELECT level, party_id, charge FROM usage_leg")
    assert (leg["level"], leg["party_id"]) == (1, reseller.id)
    assert leg["charge"] == Decimal("0.05")
    assert world.balance(reseller) == Decimal("-0.05")
    assert world.balance(world.acme) == Decimal("99.925")
    await proven(database_url)


async def test_a_packed_file_that_is_cut_short_gives_what_is_there(
    database_url: str, world: CdrWorld, tmp_path: Path
) -> None:
    """It is marked as failed, and the whole file loads the rest."""
    plain = write_file(tmp_path / "a.csv", [Call(f"c{n:05}") for n in range(5_000)])
    packed = gzip.compress(plain.read_bytes())
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(packed[: len(packed) * 2 // 3])
    report = await load(database_url, cut, records_per_part=1_000)
    assert report.file.status == "failed"
    assert "cut short" in report.file.error
    assert 0 < report.file.rated < 5_000
    whole = tmp_path / "whole.csv.gz"
    whole.write_bytes(packed)
    again = await load(database_url, whole, records_per_part=1_000)
    assert again.file.status == "done"
    assert again.file.rated + report.file.rated == 5_000
    await proven(database_url)


async def test_a_damaged_packed_file_is_refused_before_anything_is_booked(
    database_url: str, world: CdrWorld, tmp_path: Path
) -> None:
    """Its checksum is at its end, and wrong bytes would have been booked by then."""
    plain = write_file(tmp_path / "a.csv", [Call(f"c{n:05}") for n in range(5_000)])
    packed = bytearray(gzip.compress(plain.read_bytes()))
    packed[-8] ^= 1
    path = tmp_path / "bad.csv.gz"
    path.write_bytes(packed)
    with pytest.raises(InvalidInput, match="damaged"):
        await load(database_url, path, records_per_part=1_000)
    assert world.one("SELECT count(*) FROM usage") == 0


async def test_a_file_that_grows_while_it_is_read_is_stopped_and_nothing_is_taken_twice(
    database_url: str, world: CdrWorld, tmp_path: Path
) -> None:
    """What was read stays; the complete file brings the rest."""
    path = write_file(tmp_path / "a.csv", [Call(f"c{n}") for n in range(10)])
    database = Database(database_url, size=2)
    await database.open()

    def grow(progress: Progress) -> None:
        if progress.stage == "reading":
            with path.open("a") as file:
                file.write(Call("late").line() + "\n")

    try:
        report = await load_file(database, job(path), clock=lambda: NOW, say=grow)
    finally:
        await database.close()
    assert report.file.status == "failed"
    assert "changed while it was read" in report.file.error
    again = await load(database_url, path)
    assert again.file.status == "done"
    assert world.one("SELECT count(*) FROM usage") == 11
    await proven(database_url)


async def test_only_one_load_of_a_switch_runs_at_a_time(
    database_url: str, world: CdrWorld, tmp_path: Path
) -> None:
    """The other is told so, and another switch is not concerned."""
    path = write_file(tmp_path / "a.csv", [Call("c1")])
    async with loading(database_url, SWITCH):
        with pytest.raises(Busy, match="being loaded"):
            await load(database_url, path)
        report = await load(database_url, path, switch="sw2")
    assert report.file.rated == 1
    assert (await load(database_url, path)).file.rated == 1


async def test_a_full_disk_stops_a_load_and_nothing_is_lost_or_doubled(
    database_url: str, world: CdrWorld, tmp_path: Path
) -> None:
    """The third part finds no room; when there is some again, the load goes on from there."""
    path = write_file(tmp_path / "a.csv", [Call(f"c{n:05}") for n in range(5_000)])
    world.sql(
        "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF (SELECT count(*) FROM cdr_batch) >= 2 THEN"
        " RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END IF;"
        " RETURN NEW; END $$"
    )
    world.sql(
        "CREATE TRIGGER no_room BEFORE INSERT ON cdr_batch FOR EACH ROW EXECUTE FUNCTION no_room()"
    )
    more: dict[str, Any] = {
        "format": "jsonl",
        "mapping": {"format": "jsonl", "fields": MAPPING["fields"]},
    }
    lines = path.read_text().splitlines()
    names = lines[0].split(",")
    records = [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    with pytest.raises(Busy, match="disk is full"):
        await load(database_url, path, records_per_part=1_000, **more)
    assert world.one("SELECT count(*) FROM usage") == 2_000
    world.sql("DROP TRIGGER no_room ON cdr_batch")
    report = await load(database_url, path, records_per_part=1_000, **more)
    assert (report.file.status, report.resumed, report.file.rated) == ("done", True, 5_000)
    assert world.balance(world.acme) == Decimal(100) - 5_000 * Decimal("0.6")
    await proven(database_url)


@pytest.mark.parametrize(
    "terms",
    [
        'UPDATE rate_plan SET terms = \'{"packages": [{"code": "p", "units": 9}]}\' WHERE id = %s',
        'UPDATE rate_plan SET terms = \'{"promotions": [{"code": "p", "percent": "10"}]}\' WHERE id = %s',
        'UPDATE rate_plan_card SET conditions = \'{"cli": "cli"}\' WHERE plan_id = %s',
    ],
)
async def test_a_plan_with_terms_prices_no_record_and_the_records_wait(
    database_url: str, world: CdrWorld, tmp_path: Path, terms: str
) -> None:
    """Tiers, promotions and conditions need live charging: without it a record is put aside, not mispriced."""
    world.sql(terms, world.plan_id)
    await load(database_url, write_file(tmp_path / "a.csv", [Call("c1"), Call("c2", seconds="0")]))
    (held,) = world.sql("SELECT line, reason, detail FROM cdr_quarantine")
    assert (held["line"], held["reason"]) == (2, "live_terms")
    assert held["detail"].startswith("the plan of acme has terms that only live charging applies")
    assert world.balance(world.acme) == Decimal(100)
    assert world.counts()["rated"] == 1, "an unanswered call that costs nothing needs no price"
    await proven(database_url)


async def test_terms_of_another_service_do_not_hold_records_up(
    database_url: str, world: CdrWorld, tmp_path: Path
) -> None:
    """A package of messages says nothing of calls."""
    package = '{"packages": [{"code": "p", "units": 10, "service": "sms"}], "fx_margin": "2"}'
    world.sql("UPDATE rate_plan SET terms = %s WHERE id = %s", package, world.plan_id)
    await load(database_url, write_file(tmp_path / "a.csv", [Call("c1")]))
    assert world.counts()["rated"] == 1
    assert world.sql("SELECT FROM cdr_quarantine") == []


async def test_an_extensions_records_are_paid_by_its_customer(
    database_url: str, world: CdrWorld, tmp_path: Path
) -> None:
    """By the customer's plan and wallet, and by the reseller above it; the record stays the extension's."""
    north = world.reseller("north")
    brook = world.customer("brook", parent=north)
    desk = world.user("desk-1", brook)
    world.trunk("desk-in", desk)
    calls = [Call("c1", trunk="desk-in"), Call("c2"), Call("c3", trunk="desk-in", called=UNSOLD)]
    report = await load(database_url, write_file(tmp_path / "a.csv", calls))
    assert (report.file.rated, report.file.quarantined) == (2, 1)
    assert world.balance(brook) == Decimal("99.4")
    assert world.balance(north) == Decimal("99.4")
    assert world.balance(world.acme) == Decimal("99.4")
    (row,) = world.sql("SELECT * FROM usage WHERE call_id = 'c1'")
    assert (row["customer_id"], row["sell_wallet"]) == (desk.id, brook.wallet_id)
    (held,) = world.sql("SELECT reason, detail FROM cdr_quarantine")
    assert held["reason"] == "no_rate"
    assert "no rate of brook covers the number" in held["detail"]
    await proven(database_url)
