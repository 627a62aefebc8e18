"""The gateway between programs of others: Kannel as the ESME, Kannel's own test SMSC behind us, smpplib.

Kannel's box speaks SMPP as an ESME only. For the other side it brings drive_smpp, the small SMSC that
its developers test with: it knows separate binds, gives no message ids and sends no receipts, so that
receipts come from the SMSC of these tests. drive_smpp also wants to reach a bearerbox on port 13001.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest

from tests.protocols.packets import malformed
from tests.protocols.smpp_driver import PASSWORD, Scene, scene
from tests.support import free_port, until
from tollkeeper.wire.smpp import pdu as smpp

PATH = os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin"
DRIVE_SMPP = Path("/usr/lib/kannel/test/drive_smpp")
DRIVE_BOX_PORT = 13001
CENTS = Decimal("0.10")
CONFIG = """
group = core
admin-port = {admin}
admin-password = bar
admin-interface = 127.0.0.1
smsbox-port = {box}
smsbox-interface = 127.0.0.1
box-deny-ip = "*.*.*.*"
box-allow-ip = "127.0.0.1"
dlr-storage = internal

group = smsc
smsc = smpp
smsc-id = tollkeeper
host = 127.0.0.1
port = {port}
smsc-username = acme
smsc-password = {password}
system-type = VMA
transceiver-mode = true
enquire-link-interval = 5
max-pending-submits = 50
reconnect-delay = 1

group = smsbox
bearerbox-host = 127.0.0.1
bearerbox-port = {box}
sendsms-port = {send}
sendsms-interface = 127.0.0.1

group = sendsms-user
username = tester
password = foobar
max-messages = 10
concatenation = true
omit-empty = true

group = sms-service
keyword = default
text = none
"""


class Kannel:
    """A bearerbox that is our ESME, and the smsbox through which the test sends."""

    def __init__(self, port: int, folder: Path, dlr: int) -> None:
        self.admin, self.box, self.send_port = free_port(), free_port(), free_port()
        self._dlr = dlr
        self._folder = folder
        self._config = folder / "kannel.conf"
        self._config.write_text(
            CONFIG.format(
                admin=self.admin, box=self.box, send=self.send_port, port=port, password=PASSWORD
            )
        )
        self._processes: list[subprocess.Popen[bytes]] = []

    async def start(self) -> None:
        """Start both boxes and wait until they are connected."""
        self._run("bearerbox")
        await until(lambda: self._answers(self.admin, "/status.txt?password=bar", "online"))
        self._run("smsbox")
        await until(lambda: self._answers(self.admin, "/status.txt?password=bar", "smsbox"))

    def _run(self, program: str) -> None:
        log = (self._folder / f"{program}.log").open("wb")
        command = [shutil.which(program, path=PATH) or program, "-v", "1", str(self._config)]
        with log:
            self._processes.append(
                subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)
            )

    async def _answers(self, port: int, path: str, word: str) -> bool:
        try:
            async with httpx.AsyncClient(timeout=2) as client:
                return word in (await client.get(f"http://127.0.0.1:{port}{path}")).text
        except httpx.HTTPError:
            return False

    async def send(self, text: str, *, to: str = "447700900123", **more: str) -> None:
        """Send a text as a customer's application would."""
        query = {
            "username": "tester",
            "password": "foobar",
            "from": "ACME",
            "to": to,
            "text": text,
            "dlr-mask": "31",
            "dlr-url": f"http://127.0.0.1:{self._dlr}/dlr?type=%d&answer=%A",
            **more,
        }
        async with httpx.AsyncClient(timeout=5) as client:
            answer = await client.get(
                f"http://127.0.0.1:{self.send_port}/cgi-bin/sendsms?{urlencode(query)}"
            )
        assert answer.status_code == 202, answer.text

    def stop(self) -> None:
        """End both boxes; they have nothing to save, and take seconds to say so."""
        for process in self._processes:
            process.kill()
            process.wait(5)


class Sink:
    """Where Kannel reports what became of messages: the types (1 delivered, 2 failed, 8 and 16 SMSC's answer)."""

    def __init__(self) -> None:
        self.types: list[int] = []
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readline()).decode()
        self.types.append(int(line.partition("type=")[2].partition("&")[0]))
        while (await reader.readline()).strip():
            pass
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def stop(self) -> None:
        """End."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()


def needs_kannel() -> None:
    for program in ("bearerbox", "smsbox"):
        if shutil.which(program, path=PATH) is None:
            pytest.skip(f"{program} is not installed (Debian package kannel)")


def needs_drive() -> None:
    if not DRIVE_SMPP.exists():
        pytest.skip("drive_smpp is not installed (Debian package kannel-extras)")


def start_drive(port: int, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(
            [str(DRIVE_SMPP), "-v", "0", "-p", str(port), "-m", "100"], stdout=file, stderr=file
        )


@pytest.fixture
async def sms(database_url: str) -> AsyncIterator[Scene]:
    async with scene(database_url) as made:
        yield made


Start = Callable[[], Awaitable[tuple[Kannel, Sink]]]


@pytest.fixture
async def kannel(sms: Scene, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts Kannel when the gateway is up."""
    needs_kannel()
    async with AsyncExitStack() as stack:

        async def start() -> tuple[Kannel, Sink]:
            sink = Sink()
            await sink.start()
            stack.push_async_callback(sink.stop)
            made = Kannel(sms.gateway.ports[0], tmp_path, sink.port)
            stack.callback(made.stop)
            await made.start()
            return made, sink

        yield start


async def test_kannel_sends_through_us_is_refused_without_money_and_hears_the_receipts(
    sms: Scene, kannel: Start
) -> None:
    """Five segments are paid for: two texts, a long one of two parts, one more; then the money is gone.

    Kannel takes 0x45 for a permanent failure (16), as it should with a message nobody pays for.
    """
    sms.set_up(balance="0.50")
    await sms.start()
    box, sink = await kannel()
    await box.send("hello 1")
    await box.send("hello 2")
    await box.send("a" * 200)
    await until(lambda: len(sms.smsc.messages) == 4)
    assert sms.spent == 4 * CENTS
    headers = [one.short_message[:6] for one in sms.smsc.messages if one.esm_class & smpp.UDHI]
    assert [(one[4], one[5]) for one in headers] == [(2, 1), (2, 2)]
    await box.send("\u0159\u0151 in UCS-2", coding="2", charset="utf-8")
    await until(lambda: len(sms.smsc.messages) == 5)
    assert sms.smsc.messages[-1].data_coding == 8
    await box.send("over the limit")
    await until(lambda: 16 in sink.types, what="Kannel says that the SMSC refused")
    assert len(sms.smsc.messages) == 5
    assert sms.spent == Decimal("0.50")
    assert (await sms.smsc.receipt("1000", "DELIVRD", sms.smsc.messages[0])).status == smpp.OK
    assert (await sms.smsc.receipt("1001", "UNDELIV", sms.smsc.messages[1])).status == smpp.OK
    await until(lambda: 1 in sink.types and 2 in sink.types, what="both receipts reached Kannel")
    assert sms.spent == Decimal("0.40")
    assert malformed(sms.smsc.traces, protocol="smpp", port=2775) == []
    await sms.proven()


async def test_kannel_runs_out_of_money_between_the_parts_of_a_text(
    sms: Scene, kannel: Start
) -> None:
    """Part one was passed on and stays charged; part two is refused for good and Kannel hears it."""
    sms.set_up(balance="0.10")
    await sms.start()
    box, sink = await kannel()
    await box.send("a" * 200)
    await until(lambda: 16 in sink.types)
    assert len(sms.smsc.messages) == 1
    assert sms.spent == CENTS


async def test_kannel_on_both_sides(sms: Scene, kannel: Start, tmp_path: Path) -> None:
    """Kannel's box sends, Kannel's test SMSC takes it by a transmitter and a receiver of ours."""
    needs_drive()
    taken: list[asyncio.StreamWriter] = []
    try:
        bearerbox = await asyncio.start_server(
            lambda _, writer: taken.append(writer), "127.0.0.1", DRIVE_BOX_PORT
        )
    except OSError:
        pytest.skip(f"port {DRIVE_BOX_PORT} of drive_smpp's bearerbox is taken")
    port = free_port()
    log = tmp_path / "drive.log"
    drive = start_drive(port, log)
    try:
        await until(lambda: b"accept_thread" in log.read_bytes())
        sms.smsc.port = port
        sms.set_up(smsc={"bind": "separate"})
        await sms.start()
        box, sink = await kannel()
        await box.send("through both")
        await box.send("b" * 200)
        await until(lambda: log.read_bytes().count(b"submit_sm: short_message") == 3)
        assert b"<through both>" in log.read_bytes()
        await until(lambda: sink.types.count(8) >= 2, what="Kannel hears that it was taken")
        assert sms.spent == 3 * CENTS
        await sms.proven()
    finally:
        drive.kill()
        drive.wait(5)
        for writer in taken:
            writer.close()
        bearerbox.close()


async def test_smpplib_is_served(sms: Scene) -> None:
    """An independent client: binds, submits, gets its receipt, unbinds."""
    client_of = pytest.importorskip("smpplib.client", reason="smpplib is not installed")
    sms.set_up()
    await sms.start()
    ids: list[str] = []
    receipts: list[bytes] = []

    def run() -> None:
        client = client_of.Client(
            "127.0.0.1", sms.gateway.ports[0], timeout=10, allow_unknown_opt_params=True
        )
        client.set_message_sent_handler(lambda pdu: ids.append(pdu.message_id.decode()))
        client.set_message_received_handler(lambda pdu: receipts.append(pdu.short_message))
        client.connect()
        client.bind_transceiver(system_id="acme", password=PASSWORD)
        client.send_message(
            source_addr="ACME",
            source_addr_ton=5,
            destination_addr="447700900123",
            dest_addr_ton=1,
            dest_addr_npi=1,
            short_message=b"hello",
            registered_delivery=True,
        )
        while not receipts:
            client.read_once()
        client.unbind()
        client.disconnect()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    await until(lambda: len(ids) == 1)
    await sms.smsc.receipt("1000", "DELIVRD", sms.smsc.messages[0])
    await until(lambda: not thread.is_alive())
    assert receipts[0].startswith(f"id:{ids[0]} ".encode())
    assert sms.spent == CENTS
