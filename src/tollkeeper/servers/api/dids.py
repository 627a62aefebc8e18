"""Routes of telephone numbers: inventory, search, order, release."""

from __future__ import annotations

from fastapi import APIRouter, Request

from tollkeeper.servers.api import did_schemas as schemas
from tollkeeper.servers.api.auth import DOCUMENTED, ManageKey, ReadKey, actor_of, scope_of
from tollkeeper.servers.api.context import Context, Services
from tollkeeper.servers.api.fees import fees_of
from tollkeeper.servers.api.fx import BadLineOut
from tollkeeper.servers.api.rates import file_body, sheet_of
from tollkeeper.servers.api.schemas import PageLimit
from tollkeeper.servers.api.supply_schemas import PartyFilter
from tollkeeper.services.did_inventory import load_inventory, pattern_of
from tollkeeper.services.dids import DidFilter, Dids
from tollkeeper.services.scope import operator_only

router = APIRouter(prefix="/v1", dependencies=DOCUMENTED, tags=["numbers"])


def _dids(context: Services) -> Dids:
    return Dids(
        database=context.database,
        charging=context.charging,
        fees=fees_of(context),
        clock=context.clock,
        purchases=None if context.supplies is None else context.supplies.purchases,
    )


@router.post(
    "/did-inventory/imports",
    status_code=201,
    openapi_extra=file_body(
        "Lines number,country and any of kind,item,destination,quarantine_days,grace_days with titles."
    ),
)
async def import_dids(context: Context, key: ManageKey, request: Request) -> schemas.DidImportOut:
    """Import an inventory of our own numbers; good lines are kept, bad ones told."""
    if scope_of(key) is not None:
        raise operator_only("numbers are imported")
    data, name = await sheet_of(request)
    report = await load_inventory(
        context.database, data, now=context.clock(), actor=actor_of(key), file_name=name[:255]
    )
    return schemas.DidImportOut(
        given=report.given,
        added=report.added,
        known=report.known,
        refused=len(report.refused),
        refusals=BadLineOut.some(report.refused),
    )


@router.get("/dids")
async def list_dids(
    context: Context,
    key: ReadKey,
    limit: PageLimit = 100,
    after: schemas.AfterDid = "",
    prefix: schemas.Prefix = "",
    pattern: schemas.Pattern = "",
    country: schemas.Country = "",
    kind: schemas.KindFilter = "",
    status: schemas.DidStatus = "",
    party: PartyFilter = "",
) -> schemas.DidList:
    """Search numbers; a party sees those that can be ordered, and its own."""
    like = pattern_of(prefix, pattern)
    wanted = DidFilter(like, country, kind, status, party, after, limit + 1)
    found = await _dids(context).list(wanted, scope=scope_of(key))
    items = [schemas.DidOut.of(did) for did in found[:limit]]
    return schemas.DidList(items=items, next=items[-1].number if len(found) > limit else None)


@router.post("/did-orders", status_code=201)
async def order_did(
    body: schemas.DidOrderIn, context: Context, key: ManageKey
) -> schemas.DidOrderOut:
    """Order a number: its set-up and the rest of the month are charged. A refusal is a status of the order."""
    made = await _dids(context).order(
        party=body.party,
        number=body.number,
        request_id=body.request_id,
        supplier=body.supplier or "",
        item=body.item,
        actor=actor_of(key),
        scope=scope_of(key),
    )
    return schemas.DidOrderOut.of(made)


@router.get("/did-orders/{order_id}")
async def get_did_order(
    order_id: schemas.OrderId, context: Context, key: ReadKey
) -> schemas.DidOrderOut:
    """Show an order of a number."""
    return schemas.DidOrderOut.of(await _dids(context).get_order(order_id, scope=scope_of(key)))


@router.get("/dids/{number}")
async def get_did(number: schemas.NumberPath, context: Context, key: ReadKey) -> schemas.DidOut:
    """Show a number, and with it the party whose calls come in by it."""
    return schemas.DidOut.of(await _dids(context).get(number, scope=scope_of(key)))


@router.get("/dids/{number}/history")
async def get_did_history(
    number: schemas.NumberPath, context: Context, key: ReadKey
) -> schemas.DidHistory:
    """Show what happened to a number."""
    scope = scope_of(key)
    found = await _dids(context).history(number, scope=scope)
    return schemas.DidHistory.of(list(found), own=scope is not None)


@router.patch("/dids/{number}")
async def change_did(
    number: schemas.NumberPath, body: schemas.DidChange, context: Context, key: ManageKey
) -> schemas.DidOut:
    """Say where calls to a number go."""
    changed = await _dids(context).set_destination(
        number, body.destination, actor=actor_of(key), scope=scope_of(key)
    )
    return schemas.DidOut.of(changed)


@router.post("/dids/{number}/release", status_code=204)
async def release_did(number: schemas.NumberPath, context: Context, key: ManageKey) -> None:
    """Give a number back; nothing is paid back, and nobody gets it for a while."""
    await _dids(context).release(number, actor=actor_of(key), scope=scope_of(key))
