"""Plan terms, zones, time profiles, exchange rates and office codes over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.servers.management import Api, client_of, problem
from tests.support import CARD, PLAN, World, runtime

TERMS = f"/v1/plans/{PLAN}/terms"
WHOLE = {
    "promotions": [
        {
            "code": "spring",
            "percent": "10.00",
            "service": "voice",
            "destinations": ["europe"],
            "begins_at": "2026-03-01T00:00:00Z",
            "ends_at": None,
            "profile": "day",
            "parties": ["acme"],
        }
    ],
    "surcharges": [
        {
            "code": "noneea",
            "service": "voice",
            "absolute": "0.10",
            "percent": "0.00",
            "origins": [],
            "not_origins": ["europe"],
            "no_cli": True,
            "destinations": [],
        }
    ],
    "tiers": [
        {
            "code": "volume",
            "service": "voice",
            "period": "month",
            "retroactive": False,
            "destinations": ["44"],
            "steps": [
                {"from": 0, "price": "0.50", "percent": None},
                {"from": 1000, "price": "0.45", "percent": None},
            ],
        }
    ],
    "packages": [
        {
            "code": "free",
            "service": "voice",
            "units": 100,
            "period": "month",
            "destinations": ["44"],
            "exclusions": ["447"],
            "rollover": 0,
            "price": "0.00",
            "currency": "",
            "renew": True,
        }
    ],
    "fx_margin": "2.00",
    "commitment": {"amount": "500.00", "currency": "USD"},
    "refunds": [{"service": "sms", "undelivered": "full", "within_hours": 48}],
}


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with World(database_url) as made:
        made.customer("acme")
        yield made


@pytest.fixture
async def desk(world: World) -> AsyncIterator[Api]:
    token = world.key("read", "manage")
    async with runtime(world.url) as parts, client_of(parts, token) as client:
        await client.post("/v1/zones", json={"code": "europe", "prefixes": ["33", "44"]})
        await client.post(
            "/v1/time-profiles",
            json={
                "code": "day",
                "name": "By day",
                "timezone": "Europe/London",
                "windows": ["mon-fri 08:00-20:00"],
            },
        )
        yield Api(world, parts, client)


async def test_terms_come_back_whole_as_they_were_put(desk: Api) -> None:
    empty = (await desk.call("GET", TERMS)).json()
    assert empty == {
        "promotions": [],
        "surcharges": [],
        "tiers": [],
        "packages": [],
        "fx_margin": "0.00",
        "commitment": None,
        "refunds": [],
    }
    put = await desk.call("PUT", TERMS, json=WHOLE)
    assert put.status_code == 200, put.text
    assert put.json() == WHOLE == (await desk.call("GET", TERMS)).json()
    assert (await desk.call("PUT", TERMS, json={})).json() == empty
    assert desk.audited()[-2:] == ["plan.terms", "plan.terms"]


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"promotion": []}, "invalid_input", "promotion"),
        ({"fx_margin": 2}, "invalid_input", "fx_margin"),
        ({"tiers": [{"code": "a", "steps": []}]}, "invalid_input", "tiers.0.steps"),
        (
            {"tiers": [{"code": "a", "steps": [{"start": 0, "price": "1"}]}]},
            "invalid_input",
            "tiers.0.steps.0.from",
        ),
        (
            {"tiers": [{"code": "a", "steps": [{"from": 5, "price": "1"}]}]},
            "invalid_plan",
            "tiers[0].steps[0].from",
        ),
        (
            {"promotions": [{"code": "a", "percent": "5", "destinations": ["mars"]}]},
            "unknown_zone",
            "promotions[0].destinations[0]",
        ),
    ],
)
async def test_terms_that_are_wrong_are_refused_with_their_place(
    desk: Api, body: object, code: str, field: str
) -> None:
    problem(await desk.call("PUT", TERMS, json=body), 422, code, field)
    problem(await desk.call("PUT", "/v1/plans/none/terms", json={}), 404, "unknown_plan")


async def test_a_zone_is_made_listed_changed_and_deleted(desk: Api) -> None:
    made = await desk.call("POST", "/v1/zones", json={"code": "asia", "prefixes": ["81"]})
    assert (made.status_code, made.json()) == (
        201,
        {"code": "asia", "name": "asia", "prefixes": ["81"], "owner": None},
    )
    again = await desk.call("POST", "/v1/zones", json={"code": "asia", "prefixes": ["81"]})
    problem(again, 409, "zone_exists", "code")
    page = (await desk.call("GET", "/v1/zones", params={"limit": 1})).json()
    assert ([zone["code"] for zone in page["items"]], page["next"]) == (["asia"], "asia")
    changed = await desk.call("PATCH", "/v1/zones/asia", json={"prefixes": ["81", "82"]})
    assert changed.json()["prefixes"] == ["81", "82"]
    assert (await desk.call("GET", "/v1/zones/asia")).json() == changed.json()
    assert (await desk.call("DELETE", "/v1/zones/asia")).status_code == 204
    problem(await desk.call("GET", "/v1/zones/asia"), 404, "unknown_zone")


async def test_hours_are_made_listed_changed_and_deleted(desk: Api) -> None:
    body = {"windows": ["sat,sun 00:00-24:00", "fri 20:00-24:00"]}
    changed = await desk.call("PATCH", "/v1/time-profiles/day", json=body)
    assert changed.json() == {
        "code": "day",
        "name": "By day",
        "timezone": "Europe/London",
        "windows": body["windows"],
        "owner": None,
    }
    wrong = await desk.call("PATCH", "/v1/time-profiles/day", json={"windows": ["mon 8-20"]})
    problem(wrong, 422, "invalid_input", "windows.0")
    await desk.call("PUT", TERMS, json={"promotions": [WHOLE["promotions"][0]]})  # type: ignore[index]
    problem(await desk.call("DELETE", "/v1/time-profiles/day"), 409, "time_profile_in_use")
    await desk.call("PUT", TERMS, json={})
    assert (await desk.call("DELETE", "/v1/time-profiles/day")).status_code == 204
    assert (await desk.call("GET", "/v1/time-profiles")).json()["items"] == []


async def test_conditions_stand_with_the_cards_of_a_plan(desk: Api) -> None:
    desk.world.card("deck")
    cards = [
        {"card": "deck", "kind": "promotion", "when": {"origins": ["europe"], "cli": "cli"}},
        {"card": CARD, "kind": "fallback"},
    ]
    plan = (await desk.call("PUT", f"/v1/plans/{PLAN}", json={"cards": cards})).json()
    assert plan["cards"][0]["when"] == {
        "jurisdiction": "",
        "origins": ["europe"],
        "not_origins": [],
        "cli": "cli",
        "profile": "",
    }
    problem(
        await desk.call("PUT", f"/v1/plans/{PLAN}", json={"cards": cards[:1]}),
        422,
        "no_fallback",
        "cards",
    )


async def test_a_cost_plus_card_is_made_and_shown(desk: Api) -> None:
    body = {
        "code": "plus",
        "currency": "USD",
        "cost_card": CARD,
        "markup_percent": "15",
        "markup": "-0.001",
        "floor": "0.02",
    }
    made = await desk.call("POST", "/v1/cards", json=body)
    assert made.status_code == 201, made.text
    card = made.json()
    assert (card["cost_card"], card["markup_percent"], card["markup"]) == (CARD, "15.00", "-0.001")
    assert (card["floor"], card["ceiling"], card["per"], card["key"]) == (
        "0.02",
        None,
        60,
        "called",
    )
    wrong = await desk.call(
        "POST", "/v1/cards", json={"code": "x", "currency": "USD", "markup": "1"}
    )
    problem(wrong, 422, "invalid_input", "markup")
    other = await desk.call("POST", "/v1/cards", json={**body, "code": "y", "currency": "EUR"})
    problem(other, 422, "wrong_currency", "currency")


# --- exchange rates and office codes -------------------------------------------------------------


async def test_rates_are_set_imported_and_read_page_by_page(desk: Api) -> None:
    rate = {"base": "EUR", "quote": "USD", "day": "2026-03-02", "rate": "1.084712345678"}
    made = await desk.call("POST", "/v1/fx-rates", json=rate)
    assert (made.status_code, made.json()) == (201, {**rate, "source": "set"})
    lines = b"EUR,USD,2026-03-01,1.08\nEUR,GBP,2026-03-01,0.85\nEUR,GBP,soon,1\n"
    report = (await desk.call("POST", "/v1/fx-rates/imports", content=lines)).json()
    assert (report["given"], report["added"], report["refused"]) == (2, 2, 1)
    assert report["refusals"][0]["line"] == 3
    seen = []
    after: str | None = ""
    while after is not None:
        page = (await desk.call("GET", "/v1/fx-rates", params={"limit": 1, "after": after})).json()
        seen += [(r["day"], r["quote"]) for r in page["items"]]
        after = page["next"]
    assert seen == [("2026-03-02", "USD"), ("2026-03-01", "GBP"), ("2026-03-01", "USD")]
    found = (
        await desk.call("GET", "/v1/fx-rates", params={"day": "2026-03-05", "quote": "USD"})
    ).json()
    assert [r["day"] for r in found["items"]] == ["2026-03-02"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("rate", "1,08"), ("rate", 1.08), ("day", "March"), ("base", "eur"), ("rate", "-1")],
)
async def test_what_is_no_rate_is_refused(desk: Api, field: str, value: object) -> None:
    body = {"base": "EUR", "quote": "USD", "day": "2026-03-02", "rate": "1.08", field: value}
    problem(await desk.call("POST", "/v1/fx-rates", json=body), 422, "invalid_input", field)
    problem(
        await desk.call("GET", "/v1/fx-rates", params={"day": "March"}), 422, "invalid_input", "day"
    )


async def test_a_file_that_is_none_is_refused(desk: Api) -> None:
    problem(await desk.call("POST", "/v1/fx-rates/imports", content=b"<html>"), 422, "not_fx_rates")
    problem(await desk.call("POST", "/v1/nanp/imports", content=b"a,b\n"), 422, "not_office_codes")


async def test_office_codes_are_imported(desk: Api) -> None:
    lines = b"npa,nxx,state\n212,555,NY\n999,999,here\n"
    made = await desk.call("POST", "/v1/nanp/imports", content=lines)
    assert made.status_code == 201, made.text
    report = made.json()
    assert (report["given"], report["changed"], report["known"], report["refused"]) == (1, 1, 1, 1)


async def test_a_resellers_key_makes_its_own_and_sets_no_rates(desk: Api) -> None:
    """Exchange rates and office codes are the operator's; zones of others are not seen."""
    north = desk.world.customer("north")
    desk.world.sql("UPDATE party SET kind = 'reseller' WHERE id = %s", north.id)
    token = desk.world.key("read", "manage")
    desk.world.sql(
        "UPDATE api_key SET party_id = %s WHERE id = (SELECT max(id) FROM api_key)", north.id
    )
    await desk.parts.directory.load()
    async with client_of(desk.parts, token) as client:
        assert (await client.get("/v1/zones")).json()["items"] == []
        made = await client.post("/v1/zones", json={"code": "mine", "prefixes": ["44"]})
        assert made.json()["owner"] == "north"
        problem(await client.get(TERMS), 404, "unknown_plan")
        problem(await client.patch("/v1/zones/europe", json={"name": "x"}), 404, "unknown_zone")
        rate = {"base": "EUR", "quote": "USD", "day": "2026-03-02", "rate": "1.08"}
        problem(await client.post("/v1/fx-rates", json=rate), 403, "operator_only")
        problem(await client.post("/v1/fx-rates/imports", content=b"x"), 403, "operator_only")
        problem(await client.post("/v1/nanp/imports", content=b"x"), 403, "operator_only")
        assert (await client.get("/v1/fx-rates")).status_code == 200
