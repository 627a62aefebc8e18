"""Routes of suppliers: who is asked for eSIMs, lookups, numbers. The operator's only."""

from __future__ import annotations

from fastapi import APIRouter

from tollkeeper.servers.api import supply_schemas as schemas
from tollkeeper.servers.api.auth import DOCUMENTED, ManageKey, actor_of
from tollkeeper.servers.api.context import Context, supplies_of
from tollkeeper.servers.api.schemas import AfterCode, PageLimit
from tollkeeper.services import suppliers

router = APIRouter(prefix="/v1/suppliers", dependencies=DOCUMENTED, tags=["suppliers"])


@router.post("", status_code=201)
async def create_supplier(
    body: schemas.NewSupplier, context: Context, key: ManageKey
) -> schemas.SupplierOut:
    """Add a supplier."""
    made = await suppliers.create_supplier(context.database, body.supplier(), actor=actor_of(key))
    return schemas.SupplierOut.of(made)


@router.get("")
async def list_suppliers(
    context: Context,
    _: ManageKey,
    limit: PageLimit = 100,
    after: AfterCode = "",
    kind: schemas.KindFilter = "",
) -> schemas.SupplierList:
    """List suppliers in the order of their codes."""
    found = await suppliers.list_suppliers(
        context.database, kind=kind, after=after, limit=limit + 1
    )
    items = [schemas.SupplierOut.of(supplier) for supplier in found[:limit]]
    return schemas.SupplierList(items=items, next=items[-1].code if len(found) > limit else None)


@router.get("/{code}")
async def get_supplier(
    code: schemas.SupplierPath, context: Context, _: ManageKey
) -> schemas.SupplierOut:
    """Show a supplier, without its secret."""
    return schemas.SupplierOut.of(await suppliers.get_supplier(context.database, code))


@router.patch("/{code}")
async def change_supplier(
    code: schemas.SupplierPath, body: schemas.SupplierChange, context: Context, key: ManageKey
) -> schemas.SupplierOut:
    """Change a supplier; orders that are under way go on with the new settings."""
    changed = await suppliers.change_supplier(
        context.database, code, body.changes(), actor=actor_of(key)
    )
    return schemas.SupplierOut.of(changed)


@router.delete("/{code}", status_code=204)
async def delete_supplier(code: schemas.SupplierPath, context: Context, key: ManageKey) -> None:
    """Delete a supplier of which nothing was ever bought."""
    await suppliers.delete_supplier(context.database, code, actor=actor_of(key))


@router.post("/{code}/test")
async def try_supplier(
    code: schemas.SupplierPath, body: schemas.TryIn, context: Context, _: ManageKey
) -> schemas.TriedOut:
    """Ask a supplier once and show what was understood. Nothing is charged or stored here."""
    tried = await suppliers.try_supplier(
        context.database,
        supplies_of(context).gateway,
        code,
        operation=body.operation,
        values=body.values(),
        key=body.order_id,
    )
    return schemas.TriedOut.of(tried)
