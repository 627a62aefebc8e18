"""Routes of CDR sources: where records come from, and files that are brought."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from tollkeeper.errors import Busy, Forbidden
from tollkeeper.servers.api import cdr_source_schemas as schemas
from tollkeeper.servers.api.auth import DOCUMENTED, ChargeKey, ManageKey, ReadKey, actor_of
from tollkeeper.servers.api.context import Context
from tollkeeper.servers.api.schemas import AfterCode, PageLimit
from tollkeeper.services import cdr_sources
from tollkeeper.services.collect import push_file
from tollkeeper.services.keys import allows

router = APIRouter(prefix="/v1/cdr/sources", dependencies=DOCUMENTED, tags=["cdr"])

_FILE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The file as it is, compressed or not; at most cdr_file_max_bytes.",
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "text/csv": {"schema": {"type": "string"}},
        },
    }
}


@router.post("", status_code=201)
async def create_cdr_source(
    body: schemas.NewSource, context: Context, key: ManageKey
) -> schemas.SourceOut:
    """Create a source of call records."""
    made = await cdr_sources.create_source(context.database, body.source(), actor=actor_of(key))
    return schemas.SourceOut.of(made)


@router.get("")
async def list_cdr_sources(
    context: Context, _: ReadKey, limit: PageLimit = 100, after: AfterCode = ""
) -> schemas.SourceList:
    """List sources in the order of their codes."""
    found = await cdr_sources.list_sources(context.database, after=after, limit=limit + 1)
    items = [schemas.SourceOut.of(source) for source in found[:limit]]
    return schemas.SourceList(items=items, next=items[-1].code if len(found) > limit else None)


@router.get("/{code}")
async def get_cdr_source(
    code: schemas.SourcePath, context: Context, _: ReadKey
) -> schemas.SourceOut:
    """Show a source, without its secret."""
    return schemas.SourceOut.of(await cdr_sources.get_source(context.database, code))


@router.patch("/{code}")
async def change_cdr_source(
    code: schemas.SourcePath, body: schemas.SourceChange, context: Context, key: ManageKey
) -> schemas.SourceOut:
    """Change a source; `"enabled": false` stops collecting. It is looked at again at once."""
    changes = body.changes()
    if "settings" in changes:
        source = await cdr_sources.get_source(context.database, code)
        if source.kind == "directory":
            # A key for the API must not become a key to the disks of the server.
            raise Forbidden(
                "which folder of the server is read can be set on the command line only",
                code="local_folder",
            )
    changed = await cdr_sources.change_source(context.database, code, changes, actor=actor_of(key))
    return schemas.SourceOut.of(changed)


@router.post(
    "/{code}/files",
    status_code=202,
    openapi_extra=_FILE_BODY,
    responses={200: {"model": schemas.PushedOut, "description": "Its content was loaded before."}},
)
async def push_cdr_file(
    code: schemas.SourcePath,
    name: schemas.FileName,
    context: Context,
    key: ChargeKey,
    request: Request,
    response: Response,
) -> schemas.PushedOut:
    """Bring a file of records to a source of the kind http; it is safe when this answers.

    A key with the scope `charge` brings files of its own switch only.
    """
    if context.spool is None:
        raise Busy("this process takes no files; ask another one", code="no_spool")
    length = request.headers.get("content-length", "")
    try:
        file = await push_file(
            context.database,
            context.spool,
            code,
            name=name,
            chunks=request.stream(),
            expected=int(length) if length.isdigit() and len(length) < 20 else 0,
            switch=None if allows(key, "manage") else key.switch,
            actor=actor_of(key),
        )
    except ClientDisconnect as error:
        raise Busy("the sender went away in the middle of the file") from error
    if not file.new:
        response.status_code = 200
    return schemas.PushedOut.of(file)
