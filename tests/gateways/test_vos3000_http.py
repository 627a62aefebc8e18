"""VOS3000's web interface: accounts follow wallets exactly and once, calls are ended and no other ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocols.house import House, add_peer
from tests.protocols.vos3000_fake import FakeVos, Money
from tests.support import UK_FIXED, Customer, World, runtime, until
from tollkeeper.gateways.vos3000 import HttpVos, VosUnknown
from tollkeeper.services.balance_push import SURE_AFTER, BalancePush
from tollkeeper.store.db import Database
from tollkeeper.store.peers import Peer
from tollkeeper.wire import vos3000 as wire


@pytest.fixture
async def fake() -> AsyncIterator[FakeVos]:
    """A platform with one account."""
    async with FakeVos() as made:
        made.accounts["1001"] = Money(Decimal(0))
        yield made


@pytest.fixture
async def gateway(fake: FakeVos) -> AsyncIterator[HttpVos]:
    """The client of it."""
    made = HttpVos(f"http://127.0.0.1:{fake.port}")
    yield made
    await made.close()


class Pushing:
    """A customer, its account on the platform, and rounds at a time of the test's own."""

    def __init__(
        self, world: World, acme: Customer, peer: Peer, database: Database, gateway: HttpVos
    ):
        self.world, self.acme = world, acme
        self.now = datetime.now(UTC)
        self.push = BalancePush(database, gateway, peer, lambda: self.now)

    def states(self) -> list[str]:
        """What became of all payments."""
        rows = self.world.sql("SELECT status FROM balance_push ORDER BY id")
        return [row["status"] for row in rows]


def vos_peer(world: World, fake: FakeVos, **options: Any) -> Peer:
    """A peer whose account 1001 is acme's."""
    rows = [{"account": "1001", "party": "acme"}]
    given = {"connect": f"127.0.0.1:{fake.port}", "currency": "USD", "push": "available"}
    return add_peer(world, "vos", "vos3000", options={**given, "accounts": rows, **options})


@pytest.fixture
async def pushing(database_url: str, fake: FakeVos, gateway: HttpVos) -> AsyncIterator[Pushing]:
    """Acme has 25.12345678; its account there has nothing yet."""
    with World(database_url) as world:
        acme = world.customer("acme", balance="25.12345678")
        peer = vos_peer(world, fake)
        async with runtime(database_url) as parts:
            yield Pushing(world, acme, peer, parts.database, gateway)


# --- the interface -------------------------------------------------------------------------------


async def test_money_crosses_the_interface_digit_by_digit(fake: FakeVos, gateway: HttpVos) -> None:
    """No float is made of it on the way there or back."""
    fake.accounts["1001"] = Money(Decimal("0.1"), Decimal("1000000.0001"))
    await gateway.pay("1001", Decimal("0.2"), "one")
    await gateway.pay("1001", Decimal("-0.0001"), "two")
    (account,) = await gateway.accounts(["1001", "nobody"])
    assert account.money == Decimal("0.2999")
    assert account.spendable == Decimal("1000000.3000")
    assert fake.operations("Pay")[0]["money"] == Decimal("0.2")


@pytest.mark.parametrize("fault", ["lose_request", "lose_answer", "nonsense"])
async def test_no_answer_is_no_answer(fake: FakeVos, gateway: HttpVos, fault: str) -> None:
    """Whether it was done is not known then."""
    getattr(fake, fault).add("Pay")
    with pytest.raises(VosUnknown):
        await gateway.pay("1001", Decimal(1), "x")


async def test_a_refusal_has_its_code_and_reason(fake: FakeVos, gateway: HttpVos) -> None:
    """As the manual's example has it."""
    fake.refuse["GetCustomer"] = -10007
    with pytest.raises(wire.VosRefused, match="-10007: operation failed"):
        await gateway.accounts(["1001"])


@given(st.binary(max_size=300))
def test_any_answer_is_read_or_refused(data: bytes) -> None:
    """Nothing but the two errors is raised."""
    for before in (b"", b'{"retCode":0,"infoCustomers":[{"money":', b'{"retCode":'):
        try:
            answer = wire.read_answer(before + data)
            for read in (wire.accounts_of, wire.payments_of, wire.calls_of):
                read(answer)
        except (wire.MalformedVos, wire.VosRefused):
            continue


@pytest.mark.parametrize(
    "text",
    [
        "[]", "null", "{}", '{"retCode":true}', '{"retCode":"0"}', '{"retCode":0,"infoCustomers":1}',
        '{"retCode":0,"infoCustomers":[1]}', '{"retCode":0,"infoCustomers":[{"money":"1"}]}',
        '{"retCode":0,"infoCustomers":[{"money":1e400,"limitMoney":0}]}',
        '{"retCode":0,"infoCustomers":[{"money":NaN,"limitMoney":0}]}',
        '{"retCode":0,"infoCustomers":[{"money":true,"limitMoney":0}]}', "[" * 5000,
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused(text: str) -> None:
    """By one error."""
    with pytest.raises(wire.MalformedVos):
        wire.accounts_of(wire.read_answer(text.encode()))


# --- accounts follow wallets ---------------------------------------------------------------------


async def test_an_account_is_brought_to_what_the_wallet_has(
    pushing: Pushing, fake: FakeVos
) -> None:
    """By one payment, never more than there is; the next round finds nothing to do."""
    report = await pushing.push.round()
    assert (report.paid, report.same) == (1, 0)
    assert fake.accounts["1001"].money == Decimal("25.1234")
    assert (await pushing.push.round()).same == 1
    assert len(fake.operations("Pay")) == 1
    assert pushing.states() == ["done"]


async def test_less_money_is_taken_back_and_a_limit_there_counts(
    pushing: Pushing, fake: FakeVos
) -> None:
    """What may be spent is money and limit together."""
    fake.accounts["1001"] = Money(Decimal(40), Decimal(10))
    await pushing.push.round()
    assert fake.accounts["1001"].money == Decimal("15.1234")


async def test_who_is_suspended_here_has_nothing_to_spend_there(
    pushing: Pushing, fake: FakeVos
) -> None:
    """A debt stays a debt, money waits here."""
    await pushing.push.round()
    pushing.world.sql("UPDATE party SET status = 'suspended' WHERE id = %s", pushing.acme.id)
    await pushing.push.round()
    assert fake.accounts["1001"].money == 0


async def test_a_lost_answer_does_not_pay_twice(pushing: Pushing, fake: FakeVos) -> None:
    """The payment was made: the history says so, and the next round goes on from there."""
    fake.lose_answer = {"Pay"}
    assert (await pushing.push.round()).unknown == 1
    fake.lose_answer = set()
    pushing.world.top_up(pushing.acme, "10")
    assert (await pushing.push.round()).paid == 1
    assert [body["money"] for body in fake.operations("Pay")] == [Decimal("25.1234"), 10]
    assert fake.accounts["1001"].money == Decimal("35.1234")
    assert pushing.states() == ["done", "done"]


async def test_a_payment_that_never_arrived_is_made_when_that_is_certain(
    pushing: Pushing, fake: FakeVos
) -> None:
    """Before, nothing more is paid: the request may still be on its way."""
    fake.lose_request = {"Pay"}
    assert (await pushing.push.round()).unknown == 1
    fake.lose_request = set()
    assert (await pushing.push.round()).unknown == 1
    assert fake.accounts["1001"].money == 0
    pushing.now += SURE_AFTER + timedelta(seconds=1)
    assert (await pushing.push.round()).paid == 1
    assert fake.accounts["1001"].money == Decimal("25.1234")
    assert pushing.states() == ["failed", "done"]


@pytest.mark.parametrize("operation", ["GetPayHistory", "GetCustomer"])
async def test_while_the_platform_cannot_be_asked_nothing_is_paid_again(
    pushing: Pushing, fake: FakeVos, operation: str
) -> None:
    """However long that lasts."""
    fake.lose_answer = {"Pay"}
    await pushing.push.round()
    fake.lose_answer = set()
    fake.lose_request = {operation, "GetPayHistory"}
    for _ in range(10):
        pushing.now += SURE_AFTER
        assert (await pushing.push.round()).unknown == 1
    fake.lose_request = set()
    await pushing.push.round()
    assert len(fake.operations("Pay")) == 1
    assert fake.accounts["1001"].money == Decimal("25.1234")


async def test_an_account_that_is_not_there_is_named(pushing: Pushing, fake: FakeVos) -> None:
    """And the others go on."""
    del fake.accounts["1001"]
    assert (await pushing.push.round()).missing == ("1001",)
    assert fake.operations("Pay") == []


# --- the network as a whole ----------------------------------------------------------------------


async def test_money_that_changes_here_is_there_within_seconds(
    database_url: str, fake: FakeVos
) -> None:
    """The agent hears of it; nobody waits for its next round."""
    with World(database_url) as world:
        acme = world.customer("acme", balance="5")
        vos_peer(world, fake, push_seconds=3600)
        house = House(database_url)
        await house.start()
        try:
            await until(lambda: fake.accounts["1001"].money == 5, what="the first round")
            world.top_up(acme, "7.5")
            world.notify(f"party:{acme.id}")
            await until(lambda: fake.accounts["1001"].money == Decimal("12.5"), what="the change")
        finally:
            await house.stop()


async def test_a_kill_request_ends_this_call_and_no_other(database_url: str, fake: FakeVos) -> None:
    """Two calls are up there, and one has the id of an old session of ours."""
    with World(database_url) as world:
        world.customer("acme", balance="5")
        vos_peer(world, fake, push="")
        house = House(database_url)
        await house.start()
        try:
            charging = house.parts.charging
            for call_id in ("77", "78"):
                await charging.authorise(
                    switch="vos",
                    session_id=call_id,
                    party="acme",
                    called=UK_FIXED,
                    caller="4912345678",
                )
            fake.calls = {77: ("4912345678", UK_FIXED), 78: ("4912345678", "4930111222")}
            await until(lambda: house.board.knows("vos"), what="the peer is known")
            await charging.kill(switch="vos", session_id="77", why="killed")
            await until(lambda: 77 not in fake.calls, what="the call is ended")
            await charging.kill(switch="vos", session_id="78", why="killed")
            await until(
                lambda: (
                    world.one(
                        "SELECT count(*) FROM outbox WHERE kind = 'session.kill' AND done_at IS NULL"
                    )
                    == 0
                ),
                what="both requests are delivered",
            )
            assert list(fake.calls) == [78]
            assert [body["callIds"] for body in fake.operations("DisconnectCurrentCall")] == [[77]]
        finally:
            await house.stop()
