"""eSIM profiles: ordered, activated with their volume, expired, given back."""

from __future__ import annotations

from decimal import Decimal

import pytest
from psycopg.types.json import Jsonb

from tests.services.supplying import Shop, add_supplier, shop
from tests.support import Row, tariff
from tollkeeper.errors import Busy, Conflict, NotFound
from tollkeeper.services.esims import Esim, EsimOrder
from tollkeeper.services.purchases import PurchaseFilter

ICCID = "8901000000000000000"


async def order(s: Shop, item: str = "eu-5gb", request_id: str = "e1") -> EsimOrder:
    return await s.supplies.esims.order(
        party="acme", item=item, request_id=request_id, actor="test"
    )


async def active(s: Shop, item: str = "eu-5gb") -> Esim:
    made = await order(s, item)
    assert made.esim is not None
    return await s.supplies.esims.activate(made.esim.iccid, actor="test")


async def test_an_order_brings_a_profile(database_url: str) -> None:
    async with shop(database_url) as s:
        made = await order(s)
        assert made.order.status == "done"
        assert made.esim is not None
        assert (made.esim.iccid, made.esim.status) == (ICCID, "ordered")
        assert made.esim.activation_code == f"LPA:1$rsp.example${ICCID}"
        assert (made.esim.data_bytes, made.esim.days) == (5_000_000_000, 30)
        assert s.money() == (Decimal(9), Decimal(0))
        again = await order(s)
        assert again.esim == made.esim


async def test_an_order_that_is_not_through_has_no_profile_yet(database_url: str) -> None:
    async with shop(database_url) as s:
        s.sky.state = "PROCESSING"
        made = await order(s)
        assert (made.order.status, made.esim) == ("ordered", None)
        for one in s.sky.orders.values():
            one["state"] = "COMPLETED"
        await s.jobs(times=2)
        assert (await order(s)).esim is not None


async def test_the_first_supplier_that_has_an_item_supplies_it(database_url: str) -> None:
    async with shop(database_url) as s:
        add_supplier(s.world, "null:", code="air", items={"eu-5gb": {"rate_key": "31"}})
        catalogue = await s.supplies.esims.catalogue()
        assert [(c.code, c.supplier) for c in catalogue] == [
            ("eu-5gb", "air"),
            ("payg", "sky"),
            ("unpriced", "sky"),
        ]
        assert (await order(s)).order.charge == Decimal(2)
        s.world.sql("UPDATE supplier SET enabled = false WHERE code = 'air'")
        assert (await order(s, request_id="e2")).order.charge == Decimal(9)


async def test_the_activation_brings_the_volume(database_url: str) -> None:
    """A package of 5 GB for 30 days stands in the books of who pays for the data; once."""
    async with shop(database_url) as s:
        esim = await active(s)
        assert esim.status == "active"
        assert esim.activated_at is not None
        assert esim.expires_at is not None
        assert (esim.expires_at - esim.activated_at).days == 30
        assert esim.bytes_left == Decimal(5_000_000_000)
        assert await s.supplies.esims.activate(ICCID, actor="test") == esim
        assert len(s.sky.activated) == 1
        (meter,) = s.world.sql("SELECT kind, unit, cap, ends_at FROM meter")
        assert (meter["kind"], meter["unit"], meter["cap"]) == ("package", "byte", 5_000_000_000)
        assert meter["ends_at"] == esim.expires_at
        (sale,) = s.world.sql("SELECT code, plan, status, units, price, renew FROM package_sale")
        assert sale == {
            "code": "esim",
            "plan": "retail",
            "status": "active",
            "units": 5_000_000_000,
            "price": Decimal(0),
            "renew": False,
        }


async def test_data_sessions_use_the_volume_first_and_the_wallet_after_it(
    database_url: str,
) -> None:
    """Of 5,000,000,000 bytes one session takes 4,990 MB; of the next one's 30 MB 10 are left and 20 paid."""
    async with shop(database_url) as s:
        card = s.world.card(
            "data", [Row("", "Home", tariff("0.01", 10_000, 10_000))], service="data", per=10**6
        )
        s.world.sql(
            "INSERT INTO rate_plan_card (plan_id, position, card_id) VALUES (%s, 99, %s)",
            s.world.plan_id,
            card,
        )
        rule = {"code": "esim", "service": "data", "units": 5000, "renew": False}
        s.world.sql(
            "UPDATE rate_plan SET terms = %s WHERE id = %s",
            Jsonb({"packages": [rule]}),
            s.world.plan_id,
        )
        await s.parts.directory.load()
        await active(s)
        await s.parts.directory.load()
        spent, _ = s.money()
        assert await data(s, "first", 4_990_000_000) == 0
        assert await data(s, "second", 30_000_000) == Decimal("0.20")
        assert s.money() == (spent + Decimal("0.20"), Decimal(0))
        assert (await s.supplies.esims.get(ICCID)).bytes_left == 0
        assert await s.clean()


async def data(s: Shop, name: str, used: int) -> Decimal:
    """A whole data session; what it cost."""
    charging = s.parts.charging
    reply, _ = await charging.authorise(
        switch="ggsn", session_id=name, party="acme", called="internet", service="data",
        requested_seconds=used,
    )  # fmt: skip
    assert reply.granted_seconds == used
    ended, _ = await charging.stop(switch="ggsn", session_id=name, used_ms=used * 1000)
    assert isinstance(ended.charge, Decimal)
    return ended.charge


async def test_pay_as_you_go_has_no_volume(database_url: str) -> None:
    async with shop(database_url) as s:
        esim = await active(s, "payg")
        assert (esim.status, esim.data_bytes, esim.bytes_left) == ("active", None, None)
        assert s.world.one("SELECT count(*) FROM meter") == 0


async def test_an_activation_that_fails_changes_nothing_and_may_be_repeated(
    database_url: str,
) -> None:
    async with shop(database_url) as s:
        await order(s)
        s.sky.faults = [500] * 3
        with pytest.raises(Busy):
            await s.supplies.esims.activate(ICCID, actor="test")
        s.sky.faults = [422]
        with pytest.raises(Conflict, match="refuses to activate"):
            await s.supplies.esims.activate(ICCID, actor="test")
        assert (await s.supplies.esims.get(ICCID)).status == "ordered"
        assert (await s.supplies.esims.activate(ICCID, actor="test")).status == "active"


async def test_a_profile_expires_and_is_given_back(database_url: str) -> None:
    async with shop(database_url) as s:
        await active(s)
        s.clock.forward(days=30, seconds=-1)
        await s.supplies.esims.expire()
        assert (await s.supplies.esims.get(ICCID)).status == "active"
        s.clock.forward(seconds=2)
        s.sky.faults = [500] * 3
        await s.supplies.esims.expire()
        expired = await s.supplies.esims.get(ICCID)
        assert (expired.status, s.sky.released) == ("expired", [])
        s.clock.forward(minutes=16)
        await s.supplies.esims.expire()
        assert (await s.supplies.esims.get(ICCID)).status == "released"
        assert len(s.sky.released) == 1
        s.clock.forward(days=1)
        assert not await s.supplies.esims.expire()
        assert len(s.sky.released) == 1
        assert s.world.one("SELECT status FROM package_sale") == "ended"


async def test_a_profile_that_is_given_back_is_over(database_url: str) -> None:
    async with shop(database_url) as s:
        await active(s)
        released = await s.supplies.esims.release(ICCID, actor="test")
        assert (released.status, released.released_at) == ("released", s.clock.now)
        assert (await s.supplies.esims.release(ICCID, actor="test")).status == "released"
        assert len(s.sky.released) == 1
        with pytest.raises(Conflict, match="released"):
            await s.supplies.esims.activate(ICCID, actor="test")
        actions = [row["action"] for row in s.world.sql("SELECT action FROM audit ORDER BY id")]
        assert actions == ["esim.activate", "esim.release"]


async def test_what_is_not_there_is_said(database_url: str) -> None:
    async with shop(database_url) as s:
        with pytest.raises(NotFound, match='no eSIM "moon"'):
            await order(s, "moon")
        with pytest.raises(NotFound):
            await s.supplies.esims.get("890")
        with pytest.raises(NotFound):
            await s.supplies.esims.list(party="nobody")


async def test_one_iccid_is_never_sold_twice(database_url: str) -> None:
    """A supplier that delivers a profile again: the second order is for a human, and uncharged."""
    async with shop(database_url) as s:
        await order(s)
        s.sky.orders.clear()
        second = await order(s, request_id="e2")
        assert (second.order.status, second.order.next_at) == ("unknown", None)
        assert "another order's" in second.order.detail
        assert s.money() == (Decimal(9), Decimal(9))


async def test_a_party_sees_its_own_and_those_below_it_only(database_url: str) -> None:
    """Acme's profile is not there for another party, and what acme sees does not name the supplier."""
    async with shop(database_url) as s:
        other = s.world.customer("other")
        acme = s.world.one("SELECT id FROM party WHERE code = 'acme'")
        made = await order(s)
        esims, purchases = s.supplies.esims, s.supplies.purchases
        assert [e.iccid for e in await esims.list(scope=acme)] == [ICCID]
        assert await esims.list(scope=other.id) == []
        for scope in (other.id,):
            with pytest.raises(NotFound):
                await esims.get(ICCID, scope=scope)
            with pytest.raises(NotFound):
                await esims.activate(ICCID, actor="x", scope=scope)
            with pytest.raises(NotFound):
                await purchases.order(made.order.order_id, scope=scope)
            with pytest.raises(NotFound):
                await esims.order(party="acme", item="payg", request_id="x", scope=scope)
            assert await purchases.orders(PurchaseFilter(), scope=scope) == []
        (seen,) = await purchases.orders(PurchaseFilter(), scope=acme)
        assert (seen.status, seen.supplier, seen.answer) == ("done", "", {})
        assert (await esims.activate(ICCID, actor="x", scope=acme)).status == "active"
