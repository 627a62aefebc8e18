"""Bad input and overload at every door, on real sockets: nothing breaks, nothing is charged, all is counted.

What comes is in ``bad.py``, the house with all its doors in ``town.py``. Overload is in ``test_overload.py``.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from tests.protocols.bad import AMID, LIES, TABLE, Bad
from tests.protocols.town import SECRETS, STRANGER, Door, Town, at_work, open_files, town
from tests.support import until
from tollkeeper.servers.asterisk import agent as asterisk_agent
from tollkeeper.servers.asterisk import link as asterisk_link
from tollkeeper.servers.freeswitch import agent as freeswitch_agent
from tollkeeper.servers.freeswitch import socket as freeswitch_socket
from tollkeeper.servers.kamailio import agent as kamailio_agent
from tollkeeper.servers.kamailio import link as kamailio_link
from tollkeeper.telemetry import PeerMeter

DOORS = sorted({row.door for row in TABLE})
TRACES = (b"Traceback", b'File "', b".py", b"psycopg")


@pytest.fixture
async def place(
    database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Town]:
    caplog.set_level(logging.DEBUG)
    for module, name, value in (
        (asterisk_agent, "RETRY_SECONDS", (0.05,)),
        (asterisk_link, "CONNECT_SECONDS", 0.5),
        (freeswitch_agent, "LONGEST_WAIT", 0.05),
        (freeswitch_socket, "CONNECT_SECONDS", 0.5),
        (kamailio_agent, "RETRY_SECONDS", (0.05,)),
        (kamailio_link, "DONE_SECONDS", 0.5),
    ):
        monkeypatch.setattr(module, name, value)
    before = at_work()
    async with town(database_url, monkeypatch) as made:
        yield made
        await made.proven()
        seen = made.seen + repr(made.logs) + caplog.text
        for secret in (*SECRETS.values(), made.token):
            assert secret not in seen, "a secret was logged"
    await nothing_left(before)


async def say(door: Door, data: bytes, *, source: str = "127.0.0.1", until_: bytes = b"") -> bytes:
    """Send bytes to a door as they are; what is answered until ``until_`` is, or a moment passed."""
    loop = asyncio.get_running_loop()
    kind = socket.SOCK_STREAM if door.stream else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as own:
        own.setblocking(False)
        own.bind((source, 0))
        found = b""
        with suppress(OSError, TimeoutError):
            await loop.sock_connect(own, ("127.0.0.1", door.port))
            async with asyncio.timeout(5):
                await loop.sock_sendall(own, data)
            async with asyncio.timeout(3 if until_ else 0.03):
                while more := await loop.sock_recv(own, 65_536):
                    found += more
                    if until_ and until_ in found:
                        break
        return found


async def nothing_left(before: Counter[str]) -> None:
    """Wait until no more tasks run than before."""
    try:
        await until(lambda: at_work() <= before, seconds=5)
    except AssertionError:
        pytest.fail(f"tasks are left: {at_work() - before}")


async def test_what_is_bad_is_named_counted_logged_once_and_charged_to_nobody(place: Town) -> None:
    """And after each of them the next honest request is served, at every door."""
    for name in DOORS:
        await _rows_of(place, name)


async def _rows_of(place: Town, name: str) -> None:
    PeerMeter._made.clear()  # two doors of one protocol each log their own
    place.seen += repr(place.logs)
    place.logs.clear()
    door = place.doors[name]
    await place.unharmed(door, "nothing")
    tasks, files = at_work(), open_files()
    rows = [row for row in TABLE if row.door == name]
    for row in rows:
        await _one(place, door, row)
        await place.unharmed(door, row.name)
    for fault in {row.fault for row in rows if row.fault and row.fault != "stray_ack"}:
        lines = place.lines(fault, door.protocol)
        assert 1 <= len(lines) <= len({row.unnamed for row in rows if row.fault == fault}), lines
    await nothing_left(tasks)
    await until(lambda: open_files() <= files, what="no socket is left")


async def _one(place: Town, door: Door, row: Bad) -> None:
    source = STRANGER if row.stranger else "127.0.0.1"
    before = place.faults(door, row.fault, unknown=row.unnamed)
    answer = await say(door, row.bytes_for(place), source=source, until_=row.answer)
    assert not any(trace in answer for trace in TRACES), (row.name, answer)
    assert row.answer in answer, (row.name, answer)
    if row.fault:
        await until(
            lambda: place.faults(door, row.fault, unknown=row.unnamed) > before,
            seconds=3,
            what=f"{row.door}: {row.name} is counted as {row.fault}",
        )


async def test_a_switch_that_lies_is_left_and_tried_again(place: Town) -> None:
    """Instead of its first words, and in the middle of a connection."""
    for name in LIES:
        await _lies_of(place, name)


async def _lies_of(place: Town, name: str) -> None:
    door, liar = place.doors[name], place.liars[name]
    await place.unharmed(door, "nothing")
    for what, data, fault in LIES[name]:
        before = place.faults(door, fault)
        liar.lies.append(data)
        liar.drop()
        await until(
            lambda b=before, f=fault: place.faults(door, f) > b,  # type: ignore[misc]
            seconds=8,
            what=f"{name}: {what} is counted as {fault}",
        )
        await place.unharmed(door, what)
    before, tried = place.faults(door, "malformed"), liar.connections
    liar.say(AMID[name])
    await until(lambda: place.faults(door, "malformed") > before, what="it is malformed")
    await until(lambda: liar.connections > tried, what="it is connected to again")
    await place.unharmed(door, "in the middle")
    assert len(place.lines("malformed", door.protocol)) == 1


async def test_a_switch_that_does_not_take_our_secret_is_named(
    place: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong password is not "away": somebody has to mend it."""
    monkeypatch.setattr(asterisk_agent, "REFUSED_SECONDS", 0.05)
    for name, fake, attribute in (
        ("esl", place.freeswitch, "password"),
        ("ami", place.asterisk, "secret"),
        ("evapi", place.kamailio, "secret"),
    ):
        door = place.doors[name]
        right = getattr(fake, attribute)
        setattr(fake, attribute, "another one")
        place.liars[name].drop()
        await until(
            lambda d=door: place.faults(d, "wrong_secret") > 0,  # type: ignore[misc]
            what=f"{name} is counted as wrong_secret",
        )
        setattr(fake, attribute, right)
        await place.unharmed(door, "the right secret again")
