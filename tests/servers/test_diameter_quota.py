"""What Diameter clients report, in all the ways they do: each unit is charged once, and nothing stays held."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from decimal import Decimal
from typing import Any

import pytest

from tests.protocols.house import top_up
from tests.servers.diameter_desk import DATA, MB, SMS, Desk, open_desk
from tests.support import UK_FIXED, UK_MOBILE, until
from tollkeeper.wire.diameter.codes import Action, Kind, Reporting
from tollkeeper.wire.diameter.credit import Control, CreditAnswer, Units
from tollkeeper.wire.diameter.service import ServiceInformation

PACKETS: dict[str, Any] = {"context": DATA, "information": ServiceInformation()}


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        yield await open_desk(database_url, stack)


def line(group: int, wish: int | None = None, *used: Units, reason: int | None = None) -> Control:
    """A rating group of data: a wish for more megabytes, and what was used."""
    asked = None if wish is None else Units(total=wish * MB)
    return Control(rating_group=group, requested=asked, used=used, reason=reason)


def mb(number: int) -> Units:
    """Megabytes."""
    return Units(total=number * MB)


def cents(desk: Desk) -> int:
    """What the customer has paid so far."""
    return int((Decimal(10) - desk.balance()) * 100)


# --- quotas that are given back -------------------------------------------------------------------


@pytest.mark.parametrize("reason", [Reporting.FINAL, Reporting.QHT, Reporting.UNUSED_QUOTA_TIMER])
async def test_a_quota_that_is_given_back_is_held_no_longer(desk: Desk, reason: Reporting) -> None:
    """It is settled at once; asked for again it is opened anew, and a repetition is answered the same."""
    client = await desk.client()
    more = PACKETS | {"multiple": True}
    await desk.say(client, "d", Kind.INITIAL, controls=(line(1, 5), line(2, 5)), **more)
    assert desk.held() == Decimal("0.10")
    # The reason stands in the service of some clients, of others in the unit.
    used = Units(total=3 * MB, reason=None if reason is Reporting.FINAL else reason)
    back = line(1, None, used, reason=reason if reason is Reporting.FINAL else None)
    answer = await desk.say(client, "d", Kind.UPDATE, controls=(back,), **more)
    assert (answer.controls[0].result, answer.controls[0].granted) == (2001, None)
    assert (desk.held(), cents(desk)) == (Decimal("0.05"), 3)
    again = client.request("gw.example;d", Kind.UPDATE, 1, controls=(back,), **more)
    assert (await client.credit(again, again=True)).controls[0].result == 2001
    opened = client.request("gw.example;d", Kind.UPDATE, 2, controls=(line(1, 4),), **more)
    assert (await client.credit(opened)).controls[0].granted == mb(4)
    assert (await client.credit(opened, again=True)).controls[0].granted == mb(4)
    assert (desk.held(), cents(desk)) == (Decimal("0.09"), 3)
    third = client.request("gw.example;d", Kind.UPDATE, 3, controls=(line(1, 4, mb(4)),), **more)
    assert (await client.credit(third)).controls[0].granted == mb(4)
    # The old report, once more: it is of the turn before.
    assert (await client.credit(again, again=True)).controls[0].result == 2001
    await desk.house.restart()
    client = await desk.client()
    assert (await client.credit(third, again=True)).controls[0].granted == mb(4)
    end = (line(1, None, mb(1)), line(2, None, mb(2)))
    last = client.request("gw.example;d", Kind.TERMINATION, 4, controls=end, **more)
    assert [one.result for one in (await client.credit(last)).controls] == [2001, 2001]
    assert cents(desk) == 3 + 4 + 1 + 2
    await desk.proven()


async def test_a_service_that_was_refused_is_opened_when_money_came(desk: Desk) -> None:
    """4012 for one rating group is not for ever; the others go on meanwhile."""
    client = await desk.client()
    more = PACKETS | {"multiple": True}
    await desk.say(client, "d", Kind.INITIAL, controls=(line(1, 900),), **more)
    await desk.say(client, "d", Kind.UPDATE, controls=(line(2, 100),), **more)
    answer = await desk.say(client, "d", Kind.UPDATE, controls=(line(3, 5),), **more)
    assert answer.controls[0].result == 4012
    answer = await desk.say(client, "d", Kind.UPDATE, controls=(line(3, 5),), **more)
    assert answer.controls[0].result == 4012
    top_up(desk.world, desk.acme, "1")
    await until(lambda: desk.world.wallet(desk.acme).balance == Decimal(11))
    answer = await desk.say(client, "d", Kind.UPDATE, controls=(line(3, 5),), **more)
    assert answer.controls[0].granted == mb(5)
    end = (line(1), line(2), line(3, None, mb(2)))
    assert (await desk.say(client, "d", Kind.TERMINATION, controls=end, **more)).result == 2001
    assert desk.balance() == Decimal("10.98")
    await desk.proven()


async def test_used_up_to_the_end_of_the_money_is_deducted(desk: Desk) -> None:
    """4012 on an update: what it reports is charged all the same."""
    client = await desk.client()
    more = PACKETS | {"multiple": True}
    await desk.say(client, "d", Kind.INITIAL, controls=(line(1, 1000),), **more)
    answer = await desk.say(client, "d", Kind.UPDATE, controls=(line(1, 5, mb(1000)),), **more)
    assert answer.controls[0].result == 4012
    assert (await desk.say(client, "d", Kind.TERMINATION, **more)).result == 2001
    assert desk.balance() == 0
    await desk.proven()


# --- ways of reporting ----------------------------------------------------------------------------


async def test_every_way_of_reporting_octets_counts_once(desk: Desk) -> None:
    """Around a change of tariff, in and out without a total, with it, in an initial, beside seconds."""
    client = await desk.client()
    more = PACKETS | {"multiple": True}
    first = line(1, 5, mb(1))
    answer = await desk.say(client, "d", Kind.INITIAL, controls=(first,), **more)
    assert answer.controls[0].granted == mb(5)
    for used, total in (
        ((Units(total=MB, tariff_change=0), Units(total=2 * MB, tariff_change=1)), 4),
        ((Units(input=MB, output=2 * MB),), 7),
        ((Units(total=MB, input=MB, output=0),), 8),
        ((Units(total=MB, tariff_change=2), Units(output=MB)), 10),
        ((Units(time=600, total=MB, specific=9),), 11),
    ):
        answer = await desk.say(client, "d", Kind.UPDATE, controls=(line(1, 5, *used),), **more)
        assert answer.controls[0].granted == mb(5), used
        assert desk.world.one("SELECT body->>'used_ms' FROM live_session") == str(total * MB * 1000)
    # Nothing of the unit that is charged: no octets. A wish in another unit is refused, its report is not.
    seconds = Control(rating_group=1, requested=Units(time=60), used=(Units(time=60), mb(1)))
    answer = await desk.say(client, "d", Kind.UPDATE, controls=(seconds,), **more)
    assert answer.controls[0].result == 5031
    twice = (line(1, None, mb(1)), line(1, None, mb(2)))
    assert (await desk.say(client, "d", Kind.TERMINATION, controls=twice, **more)).result == 2001
    assert cents(desk) == 15
    await desk.proven()


async def test_numbers_that_cannot_be_are_charged_to_nobody(desk: Desk) -> None:
    """A counter that fell below 0 is a huge one: it is refused, and the session ends as it was before."""
    client = await desk.client()
    await desk.say(client, "v", Kind.INITIAL, requested=Units(time=60))
    for number in (2**32 - 1, 2**31, 10_000_001):
        used = (Units(time=number),)
        answer = await desk.say(client, "v", Kind.UPDATE, requested=Units(time=60), used=used)
        assert answer.result == 5031
    answer = await desk.say(client, "v", Kind.UPDATE, requested=Units(), used=(Units(time=7),))
    assert answer.granted == Units(time=60)
    answer = await desk.say(client, "v", Kind.TERMINATION, used=(Units(time=2**32 - 5),))
    assert answer.result == 5031
    more = PACKETS | {"multiple": True}
    huge = line(1, 2**64 // MB, Units(total=2**64 - 1))
    answer = await desk.say(client, "d", Kind.INITIAL, controls=(huge,), **more)
    assert answer.controls[0].granted == mb(993), "the money is the end of what is asked for"
    answer = await desk.say(client, "d", Kind.TERMINATION, controls=(line(1, None, mb(1)),), **more)
    assert answer.result == 2001
    assert cents(desk) == 8
    await desk.proven()


async def test_a_session_keeps_the_unit_that_it_was_begun_with(desk: Desk) -> None:
    """A context that says nothing, begun as a call: octets are no seconds, here and after a restart."""
    client = await desk.client()
    more = {"context": "any@example.org"}
    answer = await desk.say(client, "u", Kind.INITIAL, requested=Units(), **more)
    assert answer.granted == Units(time=60)
    used = (Units(total=3 * MB),)
    answer = await desk.say(client, "u", Kind.UPDATE, requested=Units(), used=used, **more)
    assert answer.granted == Units(time=60)
    await desk.house.restart()
    client = await desk.client()
    both = (Units(total=3 * MB, time=4),)
    answer = await desk.say(client, "u", Kind.UPDATE, requested=Units(), used=both, **more)
    assert answer.granted == Units(time=60)
    used = (Units(total=3 * MB), Units(time=2))
    assert (await desk.say(client, "u", Kind.TERMINATION, used=used, **more)).result == 2001
    assert cents(desk) == 6
    await desk.proven()


# --- how sessions end and begin -------------------------------------------------------------------


async def test_an_end_without_rating_groups_ends_them_all(desk: Desk) -> None:
    """Also where the indicator of several services stood in the beginning only, and after a restart."""
    client = await desk.client()
    for session, restart in (("a", False), ("b", True)):
        asked = (line(1, 5), line(2, 5))
        await desk.say(client, session, Kind.INITIAL, controls=asked, multiple=True, **PACKETS)
        used = (line(1, 5, mb(2)),)
        await desk.say(client, session, Kind.UPDATE, controls=used, multiple=True, **PACKETS)
        if restart:
            await desk.house.restart()
            client = await desk.client()
        assert (await desk.say(client, session, Kind.TERMINATION, **PACKETS)).result == 2001
        await desk.proven()
    assert cents(desk) == 4


async def test_a_rating_group_that_only_the_end_names_is_charged(desk: Desk) -> None:
    """In a session that is known; in one that nobody began there is nothing to charge."""
    client = await desk.client()
    more = PACKETS | {"multiple": True}
    await desk.say(client, "d", Kind.INITIAL, controls=(line(1, 5),), **more)
    end = (line(1, None, mb(1)), line(9, None, mb(2)))
    answer = await desk.say(client, "d", Kind.TERMINATION, controls=end, **more)
    assert [one.result for one in answer.controls] == [2001, 2001]
    answer = await desk.say(client, "e", Kind.TERMINATION, controls=end, **more)
    assert answer.result == 5002
    assert cents(desk) == 3
    await desk.proven()


async def test_a_client_that_lost_its_session_begins_it_again(desk: Desk) -> None:
    """The end was lost and the Session-Id comes again: the old is settled, the new counts from 0."""
    client = await desk.client()

    async def say(kind: Kind, number: int, used: int = 0, *, again: bool = False) -> CreditAnswer:
        about = ServiceInformation(called=f"tel:+{UK_FIXED}")
        request = client.request(
            "gw.example;x", kind, number, requested=Units(time=30), information=about,
            used=(Units(time=used),) if used else (),
        )  # fmt: skip
        return await client.credit(request, again=again)

    assert (await say(Kind.INITIAL, 0)).granted == Units(time=30)
    # Nothing came between: the same request again, with and without the flag.
    assert (await say(Kind.INITIAL, 0, again=True)).granted == Units(time=30)
    assert (await say(Kind.INITIAL, 0)).granted == Units(time=30)
    assert desk.world.one("SELECT count(*) FROM live_session") == 1
    assert (await say(Kind.UPDATE, 1, 10)).result == 2001
    assert (await say(Kind.INITIAL, 0, again=True)).granted == Units(time=30)
    assert cents(desk) == 0
    assert (await say(Kind.INITIAL, 0)).granted == Units(time=30)
    assert cents(desk) == 10
    assert (await say(Kind.UPDATE, 1, 20)).granted == Units(time=30)
    await desk.house.restart()
    client = await desk.client()
    assert (await say(Kind.UPDATE, 1, 20, again=True)).granted == Units(time=30)
    assert (await say(Kind.TERMINATION, 2, 5)).result == 2001
    assert (await say(Kind.TERMINATION, 2, 5, again=True)).result == 2001
    assert cents(desk) == 35
    await desk.proven()


# --- events ---------------------------------------------------------------------------------------


async def test_events_are_told_apart_by_session_and_number(desk: Desk) -> None:
    """The same again is charged once, another number again; other content under the same name never."""
    client = await desk.client()

    async def event(number: int, units: int, action: Action, called: str = UK_FIXED) -> int:
        request = client.request(
            "gw.example;m", Kind.EVENT, number, action=action, context=SMS,
            requested=Units(specific=units),
            information=ServiceInformation(recipients=(f"+{called}",)),
        )  # fmt: skip
        return (await client.credit(request)).result

    assert await event(0, 2, Action.DIRECT_DEBITING) == 2001
    assert await event(0, 2, Action.DIRECT_DEBITING) == 2001
    assert cents(desk) == 10
    assert await event(0, 3, Action.DIRECT_DEBITING) == 5012
    assert await event(0, 2, Action.DIRECT_DEBITING, UK_MOBILE) == 5012
    assert cents(desk) == 10
    assert await event(1, 2, Action.DIRECT_DEBITING) == 2001
    assert cents(desk) == 20
    for _ in range(2):
        assert await event(0, 2, Action.REFUND_ACCOUNT) == 2001
        assert await event(0, 9, Action.REFUND_ACCOUNT) == 2001
        assert cents(desk) == 10
    assert await event(0, 2**63, Action.DIRECT_DEBITING) == 5012
    await desk.proven()
