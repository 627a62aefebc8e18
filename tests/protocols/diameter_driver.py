"""A Diameter gateway that makes calls: CCR-I at the beginning, CCR-U when its grant is used, CCR-T.

It obeys the server: Final-Unit-Indication and a refused update end the call, a RAR makes it ask again,
an ASR ends it. Seconds only pass as numbers.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from tests.protocols.diameter_client import Client
from tests.protocols.driver import SLICE, Begun, Driver
from tests.protocols.house import House, add_peer
from tests.support import World, free_port, until
from tollkeeper.wire.diameter.base import SessionRequest
from tollkeeper.wire.diameter.codes import Command, Kind
from tollkeeper.wire.diameter.credit import Control, CreditAnswer, CreditRequest, Units
from tollkeeper.wire.diameter.service import ServiceInformation

GROUP = 100
TOP_UP_SECONDS = 3.0
"""So long a call that was told its end waits for a RAR, in its last second."""


@dataclass
class Up:
    """A call: ``talked`` seconds so far, ``reported`` of them, ``granted`` in all."""

    session: str
    called: str
    number: int = 0
    talked: int = 0
    reported: int = 0
    granted: int = 0
    final: bool = False
    aborted: bool = False
    over: bool = False
    renewed: asyncio.Event = field(default_factory=asyncio.Event)


class DiameterDriver(Driver):
    """One gateway."""

    name = "diameter"
    ended_by_us = True

    def __init__(self, number: int = 1) -> None:
        super().__init__(number)
        self._calls: dict[str, Up] = {}
        self._state = 1_700_000_000
        self._last: CreditRequest | None = None
        self._ends = 7_000_000 * number
        self._client: Client | None = None
        self._house: House | None = None

    def settings(self) -> dict[str, Any]:
        """Where the house listens."""
        return {
            "diameter_listen": f"127.0.0.1:{free_port()}",
            "diameter_host": "ocs.example",
            "diameter_realm": "example",
        }

    @property
    def _host(self) -> str:
        return f"gw{self.number}.example"

    async def open(self, house: House, world: World, trunk: str) -> None:
        """Be a peer and say hello."""
        self._house = house
        add_peer(
            world, self.switch, "diameter", addresses=["127.0.0.1"], trunk=trunk,
            options={"slice": SLICE, "origin_host": self._host},
        )  # fmt: skip
        await until(
            lambda: house.board.book.named(self.switch, "diameter") is not None, what="peer known"
        )
        await self._connect()

    async def _connect(self) -> None:
        assert self._house is not None
        await self._cut()
        host, _, port = self._house.given["diameter_listen"].rpartition(":")
        self._client = Client(self._host, heard=self._heard)
        await self._client.connect((host, int(port)))
        answer = await self._client.hello(state_id=self._state)
        assert answer.result == 2001, answer

    async def _cut(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def close(self) -> None:
        """Cut the connection."""
        await self._cut()

    async def begin(self, call: str, called: str) -> Begun:
        """CCR-I; it counts as answered from then on."""
        up = self._calls[call] = Up(f"{self._host};{self._state};{call}", called)
        answer = await self._say(up, Kind.INITIAL)
        if answer.result != 2001:
            up.over = True
            return Begun(allowed=False, code=str(answer.result))
        return Begun(allowed=True, granted=up.granted)

    async def talk(self, call: str, seconds: int) -> None:
        """CCR-U whenever the grant is used, CCR-T when there is no more."""
        up = self._calls[call]
        while up.talked < seconds and not up.over:
            up.talked += 1
            if up.final and up.talked == up.granted:
                # The end was told; in the last second the client may hear that there is more.
                await self._wait_for_more(up)
            if up.aborted or (up.final and up.talked >= up.granted):
                await self._finish(up)
            elif up.talked >= up.granted:
                await self._renew(up)

    async def _wait_for_more(self, up: Up) -> None:
        try:
            await asyncio.wait_for(up.renewed.wait(), TOP_UP_SECONDS)
        except TimeoutError:
            return

    async def _renew(self, up: Up) -> None:
        answer = await self._say(up, Kind.UPDATE)
        if answer.result != 2001 or answer.controls[0].result != 2001:
            await self._finish(up)

    async def _finish(self, up: Up) -> None:
        if not up.over:
            up.over = True
            answer = await self._say(up, Kind.TERMINATION)
            assert answer.result == 2001, answer

    async def hang_up(self, call: str) -> int:
        """CCR-T."""
        up = self._calls[call]
        await self._finish(up)
        return up.talked * 1000

    async def lose_stop(self, call: str) -> None:
        """Nothing is said any more."""
        self._calls[call].over = True

    async def ended(self, call: str, *, within: float) -> bool:
        """Talk on until the server's answers end the call."""
        up = self._calls[call]
        await self.talk(call, up.talked + int(within))
        return up.over

    async def repeat(self) -> None:
        """The last request with the T flag: its answer must be the same, but for the hop-by-hop id."""
        assert self._client is not None
        assert self._last is not None
        before = self._client.frames[-1]
        assert before[0] == "server"
        await self._client.credit(self._last, end_to_end=self._ends, again=True)
        after = self._client.frames[-1]
        assert after[1][20:] == before[1][20:], "a repetition gets the original answer"

    async def restart(self) -> None:
        """Connect again with a newer Origin-State-Id, without calls."""
        self._state += 100
        self._calls.clear()
        await self._connect()

    # --- how -------------------------------------------------------------------------------------

    async def _say(self, up: Up, kind: Kind) -> CreditAnswer:
        """Report what was talked since the last time, and ask for more but at the end."""
        used = () if kind is Kind.INITIAL else (Units(time=up.talked - up.reported),)
        asked = None if kind is Kind.TERMINATION else Units(time=30)
        if self._client is None or self._client.closed.is_set():
            await self._reconnect()
        assert self._client is not None
        self._last = self._client.request(
            up.session, kind, up.number,
            subscribers=((0, "12025550100"),),
            multiple=True,
            controls=(Control(rating_group=GROUP, requested=asked, used=used),),
            information=ServiceInformation(calling="tel:+12025550100", called=f"tel:+{up.called}"),
        )  # fmt: skip
        up.number += 1
        up.reported = up.talked
        self._ends += 1
        answer = await self._client.credit(self._last, end_to_end=self._ends)
        line = answer.controls[0] if answer.controls else None
        if line is not None and line.granted is not None:
            up.granted = up.reported + (line.granted.time or 0)
            up.final = line.final
        return answer

    async def _reconnect(self) -> None:
        """The server was away: try until it is there."""

        async def once() -> bool:
            try:
                await self._connect()
            except OSError:
                return False
            return True

        deadline = asyncio.get_running_loop().time() + 10
        while not await once():
            assert asyncio.get_running_loop().time() < deadline, "the server is not back"
            await asyncio.sleep(0.05)

    async def _heard(self, wish: SessionRequest) -> int:
        """A RAR makes the call ask again at once (2002: it will); an ASR ends it."""
        for up in self._calls.values():
            if up.session == wish.session_id and not up.over:
                if wish.command == Command.ABORT_SESSION:
                    up.aborted = True
                    return 2001
                task = asyncio.create_task(self._again(up))
                task.add_done_callback(lambda done: done.exception())
                return 2002
        return 5002

    async def _again(self, up: Up) -> None:
        await self._renew(up)
        up.renewed.set()
