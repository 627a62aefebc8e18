"""Routes of parties and of the plans they are sold by."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from tollkeeper.servers.api import party_schemas as schemas
from tollkeeper.servers.api.auth import DOCUMENTED, ManageKey, ReadKey, actor_of, scope_of
from tollkeeper.servers.api.context import Context
from tollkeeper.servers.api.replay import OptionalKey, digest_of_body, response
from tollkeeper.servers.api.schemas import AfterCode, AfterNumber, Code, CodePath, PageLimit
from tollkeeper.services import parties, tree, wallets
from tollkeeper.services.idempotency import Answer, run_once
from tollkeeper.services.keys import ApiKey
from tollkeeper.services.parties import Page
from tollkeeper.store.db import Connection
from tollkeeper.store.wallets import WalletRow

router = APIRouter(prefix="/v1", dependencies=DOCUMENTED)


@router.post("/parties", status_code=201, response_model=schemas.PartyWithWallets, tags=["parties"])
async def create_party(
    body: schemas.NewParty, context: Context, key: ManageKey, idempotency_key: OptionalKey = None
) -> Response:
    """Create a party, with its plan and funded wallets if they are given: all of it or nothing."""

    async def work(connection: Connection) -> Answer:
        made = await _create(connection, body, context, key)
        return Answer(201, made.model_dump_json())

    if idempotency_key is None:
        async with context.database.write(scope=scope_of(key)) as connection:
            return response(await work(connection))
    digest = digest_of_body("POST /v1/parties", body)
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


async def _create(
    connection: Connection, body: schemas.NewParty, context: Context, key: ApiKey
) -> schemas.PartyWithWallets:
    actor, scope = actor_of(key), scope_of(key)
    party = await parties.create_party_within(connection, body.party(), actor=actor, scope=scope)
    made: list[WalletRow] = []
    for new in body.wallets:
        wallet = await wallets.create_wallet_within(
            connection,
            party=party.code,
            currency=new.currency,
            credit_limit=new.credit_limit,
            actor=actor,
            scope=scope,
        )
        if new.top_up is not None:
            posted = await wallets.top_up_within(
                connection,
                party=party.code,
                currency=new.currency,
                amount=new.top_up,
                reason=new.reason,
                actor=actor,
                clock=context.clock,
                scope=scope,
            )
            wallet = posted.wallet
        made.append(wallet)
    made.sort(key=lambda wallet: wallet.currency)
    return schemas.PartyWithWallets.with_wallets(party, made)


@router.get("/parties", tags=["parties"])
async def list_parties(
    context: Context,
    key: ReadKey,
    parent: Annotated[Code | None, Query(description="Only those directly below it.")] = None,
    subtree: Annotated[Code | None, Query(description="Only it and all below it.")] = None,
    limit: PageLimit = 100,
    after: AfterCode = "",
) -> schemas.PartyList:
    """List parties in the order of their codes."""
    found = await parties.list_parties(
        context.database,
        Page(after, limit + 1),
        parent=parent,
        subtree=subtree,
        scope=scope_of(key),
    )
    items = [schemas.PartyOut.of(party) for party in found[:limit]]
    return schemas.PartyList(items=items, next=items[-1].code if len(found) > limit else None)


@router.get("/parties/{code}", tags=["parties"])
async def get_party(code: CodePath, context: Context, key: ReadKey) -> schemas.PartyWithWallets:
    """Show a party and its wallets."""
    party = await parties.get_party(context.database, code, scope=scope_of(key))
    return await _show(context, party, key)


@router.patch("/parties/{code}", tags=["parties"])
async def change_party(
    code: CodePath, body: schemas.PartyChange, context: Context, key: ManageKey
) -> schemas.PartyWithWallets:
    """Change a party's status, plan or limits; calls already granted keep what they were granted."""
    changed = await parties.change_party(
        context.database, code, body.changes(), actor=actor_of(key), scope=scope_of(key)
    )
    return await _show(context, changed, key)


async def _show(context: Context, party: parties.Party, key: ApiKey) -> schemas.PartyWithWallets:
    found = await wallets.get_wallets(context.database, party.code, scope=scope_of(key))
    return schemas.PartyWithWallets.with_wallets(party, found)


@router.post("/parties/{code}/move", tags=["parties"])
async def move_party(
    code: CodePath, body: schemas.PartyMove, context: Context, key: ManageKey
) -> schemas.PartyWithWallets:
    """Put a party, and all below it, under another parent; calls that are up keep their legs."""
    moved = await tree.move_party(
        context.database,
        code,
        parent=body.parent,
        plan=body.plan,
        reason=body.reason,
        actor=actor_of(key),
        scope=scope_of(key),
    )
    return await _show(context, moved, key)


@router.get("/parties/{code}/moves", tags=["parties"])
async def list_moves(
    code: CodePath,
    context: Context,
    key: ReadKey,
    limit: PageLimit = 100,
    after: AfterNumber = 0,
) -> schemas.MoveList:
    """Show where a party stood and since when; the last place is where it stands."""
    found = await tree.list_moves(
        context.database, code, after=after, limit=limit + 1, scope=scope_of(key)
    )
    items = [schemas.MoveOut.of(move) for move in found[:limit]]
    return schemas.MoveList(items=items, next=items[-1].id if len(found) > limit else None)


@router.post("/plans", status_code=201, tags=["plans"])
async def create_plan(body: schemas.NewPlan, context: Context, key: ManageKey) -> schemas.PlanOut:
    """Create a rate plan from rate cards."""
    plan = await parties.create_plan(
        context.database,
        code=body.code,
        name=body.name,
        cards=[card.plan_card() for card in body.cards],
        actor=actor_of(key),
        scope=scope_of(key),
    )
    return schemas.PlanOut.of(plan)


@router.get("/plans", tags=["plans"])
async def list_plans(
    context: Context, key: ReadKey, limit: PageLimit = 100, after: AfterCode = ""
) -> schemas.PlanList:
    """List plans in the order of their codes."""
    found = await parties.list_plans(context.database, Page(after, limit + 1), scope=scope_of(key))
    items = [schemas.PlanOut.of(plan) for plan in found[:limit]]
    return schemas.PlanList(items=items, next=items[-1].code if len(found) > limit else None)


@router.get("/plans/{code}", tags=["plans"])
async def get_plan(code: CodePath, context: Context, key: ReadKey) -> schemas.PlanOut:
    """Show a plan and its cards."""
    return schemas.PlanOut.of(await parties.get_plan(context.database, code, scope=scope_of(key)))


@router.put("/plans/{code}", tags=["plans"])
async def set_plan_cards(
    code: CodePath, body: schemas.PlanChange, context: Context, key: ManageKey
) -> schemas.PlanOut:
    """Replace a plan's cards; new calls are rated by them within seconds."""
    plan = await parties.set_plan_cards(
        context.database,
        code,
        [card.plan_card() for card in body.cards],
        name=body.name,
        actor=actor_of(key),
        scope=scope_of(key),
    )
    return schemas.PlanOut.of(plan)
