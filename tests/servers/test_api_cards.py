"""Calling cards over HTTP: PINs shown once and never again, guessing locked, access and announcements."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
import structlog

from tests.servers.management import problem
from tests.services.money_world import CENT_A_SECOND
from tests.support import World, api
from tollkeeper.core.cards import make_pin
from tollkeeper.telemetry import configure_logging

LATER = (datetime.now(UTC) + timedelta(days=365)).isoformat()
BATCH = {
    "code": "gold",
    "count": 3,
    "plan": "retail",
    "amount": "3",
    "currency": "USD",
    "valid_days": 30,
    "expires_at": LATER,
}
CALLER = "442071230000"


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """A reseller, north, with 25 and a plan of its own, shop; south beside it."""
    with World(database_url) as made:
        north = made.reseller("north", balance="25")
        made.reseller("south")
        shop = made.plan("shop", made.card("shop-usd"))
        made.sql("UPDATE rate_plan SET owner_id = %s WHERE id = %s", north.id, shop)
        yield made


class Caller:
    """Requests with one key."""

    def __init__(self, client: httpx.AsyncClient, token: str) -> None:
        self._client = client
        self._headers = {"Authorization": f"Bearer {token}"}

    async def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request."""
        return await self._client.request(method, path, headers=self._headers, **options)

    async def make(self, **more: Any) -> list[dict[str, str]]:
        """Make a batch; the rows of the one export."""
        made = await self.call("POST", "/v1/calling-card-batches", json={**BATCH, **more})
        assert made.status_code == 201, made.text
        assert made.headers["content-type"].startswith("text/csv")
        assert made.headers["cache-control"] == "no-store"
        return list(csv.DictReader(io.StringIO(made.text)))

    async def access(self, **body: Any) -> httpx.Response:
        """Ask for a card."""
        return await self.call("POST", "/v1/calling-card-access", json=body)


def key_of(world: World, scope: str, code: str = "") -> str:
    token = world.key(scope)
    if code:
        world.sql(
            "UPDATE api_key SET party_id = (SELECT id FROM party WHERE code = %s)"
            " WHERE id = (SELECT max(id) FROM api_key)",
            code,
        )
    return token


@pytest_asyncio.fixture
async def keys(world: World) -> AsyncIterator[dict[str, Caller]]:
    """The operator, its switch, and the resellers."""
    tokens = {"operator": key_of(world, "manage"), "switch": key_of(world, "charge")}
    tokens |= {code: key_of(world, "manage", code) for code in ("north", "south")}
    tokens |= {"reader": key_of(world, "read")}
    async with AsyncExitStack() as stack:
        client, _ = await stack.enter_async_context(api(world.url))
        yield {name: Caller(client, token) for name, token in tokens.items()}


async def test_a_card_is_used_from_the_pin_to_the_end_of_the_call(keys: dict[str, Caller]) -> None:
    cards = await keys["operator"].make()
    assert [card["card"] for card in cards] == ["gold-00001", "gold-00002", "gold-00003"]
    switch = keys["switch"]
    pin = cards[0]["pin"]
    spaced = f"{pin[:4]} {pin[4:8]}-{pin[8:]}"
    told = await switch.access(pin=spaced, caller=CALLER, called=CENT_A_SECOND, remember=True)
    assert told.status_code == 200, told.text
    body = told.json()
    assert (body["party"], body["status"], body["first_use"]) == ("gold-00001", "active", True)
    assert (body["balance"], body["currency"]) == ("3.00", "USD")
    assert (body["seconds"], body["minutes"], body["reason"]) == (300, 5, "")
    session = {"session_id": "s1", "party": body["party"], "called": CENT_A_SECOND}
    granted = await switch.call("POST", "/v1/sessions", json=session)
    assert granted.json()["outcome"] == "granted", granted.text
    second = await switch.call("POST", "/v1/sessions", json={**session, "session_id": "s2"})
    assert (second.json()["reason"], second.json()["sip_code"]) == ("concurrency_limit", 480)
    await switch.call("POST", "/v1/sessions/s1/start", json={})
    await switch.call("POST", "/v1/sessions/s1/stop", json={"used_seconds": 60})
    again = (await switch.access(caller=CALLER)).json()
    assert (again["party"], again["balance"], again["minutes"]) == ("gold-00001", "2.40", None)
    assert not again["first_use"]
    shown = (await keys["reader"].call("GET", "/v1/calling-cards/gold-00001")).json()
    assert (shown["balance"], shown["callers"]) == ("2.40", [CALLER])
    batch = (await keys["reader"].call("GET", "/v1/calling-card-batches/gold")).json()
    assert (batch["cards"], batch["unused"], batch["used"]) == (3, 2, 1)


async def test_a_pin_is_in_no_answer_but_the_one_that_made_it(keys: dict[str, Caller]) -> None:
    """Not when the request is repeated, the card shown, used, refused or asked for wrongly."""
    operator, switch = keys["operator"], keys["switch"]
    cards = await operator.make()
    pins = [card["pin"] for card in cards]
    slip = pins[1][:-1] + str((int(pins[1][-1]) + 1) % 10)
    answers = [
        await operator.call("POST", "/v1/calling-card-batches", json=BATCH),
        await operator.call("GET", "/v1/calling-card-batches"),
        await operator.call("GET", "/v1/calling-cards?batch=gold"),
        await switch.access(pin=pins[0]),
        await switch.access(pin=pins[0], called="not a number"),
        await switch.access(pin=pins[0], remember=True),
        await switch.access(pin=slip),
        await switch.access(pin=pins[1] * 4),
        await switch.access(pin=int(pins[1])),
        await switch.access(pin=pins[1], nonsense=pins[1]),
        await operator.call("PATCH", "/v1/calling-cards/gold-00002", json={"status": "blocked"}),
        await switch.access(pin=pins[1]),
    ]
    assert [answer.status_code for answer in answers] == [
        409, 200, 200, 200, 422, 422, 422, 422, 422, 422, 200, 409,
    ]  # fmt: skip
    for answer in answers:
        for pin in (*pins, slip):
            assert pin not in answer.text, answer.text


async def test_no_pin_is_written_to_the_log(
    keys: dict[str, Caller], capfd: pytest.CaptureFixture[str]
) -> None:
    """Everything is logged, down to the smallest: right PINs, wrong ones, and those that cannot be."""
    configure_logging("debug", "json")
    try:
        cards = await keys["operator"].make()
        wrong = make_pin(5, 12)
        await keys["switch"].access(pin=cards[0]["pin"], called=CENT_A_SECOND)
        problem(await keys["switch"].access(pin=wrong), 404, "unknown_pin", "pin")
        problem(await keys["switch"].access(pin="123456789012"), 422, "invalid_pin", "pin")
        structlog.get_logger().info("test.marker")
        written = "".join(capfd.readouterr())
    finally:
        structlog.reset_defaults()
        logging.getLogger().handlers.clear()
    assert "test.marker" in written
    for pin in [card["pin"] for card in cards] + [wrong, "123456789012"]:
        assert pin not in written


async def test_guessing_is_locked_after_five_pins_of_a_caller(keys: dict[str, Caller]) -> None:
    pin = (await keys["operator"].make())[0]["pin"]
    switch = keys["switch"]
    for number in range(5):
        wrong = await switch.access(pin=make_pin(number, 12), caller=CALLER)
        problem(wrong, 404, "unknown_pin", "pin")
    sentence = problem(await switch.access(pin=pin, caller=CALLER), 409, "too_many_attempts")
    assert "try again after" in sentence
    assert (await switch.access(pin=pin, caller="442071230001")).status_code == 200


async def test_cards_are_blocked_and_their_callers_set(keys: dict[str, Caller]) -> None:
    operator, switch = keys["operator"], keys["switch"]
    one, two, _ = await operator.make()
    changed = await operator.call(
        "PATCH", f"/v1/calling-cards/{one['card']}", json={"callers": [f"+{CALLER}"]}
    )
    assert changed.json()["callers"] == [CALLER]
    assert (await switch.access(caller=CALLER)).json()["party"] == one["card"]
    wrong = await operator.call(
        "PATCH", f"/v1/calling-cards/{one['card']}", json={"callers": ["x"]}
    )
    problem(wrong, 422, "invalid_caller", "callers")
    await operator.call("PATCH", f"/v1/calling-cards/{one['card']}", json={"status": "blocked"})
    problem(await switch.access(pin=one["pin"]), 409, "card_blocked", "pin")
    await operator.call("PATCH", "/v1/calling-card-batches/gold", json={"status": "blocked"})
    problem(await switch.access(pin=two["pin"]), 409, "card_blocked", "pin")
    items = (await operator.call("GET", "/v1/calling-cards?batch=gold&limit=2")).json()
    assert [item["status"] for item in items["items"]] == ["blocked", "blocked"]
    assert items["next"] == "gold-00002"
    problem(await operator.call("GET", "/v1/calling-cards/none"), 404, "unknown_calling_card")
    problem(await operator.call("GET", "/v1/calling-cards?batch=none"), 404, "unknown_batch")
    problem(await switch.access(caller="442070000000"), 404, "unknown_caller", "caller")
    problem(await switch.access(), 422, "invalid_input", "pin")


async def test_a_reseller_makes_and_sees_its_own_cards_only(keys: dict[str, Caller]) -> None:
    north, south = keys["north"], keys["south"]
    card = (await north.make(plan="shop"))[0]
    foreign = await south.call(
        "POST", "/v1/calling-card-batches", json={**BATCH, "code": "blue", "plan": "shop"}
    )
    problem(foreign, 422, "unknown_plan", "plan")
    owned = await south.call(
        "POST", "/v1/calling-card-batches", json={**BATCH, "code": "blue", "owner": "north"}
    )
    problem(owned, 404, "unknown_party")
    assert (await south.call("GET", "/v1/calling-cards")).json()["items"] == []
    problem(await south.call("GET", "/v1/calling-cards/gold-00001"), 404, "unknown_calling_card")
    problem(
        await south.call("PATCH", "/v1/calling-card-batches/gold", json={"status": "blocked"}),
        404,
        "unknown_batch",
    )
    problem(await south.access(pin=card["pin"]), 404, "unknown_pin", "pin")
    assert (await north.access(pin=card["pin"])).json()["balance"] == "3.00"
    batch = (await north.call("GET", "/v1/calling-card-batches")).json()["items"][0]
    assert (batch["owner"], batch["plan"], batch["used"]) == ("north", "shop", 1)


async def test_access_needs_a_key_that_may_charge(keys: dict[str, Caller]) -> None:
    problem(await keys["reader"].access(pin="x"), 403, "scope_missing")
    problem(
        await keys["switch"].call("POST", "/v1/calling-card-batches", json=BATCH),
        403,
        "scope_missing",
    )


async def test_extensions_are_made_and_bounded_over_http(keys: dict[str, Caller]) -> None:
    operator = keys["operator"]
    customer = {"code": "acme", "name": "Acme", "plan": "retail"}
    made = await operator.call(
        "POST",
        "/v1/parties",
        json={**customer, "wallets": [{"currency": "USD", "top_up": "10", "reason": "x"}]},
    )
    assert made.status_code == 201, made.text
    user = {
        "code": "desk-1", "name": "Desk 1", "kind": "user", "parent": "acme", "max_cost": "0.5",
        "max_sessions": 3, "low_balance": "2", "low_sessions": 1,
    }  # fmt: skip
    problem(
        await operator.call("POST", "/v1/parties", json={**user, "plan": "retail"}),
        422,
        "user_has_no_plan",
        "plan",
    )
    made = await operator.call("POST", "/v1/parties", json=user)
    assert made.status_code == 201, made.text
    assert (made.json()["low_balance"], made.json()["low_sessions"]) == ("2.00", 1)
    changed = await operator.call(
        "PATCH", "/v1/parties/desk-1", json={"low_balance": None, "low_sessions": None}
    )
    assert changed.json()["low_balance"] is None
    refused = await operator.call("POST", "/v1/parties/desk-1/wallets", json={"currency": "USD"})
    problem(refused, 422, "user_has_no_wallet", "party")
