"""The situations of the scenario table, for messages: what an ESME submits by SMPP to an SMSC.

A segment costs ten cents. Whatever happens, a message is charged before it is passed on, once, and
what surely no SMSC took stays charged to nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from tests.protocols.house import add_peer, top_up
from tests.protocols.smpp_driver import PASSWORD, Esme, Scene, scene
from tests.support import until
from tollkeeper.wire.smpp import pdu as smpp

CENTS = Decimal("0.10")


@pytest.fixture
async def sms(database_url: str) -> AsyncIterator[Scene]:
    async with scene(database_url) as made:
        yield made


async def test_enough_money_the_message_is_charged_passed_on_and_its_receipt_comes_back(
    sms: Scene,
) -> None:
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    status, id_ = await esme.submit()
    assert status == smpp.OK
    assert len(id_) == 20
    assert [one.short_message for one in sms.smsc.messages] == [b"hello"]
    assert sms.spent == CENTS
    answer = await sms.smsc.receipt("1000", "DELIVRD", sms.smsc.messages[0])
    assert answer.status == smpp.OK
    await until(lambda: len(esme.receipts) == 1)
    (receipt,) = esme.receipts
    assert f"id:{id_} ".encode() in receipt.short_message
    assert b"stat:DELIVRD" in receipt.short_message
    assert receipt.tlv(smpp.TLV_RECEIPTED_ID) == id_.encode() + b"\0"
    assert (receipt.source, receipt.dest) == ("447700900123", "ACME")
    assert sms.spent == CENTS
    await sms.proven()


async def test_not_enough_money_nothing_is_passed_on_and_the_error_is_permanent(sms: Scene) -> None:
    sms.set_up(balance="0.05")
    await sms.start()
    esme = await sms.esme()
    assert await esme.submit() == (smpp.SUBMIT_FAILED, "")
    assert sms.smsc.messages == []
    assert sms.spent == 0


async def test_no_money_may_have_a_vendors_own_status(sms: Scene) -> None:
    sms.set_up(balance="0.05", no_money_status=smpp.NO_CREDIT)
    await sms.start()
    esme = await sms.esme()
    assert await esme.submit() == (smpp.NO_CREDIT, "")


async def test_money_that_runs_out_between_the_parts_ends_the_message_there(sms: Scene) -> None:
    """Parts that were passed on stay charged; the rest is refused, even when money comes meanwhile.

    A message with a hole is worth nothing: its later parts must not be charged either.
    """
    sms.set_up(balance="0.20")
    await sms.start()
    esme = await sms.esme()
    found = []
    for number in range(1, 5):
        if number == 4:
            top_up(sms.world, sms.acme, "5")
        header = bytes((5, 0, 3, 7, 4, number))
        status, _ = await esme.submit(esm_class=smpp.UDHI, short_message=header + b"part")
        found.append(status)
    assert found == [smpp.OK, smpp.OK, smpp.SUBMIT_FAILED, smpp.SUBMIT_FAILED]
    assert sms.spent == 2 * CENTS
    # Another message is taken as ever.
    header = bytes((5, 0, 3, 8, 4, 1))
    status, _ = await esme.submit(esm_class=smpp.UDHI, short_message=header + b"part")
    assert status == smpp.OK
    await sms.proven()


async def test_a_top_up_lets_the_next_message_pass(sms: Scene) -> None:
    sms.set_up(balance="0.10")
    await sms.start()
    esme = await sms.esme()
    assert (await esme.submit())[0] == smpp.OK
    assert (await esme.submit())[0] == smpp.SUBMIT_FAILED
    top_up(sms.world, sms.acme, "1")
    assert (await esme.submit())[0] == smpp.OK


async def test_a_receipt_that_is_lost_leaves_the_charge_as_it_is(sms: Scene) -> None:
    """There is no hold to be forgotten: a message is paid for when it is passed on."""
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    await esme.submit()
    assert sms.world.wallet(sms.acme).held == 0
    assert sms.spent == CENTS
    await sms.proven()


async def test_a_message_sent_again_after_a_lost_connection_is_one_message(sms: Scene) -> None:
    """It carries a user_message_reference, so that it can be told from another one with its text."""
    sms.set_up()
    await sms.start()
    reference = ((smpp.TLV_USER_REFERENCE, b"\x00\x07"),)
    first = await sms.esme()
    answer = await first.submit(tlvs=reference)
    await first.close()
    second = await sms.esme()
    assert await second.submit(tlvs=reference) == answer
    both = await asyncio.gather(*[second.submit(tlvs=reference) for _ in range(5)])
    assert both == [answer] * 5
    assert len(sms.smsc.messages) == 1
    assert sms.spent == CENTS
    # Without a reference, or with another one, it is another message.
    assert (await second.submit())[1] != (await second.submit())[1]
    other = ((smpp.TLV_USER_REFERENCE, b"\x00\x08"),)
    assert (await second.submit(tlvs=other))[1] != answer[1]
    assert len(sms.smsc.messages) == 4


async def test_a_message_refused_is_tried_afresh_when_it_is_sent_again(sms: Scene) -> None:
    """The refused or refunded first attempt pays for nothing."""
    sms.set_up(balance="0.05")
    await sms.start()
    esme = await sms.esme()
    reference = ((smpp.TLV_USER_REFERENCE, b"\x00\x07"),)
    assert (await esme.submit(tlvs=reference))[0] == smpp.SUBMIT_FAILED
    top_up(sms.world, sms.acme, "5")
    sms.smsc.statuses = [smpp.QUEUE_FULL]
    assert (await esme.submit(tlvs=reference))[0] == smpp.QUEUE_FULL
    assert sms.spent == 0
    assert (await esme.submit(tlvs=reference))[0] == smpp.OK
    assert sms.spent == CENTS
    await sms.proven()


async def test_the_smsc_restarts_nothing_is_lost_and_nothing_charged_meanwhile(sms: Scene) -> None:
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    assert (await esme.submit())[0] == smpp.OK
    await sms.smsc.stop()
    await until(lambda: not sms.gateway.upstream_up("smsc"))
    assert await esme.submit() == (smpp.SYSTEM_ERROR, "")
    assert sms.spent == CENTS
    await sms.smsc.start()
    await sms.connected()
    assert (await esme.submit())[0] == smpp.OK
    assert sms.spent == 2 * CENTS


async def test_the_smsc_goes_with_messages_under_way_those_that_left_stay_charged(
    sms: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have them. What had not left yet is given back; receipts tell of the others."""
    monkeypatch.setattr("tollkeeper.servers.smpp.receipts.LOOKS", (0.0, 0.01))
    sms.set_up(smsc={"window": 3})
    await sms.start()
    esme = await sms.esme()
    sms.smsc.silent = True
    waiting = [asyncio.create_task(esme.submit()) for _ in range(5)]
    await until(lambda: len(sms.smsc.messages) == 3 and sms.spent == 5 * CENTS)
    sms.smsc.drop()
    assert await asyncio.gather(*waiting) == [(smpp.SYSTEM_ERROR, "")] * 5
    assert (len(sms.smsc.messages), sms.spent) == (3, 3 * CENTS)
    sms.smsc.silent = False
    await sms.connected()
    for number, state in ((1000, "DELIVRD"), (1001, "UNDELIV"), (1001, "UNDELIV")):
        answer = await sms.smsc.receipt(str(number), state, sms.smsc.messages[0])
        assert answer.status == smpp.OK
    assert sms.spent == 2 * CENTS
    assert esme.receipts == []
    await sms.proven()


async def test_we_restart_and_a_receipt_still_finds_its_sender_and_its_money(sms: Scene) -> None:
    """Undelivered: the charge comes back once, however often the receipt is sent."""
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    _, id_ = await esme.submit()
    await sms.house.restart()
    await sms.connected()
    (message,) = sms.smsc.messages
    for _ in range(3):
        assert (await sms.smsc.receipt("1000", "UNDELIV", message, error="069")).status == smpp.OK
    assert sms.spent == 0
    again = await sms.esme()
    await until(lambda: len(again.receipts) == 1, what="its receipt waited for it")
    assert f"id:{id_} ".encode() in again.receipts[0].short_message
    assert b"stat:UNDELIV err:069" in again.receipts[0].short_message
    await until(lambda: sms.world.one("SELECT count(told_at) FROM sms_message") == 1)
    await sms.proven()


async def test_we_die_with_a_message_charged_and_not_passed_on_it_is_given_back(sms: Scene) -> None:
    """Its sender heard nothing and sends it again: without this it would pay twice."""
    sms.set_up()
    await sms.start()
    (peer,) = sms.house.board.book.of_kind("esme")
    id_ = sms.gateway._submissions._new_id()
    await sms.house.parts.charging.charge_event(
        switch=peer.switch, event_id=id_, party="acme", called="447700900123", segments=3
    )
    assert sms.spent == 3 * CENTS
    await sms.house.restart()
    await until(lambda: sms.spent == 0, what="it is given back")
    await sms.connected()
    esme = await sms.esme()
    assert (await esme.submit())[0] == smpp.OK
    await sms.house.restart()
    await sms.connected()
    assert sms.spent == CENTS
    await sms.proven()


async def test_a_copy_that_meets_us_after_our_restart_is_one_message(sms: Scene) -> None:
    sms.set_up()
    await sms.start()
    reference = ((smpp.TLV_USER_REFERENCE, b"\x00\x07"),)
    esme = await sms.esme()
    answer = await esme.submit(tlvs=reference)
    await sms.house.restart()
    await sms.connected()
    again = await sms.esme()
    assert await again.submit(tlvs=reference) == answer
    assert len(sms.smsc.messages) == 1
    assert sms.spent == CENTS


async def test_two_esmes_that_race_for_one_wallet_never_spend_more_than_it_has(sms: Scene) -> None:
    sms.set_up(balance="1.00")
    add_peer(
        sms.world,
        "acme-2",
        "esme",
        secret=PASSWORD,
        options={"party": "acme", "upstream": "smsc", "system_id": "other"},
    )
    await sms.start()
    one, two = await sms.esme(), await sms.esme(system_id="other")

    async def all_of(esme: Esme) -> list[int]:
        return [status for status, _ in await asyncio.gather(*[esme.submit() for _ in range(20)])]

    first, second = await asyncio.gather(all_of(one), all_of(two))
    found = first + second
    assert sorted(set(found)) == [smpp.OK, smpp.SUBMIT_FAILED]
    assert found.count(smpp.OK) == len(sms.smsc.messages) == 10
    assert sms.spent == Decimal(1)
    await sms.proven()
