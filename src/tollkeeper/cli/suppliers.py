"""The command ``suppliers``: who is asked for eSIMs, lookups and numbers."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any, Literal

from cyclopts import App

from tollkeeper.cli.common import FileOrInput, actor, console, given, run, table
from tollkeeper.errors import InvalidInput
from tollkeeper.gateways.supplier import Suppliers
from tollkeeper.services import suppliers
from tollkeeper.services.suppliers import Supplier, Tried
from tollkeeper.store.db import Database

app = App(name="suppliers", help="Outside suppliers: add, list, change, try.")

Kind = Literal["esim", "lookup", "did", "sms"]
Operation = Literal["order", "status", "cancel", "activate", "release", "lookup", "search"]


@app.command
def add(
    code: str,
    *,
    kind: Kind,
    base_url: str,
    settings: Path | None = None,
    secret_file: FileOrInput | None = None,
    disabled: bool = False,
) -> None:
    """Add a supplier.

    Args:
        code: Its short name, used everywhere.
        kind: What it supplies: esim, lookup, did, sms.
        base_url: Where its paths begin; "null:" is a supplier that only pretends.
        settings: File (TOML or JSON) that says what is asked and how answers are read.
        secret_file: File with the API key, which templates call {secret}; "-" reads standard input.
        disabled: Do not order from it yet.
    """
    supplier = Supplier(
        code=code,
        kind=kind,
        base_url=base_url,
        secret=_secret(secret_file) or "",
        settings=_settings(settings) or {},
        enabled=not disabled,
    )
    run(lambda database: suppliers.create_supplier(database, supplier, actor=actor()))
    console().print(f"supplier {code} added", markup=False)


@app.command(name="list")
def list_suppliers(*, after: str = "", limit: int = 1000) -> None:
    """List suppliers in the order of their codes.

    Args:
        after: Begin after this code.
        limit: How many at most.
    """
    found = run(lambda database: suppliers.list_suppliers(database, after=after, limit=limit))
    rows = [
        (
            s.code,
            s.kind,
            s.base_url,
            ", ".join(s.settings.get("operations", {})),
            ", ".join(s.settings.get("items", {})),
            "enabled" if s.enabled else "disabled",
        )
        for s in found
    ]
    columns = ["code", "kind", "where", "operations", "items", "state"]
    console().print(table(f"{len(found)} suppliers", columns, rows), markup=False)


@app.command
def show(code: str) -> None:
    """Show all of a supplier but its secret, the settings as JSON.

    Args:
        code: Code of the supplier.
    """
    found = run(lambda database: suppliers.get_supplier(database, code))
    rows = [
        ("kind", found.kind),
        ("base_url", found.base_url),
        ("state", "enabled" if found.enabled else "disabled"),
        ("secret", "set" if found.secret else "none"),
    ]
    console().print(table(f"supplier {code}", ["what", "value"], rows), markup=False)
    console().print(json.dumps(dict(found.settings), indent=2), markup=False)


@app.command(name="set")
def change(
    code: str,
    *,
    base_url: str | None = None,
    settings: Path | None = None,
    secret_file: FileOrInput | None = None,
    enabled: bool | None = None,
) -> None:
    """Change a supplier; what is not given stays. Settings are replaced as a whole.

    Args:
        code: Code of the supplier.
        base_url: Where its paths begin.
        settings: File (TOML or JSON) with all of its settings.
        secret_file: File with the API key; "-" reads standard input.
        enabled: Whether it is ordered from.
    """
    changes = given(
        base_url=base_url,
        settings=_settings(settings),
        secret=_secret(secret_file),
        enabled=enabled,
    )
    run(lambda database: suppliers.change_supplier(database, code, changes, actor=actor()))
    console().print(f"supplier {code} changed", markup=False)


@app.command
def remove(code: str) -> None:
    """Delete a supplier of which nothing was ever bought.

    Args:
        code: Code of the supplier.
    """
    run(lambda database: suppliers.delete_supplier(database, code, actor=actor()))
    console().print(f"supplier {code} deleted", markup=False)


@app.command(name="test")
def try_out(
    code: str,
    operation: Operation,
    *,
    number: str = "",
    item: str = "",
    order_id: str = "test",
    reference: str = "",
    kind: str = "",
    query: str = "",
) -> int:
    """Ask a supplier once and show what was understood. An order that is tried is really placed.

    Args:
        code: Code of the supplier.
        operation: What to ask for.
        number: What templates call {number} and {called}.
        item: What they call {item}: the supplier's own name of it.
        order_id: What they call {order_id}; it is the Idempotency-Key, too.
        reference: What they call {reference}.
        kind: What they call {kind}.
        query: What they call {query}.
    """
    values = {
        "number": number,
        "called": number,
        "item": item,
        "order_id": order_id,
        "reference": reference,
        "kind": kind,
        "query": query,
        "party": "test",
    }

    async def work(database: Database) -> Tried:
        gateway = Suppliers()
        try:
            return await suppliers.try_supplier(
                database, gateway, code, operation=operation, values=values, key=order_id
            )
        finally:
            await gateway.close()

    tried = run(work)
    why = f" ({tried.detail})" if tried.detail else ""
    console().print(f"{code} {operation}: {tried.outcome}{why}", markup=False)
    for name, value in tried.fields.items():
        console().print(f"  {name} = {json.dumps(value)}", markup=False)
    return 0 if tried.outcome in {"done", "pending", "absent"} else 1


def _settings(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        text = path.read_text("utf-8")
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror or error}", field="settings") from error
    except ValueError as error:
        raise InvalidInput(
            f"{path}: this is neither TOML nor (in a .json) JSON: {error}", field="settings"
        ) from error
    if not isinstance(found, dict):
        raise InvalidInput(f"{path}: the settings are a JSON object", field="settings")
    return found


def _secret(path: Path | None) -> str | None:
    """A secret from a file: on the command line every user of the machine could read it."""
    if path is None:
        return None
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: it cannot be read: {error}", field="secret") from error
    return text.rstrip("\r\n")
