"""Explaining everything that is sold: each level, step, part, package and refund, by figures worked by hand."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from rich.console import Console

from tests.support import UK_FIXED, Customer, Row, World, api, runtime, tariff
from tollkeeper.cli.explained import render
from tollkeeper.core.reasons import Reason
from tollkeeper.services.explain import Explanation, explain
from tollkeeper.services.verify import verify

D = Decimal
MB = 1_000_000
TIER = {"code": "volume", "steps": [{"from": 0, "price": "0.60"}, {"from": 2, "price": "0.30"}]}


class Desk:
    """A process that charges acme, and the pages that explain it."""

    def __init__(self, world: World, parts: Any, acme: Customer) -> None:
        self.world, self.parts, self.acme = world, parts, acme

    async def call(self, name: str, seconds: int, **more: Any) -> Any:
        """A whole call of acme."""
        reply = await self.up(name, seconds, **more)
        await self.parts.charging.start(switch="sw1", session_id=name)
        reply, _ = await self.parts.charging.stop(
            switch="sw1", session_id=name, used_ms=seconds * 1000
        )
        return reply

    async def up(self, name: str, seconds: int, **more: Any) -> Any:
        """A call that is begun."""
        reply, _ = await self.parts.charging.authorise(
            switch="sw1", session_id=name, party="acme",
            **{"called": UK_FIXED, "requested_seconds": seconds, **more},
        )  # fmt: skip
        return reply

    async def event(self, name: str, **more: Any) -> Any:
        """Charge acme for something at once."""
        reply, _ = await self.parts.charging.charge_event(
            switch="sw1", event_id=name, party="acme", **more
        )
        return reply

    async def refund(self, name: str, units: int | None) -> None:
        """Give it back."""
        await self.parts.charging.refund(switch="sw1", event_id=name, units=units)

    async def explain(self, name: str, scope: int | None = None) -> Explanation:
        """Explain a session to somebody."""
        return await explain(self.parts.database, f"sw1/{name}", scope=scope)

    async def page(self, name: str, scope: int | None = None) -> str:
        """What the command prints, on one line, so that the layout does not matter."""
        console = Console(width=300, record=True, file=io.StringIO())
        console.print(render(await self.explain(name, scope)), markup=False)
        return " ".join(console.export_text().split())


@asynccontextmanager
async def selling(
    url: str, rows: list[Row], terms: dict[str, Any] | None = None, *, now: datetime | None = None,
    card: dict[str, Any] | None = None, **columns: Any,
) -> AsyncIterator[Desk]:  # fmt: skip
    """Acme on a plan of one card, at a moment that does not pass; the books hold afterwards."""
    moment = now or datetime.now(UTC)
    with World(url) as world:
        plan = world.plan("terms", world.card("card", rows, **(card or {})), terms=terms)
        acme = world.customer(plan=plan, **columns)
        async with runtime(url, clock=lambda: moment) as parts:
            yield Desk(world, parts, acme)
            report = await verify(parts.database)
            assert report.clean, report.findings


def voice(price: str) -> list[Row]:
    """A card that sells the world by the second."""
    return [Row("", "World", tariff(price))]


@asynccontextmanager
async def tree(
    url: str, *, north_money: str = "100"
) -> AsyncIterator[tuple[Desk, Customer, Customer]]:
    """Acme below south below north, each by a plan of its own.

    acme pays 0.60 USD/min less 10 %; south 0.48 for its first two minutes of a month and 0.30 from then
    on, where its card says 0.50; north 0.20 USD/min in euros, at 0.80 with a margin of 5 %.
    """
    with World(url) as world:
        world.fx("USD", "EUR", "0.80")
        plans = {
            "gold": (
                world.card("retail", [Row("44", "United Kingdom", tariff("0.60"))]),
                {"promotions": [{"code": "launch", "percent": "10"}]},
            ),
            "middle": (
                world.card("middle", voice("0.50")),
                {
                    "tiers": [
                        {
                            "code": "volume",
                            "steps": [{"from": 0, "price": "0.48"}, {"from": 2, "price": "0.30"}],
                        }
                    ]
                },
            ),
            "top": (world.card("top", voice("0.20")), {"fx_margin": "5"}),
        }
        ids = {code: world.plan(code, card, terms=terms) for code, (card, terms) in plans.items()}
        north = world.reseller("north", plan=ids["top"], currency="EUR", balance=north_money)
        south = world.reseller("south", plan=ids["middle"], parent=north)
        acme = world.customer(plan=ids["gold"], parent=south)
        async with runtime(url) as parts:
            yield Desk(world, parts, acme), south, north
            report = await verify(parts.database)
            assert report.clean, report.findings


# --- the tree ------------------------------------------------------------------------------------


async def test_each_level_of_a_call_can_be_done_again_from_its_card(database_url: str) -> None:
    """The second call of 90 s: 0.81 USD by the promotion; 30 s at 0.48 and 60 s at 0.30; 0.252 EUR."""
    async with tree(database_url) as (desk, _south, _north):
        await desk.call("first", 90)
        await desk.call("second", 90)
        found = await desk.explain("second")
        page = await desk.page("second")
    assert [(leg.role, leg.party, leg.charged, leg.currency) for leg in found.legs] == [
        ("customer", "acme", D("0.81"), "USD"),
        ("reseller", "south", D("0.54"), "USD"),
        ("reseller", "north", D("0.252"), "EUR"),
    ]
    assert all(leg.agrees for leg in found.legs)
    acme, south, north = found.legs
    assert acme.rate.on_card is not None
    assert (acme.rate.on_card.tariff.next_price, acme.rate.tariff.next_price) == (
        D("0.6"),
        D("0.54"),
    )
    assert north.rate.on_card is not None
    assert (north.rate.on_card.currency, north.rate.tariff.next_price) == ("USD", D("0.168"))
    assert [(p.units, p.price, p.amount, p.before, p.after, p.crossed) for p in south.parts] == [
        (30, D("0.48"), D("0.24"), 90, 120, 120),
        (60, D("0.30"), D("0.30"), 120, 180, None),
    ]
    day = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}"
    for words in (
        'Rate: card retail version 1, row 1: prefix "44" = United Kingdom on the card: 0.60 USD/min, 1/1 s',
        "promotion launch: 10.00 % off: price 0.60 -> 0.54",
        "pinned at 0.54 USD/min",
        "Charge: 0.81 USD",
        "30 s x 0.48/min = 0.24 (tier volume (",
        "volume 90 s -> 120 s, step from 0 s: 0.48; the step from 120 s is reached",
        "+ 60 s x 0.30/min = 0.30 (tier volume (",
        "volume 120 s -> 180 s, step from 120 s: 0.30",
        "Charge: 0.54 USD",
        f"fx USD/EUR: 1 USD = 0.80 EUR (USD/EUR 0.8 test, {day}) + 5.00 % = 0.84: price 0.20 -> 0.168",
        "pinned at 0.168 EUR/min",
        "Charge: 0.252 EUR",
        "wallet:north -> revenue:voice",
    ):
        assert words in page, words


async def test_whoever_stands_below_sees_nothing_of_those_above(database_url: str) -> None:
    """South sees its own leg and its customer's; acme only its own, and no card of another."""
    async with tree(database_url) as (desk, south, _north):
        await desk.call("c", 30)
        both = await desk.explain("c", south.id)
        own = await desk.explain("c", desk.acme.id)
        page = await desk.page("c", desk.acme.id)
    assert [(leg.number, leg.party) for leg in both.legs] == [(0, "acme"), (1, "south")]
    assert [leg.party for leg in own.legs] == ["acme"]
    assert all(leg.agrees and leg.entries for leg in (*both.legs, *own.legs))
    # Neither card is its own, so neither says where its prices come from.
    assert [leg.rate.on_card for leg in both.legs] == [None, None]
    assert own.legs[0].price.amount == D("0.27")
    for hidden in ("south", "north", "card retail", "0.48", "0.168"):
        assert hidden not in page


async def test_a_refusal_names_the_level_to_those_who_may_know_it(database_url: str) -> None:
    """North has no money: the operator reads so, its children only that it is further up."""
    async with tree(database_url, north_money="0") as (desk, south, north):
        await desk.up("no", 60)
        told = {
            who: (found.story, found.refused_by, found.messages[0].refused_by)
            for who, scope in (("operator", None), ("north", north.id), ("south", south.id))
            for found in (await desk.explain("no", scope),)
        }
        page = await desk.page("no")
        shown = await desk.explain("no", south.id)
    named = "Refused: insufficient funds, at north. Nothing was held or charged."
    assert told["operator"] == told["north"] == (named, "north", "north")
    assert told["south"] == ("Refused: upstream refused. Nothing was held or charged.", "", "")
    assert shown.session.reason is shown.messages[0].reply.reason is Reason.UPSTREAM
    assert "or no more of it (at north)" in page


# --- events --------------------------------------------------------------------------------------


async def test_a_message_in_segments_and_what_was_given_back(database_url: str) -> None:
    """3 x 0.035 = 0.105; one was not delivered: 2 x 0.035 = 0.07 stay charged."""
    rows = [Row("44", "United Kingdom", tariff("0.035"))]
    async with selling(database_url, rows, card={"service": "sms", "per": 1}) as desk:
        await desk.event("sms", called=UK_FIXED, segments=3)
        (leg,) = (await desk.explain("sms")).legs
        assert (leg.price.note, leg.price.exact) == ("3 segments x 0.035", D("0.105"))
        page = await desk.page("sms")
        assert "Charged 0.105 USD for 3 segments, at once." in page
        assert "Sum: 3 segments x 0.035 = 0.105" in page
        assert "0.035 USD per segment" in page
        for wrong in ("/min", "set aside", "refund", " s "):
            assert wrong not in page, wrong

        await desk.refund("sms", 1)
        found = await desk.explain("sms")
        page = await desk.page("sms")
        assert found.story == (
            "Charged 0.105 USD for 3 segments, at once. Refunded 0.035 USD for 1 segment of 3 segments."
        )
        assert (found.legs[0].charged, found.legs[0].agrees) == (D("0.07"), True)
        assert found.legs[0].hold.refunded == D("0.035")
        assert "Used: 3 segments used, 1 segment given back" in page
        assert "Sum: 2 segments x 0.035 = 0.07 Charge: 0.07 USD" in page
        assert "for 1 segment" in page

        await desk.refund("sms", None)
        found = await desk.explain("sms")
        assert found.story.endswith("Refunded 0.105 USD for all of it.")
        assert (found.legs[0].charged, found.legs[0].agrees) == (0, True)
        assert "refund for everything" in await desk.page("sms")


async def test_the_api_tells_the_same(database_url: str) -> None:
    """Steps, parts, refunds: a refund of everything has no number of units."""
    terms = {"tiers": [{**TIER, "service": "sms"}], "promotions": [{"code": "p", "percent": "50"}]}
    with World(database_url) as world:
        card = world.card("card", voice("0.60"), service="sms", per=1)
        world.customer(plan=world.plan("terms", card, terms=terms))
        headers = {"authorization": f"Bearer {world.key('read', 'charge')}"}
        async with api(database_url) as (client, _):
            body = {"event_id": "e", "party": "acme", "called": UK_FIXED, "segments": 3}
            await client.post("/v1/events", json=body, headers=headers)
            given = {"reason": "undelivered"}
            await client.post("/v1/events/e/refund", json=given, headers=headers)
            answer = await client.get("/v1/sessions/e/explain", headers=headers)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    (leg,) = found["legs"]
    assert (found["session"]["unit"], found["session"]["refunded_ms"]) == ("message", 3000)
    assert (leg["card_row"]["tariff"]["next_price"], leg["tariff"]["next_price"]) == (
        "0.60",
        "0.30",
    )
    assert leg["steps"] == [
        {"kind": "promotion", "name": "p", "detail": "50.00 % off: price 0.60 -> 0.30"}
    ]
    parts = [(p["units"], p["price"], p["amount"], p["before"], p["crossed"]) for p in leg["parts"]]
    # By the promotion the steps of the tier are at half as well.
    assert parts == [
        (2, "0.30", "0.60", "0", 2),
        (1, "0.15", "0.15", "2", None),
        (-1, "0.15", "-0.15", "3", None),
        (-2, "0.30", "-0.60", "2", None),
    ]
    assert (leg["charged"], leg["amount"], leg["agrees"]) == ("0.00", "0.00", True)
    assert leg["hold"]["refunded"] == "0.75"
    assert [m["request"].get("units", "-") for m in found["messages"]] == [3, None]


async def test_a_fee_of_its_own_stands_on_no_card(database_url: str) -> None:
    """A fee of 9 USD for 10 of 30 days: the step says by what share."""
    from tollkeeper.services.offers import Fixed

    async with selling(database_url, voice("0.6")) as desk:
        fixed = Fixed("Porting", D(9), "USD")
        await desk.event("fee", called="porting", service="fee", fixed=fixed, share=(10, 30))
        (leg,) = (await desk.explain("fee")).legs
        page = await desk.page("fee")
    assert (leg.charged, leg.rate.on_card, leg.agrees) == (D(3), None, True)
    assert "Rate: Porting prorated 10 of 30 days: price 9.00 -> 3.00" in page
    assert "Sum: 1 item x 3.00 = 3.00" in page


# --- data ----------------------------------------------------------------------------------------


async def test_a_data_session_is_told_in_megabytes(database_url: str) -> None:
    """25,000,001 bytes by the 10,000 are 25.01 MB at a cent: 0.2501 dollars."""
    rows = [Row("", "Home", tariff("0.01", 10_000, 10_000))]
    async with selling(database_url, rows, card={"service": "data", "per": MB}) as desk:
        await desk.up("d", 30 * MB, called="internet", service="data")
        page = await desk.page("d")
        assert "Still open: 0 MB used so far; 30 MB were granted in all." in page
        await desk.parts.charging.stop(switch="sw1", session_id="d", used_ms=25_000_001_000)
        (leg,) = (await desk.explain("d")).legs
        page = await desk.page("d")
    assert (leg.price.billed_seconds, leg.charged, leg.agrees) == (25_010_000, D("0.2501"), True)
    for words in (
        "Settled after 25.000001 MB of use; 30 MB were granted in all.",
        "0.01 USD/MB, 10000/10000 bytes",
        "25.000001 MB used, 25.01 MB billed (first 10000 bytes, then steps of 10000)",
        "Sum: 25.01 MB x 0.01/MB = 0.2501",
        "Hold: 0.30 USD was set aside; 0.2501 settled, 0.0499 released",
    ):
        assert words in page, words
    assert "/min" not in page


# --- what meters decide --------------------------------------------------------------------------


async def test_a_package_that_ends_within_a_call(database_url: str) -> None:
    """Two minutes are included: after 75 s of them 45 are left; 90 s cost 45 x 0.01 = 0.45."""
    terms = {"packages": [{"code": "two", "units": 2}]}
    async with selling(database_url, voice("0.6"), terms) as desk:
        await desk.call("a", 75)
        await desk.up("b", 90)
        page = await desk.page("b")
        assert "Hold: 45 s of the package two are set aside" in page
        await desk.call("b", 90)
        (leg,) = (await desk.explain("b")).legs
        page = await desk.page("b")
    assert [(p.kind, p.units, p.amount, p.left) for p in leg.parts] == [
        ("package", 45, 0, 45),
        ("rate", 45, D("0.45"), None),
    ]
    assert (leg.charged, leg.agrees) == (D("0.45"), True)
    assert "Sum: 45 s of the package two (" in page
    assert ") (45 s were left, 0 s after it) + 45 s x 0.60/min = 0.45 Charge: 0.45 USD" in page


async def test_a_retroactive_step_gives_back_for_what_came_before(database_url: str) -> None:
    """90 s at 0.60; then 60 s at 0.30 are 0.30, and 90 s x -0.30/min are -0.45: 0.15 is given back."""
    terms = {"tiers": [{**TIER, "retroactive": True}]}
    async with selling(database_url, voice("0.6"), terms) as desk:
        await desk.call("a", 90)
        await desk.call("b", 60)
        (leg,) = (await desk.explain("b")).legs
        page = await desk.page("b")
        assert (leg.charged, leg.price.exact, leg.agrees) == (D("-0.15"), D("-0.15"), True)
        assert leg.hold.rebated == D("0.15")
        for words in (
            "60 s x 0.30/min = 0.30 (tier volume (",
            "volume 90 s -> 150 s, step from 120 s: 0.30; the step from 120 s is reached",
            "90 s x (0.30 - 0.60)/min = -0.45 (tier volume, the step from 120 s is reached, for the 90 s before",
            "Charge: -0.15 USD",
            "0.15 USD was given back by the volume (rebate)",
        ):
            assert words in page, words

        # Refunded, the volume falls below its step, and the rebate is due again.
        await desk.refund("b", None)
        (leg,) = (await desk.explain("b")).legs
        assert (leg.charged, leg.agrees) == (0, True)
        page = await desk.page("b")
        assert "-60 s x 0.30/min = -0.30, taken back" in page
        assert (
            "= 0.45 (tier volume, the step from 120 s is left again, for the 90 s that remain"
            in page
        )


async def test_percents_of_the_list_price(database_url: str) -> None:
    """From the second minute on 80 %, also of what came before: 60 x 0.008 - 20 % of 0.60 = 0.36."""
    steps = [{"from": 0, "percent": "100"}, {"from": 1, "percent": "80"}]
    terms = {"tiers": [{"code": "v", "steps": steps, "retroactive": True}]}
    async with selling(database_url, voice("0.6"), terms) as desk:
        await desk.call("a", 59)
        await desk.call("b", 60)
        (leg,) = (await desk.explain("b")).legs
        page = await desk.page("b")
    assert (leg.charged, leg.agrees) == (D("0.362"), True)
    assert "60 s x 0.48/min = 0.48 (tier v (" in page
    assert "step from 60 s: 80 % of 0.60" in page
    assert "0.59 at list prices x (80 % - 100 %) = -0.118" in page


async def test_a_rate_that_changes_while_the_call_is_up(database_url: str) -> None:
    """Half the price from a minute on: 60 s x 0.60 and 60 s x 0.30, told with the offset."""
    now = datetime.now(UTC)
    begins = now + timedelta(seconds=60)
    terms = {"promotions": [{"code": "half", "percent": "50", "begins_at": begins.isoformat()}]}
    async with selling(database_url, voice("0.6"), terms, now=now, rate_change="split") as desk:
        await desk.call("s", 120)
        (leg,) = (await desk.explain("s")).legs
        page = await desk.page("s")
    assert [(p.kind, p.units, p.offset) for p in leg.parts] == [("rate", 60, 0), ("later", 60, 60)]
    assert (leg.charged, leg.agrees) == (D("0.90"), True)
    assert "60 s x 0.60/min = 0.60 (at the rate of the beginning)" in page
    assert "60 s x 0.30/min = 0.30 (from 60 s on at the rate" in page
    assert f"which holds since {begins:%Y-%m-%d %H:%M:%S} UTC" in page


async def test_fees_bounds_and_the_one_rounding_of_a_charge_in_parts(database_url: str) -> None:
    """7 s of 0.065/min are 0.00758(3); with the connect fee 0.01 raised to 0.02; attempt fee 0.001."""
    row = Row("", "World", tariff("0.065", connect_fee="0.01", minimum="0.02", attempt_fee="0.001"))
    tier = {"code": "volume", "steps": [{"from": 0, "percent": "100"}]}
    async with selling(database_url, [row], {"tiers": [tier]}) as desk:
        await desk.call("short", 7)
        await desk.call("long", 20)
        (short,) = (await desk.explain("short")).legs
        (long,) = (await desk.explain("long")).legs
        page = await desk.page("long")
    assert short.fees == (
        "connect fee 0.01", "raised to the minimum charge 0.02", "attempt fee 0.001",
    )  # fmt: skip
    assert (short.charged, short.agrees) == (D("0.021"), True)
    # 20 x 0.065 / 60 = 0.0216666...; + 0.011, to six decimals.
    assert (long.charged, long.agrees) == (D("0.032667"), True)
    assert "20 s x 0.065/min = 0.021666666666..." in page
    assert "+ connect fee 0.01 + attempt fee 0.001" in page
    assert (
        "= 0.032666666666... exactly, rounded once to the nearest, halves up, to 6 decimals" in page
    )


async def test_what_is_spent_and_still_open_is_told(database_url: str) -> None:
    """A dollar a day; a call in the middle of its second minute, at the tier's two prices."""
    async with selling(database_url, voice("0.6"), {"tiers": [TIER]}) as desk:
        desk.world.sql("UPDATE wallet SET daily_cap = 5 WHERE id = %s", desk.acme.wallet_id)
        await desk.parts.directory.refresh("party", desk.acme.id)
        await desk.up("o", 180)
        await desk.parts.charging.update(
            switch="sw1", session_id="o", used_ms=150_000, extend=False
        )
        (leg,) = (await desk.explain("o")).legs
        page = await desk.page("o")
    # 120 s at 0.60 and 30 s at 0.30; held are 120 s at 0.60 and 60 s at 0.30.
    assert leg.price.amount == D("1.35")
    assert "It would cost so far: 1.35 USD" in page
    assert "Hold: 1.50 USD was set aside; 1.50 still held" in page
    assert "Spent: in the day (" in page
    assert ") 0.00 USD of at most 5.00, 1.50 held, as it stands now" in page


async def test_tampering_with_parts_shows(database_url: str) -> None:
    """Parts that are fewer than what was billed do not agree."""
    with World(database_url) as world:
        plan = world.plan("terms", world.card("card", voice("0.6")), terms={"tiers": [TIER]})
        acme = world.customer(plan=plan)
        async with runtime(database_url) as parts:
            desk = Desk(world, parts, acme)
            await desk.call("t", 30)
            assert (await desk.explain("t")).legs[0].agrees
            world.sql(
                "UPDATE closed_session SET body = jsonb_set(body::jsonb, '{used_ms}', '40000')::json"
            )
            assert not (await desk.explain("t")).legs[0].agrees
            assert "But 0.30 was charged: run verify." in await desk.page("t")
