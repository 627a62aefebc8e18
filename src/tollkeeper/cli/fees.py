"""The command ``fees``: fees of parties, once or every day, week or month."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Literal, TypeVar

from cyclopts import App

from tollkeeper.cli.common import actor, console, run_charging, table
from tollkeeper.core.money import parse_amount, plain
from tollkeeper.services.commitments import Commitments
from tollkeeper.services.fees import GRACE_DAYS, Fee, Fees

T = TypeVar("T")

app = App(name="fees", help="Fees of parties: add, list, end.")


def _with_fees(work: Callable[[Fees], Awaitable[T]]) -> T:
    return run_charging(lambda parts: work(Fees(parts.database, parts.charging, parts.clock)))


@app.command
def add(
    party: str,
    name: str,
    *,
    every: Literal["once", "day", "week", "month"] = "month",
    amount: str | None = None,
    currency: str = "",
    called: str = "",
    service: str = "fee",
    begins: datetime | None = None,
    ends: datetime | None = None,
    prorate: bool = True,
    grace_days: int = GRACE_DAYS,
    request: str | None = None,
) -> None:
    """Add a fee and charge what is due of it now.

    Args:
        party: Code of the party that pays.
        name: What it is for, in words.
        every: How often.
        amount: The price of a whole period, with --currency.
        currency: Of the amount.
        called: Instead of an amount: digits by which the cards of each level price it.
        service: With --called: the service of these cards.
        begins: First day, of the party's own; today if left out.
        ends: First day without the fee; never if left out.
        prorate: --no-prorate charges whole periods, however few of their days are used.
        grace_days: For how long a charge that is refused is tried again.
        request: A name for this: given again, nothing is added twice.
    """
    price = None if amount is None else parse_amount(amount)
    made = _with_fees(
        lambda fees: fees.add(
            party=party,
            name=name,
            period=every,
            service=service,
            called=called,
            amount=price,
            currency=currency,
            begins_on=None if begins is None else begins.date(),
            ends_on=None if ends is None else ends.date(),
            prorate=prorate,
            grace_days=grace_days,
            request=None if request is None else f"cli:{request}",
            actor=actor(),
        )
    )
    _print([made])


@app.command(name="list")
def list_fees(
    *,
    party: str = "",
    status: Literal["active", "ended", "lapsed"] | None = None,
    after: int = 0,
    limit: int = 100,
) -> None:
    """List fees, those of numbers among them, the oldest first.

    Args:
        party: Only this party's.
        status: Only those in this state.
        after: Begin after this id.
        limit: How many at most.
    """
    _print(
        _with_fees(
            lambda fees: fees.list(party=party, status=status or "", after=after, limit=limit)
        )
    )


@app.command
def end(fee: int, *, on: datetime | None = None) -> None:
    """End a fee; nothing is paid back.

    Args:
        fee: Its id.
        on: The first day without it; today if left out.
    """
    day = None if on is None else on.date()
    _print([_with_fees(lambda fees: fees.end(fee, on=day, actor=actor()))])


@app.command
def commitments(*, party: str = "", limit: int = 100) -> None:
    """List what months came to of parties whose plan has a minimum.

    Args:
        party: Only this party's.
        limit: How many at most.
    """
    found = run_charging(
        lambda parts: Commitments(
            parts.database, parts.directory, parts.charging, parts.clock
        ).list(party=party, limit=limit)
    )
    columns = [
        "party",
        "month",
        "from",
        "agreed>",
        "due>",
        "spent>",
        "short>",
        "currency",
        "status",
    ]
    rows = [
        (
            m.party,
            f"{m.month:%Y-%m}",
            m.from_on,
            plain(m.agreed),
            None if m.amount is None else plain(m.amount),
            None if m.spent is None else plain(m.spent),
            None if m.shortfall is None else plain(m.shortfall),
            m.currency,
            m.status if not m.reason else f"{m.status}: {m.reason}",
        )
        for m in found
    ]
    console().print(table(f"{len(found)} months", columns, rows), markup=False)


def _print(fees: Sequence[Fee]) -> None:
    columns = ["id>", "party", "name", "every", "price>", "begins", "ends", "paid until", "status"]
    rows = [
        (
            fee.id,
            fee.party,
            fee.name,
            fee.period,
            f"{fee.service} {fee.called}"
            if fee.amount is None
            else f"{plain(fee.amount)} {fee.currency}",
            fee.begins_on,
            fee.ends_on,
            fee.paid_until,
            fee.status if not fee.reason else f"{fee.status}: {fee.reason}",
        )
        for fee in fees
    ]
    console().print(table(f"{len(fees)} fees", columns, rows), markup=False)
