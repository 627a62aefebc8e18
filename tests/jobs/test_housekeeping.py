"""What nobody needs any more is deleted, and what somebody may ask for stays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support import Customer, World, runtime

NOW = datetime.now(UTC)
OLD, RECENT = NOW - timedelta(days=31), NOW - timedelta(days=29)
SOON = NOW + timedelta(hours=1)


class House:
    """A world with rows of all kinds."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.acme: Customer = world.customer()
        self.supplier: int = world.one(
            "INSERT INTO supplier (code, kind, base_url, settings) VALUES ('sky', 'esim', 'http://x', '{}')"
            " RETURNING id"
        )

    def put(self, table: str, **values: Any) -> int:
        """Insert a row; its id."""
        found: int = self.world.one(
            f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(['%s'] * len(values))}) RETURNING id",
            *values.values(),
        )
        return found

    def purchase(self, name: str, status: str, settled: datetime | None, **more: Any) -> int:
        """An order at a supplier, made long ago."""
        return self.put(
            "purchase", party_id=self.acme.id, request_id=name, order_id=f"o-{name}", service="esim", item="eu",
            called="1", status=status, supplier_id=self.supplier, created_at=OLD, ended_at=settled,
            settled_at=settled, **more,
        )  # fmt: skip

    def query(self, name: str, status: str, ended: datetime | None, **more: Any) -> int:
        """A lookup, asked long ago."""
        return self.put(
            "lookup_query", party_id=self.acme.id, request_id=name, charge_id=f"c-{name}", kind="hlr", number="49",
            service="lookup", cached=False, status=status, supplier_id=self.supplier, created_at=OLD,
            ended_at=ended, **more,
        )  # fmt: skip

    def names(self, table: str) -> set[str]:
        """The rows that are there."""
        return {row["request_id"] for row in self.world.sql(f"SELECT request_id FROM {table}")}

    async def keep(self) -> None:
        """Run the job."""
        async with runtime(self.world.url) as parts:
            assert await parts.timers.keep_house() is False


async def test_orders_that_are_settled_go_unless_something_names_them(database_url: str) -> None:
    """An eSIM and a number name theirs; a number's order that waits would buy again without it."""
    with World(database_url) as world:
        house = House(world)
        for status in ("done", "refused", "cancelled"):
            house.purchase(f"gone-{status}", status, OLD)
            house.purchase(f"recent-{status}", status, RECENT)
        house.purchase("unsettled", "done", None)
        house.purchase("undecided", "ordered", None, next_at=SOON)
        house.purchase("goes-on", "refused", OLD, next_at=SOON)
        profile = house.purchase("profile", "done", OLD)
        house.put(
            "esim_profile", iccid="89", party_id=house.acme.id, purchase_id=profile, item="eu", days=30,
            created_at=OLD, supplier_id=house.supplier,
        )  # fmt: skip
        bought = house.purchase("number", "done", OLD)
        did = house.put(
            "did", number="4930123", status="assigned", party_id=house.acme.id, purchase_id=bought,
            created_at=OLD,
        )  # fmt: skip
        fee = house.put(
            "recurring_fee", name="f", party_id=house.acme.id, service="did", called="4930123", period="month",
            begins_on=OLD.date(), prorate=False, grace_days=7, paid_until=OLD.date(), created_at=OLD,
        )  # fmt: skip
        for status in ("pending", "done"):
            order = house.put(
                "did_order", did_id=did, party_id=house.acme.id, request_id=status, fee_id=fee, status=status,
                created_at=OLD,
            )  # fmt: skip
            house.purchase(f"did-{order}", "done", OLD)
            if status == "pending":
                waiting = f"did-{order}"
        await house.keep()
        assert house.names("purchase") == {
            "recent-done", "recent-refused", "recent-cancelled", "unsettled", "undecided", "goes-on",
            "profile", "number", waiting,
        }  # fmt: skip


async def test_lookups_that_are_over_go_and_those_that_owe_money_stay(database_url: str) -> None:
    with World(database_url) as world:
        house = House(world)
        for status in ("done", "not_found", "failed", "refused"):
            house.query(f"gone-{status}", status, OLD)
            house.query(f"recent-{status}", status, RECENT)
        house.query("asked", "charged", None, next_at=SOON)
        house.query("new", "new", None, next_at=SOON)
        house.query("to-refund", "failed", OLD, refund=True, next_at=SOON)
        await house.keep()
        assert house.names("lookup_query") == {
            "recent-done", "recent-not_found", "recent-failed", "recent-refused", "asked", "new", "to-refund",
        }  # fmt: skip


@pytest.mark.parametrize("table", ["voucher_attempt", "pin_attempt"])
async def test_wrong_guesses_of_yesterday_go(database_url: str, table: str) -> None:
    """Those of the last day stay: somebody may be locked out by them."""
    with World(database_url) as world:
        for hours in (1, 23, 25):
            at = NOW - timedelta(hours=hours)
            world.sql(f"INSERT INTO {table} (subject, at) VALUES (%s, %s)", f"s{hours}", at)
        await House(world).keep()
        rows = world.sql(f"SELECT subject FROM {table} ORDER BY at DESC")
        assert [row["subject"] for row in rows] == ["s1", "s23"]


async def test_answers_that_are_too_old_go(database_url: str) -> None:
    with World(database_url) as world:
        for number, until in (("1", NOW - timedelta(seconds=1)), ("2", NOW + timedelta(hours=1))):
            world.sql(
                "INSERT INTO lookup_cache (kind, number, answer, at, expires_at) VALUES ('hlr', %s, '{}', %s, %s)",
                number, OLD, until,
            )  # fmt: skip
        await House(world).keep()
        assert [row["number"] for row in world.sql("SELECT number FROM lookup_cache")] == ["2"]
