"""Suppliers, orders, lookups and eSIMs over HTTP: what is taken, shown, hidden and refused."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.gateways.platform import SECRET, SETTINGS
from tests.servers.management import problem
from tests.services.supplying import ITEMS, Shop, add_supplier, shop
from tollkeeper.servers.api.app import create_app
from tollkeeper.servers.api.context import Services

ICCID = "8901000000000000000"


@dataclass
class Desk:
    """A client with a key, and the shop behind it."""

    shop: Shop
    client: httpx.AsyncClient

    async def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request."""
        return await self.client.request(method, path, **options)


@asynccontextmanager
async def client_of(s: Shop, token: str) -> AsyncIterator[Desk]:
    parts = s.parts
    services = Services(
        parts.database, parts.directory, parts.charging, parts.clock, supplies=s.supplies
    )
    await parts.directory.load()
    transport = httpx.ASGITransport(create_app(services), raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://test", headers={"Authorization": f"Bearer {token}"}
    ) as client:
        yield Desk(s, client)


@pytest_asyncio.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    async with shop(database_url) as s:
        token = s.world.key("manage", "read", "charge")
        async with client_of(s, token) as made:
            yield made


def new_supplier(**changes: Any) -> dict[str, Any]:
    body = {
        "code": "air",
        "kind": "esim",
        "base_url": "https://api.air.example/v2/",
        "secret": SECRET,
        "settings": {**copy.deepcopy(SETTINGS), "items": ITEMS},
    }
    return {**body, **changes}


async def test_a_supplier_is_added_shown_changed_and_deleted(desk: Desk) -> None:
    made = await desk.call("POST", "/v1/suppliers", json=new_supplier())
    assert made.status_code == 201, made.text
    shown = (await desk.call("GET", "/v1/suppliers/air")).json()
    assert shown == made.json()
    assert (shown["base_url"], shown["has_secret"]) == ("https://api.air.example/v2", True)
    assert shown["settings"]["operations"]["order"]["pending_statuses"] == [202]
    changed = await desk.call("PATCH", "/v1/suppliers/air", json={"enabled": False})
    assert changed.json()["enabled"] is False
    listed = (await desk.call("GET", "/v1/suppliers", params={"limit": 1})).json()
    assert ([s["code"] for s in listed["items"]], listed["next"]) == (["air"], "air")
    assert (await desk.call("DELETE", "/v1/suppliers/air")).status_code == 204
    problem(await desk.call("GET", "/v1/suppliers/air"), 404, "unknown_supplier", "code")
    audited = desk.shop.world.sql("SELECT action, detail::text AS detail FROM audit ORDER BY id")
    assert [row["action"] for row in audited] == [
        "supplier.create",
        "supplier.change",
        "supplier.delete",
    ]


async def test_the_secret_is_never_shown(desk: Desk) -> None:
    texts = [(await desk.call("POST", "/v1/suppliers", json=new_supplier())).text]
    changed = await desk.call("PATCH", "/v1/suppliers/air", json={"secret": f"{SECRET}-2"})
    texts += [changed.text, (await desk.call("GET", "/v1/suppliers")).text]
    texts.append(str(desk.shop.world.sql("SELECT detail::text FROM audit")))
    assert not any(SECRET in text for text in texts)
    assert desk.shop.world.one("SELECT secret FROM supplier WHERE code = 'air'") == f"{SECRET}-2"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"base_url": "ftp://x"}, "base_url"),
        ({"base_url": "https://me:pw@x"}, "base_url"),
        ({"secret": "two\nlines"}, "secret"),
        ({"settings": {}}, "settings.operations.order"),
        ({"settings": {"surprise": 1}}, "settings"),
        ({"kind": "pizza"}, "kind"),
        ({"code": "a b"}, "code"),
    ],
)
async def test_a_supplier_that_cannot_work_is_refused(
    desk: Desk, change: dict[str, Any], field: str
) -> None:
    answer = await desk.call("POST", "/v1/suppliers", json=new_supplier(**change))
    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
    assert (await desk.call("GET", "/v1/suppliers/air")).status_code == 404


async def test_a_taken_code_and_a_supplier_with_orders(desk: Desk) -> None:
    taken = await desk.call("POST", "/v1/suppliers", json=new_supplier(code="sky"))
    problem(taken, 409, "supplier_exists", "code")
    await desk.call("POST", "/v1/esims", json={"party": "acme", "item": "payg", "request_id": "e1"})
    problem(await desk.call("DELETE", "/v1/suppliers/sky"), 409, "supplier_in_use")


async def test_a_supplier_is_tried(desk: Desk) -> None:
    body = {"operation": "lookup", "number": "4930123", "kind": "hlr"}
    tried = await desk.call("POST", "/v1/suppliers/sky/test", json=body)
    assert tried.json() == {
        "outcome": "done",
        "detail": "",
        "fields": {"mcc_mnc": "26201", "ported": True},
    }
    desk.shop.sky.faults = [403]
    refused = await desk.call("POST", "/v1/suppliers/sky/test", json=body)
    assert refused.json()["outcome"] == "refused"
    assert SECRET not in refused.text


async def test_an_esim_from_order_to_release(desk: Desk) -> None:
    catalogue = (await desk.call("GET", "/v1/esims/catalogue")).json()["items"]
    assert [item["item"] for item in catalogue] == ["eu-5gb", "payg", "unpriced"]
    body = {"party": "acme", "item": "eu-5gb", "request_id": "e1"}
    made = await desk.call("POST", "/v1/esims", json=body)
    assert made.status_code == 201, made.text
    order, esim = made.json()["order"], made.json()["esim"]
    assert (order["status"], order["charge"], order["supplier"]) == ("done", "9.00", "sky")
    assert (esim["iccid"], esim["status"], esim["bytes_left"]) == (ICCID, "ordered", None)
    assert (await desk.call("POST", "/v1/esims", json=body)).json() == made.json()
    active = (await desk.call("POST", f"/v1/esims/{ICCID}/activate")).json()
    assert (active["status"], active["bytes_left"]) == ("active", 5_000_000_000)
    assert (await desk.call("GET", f"/v1/esims/{ICCID}")).json() == active
    listed = (await desk.call("GET", "/v1/esims", params={"party": "acme"})).json()
    assert listed == {"items": [active], "next": None}
    released = (await desk.call("POST", f"/v1/esims/{ICCID}/release")).json()
    assert released["status"] == "released"
    again = await desk.call("POST", f"/v1/esims/{ICCID}/activate")
    problem(again, 409, "esim_over")


async def test_a_refused_order_says_why(desk: Desk) -> None:
    body = {"party": "acme", "item": "unpriced", "request_id": "e1"}
    made = (await desk.call("POST", "/v1/esims", json=body)).json()
    assert made["esim"] is None
    assert (made["order"]["status"], made["order"]["reason"]) == ("refused", "no_rate")
    assert made["order"]["reason_text"]
    body = {"party": "acme", "item": "moon", "request_id": "e2"}
    problem(await desk.call("POST", "/v1/esims", json=body), 404, "unknown_item", "item")


async def test_orders_are_listed_and_resolved(desk: Desk) -> None:
    desk.shop.sky.faults = ["take_and_drop"] * 3
    body = {"party": "acme", "item": "eu-5gb", "request_id": "e1"}
    made = (await desk.call("POST", "/v1/esims", json=body)).json()["order"]
    assert made["status"] == "unknown"
    listed = (await desk.call("GET", "/v1/purchases", params={"status": "unknown"})).json()
    assert [order["order_id"] for order in listed["items"]] == [made["order_id"]]
    path = f"/v1/purchases/{made['order_id']}"
    answer = {"outcome": "done", "answer": {"iccid": ICCID}}
    resolved = await desk.call("POST", f"{path}/resolve", json=answer)
    assert (resolved.json()["status"], resolved.json()["charge"]) == ("done", "9.00")
    assert (await desk.call("GET", path)).json() == resolved.json()
    problem(await desk.call("POST", f"{path}/resolve", json=answer), 409, "order_decided")


async def test_a_lookup_over_http(desk: Desk) -> None:
    s = desk.shop
    add_supplier(s.world, s.sky.url, code="hlr", kind="lookup", items={})
    body = {"party": "acme", "number": "+49 30 12345678", "request_id": "q1"}
    found = await desk.call("POST", "/v1/lookups", json=body)
    assert found.status_code == 200, found.text
    assert found.json()["outcome"] == "answered"
    assert found.json()["answer"] == {"mcc_mnc": "26201", "ported": True}
    assert found.json()["charge"] == "0.005"
    assert (await desk.call("POST", "/v1/lookups", json=body)).json() == found.json()
    other = await desk.call("POST", "/v1/lookups", json={**body, "kind": "fortune"})
    problem(other, 409, "request_id_reused", "request_id")
    unknown = {**body, "kind": "fortune", "request_id": "q2"}
    problem(await desk.call("POST", "/v1/lookups", json=unknown), 422, "invalid_input", "kind")


async def test_keys_without_the_scope_are_not_let_in(desk: Desk) -> None:
    s = desk.shop
    async with client_of(s, s.world.key("read")) as reader:
        for method, path in (
            ("GET", "/v1/suppliers"),
            ("POST", "/v1/suppliers"),
            ("POST", "/v1/esims"),
            ("POST", "/v1/lookups"),
            ("POST", f"/v1/esims/{ICCID}/activate"),
        ):
            answer = await reader.call(method, path, json={})
            problem(answer, 403, "scope_missing")


async def test_a_partys_key_buys_and_sees_its_own_and_never_the_supplier(desk: Desk) -> None:
    s = desk.shop
    s.world.customer("other")
    token = s.world.key("manage", "read", "charge")
    s.world.sql(
        "UPDATE api_key SET party_id = (SELECT id FROM party WHERE code = 'acme')"
        " WHERE id = (SELECT max(id) FROM api_key)"
    )
    async with client_of(s, token) as acme:
        body = {"party": "acme", "item": "eu-5gb", "request_id": "e1"}
        made = await acme.call("POST", "/v1/esims", json=body)
        assert made.status_code == 201, made.text
        assert made.json()["order"]["status"] == "done"
        listed = await acme.call("GET", "/v1/purchases")
        assert [o["request_id"] for o in listed.json()["items"]] == ["e1"]
        assert "sky" not in made.text + listed.text
        assert "ref-0" not in made.text + listed.text
        foreign = await acme.call("POST", "/v1/esims", json={**body, "party": "other"})
        problem(foreign, 404, "unknown_party", "party")
        problem(await acme.call("GET", "/v1/suppliers"), 403, "operator_only")
        resolve = f"/v1/purchases/{made.json()['order']['order_id']}/resolve"
        answer = await acme.call("POST", resolve, json={"outcome": "refused"})
        problem(answer, 403, "operator_only")
