"""What the RADIUS tests share: a house that listens, one switch, one customer."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tests.protocols.house import House, add_peer, add_trunk
from tests.protocols.radius_nas import Exchange, Nas
from tests.support import UK_FIXED, Customer, World, free_port, until
from tollkeeper.core.trunks import Trace
from tollkeeper.store.peers import Peer
from tollkeeper.telemetry import REGISTRY
from tollkeeper.wire.radius.attributes import Type, integer, text
from tollkeeper.wire.radius.messages import Status
from tollkeeper.wire.radius.packet import Attribute
from tollkeeper.wire.radius.passwords import secret_hash

SECRET = "testing123"


@dataclass
class Set:
    """A running server, a peer "gw" on the trunk of acme (100 USD, a cent a second), and its NAS."""

    world: World
    house: House
    acme: Customer
    peer: Peer
    nas: Nas
    balance: Decimal = Decimal(100)

    def call(self, session_id: str = "A1", called: str = UK_FIXED, **more: str) -> list[Attribute]:
        """The attributes of a call."""
        found = [
            text(Type.USER_NAME, more.pop("user", "gw")),
            text(Type.CALLED_STATION_ID, called),
            text(Type.CALLING_STATION_ID, "12025550100"),
        ]
        return [*found, text(Type.ACCT_SESSION_ID, session_id)] if session_id else found

    async def report(
        self, status: Status, session_id: str = "A1", seconds: int | None = None, *more: Attribute
    ) -> Exchange:
        """An Accounting-Request and its answer."""
        about = self.call(session_id)
        if seconds is not None:
            about.append(integer(Type.ACCT_SESSION_TIME, seconds))
        return await self.nas.tell(status, [*about, *more])

    def sessions(self) -> list[dict[str, Any]]:
        """Sessions that were closed, in the order of their ending."""
        return self.world.sql(
            "SELECT key, ending, charge, (body->>'used_ms')::bigint AS used_ms, body->>'cause' AS cause"
            " FROM closed_session WHERE starts_with(key, %s) ORDER BY closed_at, key",
            f"{self.peer.switch}/",
        )

    def charges(self) -> dict[str, Decimal]:
        """What each call was charged, by the switch's id."""
        return {row["key"].partition("/")[2]: row["charge"] for row in self.sessions()}

    def up(self) -> list[str]:
        """The ids of open sessions."""
        rows = self.world.sql(
            "SELECT key FROM live_session WHERE starts_with(key, %s) ORDER BY key",
            f"{self.peer.switch}/",
        )
        return [row["key"].partition("/")[2] for row in rows]

    def later(self, seconds: int) -> None:
        """From now on the protocol's clock says so much more; that of charging goes on as it was."""
        ahead = timedelta(seconds=seconds)
        self.house.board.clock = lambda: datetime.now(UTC) + ahead

    def spent(self) -> Decimal:
        """What acme has paid for usage in all."""
        return self.balance - self.world.wallet(self.acme).available

    def faults(self, fault: str, peer: str = "gw") -> float:
        """How often something was wrong."""
        labels = {"peer": peer, "protocol": "radius", "fault": fault}
        return REGISTRY.get_sample_value("tollkeeper_peer_faults_total", labels) or 0.0

    def credential(self, username: str, realm: str, password: str) -> None:
        """A user of acme."""
        id_ = self.world.one(
            "INSERT INTO credential (username, realm, ha1, party_id) VALUES (%s, %s, %s, %s)"
            " RETURNING id",
            username,
            realm,
            secret_hash(username, realm, password),
            self.acme.id,
        )
        self.world.notify(f"credential:{id_}")

    async def options(self, **options: Any) -> None:
        """Set the peer's options; they hold when this returns."""
        from psycopg.types.json import Jsonb

        self.world.sql("UPDATE peer SET options = %s WHERE id = %s", Jsonb(options), self.peer.id)
        await self.changed(lambda peer: peer.options == options)

    async def column(self, name: str, value: Any) -> None:
        """Set a column of the peer."""
        self.world.sql(f"UPDATE peer SET {name} = %s WHERE id = %s", value, self.peer.id)
        await self.changed(lambda peer: getattr(peer, name) == value)

    async def changed(self, condition: Any) -> None:
        """Tell the house of a change and wait until it knows."""
        self.world.notify(f"peer:{self.peer.id}")
        await until(lambda: condition(self.house.board.book.peers["gw"]))


@asynccontextmanager
async def radius_set(
    url: str, *, balance: str = "100", host: str = "127.0.0.1", **more: Any
) -> AsyncIterator[Set]:
    """The server on free ports, and one switch; ``more`` are settings."""
    async with AsyncExitStack() as stack:
        world = stack.enter_context(World(url))
        acme = world.customer("acme", balance=balance)
        add_trunk(world, "acme-in", acme)
        peer = add_peer(
            world, "gw", "radius", addresses=["127.0.0.1"], secret=SECRET, trunk="acme-in"
        )
        auth, acct = free_port(), free_port()
        given = {
            "radius_auth_listen": f"{host}:{auth}",
            "radius_acct_listen": f"{host}:{acct}",
            **more,
        }
        house = House(url, **given)
        await house.start()
        stack.push_async_callback(house.stop)
        nas = Nas(SECRET.encode(), auth, acct)
        await nas.open()
        stack.callback(nas.close)
        yield Set(world, house, acme, peer, nas, Decimal(balance))


_numbers = itertools.count(1)


@asynccontextmanager
async def next_set(made: Set, *, balance: str = "100") -> AsyncIterator[Set]:
    """The same server for another test: another switch and customer, no options, nothing charged yet."""
    number, world = next(_numbers), made.world
    code, clock = f"acme-{number}", made.house.board.clock
    acme = world.customer(code, balance=balance)
    add_trunk(world, f"{code}-in", acme)
    world.notify(f"party:{acme.id}")
    world.sql(
        "UPDATE peer SET switch = %s, trunk = %s, options = '{}', dialect = '' WHERE id = %s",
        f"gw-{number}",
        f"{code}-in",
        made.peer.id,
    )
    peer = replace(made.peer, switch=f"gw-{number}", trunk=f"{code}-in", options={}, dialect="")
    mark = integer(Type.NAS_PORT, number)
    nas = Nas(made.nas.secret, made.nas.auth, made.nas.acct, marks=(mark,))
    await nas.open()
    again = replace(made, acme=acme, peer=peer, nas=nas, balance=Decimal(balance))
    board = made.house.board
    try:
        await again.changed(lambda known: known.switch == peer.switch)
        await until(
            lambda: (
                board.book.trunk_of(peer, Trace()) is not None and board.party_code(acme.id) == code
            )
        )
        yield again
    finally:
        board.clock = clock
        nas.close()
