"""Routes of comparing a partner's file with our records, and of revenue assurance."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import date
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from tollkeeper.errors import Busy, InvalidInput
from tollkeeper.servers.api import reconcile_schemas as schemas
from tollkeeper.servers.api.auth import DOCUMENTED, ReadKey
from tollkeeper.servers.api.context import Context
from tollkeeper.servers.api.guard import TooLarge
from tollkeeper.services import reconcile as reconciling
from tollkeeper.services import revenue_assurance
from tollkeeper.services.reconcile_report import csv_of

router = APIRouter(prefix="/v1", dependencies=DOCUMENTED, tags=["cdr"])

FILE_MAX_BYTES = 512 * 1024 * 1024
"""A file of two million records; it may be compressed."""

_SCHEMA = {"type": "string", "format": "binary"}
_FILE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The partner's file as it is, compressed or not; at most 512 MiB.",
        "content": {
            "application/octet-stream": {"schema": _SCHEMA},
            "text/csv": {"schema": {"type": "string"}},
        },
    }
}

# A comparison of millions of records takes memory by the gigabyte: one at a time in a process.
_one = asyncio.Lock()


@router.post(
    "/reconcile",
    response_model=schemas.ReportOut,
    openapi_extra=_FILE_BODY,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
async def reconcile(
    query: Annotated[schemas.ReconcileQuery, Query()],
    context: Context,
    _: ReadKey,
    request: Request,
) -> Response | schemas.ReportOut:
    """Compare a customer's, vendor's or switch's file with our records. Nothing is stored.

    With `Accept: text/csv` the answer is all findings as a file for the partner, which names no
    price but those between the two of us.
    """
    question = query.question()
    if _one.locked():
        raise Busy("another file is being compared just now; try again in a minute", code="busy")
    async with _one:
        # The compressed file is on the disk, never in memory.
        with tempfile.TemporaryFile(prefix="tollkeeper-reconcile-") as file:
            await _receive(request, file)
            report = await reconciling.reconcile(context.database, file, question)
    if "text/csv" in request.headers.get("accept", ""):
        name = f"reconcile-{report.partner}-{report.since:%Y%m%d}.csv"
        return StreamingResponse(
            csv_of(report),
            media_type="text/csv",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )
    return schemas.ReportOut.of(report, shown=query.shown)


async def _receive(request: Request, file: BinaryIO) -> None:
    """Write the body to a file, and stand at its beginning."""
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > FILE_MAX_BYTES:
                raise TooLarge(
                    f"the file is larger than {FILE_MAX_BYTES // 2**20} MiB; compress or split it"
                )
            await asyncio.to_thread(file.write, chunk)
    except ClientDisconnect as error:
        raise Busy("the sender went away in the middle of the file") from error
    if not size:
        raise InvalidInput("the body is empty: send the file as the body", field="file")
    file.seek(0)


@router.get("/cdr/assurance")
async def cdr_assurance(
    context: Context,
    _: ReadKey,
    day: Annotated[date, Query(description="The day (UTC) to look at.")],
    polls: Annotated[
        int, Query(ge=1, le=100_000, description="Intervals without a file: a source is silent.")
    ] = revenue_assurance.POLLS,
) -> schemas.AssuranceOut:
    """Look for usage without money: unrated, unmatched, sold below cost, missing."""
    found = await revenue_assurance.assure(context.database, day, now=context.clock(), polls=polls)
    return schemas.AssuranceOut.of(found)
