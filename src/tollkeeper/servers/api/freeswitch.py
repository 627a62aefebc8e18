"""Routes that FreeSWITCH itself asks: mod_xml_curl for a dialplan, mod_json_cdr with its records.

Both log on with HTTP's basic scheme: any user name, the API key as the password.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from tollkeeper.errors import Busy, InvalidInput, TollkeeperError
from tollkeeper.servers.api.auth import DOCUMENTED, ChargeKey, actor_of
from tollkeeper.servers.api.context import Context, Services
from tollkeeper.servers.api.schemas import Code
from tollkeeper.servers.freeswitch import http as freeswitch_http
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.services.collect import push_file
from tollkeeper.services.keys import allows
from tollkeeper.store.peers import Peer
from tollkeeper.telemetry import PeerMeter
from tollkeeper.wire.esl.dialplan import FORM_MAX

router = APIRouter(prefix="/v1/freeswitch", dependencies=DOCUMENTED, tags=["freeswitch"])

_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The headers of the channel, as mod_xml_curl posts them.",
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {"type": "object", "additionalProperties": {"type": "string"}}
            }
        },
    }
}
_RECORD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "One record of mod_json_cdr, as JSON or in the field `cdr` of a form.",
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
_XML: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A document of FreeSWITCH's XML.",
        "content": {"text/xml": {"schema": {"type": "string"}}},
    }
}
Uuid = Annotated[
    str,
    Query(
        alias="uuid",
        max_length=200,
        description="The channel; mod_json_cdr adds it to the address.",
    ),
]


class TooLarge(TollkeeperError):
    """The body is larger than anything that FreeSWITCH posts."""

    code = "body_too_large"
    http_status = 413


class RecordTaken(BaseModel):
    """What became of a record. `settled`: a session of this call is known, and has ended at its usage."""

    model_config = ConfigDict(extra="forbid")

    settled: bool
    file: int | None = Field(default=None, description="Where its source's files are loaded from.")


@router.post("/dialplan", openapi_extra=_FORM, responses=_XML, response_class=Response)
async def ask_dialplan(context: Context, key: ChargeKey, request: Request) -> Response:
    """Say how a call goes on: with a limit to its route, or to its end with the right cause.

    Of other contexts than the peer's entry context, the answer is "not found".
    """
    board = _board(context)
    peer = freeswitch_http.peer_of(board, key.switch)
    with _faults_of(peer):
        answer = await freeswitch_http.answer_dialplan(board, peer, await _body(request, FORM_MAX))
    return Response(answer, media_type="text/xml")


@router.post("/cdr", openapi_extra=_RECORD)
async def settle_cdr(
    context: Context, key: ChargeKey, request: Request, _: Uuid = ""
) -> RecordTaken:
    """End a call's session at the usage of its record; again with the same record, nothing happens."""
    return RecordTaken(settled=await _settle(context, key.switch, await _record(request)))


@router.post("/cdr/{source}", openapi_extra=_RECORD)
async def take_cdr(
    source: Annotated[Code, Path(description="The source, of the kind http.")],
    context: Context,
    key: ChargeKey,
    request: Request,
    uuid: Uuid = "",
) -> RecordTaken:
    """End a call's session at the usage of its record, and load the record from a source's files."""
    if context.spool is None:
        raise Busy("this process takes no files; ask another one", code="no_spool")
    body = await _record(request)
    settled = await _settle(context, key.switch, body)
    file = await push_file(
        context.database,
        context.spool,
        source,
        name=f"{_plain(uuid) or 'record'}.cdr.json",
        chunks=_chunks(body),
        switch=None if allows(key, "manage") else key.switch,
        actor=actor_of(key),
    )
    return RecordTaken(settled=settled, file=file.id)


async def _settle(context: Services, switch: str, body: bytes) -> bool:
    board = _board(context)
    peer = freeswitch_http.peer_of(board, switch)
    with _faults_of(peer):
        return await freeswitch_http.settle_record(board, peer, body)


@contextmanager
def _faults_of(peer: Peer) -> Iterator[None]:
    """Count what a switch posts and should not, as faults are counted on every other port."""
    try:
        yield
    except TooLarge as error:
        PeerMeter.of(peer.code, peer.kind).fault("oversized", error.detail)
        raise
    except InvalidInput as error:
        PeerMeter.of(peer.code, peer.kind).fault("malformed", error.detail)
        raise


def _board(context: Services) -> Switchboard:
    if context.board is None:
        raise Busy("this process speaks with no switches; ask another one", code="no_network")
    return context.board


async def _record(request: Request) -> bytes:
    body = await _body(request, freeswitch_http.RECORD_MAX)
    if not body:
        raise InvalidInput("the body is empty", code="empty_file")
    return body


async def _body(request: Request, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise TooLarge(f"the body is larger than {most // 1024} KiB")
            parts.append(part)
    except ClientDisconnect as error:
        raise Busy("the sender went away in the middle of the body") from error
    return b"".join(parts)


async def _chunks(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _plain(text: str) -> str:
    return "".join(c for c in text[:80] if c.isascii() and (c.isalnum() or c in "-_"))
