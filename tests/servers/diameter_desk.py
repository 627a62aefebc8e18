"""A running house with a customer whose gateway charges by Diameter."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from psycopg.types.json import Jsonb

from tests.protocols.diameter_client import Client
from tests.protocols.house import House, add_peer, add_trunk
from tests.support import UK_FIXED, Customer, Row, World, free_port, tariff, until
from tollkeeper.core.records import Policy
from tollkeeper.services.verify import verify
from tollkeeper.wire.diameter.codes import Kind
from tollkeeper.wire.diameter.credit import CreditAnswer
from tollkeeper.wire.diameter.service import ServiceInformation

MB = 10**6
DATA = "8.32251@3gpp.org"
SMS = "32274@3gpp.org"


@dataclass
class Desk:
    """The house, its customer acme and the peer gw; ``address`` is where it listens."""

    world: World
    house: House
    acme: Customer
    address: tuple[str, int]
    stack: AsyncExitStack
    numbers: dict[str, int] = field(default_factory=dict)

    async def client(self, host: str = "gw.example", **more: Any) -> Client:
        """A gateway that said hello."""
        client = Client(host, **more)
        self.stack.push_async_callback(client.close)
        await client.connect(self.address)
        answer = await client.hello()
        assert answer.result == 2001
        assert (answer.origin_host, answer.origin_realm) == ("ocs.example", "example")
        return client

    async def say(self, client: Client, session: str, kind: Kind, **more: Any) -> CreditAnswer:
        """The next request of a session, about a call to a fixed number unless said otherwise."""
        number = self.numbers.get(session, 0)
        self.numbers[session] = number + 1
        values: dict[str, Any] = {
            "subscribers": ((0, "12025550100"),),
            "information": ServiceInformation(called=f"tel:+{UK_FIXED}"),
        } | more
        return await client.credit(client.request(f"gw.example;{session}", kind, number, **values))

    def balance(self) -> Decimal:
        """What the customer has."""
        return self.world.wallet(self.acme).balance

    def held(self) -> Decimal:
        """What is held of it."""
        return self.world.wallet(self.acme).held

    async def set_peer(self, **columns: Any) -> None:
        """Change the gateway's row, and wait until it is known."""
        for name, value in columns.items():
            given = Jsonb(value) if isinstance(value, dict) else value
            self.world.sql(f"UPDATE peer SET {name} = %s WHERE code = 'gw'", given)
        self.world.notify("peer:1")
        book = self.house.board
        await until(lambda: all(getattr(book.book.peers["gw"], k) == v for k, v in columns.items()))

    async def proven(self) -> None:
        """Nothing is open or held, and the books are right."""
        assert self.world.one("SELECT count(*) FROM live_session") == 0
        assert self.world.wallet(self.acme).held == 0
        report = await verify(self.house.parts.database)
        assert report.clean, report.findings


PATIENT = Policy(answer_window=30, grace=30)


async def open_desk(
    url: str,
    stack: AsyncExitStack,
    *,
    policy: Policy = PATIENT,
    options: dict[str, Any] | None = None,
    **given: Any,
) -> Desk:
    """Voice at a cent a second, data at a cent a megabyte, messages at five cents; ten dollars."""
    world = stack.enter_context(World(url))
    data = world.card("data", [Row("", "Home", tariff("0.01", 1000, 1000))], service="data", per=MB)
    sms = world.card("sms", [Row("44", "UK", tariff("0.05"))], service="sms", per=1)
    acme = world.customer("acme", balance="10", plan=world.plan("all", world.card_id, data, sms))
    add_trunk(world, "acme-in", acme)
    add_peer(
        world, "gw", "diameter", addresses=["127.0.0.1"], trunk="acme-in",
        options={"origin_host": "gw.example", "slice": 60, **(options or {})},
    )  # fmt: skip
    port = free_port()
    house = House(
        url,
        policy=policy,
        diameter_listen=f"127.0.0.1:{port}",
        diameter_host="ocs.example",
        diameter_realm="example",
        **given,
    )
    await house.start()
    stack.push_async_callback(house.stop)
    return Desk(world, house, acme, ("127.0.0.1", port), stack)
