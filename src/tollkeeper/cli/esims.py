"""The command ``esims``: profiles ordered, activated, looked at, given back."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from cyclopts import App

from tollkeeper.cli.common import actor, console, table
from tollkeeper.cli.supply import supply
from tollkeeper.services.esims import Esim

app = App(name="esims", help="eSIM profiles: order, activate, list, give back.")


@app.command
def catalogue() -> None:
    """List what can be ordered."""
    found = supply(lambda supplies: supplies.esims.catalogue())
    rows = [
        (c.code, c.item.name, c.item.rate_key, c.item.data_bytes, c.item.days, c.supplier)
        for c in found
    ]
    columns = ["item", "name", "rate key", "bytes>", "days>", "supplier"]
    console().print(table(f"{len(found)} items", columns, rows), markup=False)


@app.command
def order(item: str, *, party: str, request_id: str) -> int:
    """Order a profile for a party.

    Args:
        item: Code of an item of the catalogue.
        party: Code of the party that pays for it.
        request_id: Your own name of the order; the same one again is the same order.
    """
    made = supply(
        lambda supplies: supplies.esims.order(
            party=party, item=item, request_id=request_id, actor=actor()
        )
    )
    why = f" ({made.order.reason})" if made.order.reason else ""
    console().print(f"order {made.order.order_id}: {made.order.status}{why}", markup=False)
    if made.esim is not None:
        _print(made.esim)
    return 0 if made.order.status not in {"refused", "cancelled"} else 1


@app.command(name="list")
def list_esims(
    *,
    party: str = "",
    status: Literal["ordered", "active", "expired", "released"] | None = None,
    after: int = 0,
    limit: int = 100,
) -> None:
    """List profiles, the oldest first.

    Args:
        party: Only this party's.
        status: Only those in this state.
        after: Begin after this id.
        limit: How many at most.
    """
    found = supply(
        lambda supplies: supplies.esims.list(
            party=party, status=status or "", after=after, limit=limit
        )
    )
    columns = ["id", "iccid", "party", "item", "status", "bytes left>", "expires"]
    rows = [
        (
            e.id,
            e.iccid,
            e.party,
            e.item,
            e.status,
            None if e.bytes_left is None else int(e.bytes_left),
            _time(e.expires_at),
        )
        for e in found
    ]
    console().print(table(f"{len(found)} eSIMs", columns, rows), markup=False)


@app.command
def show(iccid: str) -> None:
    """Show a profile.

    Args:
        iccid: Its ICCID.
    """
    _print(supply(lambda supplies: supplies.esims.get(iccid)))


@app.command
def activate(iccid: str) -> None:
    """Activate a profile: from now on it may be used, and its volume is there.

    Args:
        iccid: Its ICCID.
    """
    _print(supply(lambda supplies: supplies.esims.activate(iccid, actor=actor())))


@app.command
def release(iccid: str) -> None:
    """Give a profile back to its supplier; nothing is paid back.

    Args:
        iccid: Its ICCID.
    """
    _print(supply(lambda supplies: supplies.esims.release(iccid, actor=actor())))


def _print(esim: Esim) -> None:
    rows = [
        ("party", esim.party),
        ("item", esim.item),
        ("status", esim.status),
        ("activation code", esim.activation_code),
        ("bytes", esim.data_bytes),
        ("bytes left", None if esim.bytes_left is None else int(esim.bytes_left)),
        ("activated", _time(esim.activated_at)),
        ("expires", _time(esim.expires_at)),
        ("released", _time(esim.released_at)),
        ("order", esim.order_id),
    ]
    console().print(table(f"eSIM {esim.iccid}", ["what", "value"], rows), markup=False)


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment is not None else ""
