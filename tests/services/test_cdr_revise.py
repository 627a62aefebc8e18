"""What is in the books can be priced anew and taken back; entries are added, never changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.services.cdr_world import NOON, NOW, Call, CdrWorld, load, write_file
from tests.services.test_cdr_load import proven
from tests.support import CARD, UK_MOBILE
from tollkeeper.errors import Conflict, InvalidInput
from tollkeeper.services.cdr.rerate import (
    RateChoice,
    RerateJob,
    RerateReport,
    Selection,
    rerate,
)
from tollkeeper.services.cdr.rollback import roll_back_file, roll_back_rerate
from tollkeeper.store.db import Database

DAY = Selection(NOON - timedelta(days=1), NOON + timedelta(days=1))
CALLS = [
    Call("c1"),
    Call("c2", called=UK_MOBILE, seconds="61"),
    Call("c3", seconds="30", start=NOON + timedelta(hours=2)),
    Call("c4", seconds="0", sip="486"),
]


class Desk:
    """A finance desk: a file of four calls is in the books."""

    def __init__(self, world: CdrWorld, database: Database, folder: Path) -> None:
        self.world, self.database, self.folder = world, database, folder

    def reprice(self, prefix: str, price: str, card: str = CARD) -> None:
        """A corrected deck: a new version of the card is in force, with another price per minute."""
        world = self.world
        (card_row,) = world.sql("SELECT id, last_version AS v FROM rate_card WHERE code = %s", card)
        new = card_row["v"] + 1
        world.sql(
            "UPDATE rate_version SET status = 'retired', retired_at = now() WHERE card_id = %s AND status = 'active'",
            card_row["id"],
        )
        world.sql(
            "UPDATE rate_card SET last_version = %s, active_version = %s WHERE id = %s",
            new,
            new,
            card_row["id"],
        )
        version = world.one(
            "INSERT INTO rate_version (card_id, version, status, mode, rows_in, rows_stored, rows_refused, row_count, created_by, activated_at)"
            " SELECT card_id, %s, 'active', mode, rows_in, rows_stored, 0, row_count, 'test', now() FROM rate_version WHERE card_id = %s AND version = %s RETURNING id",
            new, card_row["id"], card_row["v"],
        )  # fmt: skip
        world.sql(
            "INSERT INTO rate_row SELECT %s, row_no, r.prefix, destination,"
            " CASE WHEN r.prefix = %s THEN %s ELSE first_price END, CASE WHEN r.prefix = %s THEN %s ELSE next_price END,"
            " first_interval, next_interval, connect_fee, attempt_fee, minimum, free_below, surcharge, cap, blocked, NULL, NULL"
            " FROM rate_row r JOIN rate_version v ON v.id = r.version_id WHERE v.card_id = %s AND v.version = %s",
            version, prefix, Decimal(price), prefix, Decimal(price), card_row["id"], card_row["v"],
        )  # fmt: skip

    async def rerate(self, selection: Selection = DAY, **more: Any) -> RerateReport:
        """Re-rate; nothing is written without ``apply=True``."""
        job = RerateJob(selection, actor="test", reason="wrong deck", **more)
        return await rerate(self.database, job, clock=lambda: NOW)

    @property
    def money(self) -> tuple[Decimal, Decimal]:
        """What the customer has paid and the vendor has earned."""
        world = self.world
        return Decimal(100) - world.balance(world.acme), world.balance(world.vendor)

    def hours(self) -> tuple[Any, ...]:
        """The hourly sums altogether."""
        (row,) = self.world.sql(
            "SELECT sum(attempts)::int AS n, sum(revenue) AS revenue, sum(cost) AS cost, sum(duration_ms)::int AS ms FROM usage_hour"
        )
        return tuple(row.values())


@pytest.fixture
async def desk(database_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    """A file of four calls in the books."""
    with CdrWorld(database_url) as world:
        await load(database_url, write_file(tmp_path / "a.csv", CALLS))
        database = Database(database_url, size=2)
        await database.open()
        try:
            yield Desk(world, database, tmp_path)
        finally:
            await database.close()


PAID = Decimal("0.6") + Decimal("0.14") + Decimal("0.3")
EARNED = Decimal("0.3") + Decimal("0.055") + Decimal("0.15")


async def test_a_dry_run_says_what_would_change_and_changes_nothing(desk: Desk) -> None:
    """By customer and destination, the largest difference first."""
    desk.reprice("44", "0.66")
    before = desk.world.one("SELECT count(*) FROM entry")
    report = await desk.rerate()
    assert (report.records, report.changed, report.batch_id) == (4, 2, None)
    (change,) = report.changes
    assert (change.party, change.destination, change.calls) == ("acme", "United Kingdom", 2)
    assert (change.was, change.amount, change.difference) == (
        Decimal("0.9"), Decimal("0.99"), Decimal("0.09"),
    )  # fmt: skip
    assert desk.money == (PAID, EARNED)
    assert desk.world.one("SELECT count(*) FROM entry") == before


async def test_applying_it_reverses_and_charges_anew_and_can_itself_be_taken_back(
    desk: Desk,
) -> None:
    """One batch either way; the statement before stays as it was."""
    old = desk.world.sql("SELECT id, amount, balance_after FROM entry ORDER BY id")
    hours = desk.hours()
    desk.reprice("44", "0.66")
    report = await desk.rerate(apply=True)
    assert desk.money == (PAID + Decimal("0.09"), EARNED)
    assert desk.hours() == (hours[0], hours[1] + Decimal("0.09"), hours[2], hours[3])
    assert report.batch_id is not None
    entries = desk.world.sql(
        "SELECT code, amount FROM entry WHERE batch_id = %s ORDER BY code", report.batch_id
    )
    assert [(row["code"], row["amount"]) for row in entries] == [
        ("rated", Decimal("0.99")), ("reversal", Decimal("0.9")),
    ]  # fmt: skip
    await proven(desk.world.url)
    again = await desk.rerate(apply=True)
    assert again.changed == 0
    with pytest.raises(Conflict, match="stands on these records"):
        await roll_back_file(desk.database, 1, actor="test", reason="x", clock=lambda: NOW)
    await roll_back_rerate(
        desk.database, report.batch_id, actor="test", reason="mistake", clock=lambda: NOW
    )
    assert desk.money == (PAID, EARNED)
    assert desk.hours() == hours
    assert (
        desk.world.sql("SELECT id, amount, balance_after FROM entry ORDER BY id")[: len(old)] == old
    )
    await proven(desk.world.url)
    with pytest.raises(Conflict, match="taken back before"):
        await roll_back_rerate(
            desk.database, report.batch_id, actor="test", reason="x", clock=lambda: NOW
        )


async def test_the_later_re_rating_is_taken_back_first(desk: Desk) -> None:
    """Otherwise what a record costs would not follow from the batches that stand."""
    desk.reprice("44", "0.66")
    first = await desk.rerate(apply=True)
    desk.reprice("44", "0.72")
    second = await desk.rerate(apply=True)
    assert desk.money[0] == PAID + Decimal("0.18")
    assert first.batch_id is not None
    assert second.batch_id is not None
    with pytest.raises(Conflict, match=f"re-rating {second.batch_id} stands"):
        await roll_back_rerate(
            desk.database, first.batch_id, actor="test", reason="x", clock=lambda: NOW
        )
    await proven(desk.world.url)
    await roll_back_rerate(
        desk.database, second.batch_id, actor="test", reason="x", clock=lambda: NOW
    )
    assert desk.money[0] == PAID + Decimal("0.09")
    await roll_back_rerate(
        desk.database, first.batch_id, actor="test", reason="x", clock=lambda: NOW
    )
    assert desk.money == (PAID, EARNED)
    await proven(desk.world.url)


async def test_the_vendors_leg_is_priced_anew_as_well(desk: Desk) -> None:
    """A correction of a buy deck moves the vendor's wallet and no customer's."""
    desk.reprice("44", "0.24", card="carrier-buy")
    report = await desk.rerate(apply=True)
    assert [(one.side, one.party, one.difference) for one in report.changes] == [
        ("buy", "carrier", Decimal("-0.09"))
    ]
    assert desk.money == (PAID, EARNED - Decimal("0.09"))
    await proven(desk.world.url)


async def test_only_what_was_picked_is_priced_anew(desk: Desk) -> None:
    """By destination, number, file, time and card version."""
    desk.reprice("44", "0.66")
    assert (await desk.rerate(Selection(DAY.since, DAY.until, called="447"))).changed == 0
    assert (
        await desk.rerate(Selection(DAY.since, DAY.until, destination="United Kingdom"))
    ).changed == 2
    late = Selection(NOON + timedelta(hours=1), DAY.until)
    assert (await desk.rerate(late)).changed == 1
    assert (await desk.rerate(Selection(DAY.since, DAY.until, file_id=999))).records == 0
    assert (
        await desk.rerate(Selection(DAY.since, DAY.until, customer=desk.world.vendor.id))
    ).records == 0
    pinned = RateChoice(as_of_call=False, pinned={CARD: 1})
    assert (await desk.rerate(choice=pinned)).changed == 0
    assert (await desk.rerate(choice=RateChoice(as_of_call=True))).changed == 0


async def test_a_re_rating_needs_a_reason_and_a_period(desk: Desk) -> None:
    """What moves money says why."""
    with pytest.raises(InvalidInput, match="reason"):
        await rerate(desk.database, RerateJob(DAY, apply=True), clock=lambda: NOW)
    with pytest.raises(InvalidInput, match="until"):
        await rerate(desk.database, RerateJob(Selection(DAY.until, DAY.since)), clock=lambda: NOW)


async def test_a_file_is_taken_back_whole_and_may_come_again(desk: Desk, database_url: str) -> None:
    """Its money, its sums and its keys; what it left in quarantine is closed."""
    held = write_file(desk.folder / "b.csv", [Call("c9", trunk="stranger"), Call("c8")])
    report = await load(database_url, held)
    assert report.file.quarantined == 1
    hours = desk.hours()
    done = await roll_back_file(
        desk.database, report.file.id, actor="test", reason="wrong switch", clock=lambda: NOW
    )
    assert done.entries == 2
    assert desk.money == (PAID, EARNED)
    assert desk.hours()[0] == hours[0] - 1
    assert desk.world.one("SELECT status FROM cdr_quarantine") == "dropped"
    await proven(database_url)
    with pytest.raises(Conflict, match="rolled back before"):
        await roll_back_file(
            desk.database, report.file.id, actor="test", reason="x", clock=lambda: NOW
        )
    again = await load(database_url, held)
    assert (again.known, again.file.rated, again.file.duplicate) == (False, 1, 0)
    assert desk.hours() == hours
    await proven(database_url)


async def test_an_extensions_records_are_priced_anew_by_its_customers_plan(desk: Desk) -> None:
    """The difference is found, applied to the customer's wallet, and then gone."""
    world = desk.world
    user = world.user("desk-1", world.acme)
    world.trunk("desk-in", user)
    await load(world.url, write_file(desk.folder / "b.csv", [Call("d1", trunk="desk-in")]))
    before = world.balance(world.acme)
    assert desk.money[0] == PAID + Decimal("0.6")
    desk.reprice("44", "0.66")
    report = await desk.rerate(apply=True)
    assert report.changed == 3
    assert {change.party for change in report.changes} == {"acme"}
    assert before - world.balance(world.acme) == Decimal("0.15")
    assert (await desk.rerate()).changed == 0
    await proven(world.url)
