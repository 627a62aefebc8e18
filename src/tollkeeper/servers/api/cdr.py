"""Routes of record files: bring them, look at them, mend what was put aside, price anew, take back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect

from tollkeeper.errors import Busy, InvalidInput
from tollkeeper.servers.api import cdr_schemas as schemas
from tollkeeper.servers.api import rerate_schemas as rerating
from tollkeeper.servers.api.auth import DOCUMENTED, ManageKey, ReadKey, actor_of
from tollkeeper.servers.api.context import Context
from tollkeeper.servers.api.guard import JSON_MAX_BYTES, TooLarge, bounded, check_json
from tollkeeper.services import cdr_sources
from tollkeeper.services.cdr import files, quarantine, rollback
from tollkeeper.services.cdr.brought import Brought
from tollkeeper.services.cdr.rerate import RerateJob
from tollkeeper.services.cdr.worker import Worker
from tollkeeper.services.fields import check_moment
from tollkeeper.services.spool import CHUNK_BYTES
from tollkeeper.store.cdr_files import BatchFilter, FileFilter
from tollkeeper.wire.cdr.format import HEAD_BYTES
from tollkeeper.wire.cdr.formats import FORMATS
from tollkeeper.wire.cdr.sniff import sniff

router = APIRouter(prefix="/v1/cdr", dependencies=DOCUMENTED, tags=["cdr"])

PATIENCE_SECONDS = 10.0
"""A small file is loaded while its sender waits; a large one is told by its number."""

SNIFF_MAX_BYTES = 1024 * 1024

_BINARY = {"type": "string", "format": "binary"}
_FILE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The file as it is, compressed or not; at most cdr_file_max_bytes. In a form "
        "it is `file`, and `mapping` is the mapping as JSON.",
        "content": {
            "application/octet-stream": {"schema": _BINARY},
            "text/csv": {"schema": {"type": "string"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": _BINARY, "mapping": {"type": "string"}},
                    "required": ["file"],
                    "additionalProperties": False,
                }
            },
        },
    }
}
_HEAD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The first bytes of a file, unpacked: 64 KiB are looked at.",
        "content": {
            "application/octet-stream": {"schema": _BINARY},
        },
    }
}


# --- files ---------------------------------------------------------------------------------------


@router.post(
    "/files",
    openapi_extra=_FILE_BODY,
    responses={202: {"model": schemas.FileOut, "description": "It is safe, and being loaded."}},
)
async def load_cdr_file(
    query: Annotated[schemas.FileQuery, Query()],
    context: Context,
    key: ManageKey,
    request: Request,
    response: Response,
) -> schemas.FileOut:
    """Bring a file of records and load it; the same file again is the same file.

    When this answers, the file is safe: 200 when it is loaded (or was before), 202 while that
    goes on. What could not go into the books waits in quarantine.
    """
    bringing, spool = context.bringing, context.spool
    if bringing is None or spool is None:
        raise Busy("this process loads no files; ask another one", code="no_spool")
    length = request.headers.get("content-length", "")
    expected = int(length) if length.isdigit() and len(length) < 20 else 0
    what = await _what(query, context, actor_of(key))
    try:
        if _is_form(request):
            most = spool.max_bytes + JSON_MAX_BYTES
            form_request = Request(request.scope, bounded(request.receive, most))
            async with form_request.form(max_files=1, max_fields=4) as form:
                what, chunks = _form(what, form.multi_items())
                file, known = await bringing.bring(what, chunks, patience=PATIENCE_SECONDS)
        else:
            file, known = await bringing.bring(
                what, request.stream(), expected=expected, patience=PATIENCE_SECONDS
            )
    except ClientDisconnect as error:
        raise Busy("the sender went away in the middle of the file") from error
    if file.status == "loading" and not known:
        response.status_code = 202
    return schemas.FileOut.of(file)


async def _what(query: schemas.FileQuery, context: Context, actor: str) -> Brought:
    """What is said in the address, completed by the source that it names."""
    what = schemas.brought_of(query, None, actor)
    if not query.source:
        if not query.switch:
            raise InvalidInput("switch: say whose records these are", field="switch")
        return what
    source = await cdr_sources.get_source(context.database, query.source)
    given = query.model_fields_set
    return Brought(
        switch=query.switch or source.switch,
        name=query.name,
        format=query.format if "format" in given else source.format,
        mapping=None if source.mapping is None else dict(source.mapping),
        timezone=query.timezone if "timezone" in given else source.timezone,
        actor=actor,
    )


def _is_form(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "multipart/form-data"


def _form(
    what: Brought, parts: list[tuple[str, UploadFile | str]]
) -> tuple[Brought, AsyncIterator[bytes]]:
    """The file of a form, and what is said about it with the mapping of the form."""
    upload: UploadFile | None = None
    for name, value in parts:
        if isinstance(value, UploadFile):
            upload = value
        elif name == "mapping":
            check_json(value.encode())
            mapping = msgspec.json.decode(value.encode())
            if not isinstance(mapping, dict):
                raise InvalidInput("mapping: give a JSON object", field="mapping")
            what = replace(what, mapping=mapping)
        else:
            raise InvalidInput(f"{name[:60]}: the form has file and mapping only", field="form")
    if upload is None:
        raise InvalidInput("file: the form has no file in it", field="file")
    return what, _chunks(upload)


async def _chunks(upload: UploadFile) -> AsyncIterator[bytes]:
    while data := await upload.read(CHUNK_BYTES):
        yield data


@router.get("/files")
async def list_cdr_files(
    query: Annotated[schemas.FilesQuery, Query()], context: Context, _: ReadKey
) -> schemas.FileList:
    """List files, the newest first."""
    since = None if query.since is None else check_moment(query.since, field="since")
    wanted = FileFilter(query.switch, query.status, since)
    found = await files.list_files(
        context.database, wanted, before=query.after or None, limit=query.limit + 1
    )
    items = [schemas.FileOut.of(file) for file in found[: query.limit]]
    return schemas.FileList(items=items, next=items[-1].id if len(found) > query.limit else None)


@router.get("/files/{id}")
async def get_cdr_file(id_: schemas.FilePath, context: Context, _: ReadKey) -> schemas.FileDetail:
    """Show a file: its parts, what was put aside, and the money."""
    return schemas.FileDetail.of(await files.get_file(context.database, id_))


@router.post("/files/{id}/rollback")
async def roll_back_cdr_file(
    id_: schemas.FilePath, body: schemas.Reason, context: Context, key: ManageKey
) -> schemas.RollbackOut:
    """Take a file's records out of the books by reversals; afterwards it may be loaded again."""
    report = await rollback.roll_back_file(
        context.database, id_, actor=actor_of(key), reason=body.reason, clock=context.clock
    )
    return schemas.RollbackOut.of(report)


@router.get("/batches")
async def list_cdr_batches(
    query: Annotated[schemas.BatchesQuery, Query()], context: Context, _: ReadKey
) -> schemas.BatchList:
    """List what was written step by step, the newest first."""
    wanted = BatchFilter(query.kind, query.file, query.switch)
    found = await files.list_batches(
        context.database, wanted, before=query.after or None, limit=query.limit + 1
    )
    items = [schemas.BatchOut.of(batch) for batch in found[: query.limit]]
    return schemas.BatchList(items=items, next=items[-1].id if len(found) > query.limit else None)


# --- quarantine ----------------------------------------------------------------------------------


@router.get("/quarantine")
async def list_quarantine(
    query: Annotated[schemas.QuarantineQuery, Query()], context: Context, _: ReadKey
) -> schemas.QuarantineList:
    """List records that could not go into the books, the oldest first."""
    found = await quarantine.listed(
        context.database, query.filter(), after=query.after, limit=min(query.limit + 1, 1000)
    )
    items = [schemas.QuarantineOut.of(held) for held in found[: query.limit]]
    full = len(found) > query.limit or (query.limit == 1000 and len(found) == 1000)
    return schemas.QuarantineList(items=items, next=items[-1].id if full else None)


@router.patch("/quarantine/{id:int}")
async def fix_quarantined(
    id_: schemas.RecordPath, body: schemas.Fix, context: Context, key: ManageKey
) -> schemas.QuarantineOut:
    """Correct fields of a record; it goes into the books when it is played again."""
    fixed = await quarantine.fix(context.database, id_, body.values, actor=actor_of(key))
    return schemas.QuarantineOut.of(fixed)


@router.post("/quarantine/replay")
async def replay_quarantine(
    body: schemas.Replay, context: Context, key: ManageKey
) -> schemas.ReplayOut:
    """Play open records again, by the rules and rates as they are now."""
    report = await _worker(context).replay(body.filter(), actor=actor_of(key))
    return schemas.ReplayOut.of(report)


@router.post("/quarantine/drop")
async def drop_quarantined(body: schemas.Drop, context: Context, key: ManageKey) -> schemas.Dropped:
    """Give records up for good; they stay listed as dropped."""
    dropped = await quarantine.drop(
        context.database, body.ids, why=body.why, actor=actor_of(key), now=context.clock()
    )
    return schemas.Dropped(dropped=dropped)


# --- mismatches, formats -------------------------------------------------------------------------


@router.get("/mismatches")
async def list_cdr_mismatches(
    query: Annotated[schemas.MismatchQuery, Query()], context: Context, _: ReadKey
) -> schemas.MismatchList:
    """List what does not fit about records in the books, the newest first."""
    page = await files.mismatches(
        context.database,
        first=query.from_,
        last=query.to,
        kind=query.kind,
        customer=query.customer,
        before=query.after or None,
        limit=query.limit + 1,
    )
    return schemas.MismatchList.of(page, query.limit)


@router.get("/formats")
async def list_cdr_formats(_: ReadKey) -> schemas.FormatList:
    """List the formats that are read."""
    return schemas.FormatList(items=[schemas.FormatOut.of(one) for one in FORMATS.values()])


@router.post("/sniff", openapi_extra=_HEAD_BODY)
async def sniff_cdr_file(
    _: ManageKey,
    request: Request,
    name: Annotated[str, Query(max_length=255, description="Name of the file.")] = "",
) -> schemas.SniffOut:
    """Recognise a file by its first bytes, and propose a mapping where it is a table."""
    head = b""
    try:
        async for chunk in request.stream():
            head += chunk
            if len(head) > SNIFF_MAX_BYTES:
                raise TooLarge(
                    f"send the first {HEAD_BYTES} bytes of the file, not more than 1 MiB"
                )
    except ClientDisconnect as error:
        raise Busy("the sender went away in the middle") from error
    if not head:
        raise InvalidInput("the body is empty; send the first bytes of the file", field="body")
    guess = await asyncio.to_thread(sniff, head[:HEAD_BYTES], name, FORMATS)
    return schemas.SniffOut.of(guess)


# --- re-rating -----------------------------------------------------------------------------------


@router.post("/rerates")
async def rerate_records(
    body: rerating.Rerate, context: Context, key: ManageKey
) -> rerating.RerateOut:
    """Price records anew and show what changes; with `apply` it is posted, dated today."""
    selection = await files.select_records(
        context.database,
        since=body.moment("from"),
        until=body.moment("to"),
        customer=body.customer,
        vendor=body.vendor,
        called=body.called,
        destination=body.destination,
        file_id=body.file,
    )
    job = RerateJob(
        selection, body.choice(), actor=actor_of(key), reason=body.reason, apply=body.apply
    )
    return rerating.RerateOut.of(await _worker(context).rerate(job))


@router.post("/rerates/{batch}/rollback")
async def roll_back_rerate(
    batch: rerating.BatchPath, body: schemas.Reason, context: Context, key: ManageKey
) -> schemas.RollbackOut:
    """Take a re-rating back: its records cost again what they cost before."""
    report = await rollback.roll_back_rerate(
        context.database, batch, actor=actor_of(key), reason=body.reason, clock=context.clock
    )
    return schemas.RollbackOut.of(report)


def _worker(context: Context) -> Worker:
    if context.worker is None:
        raise Busy("this process loads no records; ask another one", code="no_spool")
    return context.worker
