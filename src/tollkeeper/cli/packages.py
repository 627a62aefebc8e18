"""The command ``package``: units bought in advance, of a party's plan."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from cyclopts import App

from tollkeeper.cli.common import actor, console, run_charging, table
from tollkeeper.core.money import plain
from tollkeeper.errors import Conflict
from tollkeeper.services.packages import Packages
from tollkeeper.store.packages import Sale

T = TypeVar("T")

app = App(name="package", help="Packages of minutes, messages or data: buy, list, let end.")


def _with_packages(work: Callable[[Packages], Awaitable[T]]) -> T:
    return run_charging(
        lambda parts: work(Packages(parts.database, parts.directory, parts.charging, parts.clock))
    )


@app.command
def buy(party: str, package: str, *, request: str | None = None) -> None:
    """Buy a package of a party's plan; its term begins now.

    Args:
        party: Code of the party that pays.
        package: Code of the package in its plan.
        request: A name for this purchase: given again, nothing is bought twice.
    """
    asked = None if request is None else f"cli:{request}"
    sale = _with_packages(
        lambda packages: packages.buy(party=party, package=package, actor=actor(), request=asked)
    )
    if sale.status == "refused":
        raise Conflict(
            f"{package} was not bought: {sale.reason.replace('_', ' ')}", code=sale.reason
        )
    _print(party, [sale])


@app.command(name="list")
def list_packages(party: str, *, ended: bool = False) -> None:
    """Show what a party has bought and what is left of it.

    Args:
        party: Its code.
        ended: Also what is over.
    """
    _print(party, _with_packages(lambda packages: packages.sales(party=party, ended=ended)))


@app.command
def renew(party: str, sale: int, *, on: bool = True) -> None:
    """Say whether a package is bought again at the end of its term.

    Args:
        party: Code of the party.
        sale: Number of the purchase, as listed.
        on: --no-on lets it end.
    """
    changed = _with_packages(
        lambda packages: packages.set_renew(party=party, sale_id=sale, renew=on, actor=actor())
    )
    _print(party, [changed])


def _print(party: str, sales: list[Sale]) -> None:
    columns = [
        "sale>", "package", "plan", "status", "term>", "renews", "price>", "ends (UTC)", "left>", "of>", "unit",
    ]  # fmt: skip
    rows = [
        (
            sale.id,
            sale.code,
            sale.plan,
            sale.status if not sale.reason else f"{sale.status}: {sale.reason}",
            sale.term,
            "yes" if sale.renew else "",
            f"{plain(sale.price)} {sale.currency}",
            f"{sale.ends_at:%Y-%m-%d %H:%M}",
            _left(sale),
            sale.units if sale.cap is None else plain(sale.cap),
            sale.unit,
        )
        for sale in sales
    ]
    console().print(table(f"packages of {party}", columns, rows))


def _left(sale: Sale) -> str:
    if sale.cap is None or sale.used is None or sale.held is None:
        return ""
    return plain(max(sale.cap - sale.used - sale.held, sale.cap * 0))
