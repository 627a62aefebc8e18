"""The fake FreeSWITCH as a switch of the common scenarios: its agent is the real one."""

from __future__ import annotations

import contextlib
from typing import ClassVar

from tests.protocols.driver import SLICE, Begun, Driver
from tests.protocols.freeswitch_events import Call
from tests.protocols.freeswitch_fake import FakeFreeSwitch
from tests.protocols.house import House, add_peer
from tests.support import World, until

PASSWORD = "between us alone"


class FreeswitchDriver(Driver):
    """One switch; what it says twice is every event of a call."""

    name: ClassVar[str] = "freeswitch"
    real_time: ClassVar[bool] = True

    def __init__(self, number: int = 1) -> None:
        super().__init__(number)
        self.fake = FakeFreeSwitch(PASSWORD)
        self.calls: dict[str, Call] = {}
        self._last: tuple[str, Call] | None = None

    async def open(self, house: House, world: World, trunk: str) -> None:  # noqa: ARG002
        """Start the switch and wait until the agent is connected to it."""
        await self.fake.start()
        options = {"slice": SLICE, "connect": f"127.0.0.1:{self.fake.port}", "reconcile": 1}
        add_peer(world, self.switch, "freeswitch", secret=PASSWORD, trunk=trunk, options=options)
        await self._connected()

    async def close(self) -> None:
        """End the switch."""
        await self.fake.stop()

    async def begin(self, call: str, called: str) -> Begun:
        """The dialplan parks the call; it is sent on and answered, or ended."""
        made = self.calls[call] = self.fake.dial(called)
        self._last = ("CHANNEL_PARK", made)
        await until(lambda: bool(made.transferred) or not made.live, what="the call was decided on")
        if not made.live:
            return Begun(allowed=False, code=made.cause)
        self.fake.answer(made)
        self._last = ("CHANNEL_ANSWER", made)
        return Begun(allowed=True, granted=int(made.variables["tollkeeper_granted"]))

    async def talk(self, call: str, seconds: int) -> None:
        """Wait until so long after the answer, or until the call was ended."""
        made = self.calls[call]
        until_then = made.answered + seconds * 10**6
        await until(lambda: not made.live or self.fake.now() >= until_then, seconds=seconds + 5)

    async def hang_up(self, call: str) -> int:
        """The caller hangs up."""
        await self._connected()
        made = self.calls[call]
        assert made.live, f"the call was ended already: {made.cause}"
        self.fake.hang_up(made)
        self._last = ("CHANNEL_HANGUP_COMPLETE", made)
        return (made.ended - made.answered + 500) // 1000

    async def lose_stop(self, call: str) -> None:
        """The event of the end does not come."""
        self.fake.lose = {"CHANNEL_HANGUP_COMPLETE"}
        self.fake.hang_up(self.calls[call])
        self.fake.lose = set()

    async def ended(self, call: str, *, within: float) -> bool:
        """Wait for the end of the call."""
        made = self.calls[call]
        with contextlib.suppress(AssertionError):
            await until(lambda: not made.live, seconds=within)
        return not made.live

    async def repeat(self) -> None:
        """The last event of a call comes once more."""
        assert self._last is not None
        self.fake.emit(*self._last)

    async def restart(self) -> None:
        """The switch crashes and comes back."""
        await self.fake.restart()
        await self._connected()

    async def _connected(self) -> None:
        await until(lambda: self.fake.connected > 0, seconds=20, what="the agent is connected")
