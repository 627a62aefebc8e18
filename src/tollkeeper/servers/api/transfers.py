"""Routes of transfers: money moved within the tree."""

from __future__ import annotations

from fastapi import APIRouter, Response

from tollkeeper.servers.api import transfer_schemas as schemas
from tollkeeper.servers.api.auth import DOCUMENTED, ManageKey, ReadKey, actor_of, scope_of
from tollkeeper.servers.api.context import Context
from tollkeeper.servers.api.replay import RequiredKey, digest_of_body, response
from tollkeeper.servers.api.schemas import AfterNumber, CodePath, CurrencyPath, PageLimit
from tollkeeper.services import transfers
from tollkeeper.services.idempotency import Answer, run_once
from tollkeeper.store.db import Connection

router = APIRouter(prefix="/v1/parties/{code}", dependencies=DOCUMENTED, tags=["transfers"])


@router.post(
    "/wallets/{currency}/transfers", status_code=201, response_model=schemas.TransferredOut
)
async def make_transfer(
    code: CodePath,
    currency: CurrencyPath,
    body: schemas.NewTransfer,
    context: Context,
    key: ManageKey,
    idempotency_key: RequiredKey,
) -> Response:
    """Move a party's own money to another party, exactly once for each Idempotency-Key.

    Credit, bonus and what live sessions hold do not move, nor does money between currencies.
    """

    async def work(connection: Connection) -> Answer:
        made = await transfers.transfer_within(
            connection,
            sender=code,
            receiver=body.to,
            currency=currency,
            amount=body.amount,
            reason=body.reason,
            actor=actor_of(key),
            clock=context.clock,
            scope=scope_of(key),
        )
        return Answer(201, schemas.TransferredOut.of(made).model_dump_json(by_alias=True))

    digest = digest_of_body(f"POST /v1/parties/{code}/wallets/{currency}/transfers", body)
    # The other wallet may be above whoever asks: the service itself says what it may do.
    return response(
        await run_once(
            context.database, api_key_id=key.id, key=idempotency_key, digest=digest, work=work
        )
    )


@router.get("/transfers")
async def list_transfers(
    code: CodePath,
    context: Context,
    key: ReadKey,
    after: AfterNumber = 0,
    limit: PageLimit = 100,
) -> schemas.TransferList:
    """Show the transfers from and to a party, in their order."""
    found = await transfers.list_transfers(
        context.database, code, after=after, limit=limit + 1, scope=scope_of(key)
    )
    items = [schemas.TransferOut.of(one) for one in found[:limit]]
    return schemas.TransferList(items=items, next=items[-1].id if len(found) > limit else None)
