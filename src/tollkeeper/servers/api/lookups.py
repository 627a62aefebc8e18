"""The route of lookups: what is known of a number, for money."""

from __future__ import annotations

from fastapi import APIRouter

from tollkeeper.servers.api import supply_schemas as schemas
from tollkeeper.servers.api.auth import DOCUMENTED, ChargeKey, scope_of
from tollkeeper.servers.api.context import Context, supplies_of

router = APIRouter(prefix="/v1/lookups", dependencies=DOCUMENTED, tags=["lookups"])


@router.post("")
async def lookup_number(
    body: schemas.LookupIn, context: Context, key: ChargeKey
) -> schemas.LookupOut:
    """Ask what is known of a number. It is charged first, and refunded if there is no answer."""
    found = await supplies_of(context).lookups.lookup(
        party=body.party,
        number=body.number,
        kind=body.kind,
        request_id=body.request_id,
        scope=scope_of(key),
    )
    return schemas.LookupOut.of(found)
