"""The command ``wallet``: a party's money."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal

from cyclopts import App

from tollkeeper.cli.common import actor, console, run, table, utc
from tollkeeper.core.money import parse_amount, plain
from tollkeeper.core.records import Wallet
from tollkeeper.services import wallets

EntryKind = Literal["topup", "withdrawal", "adjust_up", "adjust_down"]
PAGE = 10_000

app = App(name="wallet", help="A party's money: show, create, top up, bound, park, statement.")


@app.command
def show(party: str) -> None:
    """Show the wallets of a party.

    Args:
        party: Its code.
    """
    _print(party, run(lambda database: wallets.get_wallets(database, party)))


@app.command
def create(party: str, currency: str, *, credit_limit: str = "0") -> None:
    """Give a party a wallet in a currency.

    Args:
        party: Its code.
        currency: Such as USD.
        credit_limit: How far it may go below zero; 0 is prepaid.
    """
    limit = parse_amount(credit_limit, field="credit_limit")
    wallet = run(
        lambda database: wallets.create_wallet(
            database, party=party, currency=currency, credit_limit=limit, actor=actor()
        )
    )
    _print(party, [wallet])


@app.command
def topup(
    party: str,
    currency: str,
    amount: str,
    *,
    reason: str = "top-up by hand",
    kind: EntryKind = "topup",
) -> None:
    """Put money into a wallet, or take it out, with a reason for the books.

    Args:
        party: Its code.
        currency: Such as USD.
        amount: A positive amount such as 250.00.
        reason: Why.
        kind: The direction, and whether money was paid or the books are adjusted.
    """
    money = parse_amount(amount)
    posted = run(
        lambda database: wallets.top_up(
            database,
            party=party,
            currency=currency,
            amount=money,
            reason=reason,
            actor=actor(),
            clock=lambda: datetime.now(UTC),
            kind=kind,
        )
    )
    _print(party, [posted.wallet])


@app.command
def limit(party: str, currency: str, amount: str, *, reason: str = "changed by hand") -> None:
    """Set a wallet's credit limit: how far it may go below zero.

    Args:
        party: Its code.
        currency: Such as USD.
        amount: The limit; 0 is prepaid.
        reason: Why.
    """
    money = parse_amount(amount, field="credit_limit")
    wallet = run(
        lambda database: wallets.change_credit_limit(
            database, party=party, currency=currency, limit=money, reason=reason, actor=actor()
        )
    )
    _print(party, [wallet])


@app.command
def park(party: str, currency: str, *, reason: str) -> None:
    """Stop a wallet: it takes no new call and pays nothing out. Calls that are up are settled.

    Args:
        party: Its code.
        currency: Such as USD.
        reason: Why.
    """
    wallet = run(
        lambda database: wallets.park(
            database, party=party, currency=currency, reason=reason, actor=actor()
        )
    )
    _print(party, [wallet])


@app.command
def unpark(party: str, currency: str, *, reason: str) -> None:
    """Let a parked wallet be used again.

    Args:
        party: Its code.
        currency: Such as USD.
        reason: Why.
    """
    wallet = run(
        lambda database: wallets.unpark(
            database, party=party, currency=currency, reason=reason, actor=actor()
        )
    )
    _print(party, [wallet])


@app.command
def statement(
    party: str,
    currency: str,
    *,
    begin: datetime | None = None,
    end: datetime | None = None,
    limit: int = 100,
) -> None:
    """Show what happened on a wallet.

    Args:
        party: Its code.
        currency: Such as USD.
        begin: From when on, in UTC unless a zone is given; 30 days ago if left out.
        end: Until when; now if left out.
        limit: How many entries at most.
    """
    # A moment ahead, so that what was entered just now is there too.
    until = utc(end) if end is not None else datetime.now(UTC) + timedelta(minutes=1)
    since = utc(begin) if begin is not None else until - timedelta(days=30)
    found = run(
        lambda database: wallets.statement(
            database,
            party=party,
            currency=currency,
            begin=since,
            end=until,
            limit=max(1, min(limit, PAGE)),
        )
    )
    rows = [
        (
            f"{entry.at:%Y-%m-%d %H:%M:%S}",
            entry.code.value,
            signed(entry.effect),
            plain(entry.balance_after),
            entry.session_id,
            entry.actor,
            entry.reason,
        )
        for entry in found.entries
    ]
    title = f"{party} {currency}: {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC"
    columns = ["at (UTC)", "entry", "amount>", "balance>", "session", "by", "reason"]
    out = console()
    out.print(table(title, columns, rows))
    out.print(f"opening {plain(found.opening_balance)}, closing {plain(found.closing_balance)}")
    if found.cursor is not None:
        out.print(f"more entries follow; ask for more with --limit (up to {PAGE})")


def signed(amount: Decimal) -> str:
    """An amount with its sign, always."""
    return ("+" if amount >= 0 else "") + plain(amount)


def _print(party: str, found: list[Wallet]) -> None:
    columns = [
        "currency",
        "balance>",
        "credit limit>",
        "held>",
        "available>",
        "live calls>",
        "state",
    ]
    rows = [
        (
            wallet.currency,
            plain(wallet.balance),
            plain(wallet.credit_limit),
            plain(wallet.held),
            plain(wallet.available),
            wallet.live,
            "parked" if wallet.parked else "",
        )
        for wallet in found
    ]
    console().print(table(f"wallets of {party}", columns, rows))
