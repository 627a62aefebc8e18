"""The management routes over HTTP: parties, plans, wallets and statements as a client sees them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal

import httpx
import pytest
import pytest_asyncio

from tests.servers.management import STATEMENT, TOPUPS, Api, client_of, problem
from tests.support import CARD, PLAN, World, runtime, until


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with World(database_url) as made:
        yield made


@pytest_asyncio.fixture
async def api(world: World) -> AsyncIterator[Api]:
    token = world.key("manage")
    async with runtime(world.url) as parts, client_of(parts, token) as client:
        yield Api(world, parts, client)


# --- the first minutes ---------------------------------------------------------------------------


async def test_a_customer_is_created_funded_and_live_in_one_request(api: Api) -> None:
    """A1: afterwards it can be charged at once, by a process that was running before."""
    made = await api.call(
        "POST",
        "/v1/parties",
        json={
            "code": "acme",
            "name": "Acme Telecom",
            "plan": PLAN,
            "max_sessions": 30,
            "dial_rules": {"tech_prefix": "77#"},
            "wallets": [
                {"currency": "USD", "top_up": "25.5", "reason": "first payment"},
                {"currency": "EUR", "credit_limit": "100"},
            ],
        },
    )
    assert made.status_code == 201, made.text
    party = made.json()
    eur, usd = party["wallets"]
    assert usd == {
        "currency": "USD",
        "balance": "25.50",
        "held": "0.00",
        "available": "25.50",
        "credit_limit": "0.00",
        "limit": "0.00",
        "temporary_limit": None,
        "daily_cap": None,
        "monthly_cap": None,
        "alert_at": [],
        "live_sessions": 0,
        "parked": False,
    }
    assert (eur["balance"], eur["available"]) == ("0.00", "100.00")
    assert (party["plan"], party["max_cost"], party["max_sessions"]) == (PLAN, None, 30)
    assert party["dial_rules"]["international"] == ["00", "011"]
    assert (await api.call("GET", "/v1/parties/acme")).json() == party
    assert api.audited() == ["party.create", "wallet.create", "wallet.topup", "wallet.create"]

    await until(lambda: "acme" in api.parts.directory._by_code)
    await until(lambda: len(api.parts.directory.party("acme").wallets) == 2)
    reply, _ = await api.parts.charging.authorise(
        switch="sw1", session_id="c1", party="acme", called="77#442071838750"
    )
    assert reply.outcome == "granted"
    wallets = (await api.call("GET", "/v1/parties/acme/wallets")).json()["items"]
    assert wallets[1]["live_sessions"] == 1
    assert Decimal(wallets[1]["held"]) > 0
    assert Decimal(wallets[1]["available"]) == Decimal("25.5") - Decimal(wallets[1]["held"])


async def test_a_party_that_cannot_be_made_whole_is_not_made(api: Api) -> None:
    body = {"code": "acme", "name": "A", "wallets": [{"currency": "USD"}, {"currency": "USD"}]}
    answer = await api.call("POST", "/v1/parties", json=body)
    problem(answer, 409, "wallet_exists", "currency")
    problem(await api.call("GET", "/v1/parties/acme"), 404, "unknown_party")
    assert api.audited() == []


async def test_creating_a_party_may_be_repeated_under_one_key(api: Api) -> None:
    body = {"code": "acme", "name": "A", "wallets": [{"currency": "USD", "top_up": "1"}]}
    headers = {"Idempotency-Key": "make-acme"}
    first = await api.call("POST", "/v1/parties", json=body, headers=headers)
    again = await api.call("POST", "/v1/parties", json=body, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["Idempotent-Replayed"] == "true"
    problem(await api.call("POST", "/v1/parties", json=body), 409, "party_exists", "code")


async def test_a_party_is_changed_field_by_field(api: Api) -> None:
    acme = api.world.customer(max_cps=3)
    changed = await api.call(
        "PATCH", "/v1/parties/acme", json={"status": "suspended", "plan": None, "max_cost": "0.5"}
    )
    party = changed.json()
    assert (party["status"], party["plan"], party["max_cost"]) == ("suspended", None, "0.50")
    assert (party["max_cps"], party["name"]) == (3, "Acme")
    heard = api.parts.directory.entry
    await until(lambda: (entry := heard(acme.id)) is not None and entry.limits.suspended)


async def test_parties_and_plans_are_listed_page_by_page(api: Api) -> None:
    for n in range(5):
        api.world.customer(f"c{n}")
        made = await api.call("POST", "/v1/plans", json={"code": f"p{n}", "name": "P"})
        assert made.status_code == 201
    for path, expected in (
        ("/v1/parties", [f"c{n}" for n in range(5)]),
        ("/v1/plans", [*(f"p{n}" for n in range(5)), PLAN]),
    ):
        codes: list[str] = []
        after: str | None = ""
        while after is not None:
            page = await api.call("GET", path, params={"limit": 2, "after": after})
            codes += [item["code"] for item in page.json()["items"]]
            after = page.json()["next"]
        assert codes == expected


async def test_a_plan_is_made_and_its_cards_replaced(api: Api) -> None:
    api.world.card("promo", [])
    made = await api.call(
        "POST", "/v1/plans", json={"code": "gold", "name": "Gold", "cards": [{"card": CARD}]}
    )
    assert [(card["card"], card["kind"]) for card in made.json()["cards"]] == [(CARD, "plan")]
    assert not any(made.json()["cards"][0]["when"].values()), "a card counts always"
    cards = [{"card": CARD}, {"card": "promo", "kind": "promotion"}]
    changed = await api.call("PUT", "/v1/plans/gold", json={"cards": cards})
    assert [card["card"] for card in changed.json()["cards"]] == ["promo", CARD]
    assert (await api.call("GET", "/v1/plans/gold")).json() == changed.json()
    answer = await api.call("PUT", "/v1/plans/gold", json={"cards": [{"card": "none"}]})
    assert 'no rate card "none"' in problem(answer, 422, "unknown_card", "cards")


async def test_a_partys_calls_are_split_at_a_change_of_price_if_it_says_so(api: Api) -> None:
    api.world.customer()
    assert (await api.call("GET", "/v1/parties/acme")).json()["rate_change"] == "pin"
    changed = await api.call("PATCH", "/v1/parties/acme", json={"rate_change": "split"})
    assert changed.json()["rate_change"] == "split"
    assert api.world.one("SELECT rate_change FROM party WHERE code = 'acme'") == "split"
    answer = await api.call("PATCH", "/v1/parties/acme", json={"rate_change": "guess"})
    problem(answer, 422, "invalid_input", "rate_change")


# --- money ---------------------------------------------------------------------------------------


async def test_a_top_up_is_answered_with_its_entry_and_the_wallet(api: Api) -> None:
    api.world.customer(balance="0")
    answer = await api.top_up({"amount": "0.00000001", "reason": "smallest"})
    assert answer.status_code == 201, answer.text
    entry, wallet = answer.json()["entry"], answer.json()["wallet"]
    assert (entry["amount"], entry["balance_after"]) == ("0.00000001", "0.00000001")
    assert (entry["code"], entry["reason"], entry["version"]) == ("topup", "smallest", 1)
    assert entry["actor"].startswith("key ")
    assert wallet["balance"] == "0.00000001"


async def test_a_repeated_top_up_is_done_once_and_answered_the_same(api: Api) -> None:
    acme = api.world.customer(balance="0")
    body = {"amount": "10", "reason": "wire"}
    first = await api.top_up(body)
    assert "Idempotent-Replayed" not in first.headers
    # Written otherwise, but the same request.
    again = await api.top_up({"reason": "wire", "amount": "10", "kind": "topup"})
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["Idempotent-Replayed"] == "true"
    problem(
        await api.top_up({"amount": "11", "reason": "wire"}),
        409,
        "idempotency_key_reused",
        "Idempotency-Key",
    )
    assert api.world.wallet(acme).balance == 10


async def test_top_ups_with_one_key_that_race_are_done_once(api: Api) -> None:
    acme = api.world.customer(balance="0")
    body = {"amount": "10", "reason": "wire"}
    answers = await asyncio.gather(*(api.top_up(body) for _ in range(8)))
    assert {(a.status_code, a.content) for a in answers} == {(201, answers[0].content)}
    assert sum("Idempotent-Replayed" not in a.headers for a in answers) == 1
    assert api.world.wallet(acme).version == 1


async def test_a_top_up_needs_an_idempotency_key(api: Api) -> None:
    acme = api.world.customer(balance="0")
    body = {"amount": "10", "reason": "wire"}
    answer = await api.call("POST", TOPUPS, json=body)
    problem(answer, 400, "header_missing", "Idempotency-Key")
    for key in ("", " ", "x" * 256):
        problem(await api.top_up(body, key), 422, "invalid_input", "Idempotency-Key")
    assert api.world.wallet(acme).version == 0


async def test_taking_out_more_than_there_is_is_refused(api: Api) -> None:
    api.world.customer(balance="5")
    answer = await api.top_up({"amount": "5.01", "reason": "refund", "kind": "withdrawal"})
    assert "only 5.00 USD" in problem(answer, 409, "insufficient_funds", "amount")
    done = await api.top_up({"amount": "5", "reason": "refund", "kind": "withdrawal"})
    assert done.json()["entry"]["amount"] == "-5.00"


@pytest.mark.parametrize(
    "amount",
    [
        "1e400", "NaN", "Infinity", "-Infinity", "10", "0.1", "true", "null", "[]", "{}", '""', '"0"', '"-1"',
        '"0.000000001"', '"1000000000000000"', '"1e3"', '"NaN"', '"Infinity"', '"1,5"', '" 1"', '"\\u0661"',
        '"1_0"', '"1\\u0000"', '"\\ud800"', "9" * 5000, '"' + "9" * 5000 + '"',
    ],
)  # fmt: skip
async def test_money_is_a_plain_positive_string_and_nothing_else(api: Api, amount: str) -> None:
    acme = api.world.customer(balance="0")
    body = f'{{"reason": "x", "amount": {amount}}}'
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    answer = await api.call("POST", TOPUPS, content=body.encode(), headers=headers)
    assert answer.status_code in {400, 422}
    sentence = problem(
        answer, answer.status_code, answer.json()["code"], answer.json().get("field")
    )
    assert answer.status_code == 400 or "amount" in sentence or "digits" in sentence
    assert api.world.wallet(acme).version == 0


async def test_a_wallet_is_made_bounded_and_parked(api: Api) -> None:
    api.world.customer()
    path = "/v1/parties/acme/wallets"
    made = await api.call("POST", path, json={"currency": "EUR", "credit_limit": "50"})
    assert (made.status_code, made.json()["available"]) == (201, "50.00")
    problem(
        await api.call("POST", path, json={"currency": "EUR"}), 409, "wallet_exists", "currency"
    )
    changed = await api.call(
        "PATCH", f"{path}/EUR", json={"credit_limit": "20", "parked": True, "reason": "late"}
    )
    assert (changed.json()["credit_limit"], changed.json()["parked"]) == ("20.00", True)
    answer = await api.call("PATCH", f"{path}/EUR", json={"credit_limit": "20"})
    assert problem(answer, 422, "invalid_input", "reason") == "reason: it must be given"


async def test_unknown_parties_and_wrong_currencies_are_named(api: Api) -> None:
    api.world.customer()
    body = {"amount": "1", "reason": "x"}
    headers = {"Idempotency-Key": "k"}

    async def post(path: str) -> httpx.Response:
        return await api.call("POST", path, json=body, headers=headers)

    answer = await post("/v1/parties/nobody/wallets/USD/topups")
    assert "nobody" in problem(answer, 404, "unknown_party")
    answer = await post("/v1/parties/acme/wallets/EUR/topups")
    assert problem(answer, 404, "unknown_wallet") == "acme has no wallet in EUR"
    problem(await post("/v1/parties/acme/wallets/eur/topups"), 422, "invalid_input", "currency")


async def test_a_statement_shows_each_entry_between_two_balances(api: Api) -> None:
    api.world.customer(balance="0")
    for n, kind in enumerate(("topup", "withdrawal", "adjust_up"), 1):
        await api.top_up({"amount": str(10 - n), "reason": f"r{n}", "kind": kind}, f"k{n}")
    page = (await api.call("GET", STATEMENT, params={"limit": 2})).json()
    assert (page["opening_balance"], page["closing_balance"]) == ("0.00", "8.00")
    assert [e["amount"] for e in page["entries"]] == ["9.00", "-8.00"]
    assert [e["balance_after"] for e in page["entries"]] == ["9.00", "1.00"]
    assert page["entries"][0]["reason"] == "r1"
    assert page["entries"][0]["session"] is None
    rest = (await api.call("GET", STATEMENT, params={"after": page["next"]})).json()
    assert [e["amount"] for e in rest["entries"]] == ["7.00"]
    assert rest["next"] is None
    old = await api.call("GET", STATEMENT, params={"from": "2024-01-01", "to": "2024-02-01"})
    assert (old.json()["from"], old.json()["entries"]) == ("2024-01-01T00:00:00Z", [])


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=yesterday", "from"),
        ("from=", "from"),
        ("from=2026-01-01T00:00:00", "from"),
        ("from=0001-01-01T00:00:00%2B23:59", "from"),
        ("to=9999-12-31T23:59:59-23:59", "to"),
        ("to=99999999999999999999", "to"),
        ("from=2026-02-01&to=2026-01-01", "from"),
        ("from=2024-01-01&to=2026-01-01", "from"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=1e400", "limit"),
        ("after=-1", "after"),
        ("after=99999999999999999999999999", "after"),
        ("limit=1&limit=2", "limit"),
        ("form=2026-01-01", "form"),
    ],
)
async def test_a_wrong_parameter_is_named(api: Api, query: str, field: str) -> None:
    api.world.customer()
    answer = await api.call("GET", f"{STATEMENT}?{query}")
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] == field
    assert answer.json()["detail"].startswith(f"{field}: ")
