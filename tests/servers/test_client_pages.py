"""The clients of docs/clients work: they are taken from the pages and run against a real server."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks.webhooks import Webhook as Standard

from tests.servers.served import served
from tests.support import UK_FIXED, World, free_port, until
from tollkeeper.gateways.webhook import HttpWebhook, NullWebhook
from tollkeeper.services import webhooks
from tollkeeper.services.switches import new_secret
from tollkeeper.services.webhooks import Webhook

PAGES = Path(__file__).resolve().parents[2] / "docs" / "clients"
SECONDS = 30


def blocks(page: str, language: str) -> list[str]:
    """The pieces of code of a language that a page has."""
    return re.findall(
        rf"^```{language}\n(.*?)^```$", (PAGES / page).read_text(), re.MULTILINE | re.DOTALL
    )


def program(name: str) -> str:
    """Where a program is; the test is skipped where it is not."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


class Running:
    """A program and the lines that it has written so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(line.decode().rstrip())

    @property
    def text(self) -> str:
        """All that was written."""
        return "\n".join(self.lines)

    async def done(self) -> str:
        """Wait for the end of it; what it wrote."""
        async with asyncio.timeout(SECONDS):
            await self.process.wait()
            await self._reading
        assert self.process.returncode == 0, self.text
        return self.text

    async def stop(self) -> None:
        """End it, with what it has started."""
        if self.process.returncode is None:
            os.killpg(self.process.pid, 9)
        await self.process.wait()
        await self._reading


@asynccontextmanager
async def running(*command: str, folder: Path, **environment: str) -> AsyncIterator[Running]:
    """A program while the block lasts, in a folder, with these variables and no others of ours."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **environment}, start_new_session=True,
    )  # fmt: skip
    made = Running(process)
    try:
        yield made
    finally:
        await made.stop()


@asynccontextmanager
async def server(url: str) -> AsyncIterator[tuple[World, Any, dict[str, str]]]:
    """A served world, its parts, and the variables that clients want."""
    with World(url) as world:
        world.customer(balance="100")
        token = world.key("charge")
        async with served(url, jobs=True, webhook=NullWebhook()) as (base, parts, app):
            APPS[id(parts)] = app
            yield world, parts, {"TOLLKEEPER": base, "KEY": token}
            del APPS[id(parts)]


APPS: dict[int, Any] = {}
"""The application that serves these parts."""


def listeners(parts: Any) -> int:
    """How many streams are open."""
    streams = getattr(APPS[id(parts)].state, "streams", None)
    return len(streams._streams) if streams is not None else 0


def charged(world: World) -> dict[str, str]:
    """What the closed sessions cost, by their ids."""
    rows = world.sql("SELECT split_part(key, '/', 2) AS id, charge FROM closed_session")
    return {row["id"]: f"{row['charge']:.2f}" for row in rows}


async def killed(parts: Any, id_: str) -> None:
    """A call that is up and shall end."""
    await parts.charging.authorise(switch="sw1", session_id=id_, party="acme", called=UK_FIXED)
    await parts.charging.kill(switch="sw1", session_id=id_, why="fraud")


async def test_curl(database_url: str, tmp_path: Path) -> None:
    """The page from its first to its last line, as one script; then again with a forged body."""
    sh = program("sh")
    for needed in ("curl", "openssl", "base64", "od"):
        program(needed)
    secret, now = new_secret(), datetime.now(UTC)
    body = '{"type":"session.ended"}'
    (tmp_path / "body").write_text(body)
    (tmp_path / "page.sh").write_text("set -eu\n" + "\n".join(blocks("curl.md", "sh")))
    signature = Standard(secret).sign("evt_7", now, body)
    async with server(database_url) as (world, parts, variables):
        await killed(parts, "live-1")
        await until(lambda: world.one("SELECT count(*) FROM feed WHERE kind = 'session.kill'") == 1)
        variables |= {
            "SECRET": secret, "ID": "evt_7", "TIMESTAMP": str(int(now.timestamp())),
            "SIGNATURE": f"v1,AAAA {signature}", "SECONDS_TO_LISTEN": "0",
        }  # fmt: skip
        async with running(sh, "page.sh", folder=tmp_path, **variables) as page:
            text = await page.done()
        assert charged(world) == {"call-1": "0.32", "lookup-1": "0.60"}
        assert '"outcome":"granted"' in text
        (ended,) = re.findall("end this call: (.*)", text)
        assert json.loads(ended)["data"]["session_id"] == "live-1"
        assert (tmp_path / "last-event-id").read_text().strip() == str(
            world.one("SELECT id FROM feed WHERE kind = 'session.kill'")
        )
        assert text.splitlines()[-1] == "genuine"
        (tmp_path / "body").write_text(body + " ")
        async with running(sh, "page.sh", folder=tmp_path, **variables) as page:
            text = await page.done()
        assert text.splitlines()[-1] == "forged"
        assert "end this call" not in text


async def test_python(database_url: str, tmp_path: Path) -> None:
    """All four parts, by an interpreter that has the standard library and nothing else."""
    client, call, listener, receiver = blocks("python.md", "python")
    for name, text in (
        ("tollkeeper", client),
        ("call", call),
        ("listener", listener),
        ("hook", receiver),
    ):
        (tmp_path / f"{name}.py").write_text(text)
    python = (sys.executable, "-S", "-E", "-W", "error")
    async with server(database_url) as (world, parts, variables):
        async with running(*python, "call.py", folder=tmp_path, **variables) as page:
            lines = (await page.done()).splitlines()
        assert lines == ["paid for until second 320", "charged 0.320000", "charged"]
        assert charged(world) == {"call-2": "0.32", "lookup-2": "0.60"}

        await killed(parts, "live-1")
        async with running(*python, "listener.py", folder=tmp_path, **variables) as page:
            await until(lambda: page.lines == ["end live-1 fraud"], seconds=SECONDS)
            await killed(parts, "live-2")
            await until(lambda: page.lines[1:] == ["end live-2 fraud"], seconds=SECONDS)

        port, secret = free_port(), new_secret()
        given = {"PORT": str(port), "SECRET": secret}
        async with running(*python, "hook.py", folder=tmp_path, **given) as page:
            wanted = Webhook("hook", f"http://127.0.0.1:{port}/", ("session.ended",))
            await webhooks.create_webhook(parts.database, wanted, secret=secret, actor="test")
            await until(lambda: parts.directory.hears_ended(1))
            parts.events._gateway = HttpWebhook()
            await until(lambda: _listens(port), seconds=SECONDS)
            await parts.charging.stop(switch="sw1", session_id="live-1", used_ms=1000)
            await until(lambda: page.lines == ["told of session.ended live-1"], seconds=SECONDS)
            await until(lambda: world.one("SELECT max(status) FROM webhook_delivery") == 204)
            forged = {
                "webhook-id": "evt_1",
                "webhook-signature": "v1,AAAA",
                "webhook-timestamp": "1",
            }
            async with httpx.AsyncClient() as outsider:
                answer = await outsider.post(
                    f"http://127.0.0.1:{port}/", headers=forged, content=b"{}"
                )
            assert answer.status_code == 401
            assert len(page.lines) == 1


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


STAND_INS = """
-- What FreeSWITCH gives a script, as far as the page uses it.
local variables = { uuid = os.getenv("UUID"), tollkeeper_party = "acme", destination_number = "+442071838750",
                    caller_id_number = "4930123456" }
session = {
  getVariable = function(_, name) return variables[name] end,
  setVariable = function(_, name, value) print("set " .. name .. "=" .. value) end,
  execute = function(_, name, data) print("execute " .. name .. " " .. data) end,
}
env = { getHeader = function(_, name) return ({ variable_billmsec = "31500" })[name] end }
freeswitch = {
  API = function() return { executeString = function(_, text)
    print("api " .. text) io.stdout:flush()
    return text:match("^uuid_exists") and (os.getenv("UP") or "false") or "+OK"
  end } end,
  consoleLog = function(_, text) io.write(text) io.stdout:flush() end,
  msleep = function(ms) os.execute("sleep " .. math.min(ms / 1000, 0.05)) end,
}
argv = arg
"""


async def test_lua(database_url: str, tmp_path: Path) -> None:
    """By plain Lua, with stand-ins for FreeSWITCH's objects: it was never run on FreeSWITCH."""
    lua = program("lua5.3")
    program("curl")
    script, verify = blocks("lua-freeswitch.md", "lua")
    (tmp_path / "tollkeeper.lua").write_text(STAND_INS + script)
    async with server(database_url) as (world, parts, variables):
        config = tmp_path / "curl.conf"
        config.write_text(
            f'header = "Authorization: Bearer {variables["KEY"]}"\n'
            'header = "Content-Type: application/json"\n'
        )
        given = {
            "TOLLKEEPER": variables["TOLLKEEPER"],
            "TOLLKEEPER_CURL": str(config),
            "UUID": "u-1",
        }

        async def run(*arguments: str, **more: str) -> str:
            async with running(
                lua, "tollkeeper.lua", *arguments, folder=tmp_path, **{**given, **more}
            ) as page:
                return await page.done()

        text = await run("call")
        assert "set execute_on_answer=sched_hangup +300 allotted_timeout" in text
        assert "set api_on_answer=luarun tollkeeper.lua answered u-1 300" in text
        assert "api uuid_exists u-1" in await run("answered", "u-1", "300")
        await parts.charging.kill(switch="sw1", session_id="u-1", why="fraud")
        # What is granted ends at once, so that it asks again, and is told to end the call.
        assert "api uuid_kill u-1 ALLOTTED_TIMEOUT" in await run("answered", "u-1", "1", UP="true")
        assert "charged u-1 0.320000" in await run("stop", "u-1")
        assert "event e-1 charged" in await run("event", "e-1", "voice", UK_FIXED, "60")
        assert charged(world) == {"u-1": "0.32", "e-1": "0.60"}
        world.sql("UPDATE wallet SET debited = credited, stamp = stamp + 1")
        assert "execute respond 402" in await run("call", UUID="u-2")
        world.sql("UPDATE wallet SET debited = 0, stamp = stamp + 1")
        async with running(lua, "tollkeeper.lua", "listen", folder=tmp_path, **given) as page:
            await until(lambda: listeners(parts) == 1, seconds=SECONDS)
            await killed(parts, "u-3")
            await until(lambda: "api uuid_kill u-3 CALL_REJECTED" in page.lines, seconds=SECONDS)

    secret, now = new_secret(), datetime.now(UTC)
    body = '{"type":"session.ended","n":"' + "ü" * 100 + '"}'
    signature = Standard(secret).sign("evt_7", now, body)
    (tmp_path / "body").write_bytes(body.encode())
    (tmp_path / "verify.lua").write_text(
        verify + "\nlocal file = io.open('body', 'rb')\nlocal body = file:read('*a')\n"
        f"local headers = {{ ['webhook-id'] = 'evt_7', ['webhook-timestamp'] = '{int(now.timestamp())}',"
        f" ['webhook-signature'] = 'v1,AAAA {signature}' }}\n"
        f"print(is_genuine('{secret}', headers, body), is_genuine('{secret}', headers, body .. ' '),"
        f" is_genuine('{secret}', headers, body, os.time() + 400))\n"
    )
    async with running(lua, "verify.lua", folder=tmp_path) as page:
        assert (await page.done()).split() == ["true", "false", "false"]


async def test_kamailio_takes_the_configuration(tmp_path: Path) -> None:
    """Checked by Kamailio itself; no call is made with it here."""
    kamailio = program("kamailio")
    (configuration,) = blocks("kamailio.md", "kamailio")
    (tmp_path / "kamailio.cfg").write_text(configuration)
    async with running(kamailio, "-c", "-E", "-f", "kamailio.cfg", folder=tmp_path) as page:
        text = await page.done()
    assert "config file ok" in text
    (agent,) = blocks("kamailio.md", "python")
    compile(agent, "kamailio.md", "exec")
