"""The command ``trunk``: by what the customer or vendor of a record is recognised."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter

from tollkeeper.cli.common import actor, console, given, run, table
from tollkeeper.core.numbering import DialRules
from tollkeeper.services import trunks
from tollkeeper.services.trunks import TrunkEntry

app = App(name="trunk", help="Trunks: by what a record's customer or vendor is recognised.")

Several = Annotated[list[str] | None, Parameter(negative=())]


@app.command
def add(
    code: str,
    *,
    party: str,
    direction: Literal["in", "out"] = "in",
    switch: str = "",
    name: Several = None,
    address: Several = None,
    account: str = "",
    tech_prefix: str = "",
    country_code: str = "",
    national: str = "",
) -> None:
    """Add a trunk. All that is given must fit a record; of trunks that fit, the one that says most wins.

    Args:
        code: Its short name.
        party: The customer (in) or the vendor (out) whose traffic it is.
        direction: in: calls come from it; out: calls are sent to it.
        switch: Only records of this switch.
        name: What the switch calls it in its records; may be given several times.
        address: IP address or network; may be given several times.
        account: The account code in the records.
        tech_prefix: In front of called numbers; it is removed.
        country_code: Of numbers that are written nationally.
        national: What national numbers begin with, such as 0.
    """
    rules = DialRules(national=national, country_code=country_code)
    made = run(
        lambda database: trunks.create_trunk(
            database,
            TrunkEntry(
                code,
                direction,
                party,
                switch=switch,
                names=tuple(name or ()),
                addresses=tuple(address or ()),
                account=account,
                tech_prefix=tech_prefix,
                dial_rules=rules,
            ),
            actor=actor(),
        )
    )
    console().print(f"trunk {made.code} of {made.party} added", markup=False)


@app.command(name="list")
def list_trunks(*, after: str = "", limit: int = 1000) -> None:
    """List trunks in the order of their codes.

    Args:
        after: Begin after this code.
        limit: How many at most.
    """
    found = run(lambda database: trunks.list_trunks(database, after=after, limit=limit))
    columns = [
        "code",
        "direction",
        "party",
        "switch",
        "names",
        "addresses",
        "account",
        "tech prefix",
    ]
    rows = [
        (t.code, t.direction, t.party, t.switch or "any", ", ".join(t.names), ", ".join(t.addresses), t.account, t.tech_prefix)
        for t in found
    ]  # fmt: skip
    console().print(table(f"{len(found)} trunks", columns, rows), markup=False)


@app.command
def change(
    code: str,
    *,
    party: str | None = None,
    switch: str | None = None,
    name: Several = None,
    address: Several = None,
    account: str | None = None,
    tech_prefix: str | None = None,
) -> None:
    """Change a trunk; counts for records that are mediated from now on.

    Args:
        code: The trunk.
        party: Whose traffic it is.
        switch: Only records of this switch; "" for any.
        name: What the switch calls it; replaces all names.
        address: IP address or network; replaces all addresses.
        account: The account code in the records.
        tech_prefix: In front of called numbers.
    """
    changes = given(
        party=party,
        switch=switch,
        names=None if name is None else tuple(name),
        addresses=None if address is None else tuple(address),
        account=account,
        tech_prefix=tech_prefix,
    )
    run(lambda database: trunks.change_trunk(database, code, changes, actor=actor()))
    console().print(f"trunk {code} changed", markup=False)


@app.command
def remove(code: str) -> None:
    """Remove a trunk; what was mediated by it stays as it is.

    Args:
        code: The trunk.
    """
    run(lambda database: trunks.delete_trunk(database, code, actor=actor()))
    console().print(f"trunk {code} removed", markup=False)
