"""What is written down of messages, before and after the SMSC has them.

A row is written before a message leaves. So a charge without a row was surely not passed on and is given
back, and one with a row may have been and is not. Who writes the row first decides: the process that is
about to send, or the one that gives the charges of its dead predecessor back; never both.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from tollkeeper.servers.smpp.batches import Batches
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.store.peers import Peer
from tollkeeper.store.sms_messages import (
    ACCEPTED,
    SENDING,
    WITHDRAWN,
    SmsMessage,
    accept_messages,
    begin_messages,
    claim_messages,
    find_unheard,
    read_last_charge,
    read_messages,
    read_overdue,
    read_unknown_fate,
    withdraw_messages,
)

LOOK_BACK = timedelta(days=6)
"""The last charge before a start is looked for so far back: shorter than messages are kept."""
BEFORE_LAST = timedelta(hours=1)
"""What was under way when a process died is not older than its last charge by more."""
_PAGE = 500


@dataclass(slots=True)
class _Step:
    """One thing to write down: that a message is ``sending``, ``accepted`` or ``withdrawn``."""

    what: str
    message: SmsMessage
    ours: bool = False


class Journal:
    """Writes down the messages of a process, many in one transaction."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board
        self._steps: Batches[_Step] = Batches("messages", self._write)
        self.on_the_way: dict[tuple[str, str], SmsMessage] = {}
        """Messages whose SMSC's id is being written down, by SMSC and id: a receipt may be quicker."""
        self.under_way: set[str] = set()
        """Ids of messages that are worked on here."""

    def start(self) -> None:
        """Begin."""
        self._steps.start()

    async def stop(self) -> None:
        """Write down what is to be, then end."""
        await self._steps.stop()

    async def begin(self, message: SmsMessage) -> bool:
        """Write down that a message is about to leave; False: it must not."""
        step = _Step(SENDING, message)
        return await self._steps.add(step) and step.ours

    async def accepted(self, message: SmsMessage, upstream_id: str, *, wants: int) -> bool:
        """Note that its SMSC took it; False: that is not durable yet."""
        taken = replace(message, upstream_id=upstream_id, wants=wants)
        self.on_the_way[taken.upstream, upstream_id] = taken
        return await self._steps.add(_Step(ACCEPTED, taken))

    def withdraw(self, message: SmsMessage) -> asyncio.Future[bool]:
        """Note that it surely was not sent; hardly anybody has to wait for that."""
        return self._steps.add(_Step(WITHDRAWN, message))

    async def read(self, ids: Iterable[str]) -> list[SmsMessage]:
        """Messages by their ids."""
        async with self._board.database.read() as connection:
            return await read_messages(connection, ids)

    async def adopt(self, upstream: str, upstream_id: str, *, source: str, dest: str) -> bool:
        """Find the message of an SMSC's word on one that we do not know by its id.

        It is the oldest one between these numbers of which it is not known whether it was sent; now it
        is. Its sender was told an error and hears no more of it.
        """
        async with self._board.database.read() as connection:
            found = await find_unheard(
                connection, upstream, source=source, dest=dest, besides=self.under_way
            )
        return found is not None and await self.accepted(found, upstream_id, wants=0)

    async def lost(self, peer: Peer, *, first: str, last: str) -> AsyncIterator[list[str]]:
        """Pages of ids of charges, from ``first`` to ``last``, that never pay for a message.

        They were not passed on, and whoever was about to do it finds that it may not.
        """
        day = _time_of(first).date() - timedelta(days=1)
        while True:
            async with self._board.database.read() as connection:
                ids = await read_unknown_fate(
                    connection, peer.switch, day=day, first=first, last=last, limit=_PAGE
                )
            if ids:
                async with self._board.database.write() as connection:
                    claimed = await claim_messages(
                        connection,
                        peer=peer.code,
                        switch=peer.switch,
                        ids=ids,
                        at=self._board.clock(),
                    )
                yield claimed
            if len(ids) < _PAGE:
                return
            first = ids[-1] + "0"

    async def begin_of_doubt(self, peer: Peer, last: str) -> str:
        """From which id on the process before us may have left charges without a message, up to ``last``."""
        now = _time_of(last)
        async with self._board.database.read() as connection:
            found = await read_last_charge(
                connection,
                peer.switch,
                day=(now - LOOK_BACK).date(),
                first=id_time(now - LOOK_BACK),
                last=last,
            )
        if found is None:
            return last
        return f"{max(int(found[:11], 16) - int(BEFORE_LAST.total_seconds()) * 1000, 0):011x}"

    async def overdue(self, upstream: str, before: datetime) -> list[SmsMessage]:
        """A page of messages of which, so long after, it is still not known whether an SMSC has them."""
        async with self._board.database.read() as connection:
            return await read_overdue(connection, upstream, before, limit=_PAGE)

    async def _write(self, steps: list[_Step]) -> None:
        def of(what: str) -> list[SmsMessage]:
            return [step.message for step in steps if step.what == what]

        sending, accepted, withdrawn = of(SENDING), of(ACCEPTED), of(WITHDRAWN)
        ours: set[str] = set()
        async with self._board.database.write() as connection:
            if sending:
                ours = await begin_messages(connection, sending)
            if accepted:
                await accept_messages(connection, accepted)
            if withdrawn:
                await withdraw_messages(connection, withdrawn)
        for step in steps:
            step.ours = step.message.id in ours
        for one in accepted:
            self.on_the_way.pop((one.upstream, one.upstream_id), None)


def id_time(at: datetime) -> str:
    """The time that ids begin with: milliseconds, 11 hexadecimal digits."""
    return f"{int(at.timestamp() * 1000):011x}"


def _time_of(id_: str) -> datetime:
    return datetime.fromtimestamp(int(id_[:11], 16) / 1000, UTC)
