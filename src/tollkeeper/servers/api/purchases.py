"""Routes of orders at suppliers: what was bought, and what became of it."""

from __future__ import annotations

from fastapi import APIRouter

from tollkeeper.servers.api import supply_schemas as schemas
from tollkeeper.servers.api.auth import DOCUMENTED, ManageKey, ReadKey, actor_of, scope_of
from tollkeeper.servers.api.context import Context, supplies_of
from tollkeeper.servers.api.schemas import AfterNumber, PageLimit
from tollkeeper.services.purchases import PurchaseFilter

router = APIRouter(prefix="/v1/purchases", dependencies=DOCUMENTED, tags=["suppliers"])


@router.get("")
async def list_purchases(
    context: Context,
    key: ReadKey,
    limit: PageLimit = 100,
    after: AfterNumber = 0,
    status: schemas.PurchaseStatus = "",
    party: schemas.PartyFilter = "",
    service: schemas.ServiceFilter = "",
) -> schemas.PurchaseList:
    """List orders, the oldest first; `status=unknown` are those of which nobody can tell."""
    scope = scope_of(key)
    wanted = PurchaseFilter(status, party, service, after, limit + 1)
    found = await supplies_of(context).purchases.orders(wanted, scope=scope)
    items = [schemas.PurchaseOut.of(order, own=scope is not None) for order in found[:limit]]
    return schemas.PurchaseList(items=items, next=items[-1].id if len(found) > limit else None)


@router.get("/{order_id}")
async def get_purchase(
    order_id: schemas.OrderPath, context: Context, key: ReadKey
) -> schemas.PurchaseOut:
    """Show an order."""
    scope = scope_of(key)
    found = await supplies_of(context).purchases.order(order_id, scope=scope)
    return schemas.PurchaseOut.of(found, own=scope is not None)


@router.post("/{order_id}/resolve")
async def resolve_purchase(
    order_id: schemas.OrderPath, body: schemas.ResolveIn, context: Context, key: ManageKey
) -> schemas.PurchaseOut:
    """Say what became of an order of which nobody can tell; its money follows. The operator's only."""
    resolved = await supplies_of(context).purchases.resolve(
        order_id, body.outcome, actor=actor_of(key), answer=body.answer
    )
    return schemas.PurchaseOut.of(resolved, own=False)
