"""The SMPP gateway as its ESMEs see it: binds, encryption, window and rate, what is taken and charged."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests.protocols.house import add_peer
from tests.protocols.smpp_driver import PASSWORD, Esme, FakeSmsc, Scene, scene, text
from tests.support import until
from tollkeeper.servers.smpp import esme as smpp_esme
from tollkeeper.servers.smpp import gateway as server
from tollkeeper.servers.smpp import link as smpp_link
from tollkeeper.wire.smpp import pdu as smpp
from tollkeeper.wire.smpp.pdu import Bind

CENTS = Decimal("0.10")


@pytest.fixture
async def sms(database_url: str) -> AsyncIterator[Scene]:
    async with scene(database_url) as made:
        yield made


# --- binds -------------------------------------------------------------------------------------


async def test_an_esme_binds_and_unbinds(sms: Scene) -> None:
    sms.set_up()
    await sms.start()
    for command in (smpp.BIND_TRANSMITTER, smpp.BIND_RECEIVER, smpp.BIND_TRANSCEIVER):
        esme = await sms.esme(bound=False)
        assert await esme.bind(command) == smpp.OK
        again = await esme.ask(command, smpp.bind_body(Bind("acme", PASSWORD)))
        assert again.status == smpp.ALREADY_BOUND
        assert (await esme.ask(smpp.ENQUIRE_LINK)).status == smpp.OK
        expected = smpp.WRONG_BIND_STATE if command == smpp.BIND_RECEIVER else smpp.OK
        assert (await esme.submit())[0] == expected
        assert (await esme.ask(smpp.UNBIND)).status == smpp.OK
        await asyncio.wait_for(esme.closed.wait(), 5)


async def test_a_wrong_name_or_password_is_refused_in_the_same_words(sms: Scene) -> None:
    """Nor is one let in for whom no password was set."""
    sms.set_up()
    add_peer(sms.world, "open", "esme", options={"party": "acme"})
    await sms.start()
    for system_id, password in (
        ("acme", "wrong"),
        ("acme", ""),
        ("nobody", PASSWORD),
        ("nobody", "no such ESME"),
        ("", ""),
        ("open", ""),
    ):
        esme = await sms.esme(bound=False, system_id=system_id, password=password)
        assert await esme.bind() == smpp.INVALID_PASSWORD
        await asyncio.wait_for(esme.closed.wait(), 5)


async def test_an_esme_comes_from_its_addresses_only(sms: Scene) -> None:
    sms.set_up(addresses=["192.0.2.1", "127.0.0.0/8"])
    add_peer(sms.world, "far", "esme", secret=PASSWORD, addresses=["192.0.2.0/24"])
    await sms.start()
    await sms.esme()
    assert await (await sms.esme(bound=False, system_id="far")).bind() == smpp.BIND_FAILED


async def test_connections_of_one_esme_are_bounded(sms: Scene) -> None:
    sms.set_up(connections=2)
    await sms.start()
    first, _ = await sms.esme(), await sms.esme()
    third = await sms.esme(bound=False)
    assert await third.bind() == smpp.ALREADY_BOUND
    await first.close()
    await until(lambda: len(sms.gateway._bound["acme"]) == 1)
    await sms.esme()


async def test_a_system_id_may_differ_from_the_code(sms: Scene) -> None:
    sms.set_up(system_id="AcmeLtd")
    await sms.start()
    assert await (await sms.esme(bound=False)).bind() == smpp.INVALID_PASSWORD
    await sms.esme(system_id="AcmeLtd")


async def test_who_does_not_bind_in_time_is_let_go(
    sms: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smpp_esme, "BIND_SECONDS", 0.5)
    sms.set_up()
    await sms.start()
    esme = await sms.esme(bound=False)
    await esme.connect()
    await asyncio.wait_for(esme.closed.wait(), 5)
    assert sms.gateway._links == set()


async def test_a_flood_of_connections_is_bounded(
    sms: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "UNBOUND_MAX", 5)
    sms.set_up()
    await sms.start()
    idle = [await sms.esme(bound=False) for _ in range(20)]
    for one in idle:
        await one.connect()
    await until(lambda: sum(one.closed.is_set() for one in idle) == 15)
    assert len(sms.gateway._links) == 5
    for one in idle:
        await one.close()
    await until(lambda: not sms.gateway._links)
    await sms.esme()


async def test_a_changed_password_ends_the_connections_of_the_old_one(sms: Scene) -> None:
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    sms.world.sql("UPDATE peer SET secret = 'another' WHERE code = 'acme'")
    sms.world.notify("peer:1")
    await asyncio.wait_for(esme.closed.wait(), 5)
    assert smpp.UNBIND in esme.requests
    assert await (await sms.esme(bound=False)).bind() == smpp.INVALID_PASSWORD
    await sms.esme(password="another")


async def test_options_change_without_a_new_bind(sms: Scene) -> None:
    sms.set_up(balance="0.05")
    await sms.start()
    esme = await sms.esme()
    assert (await esme.submit())[0] == smpp.SUBMIT_FAILED
    sms.world.sql(
        "UPDATE peer SET options = options || '{\"no_money_status\": 1042}' WHERE code = 'acme'"
    )
    sms.world.notify("peer:1")

    async def changed() -> bool:
        return (await esme.submit())[0] == smpp.NO_CREDIT

    await until(changed)


async def test_a_changed_smsc_is_connected_to_anew(sms: Scene) -> None:
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    other = FakeSmsc()
    await other.start()
    try:
        sms.world.sql(
            "UPDATE peer SET options = jsonb_build_object('connect', %s::text) WHERE code = 'smsc'",
            f"127.0.0.1:{other.port}",
        )
        sms.world.notify("peer:2")
        await until(lambda: other.bound == 1 and sms.gateway.upstream_up("smsc"))
        await until(lambda: sms.smsc.bound == 0)
        assert (await esme.submit())[0] == smpp.OK
        assert (len(sms.smsc.messages), len(other.messages)) == (0, 1)
        assert other.binds[0].password == "pw"
    finally:
        await sms.house.stop()
        await other.stop()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of localhost that signs itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed, so there is no certificate")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return cert, key


async def test_both_sides_may_be_encrypted(
    database_url: str, certificate: tuple[Path, Path]
) -> None:
    cert, key = certificate
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(cert, key)
    trusting = ssl.create_default_context(cafile=str(cert))
    settings = {
        "smpp_tls_listen": "127.0.0.1:0",
        "tls_certificate": cert,
        "tls_key": key,
    }
    async with scene(database_url, **settings) as sms:
        secure = FakeSmsc(tls=theirs)
        await secure.start()
        sms.smsc.port = secure.port
        sms.set_up(tls=True, smsc={"tls": True, "tls_ca": str(cert)})
        await sms.start()
        plain_port, tls_port = sms.gateway.ports
        plain = Esme(plain_port)
        assert await plain.bind() == smpp.BIND_FAILED
        await plain.close()
        esme = Esme(tls_port)
        assert await esme.bind(tls=trusting) == smpp.OK
        assert (await esme.submit())[0] == smpp.OK
        assert len(secure.messages) == 1
        await esme.close()
        await sms.house.stop()
        await secure.stop()


async def test_an_smsc_that_is_not_who_it_should_be_gets_no_password(
    sms: Scene, certificate: tuple[Path, Path]
) -> None:
    cert, key = certificate
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(cert, key)
    liar = FakeSmsc(tls=theirs)
    await liar.start()
    sms.smsc.port = liar.port
    sms.set_up(smsc={"tls": True})
    await sms.house.start()
    try:
        upstream = sms.gateway._submissions.upstreams["smsc"]
        meter = upstream._meter
        await until(lambda: "away" in meter._faults)
        assert (liar.binds, upstream.up) == ([], False)
    finally:
        await sms.house.stop()
        await liar.stop()


# --- window, rate, signs of life -----------------------------------------------------------------


async def test_more_than_the_window_is_throttled_and_not_charged(sms: Scene) -> None:
    sms.set_up(window=3)
    await sms.start()
    esme = await sms.esme()
    sms.smsc.silent = True
    waiting = [asyncio.create_task(esme.submit()) for _ in range(3)]
    await until(lambda: len(sms.smsc.messages) == 3)
    assert await esme.submit() == (smpp.THROTTLED, "")
    assert sms.spent == 3 * CENTS
    sms.smsc.drop()
    await asyncio.gather(*waiting)


async def test_the_rate_is_bounded(sms: Scene) -> None:
    sms.set_up(rate=5)
    await sms.start()
    esme = await sms.esme()
    found = [status for status, _ in await asyncio.gather(*[esme.submit() for _ in range(20)])]
    assert set(found) == {smpp.OK, smpp.THROTTLED}
    assert 5 <= found.count(smpp.OK) <= 8
    assert sms.spent == CENTS * found.count(smpp.OK)

    async def again() -> bool:
        return (await esme.submit())[0] == smpp.OK

    await until(again)


async def test_a_process_with_enough_to_do_says_so(database_url: str) -> None:
    async with scene(database_url, network_queue_max=2) as sms:
        sms.set_up()
        await sms.start()
        esme = await sms.esme()
        sms.smsc.silent = True
        waiting = [asyncio.create_task(esme.submit()) for _ in range(2)]
        await until(lambda: len(sms.smsc.messages) == 2)
        assert await esme.submit() == (smpp.QUEUE_FULL, "")
        sms.smsc.drop()
        await asyncio.gather(*waiting)


async def test_silence_is_broken_by_an_enquiry_and_ended_without_answer(
    sms: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smpp_link, "TICK_SECONDS", 0.05)
    sms.set_up(enquire_seconds=1)
    await sms.start()
    esme = await sms.esme()
    await until(lambda: smpp.ENQUIRE_LINK in esme.requests)
    assert not esme.closed.is_set()
    (link,) = sms.gateway._links
    link.response_seconds = 0.2
    esme.mute = True
    await asyncio.wait_for(esme.closed.wait(), 5)


async def test_who_does_not_read_is_let_go(sms: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of enquiries, none of whose answers is read: memory stays bounded, the end comes."""
    monkeypatch.setattr(smpp_link, "TICK_SECONDS", 0.05)
    monkeypatch.setattr(smpp_link, "STALLED_SECONDS", 0.3)
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    esme.peer.reader._transport.pause_reading()  # type: ignore[attr-defined]
    flood = b"".join(smpp.frame(smpp.ENQUIRE_LINK, 0, n) for n in range(1000))
    (link,) = sms.gateway._links
    most = 0
    for _ in range(4000):
        esme.peer.writer.write(flood)
        await asyncio.sleep(0)
        if link._transport is None:
            break
        most = max(most, link._transport.get_write_buffer_size())
        if esme.peer.writer.transport.get_write_buffer_size() > 8_000_000:
            break
    await until(lambda: not sms.gateway._links, what="the connection is ended")
    assert 0 < most < 4 * smpp_link.WRITE_HIGH


# --- what is taken -------------------------------------------------------------------------------


async def test_a_long_payload_is_charged_by_its_segments(sms: Scene) -> None:
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    payload = ((smpp.TLV_PAYLOAD, b"a" * 400),)  # 153 + 153 + 94
    assert (await esme.submit(short_message=b"", tlvs=payload))[0] == smpp.OK
    assert sms.spent == 3 * CENTS
    assert sms.smsc.messages[0].tlvs == payload
    assert (await esme.submit(data_coding=8, short_message=b"\x04\x10" * 71))[0] == smpp.OK
    assert sms.spent == 5 * CENTS


async def test_a_part_of_a_longer_message_is_one_segment(sms: Scene) -> None:
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    tlvs = ((0x020C, b"\0\1"), (0x020E, b"\2"), (0x020F, b"\1"))
    assert (await esme.submit(short_message=b"a" * 153, tlvs=tlvs))[0] == smpp.OK
    header = bytes.fromhex("0608040001 02 01")
    status, _ = await esme.submit(esm_class=0x40, short_message=header + b"a" * 152)
    assert status == smpp.OK
    assert sms.spent == 2 * CENTS


async def test_data_sm_is_charged_and_passed_on_as_it_is(sms: Scene) -> None:
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    message = text(short_message=b"", tlvs=((smpp.TLV_PAYLOAD, b"hello"),))
    answer = await esme.ask(smpp.DATA_SM, smpp.message_body(smpp.DATA_SM, message))
    assert (answer.command, answer.status) == (smpp.DATA_SM | smpp.RESPONSE, smpp.OK)
    assert sms.smsc.messages == [message]
    assert sms.spent == CENTS


async def test_a_receipt_is_asked_for_even_where_the_sender_wants_none(sms: Scene) -> None:
    """What is undelivered can be given back only if somebody says so; the sender is not told."""
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    await esme.submit(registered=0)
    assert sms.smsc.messages[0].registered == 1
    await sms.smsc.receipt("1000", "REJECTD", sms.smsc.messages[0])
    assert sms.spent == 0
    await esme.submit(registered=1)
    await sms.smsc.receipt("1001", "DELIVRD", sms.smsc.messages[1])
    await until(lambda: len(esme.receipts) == 1)
    assert b"stat:DELIVRD" in esme.receipts[0].short_message


async def test_what_is_not_supported_is_refused_by_its_own_response(sms: Scene) -> None:
    sms.set_up()
    await sms.start()
    stranger = await sms.esme(bound=False)
    await stranger.connect()
    esme = await sms.esme()
    for command, status in (
        (smpp.QUERY_SM, smpp.QUERY_FAILED),
        (smpp.CANCEL_SM, smpp.CANCEL_FAILED),
        (smpp.REPLACE_SM, smpp.REPLACE_FAILED),
        (smpp.SUBMIT_MULTI, smpp.INVALID_COMMAND),
    ):
        answer = await stranger.ask(command, b"1\0\0\0\0")
        assert (answer.command, answer.status) == (command | smpp.RESPONSE, smpp.WRONG_BIND_STATE)
        answer = await esme.ask(command, b"1\0\0\0\0")
        assert (answer.command, answer.status) == (command | smpp.RESPONSE, status)


async def test_a_stranger_submits_nothing(sms: Scene) -> None:
    sms.set_up()
    await sms.start()
    esme = await sms.esme(bound=False)
    await esme.connect()
    assert await esme.submit() == (smpp.WRONG_BIND_STATE, "")
    assert sms.spent == 0


async def test_a_destination_without_a_price_or_sense_is_invalid(sms: Scene) -> None:
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    for dest in ("999123456", "", "hello"):
        assert await esme.submit(dest=dest) == (smpp.INVALID_DESTINATION, "")
    assert sms.smsc.messages == []
