"""What no ESME should send the SMPP gateway, what is left behind, and what tshark says of our bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from tests.protocols.packets import malformed
from tests.protocols.smpp_driver import Scene, scene
from tests.support import until
from tollkeeper.wire.smpp import pdu as smpp

CENTS = Decimal("0.10")


@pytest.fixture
async def sms(database_url: str) -> AsyncIterator[Scene]:
    async with scene(database_url) as made:
        yield made


# --- bad input -----------------------------------------------------------------------------------


async def test_a_length_that_cannot_be_ends_the_connection(sms: Scene) -> None:
    sms.set_up()
    await sms.start()
    for length in (0, 15, 2**31, 0xFFFFFFFF):
        esme = await sms.esme()
        esme.peer.writer.write(length.to_bytes(4, "big") + bytes(60))
        await asyncio.wait_for(esme.closed.wait(), 5)
        last = smpp.decode(esme.peer.trace[-1][1])
        assert (last.command, last.status) == (smpp.GENERIC_NACK, smpp.INVALID_COMMAND_LENGTH)
    await sms.esme()


async def test_a_malformed_message_is_refused_and_the_connection_stays(sms: Scene) -> None:
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    for body, status in (
        (b"", smpp.INVALID_COMMAND_LENGTH),
        (b"\0" * 16 + b"\xffabc", smpp.INVALID_MESSAGE_LENGTH),
        (b"\0" * 17 + b"\x04\x24\xff\xffab", smpp.INVALID_TLV_LENGTH),
        (b"\0\0\0" + b"1" * 30 + b"\0", smpp.INVALID_SOURCE),
        (b"\0" * 7 + b"\x40" + b"\0" * 8 + b"\x01\xff", smpp.INVALID_ESM_CLASS),
    ):
        answer = await esme.ask(smpp.SUBMIT_SM, body)
        assert (answer.command, answer.status) == (smpp.SUBMIT_SM | smpp.RESPONSE, status)
    assert (await esme.submit())[0] == smpp.OK
    assert sms.spent == CENTS


async def test_unknown_commands_are_refused_and_too_many_of_them_end_it(sms: Scene) -> None:
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    answer = await esme.ask(0x00000777)
    assert (answer.command, answer.status) == (smpp.GENERIC_NACK, smpp.INVALID_COMMAND)
    for number in range(100):
        esme.peer.writer.write(smpp.frame(0x778, 0, 1000 + number))
    await asyncio.wait_for(esme.closed.wait(), 5)


async def test_responses_that_nobody_waits_for_do_no_harm(sms: Scene) -> None:
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    esme.peer.writer.write(smpp.frame(smpp.SUBMIT_SM | smpp.RESPONSE, 0, 99, b"x\0"))
    esme.peer.writer.write(smpp.frame(smpp.GENERIC_NACK, 0, 99))
    assert (await esme.submit())[0] == smpp.OK


async def test_a_malformed_bind_is_refused(sms: Scene) -> None:
    sms.set_up()
    await sms.start()
    esme = await sms.esme(bound=False)
    await esme.connect()
    answer = await esme.ask(smpp.BIND_TRANSCEIVER, b"acme")
    assert answer.status == smpp.INVALID_COMMAND_LENGTH
    await asyncio.wait_for(esme.closed.wait(), 5)


async def test_nothing_is_left_behind_when_it_stops(sms: Scene) -> None:
    """No task of the gateway outlives it, with connections up and a message under way."""
    before = asyncio.all_tasks()
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    await esme.submit()
    await sms.house.stop()
    await asyncio.wait_for(esme.closed.wait(), 5)
    assert smpp.UNBIND in esme.requests
    await until(lambda: sms.smsc.bound == 0)
    left = {task.get_name() for task in asyncio.all_tasks() - before if not task.done()}
    assert not [name for name in left if name.startswith(("smpp", "smsc", "receipts"))]


async def test_tshark_reads_all_that_we_write(sms: Scene) -> None:
    """Both connections, refusals, receipts and long messages among what is said."""
    sms.set_up(balance="0.45")
    await sms.start()
    esme = await sms.esme()
    await esme.submit()
    await esme.submit(short_message=b"", tlvs=((smpp.TLV_PAYLOAD, b"a" * 200),))
    await esme.submit(dest="hello")
    await esme.submit(data_coding=8, short_message=b"\x04\x10" * 100)
    await esme.ask(smpp.QUERY_SM, b"1\0\0\0\0")
    await sms.smsc.receipt("1000", "UNDELIV", sms.smsc.messages[0])
    await until(lambda: len(esme.receipts) == 1)
    ours = [("server" if way == "in" else "client", data) for way, data in esme.peer.trace]
    assert malformed(ours, protocol="smpp", port=2775) == []
    assert malformed(sms.smsc.traces, protocol="smpp", port=2775) == []
