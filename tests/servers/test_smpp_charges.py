"""Where an SMPP gateway could charge wrongly: odd parts and codings, odd receipts, ids used again, greed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from tests.protocols.house import add_peer
from tests.protocols.smpp_driver import PASSWORD, Scene, scene, text
from tests.support import until
from tollkeeper.servers.smpp import link as smpp_link
from tollkeeper.wire.smpp import pdu as smpp
from tollkeeper.wire.smpp.pdu import Message

CENTS = Decimal("0.10")
PAYLOAD = smpp.TLV_PAYLOAD


def sar(reference: int, total: int, number: int) -> tuple[tuple[int, bytes], ...]:
    return (
        (smpp.TLV_SAR_REFERENCE, reference.to_bytes(2, "big")),
        (smpp.TLV_SAR_TOTAL, bytes((total,))),
        (smpp.TLV_SAR_NUMBER, bytes((number,))),
    )


@pytest.fixture
async def sms(database_url: str) -> AsyncIterator[Scene]:
    async with scene(database_url) as made:
        yield made


def second_esme(sms: Scene) -> None:
    """Another customer's ESME, "beta"; on the same wallet, so that ``spent`` is that of both."""
    add_peer(
        sms.world,
        "beta",
        "esme",
        secret=PASSWORD,
        options={"party": "acme", "upstream": "smsc", "window": 10},
    )


UDH_8 = bytes.fromhex("0500032a0201")
UDH_16 = bytes.fromhex("060804012a0201")
CASES: dict[str, tuple[dict[str, object], int]] = {
    "8 bit header, full": ({"esm_class": 0x40, "short_message": UDH_8 + b"a" * 153}, 1),
    "8 bit header, one too many": ({"esm_class": 0x40, "short_message": UDH_8 + b"a" * 154}, 2),
    "16 bit header, full": ({"esm_class": 0x40, "short_message": UDH_16 + b"a" * 152}, 1),
    "16 bit header, one too many": ({"esm_class": 0x40, "short_message": UDH_16 + b"a" * 153}, 2),
    "part 9 of 2": ({"esm_class": 0x40, "short_message": b"\5\0\3\7\2\x09" + b"a" * 153}, 1),
    "part 0 of 0, too long": (
        {"esm_class": 0x40, "short_message": b"\5\0\3\7\0\0" + b"a" * 200},
        2,
    ),
    "SAR, full": ({"short_message": b"a" * 153, "tlvs": sar(7, 2, 1)}, 1),
    "SAR, one too many": ({"short_message": b"a" * 154, "tlvs": sar(7, 2, 1)}, 2),
    "SAR that lies is whole": ({"short_message": b"a" * 160, "tlvs": sar(7, 2, 9)}, 1),
    "SAR with a payload": (
        {"short_message": b"", "tlvs": (*sar(7, 9, 1), (PAYLOAD, b"a" * 400))},
        3,
    ),
    "flash, GSM": ({"data_coding": 0x10, "short_message": b"a" * 161}, 2),
    "flash, GSM of group F": ({"data_coding": 0xF0, "short_message": b"a" * 160}, 1),
    "flash, UCS-2": ({"data_coding": 0x18, "short_message": b"\4\x10" * 71}, 2),
    "flash, octets": ({"data_coding": 0x14, "short_message": b"a" * 141}, 2),
    "flash, octets of group F": ({"data_coding": 0xF4, "short_message": b"a" * 140}, 1),
    "compressed": ({"data_coding": 0x20, "short_message": b"a" * 141}, 2),
    "escape within": ({"short_message": b"a" * 158 + b"\x1be"}, 1),
    "escape over the end": ({"short_message": b"a" * 159 + b"\x1be"}, 2),
    # 153 would cut the pair in two: it goes to the second part, so that 306 septets are three parts.
    "escape at a border": ({"short_message": b"a" * 152 + b"\x1be" + b"b" * 100}, 2),
    "escape at each border": (
        {"short_message": b"", "tlvs": ((PAYLOAD, b"a" * 152 + b"\x1be" + b"b" * 152),)},
        3,
    ),
    "pair of surrogates within": (
        {"data_coding": 8, "short_message": ("a" * 68 + "😀").encode("utf-16-be")},
        1,
    ),
    "pair of surrogates at a border": (
        {"data_coding": 8, "short_message": ("a" * 66 + "😀" + "b" * 53).encode("utf-16-be")},
        2,
    ),
    "pairs at each border": (
        {
            "data_coding": 8,
            "short_message": b"",
            "tlvs": ((PAYLOAD, ("a" * 66 + "😀" + "b" * 66).encode("utf-16-be")),),
        },
        3,
    ),
    "empty": ({"short_message": b""}, 1),
    "empty payload": ({"short_message": b"", "tlvs": ((PAYLOAD, b""),)}, 1),
}


async def test_each_is_charged_by_what_it_takes(sms: Scene) -> None:
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    found, before = {}, Decimal(0)
    for name, (fields, _) in CASES.items():
        status, _ = await esme.submit(**fields)
        found[name] = (status, (sms.spent - before) / CENTS)
        before = sms.spent
    assert found == {name: (smpp.OK, segments) for name, (_, segments) in CASES.items()}


async def test_a_message_that_can_be_read_in_two_ways_is_not_taken(sms: Scene) -> None:
    """What we would count need not be what the SMSC would send."""
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    for fields, status in (
        ({"tlvs": ((PAYLOAD, b"a" * 999),)}, smpp.INVALID_MESSAGE_LENGTH),
        (
            {"short_message": b"", "tlvs": ((PAYLOAD, b"a"), (PAYLOAD, b"a" * 999))},
            smpp.INVALID_TLV_STREAM,
        ),
        ({"data_coding": 8, "short_message": b"abc"}, smpp.INVALID_MESSAGE_LENGTH),
    ):
        assert await esme.submit(**fields) == (status, "")
    assert (sms.smsc.messages, sms.spent) == ([], 0)


async def test_flash_messages_of_an_esme_that_writes_latin_1(sms: Scene) -> None:
    """Its braces take two septets, whatever the class."""
    sms.set_up(default_alphabet="latin1")
    await sms.start()
    esme = await sms.esme()
    for coding in (0x00, 0x10, 0xF0):
        before = sms.spent
        assert (await esme.submit(data_coding=coding, short_message=b"{" * 81))[0] == smpp.OK
        assert sms.spent - before == 2 * CENTS


# --- receipts ------------------------------------------------------------------------------------


async def test_a_notification_on_the_way_gives_nothing_back_whatever_it_says(sms: Scene) -> None:
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    await esme.submit(registered=0x11)
    (peer,) = sms.smsc._peers
    note = Message(
        source="447700900123",
        dest="ACME",
        esm_class=smpp.INTERMEDIATE,
        short_message=b"id:1000 stat:UNDELIV err:001 text:",
        tlvs=((smpp.TLV_MESSAGE_STATE, b"\5"),),
    )
    answer = await peer.ask(smpp.DELIVER_SM, smpp.message_body(smpp.DELIVER_SM, note))
    assert (answer.status, sms.spent) == (smpp.OK, CENTS)
    await sms.smsc.receipt("1000", "DELIVRD", sms.smsc.messages[0])
    await until(lambda: len(esme.receipts) == 1)
    assert sms.spent == CENTS
    await sms.proven()


async def test_delivered_after_undelivered_changes_nothing_and_both_at_once_agree(
    sms: Scene,
) -> None:
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    for _ in range(6):
        await esme.submit()
    first = sms.smsc.messages[0]
    await sms.smsc.receipt("1000", "UNDELIV", first)
    await sms.smsc.receipt("1000", "DELIVRD", first)
    assert sms.spent == 5 * CENTS
    for number in range(1001, 1006):
        states = ("DELIVRD", "UNDELIV") if number % 2 else ("UNDELIV", "DELIVRD")
        await asyncio.gather(*[sms.smsc.receipt(str(number), one, first) for one in states])
    undelivered = sms.world.one("SELECT count(*) FROM sms_message WHERE state = 'UNDELIV'")
    assert undelivered == 3
    assert sms.spent == (6 - undelivered) * CENTS
    await until(lambda: len(esme.receipts) == 6)
    await sms.proven()


async def test_a_receipt_concerns_its_own_sender_only(sms: Scene) -> None:
    sms.set_up()
    second_esme(sms)
    await sms.start()
    acme, beta = await sms.esme(), await sms.esme(system_id="beta")
    await acme.submit()
    _, id_ = await beta.submit()
    await sms.smsc.receipt("1001", "UNDELIV", sms.smsc.messages[1])
    await until(lambda: len(beta.receipts) == 1)
    assert f"id:{id_} ".encode() in beta.receipts[0].short_message
    assert acme.receipts == []
    refunded = "SELECT key FROM closed_session WHERE (body->>'refunded_ms')::bigint > 0"
    assert sms.world.one(refunded) == f"beta/{id_}"
    # Nor can one send a receipt for another's: it is refused.
    receipt = Message(source="1", dest="2", esm_class=4, short_message=b"id:1000 stat:UNDELIV")
    answer = await beta.ask(smpp.DELIVER_SM, smpp.message_body(smpp.DELIVER_SM, receipt))
    assert (answer.status, sms.spent) == (smpp.INVALID_COMMAND, CENTS)


@pytest.mark.parametrize(
    ("option", "response", "receipt"),
    [("hex_decimal", "00003e8", "1000"), ("decimal_hex", "1000", "3E8"), ("as_is", "3e8", "3e8")],
)
async def test_ids_as_an_smsc_writes_them(
    sms: Scene, option: str, response: str, receipt: str
) -> None:
    sms.set_up(smsc={"message_ids": option})
    sms.smsc.write_id = lambda _: response
    await sms.start()
    esme = await sms.esme()
    await esme.submit()
    await sms.smsc.receipt(receipt, "UNDELIV", sms.smsc.messages[0])
    assert sms.spent == 0


async def test_an_smsc_that_uses_its_ids_again(sms: Scene) -> None:
    """It restarted. A receipt is of the message between its numbers; of two of them of the later one."""
    sms.set_up()
    sms.smsc.write_id = lambda _: "1"
    await sms.start()
    esme = await sms.esme()
    ids = [
        (await esme.submit(dest=f"44770090012{n}", short_message=b"a" * size))[1]
        for n, size in ((3, 1), (4, 200), (4, 250))
    ]
    assert sms.spent == 5 * CENTS
    await sms.smsc.receipt("1", "UNDELIV", sms.smsc.messages[0])
    assert sms.spent == 4 * CENTS
    await sms.smsc.receipt("1", "UNDELIV", sms.smsc.messages[0])
    assert sms.spent == 4 * CENTS
    await sms.smsc.receipt("1", "DELIVRD", sms.smsc.messages[2])
    states = [sms.world.one("SELECT state FROM sms_message WHERE id = %s", one) for one in ids]
    assert states == ["UNDELIV", "accepted", "DELIVRD"]
    await sms.proven()


# --- one among others ----------------------------------------------------------------------------


async def test_one_that_sends_much_does_not_keep_others_waiting(sms: Scene) -> None:
    sms.set_up(smsc={"window": 1})
    second_esme(sms)
    await sms.start()
    greedy, modest = await sms.esme(), await sms.esme(system_id="beta")
    upstream = sms.gateway._submissions.upstreams["smsc"]
    sms.smsc.silent = True
    many = [asyncio.create_task(greedy.submit()) for _ in range(60)]
    await until(lambda: len(upstream._waiting.get("acme", ())) == 59)
    few = [asyncio.create_task(modest.submit(source="BETA")) for _ in range(3)]
    await until(lambda: len(upstream._waiting.get("beta", ())) == 3)
    sms.smsc.silent = False
    (peer,) = sms.smsc._peers
    held = [smpp.decode(data) for way, data in peer.trace if way == "in"][-1]
    peer.answer(held, smpp.OK, smpp.id_body("1"))
    assert {one[0] for one in await asyncio.gather(*many, *few)} == {smpp.OK}
    places = [n for n, one in enumerate(sms.smsc.messages) if one.source == "BETA"]
    assert places[-1] <= 6
    assert sms.spent == 63 * CENTS


async def test_one_below_its_share_may_wait_where_another_fills_the_queue(
    sms: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tollkeeper.servers.smpp.smsc.QUEUE_MAX", 8)
    sms.set_up(smsc={"window": 1})
    second_esme(sms)
    await sms.start()
    greedy, modest = await sms.esme(), await sms.esme(system_id="beta")
    upstream = sms.gateway._submissions.upstreams["smsc"]
    sms.smsc.silent = True
    many = [asyncio.create_task(greedy.submit()) for _ in range(9)]
    await until(lambda: upstream.full("acme"))
    assert (await greedy.submit())[0] == smpp.QUEUE_FULL
    one = asyncio.create_task(modest.submit())
    await until(lambda: len(upstream._waiting.get("beta", ())) == 1)
    sms.smsc.drop()
    assert {status for status, _ in await asyncio.gather(*many, one)} == {smpp.SYSTEM_ERROR}
    assert sms.spent == CENTS  # the one that had left


async def test_one_that_reads_nothing_does_not_hold_up_others(
    sms: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own messages are charged as far as they are sent; others are served meanwhile."""
    monkeypatch.setattr(smpp_link, "WRITE_HIGH", 4096)
    monkeypatch.setattr(smpp_link, "TICK_SECONDS", 0.05)
    monkeypatch.setattr(smpp_link, "STALLED_SECONDS", 1.0)
    sms.set_up(balance="5000", window=50)
    second_esme(sms)
    await sms.start()
    deaf, other = await sms.esme(), await sms.esme(system_id="beta")
    deaf.peer.reader._transport.pause_reading()  # type: ignore[attr-defined]
    (link,) = sms.gateway._bound["acme"]
    flood = b"".join(smpp.frame(smpp.ENQUIRE_LINK, 0, n) for n in range(2000))
    body = smpp.message_body(smpp.SUBMIT_SM, text())
    flood += b"".join(smpp.frame(smpp.SUBMIT_SM, 0, n, body) for n in range(20))
    for _ in range(600):
        deaf.peer.writer.write(flood)
        await asyncio.sleep(0)
        if link._stalled or deaf.peer.writer.transport.get_write_buffer_size() > 4_000_000:
            break
    await until(lambda: bool(link._stalled) or not link.up, what="it is not read from any more")
    answers = await asyncio.gather(*[other.submit() for _ in range(10)])
    assert {status for status, _ in answers} == {smpp.OK}
    await until(lambda: not link.up, what="it is let go")
    assert (await other.submit())[0] == smpp.OK
    await until(lambda: not link.working)
    assert sms.spent == len(sms.smsc.messages) * CENTS
    await sms.proven()
