"""Calls that were reported and could not be charged: they wait in quarantine, once, and can be mended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from tests.servers.radius_world import Set, next_set
from tests.support import UK_FIXED, UNSOLD
from tollkeeper.core.reasons import MEANINGS, Reason
from tollkeeper.core.usage import Usage
from tollkeeper.errors import Busy
from tollkeeper.services.cdr import quarantine, told
from tollkeeper.services.cdr.prepare import LoadPolicy
from tollkeeper.services.verify import verify
from tollkeeper.wire.radius.attributes import Type, Voice, integer, voice
from tollkeeper.wire.radius.messages import Status
from tollkeeper.wire.radius.packet import Code

CENT = Decimal("0.01")
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def desk(radius_shop: Set) -> AsyncIterator[Set]:
    """A switch and a customer of this test alone."""
    async with next_set(radius_shop) as made:
        yield made


def waiting(desk: Set) -> list[dict[str, Any]]:
    """What waits in quarantine."""
    return desk.world.sql(
        "SELECT id, reason, field, value, detail, raw, record, at FROM cdr_quarantine"
        " WHERE switch = %s AND status = 'open' ORDER BY id",
        desk.peer.switch,
    )


async def replay(desk: Set) -> quarantine.ReplayReport:
    return await quarantine.replay(
        desk.house.parts.database,
        quarantine.Filter(switch=desk.peer.switch),
        policy=LoadPolicy(),
        actor="tester",
        clock=lambda: datetime.now(UTC),
    )


def known_by_name(desk: Set) -> None:
    """The customer's trunk is recognised in records, too."""
    desk.world.sql(
        "UPDATE trunk SET names = %s WHERE code = %s", [desk.peer.trunk], desk.peer.trunk
    )


async def test_a_stop_of_a_call_that_was_refused_waits_and_is_charged_when_played_again(
    radius_shop: Set,
) -> None:
    """The switch let it through; said three times, it waits once, and playing it twice charges once."""
    async with next_set(radius_shop, balance="0") as desk:
        assert (await desk.nas.ask(desk.call())).packet.code == Code.ACCESS_REJECT
        await desk.report(Status.START)
        before = desk.faults("unpaid")
        for delay in (0, 5, 10):
            late = integer(Type.ACCT_DELAY_TIME, delay)
            answer = await desk.report(Status.STOP, "A1", 33, late)
            assert answer.packet.code == Code.ACCOUNTING_RESPONSE
        (row,) = waiting(desk)
        assert desk.faults("unpaid") == before + 1
        assert row["reason"] == "not_charged"
        assert row["detail"].endswith(MEANINGS[Reason.INSUFFICIENT_FUNDS].text)
        assert "session_id = A1" in row["raw"]
        record = row["record"]
        assert (record["call_id"], record["called"]) == ("A1", UK_FIXED)
        assert record["duration_ms"] == 33_000
        assert record["answer"] + 33_000_000 == record["end"]
        assert abs(record["end"] / 1e6 - row["at"].timestamp()) < 5
        assert desk.spent() == 0
        known_by_name(desk)
        report = await replay(desk)
        assert (report.played, report.rated, report.still) == (1, 1, 0)
        assert waiting(desk) == []
        assert desk.spent() == 33 * CENT
        assert (await replay(desk)).played == 0
        await desk.report(Status.STOP, "A1", 33)
        assert waiting(desk) == []
        assert desk.spent() == 33 * CENT
        assert (await verify(desk.house.parts.database)).clean


async def test_a_stop_of_nobodys_call_waits_until_its_trunk_is_known(desk: Set) -> None:
    await desk.column("trunk", "")
    far = voice(Voice.REMOTE_ADDRESS, "198.51.100.99")
    await desk.report(Status.STOP, "B1", 20, far, integer(Type.ACCT_DELAY_TIME, 600))
    (row,) = waiting(desk)
    assert (row["reason"], row["field"]) == ("unknown_customer", "trunk_in")
    assert row["record"]["ip_in"] == "198.51.100.99"
    assert abs(row["record"]["end"] / 1e6 + 600 - row["at"].timestamp()) < 5
    assert (await replay(desk)).still == 1
    desk.world.sql(
        "UPDATE trunk SET addresses = '{198.51.100.99}' WHERE code = %s", desk.peer.trunk
    )
    assert (await replay(desk)).rated == 1
    assert desk.spent() == 20 * CENT


async def test_a_call_that_has_no_price_waits_for_one(desk: Set) -> None:
    known_by_name(desk)
    about = desk.call("C1", UNSOLD)
    assert (await desk.nas.ask(about)).packet.code == Code.ACCESS_REJECT
    await desk.nas.tell(Status.STOP, [*about, integer(Type.ACCT_SESSION_TIME, 9)])
    (row,) = waiting(desk)
    assert (row["reason"], row["field"], row["value"]) == ("no_rate", "called", UNSOLD)


async def test_a_switch_whose_reports_open_no_calls_loses_none_either(desk: Set) -> None:
    """accounting_opens=off; both legs of a call wait as one."""
    await desk.options(accounting_opens=False)
    await desk.report(Status.STOP, "D1", 9)
    conference = voice(Voice.CONF_ID, "16000 1 2 3")
    await desk.report(Status.STOP, "L1", 30, conference)
    await desk.report(Status.STOP, "L2", 45, conference)
    assert [row["record"]["duration_ms"] for row in waiting(desk)] == [9_000, 30_000]
    assert desk.up() == []


async def test_what_was_never_used_or_was_charged_does_not_wait(desk: Set) -> None:
    await desk.report(Status.STOP, "E1", 0)
    await desk.report(Status.STOP, "E2", 7)
    await desk.report(Status.STOP, "E2", 7)
    await desk.report(Status.FAILED, "E3", 7)
    assert waiting(desk) == []
    assert desk.charges() == {"E2": 7 * CENT}


async def test_two_calls_that_had_one_id_both_wait(desk: Set) -> None:
    await desk.options(accounting_opens=False)
    for seconds in (9, 11, 9):
        await desk.report(Status.STOP, "F1", seconds)
    assert [row["record"]["duration_ms"] for row in waiting(desk)] == [9_000, 11_000]


async def test_a_stop_that_cannot_be_put_aside_is_not_answered(
    desk: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 2866 section 4.1: an answer means that it is recorded."""
    await desk.options(accounting_opens=False)

    async def busy(*_: object, **__: object) -> bool:
        raise Busy("the database is away")

    monkeypatch.setattr("tollkeeper.servers.radius.accounting.put_aside", busy)
    about = [*desk.call("G1"), integer(Type.ACCT_SESSION_TIME, 9)]
    data = desk.nas.request(
        Code.ACCOUNTING_REQUEST, [*about, integer(Type.ACCT_STATUS_TYPE, Status.STOP)]
    )
    assert await desk.nas.try_to_send(data, desk.nas.acct, seconds=0.2) is None
    monkeypatch.undo()
    await desk.nas.send(data, desk.nas.acct)
    assert len(waiting(desk)) == 1


async def test_every_refusal_that_records_have_too_names_a_field_of_theirs() -> None:
    assert {field for _, field in told.REASONS.values()} <= set(Usage.__struct_fields__)
