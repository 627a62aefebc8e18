"""The doctor asks each listener from outside, and connects to each switch."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.protocols.house import House, add_peer
from tests.support import World, free_port, settings
from tollkeeper.services.doctor import Check, Level
from tollkeeper.services.probe_network import check_network
from tollkeeper.settings import Settings


@asynccontextmanager
async def tcp(answer: bytes) -> AsyncIterator[int]:
    """Somebody who answers every connection so; the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await reader.read(1000)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


WELL = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def all_listeners() -> dict[str, str]:
    """Every plain listener on a free port."""
    names = ("radius_auth", "radius_acct", "diameter", "smpp", "sip", "agi")
    return {f"{name}_listen": f"127.0.0.1:{free_port()}" for name in names}


def found(checks: list[Check]) -> dict[str, tuple[Level, str]]:
    """Level and finding by name, without the address."""
    return {check.what: (check.level, check.found.partition(" ")[2]) for check in checks}


async def ask(url: str, tmp_path: Path, port: int, **given: Any) -> list[Check]:
    """What the doctor says."""
    made: Settings = settings(data_dir=tmp_path, host="0.0.0.0", port=port, **given)
    checks = await check_network(url, made)
    assert all(bool(check.mend) is (check.level is not Level.OK) for check in checks)
    return checks


async def test_every_listener_that_answers_is_well(database_url: str, tmp_path: Path) -> None:
    """With a peer of kind radius on this machine, Status-Server is answered with its secret."""
    given = all_listeners() | {"diameter_host": "ocs.example"}
    with World(database_url) as world:
        add_peer(world, "nas", "radius", addresses=["127.0.0.1"], secret="testing123")
        house = House(database_url, **given)
        await house.start()
        try:
            async with tcp(WELL) as port:
                checks = found(await ask(database_url, tmp_path, port, **given))
        finally:
            await house.stop()
    assert checks == {
        "HTTP": (Level.OK, "is well"),
        "RADIUS authentication": (Level.OK, "answers Status-Server"),
        "RADIUS accounting": (Level.OK, "answers Status-Server"),
        "Diameter": (Level.OK, "answers CER as ocs.example with 3010: knows no such peer"),
        "SMPP": (Level.OK, "answers enquire_link with enquire_link_resp, ok"),
        "SIP redirect": (Level.OK, "answers OPTIONS"),
        "FastAGI": (Level.OK, "takes connections"),
    }


async def test_a_listener_that_is_not_there_fails(database_url: str, tmp_path: Path) -> None:
    given = all_listeners()
    async with tcp(WELL) as port:
        checks = found(await ask(database_url, tmp_path, port, **given))
    assert checks.pop("HTTP")[0] is Level.OK
    assert len(checks) == 6
    assert {level for level, _ in checks.values()} == {Level.FAIL}


async def test_without_a_server_nothing_is_tried(database_url: str, tmp_path: Path) -> None:
    """One warning instead of a failure for each listener; without listeners not even that."""
    checks = found(await ask(database_url, tmp_path, free_port(), **all_listeners()))
    assert [level for level, _ in checks.values()] == [Level.WARN, Level.WARN]
    assert "SIP redirect" in checks["listeners"][1]
    assert list(found(await ask(database_url, tmp_path, free_port()))) == ["HTTP"]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 503 Busy\r\n\r\n", b"", b"\xff\n"])
async def test_something_else_at_the_port_is_not_taken_for_us(
    database_url: str, tmp_path: Path, answer: bytes
) -> None:
    async with tcp(answer) as port:
        (check,) = await ask(database_url, tmp_path, port)
    assert check.level is Level.WARN


async def test_switches_that_are_connected_to_are_reached_or_not(
    database_url: str, tmp_path: Path
) -> None:
    with World(database_url) as world:
        async with tcp(b"") as port:
            there, gone = f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}"
            add_peer(world, "fs", "freeswitch", options={"connect": there})
            add_peer(world, "ast", "asterisk", options={"connect": gone})
            add_peer(world, "kam", "kamailio", options={"connect": "nonsense"})
            add_peer(world, "off", "smsc", options={"connect": gone}, enabled=False)
            add_peer(world, "nas", "radius", options={})
            checks = found(await ask(database_url, tmp_path, free_port()))
    assert {name: level for name, (level, _) in checks.items()} == {
        "HTTP": Level.WARN,
        "freeswitch fs": Level.OK,
        "asterisk ast": Level.FAIL,
        "kamailio kam": Level.FAIL,
    }
    assert checks["freeswitch fs"][1] == "takes connections"


async def test_a_radius_listener_that_does_not_know_this_machine_is_only_not_refused(
    database_url: str, tmp_path: Path
) -> None:
    given = {"radius_auth_listen": f"127.0.0.1:{free_port()}"}
    house = House(database_url, **given)
    await house.start()
    try:
        async with tcp(WELL) as port:
            checks = found(await ask(database_url, tmp_path, port, **given))
    finally:
        await house.stop()
    level, text = checks["RADIUS authentication"]
    assert (level, text.startswith("is not refused")) == (Level.OK, True)


async def test_what_speaks_no_diameter_is_not_taken_for_it(
    database_url: str, tmp_path: Path
) -> None:
    """Something else at the port, one that hangs up, and one whose answer is a request."""
    asking = b"\x01\x00\x00\x14\x80\x00\x01\x01" + bytes(12)
    for answer in (b"220 mail.example ESMTP service ready\r\n", b"", asking):
        async with tcp(WELL) as port, tcp(answer) as other:
            given = {"diameter_listen": f"127.0.0.1:{other}"}
            checks = found(await ask(database_url, tmp_path, port, **given))
        assert checks["Diameter"][0] is Level.FAIL


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that signs itself, and its key."""
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


async def test_smpp_over_tls_is_asked_over_tls_and_an_smsc_must_be_trusted(
    database_url: str, tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    """Our listener may have signed itself: its peers judge that. An SMSC that did is trusted by tls_ca only."""
    cert, key = certificate
    tls, plain = free_port(), free_port()
    given = {
        "smpp_listen": f"127.0.0.1:{plain}",
        "smpp_tls_listen": f"127.0.0.1:{tls}",
        "tls_certificate": cert,
        "tls_key": key,
    }
    with World(database_url) as world:
        there = {"connect": f"127.0.0.1:{tls}", "tls": True}
        add_peer(world, "known", "smsc", options={**there, "tls_ca": str(cert)})
        add_peer(world, "stranger", "smsc", options=there)
        add_peer(world, "plain", "smsc", options={"connect": f"127.0.0.1:{plain}", "tls": True})
    house = House(database_url, **given)
    await house.start()
    try:
        async with tcp(WELL) as http:
            checks = found(await ask(database_url, tmp_path, http, **given))
            swapped = {**given, "smpp_tls_listen": f"127.0.0.1:{plain}"}
            wrong = found(await ask(database_url, tmp_path, http, **swapped))
    finally:
        await house.stop()
    answers = (Level.OK, "answers enquire_link with enquire_link_resp, ok")
    assert checks["SMPP"] == checks["SMPP over TLS"] == answers
    assert checks["smsc known"] == (Level.OK, "takes connections with TLS, and is trusted")
    assert checks["smsc stranger"][0] is checks["smsc plain"][0] is Level.FAIL
    assert "certificate" in checks["smsc stranger"][1]
    assert wrong["SMPP over TLS"][0] is Level.FAIL
