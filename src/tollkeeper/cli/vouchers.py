"""The command ``vouchers``: make batches, redeem, block."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cyclopts import App

from tollkeeper.cli.common import actor, console, run, table, utc
from tollkeeper.core.money import parse_amount, plain
from tollkeeper.core.vouchers import show_code
from tollkeeper.errors import InvalidInput
from tollkeeper.services import voucher_batches, vouchers

Kind = Literal["money", "bonus"]
UseOrder = Literal["bonus_first", "own_first"]

app = App(name="vouchers", help="Vouchers: make batches, list, redeem, block.")


@app.command
def make(
    batch: str,
    count: int,
    amount: str,
    currency: str,
    *,
    valid_to: datetime,
    out: Path,
    valid_from: datetime | None = None,
    kind: Kind = "money",
    bonus_days: int | None = None,
    bonus_order: UseOrder = "bonus_first",
    owner: str | None = None,
) -> None:
    """Make a batch and write its codes into a file, this once: they are stored as hashes only.

    Args:
        batch: Short name of the batch.
        count: How many vouchers.
        amount: What each brings, such as 10.00.
        currency: Such as USD.
        valid_to: Until when they can be redeemed, in UTC unless a zone is given.
        out: A new CSV file for the codes; only you can read it.
        valid_from: From when on; now if left out.
        kind: Money, or bonus credit.
        bonus_days: For how many days the bonus lasts after redeeming.
        bonus_order: Whether the bonus is used before or after the party's own money.
        owner: The reseller that pays them when they are redeemed.
    """
    order = voucher_batches.Order(
        code=batch,
        count=count,
        amount=parse_amount(amount),
        currency=currency,
        valid_to=utc(valid_to),
        valid_from=None if valid_from is None else utc(valid_from),
        kind=kind,
        bonus_days=bonus_days,
        bonus_order=bonus_order,
        owner=owner,
    )
    try:
        # Before anything is made: codes that cannot be written down would be lost.
        out.touch(mode=0o600, exist_ok=False)
    except OSError as error:
        raise InvalidInput(f"out: {out} cannot be made: {error.strerror}", field="out") from error
    try:
        made = run(
            lambda database: voucher_batches.make_batch(
                database, order, actor=actor(), clock=lambda: datetime.now(UTC)
            )
        )
    except BaseException:
        out.unlink()
        raise
    rest = f"{plain(order.amount)},{currency},{order.valid_to:%Y-%m-%dT%H:%M:%SZ},{batch}"
    lines = ["code,amount,currency,valid_to,batch"]
    lines += [f"{show_code(code)},{rest}" for code in made.codes]
    out.write_text("\r\n".join(lines) + "\r\n", encoding="ascii", newline="")
    console().print(f"{len(made.codes)} vouchers of {plain(order.amount)} {currency} in {out}")


@app.command(name="list")
def list_batches(*, after: str = "", limit: int = 1000) -> None:
    """List batches with how many of their vouchers are redeemed.

    Args:
        after: Begin after this batch.
        limit: How many at most.
    """
    found = run(lambda database: voucher_batches.list_batches(database, after=after, limit=limit))
    columns = ["batch", "owner", "kind", "each>", "", "until (UTC)", "made>", "redeemed>", "blocked>", "status"]  # fmt: skip
    rows = [
        (
            batch.code,
            batch.owner,
            batch.kind,
            plain(batch.amount),
            batch.currency,
            f"{batch.valid_to:%Y-%m-%d %H:%M}",
            batch.vouchers,
            batch.redeemed,
            batch.blocked,
            batch.status,
        )
        for batch in found
    ]
    console().print(table(f"{len(found)} batches", columns, rows))


@app.command
def redeem(party: str, code: str) -> None:
    """Put a voucher's value into a party's wallet.

    Args:
        party: Its code.
        code: The voucher's sixteen digits.
    """
    redeemed = run(
        lambda database: vouchers.redeem(
            database, party=party, code=code, actor=actor(), clock=lambda: datetime.now(UTC)
        )
    )
    before = " before" if redeemed.repeated else ""
    balance = plain(redeemed.wallet.balance)
    console().print(
        f"{party} has redeemed {plain(redeemed.amount)} {redeemed.currency}{before}; balance {balance}"
    )


@app.command
def block(*, code: str | None = None, batch: str | None = None, undo: bool = False) -> None:
    """Block one voucher, or what is left of a batch.

    Args:
        code: The voucher's sixteen digits.
        batch: The batch.
        undo: Let the batch be redeemed again.
    """
    if (code is None) == (batch is None) or (code is not None and undo):
        raise InvalidInput("give --code for one voucher, or --batch (and --undo) for a batch")
    if batch is not None:
        found = run(
            lambda database: voucher_batches.set_blocked(
                database, batch, blocked=not undo, actor=actor()
            )
        )
        left = found.vouchers - found.redeemed - found.blocked
        console().print(f"batch {batch} is {found.status}; {left} vouchers are left")
        return
    name = run(lambda database: voucher_batches.block_voucher(database, code or "", actor=actor()))
    console().print(f"the voucher is blocked; it is of batch {name}")
