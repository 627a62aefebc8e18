"""Routes of rate cards: create, import a sheet, look at it, activate, roll back, look up."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.datastructures import UploadFile

from tollkeeper.core.deck import Status
from tollkeeper.errors import InvalidInput
from tollkeeper.servers.api import rate_schemas as schemas
from tollkeeper.servers.api.auth import DOCUMENTED, ManageKey, ReadKey, actor_of, scope_of
from tollkeeper.servers.api.context import Context
from tollkeeper.servers.api.schemas import AfterCode, Moment, PageLimit
from tollkeeper.services import rates
from tollkeeper.services.fields import check_moment

router = APIRouter(prefix="/v1", dependencies=DOCUMENTED, tags=["rates"])

_FILE = {"type": "string", "format": "binary"}


def file_body(description: str) -> dict[str, Any]:
    """How the OpenAPI document describes a file that is sent as the body or as a form."""
    return {
        "requestBody": {
            "required": True,
            "description": description,
            "content": {
                "text/csv": {"schema": {"type": "string"}},
                "application/octet-stream": {"schema": _FILE},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {"file": _FILE},
                        "required": ["file"],
                    }
                },
            },
        }
    }


@router.post("/cards", status_code=201)
async def create_card(body: schemas.NewCard, context: Context, key: ManageKey) -> schemas.CardOut:
    """Create a rate card."""
    card = await rates.create_card(
        context.database,
        code=body.code,
        currency=body.currency,
        name=body.name or "",
        side=body.side,
        service=body.service,
        decimals=body.decimals,
        rounding=body.rounding,
        per=body.per,
        key=body.key,
        cost_plus=body.cost_plus(),
        actor=actor_of(key),
        scope=scope_of(key),
    )
    return schemas.CardOut.of(card)


@router.get("/cards")
async def list_cards(
    context: Context, key: ReadKey, limit: PageLimit = 100, after: AfterCode = ""
) -> schemas.CardList:
    """List rate cards in the order of their codes."""
    found = await rates.list_cards(
        context.database, after=after, limit=limit + 1, scope=scope_of(key)
    )
    items = [schemas.CardOut.of(card) for card in found[:limit]]
    return schemas.CardList(items=items, next=items[-1].code if len(found) > limit else None)


@router.get("/cards/{code}")
async def get_card(code: schemas.CardPath, context: Context, key: ReadKey) -> schemas.CardOut:
    """Show a rate card."""
    return schemas.CardOut.of(await rates.get_card(context.database, code, scope=scope_of(key)))


@router.post(
    "/cards/{code}/imports",
    status_code=201,
    openapi_extra=file_body("The sheet, at most 64 MiB; gzip is understood."),
    responses={200: {"model": schemas.ImportOut, "description": "A dry run: nothing was stored."}},
)
async def import_sheet(
    code: schemas.CardPath,
    query: Annotated[schemas.SheetQuery, Query()],
    context: Context,
    key: ManageKey,
    request: Request,
    response: Response,
) -> schemas.ImportOut:
    """Import a rate sheet as a draft version; activate it to put it in force.

    The sheet is compared with the active version; the answer says what would change, and names
    each line that was refused. Every row of the file is accounted for.
    """
    options = query.settings().options()
    data, sent_name = await sheet_of(request)
    report = await rates.import_sheet(
        context.database,
        card=code,
        data=data,
        options=options,
        mode=query.mode,
        dry_run=query.dry_run,
        file_name=query.file_name or sent_name,
        actor=actor_of(key),
        scope=scope_of(key),
        now=context.clock(),
    )
    if query.dry_run:
        response.status_code = 200
    return schemas.ImportOut.of(report)


async def sheet_of(request: Request) -> tuple[bytes, str]:
    """The file and its name, sent as the body or as a form; the guard has bounded it."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        return await request.body(), ""
    async with request.form(max_files=1, max_fields=10) as form:
        for _, value in form.multi_items():
            if isinstance(value, UploadFile):
                return await value.read(), value.filename or ""
    raise InvalidInput("file: the form has no file in it", field="file")


@router.get("/cards/{code}/versions")
async def list_versions(
    code: schemas.CardPath,
    context: Context,
    key: ReadKey,
    limit: PageLimit = 100,
    after: schemas.Cursor = 0,
) -> schemas.VersionList:
    """List the versions of a card, the newest first."""
    found = await rates.versions(
        context.database, code, before=after or None, limit=limit + 1, scope=scope_of(key)
    )
    items = [schemas.VersionOut.of(version) for version in found[:limit]]
    return schemas.VersionList(items=items, next=items[-1].version if len(found) > limit else None)


@router.get("/cards/{code}/versions/{version}")
async def get_version(
    code: schemas.CardPath, version: schemas.VersionPath, context: Context, key: ReadKey
) -> schemas.VersionOut:
    """Show one version of a card."""
    return schemas.VersionOut.of(
        await rates.get_version(context.database, code, version, scope=scope_of(key))
    )


@router.get("/cards/{code}/versions/{version}/refusals")
async def list_refusals(
    code: schemas.CardPath,
    version: schemas.VersionPath,
    context: Context,
    key: ReadKey,
    limit: PageLimit = 100,
    after: schemas.Cursor = 0,
) -> schemas.RefusalList:
    """List the lines of the sheet that were refused."""
    found = await rates.refusals(
        context.database, code, version, after=after, limit=limit + 1, scope=scope_of(key)
    )
    return schemas.RefusalList(
        items=[schemas.RefusalOut.of(refusal) for refusal in found[:limit]],
        next=found[limit - 1].seq if len(found) > limit else None,
    )


@router.get("/cards/{code}/versions/{version}/changes")
async def list_changes(
    code: schemas.CardPath,
    version: schemas.VersionPath,
    context: Context,
    key: ReadKey,
    status: Status | None = None,
    limit: PageLimit = 100,
    after: schemas.Cursor = 0,
) -> schemas.ChangeList:
    """List what a version changes, what deserves a look first; unchanged rows are only counted."""
    found = await rates.changes(
        context.database,
        code,
        version,
        status=status,
        after=after,
        limit=limit + 1,
        scope=scope_of(key),
    )
    return schemas.ChangeList(
        items=[schemas.ChangeOut.of(change) for change in found[:limit]],
        next=found[limit - 1].seq if len(found) > limit else None,
    )


@router.post("/cards/{code}/activate")
async def activate(
    code: schemas.CardPath, body: schemas.Activation, context: Context, key: ManageKey
) -> schemas.VersionOut:
    """Put a draft in force; new calls are priced by it within seconds."""
    version = await rates.activate(
        context.database,
        card=code,
        version=body.version,
        force=body.force,
        actor=actor_of(key),
        scope=scope_of(key),
        now=context.clock(),
    )
    return schemas.VersionOut.of(version)


@router.post("/cards/{code}/rollback")
async def roll_back(
    code: schemas.CardPath,
    context: Context,
    key: ManageKey,
    body: schemas.RollBack | None = None,
) -> schemas.VersionOut:
    """Return to the version that was active before, as it was."""
    version = await rates.roll_back(
        context.database,
        card=code,
        expected=body.expected if body is not None else None,
        actor=actor_of(key),
        scope=scope_of(key),
        now=context.clock(),
    )
    return schemas.VersionOut.of(version)


@router.get("/cards/{code}/lookup")
async def lookup(
    code: schemas.CardPath,
    number: schemas.Number,
    context: Context,
    key: ReadKey,
    at: Annotated[Moment, Query(description="Now if left out.")] = None,
) -> schemas.LookupOut:
    """Find the row of a card that prices a number."""
    moment = context.clock() if at is None else check_moment(at, field="at")
    found = await rates.lookup(context.database, number, card=code, now=moment, scope=scope_of(key))
    return schemas.LookupOut.found(found)
