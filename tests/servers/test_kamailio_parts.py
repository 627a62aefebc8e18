"""The parts of the Kamailio integration by themselves: its line, its clock, its calls, its files."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocols.house import House, add_peer, add_trunk
from tests.support import UK_FIXED, World, until
from tollkeeper.cli.connect.common import write_files
from tollkeeper.cli.connect.kamailio import site_of
from tollkeeper.cli.connect.kamailio_files import CHARGING, PROXY, Site, configuration
from tollkeeper.cli.demo.kamailio import program
from tollkeeper.cli.demo.sipp import calls_of
from tollkeeper.errors import Conflict, InvalidInput
from tollkeeper.servers.kamailio.calls import Line, Lines
from tollkeeper.servers.kamailio.link import SwitchClock, used_ms
from tollkeeper.store.peers import Peer
from tollkeeper.wire.kamailio import evapi
from tollkeeper.wire.kamailio.rpc import MalformedRpc, dialogs, done

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)

# --- clock and calls ------------------------------------------------------------------------------


def test_an_hour_of_difference_between_the_clocks_is_no_usage() -> None:
    clock = SwitchClock()
    hour_ahead = (NOW + timedelta(hours=1)).timestamp()
    clock.heard(f"{hour_ahead:.6f}", NOW + timedelta(milliseconds=30))
    clock.heard(f"{hour_ahead + 1:.6f}", NOW + timedelta(seconds=1, milliseconds=2))
    assert clock.ago(f"{hour_ahead:.6f}", NOW + timedelta(seconds=10)) == pytest.approx(
        10, abs=0.01
    )
    assert clock.ago("", NOW) == 0
    assert SwitchClock().ago("1.0", NOW) == 0


@pytest.mark.parametrize(
    ("answered", "ended", "used"),
    [("1.000000", "3.500900", 2500), ("9.0", "3.0", 0), ("", "3.0", None), ("1.0", "x", None)],
)
def test_usage_is_the_difference_of_two_moments_of_one_clock(
    answered: str, ended: str, used: int | None
) -> None:
    assert used_ms(answered, ended) == used


def test_two_dialogs_by_one_call_id_are_two_sessions_and_the_same_one_stays_itself() -> None:
    lines = Lines()
    assert lines.session_id("abc", (1, 2)) == "abc"
    assert lines.session_id("abc", (1, 2)) == "abc"
    assert lines.session_id("abc", (1, 3)) == lines.session_id("abc", (1, 3)) == "abc#1.3"
    lines.add("abc", Line((1, 2), "abc", "tag-a"))
    lines.add("abc#1.3", Line((1, 3), "abc", "tag-b"))
    assert lines.of_dialog((1, 3)) == "abc#1.3"
    assert lines.of_call("abc", "callee", "tag-b") == "abc#1.3"
    lines.drop("abc#1.3")
    assert lines.of_call("abc", "callee", "tag-b") == ""
    assert lines.of_dialog((1, 2)) == "abc"
    assert lines.is_over("abc#1.3")
    assert not lines.is_over("abc")


def test_what_is_written_down_of_a_call_is_read_back() -> None:
    line = Line((7, 9), "abc", "tag", "12.5")
    assert Line.read(line.kept()) == line
    assert Line.read({"unique_id": "of an Asterisk"}) is None


# --- JSON-RPC -------------------------------------------------------------------------------------


def test_dialogs_are_read_as_kamailio_lists_them() -> None:
    body = (
        b'{"jsonrpc":"2.0","result":[{"h_entry":12,"h_id":34,"ref":2,"call-id":"x","state":4,'
        b'"caller":{"tag":"t1"},"callee":{"tag":"t2"},"profiles":[],'
        b'"variables":[{"tk_t0":"5.25"},{"tk_session":"x"}]}],"id":1}'
    )
    (dialog,) = dialogs(body)
    assert (dialog.h_entry, dialog.h_id, dialog.call_id, dialog.state) == (12, 34, "x", 4)
    assert (dialog.caller.tag, dialog.variable("tk_t0"), dialog.variable("no")) == (
        "t1",
        "5.25",
        "",
    )


def test_an_error_is_never_taken_for_an_empty_list() -> None:
    for body in (b'{"error":{"code":500,"message":"no"}}', b"{}", b"", b"[]", b"<html>"):
        with pytest.raises(MalformedRpc):
            dialogs(body)
    assert dialogs(b'{"result":[]}') == []
    assert done(b'{"result":{}}')
    assert not done(b'{"error":{"code":500,"message":"no"}}')


@given(st.binary(max_size=200))
def test_any_bytes_are_dialogs_or_malformed(body: bytes) -> None:
    try:
        dialogs(body)
    except MalformedRpc:
        return


# --- the files ------------------------------------------------------------------------------------


def peer(**columns: object) -> Peer:
    values: dict[str, object] = {"secret": "s3cret", "options": {"connect": "10.0.0.5:8448"}}
    return Peer(1, "edge", "kamailio", "edge", **{**values, **columns})  # type: ignore[arg-type]


def site(of: Peer, **more: object) -> Site:
    values: dict[str, object] = {
        "gateway": "203.0.113.5:5060", "sip": "10.0.0.5:5060", "clients": ("10.0.0.2",), "transport": "evapi",
        "answer_ms": 800, "dialog_db": "sqlite:////tmp/x", "modules": "/lib/", "http_url": "http://x", "key": "",
        "party": "",
    }  # fmt: skip
    return site_of(of, **{**values, **more})  # type: ignore[arg-type]


def test_a_peer_without_a_secret_gets_no_configuration() -> None:
    with pytest.raises(InvalidInput, match="has no secret"):
        site(peer(secret=""))
    with pytest.raises(InvalidInput, match="option connect"):
        site(peer(options={}))
    with pytest.raises(InvalidInput, match="--key"):
        site(peer(), transport="http")


def test_the_policy_on_failure_is_written_into_the_configuration() -> None:
    def charging(of: Peer) -> str:
        return configuration(site(of), Path("/etc/kamailio"))[CHARGING]

    assert "define TK_OPEN" not in charging(peer())
    assert "define TK_OPEN" not in charging(peer(risk_seconds=600))
    text = charging(peer(on_failure="allow", risk_seconds=150))
    assert "#!define TK_OPEN_SECONDS 60\n#!define TK_OPEN_CALLS 2\n" in text
    assert "#!define TK_OPEN_SECONDS 7\n" in charging(peer(on_failure="allow", risk_seconds=7))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gateway", 'x"; exit; "'),
        ("gateway", "203.0.113.5"),
        ("sip", ""),
        ("clients", ("10.0.0.2|.*",)),
        ("answer_ms", 0),
        ("dialog_db", "oracle://x"),
        ("dialog_db", 'sqlite:///x"'),
    ],
)
def test_what_could_break_out_of_the_configuration_is_refused(field: str, value: object) -> None:
    with pytest.raises(InvalidInput):
        configuration(site(peer(), **{field: value}), Path("/etc/kamailio"))


def test_files_are_for_their_owner_and_never_overwritten_unasked(tmp_path: Path) -> None:
    files = {"a.cfg": "one"}
    (path,) = write_files(tmp_path / "new", files, force=False)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Conflict, match="--force"):
        write_files(tmp_path / "new", files, force=False)
    write_files(tmp_path / "new", {"a.cfg": "two"}, force=True)
    assert path.read_text() == "two"


@pytest.mark.parametrize("transport", ["evapi", "http"])
@pytest.mark.parametrize("risk", [0, 600])
def test_kamailio_finds_no_fault_in_its_files(tmp_path: Path, transport: str, risk: int) -> None:
    kamailio = program("kamailio")
    if kamailio is None:
        pytest.skip("kamailio is not installed here")
    of = peer(on_failure="allow", risk_seconds=risk)
    made = site(of, transport=transport, key="tk_x", sip="127.0.0.1:5060", modules=Site().modules)
    files = configuration(made, tmp_path)
    assert not any("@" in line and "@-" not in line for line in files[PROXY].splitlines())
    write_files(tmp_path, files, force=False)
    checked = subprocess.run(
        [kamailio, "-c", "-f", str(tmp_path / PROXY)],
        capture_output=True, text=True, timeout=30, check=False, env=os.environ,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr[-2000:]
    assert "warnings" not in checked.stderr, checked.stderr[-2000:]


def test_the_log_of_calls_is_read_as_far_as_it_makes_sense() -> None:
    log = "c1 a 44 begun 10\nc1 a 44 answered 60\nnonsense\nc1 a 44 cut 3060\nc2 b 44 begun 5\nc2 b 44 refused-402 9\n"
    one, two = calls_of(log)
    assert (one.seconds, one.refused) == (3.0, 0)
    assert (two.refused, two.waited) == (402, 0.004)


# --- a line that is not Kamailio's ----------------------------------------------------------------


class Fake:
    """Listens where Kamailio should, and says what it is told to."""

    def __init__(self) -> None:
        self.connections = 0
        self.say: bytes = b""
        self.heard: list[evapi.ToKamailio] = []
        self.up: set[tuple[int, int]] = set()
        """Dialogs that it has: a limit for another one finds none."""
        self.port = 0
        self._server: asyncio.Server | None = None
        self.writer: asyncio.StreamWriter

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more."""
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writer = writer
        self.heard.clear()
        framer = evapi.Framer()
        try:
            writer.write(self.say)
            while data := await reader.read(65536):
                for frame in framer.feed(data):
                    message = evapi.decode_ours(frame)
                    self.heard.append(message)
                    if isinstance(message, evapi.Ping | evapi.End | evapi.Limit):
                        lost = isinstance(message, evapi.Limit) and (
                            (message.h_entry, message.h_id) not in self.up
                        )
                        writer.write(evapi.encode(evapi.Done(message.id, int(not lost), "100.5")))
        except OSError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def fake() -> AsyncIterator[Fake]:
    made = Fake()
    await made.start()
    yield made
    await made.stop()


async def test_garbage_on_the_line_ends_it_and_it_is_made_anew(
    database_url: str, fake: Fake
) -> None:
    """No message of any kind ends the agent: it connects again, and takes calls as soon as they make sense."""
    fake.say = b"GET / HTTP/1.1\r\n\r\n"
    with World(database_url) as world:
        acme = world.customer("acme")
        add_trunk(world, "in", acme, addresses=("192.0.2.1",))
        options = {"connect": f"127.0.0.1:{fake.port}", "rpc": "http://127.0.0.1:1/RPC"}
        add_peer(world, "kam", "kamailio", secret="x", options=options)
        house = House(database_url)
        await house.start()
        try:
            await until(lambda: fake.connections >= 3, what="it connects again")
            fake.say, count = b"", fake.connections
            await until(
                lambda: (
                    fake.connections > count and any(isinstance(m, evapi.Ping) for m in fake.heard)
                ),
                what="it connects where nobody talks nonsense",
            )
            calls = [
                evapi.Call("", called=UK_FIXED, source="192.0.2.1"),
                evapi.Call("x" * 4000, called="'; DROP TABLE", source="not an address"),
                evapi.Call("good", called=UK_FIXED, source="192.0.2.1", h_entry=1, h_id=1),
                evapi.Call("nobody", called=UK_FIXED, source="192.0.2.9", h_entry=1, h_id=2),
            ]
            for number, call in enumerate(calls):
                fake.writer.write(evapi.encode(evapi.Authorise(number, number, call)))
            for kind in (evapi.Started, evapi.Stopped, evapi.Failed, evapi.ByeSent):
                odd = kind(id=f"odd-{kind.__name__}", at="x", call_id="never", session="never")
                fake.writer.write(evapi.encode(odd))

            def answers() -> dict[int, evapi.Answer]:
                return {m.index: m for m in fake.heard if isinstance(m, evapi.Answer)}

            await until(lambda: len(answers()) == 4, what="every call is answered")
            assert answers()[2].allow == 1
            assert answers()[2].seconds > 0
            assert answers()[1].code == answers()[3].code == 403
            await until(lambda: sum(isinstance(m, evapi.Heard) for m in fake.heard) == 4)
            ended = evapi.Stopped(
                id="s", at="107.9", call_id="good", session="good", answered="102.9"
            )
            fake.writer.write(evapi.encode(ended))
            await until(lambda: any(isinstance(m, evapi.Heard) and m.id == "s" for m in fake.heard))
            used = world.one("SELECT body->>'used_ms' FROM closed_session WHERE key = 'kam/good'")
            assert used == "5000"
        finally:
            await house.stop()
