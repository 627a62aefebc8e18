"""The command ``price``: what a call would cost, with the arithmetic."""

from __future__ import annotations

from datetime import UTC, datetime

from tollkeeper.cli.common import console, run, utc
from tollkeeper.core.rating import SECONDS_MAX, explain_price
from tollkeeper.errors import InvalidInput
from tollkeeper.services.rates import Lookup, lookup


def price(
    number: str,
    *,
    party: str | None = None,
    card: str | None = None,
    seconds: int = 60,
    at: datetime | None = None,
    service: str = "voice",
) -> None:
    """Price a call by a party's plan or by one card.

    Args:
        number: The number called.
        party: Code of a party: its dialling rules and its plan are used.
        card: Code of a rate card, instead of a party.
        seconds: How long the call is.
        at: When the call is, in UTC unless a zone is given; now if left out.
        service: What is used.
    """
    if not 0 <= seconds <= SECONDS_MAX:
        raise InvalidInput(f"seconds: from 0 to {SECONDS_MAX}", field="seconds")
    moment = datetime.now(UTC) if at is None else utc(at)
    found = run(
        lambda database: lookup(
            database, number, now=moment, card=card, party=party, service=service
        )
    )
    _print(found, seconds)


def _print(found: Lookup, seconds: int) -> None:
    out = console()
    row, used = found.chosen.row, found.chosen.card
    out.print(f"{found.number}: {row.destination}, prefix {row.prefix}", markup=False)
    out.print(f"card {used.code} version {used.version}", markup=False)
    if row.blocked:
        out.print("blocked: calls to this destination are refused")
        return
    priced = explain_price(row.tariff, seconds)
    out.print(
        f"{seconds} s, billed {priced.billed_seconds} s: {priced.note} = {priced.exact}",
        markup=False,
    )
    rule = f"rounded once, {row.tariff.rounding.value}, to {row.tariff.decimals} decimals"
    out.print(f"[bold]{priced.amount} {used.currency}[/bold] ({rule})")
