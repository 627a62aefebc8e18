"""A call is charged once, whether the switch's file or the live session comes first."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.services.cdr_world import NOW, SWITCH, Call, CdrWorld, load, write_file
from tests.services.test_cdr_load import proven
from tests.support import UNSOLD, Row, runtime, tariff
from tollkeeper.services.cdr.late_match import LateMatch
from tollkeeper.services.cdr.match import MatchPolicy
from tollkeeper.services.cdr.prepare import LoadPolicy
from tollkeeper.services.cdr.quarantine import Filter, replay
from tollkeeper.services.cdr.rollback import roll_back_file
from tollkeeper.store.db import Database

CORRECT = LoadPolicy(match=MatchPolicy(on_difference="correct"))


class Desk:
    """A switch that charges live and delivers files as well."""

    def __init__(self, world: CdrWorld, parts: Any, folder: Path) -> None:
        self.world, self.parts, self.folder = world, parts, folder
        self.files = 0

    async def authorise(self, name: str) -> None:
        """Begin a call that is charged live."""
        reply, _ = await self.parts.charging.authorise(
            switch=SWITCH,
            session_id=name,
            party="acme",
            called="442071838750",
            requested_seconds=300,
        )
        assert reply.granted_seconds > 0

    async def stop(self, name: str, used_ms: int) -> None:
        """End it."""
        await self.parts.charging.stop(switch=SWITCH, session_id=name, used_ms=used_ms)

    async def file(self, *calls: Call, **more: Any) -> Any:
        """Load a file of calls of this moment."""
        self.files += 1
        now = datetime.now(UTC)
        path = write_file(
            self.folder / f"{self.files}.csv", [replace(call, start=now) for call in calls]
        )
        return await load(self.world.url, path, now=now, **more)


@pytest.fixture
async def desk(database_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    """A carrier with a running server."""
    with CdrWorld(database_url) as world:
        world.key("charge", switch=SWITCH)
        async with runtime(database_url) as parts:
            yield Desk(world, parts, tmp_path)


async def test_a_call_that_was_charged_live_is_matched_and_not_charged_again(desk: Desk) -> None:
    """The vendor's leg is still booked: only the file knows it."""
    await desk.authorise("c1")
    await desk.stop("c1", 60_000)
    report = await desk.file(Call("c1"), Call("c2"))
    assert (report.file.matched, report.file.rated) == (1, 1)
    assert desk.world.balance(desk.world.acme) == Decimal(100) - 2 * Decimal("0.6")
    assert desk.world.balance(desk.world.vendor) == 2 * Decimal("0.3")
    (row,) = desk.world.sql("SELECT * FROM usage WHERE state = 'matched'")
    (session,) = desk.world.sql("SELECT id, charge FROM closed_session")
    assert (row["session_id"], row["charge"]) == (session["id"], session["charge"])
    assert desk.world.one("SELECT count(*) FROM cdr_mismatch WHERE kind = 'duration_differs'") == 0
    await proven(desk.world.url)


async def test_a_difference_is_reported_and_by_policy_corrected(desk: Desk) -> None:
    """60 s live, 90 s in the file: reported; corrected only where the policy says so."""
    for name in ("told", "mended"):
        await desk.authorise(name)
        await desk.stop(name, 60_000)
    await desk.file(Call("told", seconds="90"))
    assert desk.world.balance(desk.world.acme) == Decimal(100) - 2 * Decimal("0.6")
    await desk.file(Call("mended", seconds="90"), policy=CORRECT)
    assert desk.world.balance(desk.world.acme) == Decimal(100) - Decimal("0.6") - Decimal("0.9")
    notes = desk.world.sql("SELECT kind, expected, found FROM cdr_mismatch ORDER BY id")
    assert [row["kind"] for row in notes] == ["duration_differs", "duration_differs"]
    assert notes[0]["expected"].startswith("60000 ms")
    assert notes[0]["found"].startswith("90000 ms")
    codes = desk.world.sql("SELECT code, amount FROM entry WHERE batch_id IS NOT NULL AND wallet_id = %s ORDER BY id",
                           desk.world.acme.wallet_id)  # fmt: skip
    assert {(row["code"], row["amount"]) for row in codes} == {
        ("reversal", Decimal("0.6")), ("rated", Decimal("0.9")),
    }  # fmt: skip
    await proven(desk.world.url)


async def test_what_volume_decided_is_reported_and_never_corrected_by_itself(desk: Desk) -> None:
    """At the tier's 0.30 a minute 60 s cost 0.30; what 90 s would have, the duration alone does not say."""
    tier = {"code": "volume", "steps": [{"from": 0, "price": "0.30"}]}
    desk.world.sql("UPDATE rate_plan SET terms = %s", Jsonb({"tiers": [tier]}))
    await desk.parts.directory.load()
    await desk.authorise("c1")
    await desk.stop("c1", 60_000)
    report = await desk.file(Call("c1", seconds="90"), policy=CORRECT)
    assert report.file.matched == 1
    assert desk.world.balance(desk.world.acme) == Decimal(100) - Decimal("0.3")
    (note,) = desk.world.sql("SELECT found FROM cdr_mismatch WHERE kind = 'duration_differs'")
    assert note["found"] == "90000 ms, to be worked out"
    await proven(desk.world.url)


async def test_a_call_that_is_still_live_waits_until_its_session_has_closed(desk: Desk) -> None:
    """Then it is matched; nothing is charged twice."""
    await desk.authorise("c1")
    report = await desk.file(Call("c1"))
    assert report.file.quarantined == 1
    await desk.stop("c1", 60_000)
    done = await replay(
        desk.parts.database, Filter(reason="session_open"), policy=LoadPolicy(), actor="test",
        clock=lambda: datetime.now(UTC),
    )  # fmt: skip
    assert (done.played, done.matched, done.still) == (1, 1, 0)
    assert desk.world.balance(desk.world.acme) == Decimal("99.4")
    assert desk.world.one("SELECT status FROM cdr_quarantine") == "replayed"
    await proven(desk.world.url)


async def test_a_session_that_comes_after_the_file_takes_the_files_charge_back(desk: Desk) -> None:
    """The other order of arrival; looking twice changes nothing more."""
    await desk.file(Call("c1"), Call("c2"))
    await desk.authorise("c1")
    await desk.stop("c1", 60_000)
    assert desk.world.balance(desk.world.acme) == Decimal(100) - 3 * Decimal("0.6")
    match = LateMatch(desk.parts.database, lambda: datetime.now(UTC))
    assert await match.run() == 1
    assert await match.run() == 0
    assert await LateMatch(desk.parts.database, lambda: datetime.now(UTC)).run() == 0
    assert desk.world.balance(desk.world.acme) == Decimal(100) - 2 * Decimal("0.6")
    await proven(desk.world.url)


async def test_an_end_told_hours_late_takes_back_what_the_file_charged_meanwhile(
    desk: Desk,
) -> None:
    """The session expired without a word, its record was charged, and then the switch told its end."""
    began = datetime.now(UTC)
    await desk.authorise("c1")

    def later(hours: int) -> Callable[[], datetime]:
        return lambda: began + timedelta(hours=hours)

    async with runtime(desk.world.url, clock=later(1)) as parts:
        await parts.timers.expire_due()
    report = await desk.file(Call("c1"))
    assert (report.file.rated, report.file.matched) == (1, 0)
    assert await LateMatch(desk.parts.database, later(2)).run() == 0
    async with runtime(desk.world.url, clock=later(3)) as parts:
        await parts.charging.stop(switch=SWITCH, session_id="c1", used_ms=60_000)
    assert desk.world.balance(desk.world.acme) == Decimal(100) - 2 * Decimal("0.6")
    assert await LateMatch(desk.parts.database, later(3)).run() == 1
    assert await LateMatch(desk.parts.database, later(3)).run() == 0
    assert desk.world.balance(desk.world.acme) == Decimal("99.4")


async def test_a_refused_call_that_took_place_all_the_same_is_charged(desk: Desk) -> None:
    """The switch ignored the refusal: the file is what is known of the call."""
    desk.world.sql("UPDATE party SET max_sessions = 0 WHERE id = %s", desk.world.acme.id)
    desk.world.notify(f"party:{desk.world.acme.id}")
    await desk.parts.directory.load()
    reply, _ = await desk.parts.charging.authorise(
        switch=SWITCH, session_id="c1", party="acme", called="442071838750"
    )
    assert reply.outcome == "refused"
    report = await desk.file(Call("c1"))
    assert (report.file.rated, report.file.matched) == (1, 0)
    assert desk.world.balance(desk.world.acme) == Decimal("99.4")


async def test_records_in_quarantine_are_mended_by_a_rule_and_played_once(
    database_url: str, tmp_path: Path
) -> None:
    """Adding the missing trunk is enough; playing twice books once."""
    with CdrWorld(database_url) as world:
        path = write_file(
            tmp_path / "a.csv", [Call("c1", trunk="new"), Call("c1", trunk="new"), Call("c2")]
        )
        report = await load(database_url, path)
        assert (report.file.rated, report.file.quarantined) == (1, 2)
        world.trunk("new", world.acme)
        database = Database(database_url, size=2)
        await database.open()
        try:
            for expected in ((2, 1, 1), (0, 0, 0)):
                done = await replay(
                    database, Filter(), policy=LoadPolicy(), actor="test",
                    clock=lambda: datetime.now(UTC),
                )  # fmt: skip
                assert (done.played, done.rated, done.duplicate) == expected
        finally:
            await database.close()
        assert world.balance(world.acme) == Decimal(100) - 2 * Decimal("0.6")
        lines = world.sql("SELECT line, call_id FROM usage ORDER BY line")
        assert [(row["line"], row["call_id"]) for row in lines] == [(2, "c1"), (4, "c2")]
    await proven(database_url)


async def test_what_had_no_rate_is_priced_when_the_card_has_been_completed(
    database_url: str, tmp_path: Path
) -> None:
    """And taking the file back takes what was played again along."""
    with CdrWorld(database_url) as world:
        path = write_file(tmp_path / "a.csv", [Call("c1", called=UNSOLD), Call("c2")])
        report = await load(database_url, path)
        assert (report.file.rated, report.file.quarantined) == (1, 1)
        (held,) = world.sql("SELECT value, detail FROM cdr_quarantine")
        assert held["value"] == UNSOLD
        assert "acme" in held["detail"]
        card = world.card("gaps", [Row("999", "Rest of the world", tariff("1.2"))])
        world.sql("INSERT INTO rate_plan_card (plan_id, position, card_id) VALUES (%s, 2, %s)",
                  world.plan_id, card)  # fmt: skip
        database = Database(database_url, size=2)
        await database.open()
        try:
            done = await replay(
                database, Filter(), policy=LoadPolicy(), actor="test", clock=lambda: NOW
            )
            assert (done.played, done.rated, done.still) == (1, 1, 0)
            assert world.balance(world.acme) == Decimal(100) - Decimal("0.6") - Decimal("1.2")
            await proven(database_url)
            await roll_back_file(
                database, report.file.id, actor="test", reason="wrong", clock=lambda: NOW
            )
        finally:
            await database.close()
        assert world.balance(world.acme) == Decimal(100)
    await proven(database_url)
