"""Routes of vouchers: batches with their codes shown once, redeeming, blocking."""

from __future__ import annotations

from fastapi import APIRouter, Response

from tollkeeper.servers.api import voucher_schemas as schemas
from tollkeeper.servers.api.auth import DOCUMENTED, ManageKey, ReadKey, actor_of, scope_of
from tollkeeper.servers.api.context import Context
from tollkeeper.servers.api.schemas import AfterCode, CodePath, PageLimit
from tollkeeper.services import voucher_batches, vouchers

router = APIRouter(prefix="/v1", dependencies=DOCUMENTED, tags=["vouchers"])


@router.post(
    "/voucher-batches",
    status_code=201,
    response_class=Response,
    responses={201: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
async def make_vouchers(body: schemas.NewBatch, context: Context, key: ManageKey) -> Response:
    """Make a batch and answer with its codes as CSV, this once: they are stored as hashes only.

    A repeated request is refused, as the batch's code is taken then. Whoever lost the answer blocks
    the batch and makes another. What a reseller makes is paid from its wallet when it is redeemed.
    """
    made = await voucher_batches.make_batch(
        context.database,
        body.order(),
        actor=actor_of(key),
        clock=context.clock,
        scope=scope_of(key),
    )
    return Response(
        schemas.csv_of(made),
        201,
        {"Content-Disposition": f'attachment; filename="{made.batch.code}.csv"'},
        "text/csv",
    )


@router.get("/voucher-batches")
async def list_voucher_batches(
    context: Context, key: ReadKey, after: AfterCode = "", limit: PageLimit = 100
) -> schemas.BatchList:
    """List batches in the order of their codes, with how many of their vouchers are redeemed."""
    found = await voucher_batches.list_batches(
        context.database, after=after, limit=limit + 1, scope=scope_of(key)
    )
    items = [schemas.BatchOut.of(batch) for batch in found[:limit]]
    return schemas.BatchList(items=items, next=items[-1].code if len(found) > limit else None)


@router.get("/voucher-batches/{code}")
async def get_voucher_batch(code: CodePath, context: Context, key: ReadKey) -> schemas.BatchOut:
    """Show a batch."""
    return schemas.BatchOut.of(
        await voucher_batches.get_batch(context.database, code, scope=scope_of(key))
    )


@router.patch("/voucher-batches/{code}")
async def change_voucher_batch(
    code: CodePath, body: schemas.BatchChange, context: Context, key: ManageKey
) -> schemas.BatchOut:
    """Block what is left of a batch, or let it be redeemed again."""
    batch = await voucher_batches.set_blocked(
        context.database,
        code,
        blocked=body.status == "blocked",
        actor=actor_of(key),
        scope=scope_of(key),
    )
    return schemas.BatchOut.of(batch)


@router.post("/vouchers/redeem")
async def redeem_voucher(
    body: schemas.Redeem, context: Context, key: ManageKey
) -> schemas.RedeemedOut:
    """Put a voucher's value into a party's wallet, once: the party may repeat the request safely.

    After five wrong codes within 15 minutes no more are taken for 15 minutes, neither for the party
    nor from the key.
    """
    redeemed = await vouchers.redeem(
        context.database,
        party=body.party,
        code=body.code,
        actor=actor_of(key),
        clock=context.clock,
        key_id=key.id,
        scope=scope_of(key),
    )
    return schemas.RedeemedOut.of(redeemed)


@router.post("/vouchers/block")
async def block_voucher(
    body: schemas.BlockVoucher, context: Context, key: ManageKey
) -> schemas.BlockedOut:
    """Block one voucher by its code."""
    batch = await voucher_batches.block_voucher(
        context.database, body.code, actor=actor_of(key), scope=scope_of(key)
    )
    return schemas.BlockedOut(batch=batch)
