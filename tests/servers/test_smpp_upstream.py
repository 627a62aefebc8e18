"""The SMPP gateway and its SMSCs: what they refuse, do not answer, and tell of messages later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from tests.protocols.smpp_driver import Scene, scene, text
from tests.support import until
from tollkeeper.servers.smpp import link as smpp_link
from tollkeeper.servers.smpp import smsc as smpp_smsc
from tollkeeper.wire.smpp import pdu as smpp

CENTS = Decimal("0.10")


@pytest.fixture
async def sms(database_url: str) -> AsyncIterator[Scene]:
    async with scene(database_url) as made:
        yield made


# --- what the SMSC says --------------------------------------------------------------------------


async def test_what_the_smsc_refuses_is_given_back_at_once(sms: Scene) -> None:
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    for said, told in (
        (smpp.INVALID_DESTINATION, smpp.INVALID_DESTINATION),
        (smpp.QUEUE_FULL, smpp.QUEUE_FULL),
        (smpp.THROTTLED, smpp.THROTTLED),
        (smpp.SUBMIT_FAILED, smpp.SUBMIT_FAILED),
        (0x0450, smpp.SUBMIT_FAILED),
        (smpp.WRONG_BIND_STATE, smpp.SYSTEM_ERROR),
        (smpp.INVALID_PASSWORD, smpp.SYSTEM_ERROR),
    ):
        sms.smsc.statuses = [said]
        assert await esme.submit() == (told, "")
        assert sms.spent == 0
    assert len(sms.smsc.messages) == 7
    await sms.proven()


async def test_what_the_smsc_does_not_answer_in_time_stays_charged(
    sms: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have it; the sender is told that it is away."""
    monkeypatch.setattr(smpp_link, "TICK_SECONDS", 0.05)
    sms.set_up(smsc={"response_seconds": 1})
    await sms.start()
    esme = await sms.esme()
    sms.smsc.silent = True
    assert await esme.submit() == (smpp.SYSTEM_ERROR, "")
    assert sms.spent == CENTS


async def test_no_more_wait_for_the_smsc_than_its_queue_holds(
    sms: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smpp_smsc, "QUEUE_MAX", 2)
    sms.set_up(smsc={"window": 1})
    await sms.start()
    esme = await sms.esme()
    sms.smsc.silent = True
    waiting = [asyncio.create_task(esme.submit()) for _ in range(3)]
    upstream = sms.gateway._submissions.upstreams["smsc"]
    await until(lambda: upstream.full("acme"))
    assert await esme.submit() == (smpp.QUEUE_FULL, "")
    await until(lambda: len(sms.smsc.messages) == 1)
    sms.smsc.silent = False
    sms.smsc.drop()
    assert {status for status, _ in await asyncio.gather(*waiting)} == {smpp.SYSTEM_ERROR}
    assert sms.spent == CENTS  # the one that had left
    assert upstream._busy == 0


async def test_a_window_of_one_passes_all_one_after_the_other(sms: Scene) -> None:
    sms.set_up(smsc={"window": 1})
    await sms.start()
    esme = await sms.esme()
    found = await asyncio.gather(*[esme.submit() for _ in range(30)])
    assert {status for status, _ in found} == {smpp.OK}
    assert len({id_ for _, id_ in found}) == 30
    assert sms.spent == 30 * CENTS


async def test_the_second_smsc_is_used_while_the_first_is_away(sms: Scene) -> None:
    sms.set_up(upstream="first, smsc")
    await sms.start()
    esme = await sms.esme()
    assert (await esme.submit())[0] == smpp.OK


async def test_an_smsc_that_refuses_our_bind_is_tried_again(sms: Scene) -> None:
    sms.smsc.accepts = False
    sms.set_up()
    await sms.house.start()
    try:
        await until(lambda: len(sms.smsc.binds) >= 2)
        assert not sms.gateway.upstream_up("smsc")
        sms.smsc.accepts = True
        await sms.connected()
    finally:
        await sms.house.stop()


# --- receipts ------------------------------------------------------------------------------------


async def test_a_receipt_that_is_quicker_than_the_response_is_not_lost(sms: Scene) -> None:
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    sms.smsc.receipt_first = True
    status, id_ = await esme.submit()
    assert status == smpp.OK
    await until(lambda: len(esme.receipts) == 1)
    assert f"id:{id_} ".encode() in esme.receipts[0].short_message


async def test_an_smsc_that_writes_its_ids_in_two_ways_is_understood(sms: Scene) -> None:
    sms.set_up(smsc={"message_ids": "hex_decimal"})
    sms.smsc.write_id = lambda number: f"{number:08X}"
    await sms.start()
    esme = await sms.esme()
    await esme.submit()
    await sms.smsc.receipt("1000", "DELIVRD", sms.smsc.messages[0])
    await until(lambda: len(esme.receipts) == 1)


async def test_news_on_the_way_decide_nothing_and_the_first_final_word_holds(sms: Scene) -> None:
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    await esme.submit()
    (message,) = sms.smsc.messages
    for state in ("ENROUTE", "ACCEPTD", "DELIVRD", "UNDELIV"):
        assert (await sms.smsc.receipt("1000", state, message)).status == smpp.OK
    await until(lambda: len(esme.receipts) == 1)
    assert b"stat:DELIVRD" in esme.receipts[0].short_message
    assert sms.spent == CENTS
    await sms.proven()


async def test_receipts_of_failures_only(sms: Scene) -> None:
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    for _ in range(2):
        await esme.submit(registered=2)
    await sms.smsc.receipt("1000", "DELIVRD", sms.smsc.messages[0])
    await sms.smsc.receipt("1001", "EXPIRED", sms.smsc.messages[1])
    await until(lambda: len(esme.receipts) == 1)
    assert b"stat:EXPIRED" in esme.receipts[0].short_message


async def test_a_plan_that_gives_nothing_back_keeps_the_charge(sms: Scene) -> None:
    sms.set_up()
    sms.world.sql(
        'UPDATE rate_plan SET terms = \'{"refunds": [{"service": "sms", "undelivered": "none"}]}\''
        " WHERE code = 'sms'"
    )
    await sms.start()
    esme = await sms.esme()
    await esme.submit()
    assert (await sms.smsc.receipt("1000", "UNDELIV", sms.smsc.messages[0])).status == smpp.OK
    await until(lambda: len(esme.receipts) == 1)
    assert sms.spent == CENTS


async def test_a_receipt_goes_to_the_receiver_not_to_the_transmitter(sms: Scene) -> None:
    sms.set_up()
    await sms.start()
    sender, receiver = await sms.esme(bound=False), await sms.esme(bound=False)
    assert await sender.bind(smpp.BIND_TRANSMITTER) == smpp.OK
    await sender.submit()
    await sms.smsc.receipt("1000", "DELIVRD", sms.smsc.messages[0])
    assert await receiver.bind(smpp.BIND_RECEIVER) == smpp.OK
    await until(lambda: len(receiver.receipts) == 1)
    assert sender.receipts == []


async def test_a_receipt_that_the_esme_cannot_take_now_comes_again(
    sms: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tollkeeper.servers.smpp.receipts.AGAIN_SECONDS", 0.1)
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    await esme.submit()
    esme.receipt_status = smpp.QUEUE_FULL
    await sms.smsc.receipt("1000", "DELIVRD", sms.smsc.messages[0])
    await until(lambda: esme.requests.count(smpp.DELIVER_SM) >= 2)
    esme.receipt_status = smpp.OK
    await until(lambda: len(esme.receipts) == 1)
    await until(lambda: sms.world.one("SELECT count(told_at) FROM sms_message") == 1)


async def test_many_receipts_reach_a_sender_that_was_away(sms: Scene) -> None:
    """More than a page of them, each once."""
    sms.set_up(balance="100")
    await sms.start()
    esme = await sms.esme()
    ids = {
        id_ for _, id_ in await asyncio.gather(*[esme.submit() for _ in range(90)])
    } | {id_ for _, id_ in await asyncio.gather(*[esme.submit() for _ in range(90)])} | {
        id_ for _, id_ in await asyncio.gather(*[esme.submit() for _ in range(90)])
    }  # fmt: skip
    await esme.close()
    answers = await asyncio.gather(
        *[sms.smsc.receipt(str(1000 + n), "DELIVRD", sms.smsc.messages[n]) for n in range(270)]
    )
    assert {answer.status for answer in answers} == {smpp.OK}
    again = await sms.esme()
    await until(lambda: len(again.receipts) >= 270)
    told = {one.tlv(smpp.TLV_RECEIPTED_ID)[:-1].decode() for one in again.receipts}  # type: ignore[index]
    assert told == ids
    assert len(again.receipts) == 270


async def test_a_receipt_of_nobody_and_a_message_to_an_esme_are_answered(
    sms: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tollkeeper.servers.smpp.receipts.LOOKS", (0.0, 0.01))
    sms.set_up()
    await sms.start()
    assert (await sms.smsc.receipt("77", "UNDELIV", text())).status == smpp.OK
    (peer,) = sms.smsc._peers
    plain = smpp.message_body(smpp.DELIVER_SM, text())
    answer = await asyncio.wait_for(peer.ask(smpp.DELIVER_SM, plain), 5)
    assert answer.status == smpp.PERMANENT_APP_ERROR
    answer = await asyncio.wait_for(peer.ask(smpp.DELIVER_SM, plain[:10]), 5)
    assert answer.status == smpp.INVALID_COMMAND_LENGTH
    answer = await asyncio.wait_for(peer.ask(0x777), 5)
    assert (answer.command, answer.status) == (smpp.GENERIC_NACK, smpp.INVALID_COMMAND)
