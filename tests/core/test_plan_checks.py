"""What is wrong with a plan is said in one sentence with its place."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.core.markup import promotion_applies
from tollkeeper.core.plan_checks import (
    check_card,
    check_fallback,
    check_packages,
    check_plan,
    check_promotions,
    check_surcharges,
    check_tiers,
)
from tollkeeper.core.plans import (
    Conditions,
    Markup,
    PackageRule,
    Plan,
    PlanCard,
    Profile,
    Promotion,
    Question,
    Surcharge,
    TierRule,
    Window,
    conditions_hold,
)
from tollkeeper.core.profiles import check_windows, contains
from tollkeeper.core.tariff import Card, PrefixTable
from tollkeeper.core.terms import TierStep
from tollkeeper.errors import InvalidInput

D = Decimal
LONDON, NEW_YORK = ZoneInfo("Europe/London"), ZoneInfo("America/New_York")
WEEK, WEEKDAYS = frozenset(range(7)), frozenset(range(5))
CARD = Card(1, "az", 1, "USD", PrefixTable([]))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def hours(
    code: str, begin: int, end: int, days: frozenset[int] = WEEK, zone: ZoneInfo = LONDON
) -> Profile:
    return Profile(code, zone, (Window(days, begin * 60, end * 60),))


# --- tiers ---------------------------------------------------------------------------------------


def tier(*steps: tuple[int, str], retroactive: bool = False, period: str = "month") -> TierRule:
    """Steps as start and price, or percent with a % behind it."""
    return TierRule(
        "volume",
        period,
        tuple(
            TierStep(start, percent=D(value[:-1]))
            if value.endswith("%")
            else TierStep(start, D(value))
            for start, value in steps
        ),
        retroactive,
    )


def test_good_tiers_pass() -> None:
    check_tiers([tier((0, "0.010"), (6000, "0.012")), TierRule("b", "day", (TierStep(0, D(1)),))])
    check_tiers([tier((0, "100%"), (6000, "90%"), retroactive=True)])


@pytest.mark.parametrize(
    ("rule", "field", "why"),
    [
        pytest.param(tier((60, "0.01")), "steps[0].start", "begins at 60", id="a hole"),
        pytest.param(tier(), "steps", "at least one step", id="no step"),
        pytest.param(tier((0, "2"), (0, "1")), "steps[1].start", "must rise", id="the same start"),
        pytest.param(tier((0, "3"), (9, "2"), (5, "1")), "steps[2].start", "must rise", id="falling starts"),
        pytest.param(
            tier((0, "1"), (9, "1"), retroactive=True), "steps[1].price", "must fall", id="not falling"
        ),
        pytest.param(
            tier((0, "90%"), (9, "95%"), retroactive=True), "steps[1].percent", "must fall", id="rising"
        ),
        pytest.param(
            tier((0, "1"), (9, "90%"), retroactive=True), "steps[1].price", "compared", id="mixed"
        ),
        pytest.param(tier((0, "-1")), "steps[0].price", "0 or more", id="a negative price"),
        pytest.param(tier((0, "1"), period="year"), "period", "not a period", id="another period"),
        pytest.param(
            TierRule("v", "day", (TierStep(0),)), "steps[0].price", "one of the two", id="neither"
        ),
        pytest.param(
            TierRule("v", "day", (TierStep(0, D(1), D(1)),)), "steps[0].price", "one of the two", id="both"
        ),
        pytest.param(
            TierRule("v", "day", (TierStep(0, D(1)),), destinations=("44", "x")),
            "destinations[1]", "not a prefix", id="no digits",
        ),
    ],
)  # fmt: skip
def test_tiers_with_a_fault_are_refused(rule: TierRule, field: str, why: str) -> None:
    other = TierRule("first", "day", (TierStep(0, D(1)),))
    with pytest.raises(InvalidInput, match=why) as refused:
        check_tiers([other, rule])
    assert refused.value.field == f"tiers[1].{field}"
    assert refused.value.detail.startswith(f"tiers[1].{field}: ")


# --- packages and surcharges ---------------------------------------------------------------------


def test_good_packages_and_surcharges_pass() -> None:
    check_packages([PackageRule("a", 6000, destinations=("44",), exclusions=("447",), rollover=60)])
    check_packages([PackageRule("a", 1, exclusions=("1809",)), PackageRule("b", 1)])
    check_surcharges(
        [
            Surcharge("a", D("0.1"), origins=("44",), not_origins=("447",)),
            Surcharge("b", percent=D(5)),
        ]
    )


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        (PackageRule("p", 0), "units"),
        (PackageRule("p", 10, rollover=-1), "rollover"),
        (PackageRule("p", 10, "fortnight"), "period"),
        (PackageRule("", 10), "code"),
        (PackageRule("p", 10, destinations=("44", "49"), exclusions=("4",)), "exclusions"),
        (PackageRule("p", 10, destinations=("44",), exclusions=("33",)), "exclusions"),
    ],
)
def test_packages_with_a_fault_are_refused(rule: PackageRule, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_packages([rule])
    assert refused.value.field == f"packages[0].{field}"


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        (Surcharge("s"), ""),
        (Surcharge("s", D(-1)), ".absolute"),
        (Surcharge("s", percent=D("NaN")), ".percent"),
        (Surcharge("s", D(1), origins=("447",), not_origins=("44",)), ".not_origins"),
        (Surcharge("s", D(1), origins=("+44",)), ".origins[0]"),
    ],
)
def test_surcharges_with_a_fault_are_refused(rule: Surcharge, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_surcharges([rule])
    assert refused.value.field == f"surcharges[0]{field}"


def test_a_code_stands_once() -> None:
    with pytest.raises(InvalidInput, match=r'"a" is packages\[0\] already') as refused:
        check_packages([PackageRule("a", 1), PackageRule("a", 2)])
    assert refused.value.field == "packages[1].code"


# --- promotions ----------------------------------------------------------------------------------

MARCH = (at("2026-03-01"), at("2026-04-01"))
MAY = (at("2026-05-01"), at("2026-06-01"))

APART = [
    pytest.param(Promotion("a", D(1), ("44",)), Promotion("b", D(2), ("49",)), id="destinations"),
    pytest.param(
        Promotion("a", D(1), parties=frozenset({1})), Promotion("b", D(2), parties=frozenset({2})),
        id="parties",
    ),
    pytest.param(Promotion("a", D(1), (), *MARCH), Promotion("b", D(2), (), *MAY), id="periods"),
    pytest.param(
        Promotion("a", D(1), ends_at=MARCH[1]), Promotion("b", D(2), begins_at=MARCH[1]), id="edge to edge"
    ),
    pytest.param(
        Promotion("a", D(1), profile=hours("day", 8, 18)), Promotion("b", D(2), profile=hours("night", 18, 8)),
        id="hours by one clock",
    ),
    # 8 to 10 in London and 8 to 10 in New York: never at once, four or five hours apart
    pytest.param(
        Promotion("a", D(1), profile=hours("uk", 8, 10)),
        Promotion("b", D(2), profile=hours("us", 8, 10, zone=NEW_YORK)),
        id="hours by two clocks",
    ),
    # the only Saturday hours, in a period of one Monday
    pytest.param(
        Promotion("a", D(1), (), at("2026-03-02"), at("2026-03-03")),
        Promotion("b", D(2), profile=hours("saturday", 0, 24, frozenset({5}))),
        id="a period without these hours",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), APART)
def test_promotions_apart_pass(one: Promotion, other: Promotion) -> None:
    check_promotions([one, other])


OVERLAPS = [
    pytest.param(
        Promotion("a", D(1), ("44",)), Promotion("b", D(2), ("447", "49")),
        "numbers in 447, every party, at every moment", id="a longer prefix",
    ),
    pytest.param(
        Promotion("a", D(1), (), *MARCH), Promotion("b", D(2), ("44",), at("2026-03-31")),
        "numbers in 44, every party, from 2026-03-31T00:00Z", id="a day in common",
    ),
    pytest.param(
        Promotion("a", D(1), parties=frozenset({3, 4})), Promotion("b", D(2)),
        "all numbers, party 3, at every moment", id="all parties and some",
    ),
    # Sunday 23:00 to 6:00 meets Monday 5:00
    pytest.param(
        Promotion("a", D(1), (), *MARCH, profile=hours("late", 23, 6, frozenset({6}))),
        Promotion("b", D(2), profile=hours("early", 5, 8, frozenset({0}))),
        "all numbers, every party, from 2026-03-02T05:00Z", id="past midnight",
    ),
    # 12 to 13 in London is 8 to 9 in New York for the weeks between the two changes of the clock only
    pytest.param(
        Promotion("a", D(1), (), at("2026-01-01"), profile=hours("uk", 12, 13)),
        Promotion("b", D(2), profile=hours("us", 8, 9, zone=NEW_YORK)),
        "all numbers, every party, from 2026-03-08T12:00Z", id="clocks that change on other days",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other", "overlap"), OVERLAPS)
def test_overlapping_promotions_are_refused_by_name(
    one: Promotion, other: Promotion, overlap: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_promotions([one, other])
    assert refused.value.detail == (
        "promotions[1]: promotion b overlaps promotion a (promotions[0]): both apply to "
        f"{overlap}; change one so that they do not"
    )
    assert (refused.value.code, refused.value.field) == ("promotions_overlap", "promotions[1]")


@pytest.mark.parametrize(
    ("one", "field"),
    [
        (Promotion("a", D(0)), "percent"),
        (Promotion("a", D("100.1")), "percent"),
        (Promotion("a", D(1), (), MARCH[1], MARCH[0]), "ends_at"),
        (Promotion("a", D(1), ("4 4",)), "destinations[0]"),
        (Promotion("a", D(1), profile=Profile("p", UTC, ())), "profile.windows"),
    ],
)
def test_promotions_with_a_fault_are_refused(one: Promotion, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_promotions([one])
    assert refused.value.field == f"promotions[0].{field}"


some_hours = st.builds(
    lambda days, begin, end, zone: Profile(
        f"{sorted(days)}{begin}{end}{zone}", zone, (Window(days, begin, end),)
    ),
    st.frozensets(st.integers(0, 6), min_size=1, max_size=2),
    st.integers(0, 1439),
    st.integers(0, 1440),
    st.sampled_from([LONDON, NEW_YORK]),
)
promotions = st.builds(
    lambda group, start, length, profile, parties: Promotion(
        "x",
        D(5),
        group,
        MARCH[0] + timedelta(days=start),
        MARCH[0] + timedelta(days=start + length),
        profile,
        parties,
    ),
    st.sampled_from([(), ("4",), ("44",), ("44", "49"), ("33",)]),
    st.integers(0, 30),
    st.integers(1, 15),
    st.none() | some_hours,
    st.sampled_from([frozenset(), frozenset({1}), frozenset({1, 2})]),
)


@given(
    promotions,
    promotions,
    st.sampled_from(["441", "491", "33", "7"]),
    st.integers(1, 2),
    st.integers(0, 4000),
)
def test_two_that_pass_never_apply_together(
    one: Promotion, other: Promotion, called: str, party: int, quarter_hours: int
) -> None:
    """Whatever the call: if both promotions apply to it, the check has refused them."""
    moment = MARCH[0] + timedelta(minutes=15 * quarter_hours)
    both = all(promotion_applies(each, party, called, moment) for each in (one, other))
    named = Promotion("y", D(5), *(getattr(other, name) for name in other.__struct_fields__[2:]))
    if both:
        with pytest.raises(InvalidInput, match="promotion y overlaps promotion x"):
            check_promotions([one, named])


# --- cards and the fallback ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("card", "field"),
    [
        (PlanCard(CARD, "plan", key="caller"), "key"),
        (PlanCard(CARD, "plan", Conditions(jurisdiction="lunar")), "conditions.jurisdiction"),
        (PlanCard(CARD, "plan", Conditions(cli="maybe")), "conditions.cli"),
        (PlanCard(CARD, "plan", Conditions(cli="non_cli", origins=("44",))), "conditions.origins"),
        (PlanCard(CARD, "plan", Conditions(origins=("447",), not_origins=("44",))), "conditions.not_origins"),
        (PlanCard(CARD, "plan", markup=Markup(D(-100))), "markup.percent"),
        (PlanCard(CARD, "plan", markup=Markup(floor=D(2), ceiling=D(1))), "markup.floor"),
        (PlanCard(CARD, "plan", markup=Markup(ceiling=D(-1))), "markup.ceiling"),
    ],
)  # fmt: skip
def test_cards_with_a_fault_are_refused(card: PlanCard, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_card(card, "cards[3]")
    assert refused.value.field == f"cards[3].{field}"


COMPLETE = [
    pytest.param((), id="no cards yet"),
    pytest.param((Conditions(cli="cli"), Conditions()), id="a fallback"),
    pytest.param((Conditions(cli="cli"), Conditions(cli="non_cli")), id="with and without a number"),
    pytest.param((Conditions(origins=("44", "49")), Conditions(not_origins=("44", "49"))), id="in and out"),
    pytest.param(
        tuple(Conditions(jurisdiction=one) for one in ("interstate", "intrastate", "indeterminate")),
        id="all jurisdictions",
    ),
    pytest.param(
        (Conditions(profile=hours("day", 8, 20)), Conditions(profile=hours("night", 20, 8))), id="day and night"
    ),
    pytest.param(
        (
            Conditions(jurisdiction="interstate", origins=("1",)),
            Conditions(jurisdiction="intrastate", origins=("1",)),
            Conditions(jurisdiction="indeterminate"),
        ),
        id="a foreign caller is never interstate",
    ),
    pytest.param(
        (*(Conditions(origins=(digit,)) for digit in "123456789"), Conditions(cli="non_cli")),
        id="every first digit",
    ),
    pytest.param(
        (Conditions(origins=(*"12356789", *(f"4{n}" for n in range(10)))), Conditions(cli="non_cli")),
        id="every second digit behind 4",
    ),
]  # fmt: skip


@pytest.mark.parametrize("conditions", COMPLETE)
def test_cards_that_cover_every_call_pass(conditions: tuple[Conditions, ...]) -> None:
    check_fallback(conditions)


INCOMPLETE = [
    pytest.param((Conditions(cli="cli"),), "calls without a caller's number", id="numbers only"),
    pytest.param(
        (Conditions(origins=("44",)), Conditions(cli="non_cli")), "calls from 1", id="some origins only"
    ),
    pytest.param(
        (Conditions(origins=("44",)), Conditions(not_origins=("4",))), "calls from 40", id="a hole between"
    ),
    pytest.param(
        (Conditions(jurisdiction="interstate"), Conditions(jurisdiction="intrastate")),
        "that are indeterminate", id="two of three jurisdictions",
    ),
    pytest.param(
        (Conditions(profile=hours("day", 8, 20)), Conditions(profile=hours("night", 20, 7))),
        "outside the hours day, night", id="an hour missing",
    ),
    # London 8 to 20 and New York 15 to 3 would close the day but for the weeks between the changes
    pytest.param(
        (Conditions(profile=hours("uk", 8, 20)), Conditions(profile=hours("us", 15, 3, zone=NEW_YORK))),
        "outside the hours uk, us", id="two clocks",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("conditions", "what"), INCOMPLETE)
def test_a_plan_without_fallback_is_refused(conditions: tuple[Conditions, ...], what: str) -> None:
    plan = Plan(1, "p", "voice", tuple(PlanCard(CARD, "plan", one) for one in conditions))
    with pytest.raises(InvalidInput, match=what) as refused:
        check_plan(plan)
    assert (refused.value.code, refused.value.field) == ("no_fallback", "cards")
    assert "the plan has no card without a condition" in refused.value.detail
    assert "add a fallback card" in refused.value.detail


def test_a_plan_is_checked_as_a_whole() -> None:
    with pytest.raises(InvalidInput) as refused:
        check_plan(Plan(1, "p", "voice", tiers=(tier((5, "1")),)), "plan")
    assert refused.value.field == "plan.tiers[0].steps[0].start"
    with pytest.raises(InvalidInput) as refused:
        check_plan(Plan(1, "p", "voice", fx_margin=D(-100)))
    assert refused.value.field == "fx_margin"


some_conditions = st.builds(
    Conditions,
    origins=st.sampled_from([(), ("4",), ("44",), ("1", "2", "3")]),
    not_origins=st.sampled_from([(), ("4",), ("44",), ("447",)]),
    cli=st.sampled_from(["", "", "cli", "non_cli"]),
    profile=st.sampled_from([None, hours("day", 8, 20), hours("night", 20, 8)]),
)


@given(
    st.lists(some_conditions, min_size=1, max_size=4),
    st.sampled_from(["", "111", "222", "444", "4471", "4911", "999"]),
    st.integers(0, 167),
)
def test_plans_that_pass_have_a_card_for_every_call(
    conditions: list[Conditions], caller: str, hour: int
) -> None:
    moment = at("2026-03-09") + timedelta(hours=hour)
    try:
        check_fallback(conditions)
    except InvalidInput:
        return
    asked = Question("voice", "4912", caller)
    assert any(conditions_hold(one, asked, moment, {}) for one in conditions)


# --- hours ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("windows", "field"),
    [
        pytest.param((), "windows", id="none"),
        pytest.param((Window(frozenset(), 0, 60),), "windows[0].days", id="no days"),
        pytest.param((Window(frozenset({7}), 0, 60),), "windows[0].days", id="an eighth day"),
        pytest.param((Window(WEEK, -1, 60),), "windows[0].begin", id="before midnight"),
        pytest.param((Window(WEEK, 1440, 60),), "windows[0].begin", id="begins at the end of the day"),
        pytest.param((Window(WEEK, 0, 1441),), "windows[0].end", id="ends after the day"),
        pytest.param(
            (Window(WEEKDAYS, 480, 1080), Window(frozenset({4}), 1079, 1200)), "windows[1]", id="a minute"
        ),
        # Sunday's night reaches into Monday
        pytest.param(
            (Window(frozenset({0}), 0, 60), Window(frozenset({6}), 1380, 30)), "windows[1]", id="around the week"
        ),
        pytest.param((Window(WEEK, 60, 60), Window(frozenset({2}), 0, 10)), "windows[1]", id="24 hours"),
    ],
)  # fmt: skip
def test_hours_with_a_fault_are_refused(windows: tuple[Window, ...], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_windows(windows)
    assert (refused.value.code, refused.value.field) == ("invalid_profile", field)


def test_hours_edge_to_edge_pass() -> None:
    check_windows((Window(WEEK, 480, 1080), Window(WEEK, 1080, 480)))


@given(
    st.lists(
        st.builds(
            Window,
            st.frozensets(st.integers(0, 6), min_size=1),
            st.integers(0, 1439),
            st.integers(0, 1440),
        ),
        min_size=2,
        max_size=3,
    )
)
def test_hours_that_pass_are_never_in_two_windows(windows: list[Window]) -> None:
    try:
        check_windows(windows)
    except InvalidInput:
        return
    for minute in range(0, 7 * 1440, 30):
        moment = at("2026-03-09") + timedelta(minutes=minute)
        inside = [contains(Profile("p", UTC, (window,)), moment) for window in windows]
        assert inside.count(True) <= 1
