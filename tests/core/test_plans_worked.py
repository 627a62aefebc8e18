"""Prices of plans worked out by hand: every case says its arithmetic in its own words.

The card "az" is in dollars, per minute by the second: Britain 0.010, its mobiles 0.030 and 0.05 to connect,
Germany 0.012, the United States 0.006; 882 is blocked. A call of 90 seconds is one and a half minutes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from tests.core.prices import (
    ALL_DAYS,
    AZ,
    AZ_ROWS,
    GERMANY,
    LONDON,
    MARCH,
    MORE,
    NEW_YORK,
    OFFICE,
    UK,
    UK_MOBILE,
    USA,
    D,
    ask,
    card,
    cost,
    flat,
    plan,
    z,
)
from tollkeeper.core.money import Rounding
from tollkeeper.core.plans import (
    Conditions,
    Markup,
    PackageRule,
    Plan,
    PlanCard,
    Priced,
    Profile,
    Promotion,
    Surcharge,
    TierRule,
    Window,
)
from tollkeeper.core.profiles import contains, next_edge
from tollkeeper.core.rating import Tariff
from tollkeeper.core.reasons import Reason
from tollkeeper.core.terms import TierStep

# --- rows, promotions ----------------------------------------------------------------------------

SPRING = Promotion("spring", D(20), ("44",), z("2026-03-01"), z("2026-04-01"))

ROWS_AND_PROMOTIONS = [
    # 1.5 min x 0.010
    pytest.param((), UK, MARCH, 5, "0.015", id="a plain row"),
    # the longer prefix: 0.05 + 1.5 x 0.030
    pytest.param((), UK_MOBILE, MARCH, 5, "0.095", id="the longest prefix"),
    # 0.015 less a fifth
    pytest.param((SPRING,), UK, MARCH, 5, "0.012", id="20 percent off"),
    # (0.05 + 0.045) less a fifth: fees too
    pytest.param((SPRING,), UK_MOBILE, MARCH, 5, "0.076", id="20 percent off the connect fee"),
    pytest.param((SPRING,), GERMANY, MARCH, 5, "0.018", id="not for another destination"),
    pytest.param((SPRING,), UK, z("2026-02-28T23:59:59"), 5, "0.015", id="the second before"),
    pytest.param((SPRING,), UK, z("2026-03-01"), 5, "0.012", id="from its first moment"),
    pytest.param((SPRING,), UK, z("2026-03-31T23:59:59"), 5, "0.012", id="to its last second"),
    pytest.param((SPRING,), UK, z("2026-04-01"), 5, "0.015", id="not at its end"),
    # never 20 and 50 percent together
    pytest.param((SPRING, MORE), UK, MARCH, 5, "0.012", id="the first of two counts"),
    pytest.param((MORE, SPRING), UK, MARCH, 5, "0.0075", id="in the order of the plan"),
    pytest.param((SPRING, MORE), UK, z("2026-05-01"), 5, "0.0075", id="then the other"),
    pytest.param(
        (Promotion("friends", D(10), parties=frozenset({5, 6})),), UK, MARCH, 5, "0.0135",
        id="10 percent for this party",
    ),
    pytest.param(
        (Promotion("friends", D(10), parties=frozenset({6})),), UK, MARCH, 5, "0.015",
        id="nothing for others",
    ),
    pytest.param((Promotion("gift", D(100)),), UK_MOBILE, MARCH, 5, "0", id="all of it off"),
    # 0.010 x (1 - 0.333333) = 0.00666667; x 1.5 = 0.010000005; six decimals, half up
    pytest.param((Promotion("third", D("33.3333")),), UK, MARCH, 5, "0.010000", id="rounded once"),
]  # fmt: skip


@pytest.mark.parametrize(("promotions", "called", "at", "party", "expected"), ROWS_AND_PROMOTIONS)
def test_rows_and_promotions_come_out_as_by_hand(
    promotions: tuple[Promotion, ...], called: str, at: datetime, party: int, expected: str
) -> None:
    assert cost(ask(plan(promotions=promotions), called, at, party=party)) == D(expected)


def test_a_plain_price_has_no_steps_and_says_its_row() -> None:
    answer = ask(plan())
    assert isinstance(answer, Priced)
    assert (answer.pin.card, answer.pin.prefix, answer.pin.currency) == ("az", "44", "USD")
    assert answer.pin.steps == ()
    assert answer.pin.tariff is AZ_ROWS["p44"]
    assert (answer.tier, answer.packages, answer.later) == (None, (), ())


def test_what_is_not_sold_says_why() -> None:
    assert ask(plan(), "8821612345") is Reason.DESTINATION_BLOCKED
    assert ask(plan(), "999") is Reason.NO_RATE
    assert ask(plan(), wallets={}) is Reason.NO_WALLET
    assert ask(plan(), wallets={"EUR": 1}) is Reason.NO_FX_RATE


def test_among_equal_prefixes_the_first_card_wins() -> None:
    dear = PlanCard(card(2, "dear", p44=flat("0.5"), p4420=flat("0.4")), "plan")
    assert cost(ask(plan(PlanCard(AZ, "customer"), dear), "441144960000"), 60) == D("0.010")
    # but the longer prefix of the second is more to the point
    assert cost(ask(plan(PlanCard(AZ, "customer"), dear), UK), 60) == D("0.4")


# --- hours ---------------------------------------------------------------------------------------

SUNDAY = frozenset({6})
LONDON_1_TO_2 = Profile("london-1-2", LONDON, (Window(SUNDAY, 60, 120),))
NY_2_TO_6 = Profile("ny-2-6", NEW_YORK, (Window(SUNDAY, 120, 360),))
NY_QUARTER = Profile("ny-quarter", NEW_YORK, (Window(SUNDAY, 90, 105),))
WEEKEND_NIGHT = Profile("night", UTC, (Window(frozenset({4}), 1320, 360),))

HOURS = [
    pytest.param(OFFICE, "2026-03-27T07:59:59", False, id="Friday in winter, a second before 8"),
    pytest.param(OFFICE, "2026-03-27T08:00", True, id="Friday in winter, 8 sharp"),
    pytest.param(OFFICE, "2026-03-27T18:00", False, id="the end is outside"),
    pytest.param(OFFICE, "2026-03-30T06:59:59", False, id="summer time: 7:59:59 in London"),
    pytest.param(OFFICE, "2026-03-30T07:00", True, id="summer time: 8 in London"),
    pytest.param(OFFICE, "2026-10-26T07:00", False, id="winter again: 7 in London"),
    pytest.param(OFFICE, "2026-03-28T12:00", False, id="Saturday"),
    # 29 March 2026: 00:59:59 is followed by 02:00 in London
    pytest.param(LONDON_1_TO_2, "2026-03-29T00:59:59", False, id="gap: 0:59:59"),
    pytest.param(LONDON_1_TO_2, "2026-03-29T01:00", False, id="gap: 2:00 already"),
    pytest.param(LONDON_1_TO_2, "2026-04-05T00:30", True, id="a week later it is there"),
    # 25 October 2026: 1:00 to 2:00 happens twice in London
    pytest.param(LONDON_1_TO_2, "2026-10-25T00:30", True, id="overlap: 1:30 in summer time"),
    pytest.param(LONDON_1_TO_2, "2026-10-25T01:30", True, id="overlap: 1:30 in winter time"),
    pytest.param(LONDON_1_TO_2, "2026-10-25T02:00", False, id="overlap: 2:00 at last"),
    # 8 March 2026: 2:00 to 3:00 is skipped in New York, at 7:00 UTC
    pytest.param(NY_2_TO_6, "2026-03-08T06:59:59", False, id="New York 1:59:59"),
    pytest.param(NY_2_TO_6, "2026-03-08T07:00", True, id="New York 3:00, the jump"),
    pytest.param(NY_2_TO_6, "2026-03-08T10:00", False, id="New York 6:00 in summer time"),
    # 1 November 2026: 1:00 to 2:00 happens twice in New York
    pytest.param(NY_QUARTER, "2026-11-01T05:44:59", True, id="New York 1:44:59 in summer time"),
    pytest.param(NY_QUARTER, "2026-11-01T05:45", False, id="between the two"),
    pytest.param(NY_QUARTER, "2026-11-01T06:30", True, id="New York 1:30 in winter time"),
    pytest.param(WEEKEND_NIGHT, "2026-03-13T22:00", True, id="Friday 22:00"),
    pytest.param(WEEKEND_NIGHT, "2026-03-14T05:59", True, id="Saturday 5:59, begun on Friday"),
    pytest.param(WEEKEND_NIGHT, "2026-03-14T06:00", False, id="Saturday 6:00"),
    pytest.param(WEEKEND_NIGHT, "2026-03-13T05:00", False, id="Friday 5:00: Thursday's night"),
]


@pytest.mark.parametrize(("profile", "at", "expected"), HOURS)
def test_hours_follow_the_clock_on_the_wall(profile: Profile, at: str, expected: bool) -> None:
    """And so does the price: 0.020 on the card of the hours, 0.010 on the one behind it."""
    peak = PlanCard(card(3, "peak", p44=flat("0.020")), "plan", Conditions(profile=profile))
    answer = ask(plan(peak, PlanCard(AZ, "fallback")), at=z(at))
    assert contains(profile, z(at)) is expected
    assert cost(answer, 60) == (D("0.020") if expected else D("0.010"))


EDGES = [
    pytest.param(OFFICE, "2026-03-27T12:00", "2026-03-27T18:00", id="the end of today"),
    # Friday 18:00 to Monday 8:00 summer time
    pytest.param(OFFICE, "2026-03-27T18:00", "2026-03-30T07:00", id="over the weekend of the change"),
    pytest.param(LONDON_1_TO_2, "2026-03-28T00:00", "2026-04-05T00:00", id="the hour that is skipped"),
    pytest.param(LONDON_1_TO_2, "2026-10-25T00:30", "2026-10-25T02:00", id="the hour that comes twice"),
    pytest.param(NY_2_TO_6, "2026-03-08T00:00", "2026-03-08T07:00", id="begins at the jump"),
    pytest.param(NY_QUARTER, "2026-11-01T05:45", "2026-11-01T06:30", id="its second pass"),
    pytest.param(NY_QUARTER, "2026-11-01T06:44", "2026-11-01T06:45", id="and the end of it"),
    pytest.param(Profile("all", LONDON, (Window(ALL_DAYS, 0, 1440),)), "2026-03-27T12:00", None, id="never"),
    pytest.param(Profile("all", UTC, (Window(ALL_DAYS, 480, 480),)), "2026-03-27T12:00", None, id="24 hours from 8"),
    pytest.param(Profile("none", UTC, ()), "2026-03-27T12:00", None, id="no hours at all"),
]  # fmt: skip


@pytest.mark.parametrize(("profile", "after", "expected"), EDGES)
def test_the_next_edge_is_exact_across_changes_of_the_clock(
    profile: Profile, after: str, expected: str | None
) -> None:
    assert next_edge(profile, z(after)) == (None if expected is None else z(expected))


def test_a_clock_that_jumps_at_midnight_is_followed() -> None:
    """Havana skips 0:00 to 1:00 on 8 March 2026, at 5:00 UTC."""
    night = Profile("night", ZoneInfo("America/Havana"), (Window(SUNDAY, 0, 120),))
    begins = next_edge(night, z("2026-03-07T12:00"))
    assert begins == z("2026-03-08T05:00")
    assert next_edge(night, begins) == z("2026-03-08T06:00")


# --- surcharges by origin ------------------------------------------------------------------------

EEA = ("33", "34", "39", "43", "45", "46", "49", "353")
ORIGINS = plan(
    surcharges=(
        Surcharge("non-eea", D("0.15"), not_origins=EEA, destinations=("44", "49")),
        Surcharge("no-number", D("0.25"), no_cli=True, destinations=("44", "49")),
        Surcharge("north-africa", percent=D(50), origins=("212", "213")),
    )
)


@pytest.mark.parametrize(
    ("caller", "called", "minute", "steps"),
    [
        pytest.param("4915112345678", UK, "0.010", (), id="from the EEA"),
        # 0.010 + 0.15
        pytest.param("8613912345678", UK, "0.160", ("non-eea",), id="from outside"),
        # without a number: 0.010 + 0.25, and not the other too
        pytest.param("", UK, "0.260", ("no-number",), id="without a number"),
        # 0.010 x 1.5 + 0.15
        pytest.param("212612345678", UK, "0.165", ("non-eea", "north-africa"), id="two together"),
        # to America only the percent one: 0.006 x 1.5
        pytest.param("212612345678", USA, "0.009", ("north-africa",), id="elsewhere"),
        pytest.param("8613912345678", USA, "0.006", (), id="none to America"),
    ],
)
def test_origins_pay_their_surcharge(
    caller: str, called: str, minute: str, steps: tuple[str, ...]
) -> None:
    answer = ask(ORIGINS, called, caller=caller)
    assert isinstance(answer, Priced)
    assert cost(answer, 60) == D(minute)
    assert tuple(step.name for step in answer.pin.steps) == steps


def test_a_surcharge_for_callers_outside_or_without_a_number_is_one_rule() -> None:
    one = plan(surcharges=(Surcharge("obr", D("0.1"), not_origins=("49",), no_cli=True),))
    assert cost(ask(one, caller=""), 60) == D("0.110")
    assert cost(ask(one, caller="8613912345678"), 60) == D("0.110")
    assert cost(ask(one, caller="4915112345678"), 60) == D("0.010")


def test_cards_can_ask_for_a_callers_number() -> None:
    with_number = PlanCard(card(4, "cli", p44=flat("0.008")), "plan", Conditions(cli="cli"))
    without = PlanCard(card(5, "grey", p44=flat("0.005")), "plan", Conditions(cli="non_cli"))
    both = plan(with_number, without)
    assert cost(ask(both, caller="4915112345678"), 60) == D("0.008")
    assert cost(ask(both), 60) == D("0.005")


def test_a_card_can_leave_origins_out() -> None:
    outside = PlanCard(card(6, "row", p44=flat("0.2")), "plan", Conditions(not_origins=EEA))
    inside = PlanCard(card(7, "eea", p44=flat("0.1")), "plan", Conditions(origins=EEA))
    both = plan(outside, inside)
    assert cost(ask(both, caller="4915112345678"), 60) == D("0.1")
    assert cost(ask(both, caller="8613912345678"), 60) == D("0.2")
    assert cost(ask(both, caller=""), 60) == D("0.2")


# --- cost-plus -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("markup", "called", "expected"),
    [
        # 0.010 x 1.2 x 1.5 min
        pytest.param(Markup(D(20)), UK, "0.018", id="cost and 20 percent"),
        # (0.012 + 0.002) x 1.5
        pytest.param(Markup(D(20), D("0.002")), UK, "0.021", id="and 0.002 a minute"),
        # 0.014 is below the floor: 0.020 x 1.5
        pytest.param(Markup(D(20), D("0.002"), floor=D("0.02")), UK, "0.030", id="the floor"),
        # 0.014 is above the ceiling: 0.0125 x 1.5
        pytest.param(Markup(D(20), D("0.002"), ceiling=D("0.0125")), UK, "0.01875", id="the ceiling"),
        # connect 0.05 x 1.2 + 1.5 x (0.036 + 0.002): the absolute is not for the fee
        pytest.param(Markup(D(20), D("0.002")), UK_MOBILE, "0.117", id="fees get the percent only"),
        # connect 0.06, and 1.5 x 0.030 by the ceiling: fees know no ceiling
        pytest.param(Markup(D(20), ceiling=D("0.03")), UK_MOBILE, "0.105", id="fees have no ceiling"),
        # a loss leader: 0.010 - 0.020 cannot be less than nothing
        pytest.param(Markup(absolute=D("-0.020")), UK, "0", id="never below nothing"),
    ],
)  # fmt: skip
def test_cost_plus_cards_come_out_as_by_hand(markup: Markup, called: str, expected: str) -> None:
    assert cost(ask(plan(PlanCard(AZ, "plan", markup=markup)), called)) == D(expected)


def test_a_markup_keeps_the_intervals_of_the_cost() -> None:
    steps = Tariff(D("0.01"), D("0.02"), 30, 6, free_below=3, decimals=4, rounding=Rounding.UP)
    answer = ask(plan(PlanCard(card(8, "cost", p44=steps), "plan", markup=Markup(D(10)))))
    assert isinstance(answer, Priced)
    assert answer.pin.tariff == Tariff(
        D("0.011"), D("0.022"), 30, 6, free_below=3, decimals=4, rounding=Rounding.UP
    )
    assert answer.pin.steps[0].detail == (
        "cost + 10.00 %: first price 0.01 -> 0.011, next price 0.02 -> 0.022"
    )


# --- messages ------------------------------------------------------------------------------------

SMS = Plan(
    8, "texts", "sms",
    (
        PlanCard(
            card(20, "networks", p262=flat("0.08", per=1), p26201=flat("0.07", per=1)),
            "plan", key="network",
        ),
        PlanCard(card(21, "prefixes", p49=flat("0.09", per=1), p44=flat("0.04", per=1)), "fallback"),
    ),
    promotions=(Promotion("texts", D(50), ("4930",)),),
)  # fmt: skip


@pytest.mark.parametrize(
    ("called", "network", "each"),
    [
        pytest.param("4915112345678", "26201", "0.07", id="by country and network"),
        pytest.param("4915112345678", "26202", "0.08", id="by country, the network is not listed"),
        pytest.param("4915112345678", "", "0.09", id="the network is not known: by prefix"),
        pytest.param("4915112345678", "23415", "0.09", id="a network that no row names: by prefix"),
        # ported: a British number in a German network
        pytest.param("447700900123", "26201", "0.07", id="the network, not the number"),
        # promotions look at the number called: 0.07 less half
        pytest.param("493012345678", "26201", "0.035", id="a promotion by number"),
    ],
)
def test_messages_are_priced_by_network_or_prefix(called: str, network: str, each: str) -> None:
    answer = ask(SMS, called, network=network)
    assert isinstance(answer, Priced)
    assert (answer.pin.tariff.next_price, answer.pin.tariff.per) == (D(each), 1)


# --- tiers and packages --------------------------------------------------------------------------


def test_the_first_tier_and_all_packages_of_the_number_are_found() -> None:
    steps = (TierStep(0, D("0.010")), TierStep(60_000, D("0.008")))
    mobile, britain, rest = (
        TierRule(code, "month", steps, destinations=group)
        for code, group in (("mobile", ("447",)), ("britain", ("44",)), ("rest", ()))
    )
    world = PackageRule("world", 6000, exclusions=("447", "1809"))
    uk = PackageRule("uk", 600, destinations=("44",))
    one = plan(tiers=(mobile, britain, rest), packages=(world, uk))

    def found(called: str) -> tuple[str, list[str]]:
        answer = ask(one, called)
        assert isinstance(answer, Priced)
        assert answer.tier is not None
        assert answer.tier.steps == steps
        return answer.tier.code, [package.code for package in answer.packages]

    assert found(UK) == ("britain", ["world", "uk"])
    assert found(UK_MOBILE) == ("mobile", ["uk"])
    assert found(GERMANY) == ("rest", ["world"])
