"""Routes of eSIM profiles: order, look at, activate, give back."""

from __future__ import annotations

from fastapi import APIRouter

from tollkeeper.servers.api import supply_schemas as schemas
from tollkeeper.servers.api.auth import DOCUMENTED, ManageKey, ReadKey, actor_of, scope_of
from tollkeeper.servers.api.context import Context, supplies_of
from tollkeeper.servers.api.schemas import AfterNumber, PageLimit

router = APIRouter(prefix="/v1/esims", dependencies=DOCUMENTED, tags=["esims"])


@router.post("", status_code=201)
async def order_esim(
    body: schemas.EsimIn, context: Context, key: ManageKey
) -> schemas.EsimOrderOut:
    """Order a profile. A refusal is a status of the order; one that is not through has no profile yet."""
    scope = scope_of(key)
    made = await supplies_of(context).esims.order(
        party=body.party,
        item=body.item,
        request_id=body.request_id,
        actor=actor_of(key),
        scope=scope,
    )
    return schemas.EsimOrderOut(
        order=schemas.PurchaseOut.of(made.order, own=scope is not None),
        esim=None if made.esim is None else schemas.EsimOut.of(made.esim),
    )


@router.get("")
async def list_esims(
    context: Context,
    key: ReadKey,
    limit: PageLimit = 100,
    after: AfterNumber = 0,
    party: schemas.PartyFilter = "",
    status: schemas.EsimStatus = "",
) -> schemas.EsimList:
    """List profiles, the oldest first."""
    found = await supplies_of(context).esims.list(
        party=party, status=status, after=after, limit=limit + 1, scope=scope_of(key)
    )
    items = [schemas.EsimOut.of(esim) for esim in found[:limit]]
    return schemas.EsimList(items=items, next=items[-1].id if len(found) > limit else None)


@router.get("/catalogue")
async def list_esim_items(context: Context, _: ReadKey) -> schemas.CatalogueList:
    """List what can be ordered."""
    found = await supplies_of(context).esims.catalogue()
    return schemas.CatalogueList(items=[schemas.CatalogueOut.of(one) for one in found])


@router.get("/{iccid}")
async def get_esim(iccid: schemas.IccidPath, context: Context, key: ReadKey) -> schemas.EsimOut:
    """Show a profile."""
    return schemas.EsimOut.of(await supplies_of(context).esims.get(iccid, scope=scope_of(key)))


@router.post("/{iccid}/activate")
async def activate_esim(
    iccid: schemas.IccidPath, context: Context, key: ManageKey
) -> schemas.EsimOut:
    """Activate a profile: from now on it may be used, and its volume is there."""
    made = await supplies_of(context).esims.activate(
        iccid, actor=actor_of(key), scope=scope_of(key)
    )
    return schemas.EsimOut.of(made)


@router.post("/{iccid}/release")
async def release_esim(
    iccid: schemas.IccidPath, context: Context, key: ManageKey
) -> schemas.EsimOut:
    """Give a profile back; nothing is paid back."""
    made = await supplies_of(context).esims.release(iccid, actor=actor_of(key), scope=scope_of(key))
    return schemas.EsimOut.of(made)
