"""The command ``wallet``: a party's money."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Literal

from cyclopts import App, Parameter

from tollkeeper.cli.common import actor, console, given, run, table, utc
from tollkeeper.core.money import parse_amount, plain
from tollkeeper.errors import InvalidInput
from tollkeeper.services import bonuses, transfers, wallets
from tollkeeper.services.wallet_terms import UNSET, Temporary, Unset
from tollkeeper.store.wallets import WalletRow

UseOrder = Literal["bonus_first", "own_first"]
EntryKind = Literal["topup", "withdrawal", "adjust_up", "adjust_down"]
PAGE = 10_000

app = App(
    name="wallet", help="A party's money: show, create, top up, bound, transfer, bonus, park."
)


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
        credit_limit: How far it may go below zero, where the party is postpaid.
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
    """Set a wallet's agreed limit: how far a postpaid party may go below zero.

    Args:
        party: Its code.
        currency: Such as USD.
        amount: The limit; 0 is none.
        reason: Why.
    """
    money = parse_amount(amount, field="credit_limit")
    wallet = run(
        lambda database: wallets.change_credit_limit(
            database, party=party, currency=currency, limit=money, reason=reason, actor=actor()
        )
    )
    _print(party, [wallet])


@app.command(name="temporary-limit")
def temporary_limit(
    party: str,
    currency: str,
    amount: str,
    *,
    until: datetime | None = None,
    reason: str = "changed by hand",
) -> None:
    """Give a wallet more limit for a while, beside what is agreed; it is taken back by itself.

    Args:
        party: Its code.
        currency: Such as USD.
        amount: How much more; 0 ends a temporary limit at once.
        until: When it is taken back, in UTC unless a zone is given.
        reason: Why.
    """
    money = parse_amount(amount, field="temporary_limit.amount")
    if money and until is None:
        raise InvalidInput("until: say when the temporary limit ends", field="until")
    more = Temporary(money, utc(until)) if money and until is not None else None
    wallet = run(
        lambda database: wallets.change_terms(
            database,
            party=party,
            currency=currency,
            temporary=more,
            now=datetime.now(UTC),
            reason=reason,
            actor=actor(),
        )
    )
    _print(party, [wallet])


@app.command
def caps(
    party: str,
    currency: str,
    *,
    daily: str | None = None,
    monthly: str | None = None,
    alert_at: Annotated[list[int] | None, Parameter(negative=())] = None,
    reason: str = "changed by hand",
) -> None:
    """Bound what a wallet may spend in the party's day and month, and say when to be told.

    Args:
        party: Its code.
        currency: Such as USD.
        daily: What may be spent in a day; "none" takes the cap away.
        monthly: What may be spent in a month; "none" takes the cap away.
        alert_at: A percent of limit and caps at which somebody is told; may be given several times.
        reason: Why.
    """
    given(daily=daily, monthly=monthly, alert_at=alert_at)
    wallet = run(
        lambda database: wallets.change_terms(
            database,
            party=party,
            currency=currency,
            daily_cap=_cap(daily, "daily_cap"),
            monthly_cap=_cap(monthly, "monthly_cap"),
            alert_at=alert_at,
            now=datetime.now(UTC),
            reason=reason,
            actor=actor(),
        )
    )
    _print(party, [wallet])


def _cap(text: str | None, field: str) -> Decimal | Unset | None:
    if text is None:
        return UNSET
    return None if text == "none" else parse_amount(text, field=field)


@app.command
def transfer(
    sender: str, receiver: str, currency: str, amount: str, *, reason: str = "transfer by hand"
) -> None:
    """Move a party's own money to another party: no credit, no bonus, nothing that calls hold.

    Args:
        sender: Whose money.
        receiver: Who gets it.
        currency: Such as USD; both have a wallet in it.
        amount: A positive amount such as 250.00.
        reason: Why.
    """
    money = parse_amount(amount)
    made = run(
        lambda database: transfers.transfer(
            database,
            sender=sender,
            receiver=receiver,
            currency=currency,
            amount=money,
            reason=reason,
            actor=actor(),
            clock=lambda: datetime.now(UTC),
        )
    )
    _print(sender, [made.taken.wallet])
    _print(receiver, [made.given.wallet])


@app.command
def bonus(
    party: str,
    currency: str,
    amount: str,
    *,
    expires: datetime,
    order: UseOrder = "bonus_first",
    reason: str = "bonus by hand",
) -> None:
    """Give a party bonus credit until a date.

    Args:
        party: Its code.
        currency: Such as USD.
        amount: A positive amount such as 10.00.
        expires: When what is left is taken back, in UTC unless a zone is given.
        order: Whether it is used before or after the party's own money.
        reason: Why.
    """
    money = parse_amount(amount)
    granted = run(
        lambda database: bonuses.grant(
            database,
            party=party,
            currency=currency,
            amount=money,
            expires_at=utc(expires),
            order=order,
            reason=reason,
            actor=actor(),
            clock=lambda: datetime.now(UTC),
        )
    )
    _print(party, [granted.wallet])


@app.command(name="bonuses")
def list_bonuses(party: str, currency: str, *, after: int = 0, limit: int = 1000) -> None:
    """Show a wallet's bonus credit, with what is left of each lot.

    Args:
        party: Its code.
        currency: Such as USD.
        after: Begin after this number.
        limit: How many at most.
    """
    found = run(
        lambda database: bonuses.list_bonuses(
            database, party=party, currency=currency, after=after, limit=limit
        )
    )
    columns = ["number>", "amount>", "left>", "order", "until (UTC)", "reason"]
    rows = [
        (
            one.row.id,
            plain(one.row.amount),
            plain(one.left),
            one.row.use_order,
            f"{one.row.expires_at:%Y-%m-%d %H:%M}",
            one.row.reason,
        )
        for one in found
    ]
    console().print(table(f"bonus of {party} in {currency}", columns, rows))


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


def _print(party: str, found: list[WalletRow]) -> None:
    columns = [
        "currency",
        "balance>",
        "agreed limit>",
        "limit>",
        "held>",
        "available>",
        "live calls>",
        "state",
    ]
    rows = [
        (
            wallet.currency,
            plain(wallet.balance),
            plain(wallet.agreed_limit),
            plain(wallet.credit_limit),
            plain(wallet.held),
            plain(wallet.available),
            wallet.live,
            "parked" if wallet.parked else "",
        )
        for wallet in found
    ]
    console().print(table(f"wallets of {party}", columns, rows))
