"""Routes of calling cards: batches with their PINs shown once, access, blocking."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from tollkeeper.servers.api import card_schemas as schemas
from tollkeeper.servers.api.auth import (
    DOCUMENTED,
    ChargeKey,
    ManageKey,
    ReadKey,
    actor_of,
    scope_of,
)
from tollkeeper.servers.api.context import Context
from tollkeeper.servers.api.schemas import AfterCode, Code, CodePath, PageLimit
from tollkeeper.services import card_batches
from tollkeeper.services.cards import Cards

router = APIRouter(prefix="/v1", dependencies=DOCUMENTED, tags=["cards"])


@router.post(
    "/calling-card-batches",
    status_code=201,
    response_class=Response,
    responses={201: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
async def make_cards(body: schemas.NewCardBatch, context: Context, key: ManageKey) -> Response:
    """Make a batch of cards and answer with their PINs as CSV, this once: they are stored as hashes only.

    A repeated request is refused, as the batch's code is taken then. Whoever lost the answer blocks
    the batch and makes another. What is on a reseller's card is paid from its wallet at the first use.
    """
    made = await card_batches.make_batch(
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


@router.get("/calling-card-batches")
async def list_card_batches(
    context: Context, key: ReadKey, after: AfterCode = "", limit: PageLimit = 100
) -> schemas.CardBatchList:
    """List batches in the order of their codes, with how many of their cards are in which state."""
    found = await card_batches.list_batches(
        context.database, after=after, limit=limit + 1, scope=scope_of(key)
    )
    items = [schemas.CardBatchOut.of(batch) for batch in found[:limit]]
    return schemas.CardBatchList(items=items, next=items[-1].code if len(found) > limit else None)


@router.get("/calling-card-batches/{code}")
async def get_card_batch(code: CodePath, context: Context, key: ReadKey) -> schemas.CardBatchOut:
    """Show a batch of cards."""
    return schemas.CardBatchOut.of(
        await card_batches.get_batch(context.database, code, scope=scope_of(key))
    )


@router.patch("/calling-card-batches/{code}")
async def change_card_batch(
    code: CodePath, body: schemas.CardBatchChange, context: Context, key: ManageKey
) -> schemas.CardBatchOut:
    """Block all cards of a batch, or let them be used again; calls that are up go on."""
    batch = await card_batches.set_batch_blocked(
        context.database,
        code,
        blocked=body.status == "blocked",
        actor=actor_of(key),
        scope=scope_of(key),
    )
    return schemas.CardBatchOut.of(batch)


@router.get("/calling-cards")
async def list_calling_cards(
    context: Context,
    key: ReadKey,
    batch: Annotated[Code | None, Query(description="Only those of this batch.")] = None,
    after: AfterCode = "",
    limit: PageLimit = 100,
) -> schemas.CardList:
    """List cards in the order of their codes; never a PIN."""
    found = await card_batches.list_cards(
        context.database, batch=batch, after=after, limit=limit + 1, scope=scope_of(key)
    )
    items = [schemas.CardOut.of(card) for card in found[:limit]]
    return schemas.CardList(items=items, next=items[-1].code if len(found) > limit else None)


@router.post("/calling-card-access")
async def access_card(
    body: schemas.CardAccess, context: Context, key: ChargeKey
) -> schemas.AccessOut:
    """Find the card of a PIN or of a caller, and what is to be announced to its holder.

    The first time, its value is put into its wallet and its validity begins. The call itself is then
    authorised for `party` in `POST /v1/sessions`. After five wrong PINs of a caller within 15 minutes
    (100 of a key) no more are taken for 15 minutes.
    """
    cards = Cards(context.database, context.directory, context.charging, context.clock)
    found = await cards.access(
        body.asking(), actor=actor_of(key), key_id=key.id, scope=scope_of(key)
    )
    return schemas.AccessOut.of(found)


@router.get("/calling-cards/{code}")
async def get_calling_card(code: CodePath, context: Context, key: ReadKey) -> schemas.CardOut:
    """Show a card."""
    return schemas.CardOut.of(
        await card_batches.get_card(context.database, code, scope=scope_of(key))
    )


@router.patch("/calling-cards/{code}")
async def change_calling_card(
    code: CodePath, body: schemas.CardChange, context: Context, key: ManageKey
) -> schemas.CardOut:
    """Block a card or let it be used again; say which callers may use it without its PIN."""
    card = await card_batches.change_card(
        context.database,
        code,
        actor=actor_of(key),
        clock=context.clock,
        blocked=None if body.status is None else body.status == "blocked",
        callers=body.callers,
        scope=scope_of(key),
    )
    return schemas.CardOut.of(card)
