"""A reseller runs its business with its own key: cards, plans, customers, limits, money, keys, calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.servers.isolation_world import Tree, make_tree
from tests.servers.management import problem
from tests.support import api as whole_api
from tests.support import until

SHEET = b"prefix,destination,price\n44,United Kingdom,0.6\n"


@pytest.fixture
def tree(database_url: str) -> Iterator[Tree]:
    made = make_tree(database_url)
    yield made
    made.world.close()


class Reseller:
    """Requests with a key of reseller A."""

    def __init__(self, tree: Tree, client: httpx.AsyncClient, parts: Any) -> None:
        self.tree, self.client, self.parts = tree, client, parts
        self.token = tree.tokens["ra"]
        self._sent = 0

    async def send(self, method: str, path: str, token: str = "", **options: Any) -> httpx.Response:
        """Send a request; every one with an Idempotency-Key of its own."""
        self._sent += 1
        headers = {
            "Authorization": f"Bearer {token or self.token}",
            "Idempotency-Key": str(self._sent),
            **options.pop("headers", {}),
        }
        return await self.client.request(method, path, headers=headers, **options)

    async def made(self, path: str, **options: Any) -> Any:
        """Create something; the answer's body."""
        answer = await self.send("POST", path, **options)
        assert answer.status_code == 201, answer.text
        return answer.json()


@pytest_asyncio.fixture
async def reseller(tree: Tree) -> AsyncIterator[Reseller]:
    async with whole_api(tree.world.url) as (client, parts):
        yield Reseller(tree, client, parts)


async def test_from_an_empty_card_to_the_first_call(reseller: Reseller) -> None:
    """The new customer calls with a key of its own, and its seller's wallet pays the seller's price."""
    card = await reseller.made("/v1/cards", json={"code": "my-uk", "currency": "USD"})
    assert card["owner"] == "ra"
    await reseller.made(
        "/v1/cards/my-uk/imports", content=SHEET, headers={"Content-Type": "text/csv"}
    )
    active = await reseller.send("POST", "/v1/cards/my-uk/activate", json={"version": 1})
    assert (active.status_code, active.json()["status"]) == (200, "active"), active.text
    await reseller.made(
        "/v1/plans", json={"code": "my-plan", "name": "Mine", "cards": [{"card": "my-uk"}]}
    )
    customer = await reseller.made(
        "/v1/parties",
        json={
            "code": "shop",
            "name": "Shop",
            "plan": "my-plan",
            "wallets": [{"currency": "USD", "credit_limit": "1"}],
        },
    )
    assert (customer["parent"], customer["plan"]) == ("ra", "my-plan")
    await reseller.made(
        "/v1/parties/ra/wallets/USD/transfers",
        json={"to": "shop", "amount": "9", "reason": "to begin with"},
    )
    key = await reseller.made(
        "/v1/keys", json={"name": "shop's switch", "scopes": ["charge"], "party": "shop"}
    )
    assert key["party"] == "shop"
    directory = reseller.parts.directory
    await until(lambda: "shop" in directory._by_code and directory.party("shop").wallets != {})
    await until(lambda: directory.plan_of(directory.party("shop").plan_id, "voice") is not None)

    async def called() -> bool:
        """The key is known a moment after it was made."""
        answer = await reseller.send(
            "POST",
            "/v1/sessions",
            token=key["secret"],
            json={"session_id": "c1", "party": "shop", "called": "442071838750"},
        )
        return answer.status_code == 200 and answer.json()["outcome"] == "granted"

    await until(called)
    stopped = await reseller.send(
        "POST", "/v1/sessions/c1/stop", token=key["secret"], json={"used_seconds": 60}
    )
    assert stopped.json()["charge"] == "0.600000"
    wallets = (await reseller.send("GET", "/v1/parties/shop/wallets")).json()["items"]
    assert [(w["balance"], w["available"]) for w in wallets] == [("8.40", "9.40")]
    own = (await reseller.send("GET", "/v1/parties/ra/wallets")).json()["items"]
    assert Decimal(own[0]["balance"]) == 5000 - 9 - Decimal("0.150607")
    # Its customer's key reaches its customer's calls, and nobody else's.
    refused = await reseller.send(
        "POST",
        "/v1/sessions",
        token=key["secret"],
        json={"session_id": "c2", "party": "ca", "called": "442071838750"},
    )
    problem(refused, 404, "unknown_party", "party")


async def test_it_sells_by_its_own_plans_of_its_own_cards_only(reseller: Reseller) -> None:
    for cards in (["zzwholesale-card"], ["zzb-card"], ["rs-retail-card"]):
        answer = await reseller.send(
            "POST",
            "/v1/plans",
            json={"code": "p", "name": "P", "cards": [{"card": card} for card in cards]},
        )
        problem(answer, 422, "unknown_card", "cards")
    for plan in ("zzwholesale-plan", "zzb-plan", "zzretail"):
        answer = await reseller.send("PATCH", "/v1/parties/ca", json={"plan": plan})
        problem(answer, 422, "unknown_plan", "plan")
    # The plan of a reseller below it does not stand above its own customer.
    answer = await reseller.send("PATCH", "/v1/parties/ca", json={"plan": "rs-retail-plan"})
    problem(answer, 422, "foreign_plan", "plan")


async def test_what_only_the_operator_makes_is_refused(reseller: Reseller) -> None:
    for body in (
        {"code": "n", "name": "N", "kind": "operator"},
        {"code": "n", "name": "N", "kind": "vendor"},
        {"code": "n", "name": "N", "kind": "reseller", "overcommit": "3"},
    ):
        problem(await reseller.send("POST", "/v1/parties", json=body), 403, "operator_only")
    funded = {"code": "n", "name": "N", "wallets": [{"currency": "USD", "top_up": "5"}]}
    problem(await reseller.send("POST", "/v1/parties", json=funded), 403, "use_transfer")
    problem(await reseller.send("GET", "/v1/parties/n"), 404, "unknown_party")


async def test_a_customer_with_the_operators_plan_keeps_it_when_its_reseller_changes_it(
    reseller: Reseller,
) -> None:
    """What the reseller cannot see it cannot lose."""
    world = reseller.tree.world
    world.sql(
        "UPDATE party SET plan_id = (SELECT id FROM rate_plan WHERE code = 'zzwholesale-plan')"
        " WHERE code = 'ca'"
    )
    changed = await reseller.send("PATCH", "/v1/parties/ca", json={"max_cps": 2})
    assert (changed.json()["plan"], changed.json()["max_cps"]) == (None, 2)
    plan = "SELECT r.code FROM party p JOIN rate_plan r ON r.id = p.plan_id WHERE p.code = 'ca'"
    assert world.one(plan) == "zzwholesale-plan"


async def test_children_are_bounded_by_the_share_that_the_operator_sets(
    reseller: Reseller,
) -> None:
    """A has 5000; its children have 100 and 1000, so that 3900 more fit."""
    operator = reseller.tree.tokens["zzoper"]
    answer = await reseller.send("PATCH", "/v1/parties/ra", operator, json={"overcommit": "1"})
    assert answer.json()["overcommit"] == "1.00"

    async def limit(amount: str) -> httpx.Response:
        body = {"credit_limit": amount, "reason": "x"}
        return await reseller.send("PATCH", "/v1/parties/ca/wallets/USD", json=body)

    sentence = problem(await limit("3900.01"), 409, "overcommitted")
    assert "may have 5000.00" in sentence
    assert (await limit("3900")).status_code == 200


async def test_the_tree_is_filtered_and_moved_over_http(reseller: Reseller) -> None:
    answer = await reseller.send("GET", "/v1/parties", params={"parent": "ra"})
    assert [party["code"] for party in answer.json()["items"]] == ["ca", "rs"]
    answer = await reseller.send("GET", "/v1/parties", params={"subtree": "rs"})
    assert [party["code"] for party in answer.json()["items"]] == ["cs", "rs"]
    problem(
        await reseller.send("GET", "/v1/parties", params={"subtree": "zzrb"}), 404, "unknown_party"
    )
    moved = await reseller.send(
        "POST",
        "/v1/parties/cs/move",
        json={"parent": "ra", "plan": "ra-retail-plan", "reason": "taken over"},
    )
    assert (moved.json()["parent"], moved.json()["plan"]) == ("ra", "ra-retail-plan")
    problem(
        await reseller.send(
            "POST", "/v1/parties/rs/move", json={"parent": "rs", "reason": "nowhere"}
        ),
        409,
        "cycle",
        "parent",
    )
    places = (await reseller.send("GET", "/v1/parties/cs/moves")).json()["items"]
    assert [place["reason"] for place in places] == ["", "taken over"]
