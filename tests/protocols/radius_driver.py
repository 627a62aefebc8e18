"""RADIUS for the common scenarios: a NAS that takes CoA and Disconnect, whose seconds only pass in words."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import Any

from tests.protocols.driver import SLICE, Begun, Driver
from tests.protocols.house import House, add_peer
from tests.protocols.radius_nas import Nas
from tests.support import World, free_port, until
from tollkeeper.wire.radius.attributes import Attributes, Type, Voice, integer, text
from tollkeeper.wire.radius.messages import Status
from tollkeeper.wire.radius.packet import Attribute, Code, Packet

SECRET = b"a long secret of this test"
ON_ITS_WAY = 5.0


@dataclass
class Call:
    """A call as the NAS knows it."""

    session_id: str
    called: str
    limit: int
    mark: bytes
    used: int = 0
    cut: bool = False


class RadiusDriver(Driver):
    """One NAS."""

    name = "radius"

    def __init__(self, number: int = 1) -> None:
        super().__init__(number)
        self._nas = Nas(SECRET, host=f"127.0.0.{number}", obey=self._obey)
        self._calls: dict[str, Call] = {}
        self._ids = itertools.count(1)

    def settings(self) -> dict[str, Any]:
        """Both listeners."""
        return {
            "radius_auth_listen": f"127.0.0.1:{free_port()}",
            "radius_acct_listen": f"127.0.0.1:{free_port()}",
        }

    async def open(self, house: House, world: World, trunk: str) -> None:
        """Open the sockets, add the peer and wait until it is known."""
        self._nas.auth = int(house.given["radius_auth_listen"].rpartition(":")[2])
        self._nas.acct = int(house.given["radius_acct_listen"].rpartition(":")[2])
        await self._nas.open()
        add_peer(
            world,
            self.switch,
            "radius",
            addresses=[self._nas.host],
            secret=SECRET.decode(),
            trunk=trunk,
            options={"slice": SLICE, "extend": "coa", "orders_port": self._nas.orders_port},
        )
        await until(lambda: house.board.book.named(self.switch, "radius") is not None)

    async def close(self) -> None:
        """Close the sockets."""
        self._nas.close()

    async def begin(self, call: str, called: str) -> Begun:
        """Access-Request, and Start if it is accepted."""
        session_id = f"{next(self._ids):08X}"
        exchange = await self._nas.ask(
            [
                text(Type.USER_NAME, "gw"),
                text(Type.CALLED_STATION_ID, called),
                text(Type.CALLING_STATION_ID, "12025550100"),
                text(Type.ACCT_SESSION_ID, session_id),
            ]
        )
        if exchange.packet.code != Code.ACCESS_ACCEPT:
            return Begun(allowed=False, code=exchange.seen.voice(Voice.RETURN_CODE))
        limit = exchange.seen.integer(Type.SESSION_TIMEOUT)
        assert limit is not None
        made = Call(session_id, called, limit, exchange.seen.raw(Type.CLASS) or b"")
        self._calls[call] = made
        await self._tell(made, Status.START)
        return Begun(allowed=True, granted=limit)

    async def talk(self, call: str, seconds: int) -> None:
        """An interim each second; at the limit a CoA must have come, else the call is cut."""
        up = self._calls[call]
        while up.used < seconds and not up.cut:
            if up.used >= up.limit and not await self._comes(lambda: up.used < up.limit):
                up.cut = True
                return
            up.used += 1
            await self._tell(up, Status.INTERIM)

    async def hang_up(self, call: str) -> int:
        """Stop."""
        up = self._calls.pop(call)
        await self._tell(up, Status.STOP)
        return up.used * 1000

    async def lose_stop(self, call: str) -> None:
        """The NAS forgets it."""
        del self._calls[call]

    async def ended(self, call: str, *, within: float) -> bool:
        """It goes on until the NAS's own limit, or our order."""
        del within
        up = self._calls[call]
        await self.talk(call, up.limit + 3600 if up.limit < 100 else up.limit)
        await self.hang_up(call)
        return up.cut

    async def repeat(self) -> None:
        """The same octets again get the same octets."""
        last = self._nas.last
        assert last is not None
        assert (await self._nas.again()).answer == last.answer

    async def restart(self) -> None:
        """Its calls are gone, and its ids begin again."""
        self._calls.clear()
        await self._nas.tell(Status.ON, [text(Type.ACCT_SESSION_ID, "00000000")])
        self._ids = itertools.count(1)

    async def _tell(self, up: Call, status: Status) -> None:
        about: list[Attribute] = [
            text(Type.USER_NAME, "gw"),
            text(Type.CALLED_STATION_ID, up.called),
            text(Type.ACCT_SESSION_ID, up.session_id),
            (Type.CLASS, up.mark),
        ]
        if status != Status.START:
            about.append(integer(Type.ACCT_SESSION_TIME, up.used))
        await self._nas.tell(status, about)

    def _obey(self, order: Packet) -> int | None:
        seen = Attributes(order.attributes)
        for up in self._calls.values():
            if up.session_id == seen.text(Type.ACCT_SESSION_ID):
                limit = seen.integer(Type.SESSION_TIMEOUT)
                if order.code == Code.DISCONNECT_REQUEST:
                    up.cut = True
                elif limit is not None:
                    up.limit = limit
                return None
        return 503

    async def _comes(self, condition: Any) -> bool:
        """Wait a moment for something that may not come."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ON_ITS_WAY / 5
        while not condition():
            if loop.time() > deadline:
                return False
            await asyncio.sleep(0.005)
        return True
