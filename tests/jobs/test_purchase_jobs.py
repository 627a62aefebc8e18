"""The jobs of orders at suppliers run by themselves, and end when they are told to."""

from __future__ import annotations

from decimal import Decimal

from tests.services.supplying import shop
from tests.support import until
from tollkeeper.jobs.purchases import PurchaseJobs
from tollkeeper.services.purchases import PurchaseFilter


async def test_an_order_comes_to_its_end_by_itself(database_url: str) -> None:
    """Nobody asks again; the supplier has finished in the meantime, and the money follows."""
    async with shop(database_url) as s:
        s.sky.state = "PROCESSING"
        made = await s.supplies.esims.order(party="acme", item="eu-5gb", request_id="e1")
        assert made.order.status == "ordered"
        for one in s.sky.orders.values():
            one["state"] = "COMPLETED"
        jobs = PurchaseJobs(s.again())
        jobs.start(tick=0.01)
        s.clock.forward(seconds=20)

        async def done() -> bool:
            (order,) = await s.supplies.purchases.orders(PurchaseFilter())
            return order.settled_at is not None

        await until(done, what="the order is settled")
        await jobs.stop()
        assert s.money() == (Decimal(9), Decimal(0))
