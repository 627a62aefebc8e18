"""The SMPP gateway dies at each step of a message: none is ever sent free, no charge without one stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.protocols.smpp_driver import Esme, Scene, scene
from tests.support import Node, free_port, until
from tollkeeper.servers.smpp.batches import Batches
from tollkeeper.servers.smpp.journal import Journal
from tollkeeper.servers.smpp.link import Link
from tollkeeper.servers.smpp.submit import Submissions
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.wire.smpp import pdu as smpp

CENTS = Decimal("0.10")
REFERENCE = ((smpp.TLV_USER_REFERENCE, b"\x00\x07"),)


@pytest.fixture
async def sms(database_url: str) -> AsyncIterator[Scene]:
    async with scene(database_url) as made:
        yield made


# --- at each step, in this process ---------------------------------------------------------------


class Death:
    """Stops a method for ever, before or after it is done, and lets nothing be tidied up afterwards."""

    def __init__(self, patch: pytest.MonkeyPatch, owner: type, name: str, when: str) -> None:
        self.reached = asyncio.Event()
        self._patch = patch
        right = getattr(owner, name)
        death = self

        async def stops(self_: Any, *args: Any, **more: Any) -> Any:
            found = await right(self_, *args, **more) if when == "after" else None
            death.reached.set()
            await asyncio.Event().wait()
            return found

        def stops_asking(self_: Any, command: int, *args: Any) -> Any:
            found = right(self_, command, *args)
            if command != smpp.SUBMIT_SM:
                return found
            death.reached.set()
            return asyncio.get_running_loop().create_future()

        self._patch.setattr(owner, name, stops_asking if owner is Link else stops)

    def dead(self) -> None:
        """A killed process writes nothing more."""
        self._patch.setattr(Batches, "add", lambda *_: asyncio.get_running_loop().create_future())


STEPS = {
    "charged": (Switchboard, "charge", "after", 0, 0),
    "to_be_noted": (Journal, "begin", "before", 0, 0),
    "noted": (Journal, "begin", "after", 0, 1),
    "sent": (Link, "request", "after", 1, 1),
    "answered": (Journal, "accepted", "before", 1, 1),
    "written": (Journal, "accepted", "after", 1, 1),
    "refused": (Submissions, "_take_back", "before", 1, 1),
    "given_back": (Submissions, "_take_back", "after", 1, 0),
}
"""Where it dies; then what the SMSC has seen, and what stays charged after the next start."""
COPIED = ("charged", "noted", "written")
"""Where the sender's copy, by its reference, meets what is left in another way."""


@pytest.mark.parametrize(
    ("step", "named"), [*((one, False) for one in STEPS), *((one, True) for one in COPIED)]
)
async def test_a_death_at_each_step(
    sms: Scene, monkeypatch: pytest.MonkeyPatch, step: str, named: bool
) -> None:
    """What the SMSC may have stays charged; what it surely has not is given back once."""
    owner, name, when, seen, charged = STEPS[step]
    tlvs = REFERENCE if named else ()
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    if step in {"refused", "given_back"}:
        sms.smsc.statuses = [smpp.SUBMIT_FAILED]
    with monkeypatch.context() as patch:
        death = Death(patch, owner, name, when)
        sent = asyncio.create_task(esme.submit(tlvs=tlvs))
        await asyncio.wait_for(death.reached.wait(), 5)
        await until(lambda: len(sms.smsc.messages) == seen)
        death.dead()
        patch.setattr("tollkeeper.servers.smpp.gateway.DRAIN_SECONDS", 0.0)
        patch.setattr("tollkeeper.servers.smpp.batches.PATIENCE_SECONDS", 0.1)
        await sms.house.stop()
    await asyncio.gather(sent, return_exceptions=True)
    await sms.house.start()
    await sms.connected()
    await until(lambda: sms.spent == charged * CENTS)
    await sms.house.restart()
    await sms.connected()
    again = await sms.esme()
    assert (await again.submit(tlvs=tlvs))[0] == smpp.OK
    is_copy = named and step == "written"
    assert len(sms.smsc.messages) == seen + (not is_copy)
    assert sms.spent == (charged + (not is_copy)) * CENTS
    await sms.proven()


async def test_what_is_given_back_by_the_next_process_is_not_sent_by_the_one_before(
    sms: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was only slow: the row of the message says that its charge is gone."""
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    reached, go_on = asyncio.Event(), asyncio.Event()
    right = Journal.begin

    async def slow(self: Journal, message: Any) -> bool:
        reached.set()
        await go_on.wait()
        return await right(self, message)

    monkeypatch.setattr(Journal, "begin", slow)
    sent = asyncio.create_task(esme.submit())
    await asyncio.wait_for(reached.wait(), 5)
    submissions = sms.gateway._submissions
    submissions._began = sms.house.board.clock()
    (options,) = sms.gateway._esmes.values()
    assert await submissions.give_back_unknown(options) == 1
    go_on.set()
    assert await sent == (smpp.SYSTEM_ERROR, "")
    assert (sms.smsc.messages, sms.spent) == ([], 0)
    await sms.proven()


async def test_a_charge_that_was_answered_too_late_is_given_back_while_we_run(
    sms: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender was told that nothing can be charged now, but it was."""
    monkeypatch.setattr("tollkeeper.servers.smpp.gateway.SWEEP_SECONDS", 0.1)
    monkeypatch.setattr("tollkeeper.servers.smpp.submit.DOUBT_SECONDS", 0)
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    right = Switchboard.charge

    async def late(self: Switchboard, *args: Any, **more: Any) -> Any:
        from dataclasses import replace

        from tollkeeper.core.reasons import Reason
        from tollkeeper.core.records import Outcome

        done = await right(self, *args, **more)
        return replace(done, outcome=Outcome.REFUSED, reason=Reason.BUSY)

    with monkeypatch.context() as patch:
        patch.setattr(Switchboard, "charge", late)
        assert await esme.submit() == (smpp.SYSTEM_ERROR, "")
    assert sms.smsc.messages == []
    await until(lambda: sms.spent == 0)
    await until(lambda: sms.gateway._submissions._doubt is None)
    assert (await esme.submit())[0] == smpp.OK
    assert sms.spent == CENTS
    await sms.proven()


async def test_an_answer_that_comes_too_late_still_tells_whether_it_was_sent(
    sms: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tollkeeper.servers.smpp.link.TICK_SECONDS", 0.05)
    sms.set_up(smsc={"response_seconds": 1})
    await sms.start()
    esme = await sms.esme()
    sms.smsc.silent = True
    found = await asyncio.gather(*[esme.submit() for _ in range(2)])
    assert found == [(smpp.SYSTEM_ERROR, "")] * 2
    assert sms.spent == 2 * CENTS
    (peer,) = sms.smsc._peers
    asked = [smpp.decode(data) for way, data in peer.trace if way == "in"]
    taken, refused = [one for one in asked if one.command == smpp.SUBMIT_SM]
    peer.answer(taken, smpp.OK, smpp.id_body("777"))
    peer.answer(refused, smpp.SUBMIT_FAILED)
    await until(lambda: sms.spent == CENTS)
    assert (await sms.smsc.receipt("777", "UNDELIV", sms.smsc.messages[0])).status == smpp.OK
    assert sms.spent == 0
    await sms.proven()


async def test_what_was_never_heard_of_is_given_back_only_where_that_is_set(sms: Scene) -> None:
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    sms.smsc.silent = True
    waiting = asyncio.create_task(esme.submit())
    await until(lambda: len(sms.smsc.messages) == 1)
    sms.smsc.drop()
    await waiting
    sms.world.sql("UPDATE sms_message SET at = at - interval '49 hours'")
    await sms.house.restart()
    await sms.connected()
    assert sms.spent == CENTS
    sms.world.sql(
        "UPDATE peer SET options = options || '{\"unheard_hours\": 48}' WHERE code = 'smsc'"
    )
    await sms.house.restart()
    await until(lambda: sms.spent == 0)
    await sms.proven()


async def test_who_takes_over_the_listener_gives_back_what_was_charged_meanwhile(
    sms: Scene,
) -> None:
    """It was started long before the process that died, and waited."""
    sms.set_up()
    await sms.start()
    esme = await sms.esme()
    assert (await esme.submit())[0] == smpp.OK
    waiting = Submissions(sms.house.board)
    (peer,) = sms.house.board.book.of_kind("esme")
    await sms.house.parts.charging.charge_event(
        switch=peer.switch,
        event_id=sms.gateway._submissions._new_id(),
        party="acme",
        called="447700900123",
        segments=1,
    )
    assert sms.spent == 2 * CENTS
    await waiting.start()
    try:
        (options,) = sms.gateway._esmes.values()
        assert await waiting.give_back_unknown(options) == 1
    finally:
        await waiting.stop()
    assert sms.spent == CENTS


# --- kill -9 of a real server --------------------------------------------------------------------


class Killed:
    """A real server with an SMPP listener, and the ESME that finds it again."""

    def __init__(self, url: str, log: Path) -> None:
        self.port = free_port()
        self.node = Node(url, log)
        self.node._environment |= {
            "TOLLKEEPER_SMPP_LISTEN": f"127.0.0.1:{self.port}",
            "TOLLKEEPER_LOG_LEVEL": "info",
        }

    async def start(self, sms: Scene) -> Esme:
        """Start it and bind, as soon as it is bound to the SMSC."""
        binds = len(sms.smsc.binds)
        self.node.start()
        await until(lambda: len(sms.smsc.binds) > binds, seconds=30)
        while True:
            esme = Esme(self.port)
            try:
                if await esme.bind() == smpp.OK:
                    return esme
            except OSError:
                await esme.close()
                await asyncio.sleep(0.05)

    async def kill(self, sms: Scene, esme: Esme) -> None:
        """Die, as by kill -9."""
        self.node.kill()
        await until(lambda: sms.smsc.bound == 0)
        await esme.close()


async def test_a_server_that_is_killed_sends_nothing_free_and_keeps_no_charge_for_nothing(
    sms: Scene, tmp_path: Path
) -> None:
    """Killed while one message is at the SMSC and another waits for its place; then under load."""
    sms.set_up(balance="100", window=400, smsc={"window": 1})
    server = Killed(sms.house.url, tmp_path / "serve.log")
    try:
        esme = await server.start(sms)
        sms.smsc.silent = True
        lost = [asyncio.create_task(esme.submit()) for _ in range(2)]
        await until(lambda: sms.spent == 2 * CENTS and len(sms.smsc.messages) == 1)
        await server.kill(sms, esme)
        await asyncio.gather(*lost, return_exceptions=True)
        sms.smsc.silent = False
        sms.world.sql("UPDATE peer SET options = options || '{\"window\": 50}' WHERE code = 'smsc'")
        esme = await server.start(sms)
        await until(lambda: sms.spent == CENTS, what="what was not passed on is given back")
        assert (await sms.smsc.receipt("999", "UNDELIV", sms.smsc.messages[0])).status == smpp.OK
        assert sms.spent == 0
        lost = [asyncio.create_task(esme.submit()) for _ in range(300)]
        await until(lambda: len(sms.smsc.messages) > 100)
        await server.kill(sms, esme)
        await asyncio.gather(*lost, return_exceptions=True)
        esme = await server.start(sms)
        noted = "SELECT count(*) FROM sms_message WHERE state IN ('accepted', 'sending')"
        await until(lambda: sms.spent == sms.world.one(noted) * CENTS, what="no charge is left")
        sent = len(sms.smsc.messages) - 1
        accepted = sms.world.one("SELECT count(*) FROM sms_message WHERE state = 'accepted'")
        assert accepted <= sent <= sms.world.one(noted)
        # What is charged and was not sent was noted in the very moment of the death: a window at most.
        assert sms.world.one(noted) - sent <= 50
        await esme.close()
    finally:
        server.node.kill()
