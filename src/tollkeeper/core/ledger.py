"""The double-entry journal: which accounts there are and which entries are legal.

An entry moves a positive amount from its debit account to its credit account, in one currency,
so every entry, and with it every batch, balances by construction. A wallet is a liability: a
credit raises the customer's money, a debit lowers it.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum

import msgspec

from tollkeeper.core.money import LIMIT, ZERO
from tollkeeper.errors import Breach


class Account(StrEnum):
    """Kinds of account; all but the wallet exist once per currency."""

    WALLET = "wallet"
    REVENUE = "revenue"
    CLEARING = "clearing"
    ADJUSTMENT = "adjustment"
    COST = "cost"
    PROMOTION = "promotion"
    TRANSFER = "transfer"
    COMMISSION = "commission"


class Code(StrEnum):
    """What an entry is for."""

    USAGE = "usage"
    """A session's charge, within what was held for it."""
    OVERRUN = "overrun"
    """The part of a session's charge above its hold: the switch let the call run on."""
    LATE = "late"
    """Usage reported after the session was closed."""
    CORRECTION = "correction"
    """Money given back because less was used than had been assumed at closing."""
    TOPUP = "topup"
    """Money received from the customer."""
    WITHDRAWAL = "withdrawal"
    """Money paid back to the customer."""
    ADJUST_UP = "adjust_up"
    ADJUST_DOWN = "adjust_down"
    RATED = "rated"
    """Usage that was priced from records, after it was over."""
    REVERSAL = "reversal"
    """A charge for records taken back."""
    COST = "cost"
    """What a vendor has earned by the calls it carried."""
    COST_REVERSAL = "cost_reversal"
    """A vendor's earning taken back."""
    REBATE = "rebate"
    """Money given back because a volume was reached: more than the usage cost that reached it."""
    REFUND = "refund"
    """A charge for something that was not delivered, given back."""
    BONUS = "bonus"
    """Credit that the operator gives, until a date."""
    BONUS_EXPIRED = "bonus_expired"
    """What was left of it at that date."""
    VOUCHER = "voucher"
    """Money by a voucher that was paid for elsewhere."""
    TRANSFER_OUT = "transfer_out"
    """Money moved to another wallet of the tree; stands against a TRANSFER_IN of the same moment."""
    TRANSFER_IN = "transfer_in"
    COMMISSION = "commission"
    """What a party has earned by what it sold for us."""


LEGAL: dict[Code, tuple[Account, Account]] = {
    Code.USAGE: (Account.WALLET, Account.REVENUE),
    Code.OVERRUN: (Account.WALLET, Account.REVENUE),
    Code.LATE: (Account.WALLET, Account.REVENUE),
    Code.CORRECTION: (Account.REVENUE, Account.WALLET),
    Code.TOPUP: (Account.CLEARING, Account.WALLET),
    Code.WITHDRAWAL: (Account.WALLET, Account.CLEARING),
    Code.ADJUST_UP: (Account.ADJUSTMENT, Account.WALLET),
    Code.ADJUST_DOWN: (Account.WALLET, Account.ADJUSTMENT),
    Code.RATED: (Account.WALLET, Account.REVENUE),
    Code.REVERSAL: (Account.REVENUE, Account.WALLET),
    Code.COST: (Account.COST, Account.WALLET),
    Code.COST_REVERSAL: (Account.WALLET, Account.COST),
    Code.REBATE: (Account.REVENUE, Account.WALLET),
    Code.REFUND: (Account.REVENUE, Account.WALLET),
    Code.BONUS: (Account.PROMOTION, Account.WALLET),
    Code.BONUS_EXPIRED: (Account.WALLET, Account.PROMOTION),
    Code.VOUCHER: (Account.CLEARING, Account.WALLET),
    Code.TRANSFER_OUT: (Account.WALLET, Account.TRANSFER),
    Code.TRANSFER_IN: (Account.TRANSFER, Account.WALLET),
    Code.COMMISSION: (Account.COMMISSION, Account.WALLET),
}
"""(debit, credit) of each code; anything else is refused here and by a database constraint."""

ON_CREDIT = frozenset({Code.OVERRUN, Code.LATE, Code.RATED, Code.COST_REVERSAL})
"""Codes that may take a wallet below its limit: the service was already used, or never was."""


def other_side(code: Code) -> Account:
    """The kind of the account that stands against the wallet."""
    debit, credit = LEGAL[code]
    return credit if debit is Account.WALLET else debit


class Posting(msgspec.Struct, frozen=True, gc=False):
    """One entry to be made on a wallet; ``amount`` is positive, the code gives the direction."""

    wallet_id: int
    leg: int
    code: Code
    amount: Decimal


def check_posting(posting: Posting) -> Posting:
    """Return the posting if it is legal.

    Raises:
        Breach: the amount is not positive, not finite or out of bounds.
    """
    if not posting.amount.is_finite() or not ZERO < posting.amount < LIMIT:
        raise Breach(
            f"a {posting.code} entry of {posting.amount} on wallet {posting.wallet_id} is not legal"
        )
    return posting


def wallet_effect(code: Code, amount: Decimal) -> Decimal:
    """Signed change of the wallet's balance by an entry: positive is the customer's money."""
    return amount if LEGAL[code][1] is Account.WALLET else -amount
