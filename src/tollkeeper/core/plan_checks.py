"""What is wrong with a plan, told when it is entered: holes in tiers, promotions that collide, no fallback.

Every check raises one clear sentence with the place: ``tiers[2].steps[1].start``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from tollkeeper.core.markup import HUNDRED, Markup, Promotion, Surcharge
from tollkeeper.core.nanp import INTERSTATE, INTRASTATE, JURISDICTIONS
from tollkeeper.core.periods import PERIODS
from tollkeeper.core.plans import Conditions, PackageRule, Plan, PlanCard, TierRule
from tollkeeper.core.profiles import WEEK, Profile, check_windows, contains, next_edge, spans
from tollkeeper.core.tariff import PREFIX_MAX
from tollkeeper.core.terms import TierStep
from tollkeeper.errors import InvalidInput

UNITS_MAX = 10**15
"""No tier begins and no package ends beyond so many units."""

PERCENT_MAX = Decimal(100_000)

REFERENCE = datetime(2026, 1, 1, tzinfo=UTC)
"""Hours of different time zones are compared from here on where nothing says when they begin."""

LOOK_AHEAD = timedelta(days=400)
"""So far two time zones are compared: every change of the clock of a year lies in it."""

NO_FALLBACK = (
    "the plan has no card without a condition, so {what} would find no price: add a fallback card "
    "without conditions at the end, or cards for these calls"
)


def check_plan(plan: Plan, field: str = "") -> None:
    """Check all parts of a plan and that some card counts for every call.

    Three cards for interstate, intrastate and indeterminate calls are complete: calls to numbers
    outside North America are then simply not sold. A plan without cards is one that is being made.

    Raises:
        InvalidInput: the first thing that is wrong, with its place.
    """
    at = f"{field}." if field else ""
    for number, sold in enumerate(plan.cards):
        check_card(sold, f"{at}cards[{number}]")
    check_tiers(plan.tiers, f"{at}tiers")
    check_packages(plan.packages, f"{at}packages")
    check_surcharges(plan.surcharges, f"{at}surcharges")
    check_promotions(plan.promotions, f"{at}promotions")
    if not -HUNDRED < plan.fx_margin <= PERCENT_MAX:
        raise _wrong(f"{at}fx_margin", f"{plan.fx_margin} % is not a margin: more than -100")
    check_fallback([sold.conditions for sold in plan.cards], f"{at}cards")


# --- cards ---------------------------------------------------------------------------------------


def check_card(sold: PlanCard, field: str = "card") -> None:
    """Check the conditions and the markup of a card in a plan.

    Raises:
        InvalidInput: unknown words, conditions that no call can meet, bounds the wrong way round.
    """
    if sold.key not in {"called", "network"}:
        raise _wrong(
            f"{field}.key",
            f'"{sold.key}" is not what a card can be looked up by: called or network',
        )
    check_conditions(sold.conditions, f"{field}.conditions")
    if sold.markup is not None:
        check_markup(sold.markup, f"{field}.markup")


def check_conditions(conditions: Conditions, field: str = "conditions") -> None:
    """Check when a card counts.

    Raises:
        InvalidInput: unknown words, prefixes that are no digits, conditions that no call can meet.
    """
    if conditions.jurisdiction and conditions.jurisdiction not in JURISDICTIONS:
        raise _wrong(
            f"{field}.jurisdiction",
            f'"{conditions.jurisdiction}" is not a jurisdiction: {", ".join(JURISDICTIONS)}',
        )
    if conditions.cli not in {"", "cli", "non_cli"}:
        raise _wrong(f"{field}.cli", f'"{conditions.cli}" is not known: cli, non_cli or nothing')
    _check_prefixes(conditions.origins, f"{field}.origins")
    _check_prefixes(conditions.not_origins, f"{field}.not_origins")
    if conditions.cli == "non_cli" and conditions.origins:
        raise _wrong(
            f"{field}.origins",
            "a call without a caller's number has no origin: drop one of the two",
        )
    if conditions.origins and all(
        _below(one, conditions.not_origins) for one in conditions.origins
    ):
        raise _wrong(f"{field}.not_origins", "leaves out every one of the origins: no call is left")
    if conditions.profile is not None:
        check_windows(conditions.profile.windows, f"{field}.profile.windows")


def check_markup(markup: Markup, field: str = "markup") -> None:
    """Check a cost-plus card's markup.

    Raises:
        InvalidInput: a percent of -100 or less, a bound below 0, a floor above the ceiling.
    """
    if not -HUNDRED < markup.percent <= PERCENT_MAX:
        raise _wrong(f"{field}.percent", f"{markup.percent} % is not a markup: more than -100")
    for name, bound in (("floor", markup.floor), ("ceiling", markup.ceiling)):
        if bound is not None and not (bound.is_finite() and bound >= 0):
            raise _wrong(f"{field}.{name}", f"{bound} is not a price: 0 or more")
    if markup.floor is not None and markup.ceiling is not None and markup.floor > markup.ceiling:
        raise _wrong(
            f"{field}.floor", f"the floor {markup.floor} is above the ceiling {markup.ceiling}"
        )


def check_fallback(conditions: Sequence[Conditions], field: str = "cards") -> None:
    """Check that the cards of a plan together count for every call; no cards at all pass.

    Raises:
        InvalidInput: some call meets no card's conditions; says which.
    """
    if not conditions or any(one == Conditions() for one in conditions):
        return
    by_place = any(one.jurisdiction for one in conditions)
    known: dict[frozenset[str], bool] = {}
    for caller in _callers(conditions):
        for jurisdiction in JURISDICTIONS if by_place else ("",):
            if caller[:1] != "1" and jurisdiction in {INTERSTATE, INTRASTATE}:
                continue  # a foreign caller's calls are always indeterminate
            left = [
                one
                for one in conditions
                if one.jurisdiction in {"", jurisdiction} and _caller_fits(one, caller)
            ]
            what = f"calls from {caller}..." if caller else "calls without a caller's number"
            what += f" that are {jurisdiction}" if jurisdiction else ""
            if not left:
                raise _no_fallback(field, what)
            profiles = {one.profile.code: one.profile for one in left if one.profile is not None}
            if len(left) > sum(one.profile is not None for one in left):
                continue
            key = frozenset(profiles)
            if key not in known:
                known[key] = _always(list(profiles.values()))
            if not known[key]:
                raise _no_fallback(field, f"{what} outside the hours {', '.join(sorted(profiles))}")


def _no_fallback(field: str, what: str) -> InvalidInput:
    return InvalidInput(
        f"{field}: {NO_FALLBACK.format(what=what)}", code="no_fallback", field=field
    )


def _caller_fits(conditions: Conditions, caller: str) -> bool:
    if conditions.cli and (conditions.cli == "cli") is not bool(caller):
        return False
    if conditions.origins and not caller.startswith(conditions.origins):
        return False
    return not (conditions.not_origins and caller.startswith(conditions.not_origins))


def _callers(conditions: Iterable[Conditions]) -> list[str]:
    """One beginning of a caller's number for each way to meet or miss the origins named; and none."""
    nodes = {""}
    for one in conditions:
        for prefix in (*one.origins, *one.not_origins):
            nodes.update(prefix[:length] for length in range(1, len(prefix) + 1))
    # No E.164 number begins with 0. What is itself a beginning of a prefix is looked at further down.
    below = {node + digit for node in nodes for digit in "0123456789"[0 if node else 1 :]}
    return ["", *sorted(below - nodes)]


def _always(profiles: Sequence[Profile]) -> bool:
    """Tell whether these hours together are all hours."""
    if len({str(profile.timezone) for profile in profiles}) == 1:
        reached = 0
        for begin, end, _ in spans([window for profile in profiles for window in profile.windows]):
            if begin > reached:
                return False
            reached = max(reached, end)
        return reached >= WEEK
    return _first_moment(profiles, inside=False) is None


def _first_moment(
    profiles: Sequence[Profile],
    *,
    inside: bool,
    begin: datetime = REFERENCE,
    end: datetime | None = None,
) -> datetime | None:
    """The first moment in all of these hours (``inside``), or in none of them; None: there is none."""
    moment: datetime | None = begin
    last = begin + LOOK_AHEAD if end is None else min(end, begin + LOOK_AHEAD)
    while moment is not None and moment < last:
        states = [contains(profile, moment) for profile in profiles]
        if all(states) if inside else not any(states):
            return moment
        edges = [next_edge(profile, moment) for profile in profiles]
        moment = min((edge for edge in edges if edge is not None), default=None)
    return None


# --- tiers and packages --------------------------------------------------------------------------


def check_tiers(tiers: Sequence[TierRule], field: str = "tiers") -> None:
    """Check volume prices.

    Raises:
        InvalidInput: a code twice, an unknown period, a hole (the first step is not at 0), starts
            that do not rise, a step with both or neither of price and percent, or a retroactive
            tier whose prices do not fall.
    """
    _check_codes([rule.code for rule in tiers], field)
    for number, rule in enumerate(tiers):
        place = f"{field}[{number}]"
        _check_period(rule.period, place)
        _check_prefixes(rule.destinations, f"{place}.destinations")
        if not rule.steps:
            raise _wrong(f"{place}.steps", "give at least one step, the first with start 0")
        if rule.steps[0].start != 0:
            raise _wrong(
                f"{place}.steps[0].start",
                f"the first step begins at {rule.steps[0].start}, so the units before it have no "
                "price: begin at 0",
            )
        for step_number, step in enumerate(rule.steps):
            _check_step(step, f"{place}.steps[{step_number}]")
        for step_number, (one, following) in enumerate(pairwise(rule.steps), 1):
            _check_steps(one, following, f"{place}.steps[{step_number}]", falls=rule.retroactive)


def _check_step(step: TierStep, place: str) -> None:
    if (step.price is None) is (step.percent is None):
        raise _wrong(
            f"{place}.price",
            "give a price or a percent of the card's price: one of the two, not both",
        )
    value, name = (step.price, "price") if step.price is not None else (step.percent, "percent")
    if value is not None and not (value.is_finite() and value >= 0):
        raise _wrong(f"{place}.{name}", f"{value} is not possible: 0 or more")
    if not 0 <= step.start <= UNITS_MAX:
        raise _wrong(f"{place}.start", f"{step.start} is out of bounds: 0 to {UNITS_MAX}")


def _check_steps(one: TierStep, following: TierStep, place: str, *, falls: bool) -> None:
    if following.start <= one.start:
        raise _wrong(
            f"{place}.start",
            f"{following.start} does not come after {one.start} of the step before: starts must rise",
        )
    if not falls:
        return
    if (one.price is None) is not (following.price is None):
        raise _wrong(
            f"{place}.price",
            "a retroactive tier has prices in all steps or percents in all, so that they can be compared",
        )
    before = one.price if one.price is not None else one.percent
    after = following.price if following.price is not None else following.percent
    if before is not None and after is not None and after >= before:
        raise _wrong(
            f"{place}.{'price' if one.price is not None else 'percent'}",
            f"{after} is not below {before} of the step before: a retroactive tier must fall, for it "
            "gives back the difference",
        )


def check_packages(packages: Sequence[PackageRule], field: str = "packages") -> None:
    """Check what a plan includes.

    Raises:
        InvalidInput: a code twice, an unknown period, no units, a negative rollover, exclusions
            that leave nothing of a destination or exclude nothing.
    """
    _check_codes([rule.code for rule in packages], field)
    for number, rule in enumerate(packages):
        place = f"{field}[{number}]"
        _check_period(rule.period, place)
        if not 0 < rule.units <= UNITS_MAX:
            raise _wrong(f"{place}.units", f"{rule.units} is out of bounds: 1 to {UNITS_MAX}")
        if not 0 <= rule.rollover <= UNITS_MAX:
            raise _wrong(f"{place}.rollover", f"{rule.rollover} is out of bounds: 0 to {UNITS_MAX}")
        _check_prefixes(rule.destinations, f"{place}.destinations")
        _check_prefixes(rule.exclusions, f"{place}.exclusions")
        for prefix in rule.destinations:
            if _below(prefix, rule.exclusions):
                raise _wrong(
                    f"{place}.exclusions", f"they take out all of the destination {prefix} again"
                )
        for prefix in rule.exclusions if rule.destinations else ():
            if not _below(prefix, rule.destinations):
                raise _wrong(
                    f"{place}.exclusions",
                    f"{prefix} lies in no destination of the package: drop it",
                )


# --- surcharges and promotions -------------------------------------------------------------------


def check_surcharges(surcharges: Sequence[Surcharge], field: str = "surcharges") -> None:
    """Check surcharges by origin.

    Raises:
        InvalidInput: a code twice, nothing or less than nothing to add, prefixes that are no
            digits, origins that are all left out again.
    """
    _check_codes([one.code for one in surcharges], field)
    for number, one in enumerate(surcharges):
        place = f"{field}[{number}]"
        for name, value in (("absolute", one.absolute), ("percent", one.percent)):
            if not (value.is_finite() and value >= 0):
                raise _wrong(f"{place}.{name}", f"{value} is not possible: 0 or more")
        if not one.absolute and not one.percent:
            raise _wrong(place, "adds nothing: give an absolute amount or a percent")
        _check_prefixes(one.origins, f"{place}.origins")
        _check_prefixes(one.not_origins, f"{place}.not_origins")
        _check_prefixes(one.destinations, f"{place}.destinations")
        if one.origins and all(_below(prefix, one.not_origins) for prefix in one.origins):
            raise _wrong(f"{place}.not_origins", "leaves out every one of the origins")


def check_promotions(promotions: Sequence[Promotion], field: str = "promotions") -> None:
    """Check promotions, and that no two can apply to the same destination, party and moment.

    Raises:
        InvalidInput: a code twice, a percent out of bounds, an end before the beginning, or two
            that overlap (names both, and where and when).
    """
    _check_codes([one.code for one in promotions], field)
    for number, one in enumerate(promotions):
        place = f"{field}[{number}]"
        if not 0 < one.percent <= HUNDRED:
            raise _wrong(f"{place}.percent", f"{one.percent} % off is not possible: above 0 to 100")
        _check_prefixes(one.destinations, f"{place}.destinations")
        begins, ends = one.begins_at, one.ends_at
        if begins is not None and ends is not None and ends <= begins:
            raise _wrong(f"{place}.ends_at", f"{ends:%Y-%m-%dT%H:%MZ} is not after its beginning")
        if one.profile is not None:
            check_windows(one.profile.windows, f"{place}.profile.windows")
    for second, later in enumerate(promotions):
        for first, earlier in enumerate(promotions[:second]):
            overlap = _overlap(earlier, later)
            if overlap:
                raise InvalidInput(
                    f"{field}[{second}]: promotion {later.code} overlaps promotion {earlier.code} "
                    f"({field}[{first}]): both apply to {overlap}; change one so that they do not",
                    code="promotions_overlap",
                    field=f"{field}[{second}]",
                )


def _overlap(one: Promotion, other: Promotion) -> str:
    """Say where, to whom and when both apply; '' where they never do."""
    destination = _common_prefix(one.destinations, other.destinations)
    if destination is None:
        return ""
    parties = one.parties & other.parties if one.parties and other.parties else (
        one.parties or other.parties
    )  # fmt: skip
    if one.parties and other.parties and not parties:
        return ""
    begins = [moment for moment in (one.begins_at, other.begins_at) if moment is not None]
    ends = [moment for moment in (one.ends_at, other.ends_at) if moment is not None]
    begin, end = max(begins, default=None), min(ends, default=None)
    if begin is not None and end is not None and begin >= end:
        return ""
    profiles = [each.profile for each in (one, other) if each.profile is not None]
    moment = begin
    if profiles:
        if _clocks_apart(profiles):
            return ""
        start = begin or (REFERENCE if end is None else min(REFERENCE, end - LOOK_AHEAD))
        moment = _first_moment(profiles, inside=True, begin=start, end=end)
        if moment is None:
            return ""
    who = f"party {min(parties)}" if parties else "every party"
    when = f"from {moment:%Y-%m-%dT%H:%MZ}" if moment is not None else "at every moment"
    if moment is None and end is not None:
        when = f"until {end:%Y-%m-%dT%H:%MZ}"
    return f"{f'numbers in {destination}' if destination else 'all numbers'}, {who}, {when}"


def _common_prefix(one: Sequence[str], other: Sequence[str]) -> str | None:
    """The prefix of numbers that are in both groups; '' is all, None is none."""
    for mine in one or ("",):
        for theirs in other or ("",):
            if mine.startswith(theirs):
                return mine
            if theirs.startswith(mine):
                return theirs
    return None


def _clocks_apart(profiles: Sequence[Profile]) -> bool:
    """True where two sets of hours by the same clock have no minute of the week in common."""
    if len(profiles) < 2 or str(profiles[0].timezone) != str(profiles[1].timezone):
        return False
    return not any(
        begin < other_end and other_begin < end
        for begin, end, _ in spans(profiles[0].windows)
        for other_begin, other_end, _ in spans(profiles[1].windows)
    )


# --- parts of all of them ------------------------------------------------------------------------


def _check_codes(codes: Sequence[str], field: str) -> None:
    seen: dict[str, int] = {}
    for number, code in enumerate(codes):
        if not code:
            raise _wrong(f"{field}[{number}].code", "give it a code")
        if code in seen:
            raise _wrong(f"{field}[{number}].code", f'"{code}" is {field}[{seen[code]}] already')
        seen[code] = number


def _check_period(period: str, place: str) -> None:
    if period not in PERIODS:
        raise _wrong(f"{place}.period", f'"{period}" is not a period: day, week or month')


def _check_prefixes(prefixes: Sequence[str], place: str) -> None:
    for number, prefix in enumerate(prefixes):
        if not (prefix.isascii() and prefix.isdigit() and len(prefix) <= PREFIX_MAX):
            raise _wrong(
                f"{place}[{number}]", f'"{prefix[:32]}" is not a prefix: 1 to {PREFIX_MAX} digits'
            )


def _below(prefix: str, group: Sequence[str]) -> bool:
    """Tell whether all numbers of a prefix lie in a (named) group."""
    return bool(group) and prefix.startswith(tuple(group))


def _wrong(field: str, why: str) -> InvalidInput:
    return InvalidInput(f"{field}: {why}", code="invalid_plan", field=field)
