"""Routes of fees, and of what plans' minimum commitments came to."""

from __future__ import annotations

from fastapi import APIRouter

from tollkeeper.servers.api import fee_schemas as schemas
from tollkeeper.servers.api.auth import DOCUMENTED, ManageKey, ReadKey, actor_of, scope_of
from tollkeeper.servers.api.context import Context, Services
from tollkeeper.servers.api.replay import RequiredKey
from tollkeeper.servers.api.schemas import AfterNumber, PageLimit
from tollkeeper.servers.api.supply_schemas import PartyFilter
from tollkeeper.services.commitments import Commitments
from tollkeeper.services.fees import Fees

router = APIRouter(prefix="/v1", dependencies=DOCUMENTED, tags=["fees"])


def fees_of(context: Services) -> Fees:
    """The use cases of fees."""
    return Fees(context.database, context.charging, context.clock)


@router.post("/fees", status_code=201)
async def add_fee(
    body: schemas.NewFee, context: Context, key: ManageKey, idempotency_key: RequiredKey
) -> schemas.FeeOut:
    """Add a fee, once for each Idempotency-Key, and charge what is due of it now."""
    made = await fees_of(context).add(
        party=body.party,
        name=body.name,
        period=body.period,
        service=body.service,
        called=body.called or "",
        amount=body.amount,
        currency=body.currency or "",
        begins_on=body.begins_on,
        ends_on=body.ends_on,
        prorate=body.prorate,
        grace_days=body.grace_days,
        request=f"{key.id}:{idempotency_key}",
        actor=actor_of(key),
        scope=scope_of(key),
    )
    return schemas.FeeOut.of(made)


@router.get("/fees")
async def list_fees(
    context: Context,
    key: ReadKey,
    limit: PageLimit = 100,
    after: AfterNumber = 0,
    party: PartyFilter = "",
    status: schemas.FeeStatus = "",
) -> schemas.FeeList:
    """List fees, those of numbers among them, the oldest first."""
    found = await fees_of(context).list(
        party=party, status=status, after=after, limit=limit + 1, scope=scope_of(key)
    )
    items = [schemas.FeeOut.of(fee) for fee in found[:limit]]
    return schemas.FeeList(items=items, next=items[-1].id if len(found) > limit else None)


@router.get("/fees/{fee_id}")
async def get_fee(fee_id: schemas.FeeId, context: Context, key: ReadKey) -> schemas.FeeOut:
    """Show a fee."""
    return schemas.FeeOut.of(await fees_of(context).get(fee_id, scope=scope_of(key)))


@router.post("/fees/{fee_id}/end")
async def end_fee(
    fee_id: schemas.FeeId, body: schemas.FeeEnd, context: Context, key: ManageKey
) -> schemas.FeeOut:
    """End a fee, today or on a day to come; nothing is paid back."""
    ended = await fees_of(context).end(
        fee_id, on=body.ends_on, actor=actor_of(key), scope=scope_of(key)
    )
    return schemas.FeeOut.of(ended)


@router.get("/commitments")
async def list_commitments(
    context: Context, key: ReadKey, limit: PageLimit = 100, party: PartyFilter = ""
) -> schemas.CommitmentList:
    """List what months came to of parties whose plan has a minimum, the newest month first."""
    scope = scope_of(key)
    service = Commitments(context.database, context.directory, context.charging, context.clock)
    found = await service.list(party=party, limit=limit, scope=scope)
    return schemas.CommitmentList(
        items=[schemas.CommitmentOut.of(month, own=scope is not None) for month in found]
    )
