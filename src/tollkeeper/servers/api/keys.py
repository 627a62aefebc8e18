"""Routes of API keys."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from tollkeeper.servers.api import key_schemas as schemas
from tollkeeper.servers.api.auth import DOCUMENTED, ManageKey, actor_of, scope_of
from tollkeeper.servers.api.context import Context
from tollkeeper.servers.api.schemas import ID_MAX, AfterNumber, PageLimit
from tollkeeper.services import keys

router = APIRouter(prefix="/v1/keys", dependencies=DOCUMENTED, tags=["keys"])


@router.post("", status_code=201)
async def create_key(body: schemas.NewKeyIn, context: Context, key: ManageKey) -> schemas.NewKeyOut:
    """Make an API key. Its secret is in this answer and nowhere else."""
    new = await keys.create_key(
        context.database,
        name=body.name,
        scopes=body.scopes,
        switch=body.switch,
        party=body.party,
        actor=actor_of(key),
        by=key,
    )
    return schemas.NewKeyOut.model_validate(
        {**schemas.KeyOut.fields_of(new.key), "secret": new.secret}
    )


@router.get("")
async def list_keys(
    context: Context, key: ManageKey, limit: PageLimit = 100, after: AfterNumber = 0
) -> schemas.KeyList:
    """List API keys, revoked ones too, without their secrets."""
    found = await keys.list_keys(
        context.database, after=after, limit=limit + 1, scope=scope_of(key)
    )
    items = [schemas.KeyOut.of(row) for row in found[:limit]]
    return schemas.KeyList(items=items, next=items[-1].id if len(found) > limit else None)


@router.delete("/{id}", status_code=204)
async def revoke_key(
    id_: Annotated[int, Path(alias="id", ge=1, le=ID_MAX)],
    context: Context,
    key: ManageKey,
) -> None:
    """End an API key at once; doing it again changes nothing."""
    await keys.revoke_key(
        context.database, id_, actor=actor_of(key), own_id=key.id, scope=scope_of(key)
    )
