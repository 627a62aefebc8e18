"""Bonus credit: what is left of each lot, and in which order lots and own money are used.

A wallet has one balance; a lot of bonus is a part of it. Nothing is noted per call: what calls have
used since the lots were last looked at is taken from the lots and the own money in their order. The
same order tells what live calls hold of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

import msgspec

from tollkeeper.core.money import ZERO


class UseOrder(StrEnum):
    """Whether a lot is used before or after the customer's own money."""

    BONUS_FIRST = "bonus_first"
    OWN_FIRST = "own_first"


class Lot(msgspec.Struct, frozen=True, gc=False):
    """Some bonus money of a wallet and ``left``, what was left of it; all in the wallet's currency."""

    id: int
    amount: Decimal
    left: Decimal
    order: UseOrder
    expires_at: datetime


class Purse(msgspec.Struct, frozen=True, gc=False):
    """A balance divided: ``own`` is the customer's money (below zero: owed), ``lots`` the bonus."""

    own: Decimal
    lots: tuple[Lot, ...] = ()

    @property
    def bonus(self) -> Decimal:
        """What is left of all lots."""
        return sum((lot.left for lot in self.lots), ZERO)

    @property
    def balance(self) -> Decimal:
        """Own money and bonus together: the wallet's balance."""
        return self.own + self.bonus


def divide(balance: Decimal, lots: Sequence[Lot], used: Decimal = ZERO) -> Purse:
    """Divide a balance after calls have used ``used`` since ``lots`` were as they are given.

    ``used`` below zero means that more was given back than used: that is the customer's own money.
    """
    before = Purse(balance + used - sum((lot.left for lot in lots), ZERO), tuple(lots))
    return consume(before, used) if used > ZERO else Purse(before.own - used, before.lots)


def consume(purse: Purse, used: Decimal) -> Purse:
    """Use money: lots that come first, then own money, then the other lots, then what is owed.

    Among lots the one that expires first is used first.
    """
    rest, left = used, {lot.id: lot.left for lot in purse.lots}

    def take(order: UseOrder, rest: Decimal) -> Decimal:
        for lot in sorted(purse.lots, key=lambda lot: (lot.expires_at, lot.id)):
            if lot.order is order:
                part = min(left[lot.id], rest)
                left[lot.id] -= part
                rest -= part
        return rest

    rest = take(UseOrder.BONUS_FIRST, rest)
    own = min(max(purse.own, ZERO), rest)
    rest = take(UseOrder.OWN_FIRST, rest - own)
    lots = tuple(msgspec.structs.replace(lot, left=left[lot.id]) for lot in purse.lots)
    return Purse(purse.own - own - rest, lots)


def free_own(purse: Purse, held: Decimal) -> Decimal:
    """Own money that may leave the wallet: neither bonus, nor credit, nor held by live calls."""
    return max(min(purse.own, consume(purse, held).own), ZERO)


def to_take_back(purse: Purse, lot_id: int, held: Decimal) -> Decimal:
    """How much of a lot can be taken back now: what is left, without what live calls hold of it."""
    after = consume(purse, held)
    return next((lot.left for lot in after.lots if lot.id == lot_id), ZERO)
