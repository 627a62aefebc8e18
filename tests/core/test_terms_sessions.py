"""Calls under volume tiers, packages, spending caps and changes of rate: cases worked by hand.

The rate is one cent a second unless said otherwise. After every message all guarantees are checked,
those of the meters among them.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest

from tests.core.world import PER_SECOND, T0, World
from tollkeeper.core.rating import Tariff
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import (
    CallCount,
    Command,
    Decision,
    Expire,
    Limits,
    Outcome,
    Policy,
    SilentTail,
    Start,
    Stop,
    Update,
    Wallet,
)
from tollkeeper.core.terms import Later, Package, Spend, Terms, Tier, TierStep

D = Decimal
PER_MINUTE = Tariff(D("0.60"), D("0.60"), 60, 60)
HALF_FROM_100 = (TierStep(0, percent=D(100)), TierStep(100, price=D("0.30")))
"""One cent a second, half a cent from the hundredth second of the period on."""
MARGINAL = Terms(tier=Tier(1, "volume", HALF_FROM_100))
RETROACTIVE = Terms(tier=Tier(1, "volume", HALF_FROM_100, retroactive=True))
MINUTES = Terms(packages=(Package(2, "minutes"),))
DAY = Terms(spend=(Spend(3, "day"),))


class Calls(World):
    """One customer with these terms; nothing may ever be found wrong."""

    def __init__(self, terms: Terms, money: str = "10", tariff: Tariff = PER_SECOND) -> None:
        super().__init__({1: D(money)})
        self.terms, self.tariff = terms, tariff

    def say(self, command: Command) -> Decision:
        """Send a message and check the books."""
        decision = self.send(command)
        assert self.check() == []
        return decision

    def open(self, key: str = "s", seconds: int = 300, **values: object) -> Decision:
        """Authorise a call."""
        return self.say(
            self.authorise(
                key, {1: self.tariff}, {1: self.terms}, requested_seconds=seconds, **values
            )
        )

    def stop(self, key: str, seconds: int) -> Decimal:
        """End a call; what it was charged."""
        return self.say(Stop(key, seconds * 1000)).session.legs[0].charged

    def meter(self, id_: int) -> tuple[Decimal, Decimal]:
        """What a meter has used and holds."""
        return self.books.meters[id_].used, self.books.meters[id_].held


def parts_of(world: World, key: str) -> list[tuple[str, int, Decimal]]:
    """The parts of the customer's leg: kind, units, price."""
    session = world.books.session(key)
    assert session is not None
    return [(part.kind, part.units, part.price) for part in session.legs[0].parts]


# --- volume tiers --------------------------------------------------------------------------------


def test_a_call_that_crosses_a_marginal_step_is_split_exactly_there() -> None:
    """40 s were used: 60 s at a cent and 30 s at half a cent are 0.75."""
    world = Calls(MARGINAL)
    world.add_meter(1)
    assert world.open("a").session.legs[0].held == D("2.00")
    assert world.stop("a", 40) == D("0.40")
    assert world.open("b").session.legs[0].held == D("1.80")
    assert world.stop("b", 90) == D("0.75")
    assert parts_of(world, "b") == [("tier", 60, D("0.60")), ("tier", 30, D("0.30"))]
    assert world.meter(1) == (130, 0)
    assert world.books.wallets[1].balance == D("8.85")


def test_a_retroactive_step_gives_back_the_difference_for_what_came_before() -> None:
    """40 s at a cent, then 90 s: all 130 s cost half a cent, so 0.45 less 0.20 are due."""
    world = Calls(RETROACTIVE)
    world.add_meter(1)
    world.open("a")
    assert world.stop("a", 40) == D("0.40")
    world.open("b")
    assert world.stop("b", 90) == D("0.25")
    assert world.books.wallets[1].balance == 10 - D(130) / 200


@pytest.mark.parametrize("percent", [D(50), D("33.3")])
def test_a_retroactive_discount_is_taken_off_everything(percent: Decimal) -> None:
    """Percents work on list prices, whatever each call's were."""
    steps = (TierStep(0, percent=D(100)), TierStep(100, percent=percent))
    world = Calls(Terms(tier=Tier(1, "volume", steps, retroactive=True)))
    world.add_meter(1)
    world.open("a")
    world.stop("a", 40)
    world.tariff = PER_MINUTE
    world.open("b")
    world.stop("b", 61)
    spent = 10 - world.books.wallets[1].balance
    assert spent == (D("0.40") + D("1.20")) * percent / 100


def test_a_rebate_above_the_usage_is_paid_into_the_wallet() -> None:
    """90 s at a cent; ten more make all of them half a cent: 0.05 less 0.45."""
    world = Calls(RETROACTIVE)
    world.add_meter(1)
    world.open("a")
    world.stop("a", 90)
    world.open("b")
    assert world.stop("b", 10) == D("-0.40")
    assert (world.books.entries[-1].code, world.books.entries[-1].amount) == ("rebate", D("0.40"))
    assert world.books.wallets[1].balance == D("9.50")


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
@pytest.mark.parametrize("terms", [MARGINAL, RETROACTIVE])
def test_overlapping_calls_fill_the_tier_whichever_ends_first(
    terms: Terms, order: tuple[str, str]
) -> None:
    """80 s and 70 s: 100 at a cent and 50 at half a cent, or all 150 at half a cent."""
    world = Calls(terms)
    world.add_meter(1)
    world.open("a")
    world.open("b")
    for key in order:
        world.stop(key, {"a": 80, "b": 70}[key])
    due = D("1.25") if terms is MARGINAL else D("0.75")
    assert world.books.wallets[1].balance == 10 - due
    assert world.meter(1) == (150, 0)


def test_prices_that_rise_with_the_volume_are_held_at_the_dearest() -> None:
    """Another call may fill the cheap part meanwhile: 300 s are held at two cents."""
    steps = (TierStep(0, price=D("0.60")), TierStep(1000, price=D("1.20")))
    world = Calls(Terms(tier=Tier(1, "volume", steps)))
    world.add_meter(1, used=0)
    assert world.open("a").session.legs[0].held == D("6.00")
    assert world.stop("a", 300) == D("3.00")


def test_a_surcharge_comes_on_top_of_every_step() -> None:
    """A cent and half a cent, and a tenth of a cent more each: 60 x 1.1 + 40 x 0.6 cents."""
    tariff = msgspec.structs.replace(PER_SECOND, surcharge=D("0.06"))
    world = Calls(MARGINAL, tariff=tariff)
    world.add_meter(1)
    world.open("a")
    world.stop("a", 40)
    world.open("b")
    assert world.stop("b", 100) == D("0.66") + D("0.24")


def test_late_usage_takes_its_place_in_the_volume_when_it_comes() -> None:
    world = Calls(MARGINAL)
    world.add_meter(1)
    world.open("a")
    world.open("b")
    world.stop("a", 60)
    world.stop("b", 40)
    assert world.stop("a", 80) == D("0.60") + D("0.10")
    assert world.books.entries[-1].code == "late"
    assert parts_of(world, "a") == [("tier", 60, D("0.60")), ("tier", 20, D("0.30"))]


def test_an_assumption_that_was_too_high_is_taken_back_with_its_volume() -> None:
    """300 s assumed: 100 at a cent and 200 at half a cent. 120 s were true."""
    world = Calls(MARGINAL)
    world.policy = Policy(silent_tail=SilentTail.GRANT_END)
    world.add_meter(1)
    world.open("a")
    world.say(Start("a"))
    world.now += timedelta(hours=1)
    assert world.say(Expire("a")).reply.charge == D("2.00")
    assert world.stop("a", 120) == D("1.10")
    assert world.books.entries[-1].code == "correction"
    assert world.meter(1) == (120, 0)


# --- packages ------------------------------------------------------------------------------------


def test_a_package_that_ends_during_a_call_leaves_the_rest_to_be_paid() -> None:
    """A minute card: 61 s are billed 120 s; 50 of them are free, 70 cost a cent each."""
    tariff = msgspec.structs.replace(PER_MINUTE, connect_fee=D("0.05"))
    world = Calls(MINUTES, tariff=tariff)
    world.add_meter(2, cap=50)
    opened = world.open("a", 100)
    assert opened.session.legs[0].held == D("0.75")
    assert world.meter(2) == (0, 50)
    assert world.stop("a", 61) == D("0.75")
    assert parts_of(world, "a") == [("package", 50, D(0)), ("rate", 70, D("0.60"))]
    assert world.meter(2) == (50, 0)


def test_within_a_package_neither_connect_fee_nor_minimum_is_due() -> None:
    tariff = msgspec.structs.replace(
        PER_SECOND, connect_fee=D("0.05"), minimum=D("0.30"), attempt_fee=D("0.001")
    )
    world = Calls(MINUTES, tariff=tariff)
    world.add_meter(2, cap=500)
    world.open("a")
    assert world.stop("a", 40) == D("0.001")
    assert world.meter(2) == (40, 0)


def test_free_units_alone_are_granted_to_an_empty_wallet() -> None:
    world = Calls(MINUTES, money="0")
    world.add_meter(2, cap=70)
    opened = world.open("a")
    assert (opened.reply.granted_seconds, opened.reply.final) == (70, True)
    refused = world.open("b")
    assert (refused.reply.outcome, refused.reply.reason, refused.reply.refused_by) == (
        Outcome.REFUSED, Reason.INSUFFICIENT_FUNDS, 1,
    )  # fmt: skip
    assert world.stop("a", 70) == 0


def test_calls_at_the_same_time_share_what_a_package_has_left() -> None:
    """The first holds 60 of 100 s; the second gets 40, and what the first leaves once it is over."""
    world = Calls(MINUTES, money="0")
    world.add_meter(2, cap=100)
    assert world.open("a", 60).reply.granted_seconds == 60
    assert world.open("b", 60).reply.granted_seconds == 40
    assert world.stop("a", 10) == 0
    assert world.say(Update("b", 30_000)).reply.granted_seconds == 90
    assert world.stop("b", 90) == 0
    assert world.meter(2) == (100, 0)


def test_packages_are_used_in_their_order_and_then_the_tier() -> None:
    """10 s of one package, 20 of the next, then 70 s: 60 at a cent, 10 at half a cent."""
    terms = Terms(packages=(Package(5, "bonus"), Package(2, "minutes")), tier=MARGINAL.tier)
    world = Calls(terms)
    world.add_meter(1)
    world.add_meter(5, cap=10)
    world.add_meter(2, cap=20)
    world.open("x")
    world.stop("x", 70)
    assert world.meter(1) == (40, 0)
    world.add_meter(7)
    world.terms = MARGINAL
    world.open("y")
    assert world.stop("y", 70) == D("0.65")
    assert parts_of(world, "x")[:2] == [("package", 10, D(0)), ("package", 20, D(0))]


def test_usage_above_the_grant_takes_what_the_package_still_has() -> None:
    world = Calls(MINUTES, money="0.10")
    world.add_meter(2, cap=100)
    assert world.open("a", 50).reply.granted_seconds == 50
    assert world.stop("a", 120) == D("0.20")
    assert world.books.entries[-1].code == "overrun"
    assert world.meter(2) == (100, 0)


# --- spending ------------------------------------------------------------------------------------


def test_a_cap_of_the_day_bounds_the_grant_and_names_itself() -> None:
    world = Calls(DAY)
    world.add_meter(3, cap=5)
    assert world.open("a").session.legs[0].held == D("3.00")
    second = world.open("b")
    assert (second.reply.granted_seconds, second.reply.final) == (200, True)
    refused = world.open("c")
    assert (refused.reply.reason, refused.reply.refused_by) == (Reason.SPEND_LIMIT, 1)
    assert world.stop("a", 100) == D("1.00")
    more = world.say(Update("b", 199_000))
    assert (more.reply.granted_seconds, more.reply.reason) == (400, Reason.SPEND_LIMIT)
    assert world.stop("b", 400) == D("4.00")
    assert world.meter(3) == (5, 0)


def test_a_cap_without_a_bound_only_counts() -> None:
    world = Calls(DAY)
    world.add_meter(3)
    world.open("a")
    world.stop("a", 77)
    assert world.meter(3) == (D("0.77"), 0)


# --- rates that change while a call is up --------------------------------------------------------


def _later(tariff: Tariff, after: int = 100) -> Terms:
    return Terms(later=(Later(T0 + timedelta(seconds=after), tariff, "new"),))


DEARER = Tariff(D("1.20"), D("1.20"), 60, 60)


@pytest.mark.parametrize(
    ("tariff", "seconds", "charge"),
    [(PER_SECOND, 90, "0.90"), (PER_SECOND, 120, "1.50"), (PER_MINUTE, 130, "2.40")],
)
def test_a_call_is_split_at_the_first_interval_after_the_change(
    tariff: Tariff, seconds: int, charge: str
) -> None:
    """Answered ten seconds after T0: the change is 90 s into the call.

    By the second that is exactly there; by the minute the third minute is the first new one.
    """
    world = Calls(_later(DEARER), tariff=tariff)
    world.open("a")
    world.now = T0 + timedelta(seconds=10)
    world.say(Start("a"))
    world.now = T0 + timedelta(seconds=10 + seconds)
    assert world.stop("a", seconds) == D(charge)


def test_while_the_answer_is_awaited_the_dearer_rate_is_held_from_the_earliest_moment() -> None:
    """It may be answered as late as 120 s from now, and then all of it is at the new rate."""
    world = Calls(_later(DEARER))
    assert world.open("a").session.legs[0].held == D("6.00")
    world.say(Start("a"))
    assert world.stop("a", 300) == D("1.00") + D("4.00")


def test_a_cheaper_rate_to_come_lowers_no_hold_before_the_answer() -> None:
    world = Calls(_later(Tariff(D("0.30"), D("0.30"), 1, 1)))
    assert world.open("a").session.legs[0].held == D("3.00")
    world.say(Start("a"))
    assert world.stop("a", 300) == D("1.00") + D("1.00")


# --- the tree ------------------------------------------------------------------------------------


def _tree() -> tuple[Calls, dict[int, Tariff], dict[int, Terms]]:
    """A customer on a package, its reseller in euros on a tier, and the one above on neither."""
    world = Calls(MINUTES)
    for id_, currency in ((2, "EUR"), (3, "GBP")):
        world.books.add_wallet(Wallet(id_, id_, currency))
        world.books.change_wallet(id_, credit_limit=D(1))
    world.add_meter(1, used=0)
    world.add_meter(2, cap=50)
    wholesale = Tariff(D("0.60"), D("0.60"), 30, 30)
    carrier = Tariff(D("0.12"), D("0.12"), 1, 1)
    return world, {1: PER_SECOND, 2: wholesale, 3: carrier}, {1: MINUTES, 2: MARGINAL}


def test_every_level_pays_by_its_own_plan_in_its_own_currency() -> None:
    """70 s: 20 s at a cent; 90 s at a cent; 70 s at a fifth of a cent. The euros cover 90 s."""
    world, tariffs, terms = _tree()
    opened = world.say(world.authorise("a", tariffs, terms))
    assert opened.reply.granted_seconds == 90
    assert opened.reply.final
    closed = world.say(Stop("a", 70_000))
    assert [leg.charged for leg in closed.session.legs] == [D("0.20"), D("0.90"), D("0.14")]
    assert [world.books.wallets[n].balance for n in (1, 2, 3)] == [
        D("9.80"),
        D("-0.90"),
        D("-0.14"),
    ]


def test_a_reseller_without_money_ends_its_customers_calls_and_is_named() -> None:
    world, tariffs, terms = _tree()
    world.say(world.authorise("a", tariffs, terms, requested_seconds=60))
    world.books.change_wallet(2, credit_limit=D("0.60"))
    reply = world.say(Update("a", 50_000)).reply
    assert (reply.granted_seconds, reply.final) == (60, True)
    assert (reply.reason, reply.refused_by) == (Reason.INSUFFICIENT_FUNDS, 2)
    refused = world.say(world.authorise("b", tariffs, terms)).reply
    assert (refused.outcome, refused.refused_by) == (Outcome.REFUSED, 2)


def test_a_suspended_reseller_cuts_off_its_customers_calls() -> None:
    world, tariffs, terms = _tree()
    world.say(world.authorise("a", tariffs, terms))
    world.limits[3] = Limits(suspended=True, kill_on_suspend=True)
    reply = world.say(Update("a", 5_000)).reply
    assert (reply.terminate, reply.reason, reply.refused_by) == (True, Reason.KILLED, 3)
    refused = world.say(world.authorise("b", tariffs, terms)).reply
    assert (refused.reason, refused.refused_by) == (Reason.PARTY_SUSPENDED, 3)


# --- extensions ----------------------------------------------------------------------------------


def test_an_extensions_calls_are_counted_on_its_meter() -> None:
    world = Calls(Terms())
    world.add_meter(9)
    counts = (CallCount(9, 77, most=2),)
    for key in ("a", "b"):
        assert world.open(key, counts=counts, party_id=77).reply.outcome is Outcome.GRANTED
    refused = world.open("c", counts=counts, party_id=77).reply
    assert (refused.reason, refused.refused_by) == (Reason.CONCURRENCY_LIMIT, 77)
    world.stop("a", 0)
    assert world.meter(9) == (0, 1)
    assert world.open("d", counts=counts, party_id=77).reply.outcome is Outcome.GRANTED


def test_the_cap_per_call_of_an_extension_bounds_the_customers_leg() -> None:
    world = Calls(Terms())
    world.limits[77] = Limits(max_cost=D("0.50"))
    world.limits[1] = Limits(max_cost=D("0.80"))
    opened = world.open("a", party_id=77)
    assert (opened.reply.granted_seconds, opened.session.legs[0].held) == (50, D("0.50"))
    reply = world.say(Update("a", 10_000)).reply
    assert (reply.reason, reply.refused_by) == (Reason.COST_LIMIT, 77)


def test_little_money_lowers_how_many_calls_may_be_up() -> None:
    """Below 8.00 only two at once."""
    world = Calls(Terms())
    world.limits[1] = Limits(low_balance=D(8), low_sessions=2)
    assert world.open("a").reply.outcome is Outcome.GRANTED
    assert world.open("b").reply.outcome is Outcome.GRANTED
    refused = world.open("c").reply
    assert (refused.reason, refused.refused_by) == (Reason.CONCURRENCY_LIMIT, 1)
    world.stop("b", 0)
    assert world.open("d").reply.outcome is Outcome.GRANTED
