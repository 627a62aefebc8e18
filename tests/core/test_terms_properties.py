"""What holds for legs with terms whatever happens: order, refunds, holds, and the books."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.test_terms_sessions import Calls
from tests.core.world import PER_SECOND, World, pin_of
from tollkeeper.core.at_once import hold_at_once, settle_at_once
from tollkeeper.core.batch import tally
from tollkeeper.core.holds import afford_terms, hold_of
from tollkeeper.core.parts import counts_of, exact_of, settle
from tollkeeper.core.pieces import billed_units
from tollkeeper.core.rating import Tariff, afford, price
from tollkeeper.core.records import (
    CallCount,
    Command,
    Expire,
    Leg,
    Outcome,
    Refund,
    Role,
    SilentTail,
    Start,
    Stop,
    Unit,
    Update,
)
from tollkeeper.core.terms import Meter, Package, Spend, Terms, Tier, TierStep
from tollkeeper.errors import Conflict, NotFound

D = Decimal
prices = st.integers(0, 30).map(lambda n: D(n) * D("0.06"))


@st.composite
def tiers(draw: st.DrawFn, retroactive: bool | None = None) -> Tier:
    """Up to four steps of prices or percents, up or down."""
    starts = sorted(draw(st.sets(st.integers(1, 400), max_size=3)))
    steps = []
    for start in [0, *starts]:
        if draw(st.booleans()):
            steps.append(TierStep(start, price=draw(prices)))
        else:
            steps.append(TierStep(start, percent=D(draw(st.integers(0, 120)))))
    chosen = draw(st.booleans()) if retroactive is None else retroactive
    return Tier(1, "volume", tuple(steps), retroactive=chosen)


def _worth(tier: Tier, units: int, row: Decimal) -> Fraction:
    """The price of a volume, unit by unit, per minute: each by its place, or all by the last."""

    def at(volume: int) -> Fraction:
        step = next(step for step in reversed(tier.steps) if step.start <= volume)
        own = step.price if step.price is not None else row * (step.percent or D(0)) / 100
        return Fraction(own) / 60

    if tier.retroactive:
        return at(units) * units
    return sum((at(place) for place in range(units)), Fraction(0))


def _exact(world: World) -> Fraction:
    """What all parts of all sessions make."""
    legs = [leg for session in world.books.sessions() for leg in session.legs]
    return sum((Fraction(exact_of(leg, leg.parts)) for leg in legs), Fraction(0))


@settings(deadline=None)
@given(tiers(), st.lists(st.integers(1, 200), min_size=1, max_size=4), st.data())
def test_a_tiers_total_is_that_of_its_volume_in_whatever_order_calls_end(
    tier: Tier, lengths: list[int], data: st.DataObject
) -> None:
    """Calls up at the same time, some of whose usage is known late, tile the tier exactly."""
    world = Calls(Terms(tier=tier), money="100000")
    world.add_meter(1)
    for number in range(len(lengths)):
        assert world.open(str(number)).reply.outcome is Outcome.GRANTED
    for number in data.draw(st.permutations(range(len(lengths)))):
        world.stop(str(number), data.draw(st.integers(1, lengths[number])))
    for number in data.draw(st.permutations(range(len(lengths)))):
        world.stop(str(number), lengths[number])
    volume = sum(lengths)
    assert world.meter(1) == (volume, 0)
    assert world.books.meters[1].base == volume * D("0.60")
    assert _exact(world) == _worth(tier, volume, D("0.60"))


@settings(deadline=None)
@given(
    tiers(retroactive=True),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 120)), max_size=12),
)
def test_a_retroactive_total_is_that_of_its_volume_whatever_is_refunded(
    tier: Tier, acts: list[tuple[int, int]]
) -> None:
    world = Calls(Terms(tier=tier), money="100000")
    world.add_meter(1)
    for number, (which, units) in enumerate(acts):
        key = str(which)
        if world.books.session(key) is None:
            world.open(key)
            world.stop(key, units)
        elif number % 3:
            world.say(Refund(key, units))
        else:
            world.stop(key, units)
        assert _exact(world) == _worth(tier, int(world.meter(1)[0]), D("0.60"))


TARIFFS = [
    PER_SECOND,
    Tariff(D("0.60"), D("0.60"), 60, 60),
    Tariff(D("0.0065"), D("0.0123"), 30, 6, decimals=4),
    Tariff(D("1.20"), D("0.30"), 10, 60, connect_fee=D("0.05"), attempt_fee=D("0.001")),
    Tariff(D("0.50"), D("0.50"), 6, 6, minimum=D("0.10"), free_below=6, decimals=2),
    Tariff(D("5"), D("5"), 60, 1, cap=D("6"), surcharge=D("0.1")),
    Tariff(D("0.05"), D("0.04"), 1, 1, per=1),
]


def _leg(tariff: Tariff, terms: Terms) -> Leg:
    return Leg(Role.CUSTOMER, 1, 1, pin_of(tariff), terms=terms)


@given(st.sampled_from(TARIFFS), st.integers(0, 2000))
def test_terms_that_say_nothing_change_no_price(tariff: Tariff, used: int) -> None:
    leg = _leg(tariff, Terms())
    parts, charge = settle(leg, used, {})
    assert charge == price(tariff, used)
    assert sum(part.units for part in parts) == billed_units(leg, used)


@given(st.sampled_from(TARIFFS), st.decimals(0, 20, places=2), st.integers(1, 2000))
def test_terms_that_say_nothing_change_no_grant(tariff: Tariff, money: Decimal, most: int) -> None:
    offered = afford_terms(_leg(tariff, Terms()), {}, money, most)
    assert (offered.units, offered.cost if offered.units else 0) == afford(tariff, money, most)


@given(
    st.sampled_from(TARIFFS),
    st.one_of(st.none(), tiers()),
    st.integers(0, 300),
    st.integers(0, 300),
    st.decimals(0, 20, places=2),
    st.integers(1, 1000),
)
def test_a_grant_costs_no_more_than_the_money_and_no_longer_one_is_covered(
    tariff: Tariff, tier: Tier | None, volume: int, free: int, money: Decimal, most: int
) -> None:
    meters = {1: Meter(1, 1, used=D(volume)), 2: Meter(2, 1, cap=D(free))}
    leg = _leg(tariff, Terms((Package(2, "free"),), tier))
    offered = afford_terms(leg, meters, money, most)
    if offered.units:
        assert offered.cost <= money
        assert (offered.cost, offered.reserved) == hold_of(leg, offered.units, meters)
    if offered.units < most:
        more = offered.units + tariff.next_interval if offered.units else tariff.first_interval
        assert hold_of(leg, min(more, most), meters)[0] > money


@given(
    st.sampled_from(TARIFFS),
    st.one_of(st.none(), tiers(retroactive=False)),
    st.integers(0, 300),
    st.integers(0, 300),
    st.integers(0, 300),
    st.integers(1, 600),
)
def test_a_hold_covers_its_grant_however_the_volume_grows_meanwhile(
    tariff: Tariff, tier: Tier | None, volume: int, grown: int, free: int, units: int
) -> None:
    """Others may fill the tier, and use up all of the package that this call has not reserved."""
    meters = {1: Meter(1, 1, used=D(volume)), 2: Meter(2, 1, cap=D(free))}
    leg = _leg(tariff, Terms((Package(2, "free"),), tier))
    held, reserved = hold_of(leg, units, meters)
    taken = sum(reserve.units for reserve in reserved)
    later = {
        1: Meter(1, 1, used=D(volume + grown)),
        2: Meter(2, 1, used=D(free - taken), held=D(taken), cap=D(free)),
    }
    parts, charge = settle(msgspec.structs.replace(leg, reserved=reserved), units, later)
    assert charge <= held
    for count in counts_of(parts):
        after = tally(later[count.meter_id], count)
        assert after.cap is None or after.used <= after.cap


USUAL = [
    Tariff(D("0.60"), D("0.60"), 1, 1),
    Tariff(D("0.0123"), D("0.0123"), 30, 6, attempt_fee=D("0.001"), surcharge=D("0.05")),
    Tariff(D("0.05"), D("0.05"), 1, 1, per=1, decimals=2),
    Tariff(D("3"), D("3"), 1024, 1024, per=10**6),
]


@given(st.sampled_from([*USUAL, *TARIFFS]), tiers(), st.integers(0, 500), st.integers(0, 600))
def test_what_is_priced_at_once_is_priced_the_same_as_piece_by_piece(
    tariff: Tariff, tier: Tier, volume: int, units: int
) -> None:
    meters = {1: Meter(1, 1, used=D(volume))}
    leg = _leg(tariff, Terms(tier=tier))
    if (done := settle_at_once(leg, units, meters)) is not None:
        parts, charge, counts = done
        assert (parts, charge) == settle(leg, units, meters)
        assert counts == counts_of(parts)
    if (held := hold_at_once(leg, units, meters)) is not None:
        assert (held, ()) == hold_of(leg, units, meters)


def test_the_usual_leg_is_priced_at_once() -> None:
    """Else the property above would hold for nothing."""
    tier = Tier(1, "volume", (TierStep(0, percent=D(100)), TierStep(1000, percent=D(90))))
    meters = {1: Meter(1, 1, used=D(500))}
    for tariff in USUAL[:3]:
        assert settle_at_once(_leg(tariff, Terms(tier=tier)), 60, meters) is not None
        assert hold_at_once(_leg(tariff, Terms(tier=tier)), 60, meters) is not None
        assert settle_at_once(_leg(tariff, Terms(tier=tier)), 600, meters) is None


# --- anything in any order -----------------------------------------------------------------------

KEYS = st.integers(0, 5).map(str)
STEPS = (TierStep(0, percent=D(100)), TierStep(60, price=D("0.42")), TierStep(200, percent=D(40)))


def _terms(kind: int, wallet: int) -> Terms | None:
    """What the leg on a wallet is under: from nothing at all to everything together."""
    base = wallet * 10
    tier = Tier(base + 1, "volume", STEPS, retroactive=kind == 2)
    if kind == 0:
        return None
    return Terms(
        packages=(Package(base + 2, "free"),) if kind != 2 else (),
        tier=tier if kind != 1 else None,
        spend=(Spend(base + 3, "day"),),
    )


@st.composite
def acts(draw: st.DrawFn) -> tuple[object, ...]:
    """One act of the switch, of the operator, or of time."""
    key, used = draw(KEYS), draw(st.integers(0, 200))
    verb = draw(
        st.sampled_from(
            [
                "open",
                "open",
                "charge",
                "update",
                "update",
                "stop",
                "stop",
                "refund",
                "start",
                "expire",
                "topup",
                "grow",
            ]
        )
    )
    return (verb, key, used, draw(st.sampled_from(TARIFFS[:6])), draw(st.integers(0, 3)))


@settings(deadline=None, max_examples=150)
@given(st.lists(acts(), max_size=25), st.sampled_from(SilentTail), st.booleans())
def test_the_books_are_right_after_anything(
    steps: list[tuple[object, ...]], tail: SilentTail, above: bool
) -> None:
    """Calls, events, late words, refunds and expiry, on two levels, under any terms."""
    world = World({1: D(5), 2: D(4)})
    world.policy = msgspec.structs.replace(world.policy, silent_tail=tail)
    for wallet in (1, 2):
        world.add_meter(wallet * 10 + 1)
        world.add_meter(wallet * 10 + 2, cap=150)
        world.add_meter(wallet * 10 + 3, cap=3)
    world.add_meter(99)
    for step in steps:
        _act(world, step, above)
        assert world.check() == []
        assert all(meter.held >= 0 for meter in world.books.meters.values())
    world.now += timedelta(days=2)
    for key in [session.key for session in world.books.sessions() if session.open]:
        world.send(Expire(key))
    assert world.check() == []
    assert all(meter.held == 0 for meter in world.books.meters.values())
    assert all(wallet.held == 0 for wallet in world.books.wallets.values())


def _act(world: World, step: tuple[object, ...], above: bool) -> None:
    verb, key, used, tariff, kind = step
    assert isinstance(key, str)
    assert isinstance(used, int)
    assert isinstance(tariff, Tariff)
    assert isinstance(kind, int)
    wallets = (1, 2) if above else (1,)
    tariffs = dict.fromkeys(wallets, tariff)
    terms = {w: t for w in wallets if (t := _terms((kind + w) % 4, w)) is not None}
    commands: dict[object, Command] = {
        "open": world.authorise(
            key, tariffs, terms, requested_seconds=used + 1, counts=(CallCount(99, 1, most=3),)
        ),
        "charge": world.charge(key, used + 1, tariffs, terms, unit=Unit.ITEM),
        "update": Update(key, used * 1000),
        "stop": Stop(key, used * 1000),
        "refund": Refund(key, used if kind else None),
        "start": Start(key),
        "expire": Expire(key),
    }
    if verb == "topup":
        world.books.change_wallet(1, credit_limit=D(used) / 10)
    elif verb == "grow":
        world.now += timedelta(seconds=used)
    else:
        try:
            world.send(commands[verb])
        except (Conflict, NotFound):
            return
