"""Routes of wallets: create, bound, fund, and the statement of what happened."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Response

from tollkeeper.servers.api import wallet_schemas as schemas
from tollkeeper.servers.api.auth import DOCUMENTED, ManageKey, ReadKey, actor_of, scope_of
from tollkeeper.servers.api.context import Context
from tollkeeper.servers.api.replay import RequiredKey, digest_of_body, response
from tollkeeper.servers.api.schemas import AfterNumber, CodePath, CurrencyPath, Moment, PageLimit
from tollkeeper.services import wallets
from tollkeeper.services.fields import check_moment
from tollkeeper.services.idempotency import Answer, run_once
from tollkeeper.services.wallet_terms import change_terms
from tollkeeper.store.db import Connection

STATEMENT_DAYS = 30
"""Days of a statement that is asked for without a beginning."""

router = APIRouter(prefix="/v1/parties/{code}/wallets", dependencies=DOCUMENTED, tags=["wallets"])


@router.post("", status_code=201)
async def create_wallet(
    code: CodePath, body: schemas.NewWallet, context: Context, key: ManageKey
) -> schemas.WalletOut:
    """Give a party an empty wallet in one more currency."""
    wallet = await wallets.create_wallet(
        context.database,
        party=code,
        currency=body.currency,
        credit_limit=body.credit_limit,
        actor=actor_of(key),
        scope=scope_of(key),
    )
    return schemas.WalletOut.of(wallet)


@router.get("")
async def list_wallets(code: CodePath, context: Context, key: ReadKey) -> schemas.WalletList:
    """Show a party's wallets, one a currency."""
    found = await wallets.get_wallets(context.database, code, scope=scope_of(key))
    return schemas.WalletList(items=[schemas.WalletOut.of(wallet) for wallet in found])


@router.patch("/{currency}")
async def change_wallet(
    code: CodePath,
    currency: CurrencyPath,
    body: schemas.WalletTerms,
    context: Context,
    key: ManageKey,
) -> schemas.WalletOut:
    """Change a wallet's limits, caps and alerts, park it or let it be used again; calls may be up."""
    wallet = await change_terms(
        context.database,
        party=code,
        currency=currency,
        reason=body.reason,
        actor=actor_of(key),
        credit_limit=body.credit_limit,
        parked=body.parked,
        temporary=body.temporary(),
        daily_cap=body.cap("daily_cap"),
        monthly_cap=body.cap("monthly_cap"),
        alert_at=body.alert_at,
        now=context.clock(),
        scope=scope_of(key),
    )
    return schemas.WalletOut.of(wallet)


@router.post("/{currency}/topups", status_code=201, response_model=schemas.PostedOut)
async def top_up(
    code: CodePath,
    currency: CurrencyPath,
    body: schemas.TopUp,
    context: Context,
    key: ManageKey,
    idempotency_key: RequiredKey,
) -> Response:
    """Post money received, paid back or adjusted, exactly once for each Idempotency-Key."""

    async def work(connection: Connection) -> Answer:
        posted = await wallets.top_up_within(
            connection,
            party=code,
            currency=currency,
            amount=body.amount,
            reason=body.reason,
            actor=actor_of(key),
            clock=context.clock,
            kind=body.kind,
            scope=scope_of(key),
        )
        return Answer(201, schemas.PostedOut.of(posted).model_dump_json())

    digest = digest_of_body(f"POST /v1/parties/{code}/wallets/{currency}/topups", body)
    return response(
        await run_once(
            context.database,
            api_key_id=key.id,
            key=idempotency_key,
            digest=digest,
            work=work,
            scope=scope_of(key),
        )
    )


@router.get("/{currency}/statement")
async def statement(
    code: CodePath,
    currency: CurrencyPath,
    context: Context,
    key: ReadKey,
    begin: Annotated[
        Moment,
        Query(alias="from", description="Beginning, inclusive; 30 days before `to` if left out."),
    ] = None,
    end: Annotated[
        Moment, Query(alias="to", description="End, exclusive; now if left out.")
    ] = None,
    after: AfterNumber = 0,
    limit: PageLimit = 100,
) -> schemas.StatementOut:
    """Show every entry of a period, 93 days at most, between its opening and closing balance."""
    # The moment now belongs to the period: what has just been posted is seen.
    until = end or context.clock() + timedelta(microseconds=1)
    until = check_moment(until, field="to")
    since = begin or until - timedelta(days=STATEMENT_DAYS)
    found = await wallets.statement(
        context.database,
        party=code,
        currency=currency,
        begin=since,
        end=until,
        after=after,
        limit=limit,
        scope=scope_of(key),
    )
    return schemas.StatementOut.of(found)
