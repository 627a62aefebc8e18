"""Outside suppliers: add, change, look at, try. A secret goes in and never comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.gateways.supplier import Refused, SupplierGateway, Unknown
from tollkeeper.gateways.supplier_settings import (
    NULL_URL,
    OPERATIONS,
    SUPPLIER_KINDS,
    SupplierConfig,
    check_base_url,
    read_supplier_settings,
)
from tollkeeper.services.fields import check_choice, check_code
from tollkeeper.store import suppliers as store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.suppliers import Supplier

__all__ = [
    "CHANGEABLE",
    "Supplier",
    "change_supplier",
    "create_supplier",
    "delete_supplier",
    "get_supplier",
    "list_suppliers",
    "try_supplier",
]

CHANGEABLE = frozenset(("base_url", "secret", "settings", "enabled"))
SECRET_MAX = 4000
HIDDEN = "***"
NEEDED = {"esim": "order", "did": "order", "sms": "order", "lookup": "lookup"}
"""Without this operation a supplier of the kind is of no use."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of asking a supplier once: done, pending, absent, refused or unknown."""

    outcome: str
    detail: str
    fields: Mapping[str, Any]


async def create_supplier(database: Database, supplier: Supplier, *, actor: str) -> Supplier:
    """Add a supplier; returns it as stored.

    Raises:
        InvalidInput: a field or setting is wrong; the sentence names it. Conflict: the code is taken.
    """
    check_code(supplier.code)
    checked = _checked(supplier)
    async with database.write() as connection:
        if await store.add_supplier(connection, checked) is None:
            raise Conflict(
                f'the code "{supplier.code}" is taken', code="supplier_exists", field="code"
            )
        await record(
            connection,
            actor=actor,
            action="supplier.create",
            subject=f"supplier {supplier.code}",
            detail={"kind": supplier.kind} | {n: _shown(checked, n) for n in sorted(CHANGEABLE)},
            notice=f"supplier:{supplier.code}",
        )
        return await _read(connection, supplier.code)


async def change_supplier(
    database: Database, code: str, changes: Mapping[str, Any], *, actor: str
) -> Supplier:
    """Change some of a supplier's fields (see :data:`CHANGEABLE`); settings are replaced as a whole.

    Raises:
        NotFound: no such supplier. InvalidInput: a field is unknown or wrong.
    """
    unknown = sorted(changes.keys() - CHANGEABLE)
    if unknown:
        raise InvalidInput(f"{unknown[0]}: this cannot be changed", field=unknown[0])
    async with database.write() as connection:
        if await store.lock_supplier(connection, code) is None:
            raise unknown_supplier(code)
        before = await _read(connection, code)
        after = _checked(replace(before, **changes))
        different = sorted(n for n in changes if getattr(before, n) != getattr(after, n))
        if different:
            await store.write_supplier(connection, after)
            await record(
                connection,
                actor=actor,
                action="supplier.change",
                subject=f"supplier {code}",
                detail={n: [_shown(before, n), _shown(after, n)] for n in different},
                notice=f"supplier:{code}",
            )
        return await _read(connection, code)


async def delete_supplier(database: Database, code: str, *, actor: str) -> None:
    """Delete a supplier of which nothing was ever bought.

    Raises:
        NotFound: no such supplier. Conflict: there are orders; disable it.
    """
    async with database.write() as connection:
        if await store.lock_supplier(connection, code) is None:
            raise unknown_supplier(code)
        if not await store.delete_supplier(connection, code):
            raise Conflict(
                f'orders were placed with "{code}"; disable it in place of deleting it',
                code="supplier_in_use",
            )
        await record(
            connection,
            actor=actor,
            action="supplier.delete",
            subject=f"supplier {code}",
            detail={},
            notice=f"supplier:{code}",
        )


async def get_supplier(database: Database, code: str) -> Supplier:
    """Return a supplier.

    Raises:
        NotFound: no such supplier.
    """
    async with database.read() as connection:
        return await _read(connection, code)


async def list_suppliers(
    database: Database, *, kind: str = "", after: str = "", limit: int = 100
) -> list[Supplier]:
    """Return suppliers in the order of their codes."""
    async with database.read() as connection:
        return await store.read_suppliers(connection, kind=kind, after=after, limit=limit)


async def try_supplier(
    database: Database,
    gateway: SupplierGateway,
    code: str,
    *,
    operation: str,
    values: Mapping[str, str],
    key: str,
) -> Tried:
    """Ask a supplier for one thing and tell what was understood. Nothing is stored or charged.

    Raises:
        NotFound: no such supplier. InvalidInput: it cannot be asked for this.
    """
    check_choice(operation, OPERATIONS, field="operation")
    config = config_of(await get_supplier(database, code))
    if not config.offers(operation):
        raise InvalidInput(
            f'operation: "{code}" has no settings.operations.{operation}', field="operation"
        )
    try:
        answer = await gateway.call(config, operation, values, key=key)
    except Refused as error:
        return Tried("refused", error.reason, {})
    except Unknown as error:
        return Tried("unknown" if error.sent else "unreachable", error.detail, {})
    return Tried(answer.outcome.value, "", answer.fields)


def config_of(supplier: Supplier) -> SupplierConfig:
    """A supplier as the gateway is told of it."""
    return SupplierConfig(
        supplier.code,
        supplier.kind,
        supplier.base_url,
        supplier.secret,
        read_supplier_settings(supplier.settings),
    )


async def read_config(connection: Connection, supplier_id: int) -> SupplierConfig:
    """The supplier of an order, as it is set now."""
    supplier = await store.read_supplier_by_id(connection, supplier_id)
    if supplier is None:
        raise NotFound("the supplier of this order is gone", code="unknown_supplier")
    return config_of(supplier)


def unknown_supplier(code: str) -> NotFound:
    """The error for a supplier that does not exist."""
    return NotFound(f'there is no supplier "{code}"', code="unknown_supplier", field="code")


async def _read(connection: Connection, code: str) -> Supplier:
    supplier = await store.read_supplier(connection, code)
    if supplier is None:
        raise unknown_supplier(code)
    return supplier


def _checked(supplier: Supplier) -> Supplier:
    """The supplier with its settings complete, if all of it can work."""
    check_choice(supplier.kind, SUPPLIER_KINDS, field="kind")
    url = check_base_url(supplier.base_url)
    secret = supplier.secret
    if len(secret) > SECRET_MAX or not (secret.isascii() and secret.isprintable()):
        raise InvalidInput(
            f"secret: at most {SECRET_MAX} visible ASCII characters on one line", field="secret"
        )
    settings = read_supplier_settings(supplier.settings)
    needed = NEEDED[supplier.kind]
    if url != NULL_URL and needed not in settings.operations:
        raise InvalidInput(
            f"settings.operations.{needed}: a supplier of the kind {supplier.kind} needs it",
            field=f"settings.operations.{needed}",
        )
    return replace(supplier, base_url=url, settings=msgspec.to_builtins(settings))


def _shown(supplier: Supplier, name: str) -> object:
    """A field as the audit trail may keep it."""
    value = getattr(supplier, name)
    if name == "secret":
        return HIDDEN if value else ""
    return dict(value) if isinstance(value, Mapping) else value
