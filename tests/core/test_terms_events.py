"""Messages, data and fees: what is charged at once, what is counted in bytes, what is given back."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest

from tests.core.test_terms_sessions import DAY, Calls, parts_of
from tests.core.world import PER_SECOND, T0, Table
from tollkeeper.core.rating import Tariff
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import (
    Decision,
    Ending,
    Expire,
    Limits,
    Outcome,
    Policy,
    Refund,
    SilentTail,
    Start,
    Stop,
    Unit,
    Update,
)
from tollkeeper.core.terms import Package, Terms, Tier, TierStep
from tollkeeper.errors import Conflict, InvalidInput, NotFound

D = Decimal
EACH = Tariff(D("0.05"), D("0.05"), 1, 1, per=1)
"""Five cents a message."""
MEGABYTE = Tariff(D("0.10"), D("0.10"), 1000, 1000, per=10**6)
"""Ten cents a megabyte, billed by the kilobyte."""
WRAP = 2**32 * 1000


class Messages(Calls):
    """One customer who sends messages."""

    def __init__(self, terms: Terms | None = None, money: str = "10") -> None:
        super().__init__(terms or Terms(), money, EACH)

    def send_messages(self, key: str, units: int = 1) -> Decision:
        """Charge for messages."""
        return self.say(self.charge(key, units, {1: self.tariff}, {1: self.terms}))

    @property
    def balance(self) -> Decimal:
        """The customer's money."""
        return self.books.wallets[1].balance


# --- events --------------------------------------------------------------------------------------


@pytest.mark.parametrize("terms", [None, Terms()])
def test_an_event_is_charged_and_over_in_one_message(terms: Terms | None) -> None:
    world = Messages()
    decision = world.say(world.charge("a", 3, {1: EACH}, {1: terms} if terms is not None else {}))
    reply, session = decision.reply, decision.session
    assert (reply.outcome, reply.charge, reply.used_ms) == (Outcome.CHARGED, D("0.15"), 3000)
    assert (session.ending, session.open, session.unit) == (Ending.SETTLED, False, Unit.MESSAGE)
    assert (world.balance, world.books.wallets[1].held) == (D("9.85"), 0)
    assert [entry.code for entry in world.books.entries[1:]] == ["usage"]


def test_all_units_are_paid_for_or_none() -> None:
    """The last message of three is not covered by the reseller."""
    world = Messages()
    world.books.add_wallet(
        msgspec.structs.replace(world.books.wallets[1], id=2, party_id=2, credited=D(0), version=0)
    )
    world.books.change_wallet(2, credit_limit=D("0.10"))
    refused = world.say(world.charge("a", 3, {1: EACH, 2: EACH})).reply
    assert (refused.outcome, refused.reason, refused.refused_by) == (
        Outcome.REFUSED, Reason.INSUFFICIENT_FUNDS, 2,
    )  # fmt: skip
    assert world.balance == 10
    assert world.say(world.charge("b", 2, {1: EACH, 2: EACH})).reply.charge == D("0.10")


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(suspended=True), Reason.PARTY_SUSPENDED),
        (Limits(max_cost=D("0.04")), Reason.COST_LIMIT),
        (Limits(max_sessions=0, max_cps=0), Reason.NONE),
    ],
)
def test_what_stands_against_an_event(limits: Limits, reason: Reason) -> None:
    """It takes no channel, so limits of calls do not concern it."""
    world = Messages()
    world.limits[1] = limits
    assert world.send_messages("a").reply.reason is reason


def test_a_parked_wallet_and_a_cap_refuse_an_event() -> None:
    world = Messages(DAY)
    world.add_meter(3, cap="0.12")
    assert world.send_messages("a", 2).reply.charge == D("0.10")
    refused = world.send_messages("b").reply
    assert (refused.reason, refused.refused_by) == (Reason.SPEND_LIMIT, 1)
    assert world.meter(3) == (D("0.10"), 0)
    world.books.change_wallet(1, parked=True)
    assert world.send_messages("c").reply.reason is Reason.WALLET_PARKED


def test_an_event_uses_a_package_first_and_then_counts_in_the_tier() -> None:
    """Two of five are free; three at five cents fill the tier to its step."""
    steps = (TierStep(0, percent=D(100)), TierStep(2, price=D("0.04")))
    world = Messages(Terms(packages=(Package(2, "sms"),), tier=Tier(1, "volume", steps)))
    world.add_meter(1)
    world.add_meter(2, cap=2)
    assert world.send_messages("a", 5).reply.charge == D("0.14")
    assert parts_of(world, "a") == [
        ("package", 2, D(0)), ("tier", 2, D("0.05")), ("tier", 1, D("0.04")),
    ]  # fmt: skip
    assert (world.meter(1), world.meter(2)) == ((3, 0), (2, 0))


def test_events_make_no_sense_without_units() -> None:
    world = Messages()
    for units in (0, -1, 10**14):
        with pytest.raises(InvalidInput, match="units"):
            world.send_messages("a", units)


def test_an_event_was_charged_before_anything_else_is_said_of_it() -> None:
    world = Messages()
    world.send_messages("a")
    with pytest.raises(Conflict, match="other content"):
        world.send_messages("a", 2)
    assert world.say(Stop("a", 1000)).reply.charge == D("0.05")
    with pytest.raises(NotFound):
        world.send(Refund("b"))


# --- refunds -------------------------------------------------------------------------------------


def test_a_refund_gives_back_everything_and_only_once() -> None:
    world = Messages()
    world.tariff = msgspec.structs.replace(EACH, connect_fee=D("0.02"), attempt_fee=D("0.01"))
    for terms in (None, Terms()):
        key = f"s/{terms is None}"
        world.say(world.charge(key, 2, {1: world.tariff}, {1: terms} if terms else {}))
        assert world.balance == D("9.87")
        again = [world.say(Refund(key)) for _ in range(2)]
        assert [decision.reply.charge for decision in again] == [0, 0]
        assert again[0].session.version == again[1].session.version
        assert world.balance == 10
        assert world.books.entries[-1].code == "refund"


def test_a_refund_of_some_units_is_their_total_so_far() -> None:
    """Of five messages two, then three in all; two in all is less than that."""
    world = Messages()
    world.send_messages("a", 5)
    assert world.say(Refund("a", 2)).reply.charge == D("0.15")
    assert world.say(Refund("a", 3)).reply.charge == D("0.10")
    assert world.say(Refund("a", 2)).reply.charge == D("0.10")
    assert world.say(Refund("a", 99)).reply.charge == 0
    assert world.balance == 10


def test_a_refund_gives_back_what_meters_counted() -> None:
    steps = (TierStep(0, percent=D(100)), TierStep(2, price=D("0.04")))
    terms = Terms(packages=(Package(2, "sms"),), tier=Tier(1, "v", steps), spend=DAY.spend)
    world = Messages(terms)
    world.add_meter(1)
    world.add_meter(2, cap=2)
    world.add_meter(3, cap=1)
    world.send_messages("a", 5)
    assert world.say(Refund("a", 2)).reply.charge == D("0.05")
    assert [world.meter(n) for n in (1, 2, 3)] == [(1, 0), (2, 0), (D("0.05"), 0)]
    assert world.say(Refund("a")).reply.charge == 0
    assert [world.meter(n) for n in (1, 2, 3)] == [(0, 0), (0, 0), (0, 0)]
    assert world.books.meters[1].base == 0


def test_a_step_that_is_reached_again_is_not_rewarded_again() -> None:
    """Ten at five cents, the tenth makes all of them four. It fails, and the next one is sent."""
    steps = (TierStep(0, percent=D(100)), TierStep(10, price=D("0.04")))
    world = Messages(Terms(tier=Tier(1, "volume", steps, retroactive=True)))
    world.add_meter(1)
    for n in range(10):
        world.send_messages(f"m{n}")
    assert world.balance == 10 - D("0.40")
    assert world.say(Refund("m9")).reply.charge == 0
    assert world.balance == 10 - D("0.45")
    world.send_messages("again")
    assert world.balance == 10 - D("0.40")
    world.say(Refund("m0"))
    assert world.balance == 10 - D("0.45")
    assert world.meter(1) == (9, 0)


def test_late_usage_after_a_refund_is_charged_beside_it() -> None:
    """60 s of 95 are given back on a call by the second; five more are reported."""
    world = Calls(Terms())
    world.open("a")
    assert world.stop("a", 95) == D("0.95")
    assert world.say(Refund("a", 60)).reply.charge == D("0.35")
    assert world.stop("a", 100) == D("0.40")
    assert world.say(Refund("a")).reply.charge == 0
    assert world.books.wallets[1].balance == 10


def test_a_refund_on_a_minute_card_counts_whole_minutes() -> None:
    """95 s are billed 120: without 30 s still 120, without 40 s only 60."""
    Table(tariff=Tariff(D("0.60"), D("0.60"), 60, 60)).run("""
        0:   authorise -> granted 300 s
        1:   start     -> active 300 s
        100: stop 95   -> closed 1.20
        101: refund 30 -> closed 1.20
        102: refund 40 -> closed 0.60, refund entry 0.60
        103: refund 40 -> closed 0.60, nothing changed
        104: refund    -> closed 0, balance 10, held 0
        105: stop 130  -> closed 0.60, late entry 0.60
    """)


def test_what_was_never_used_cannot_stay_refunded() -> None:
    """300 s were assumed and 200 given back; then 120 s turn out to be true."""
    Table(policy=Policy(silent_tail=SilentTail.GRANT_END)).run("""
        0:   authorise  -> granted 300 s
        5:   start      -> active 300 s
        365: expire     -> closed 3.00
        366: refund 200 -> closed 1.00
        400: stop 120   -> closed 0, correction entry 1.00, balance 10
    """)


def test_a_refusal_has_nothing_to_be_given_back() -> None:
    Table(money="0").run("""
        0: authorise -> refused insufficient_funds
        1: refund    -> error session_refused
    """)


# --- data ----------------------------------------------------------------------------------------


def _data(money: str = "10") -> Calls:
    return Calls(Terms(), money, MEGABYTE)


def test_a_data_session_is_granted_bytes_and_lives_as_long_as_they_may_be_used() -> None:
    """Ten euros are a hundred megabytes, for an hour at a time."""
    world = _data()
    opened = world.open("d", 150_000_000, unit=Unit.BYTE, start_expected=False)
    assert (opened.reply.granted_seconds, opened.reply.final) == (100_000_000, True)
    assert opened.reply.expires_at == T0 + timedelta(seconds=180 + 3600)
    assert opened.session.legs[0].held == 10
    world.now = T0 + timedelta(seconds=60)
    reply = world.say(Update("d", 20_000_500_000)).reply
    assert reply.expires_at == world.now + timedelta(seconds=3600 + 60)
    assert world.say(Stop("d", 20_000_500_000)).reply.charge == D("2.0001")
    session = world.books.session("d")
    assert session is not None
    assert session.marks == ()


def test_silence_uses_no_bytes() -> None:
    world = _data()
    world.policy = Policy(silent_tail=SilentTail.GRANT_END)
    world.open("d", 10_000_000, unit=Unit.BYTE)
    world.say(Start("d"))
    world.say(Update("d", 2_000_000_000))
    world.now += timedelta(hours=3)
    assert world.say(Expire("d")).reply.charge == D("0.20")


def test_a_counter_that_begins_again_at_2_to_the_32_goes_on() -> None:
    """4,000,000,000 bytes, then 105,032,704 after the wrap: 4,400,000,000."""
    world = _data(money="1000")
    world.open("d", 10**9, unit=Unit.BYTE)
    for reported, known in [
        (4_000_000_000, 4_000_000_000),
        (105_032_704, 4_400_000_000),
        (4_200_000_000, 4_400_000_000),
        (100_000_000, 4_400_000_000),
        (205_032_704, 4_500_000_000),
    ]:
        update = Update("d", reported * 1000, wraps_at=WRAP)
        assert world.say(update).reply.used_ms == known * 1000
    stop = Stop("d", 305_032_704_000, wraps_at=WRAP)
    assert world.say(stop).reply.charge == D(460)
    late = Stop("d", 405_032_704_000, wraps_at=WRAP)
    assert world.say(late).reply.charge == D(470)
    assert world.say(stop).reply.charge == D(470)


def test_data_is_not_bounded_by_the_longest_call() -> None:
    world = _data()
    world.limits[1] = Limits(max_seconds=60)
    assert world.open("d", 1_000_000, unit=Unit.BYTE).reply.granted_seconds == 1_000_000
    assert world.say(Update("d", 900_000_000)).reply.granted_seconds == 1_900_000


def test_a_package_of_bytes_is_used_before_money() -> None:
    """Five megabytes are free, the sixth costs ten cents."""
    world = _data()
    world.terms = Terms(packages=(Package(2, "mb"),))
    world.add_meter(2, cap=5_000_000)
    assert world.open("d", 8_000_000, unit=Unit.BYTE).session.legs[0].held == D("0.30")
    assert world.say(Stop("d", 6_000_000_000)).reply.charge == D("0.10")
    assert world.meter(2) == (5_000_000, 0)


def test_a_voice_call_is_priced_as_ever_beside_all_this() -> None:
    world = Calls(Terms(), tariff=PER_SECOND)
    world.open("a")
    assert world.stop("a", 61) == D("0.61")
