"""The server is told to stop while everything is connected to it: it ends soon, and in good order."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from tests.protocols.freeswitch_fake import FakeFreeSwitch
from tests.protocols.house import add_peer, add_trunk
from tests.protocols.smpp_driver import PASSWORD, Esme, FakeSmsc
from tests.servers.test_event_stream import listening
from tests.support import World, free_port, until
from tollkeeper.wire.smpp import pdu as smpp

STOP_SECONDS = 3.0
START_SECONDS = 60.0


class Served:
    """A ``tollkeeper serve`` of its own process; ``log`` is what it has said."""

    def __init__(self, process: asyncio.subprocess.Process, base: str, log: Path) -> None:
        self.process, self.base, self._log = process, base, log
        self._before = 0

    @property
    def log(self) -> str:
        """What it has said."""
        return self._log.read_text()

    async def stop(self) -> float:
        """Tell it to stop; the seconds until all is closed. What Python does after that is not counted."""
        self._before = len(self.log)
        self.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(self.process.wait(), 30) == 0, self.log
        lines = [json.loads(line) for line in self.log[self._before :].splitlines()]
        times: dict[str, list[datetime]] = {
            "Shutting down": [],
            "Application shutdown complete.": [],
        }
        for line in lines:
            times.get(line["event"], []).append(datetime.fromisoformat(line["timestamp"]))
        begun, ended = times.values()
        return (max(ended) - min(begun)).total_seconds()

    def ended_well(self) -> None:
        """Since it was told to stop it has said nothing that anybody would have to look into."""
        said = self.log[self._before :]
        for word in ("Traceback", '"level": "error"', '"level": "critical"', "Exception"):
            assert word not in said, said


@asynccontextmanager
async def serving(
    url: str, folder: Path, *arguments: str, **environment: str
) -> AsyncIterator[Served]:
    """The server; it is killed if the block does not stop it."""
    port = free_port()
    given = {f"TOLLKEEPER_{name.upper()}": value for name, value in environment.items()}
    given |= {"TOLLKEEPER_DATABASE_URL": url, "NO_COLOR": "1", "TOLLKEEPER_DATA_DIR": str(folder)}
    log = folder / "serve.log"
    with log.open("w") as sink:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tollkeeper", "serve", "--port", str(port), *arguments,
            stdout=sink, stderr=sink, env={**os.environ, **given},
        )  # fmt: skip
    try:
        served = Served(process, f"http://127.0.0.1:{port}", log)
        async with httpx.AsyncClient(base_url=served.base) as client:

            async def healthy() -> bool:
                assert process.returncode is None, served.log
                try:
                    return (await client.get("/healthz")).status_code == 200
                except httpx.TransportError:
                    return False

            await until(healthy, seconds=START_SECONDS, what="the server answers")
        yield served
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def deaf(base: str, token: str) -> socket.socket:
    """A listener that asks for a stream and never reads."""
    host, _, port = base.removeprefix("http://").partition(":")
    made = socket.create_connection((host, int(port)))
    made.sendall(
        b"GET /v1/events?after=0 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\n\r\n"
        % token.encode()
    )
    return made


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_open_streams_do_not_hold_up_a_stop(
    database_url: str, tmp_path: Path, workers: str
) -> None:
    """Neither one that listens, which gets a proper end, nor one that does not read what it is told."""
    with World(database_url) as world:
        token = world.key("read")
        # More than any buffer between here and there takes.
        world.sql(
            "INSERT INTO feed (at, kind, payload) SELECT now(), 'wallet.alert', jsonb_build_object('text', repeat('x', 9000))"
            " FROM generate_series(1, 3000) RETURNING id"
        )
        async with serving(database_url, tmp_path, "--workers", workers) as server:
            with deaf(server.base, token):
                async with listening(server.base, token) as first, listening(server.base, token):
                    taken = await server.stop()
                    await until(lambda: first.ended, what="the stream ended")
            assert taken < STOP_SECONDS
            server.ended_well()


async def test_listeners_and_agents_end_in_good_order(database_url: str, tmp_path: Path) -> None:
    """With listeners of every protocol, an ESME that is bound, an SMSC and a FreeSWITCH we are logged on to."""
    ports = {
        name: f"127.0.0.1:{free_port()}"
        for name in ("radius_auth", "radius_acct", "diameter", "smpp", "sip", "agi")
    }
    async with AsyncExitStack() as stack:
        world = stack.enter_context(World(database_url))
        switch, smsc = FakeFreeSwitch("between us"), FakeSmsc()
        for fake in (switch, smsc):
            await fake.start()
            stack.push_async_callback(fake.stop)
        add_trunk(world, "acme-in", world.customer("acme"))
        add_peer(
            world, "fs1", "freeswitch", secret="between us", trunk="acme-in",
            options={"connect": f"127.0.0.1:{switch.port}"},
        )  # fmt: skip
        add_peer(
            world, "fs2", "freeswitch", secret="nobody is there",
            options={"connect": f"127.0.0.1:{free_port()}"},
        )  # fmt: skip
        add_peer(world, "nas", "radius", secret="s3cret", addresses=["127.0.0.1"])
        add_peer(
            world, "acme", "esme", secret=PASSWORD, options={"party": "acme", "upstream": "smsc"}
        )
        add_peer(world, "smsc", "smsc", secret="pw", options={"connect": f"127.0.0.1:{smsc.port}"})
        given = {f"{name}_listen": address for name, address in ports.items()}
        server = await stack.enter_async_context(serving(database_url, tmp_path, **given))
        esme = Esme(int(ports["smpp"].rpartition(":")[2]))
        stack.push_async_callback(esme.close)
        assert await esme.bind() == smpp.OK
        await until(lambda: switch.connected == 1, what="logged on to the switch")
        await until(lambda: smsc.bound == 1, what="bound to the SMSC")
        taken = await server.stop()
        assert taken < STOP_SECONDS, server.log
        server.ended_well()
        assert smpp.UNBIND in esme.requests
