"""Routes of usage records: search, export, and sums by the hour."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from tollkeeper.servers.api import usage_schemas as schemas
from tollkeeper.servers.api.auth import DOCUMENTED, ReadKey, scope_of
from tollkeeper.servers.api.context import Context
from tollkeeper.services import usage_export, usage_margins, usage_search
from tollkeeper.services.usage_files import WRITERS

router = APIRouter(prefix="/v1/usage", dependencies=DOCUMENTED, tags=["usage"])

_FILE = {"schema": {"type": "string", "format": "binary"}}


@router.get("")
async def search_usage(query: schemas.Search, context: Context, key: ReadKey) -> schemas.RecordList:
    """Find records in the order of their start, archived ones too.

    One number or one call is found fast over any time; without them, give the time.
    """
    page = await usage_search.search(
        context.database,
        query.query(query.after),
        now=context.clock(),
        limit=query.limit,
        scope=scope_of(key),
    )
    items = [schemas.RecordOut.of(view) for view in page.items]
    return schemas.RecordList(items=items, next=page.next)


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={200: {"content": {kind.partition(";")[0]: _FILE for _, kind in WRITERS.values()}}},
)
async def export_usage(query: schemas.Export, context: Context, key: ReadKey) -> StreamingResponse:
    """Export records as one file, all of them, streamed.

    Times are ISO 8601 with the offset of their zone; money is exact, with its currency beside it.
    An answer that ends early is incomplete: the connection is closed without its end.
    """
    export = await usage_export.prepare(
        context.database,
        query.query(),
        kind=query.format,
        now=context.clock(),
        timezone=query.timezone,
        scope=scope_of(key),
    )
    chunks = export.chunks()
    # What goes wrong at the beginning is still a problem document.
    first = await anext(chunks, b"")
    headers = {"Content-Disposition": f'attachment; filename="{export.name}"'}
    return StreamingResponse(_all(first, chunks), media_type=export.media_type, headers=headers)


async def _all(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


@router.get("/report")
async def report_usage(query: schemas.Report, context: Context, key: ReadKey) -> schemas.SumList:
    """Add up whole hours by customer, vendor, destination and more; no record is read for it."""
    found = await usage_margins.report_in(
        context.database,
        query.currency,
        now=context.clock(),
        by=query.dimensions,
        since=query.from_,
        until=query.to,
        customer=query.customer,
        vendor=query.vendor,
        limit=query.limit + 1,
        skip=query.skip,
        scope=scope_of(key),
    )
    items = [schemas.SumOut.of(group) for group in found.groups[: query.limit]]
    more = query.skip + query.limit if len(found.groups) > query.limit else None
    return schemas.SumList(items=items, next=more, unconverted=list(found.unconverted))
