"""Money over HTTP: vouchers, transfers, bonus, terms, billing; and what a reseller's key may do of it."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.servers.management import Api, client_of, problem
from tests.support import World, runtime

LATER = (datetime.now(UTC) + timedelta(days=30)).isoformat()
BATCH = {"code": "spring", "count": 3, "amount": "10", "currency": "USD", "valid_to": LATER}


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """A reseller, north, with 25 > acme with 10; brook beside them."""
    with World(database_url) as made:
        north = made.reseller("north", balance="25", plan=False)
        made.customer("acme", parent=north, balance="10")
        made.customer("brook", balance="0")
        yield made


def key_of(world: World, code: str) -> str:
    """A key that is bounded to a party."""
    token = world.key("manage")
    world.sql(
        "UPDATE api_key SET party_id = (SELECT id FROM party WHERE code = %s)"
        " WHERE id = (SELECT max(id) FROM api_key)",
        code,
    )
    return token


@pytest_asyncio.fixture
async def clients(world: World) -> AsyncIterator[dict[str, Api]]:
    """The operator's, north's and acme's way in."""
    tokens = {"operator": world.key("manage")}
    tokens |= {code: key_of(world, code) for code in ("north", "acme")}
    async with AsyncExitStack() as stack:
        parts = await stack.enter_async_context(runtime(world.url))
        yield {
            name: Api(world, parts, await stack.enter_async_context(client_of(parts, token)))
            for name, token in tokens.items()
        }


def codes_of(made: httpx.Response) -> list[str]:
    assert made.status_code == 201, made.text
    return [row["code"] for row in csv.DictReader(io.StringIO(made.text))]


async def redeem(api: Api, party: str, code: str) -> httpx.Response:
    return await api.call("POST", "/v1/vouchers/redeem", json={"party": party, "code": code})


async def send(api: Api, sender: str, body: dict[str, Any], key: str = "k1") -> httpx.Response:
    path = f"/v1/parties/{sender}/wallets/USD/transfers"
    return await api.call("POST", path, json=body, headers={"Idempotency-Key": key})


# --- vouchers ------------------------------------------------------------------------------------


async def test_codes_are_shown_once_as_csv_and_redeemed_once(clients: dict[str, Api]) -> None:
    api = clients["operator"]
    made = await api.call("POST", "/v1/voucher-batches", json=BATCH)
    assert made.headers["content-type"].startswith("text/csv")
    assert made.headers["cache-control"] == "no-store"
    codes = codes_of(made)
    assert len(codes) == 3
    assert all(len(code) == 19 for code in codes), "four groups of four"
    done = await redeem(api, "brook", codes[0])
    assert done.status_code == 200, done.text
    assert done.json()["wallet"]["balance"] == "10.00"
    assert not done.json()["repeated"]
    assert (await redeem(api, "brook", codes[0])).json()["repeated"]
    problem(await redeem(api, "acme", codes[0]), 409, "voucher_used", "code")
    problem(await api.call("POST", "/v1/voucher-batches", json=BATCH), 409, "batch_exists", "code")
    shown = (await api.call("GET", "/v1/voucher-batches/spring")).json()
    assert (shown["vouchers"], shown["redeemed"], shown["owner"]) == (3, 1, None)
    assert codes[1] not in (await api.call("GET", "/v1/voucher-batches")).text


async def test_vouchers_and_batches_are_blocked(clients: dict[str, Api]) -> None:
    api = clients["operator"]
    codes = codes_of(await api.call("POST", "/v1/voucher-batches", json=BATCH))
    blocked = await api.call("POST", "/v1/vouchers/block", json={"code": codes[0]})
    assert blocked.json() == {"batch": "spring"}
    problem(await redeem(api, "brook", codes[0]), 409, "voucher_blocked", "code")
    changed = await api.call("PATCH", "/v1/voucher-batches/spring", json={"status": "blocked"})
    assert changed.json()["status"] == "blocked"
    problem(await redeem(api, "brook", codes[1]), 409, "voucher_blocked", "code")


async def test_guessing_ends_after_five_codes(clients: dict[str, Api]) -> None:
    api = clients["acme"]
    for code in ("0000000000000000", "0000-0000-0000-0018", "0000000000000026",
                 "0000000000000034", "0000000000000042"):  # fmt: skip
        problem(await redeem(api, "acme", code), 404, "unknown_voucher", "code")
    problem(await redeem(api, "acme", "0000000000000059"), 409, "too_many_attempts")
    problem(await redeem(api, "acme", "0000000000000058"), 422, "invalid_voucher_code", "code")


async def test_a_resellers_key_makes_vouchers_that_its_money_pays(clients: dict[str, Api]) -> None:
    made = await clients["north"].call("POST", "/v1/voucher-batches", json={**BATCH, "count": 3})
    codes = codes_of(made)
    problem(await redeem(clients["operator"], "brook", codes[0]), 404, "unknown_voucher", "code")
    for code, balance in zip(codes[:2], ("20.00", "30.00"), strict=True):
        done = await redeem(clients["acme"], "acme", code)
        assert done.json()["wallet"]["balance"] == balance, done.text
    problem(await redeem(clients["acme"], "acme", codes[2]), 409, "voucher_not_covered", "code")
    (batch,) = (await clients["north"].call("GET", "/v1/voucher-batches")).json()["items"]
    assert (batch["owner"], batch["redeemed"]) == ("north", 2)
    assert (await clients["acme"].call("GET", "/v1/voucher-batches")).json()["items"] == []
    problem(await clients["acme"].call("GET", "/v1/voucher-batches/spring"), 404, "unknown_batch")
    bonus = {**BATCH, "code": "gift", "kind": "bonus", "bonus_days": 7}
    problem(
        await clients["north"].call("POST", "/v1/voucher-batches", json=bonus), 403, "operator_only"
    )


# --- transfers -----------------------------------------------------------------------------------


async def test_a_transfer_is_made_once_for_its_key(clients: dict[str, Api]) -> None:
    api = clients["north"]
    body = {"to": "acme", "amount": "5.5", "reason": "for the week"}
    first = await send(api, "north", body)
    assert first.status_code == 201, first.text
    again = await send(api, "north", body)
    assert again.json() == first.json()
    assert again.headers["Idempotent-Replayed"] == "true"
    made = first.json()
    assert made["wallet"]["balance"] == "19.50"
    assert (made["transfer"]["from"], made["transfer"]["to"]) == ("north", "acme")
    problem(await send(api, "north", {**body, "amount": "6"}), 409, "idempotency_key_reused", "Idempotency-Key")  # fmt: skip
    (listed,) = (await api.call("GET", "/v1/parties/acme/transfers")).json()["items"]
    assert listed["amount"] == "5.50"


async def test_a_bounded_key_moves_money_within_its_own_tree(clients: dict[str, Api]) -> None:
    up = {"to": "north", "amount": "1", "reason": "back"}
    assert (await send(clients["acme"], "acme", up)).status_code == 201
    (listed,) = (await clients["acme"].call("GET", "/v1/parties/acme/transfers")).json()["items"]
    assert (listed["from"], listed["to"]) == ("acme", None), "who is above is not shown"
    outside = {"to": "brook", "amount": "1", "reason": "gift"}
    problem(await send(clients["north"], "north", outside, "k2"), 404, "unknown_party")
    down = {"to": "acme", "amount": "1", "reason": "please"}
    problem(await send(clients["acme"], "north", down, "k3"), 404, "unknown_party")
    too_much = {"to": "acme", "amount": "26.01", "reason": "x"}
    sentence = problem(await send(clients["north"], "north", too_much, "k4"), 409, "insufficient_funds", "amount")  # fmt: skip
    assert "only 26.00 USD of north's own money" in sentence


# --- bonus, terms, billing -----------------------------------------------------------------------


async def test_bonus_is_given_by_the_operator_and_seen_by_its_party(
    clients: dict[str, Api],
) -> None:
    path = "/v1/parties/acme/wallets/USD/bonuses"
    body = {"amount": "5", "expires_at": LATER, "reason": "welcome"}
    given = await clients["operator"].call(
        "POST", path, json=body, headers={"Idempotency-Key": "b1"}
    )
    assert given.status_code == 201, given.text
    assert given.json()["wallet"]["balance"] == "15.00"
    (seen,) = (await clients["acme"].call("GET", path)).json()["items"]
    assert (seen["left"], seen["order"], seen["closed_at"]) == ("5.00", "bonus_first", None)
    refused = await clients["north"].call(
        "POST", path, json=body, headers={"Idempotency-Key": "b2"}
    )
    problem(refused, 403, "operator_only")


async def test_terms_of_a_wallet_show_what_is_agreed_and_what_is_in_force(
    clients: dict[str, Api],
) -> None:
    api, path = clients["operator"], "/v1/parties/acme/wallets/USD"
    changed = await api.call(
        "PATCH",
        path,
        json={
            "credit_limit": "20",
            "temporary_limit": {"amount": "5", "until": LATER},
            "daily_cap": "3",
            "monthly_cap": "50",
            "alert_at": [80, 50],
            "reason": "new contract",
        },
    )
    assert changed.status_code == 200, changed.text
    wallet = changed.json()
    assert (wallet["credit_limit"], wallet["limit"], wallet["available"]) == ("20.00", "25.00", "35.00")  # fmt: skip
    assert wallet["temporary_limit"]["amount"] == "5.00"
    assert (wallet["daily_cap"], wallet["monthly_cap"]) == ("3.00", "50.00")
    assert wallet["alert_at"] == [50, 80]
    prepaid = await api.call("PATCH", "/v1/parties/acme", json={"billing": "prepaid"})
    assert prepaid.status_code == 200, prepaid.text
    assert prepaid.json()["billing"] == "prepaid"
    (wallet,) = prepaid.json()["wallets"]
    assert (wallet["credit_limit"], wallet["limit"]) == ("20.00", "0.00")
    ended = await api.call(
        "PATCH", path, json={"temporary_limit": None, "daily_cap": None, "reason": "over"}
    )
    assert (ended.json()["temporary_limit"], ended.json()["daily_cap"]) == (None, None)
    assert ended.json()["monthly_cap"] == "50.00", "what is left out stays"


async def test_a_reseller_changes_the_terms_of_those_below_it_and_never_its_own(
    clients: dict[str, Api],
) -> None:
    north = clients["north"]
    body = {
        "credit_limit": "7",
        "daily_cap": "3",
        "temporary_limit": {"amount": "5", "until": LATER},
        "reason": "good customer",
    }
    changed = await north.call("PATCH", "/v1/parties/acme/wallets/USD", json=body)
    assert changed.status_code == 200, changed.text
    assert changed.json()["limit"] == "12.00"
    assert (await north.call("PATCH", "/v1/parties/acme", json={"billing": "prepaid"})).json()["wallets"][0]["limit"] == "0.00"  # fmt: skip
    problem(await north.call("PATCH", "/v1/parties/north/wallets/USD", json=body), 403, "own_party")
    problem(await north.call("PATCH", "/v1/parties/north", json={"billing": "postpaid"}), 403, "own_party")  # fmt: skip
    problem(await north.call("PATCH", "/v1/parties/brook/wallets/USD", json=body), 404, "unknown_party")  # fmt: skip


async def test_a_frozen_party_is_shown_as_such(clients: dict[str, Api]) -> None:
    api = clients["operator"]
    frozen = await api.call("PATCH", "/v1/parties/acme", json={"status": "frozen"})
    assert frozen.json()["status"] == "frozen"
    taken = await send(api, "acme", {"to": "north", "amount": "1", "reason": "x"})
    problem(taken, 409, "party_frozen")
