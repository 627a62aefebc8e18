"""What the calls must have cost, told by those who made them and not by the books.

For every call the model keeps which prices were on offer when it was authorised, which usage was
reported to a node that was up, and which reports were answered. From that alone it says what may
stand in the books.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from tests.core.naive import naive_price
from tests.sim.books import MemoryBooks
from tests.sim.node import PACKAGE_METER, TIER_METER
from tests.sim.plan import TIER_STEPS
from tollkeeper.core.ledger import LEGAL, Account
from tollkeeper.core.rating import Tariff
from tollkeeper.core.records import Ending, Leg, Reply, Session, SilentTail


@dataclass
class CallStory:
    """One call as its switch and the network saw it (milliseconds of usage)."""

    key: str
    party: int
    offered: list[dict[int, Tariff]] = field(default_factory=list)
    delivered: set[int] = field(default_factory=set)
    answered: set[int] = field(default_factory=set)
    refunds: set[int | None] = field(default_factory=set)
    stop_answered: bool = False
    refund_answered: bool = False
    replies: dict[str, Reply] = field(default_factory=dict)
    requests: dict[str, bytes] = field(default_factory=dict)


class Model:
    """All calls, and the money that went in and out by hand."""

    def __init__(self) -> None:
        self.calls: dict[str, CallStory] = {}
        self.paid_in: dict[int, Decimal] = {}

    def call(self, key: str, party: int) -> CallStory:
        """The story of a call, begun where there is none."""
        return self.calls.setdefault(key, CallStory(key, party))

    def complaints(self, books: MemoryBooks, tail: SilentTail) -> Iterator[str]:
        """What does not fit, once everything is over."""
        spent = dict.fromkeys(books.wallets, Decimal(0))
        volume = Volume()
        for session in books.sessions():
            story = self.calls.get(session.key)
            if story is None:
                yield f"{session.key}: nobody made this call"
                continue
            pinned = {leg.wallet_id: leg.pin.tariff for leg in session.legs}
            if pinned and pinned not in story.offered:
                yield f"{session.key}: pinned to a price that was never on offer"
            yield from _usage_complaints(session, story, tail)
            for leg in session.legs:
                cost = _cost(session, leg)
                if leg.terms is not None and (leg.terms.tier or leg.terms.packages):
                    # What this one costs depends on when it was settled; only the sum does not.
                    volume.add(leg)
                    cost = leg.charged
                if leg.charged != cost:
                    yield f"{session.key}: charged {leg.charged}, must be {cost}"
                spent[leg.wallet_id] += cost
        yield from volume.complaints(books)
        for id_, wallet in books.wallets.items():
            balance = self.paid_in.get(id_, Decimal(0)) - spent[id_]
            if wallet.balance != balance:
                yield f"wallet {id_}: stands at {wallet.balance}, must stand at {balance}"
        revenue = sum(
            (e.amount if LEGAL[e.code][0] is Account.WALLET else -e.amount)
            for e in books.entries
            if e.session_id is not None
        )
        if revenue != sum(spent.values()):
            yield f"revenue is {revenue}, the calls cost {sum(spent.values())}"


def _usage_complaints(session: Session, story: CallStory, tail: SilentTail) -> Iterator[str]:
    """What is stored as used or refunded against what was reported and confirmed."""
    used, refused = session.used_ms, session.ending is Ending.REFUSED
    if used and used not in story.delivered:
        yield f"{session.key}: {used} ms were never reported"
    if not refused and used < max(story.answered, default=0):
        yield f"{session.key}: {used} ms, though {max(story.answered)} were confirmed"
    if session.assumed_ms and (tail is SilentTail.LAST_USAGE or story.stop_answered):
        yield f"{session.key}: usage is assumed against the policy"
    asked = {used if units is None else units * 1000 for units in story.refunds}
    if session.refunded_ms and session.refunded_ms not in asked:
        yield f"{session.key}: {session.refunded_ms} given back that nobody asked for"
    if story.refund_answered and not session.refunded_ms:
        yield f"{session.key}: a refund was confirmed and is not there"


def _cost(session: Session, leg: Leg) -> Decimal:
    """What a leg must have cost by its tariff alone."""
    used = max(session.used_ms, session.assumed_ms)
    if session.ending is Ending.REFUSED or (session.refunded_ms and session.refunded_ms == used):
        return Decimal(0)
    return naive_price(leg.pin.tariff, -(-(used - session.refunded_ms) // 1000))


class Volume:
    """All units on tiers and packages together: what they must have cost, whatever the order."""

    def __init__(self) -> None:
        self._charged = Decimal(0)
        self._billed = 0
        self._free = 0
        self._tiered = False

    def add(self, leg: Leg) -> None:
        """Count a leg; its tariff bills by the second and has no fees."""
        assert leg.terms is not None
        self._tiered |= leg.terms.tier is not None
        self._charged += leg.charged
        self._billed += sum(part.units for part in leg.parts)
        self._free += sum(part.units for part in leg.parts if part.kind == "package")

    def complaints(self, books: MemoryBooks) -> Iterator[str]:
        """What does not fit the meters, and the price of the volume as a whole."""
        package, tier = books.meters[PACKAGE_METER], books.meters[TIER_METER]
        if package.used != self._free or (package.cap is not None and package.used > package.cap):
            yield f"the package counts {package.used} of {package.cap}, used were {self._free}"
        paid = self._billed - self._free
        if self._tiered and tier.used != paid:
            yield f"the tier counts {tier.used}, paid for were {paid}"
        steps = TIER_STEPS if self._tiered else TIER_STEPS[:1]
        cost, ends = Decimal(0), [start for start, _ in steps[1:]]
        for (start, price), end in zip(steps, [*ends, None], strict=True):
            units = max(0, (paid if end is None else min(paid, end)) - start)
            cost += price * units / 60
        # A correction downwards gives back what its call paid for those units; the calls settled in
        # between keep their steps. Each unit may so differ by no more than the dearest step from the cheapest.
        corrected = sum((e.amount for e in books.entries if e.code == "correction"), Decimal(0))
        prices = [price for _, price in steps]
        slack = corrected * (max(prices) - min(prices)) / min(prices)
        if abs(cost - self._charged) > slack:
            yield f"{paid} s of volume were charged {self._charged}, must be {cost}"
