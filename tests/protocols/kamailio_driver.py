"""A real Kamailio, with SIPp at both ends, in the common scenarios."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from tests.protocols.driver import SLICE, Begun, Driver
from tests.protocols.house import House, add_peer
from tests.protocols.kamailio_host import Caller, Site, holding, missing
from tests.support import World, until
from tollkeeper.servers.kamailio.link import used_ms
from tollkeeper.wire.kamailio import evapi


class KamailioDriver(Driver):
    """One Kamailio and its gateway; each call is a SIPp of its own that waits for a signal to hang up."""

    name: ClassVar[str] = "kamailio"
    real_time: ClassVar[bool] = True
    keeps_calls: ClassVar[bool] = True

    def __init__(self, number: int = 1) -> None:
        super().__init__(number)
        self._site = Site()
        self._callers: dict[str, Caller] = {}
        self._opened = False

    @classmethod
    def missing(cls) -> str:
        """What is not installed."""
        lacking = missing()
        return f"not installed here: {lacking}" if lacking else ""

    async def open(self, house: House, world: World, trunk: str) -> None:  # noqa: ARG002
        """Start Kamailio and wait until Tollkeeper is connected to it."""
        await self._site.__aenter__()
        self._opened = True
        add_peer(world, self.switch, "kamailio", trunk=trunk, **self._site.peer(slice=SLICE))
        await self._connected()

    async def close(self) -> None:
        """End everything."""
        if self._opened:
            await self._site.__aexit__()

    async def begin(self, call: str, called: str) -> Begun:
        """Call by a SIPp of its own; it stays until it is told to hang up."""
        caller = self._site.call(call, holding(), ("caller", called))
        self._callers[call] = caller
        await until(
            lambda: (
                caller.call is not None
                and (bool(caller.call.refused) or "answered" in caller.moments())
            ),
            what="the call is answered or refused",
        )
        assert caller.call is not None
        if caller.call.refused:
            return Begun(allowed=False, code=str(caller.call.refused))
        await until(lambda: self._report(call, evapi.Started) is not None, what="its start is told")
        return Begun(allowed=True)

    async def talk(self, call: str, seconds: int) -> None:
        """Real seconds pass, counted from the answer."""
        begun = self._report(call, evapi.Started)
        assert begun is not None
        caller = self._callers[call]
        while caller.sipp.talked() < seconds:
            assert "cut" not in caller.moments(), (
                f"the call was cut after {caller.sipp.talked():.1f} s"
            )
            await asyncio.sleep(0.02)

    async def hang_up(self, call: str) -> int:
        """The caller says BYE, and Kamailio tells it."""
        caller = self._callers[call]
        caller.sipp.hang_up()
        await until(lambda: self._report(call, evapi.Stopped) is not None, what="its end is told")
        stop = self._report(call, evapi.Stopped)
        assert stop is not None
        used = used_ms(stop.answered, stop.at)
        assert used is not None
        return used

    async def lose_stop(self, call: str) -> None:
        """The call ends, and nothing of it reaches Tollkeeper."""
        caller = self._callers[call]
        assert caller.call is not None
        self._site.relay.held.add(caller.call.call_id)
        caller.sipp.hang_up()
        await until(lambda: "ended" in caller.moments(), what="the call has ended")

    async def ended(self, call: str, *, within: float) -> bool:
        """Wait until Kamailio ended it and told so."""
        caller = self._callers[call]
        await until(lambda: "cut" in caller.moments(), seconds=within, what="the call is cut")
        await until(
            lambda: bool(self._report(call, evapi.Stopped) or self._report(call, evapi.ByeSent)),
            what="its end is told",
        )
        return True

    async def repeat(self) -> None:
        """Kamailio's last message comes again."""
        last = next(m for m in reversed(self._site.relay.heard) if not isinstance(m, evapi.Done))
        count = len(self._site.relay.said)
        self._site.relay.repeat(last)
        await until(lambda: len(self._site.relay.said) > count, what="it was answered again")

    async def restart(self) -> None:
        """Killed without any order, and started again where it was."""
        await asyncio.to_thread(self._site.kamailio.kill)
        self._site.relay.said.clear()
        await asyncio.to_thread(self._site.kamailio.start)
        await self._connected()

    async def _connected(self) -> None:
        relay = self._site.relay
        relay.heard = [m for m in relay.heard if not isinstance(m, evapi.Done)]
        await until(
            lambda: any(isinstance(m, evapi.Done) and m.ok for m in relay.heard),
            what="Tollkeeper is connected",
        )

    def _report(self, call: str, kind: type[evapi.Report]) -> evapi.Report | None:
        seen = self._callers[call].call
        if seen is None:
            return None
        return next(
            (
                m
                for m in self._site.relay.heard
                if isinstance(m, kind) and m.call_id == seen.call_id
            ),
            None,
        )
