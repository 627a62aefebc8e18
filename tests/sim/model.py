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
from tollkeeper.core.ledger import Code
from tollkeeper.core.rating import Tariff
from tollkeeper.core.records import Ending, Reply, SilentTail


@dataclass
class CallStory:
    """One call as its switch and the network saw it (milliseconds of usage)."""

    key: str
    party: int
    offered: list[dict[int, Tariff]] = field(default_factory=list)
    delivered: set[int] = field(default_factory=set)
    answered: set[int] = field(default_factory=set)
    stop_answered: bool = False
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
        for session in books.sessions():
            story = self.calls.get(session.key)
            if story is None:
                yield f"{session.key}: nobody made this call"
                continue
            pinned = {leg.wallet_id: leg.pin.tariff for leg in session.legs}
            if pinned and pinned not in story.offered:
                yield f"{session.key}: pinned to a price that was never on offer"
            refused = session.ending is Ending.REFUSED
            used = session.used_ms
            if used and used not in story.delivered:
                yield f"{session.key}: {used} ms were never reported"
            if not refused and used < max(story.answered, default=0):
                yield f"{session.key}: {used} ms, though {max(story.answered)} were confirmed"
            expected_ms = max(used, session.assumed_ms)
            if session.assumed_ms and (tail is SilentTail.LAST_USAGE or story.stop_answered):
                yield f"{session.key}: usage is assumed against the policy"
            for leg in session.legs:
                seconds = -(-expected_ms // 1000)
                cost = Decimal(0) if refused else naive_price(pinned[leg.wallet_id], seconds)
                if leg.charged != cost:
                    yield f"{session.key}: charged {leg.charged}, must be {cost}"
                spent[leg.wallet_id] += cost
        for id_, wallet in books.wallets.items():
            balance = self.paid_in.get(id_, Decimal(0)) - spent[id_]
            if wallet.balance != balance:
                yield f"wallet {id_}: stands at {wallet.balance}, must stand at {balance}"
        revenue = sum(
            (e.amount if e.code != Code.CORRECTION else -e.amount)
            for e in books.entries
            if e.session_id is not None
        )
        if revenue != sum(spent.values()):
            yield f"revenue is {revenue}, the calls cost {sum(spent.values())}"
