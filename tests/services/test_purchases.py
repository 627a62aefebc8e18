"""Orders at suppliers: the money follows what became of the order, whoever dies on the way."""

from __future__ import annotations

import asyncio
import copy
from decimal import Decimal
from typing import Any

import pytest
import structlog.testing

from tests.gateways.platform import SETTINGS
from tests.services.supplying import Died, Shop, add_supplier, shop
from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services.purchases import Purchase, PurchaseFilter, Purchases

NINE, NOTHING = Decimal(9), Decimal(0)


async def buy(purchases: Purchases, request_id: str = "r1", **changes: Any) -> Purchase:
    """Acme orders the eSIM for 9 as an item of the service esim."""
    wanted = {
        "party": "acme",
        "service": "esim",
        "item": "eu-5gb",
        "supplier": "sky",
        "called": "3005",
        "supplier_item": "EU5",
        "request_id": request_id,
        "actor": "test",
    }
    return await purchases.buy(**{**wanted, **changes})


async def the_order(s: Shop) -> Purchase:
    (found,) = await s.supplies.purchases.orders(PurchaseFilter())
    return found


def operations(**changes: Any) -> dict[str, Any]:
    """The supplier's operations, some of them changed; None: it has none."""
    made = copy.deepcopy(SETTINGS["operations"])
    for name, change in changes.items():
        if change is None:
            del made[name]
        else:
            made[name].update(change)
    return {"operations": made}


async def test_what_is_delivered_is_charged(database_url: str) -> None:
    """9 for one item, settled in one session, with the supplier's answer kept."""
    async with shop(database_url) as s:
        order = await buy(s.supplies.purchases)
        assert (order.status, order.charge, order.currency) == ("done", NINE, "USD")
        assert order.settled_at is not None
        assert order.answer["reference"] == "ref-0"
        assert s.money() == (NINE, NOTHING)
        assert s.sky.requests[0].body["product"] == "EU5"
        session = await s.parts.charging.session(f"purchases/{order.order_id}")
        assert session.ending.value == "settled"
        assert await s.clean()


async def test_while_the_supplier_works_the_money_is_held(database_url: str) -> None:
    async with shop(database_url) as s:
        s.sky.state = "PROCESSING"
        order = await buy(s.supplies.purchases)
        assert (order.status, order.charge) == ("ordered", None)
        assert s.money() == (NOTHING, NINE)
        for one in s.sky.orders.values():
            one["state"] = "COMPLETED"
        await s.jobs(times=2)
        assert (await the_order(s)).status == "done"
        assert s.money() == (NINE, NOTHING)
        assert len(s.sky.asked("POST", "/orders")) == 1


async def test_a_hold_lives_as_long_as_the_order(database_url: str) -> None:
    """Two hours of waiting; sessions of which nothing is heard would be closed after minutes."""
    async with shop(database_url, give_up_seconds=86_400) as s:
        s.sky.state = "PROCESSING"
        await buy(s.supplies.purchases)
        for _ in range(240):
            s.clock.forward(seconds=30)
            await s.supplies.purchases.keep_holds()
            await s.parts.timers.expire_due()
        assert s.money() == (NOTHING, NINE)
        for one in s.sky.orders.values():
            one["state"] = "COMPLETED"
        await s.jobs(times=1)
        assert s.money() == (NINE, NOTHING)
        assert s.world.sql("SELECT code FROM entry WHERE code = 'late'") == []
        assert await s.clean()


async def test_a_supplier_that_refuses_releases_the_money(database_url: str) -> None:
    async with shop(database_url) as s:
        s.sky.state = "REJECTED"
        order = await buy(s.supplies.purchases)
        assert (order.status, order.reason, order.detail) == (
            "refused",
            "supplier_refused",
            "out of stock",
        )
        assert order.charge == NOTHING
        assert s.money() == (NOTHING, NOTHING)
        assert await s.clean()


async def test_without_money_the_supplier_is_not_asked(database_url: str) -> None:
    async with shop(database_url, balance="8.99") as s:
        order = await buy(s.supplies.purchases)
        assert (order.status, order.reason) == ("refused", "insufficient_funds")
        assert order.settled_at is not None
        assert s.sky.requests == []
        assert s.money() == (NOTHING, NOTHING)


async def test_a_reseller_without_money_is_not_named_to_its_customer(database_url: str) -> None:
    """What acme sees is that it cannot be had; the operator sees whose money it was."""
    async with shop(database_url) as s:
        north = s.world.customer("north", balance="1", kind="reseller")
        s.world.sql("UPDATE party SET parent_id = %s WHERE code = 'acme'", north.id)
        await s.parts.directory.load()
        order = await buy(s.supplies.purchases)
        assert (order.status, order.reason) == ("refused", "upstream_refused")
        assert order.detail == f"insufficient_funds at party {north.id}"
        assert s.sky.requests == []
        s.world.top_up(north, "20")
        await s.parts.directory.load()
        assert (await buy(s.supplies.purchases, "r2")).status == "done"
        spent = s.world.sql("SELECT debited FROM wallet ORDER BY id")
        assert [row["debited"] for row in spent] == [NINE, NINE]
        assert await s.clean()


async def test_without_a_price_the_supplier_is_not_asked(database_url: str) -> None:
    async with shop(database_url) as s:
        order = await buy(s.supplies.purchases, called="77")
        assert (order.status, order.reason) == ("refused", "no_rate")
        assert s.sky.requests == []


async def test_an_order_that_was_taken_and_timed_out_is_charged_exactly_once(
    database_url: str,
) -> None:
    """The supplier has it, nobody heard; its status says so later."""
    async with shop(database_url) as s:
        s.sky.faults = ["take_and_hang"] * 3
        order = await buy(s.supplies.purchases)
        assert order.status == "unknown"
        assert s.money() == (NOTHING, NINE)
        await s.jobs()
        order = await the_order(s)
        assert (order.status, order.charge) == ("done", NINE)
        assert s.money() == (NINE, NOTHING)
        assert len(s.sky.orders) == 1
        assert await s.clean()


async def test_an_order_that_never_arrived_is_placed_by_the_job(database_url: str) -> None:
    """Its status is unknown to the supplier, so the same order is sent once more."""
    async with shop(database_url) as s:
        s.sky.faults = ["drop"] * 3
        assert (await buy(s.supplies.purchases)).status == "unknown"
        assert s.sky.orders == {}
        await s.jobs()
        assert (await the_order(s)).status == "done"
        assert s.money() == (NINE, NOTHING)


async def test_without_a_status_the_same_order_is_repeated(database_url: str) -> None:
    async with shop(database_url, **operations(status=None)) as s:
        s.sky.faults = ["take_and_drop"] * 4
        await buy(s.supplies.purchases)
        await s.jobs()
        assert (await the_order(s)).status == "done"
        keys = {request.headers["idempotency-key"] for request in s.sky.requests}
        assert keys == set(s.sky.orders)
        assert s.money() == (NINE, NOTHING)


async def test_who_is_not_there_at_all_is_a_refusal_at_once(database_url: str) -> None:
    async with shop(database_url) as s:
        add_supplier(s.world, "http://127.0.0.1:1")
        order = await buy(s.supplies.purchases)
        assert (order.status, order.reason) == ("refused", "supplier_unreachable")
        assert s.money() == (NOTHING, NOTHING)


async def test_what_does_not_come_to_an_end_is_cancelled(database_url: str) -> None:
    async with shop(database_url) as s:
        s.sky.state = "PROCESSING"
        await buy(s.supplies.purchases)
        await s.jobs(times=20)
        order = await the_order(s)
        assert (order.status, order.reason) == ("cancelled", "given_up")
        assert [o["state"] for o in s.sky.orders.values()] == ["CANCELLED"]
        assert s.money() == (NOTHING, NOTHING)
        assert await s.clean()


async def test_what_cannot_be_cancelled_is_for_a_human_and_stays_held(database_url: str) -> None:
    """Listed as unknown, with an alarm; nobody asks any more; the human's word moves the money."""
    async with shop(database_url) as s:
        s.sky.state, s.sky.can_cancel = "PROCESSING", False
        await buy(s.supplies.purchases)
        with structlog.testing.capture_logs() as logs:
            await s.jobs(times=20)
        assert [log["event"] for log in logs if log["log_level"] == "error"] == [
            "purchase.needs_human"
        ]
        (order,) = await s.supplies.purchases.orders(PurchaseFilter(status="unknown"))
        assert order.next_at is None
        assert "could not be cancelled: too late" in order.detail
        asked = len(s.sky.requests)
        await s.jobs(times=5)
        assert len(s.sky.requests) == asked
        assert s.money() == (NOTHING, NINE)
        resolved = await s.supplies.purchases.resolve(order.order_id, "refused", actor="me")
        assert (resolved.status, resolved.detail) == ("refused", "said by hand")
        assert s.money() == (NOTHING, NOTHING)
        with pytest.raises(Conflict):
            await s.supplies.purchases.resolve(order.order_id, "done", actor="me")
        assert s.world.one("SELECT count(*) FROM audit WHERE action = 'purchase.resolve'") == 1


async def test_a_human_may_say_that_it_was_delivered_or_let_it_be_asked_again(
    database_url: str,
) -> None:
    async with shop(
        database_url, **operations(status=None, cancel=None, order={"idempotent": False})
    ) as s:
        s.sky.faults = ["take_and_drop"]
        await buy(s.supplies.purchases)
        await s.jobs(times=2)
        order = await the_order(s)
        assert "neither be asked nor ordered again" in order.detail
        purchases = s.supplies.purchases
        with pytest.raises(InvalidInput, match="no ICCID"):
            await purchases.resolve(order.order_id, "done", actor="me")
        assert (await the_order(s)).status == "unknown"
        add_supplier(s.world, s.sky.url)
        await purchases.resolve(order.order_id, "ask", actor="me")
        await purchases.advance()
        assert (await the_order(s)).status == "done"
        assert s.money() == (NINE, NOTHING)


async def test_an_answer_without_what_was_bought_is_for_a_human(database_url: str) -> None:
    """It says done, but where the ICCID should be there is none: charged only when somebody knows."""
    async with shop(database_url, **operations(order={"answer": {"reference": "/id"}})) as s:
        order = await buy(s.supplies.purchases)
        assert (order.status, order.next_at) == ("unknown", None)
        assert "no ICCID" in order.detail
        done = await s.supplies.purchases.resolve(
            order.order_id, "done", actor="me", answer={"iccid": "8901000000000000999"}
        )
        assert (done.status, done.charge) == ("done", NINE)
        assert s.money() == (NINE, NOTHING)


async def test_the_same_request_is_one_order_and_another_one_under_its_name_none(
    database_url: str,
) -> None:
    async with shop(database_url) as s:
        first, second = await asyncio.gather(buy(s.supplies.purchases), buy(s.again().purchases))
        assert first.order_id == second.order_id
        third = await buy(s.supplies.purchases)
        assert (third.order_id, third.status) == (first.order_id, "done")
        with pytest.raises(Conflict):
            await buy(s.supplies.purchases, called="31", item="payg")
        assert s.money() == (NINE, NOTHING)
        assert len(s.sky.orders) == 1


async def test_eight_orders_at_once_on_money_for_four(database_url: str) -> None:
    async with shop(database_url, balance="40") as s:
        orders = await asyncio.gather(*(buy(s.supplies.purchases, f"r{n}") for n in range(8)))
        assert sorted(order.status for order in orders) == ["done"] * 4 + ["refused"] * 4
        assert len(s.sky.orders) == 4
        assert s.money() == (Decimal(36), NOTHING)
        assert await s.clean()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"party": "nobody"}, NotFound),
        ({"supplier": "nobody"}, NotFound),
        ({"called": "EU"}, InvalidInput),
        ({"request_id": "a b"}, InvalidInput),
        ({"item": " "}, InvalidInput),
    ],
)
async def test_what_cannot_be_ordered_leaves_nothing_behind(
    database_url: str, changes: dict[str, Any], error: type[Exception]
) -> None:
    async with shop(database_url) as s:
        with pytest.raises(error):
            await buy(s.supplies.purchases, **changes)
        assert await s.supplies.purchases.orders(PurchaseFilter()) == []


async def test_a_disabled_supplier_takes_no_orders(database_url: str) -> None:
    async with shop(database_url) as s:
        s.world.sql("UPDATE supplier SET enabled = false")
        with pytest.raises(InvalidInput, match="takes no orders"):
            await buy(s.supplies.purchases)


# --- a process dies --------------------------------------------------------------------------------

STEPS = (
    "written",
    "authorised",
    "held",
    "asking order",
    "answered order",
    "done",
    "stopped",
)


def dying(purchases: Purchases, step: str) -> list[str]:
    """Let the process end right after a step; the list tells when it did."""
    deaths: list[str] = []

    def passed(at: str, _: int) -> None:
        if at == step:
            deaths.append(at)
            raise Died

    purchases.ordering.passed = passed  # type: ignore[method-assign]
    return deaths


@pytest.mark.parametrize("step", STEPS)
async def test_a_death_after_any_step_loses_and_doubles_nothing(
    database_url: str, step: str
) -> None:
    """Another process's job brings the order to its end: delivered once, charged once."""
    async with shop(database_url) as s:
        dying(s.supplies.purchases, step)
        with pytest.raises(Died):
            await buy(s.supplies.purchases)
        await s.jobs()
        order = await the_order(s)
        assert (order.status, order.charge) == ("done", NINE), order
        assert order.settled_at is not None
        assert s.money() == (NINE, NOTHING)
        assert len(s.sky.orders) == 1
        assert s.world.one("SELECT count(*) FROM esim_profile") == 1
        assert await s.clean()


@pytest.mark.parametrize("step", STEPS)
async def test_the_repeat_of_a_request_goes_on_where_its_process_died(
    database_url: str, step: str
) -> None:
    async with shop(database_url) as s:
        dying(s.supplies.purchases, step)
        with pytest.raises(Died):
            await buy(s.supplies.purchases)
        s.clock.forward(seconds=100)
        order = await buy(s.again().purchases)
        assert (order.status, order.charge) == ("done", NINE)
        assert s.money() == (NINE, NOTHING)
        assert len(s.sky.orders) == 1


@pytest.mark.parametrize("step", [*STEPS[:3], "refused", "stopped"])
async def test_a_death_on_the_way_to_a_refusal_releases_all(database_url: str, step: str) -> None:
    async with shop(database_url) as s:
        s.sky.state = "REJECTED"
        dying(s.supplies.purchases, step)
        with pytest.raises(Died):
            await buy(s.supplies.purchases)
        await s.jobs()
        order = await the_order(s)
        assert (order.status, order.reason) == ("refused", "supplier_refused")
        assert s.money() == (NOTHING, NOTHING)
        assert await s.clean()


@pytest.mark.parametrize(
    "step", ["waiting", "asking status", "answered status", "cancelled", "asking cancel"]
)
async def test_a_death_while_asking_on_changes_nothing(database_url: str, step: str) -> None:
    """The order hangs until it is given up; one process falls over that step again and again."""
    async with shop(database_url) as s:
        s.sky.state = "PROCESSING"
        await buy(s.supplies.purchases)
        mortal = s.again()
        deaths = dying(mortal.purchases, step)
        for _ in range(25):
            s.clock.forward(seconds=40)
            await s.supplies.purchases.keep_holds()
            await mortal.purchases.advance()
        assert deaths
        await s.jobs(times=25)
        assert (await the_order(s)).status == "cancelled"
        assert s.money() == (NOTHING, NOTHING)
        assert await s.clean()


@pytest.mark.parametrize("step", ["written", "authorised", "held"])
async def test_an_order_that_nobody_came_back_to_in_time_is_not_placed(
    database_url: str, step: str
) -> None:
    """An hour later its hold has expired; the supplier was never asked, so it is refused."""
    async with shop(database_url) as s:
        dying(s.supplies.purchases, step)
        with pytest.raises(Died):
            await buy(s.supplies.purchases)
        s.clock.forward(hours=1)
        await s.parts.timers.expire_due()
        await s.jobs(times=2)
        order = await the_order(s)
        if step == "written":
            # Nothing was ever held, so it begins like a new one.
            assert (order.status, s.money()) == ("done", (NINE, NOTHING))
        else:
            assert (order.status, order.reason) == ("refused", "expired")
            assert s.sky.orders == {}
            assert s.money() == (NOTHING, NOTHING)
        assert await s.clean()


@pytest.mark.parametrize("hours", [1, 80])
async def test_an_order_whose_hold_was_lost_is_charged_late_but_once(
    database_url: str, hours: int
) -> None:
    """All processes were down for hours or days while the supplier delivered."""
    async with shop(database_url) as s:
        dying(s.supplies.purchases, "answered order")
        with pytest.raises(Died):
            await buy(s.supplies.purchases)
        s.clock.forward(hours=1)
        await s.parts.timers.expire_due()
        assert s.money() == (NOTHING, NOTHING)
        s.clock.forward(hours=hours - 1)
        await s.jobs(times=2)
        assert (await the_order(s)).status == "done"
        assert s.money() == (NINE, NOTHING)
        assert [row["code"] for row in s.world.sql("SELECT code FROM entry WHERE amount = 9")] == [
            "late"
        ]
        assert await s.clean()


async def test_two_processes_never_work_on_one_order(database_url: str) -> None:
    """Both look at the same moment; the supplier is asked once."""
    async with shop(database_url) as s:
        s.sky.state = "PROCESSING"
        await buy(s.supplies.purchases)
        s.clock.forward(seconds=40)
        await asyncio.gather(s.again().purchases.advance(), s.again().purchases.advance())
        assert len(s.sky.asked("GET", "/orders/")) == 1


async def test_what_a_supplier_has_is_searched_and_given_back(database_url: str) -> None:
    """A number is found, bought and released: what the inventory of numbers works with."""
    async with shop(database_url) as s:
        purchases = s.supplies.purchases
        found = await purchases.search(supplier="sky", query="4930")
        assert found == {"numbers": ["4930100000", "4930100001"]}
        assert s.sky.requests[0].query == {"q": "4930"}
        order = await buy(purchases, item="4930100000", called="3005", number="4930100000")
        assert s.sky.requests[1].body["number"] == "4930100000"
        assert await purchases.release(order) == "done"
        assert await purchases.release(order) == "done"
        assert s.sky.released == [order.order_id] * 2
        s.sky.faults = [422]
        with pytest.raises(Conflict, match="refuses to release"):
            await purchases.release(order)
        with pytest.raises(NotFound):
            await purchases.search(supplier="nobody")
