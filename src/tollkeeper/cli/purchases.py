"""The command ``purchases``: orders at suppliers, and what became of them."""

from __future__ import annotations

import json
from typing import Literal

from cyclopts import App

from tollkeeper.cli.common import actor, console, table
from tollkeeper.cli.supply import supply
from tollkeeper.core.money import plain
from tollkeeper.errors import InvalidInput
from tollkeeper.services.purchases import Purchase, PurchaseFilter

app = App(name="purchases", help="Orders at suppliers: list, show, resolve.")

Status = Literal["new", "held", "ordered", "unknown", "done", "refused", "cancelled"]


@app.command(name="list")
def list_purchases(
    *,
    status: Status | None = None,
    party: str = "",
    service: str = "",
    after: int = 0,
    limit: int = 100,
) -> None:
    """List orders, the oldest first.

    Args:
        status: Only those in this state; unknown: nobody can tell what became of them.
        party: Only this party's.
        service: Only of this service, such as esim or did.
        after: Begin after this id.
        limit: How many at most.
    """
    wanted = PurchaseFilter(status or "", party, service, after, limit)
    found = supply(lambda supplies: supplies.purchases.orders(wanted))
    columns = ["id", "order", "at", "party", "service", "item", "supplier", "status", "why", "next"]
    rows = [
        (
            o.id,
            o.order_id,
            f"{o.created_at:%Y-%m-%d %H:%M:%S}",
            o.party,
            o.service,
            o.item,
            o.supplier,
            o.status,
            o.detail or o.reason,
            "" if not o.open else f"{o.next_at:%H:%M:%S}" if o.next_at else "you",
        )
        for o in found
    ]
    console().print(table(f"{len(found)} orders", columns, rows), markup=False)


@app.command
def show(order_id: str) -> None:
    """Show an order.

    Args:
        order_id: Our id of the order.
    """
    _print(supply(lambda supplies: supplies.purchases.order(order_id)))


@app.command
def resolve(
    order_id: str,
    outcome: Literal["done", "refused", "ask"],
    *,
    set: list[str] | None = None,  # noqa: A002 (the word that users know)
) -> None:
    """Say what became of an order of which nobody can tell; its money follows.

    Args:
        order_id: Our id of the order.
        outcome: done (it is charged), refused (the hold is released), ask (the supplier is asked again).
        set: For done, what was delivered, as name=value: iccid=8901..., activation_code=LPA:1$...
    """
    answer: dict[str, str] = {}
    for pair in set or []:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise InvalidInput(f"--set {pair}: give it as name=value, such as iccid=8901...")
        answer[name] = value
    _print(
        supply(
            lambda supplies: supplies.purchases.resolve(
                order_id, outcome, actor=actor(), answer=answer
            )
        )
    )


def _print(order: Purchase) -> None:
    rows = [
        ("party", order.party),
        ("request", order.request_id),
        ("service", order.service),
        ("item", order.item),
        ("supplier", order.supplier),
        ("status", order.status),
        ("reason", order.reason),
        ("detail", order.detail),
        ("charge", "" if order.charge is None else f"{plain(order.charge)} {order.currency}"),
        ("asked", order.attempts),
        ("session", f"purchases/{order.order_id}"),
        ("answer", json.dumps(dict(order.answer))),
    ]
    console().print(table(f"order {order.order_id}", ["what", "value"], rows), markup=False)
