"""A Tollkeeper of this test: its parts and its network on the test's database, begun anew at will."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from tests.support import Customer, World, settings
from tollkeeper.core.records import Policy
from tollkeeper.servers.network import Network
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.store.peers import Peer
from tollkeeper.wiring import Runtime, open_network, open_runtime

QUICK = Policy(answer_window=4, grace=1)
"""Sessions that nobody closes are closed within seconds."""


class House:
    """The server of a test. ``given`` are settings, such as ``radius_auth_listen``."""

    def __init__(self, url: str, *, policy: Policy = QUICK, **given: Any) -> None:
        self.url = url
        self.given = given
        self._policy = policy
        self._stack = AsyncExitStack()
        self._parts: Runtime | None = None
        self._network: Network | None = None

    @property
    def network(self) -> Network:
        """The listeners and agents that run now."""
        assert self._network is not None, "the house is not open"
        return self._network

    @property
    def parts(self) -> Runtime:
        """The parts that run now."""
        assert self._parts is not None, "the house is not open"
        return self._parts

    @property
    def board(self) -> Switchboard:
        """The switchboard that runs now."""
        return self.parts.board

    async def start(self) -> None:
        """Begin."""
        made = settings(**self.given)
        self._stack = AsyncExitStack()
        self._parts = await self._stack.enter_async_context(
            open_runtime(self.url, made, policy=self._policy, jobs=True)
        )
        self._network = await self._stack.enter_async_context(open_network(self._parts, made))

    async def stop(self) -> None:
        """End."""
        self._parts = self._network = None
        await self._stack.aclose()

    async def restart(self) -> None:
        """End and begin anew; connections are closed meanwhile."""
        await self.stop()
        await self.start()


def add_peer(world: World, code: str, kind: str, **columns: Any) -> Peer:
    """A peer, put there by SQL; ``columns`` as in the table (addresses, secret, options ...)."""
    from psycopg.types.json import Jsonb

    columns.setdefault("switch", code)
    columns["options"] = Jsonb(columns.get("options", {}))
    names = "".join(f", {name}" for name in columns)
    marks = ", %s" * len(columns)
    (row,) = world.sql(
        f"INSERT INTO peer (code, kind{names}) VALUES (%s, %s{marks}) RETURNING id, switch, addresses,"
        " secret, dialect, trunk, timezone, on_failure, risk_seconds, options, enabled",
        code,
        kind,
        *columns.values(),
    )
    world.notify(f"peer:{row['id']}")
    return Peer(code=code, kind=kind, **{**row, "addresses": tuple(row["addresses"])})


def add_trunk(
    world: World, code: str, party: Customer, *, switch: str = "", addresses: tuple[str, ...] = ()
) -> None:
    """A trunk of a customer: by addresses, or without any to be named as a peer's ``trunk``."""
    id_ = world.one(
        "INSERT INTO trunk (code, direction, party_id, switch, addresses) VALUES (%s, 'in', %s, %s, %s)"
        " RETURNING id",
        code,
        party.id,
        switch,
        list(addresses),
    )
    world.notify(f"trunk:{id_}")


def top_up(world: World, customer: Customer, amount: str) -> None:
    """Money received, and every running process told, as the service does."""
    world.top_up(customer, amount)
    world.notify(f"party:{customer.id}")
