"""Routes of what plans say beside their cards: terms, zones, time profiles."""

from __future__ import annotations

from fastapi import APIRouter

from tollkeeper.servers.api import plan_schemas as schemas
from tollkeeper.servers.api.auth import DOCUMENTED, ManageKey, ReadKey, actor_of, scope_of
from tollkeeper.servers.api.context import Context
from tollkeeper.servers.api.schemas import AfterCode, CodePath, PageLimit
from tollkeeper.services import plan_names, plan_terms
from tollkeeper.services.plan_names import read_window

router = APIRouter(prefix="/v1", dependencies=DOCUMENTED, tags=["plans"])


@router.get("/plans/{code}/terms")
async def get_terms(code: CodePath, context: Context, key: ReadKey) -> schemas.TermsOut:
    """Show a plan's promotions, surcharges, tiers, packages, exchange margin, commitment, refunds."""
    found = await plan_terms.get_terms(context.database, code, scope=scope_of(key))
    return schemas.TermsOut.of(found)


@router.put("/plans/{code}/terms")
async def set_terms(
    code: CodePath, body: schemas.Terms, context: Context, key: ManageKey
) -> schemas.TermsOut:
    """Replace a plan's terms; new calls are charged by them within seconds."""
    stored = await plan_terms.set_terms(
        context.database, code, body.terms(), actor=actor_of(key), scope=scope_of(key)
    )
    return schemas.TermsOut.of(stored)


# --- zones ---------------------------------------------------------------------------------------


@router.post("/zones", status_code=201)
async def create_zone(body: schemas.NewZone, context: Context, key: ManageKey) -> schemas.ZoneOut:
    """Create a zone."""
    made = await plan_names.create_zone(
        context.database,
        code=body.code,
        name=body.name or "",
        prefixes=body.prefixes,
        actor=actor_of(key),
        scope=scope_of(key),
    )
    return schemas.ZoneOut.of(made)


@router.get("/zones")
async def list_zones(
    context: Context, key: ReadKey, limit: PageLimit = 100, after: AfterCode = ""
) -> schemas.ZoneList:
    """List zones in the order of their codes."""
    found = await plan_names.list_zones(
        context.database, after=after, limit=limit + 1, scope=scope_of(key)
    )
    items = [schemas.ZoneOut.of(zone) for zone in found[:limit]]
    return schemas.ZoneList(items=items, next=items[-1].code if len(found) > limit else None)


@router.get("/zones/{code}")
async def get_zone(code: schemas.ZonePath, context: Context, key: ReadKey) -> schemas.ZoneOut:
    """Show a zone."""
    found = await plan_names.get_zone(context.database, code, scope=scope_of(key))
    return schemas.ZoneOut.of(found)


@router.patch("/zones/{code}")
async def change_zone(
    code: schemas.ZonePath, body: schemas.ZonePatch, context: Context, key: ManageKey
) -> schemas.ZoneOut:
    """Change a zone; plans that use it go by its new prefixes within seconds."""
    changed = await plan_names.change_zone(
        context.database,
        code,
        plan_names.ZoneChange(body.name, body.prefixes),
        actor=actor_of(key),
        scope=scope_of(key),
    )
    return schemas.ZoneOut.of(changed)


@router.delete("/zones/{code}", status_code=204)
async def delete_zone(code: schemas.ZonePath, context: Context, key: ManageKey) -> None:
    """Delete a zone that no plan uses."""
    await plan_names.delete_zone(context.database, code, actor=actor_of(key), scope=scope_of(key))


# --- time profiles -------------------------------------------------------------------------------


@router.post("/time-profiles", status_code=201)
async def create_time_profile(
    body: schemas.NewProfile, context: Context, key: ManageKey
) -> schemas.ProfileOut:
    """Create a time profile."""
    made = await plan_names.create_profile(
        context.database,
        code=body.code,
        name=body.name or "",
        timezone=body.timezone,
        windows=[read_window(text) for text in body.windows],
        actor=actor_of(key),
        scope=scope_of(key),
    )
    return schemas.ProfileOut.of(made)


@router.get("/time-profiles")
async def list_time_profiles(
    context: Context, key: ReadKey, limit: PageLimit = 100, after: AfterCode = ""
) -> schemas.ProfileList:
    """List time profiles in the order of their codes."""
    found = await plan_names.list_profiles(
        context.database, after=after, limit=limit + 1, scope=scope_of(key)
    )
    items = [schemas.ProfileOut.of(profile) for profile in found[:limit]]
    return schemas.ProfileList(items=items, next=items[-1].code if len(found) > limit else None)


@router.get("/time-profiles/{code}")
async def get_time_profile(
    code: schemas.ProfilePath, context: Context, key: ReadKey
) -> schemas.ProfileOut:
    """Show a time profile."""
    found = await plan_names.get_profile(context.database, code, scope=scope_of(key))
    return schemas.ProfileOut.of(found)


@router.patch("/time-profiles/{code}")
async def change_time_profile(
    code: schemas.ProfilePath, body: schemas.ProfilePatch, context: Context, key: ManageKey
) -> schemas.ProfileOut:
    """Change a time profile; plans that use it go by its new hours within seconds."""
    windows = None if body.windows is None else [read_window(text) for text in body.windows]
    changed = await plan_names.change_profile(
        context.database,
        code,
        plan_names.ProfileChange(body.name, body.timezone, windows),
        actor=actor_of(key),
        scope=scope_of(key),
    )
    return schemas.ProfileOut.of(changed)


@router.delete("/time-profiles/{code}", status_code=204)
async def delete_time_profile(code: schemas.ProfilePath, context: Context, key: ManageKey) -> None:
    """Delete a time profile that no plan uses."""
    await plan_names.delete_profile(
        context.database, code, actor=actor_of(key), scope=scope_of(key)
    )
