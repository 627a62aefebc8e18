"""Meters, charges and refunds in the lane: two nodes on one store in memory, in an exact order."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import msgspec
import pytest

from tests.core.world import PER_SECOND, pin_of
from tests.services.lane_bench import Bench, authorise, play
from tollkeeper.core.ledger import Code
from tollkeeper.core.rating import Tariff
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import (
    Authorise,
    CallCount,
    Charge,
    Limits,
    Offer,
    Outcome,
    Refund,
    Role,
    Start,
    Stop,
    Update,
    Wallet,
)
from tollkeeper.core.terms import Meter, Package, Spend, Terms, Tier, TierStep
from tollkeeper.errors import Conflict

D = Decimal
PACKAGE = Terms(packages=(Package(3, "minutes"),))
MESSAGE = Tariff(D("0.50"), D("0.50"), 1, 1, per=1)


def with_terms(name: str, terms: Terms, wallet: int = 1, seconds: int = 300) -> Authorise:
    """An Authorise at one cent a second, where the terms say nothing else."""
    offer = Offer(Role.CUSTOMER, wallet, wallet, pin_of(PER_SECOND), terms)
    return Authorise(f"s/{name}", wallet, "4420", offers=(offer,), requested_seconds=seconds)


def message(name: str, units: int = 1, terms: Terms | None = None) -> Charge:
    """A Charge of fifty cents a message."""
    offer = Offer(Role.CUSTOMER, 1, 1, pin_of(MESSAGE), terms)
    return Charge(f"s/{name}", 1, "4477", units, offers=(offer,))


def without_money(bench: Bench) -> None:
    """A second wallet, with nothing in it."""
    bench.books.add_wallet(Wallet(2, 2, "USD"))


# --- meters ------------------------------------------------------------------------------------------


def test_calls_that_race_for_a_package_never_reserve_more_than_is_left() -> None:
    """Thirty-two calls of a customer without money, on two nodes: the package is all they have."""

    async def scene(bench: Bench) -> None:
        without_money(bench)
        bench.books.meters[3] = Meter(3, 2, cap=D(100))
        answers = await asyncio.gather(
            *[bench.send(with_terms(f"c{n}", PACKAGE, 2, 30), lane=n % 2) for n in range(32)]
        )
        assert sum(reply.granted_seconds for reply, _ in answers) == 100
        assert bench.books.meters[3].held == 100
        up = [n for n, (reply, _) in enumerate(answers) if reply.outcome is Outcome.GRANTED]
        await asyncio.gather(*[bench.send(Stop(f"s/c{n}", 10_000), lane=n % 2) for n in up])
        assert bench.books.meters[3].held == 0
        assert bench.books.meters[3].used == 10 * len(up)
        assert bench.books.wallets[2].debited == 0

    play(scene)


def test_calls_of_two_nodes_fill_a_tier_without_gap_or_overlap() -> None:
    """The first thousand seconds cost a cent each, those above half of it; together exactly that."""
    tier = Terms(tier=Tier(3, "volume", (TierStep(0, D("0.60")), TierStep(1000, D("0.30")))))

    async def scene(bench: Bench) -> None:
        bench.books.top_up(1, D(90), bench.now, Code.TOPUP)
        bench.books.meters[3] = Meter(3, 1)
        await asyncio.gather(
            *[bench.send(with_terms(f"c{n}", tier, 1, 60), lane=n % 2) for n in range(32)]
        )
        await asyncio.gather(
            *[bench.send(Stop(f"s/c{n}", 50_000), lane=(n + 1) % 2) for n in range(32)]
        )
        assert bench.books.meters[3].used == 1600
        assert bench.books.wallets[1].debited == D("10.00") + D("3.00")

    play(scene)


def test_the_calls_of_an_extension_are_counted_over_nodes() -> None:
    """Two at once, whoever asks; and as many again once they are over."""

    def call(name: str) -> Authorise:
        count = CallCount(3, 7, most=2)
        return msgspec.structs.replace(authorise(name, seconds=10), party_id=7, counts=(count,))

    async def scene(bench: Bench) -> None:
        bench.books.meters[3] = Meter(3, 7)
        for round_ in ("a", "b"):
            answers = await asyncio.gather(
                *[bench.send(call(f"{round_}{n}"), lane=n % 2) for n in range(8)]
            )
            up = [n for n, (reply, _) in enumerate(answers) if reply.outcome is Outcome.GRANTED]
            assert len(up) == 2
            assert bench.books.meters[3].held == 2
            for n in up:
                await bench.send(Stop(f"s/{round_}{n}", 1000), lane=(n + 1) % 2)
            assert bench.books.meters[3].held == 0

    play(scene)


@pytest.mark.parametrize("told", [True, False])
def test_a_package_that_was_raised_is_seen_by_the_next_call(told: bool) -> None:
    """A refusal holds only for what was seen. Being told of the change saves the second look."""

    async def scene(bench: Bench) -> None:
        without_money(bench)
        bench.books.meters[3] = Meter(3, 2, cap=D(10))
        await bench.send(with_terms("a", PACKAGE, 2, 10))
        refused, _ = await bench.send(with_terms("b", PACKAGE, 2, 10))
        assert refused.reason is Reason.INSUFFICIENT_FUNDS
        bench.books.change_meter(3, cap=D(30))
        if told:
            bench.lanes[0].forget_meters([3, 99])
        granted, _ = await bench.send(with_terms("c", PACKAGE, 2, 20))
        assert granted.granted_seconds == 20
        assert bench.lanes[0].stale_batches == (0 if told else 1)

    play(scene)


def test_a_spending_cap_is_shared_by_calls_at_once() -> None:
    """Ten in the wallet, three a day: two nodes together hold no more than three."""
    spend = Terms(spend=(Spend(3, "day"),))

    async def scene(bench: Bench) -> None:
        bench.books.meters[3] = Meter(3, 1, cap=D(3))
        answers = await asyncio.gather(
            *[bench.send(with_terms(f"c{n}", spend, 1, 70), lane=n % 2) for n in range(8)]
        )
        assert sum(reply.granted_seconds for reply, _ in answers) == 300
        assert {reply.reason for reply, _ in answers if reply.outcome is Outcome.REFUSED} == {
            Reason.SPEND_LIMIT
        }
        assert bench.books.meters[3].held == 3
        await bench.send(Stop("s/c0", 1000))
        assert bench.books.meters[3].used == D("0.01")

    play(scene)


def test_sessions_without_meters_never_ask_for_any() -> None:
    async def scene(bench: Bench) -> None:
        await bench.send(authorise("a"))
        await bench.send(Stop("s/a", 1000))
        await bench.send(message("b"))
        assert "meters" not in bench.steps

    play(scene)


# --- charges and refunds -----------------------------------------------------------------------------


def test_charges_that_race_for_one_balance_spend_no_more_than_it_has() -> None:
    async def scene(bench: Bench) -> None:
        answers = await asyncio.gather(
            *[bench.send(message(f"m{n}"), lane=n % 2) for n in range(32)]
        )
        done = [reply for reply, _ in answers if reply.outcome is Outcome.CHARGED]
        assert [reply.charge for reply in done] == [D("0.50")] * 20
        assert bench.books.wallets[1].available == 0

    play(scene)


def test_a_charge_is_applied_once_whichever_node_it_reaches() -> None:
    async def scene(bench: Bench) -> None:
        answers = [await bench.send(message("a", 2), lane=node) for node in (0, 1, 0)]
        assert [repeated for _, repeated in answers] == [False, True, True]
        assert answers[0][0] == answers[1][0] == answers[2][0]
        assert bench.books.wallets[1].debited == 1
        for node in (0, 1):
            with pytest.raises(Conflict) as error:
                await bench.send(message("a", 3), lane=node)
            assert error.value.code == "session_id_reused"

    play(scene)


def test_a_refund_is_given_once_whichever_node_it_reaches() -> None:
    async def scene(bench: Bench) -> None:
        await bench.send(message("a", 4))
        some = [await bench.send(Refund("s/a", 1), lane=node) for node in (0, 1)]
        assert [repeated for _, repeated in some] == [False, True]
        assert bench.books.wallets[1].balance == D("8.50")
        both = await asyncio.gather(
            *[bench.send(Refund("s/a"), f"all-{node}", lane=node) for node in (0, 1)]
        )
        assert [reply.charge for reply, _ in both] == [0, 0]
        assert bench.books.wallets[1].balance == 10

    play(scene)


# --- the tree ------------------------------------------------------------------------------------------


def test_a_suspended_reseller_ends_its_customers_calls_at_their_next_report() -> None:
    """The limits of every leg's party count, not only of the one that calls."""

    async def scene(bench: Bench) -> None:
        bench.books.add_wallet(Wallet(2, 2, "USD"))
        bench.books.top_up(2, D(5), bench.now, Code.TOPUP)
        offers = (
            Offer(Role.CUSTOMER, 1, 1, pin_of(PER_SECOND)),
            Offer(Role.RESELLER, 2, 2, pin_of(PER_SECOND)),
        )
        await bench.send(Authorise("s/a", 1, "4420", offers=offers, requested_seconds=60))
        await bench.send(Start("s/a"))
        bench.limits_by[2] = Limits(suspended=True, kill_on_suspend=True)
        reply, _ = await bench.send(Update("s/a", 30_000))
        assert reply.terminate
        assert reply.final

    play(scene)
