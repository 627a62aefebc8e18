"""Routes of bonus credit: granted by the operator, looked at by everybody it concerns."""

from __future__ import annotations

from fastapi import APIRouter, Response

from tollkeeper.servers.api import bonus_schemas as schemas
from tollkeeper.servers.api.auth import DOCUMENTED, ManageKey, ReadKey, actor_of, scope_of
from tollkeeper.servers.api.context import Context
from tollkeeper.servers.api.replay import RequiredKey, digest_of_body, response
from tollkeeper.servers.api.schemas import AfterNumber, CodePath, CurrencyPath, PageLimit
from tollkeeper.services import bonuses
from tollkeeper.services.idempotency import Answer, run_once
from tollkeeper.services.scope import operator_only
from tollkeeper.store.db import Connection

router = APIRouter(
    prefix="/v1/parties/{code}/wallets/{currency}/bonuses",
    dependencies=DOCUMENTED,
    tags=["bonuses"],
)


@router.post("", status_code=201, response_model=schemas.GrantedOut)
async def grant_bonus(
    code: CodePath,
    currency: CurrencyPath,
    body: schemas.NewBonus,
    context: Context,
    key: ManageKey,
    idempotency_key: RequiredKey,
) -> Response:
    """Give a party bonus credit until a date, exactly once for each Idempotency-Key."""
    if scope_of(key) is not None:
        raise operator_only("bonus credit is given")

    async def work(connection: Connection) -> Answer:
        granted = await bonuses.grant_within(
            connection,
            party=code,
            currency=currency,
            amount=body.amount,
            expires_at=body.until(),
            reason=body.reason,
            actor=actor_of(key),
            clock=context.clock,
            order=body.order,
        )
        return Answer(201, schemas.GrantedOut.of(granted).model_dump_json())

    digest = digest_of_body(f"POST /v1/parties/{code}/wallets/{currency}/bonuses", body)
    return response(
        await run_once(
            context.database, api_key_id=key.id, key=idempotency_key, digest=digest, work=work
        )
    )


@router.get("")
async def list_bonuses(
    code: CodePath,
    currency: CurrencyPath,
    context: Context,
    key: ReadKey,
    after: AfterNumber = 0,
    limit: PageLimit = 100,
) -> schemas.BonusList:
    """Show a wallet's bonus credit with what is left of each lot at this moment."""
    found = await bonuses.list_bonuses(
        context.database,
        party=code,
        currency=currency,
        after=after,
        limit=limit + 1,
        scope=scope_of(key),
    )
    items = [schemas.BonusOut.of(one) for one in found[:limit]]
    return schemas.BonusList(items=items, next=items[-1].id if len(found) > limit else None)
