"""Asterisk in the common scenarios: the fake stands in, there is no package of the real one."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from tests.protocols.asterisk_fake import Call, FakeAsterisk
from tests.protocols.driver import SLICE, Begun, Driver
from tests.protocols.house import House, add_peer
from tests.support import World, free_port, until


class AsteriskDriver(Driver):
    """A fake Asterisk with FastAGI and an agent at its manager interface."""

    name: ClassVar[str] = "asterisk"
    real_time: ClassVar[bool] = True

    def __init__(self, number: int = 1) -> None:
        super().__init__(number)
        self._calls: dict[str, Call] = {}
        self._fake: FakeAsterisk | None = None

    @property
    def fake(self) -> FakeAsterisk:
        """The switch."""
        assert self._fake is not None
        return self._fake

    def settings(self) -> dict[str, Any]:
        """A port for FastAGI."""
        return {"agi_listen": f"127.0.0.1:{free_port()}"}

    async def open(self, house: House, world: World, trunk: str) -> None:
        """The switch, its peer, and the agent logged in."""
        port = int(str(house.given["agi_listen"]).rpartition(":")[2])
        address = f"127.0.0.{self.number}"
        self._fake = FakeAsterisk(port, address=address)
        await self.fake.start()
        options = {"slice": SLICE, "connect": f"127.0.0.1:{self.fake.port}"}
        add_peer(
            world, self.switch, "asterisk", addresses=[address], trunk=trunk,
            secret=self.fake.secret, options=options,
        )  # fmt: skip
        await until(lambda: self.fake.logins > 0, what="the agent is logged in")

    async def close(self) -> None:
        """End the switch."""
        if self._fake is not None:
            await self._fake.stop()

    async def begin(self, call: str, called: str) -> Begun:
        """Dial; if allowed, answer and wait until the agent has set the limit."""
        made = self._calls[call] = await self.fake.dial(called)
        told = made.variables
        if told.get("TK_RESULT") != "allow":
            return Begun(False, code=told.get("TK_REASON", ""))
        self.fake.answer(made)
        await until(lambda: bool(made.limits) or not made.up, what="the limit is set")
        return Begun(True, int(told["TK_LIMIT"]))

    async def talk(self, call: str, seconds: int) -> None:
        """Let time pass."""
        answered = self._calls[call].answered
        assert answered is not None
        await asyncio.sleep(answered + seconds - asyncio.get_running_loop().time())

    async def hang_up(self, call: str) -> int:
        """End it, with extension h."""
        return await self.fake.hang_up(self._calls[call])

    async def lose_stop(self, call: str) -> None:
        """Its channel is gone, without an event and without extension h."""
        self.fake.vanish(self._calls[call])

    async def ended(self, call: str, *, within: float) -> bool:
        """Wait for the channel's end and its extension h."""
        try:
            async with asyncio.timeout(within):
                await self._calls[call].told.wait()
        except TimeoutError:
            return False
        return True

    async def repeat(self) -> None:
        """The last script and the last event again."""
        await self.fake.repeat()

    async def restart(self) -> None:
        """Crash and come back; the agent finds it again."""
        logins = self.fake.logins
        await self.fake.restart()
        await until(lambda: self.fake.logins > logins, what="the agent is logged in again")
