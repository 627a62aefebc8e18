"""The command ``cards``: make batches of calling cards, list them, block, try a PIN."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from tollkeeper.cli.common import actor, console, run, run_charging, table, utc
from tollkeeper.core.money import parse_amount, plain
from tollkeeper.errors import InvalidInput
from tollkeeper.services import card_batches
from tollkeeper.services.cards import Asking, Cards, minutes_of, value_of

OnExpiry = Literal["return", "keep"]

app = App(name="cards", help="Calling cards: make batches, list, block, try access.")


@app.command
def make(
    batch: str,
    count: int,
    amount: str,
    currency: str,
    *,
    plan: str,
    valid_days: int,
    expires: datetime,
    out: Path,
    fee: str | None = None,
    fee_days: int | None = None,
    max_seconds: int = 14_400,
    pin_digits: int = card_batches.PIN_DIGITS,
    on_expiry: OnExpiry = "return",
    owner: str | None = None,
) -> None:
    """Make a batch and write its PINs into a file, this once: they are stored as hashes only.

    Args:
        batch: Short name of the batch; the cards' own codes begin with it.
        count: How many cards, 10,000 at most.
        amount: What is on each, such as 10.00.
        currency: Such as USD.
        plan: Code of the plan that their calls are sold by.
        valid_days: For how many days a card is good from its first use on.
        expires: Until when it can be used first, in UTC unless a zone is given.
        out: A new CSV file for the PINs; only you can read it.
        fee: A maintenance fee, such as 0.50.
        fee_days: After how many days from the first use it is due, and due again.
        max_seconds: Seconds that one call may last.
        pin_digits: Digits of a PIN, 10 to 16; many cards need long ones.
        on_expiry: Whether what is left on an expired card goes back to whom it came from, or stays.
        owner: The reseller that sells the cards and pays what is on them at the first use.
    """
    order = card_batches.Order(
        code=batch,
        count=count,
        plan=plan,
        amount=parse_amount(amount),
        currency=currency,
        valid_days=valid_days,
        expires_at=utc(expires),
        fee_amount=None if fee is None else parse_amount(fee, field="fee"),
        fee_days=fee_days,
        max_seconds=max_seconds,
        pin_digits=pin_digits,
        on_expiry=on_expiry,
        owner=owner,
    )
    try:
        # Before anything is made: PINs that cannot be written down would be lost.
        out.touch(mode=0o600, exist_ok=False)
    except OSError as error:
        raise InvalidInput(f"out: {out} cannot be made: {error.strerror}", field="out") from error
    try:
        made = run(
            lambda database: card_batches.make_batch(
                database, order, actor=actor(), clock=lambda: datetime.now(UTC)
            )
        )
    except BaseException:
        out.unlink()
        raise
    rest = f"{plain(order.amount)},{currency},{made.batch.expires_at:%Y-%m-%dT%H:%M:%SZ}"
    lines = ["card,serial,pin,amount,currency,use_before"]
    lines += [f"{card.code},{card.serial},{card.pin},{rest}" for card in made.cards]
    out.write_text("\r\n".join(lines) + "\r\n", encoding="ascii", newline="")
    console().print(f"{len(made.cards)} cards of {plain(order.amount)} {currency} in {out}")


@app.command(name="list")
def list_cards(*, batch: str | None = None, after: str = "", limit: int = 1000) -> None:
    """List batches, or the cards of one.

    Args:
        batch: The batch whose cards are listed.
        after: Begin after this code.
        limit: How many at most.
    """
    if batch is None:
        _list_batches(after, limit)
        return
    found = run(
        lambda database: card_batches.list_cards(database, batch=batch, after=after, limit=limit)
    )
    columns = ["card", "status", "balance>", "", "first use (UTC)", "good until (UTC)", "callers"]
    rows = [
        (
            card.code,
            card.status,
            plain(card.balance),
            card.currency,
            f"{card.first_used_at:%Y-%m-%d %H:%M}" if card.first_used_at else None,
            f"{card.expires_at:%Y-%m-%d %H:%M}",
            ", ".join(card.callers),
        )
        for card in found
    ]
    console().print(table(f"{len(found)} cards", columns, rows))


def _list_batches(after: str, limit: int) -> None:
    found = run(lambda database: card_batches.list_batches(database, after=after, limit=limit))
    columns = ["batch", "owner", "plan", "each>", "", "first use until (UTC)", "days>", "made>", "unused>",
               "used>", "expired>", "blocked>", "status"]  # fmt: skip
    rows = [
        (
            batch.code,
            batch.owner,
            batch.plan,
            plain(batch.amount),
            batch.currency,
            f"{batch.expires_at:%Y-%m-%d %H:%M}",
            batch.valid_days,
            batch.cards,
            batch.unused,
            batch.used,
            batch.expired,
            batch.blocked,
            batch.status,
        )
        for batch in found
    ]
    console().print(table(f"{len(found)} batches", columns, rows))


@app.command
def block(*, card: str | None = None, batch: str | None = None, undo: bool = False) -> None:
    """Block one card or a whole batch; calls that are up go on.

    Args:
        card: The card's code.
        batch: The batch.
        undo: Let it be used again.
    """
    if (card is None) == (batch is None):
        raise InvalidInput("give --card for one card, or --batch for all of a batch")
    if batch is not None:
        changed = run(
            lambda database: card_batches.set_batch_blocked(
                database, batch, blocked=not undo, actor=actor()
            )
        )
        console().print(f"batch {batch} is {changed.status}")
        return
    shown = run(
        lambda database: card_batches.change_card(
            database,
            card or "",
            blocked=not undo,
            actor=actor(),
            clock=lambda: datetime.now(UTC),
        )
    )
    console().print(f"card {shown.code} is {shown.status}")


@app.command
def callers(
    card: str, *, caller: Annotated[list[str] | None, Parameter(negative=())] = None
) -> None:
    """Say who may use a card without its PIN: these callers, and no others.

    Args:
        card: The card's code.
        caller: A caller's number with its country code; may be given several times, none takes all away.
    """
    shown = run(
        lambda database: card_batches.change_card(
            database, card, callers=caller or [], actor=actor(), clock=lambda: datetime.now(UTC)
        )
    )
    console().print(f"card {shown.code}: {', '.join(shown.callers) or 'no callers'}")


@app.command
def access(
    *,
    pin: bool = False,
    caller: str = "",
    called: str = "",
    owner: str | None = None,
    remember: bool = False,
) -> None:
    """Use a card as a switch does, and show what is announced; the first time begins its validity.

    Args:
        pin: Read the PIN from the variable CARD_PIN, so that no list of processes shows it.
        caller: The number that is called from.
        called: Where to, for the minutes.
        owner: The seller of the card, where a caller has cards of several.
        remember: With the PIN: this caller needs none from now on.
    """
    secret = os.environ.get("CARD_PIN", "") if pin else None
    asking = Asking(secret, caller, called, owner, remember)
    found = run_charging(
        lambda runtime: Cards(
            runtime.database, runtime.directory, runtime.charging, runtime.clock
        ).access(asking, actor=actor())
    )
    card = found.card
    said = (
        f"{plain(value_of(card))} {card.currency}, good until {card.expires_at:%Y-%m-%d %H:%M} UTC"
    )
    console().print(f"card {card.code} is {card.status}: {said}")
    if found.seconds is not None:
        why = f" ({found.reason})" if found.reason else ""
        console().print(f"{minutes_of(found.seconds)} minutes to {found.called}{why}")
