"""The event stream: one long answer, as the text/event-stream of the HTML standard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated

import structlog
from fastapi import APIRouter, Header, Query, Request, Response
from starlette.types import Receive, Scope, Send

from tollkeeper.errors import Busy, TollkeeperError
from tollkeeper.servers.api.auth import DOCUMENTED, SCOPE_KEY, authenticate
from tollkeeper.servers.api.context import Context, Services
from tollkeeper.servers.api.schemas import ID_MAX
from tollkeeper.servers.stopping import ON_STOP
from tollkeeper.services.feed import KINDS
from tollkeeper.services.keys import ApiKey
from tollkeeper.services.streams import Dropped, Stream, Streams
from tollkeeper.services.tasks import end

router = APIRouter(prefix="/v1/events", dependencies=DOCUMENTED, tags=["events"])

HEARTBEAT_SECONDS = 15.0
"""Silence longer than this means that the connection is dead."""
RETRY_MS = 2000
SEND_SECONDS = 15.0
"""A listener that does not read for so long is dropped."""
SECONDS_MAX = 86_400
_KIND = "|".join(KINDS).replace(".", r"\.")
_log = structlog.get_logger()


def streams_of(request: Request, context: Services) -> Streams:
    """The streams of this process; made when the first one is asked for."""
    state = request.app.state
    if getattr(state, "streams", None) is None:
        state.streams = Streams(context.database, context.directory)
    streams: Streams = state.streams
    return streams


class EventStream(Response):
    """The answer that goes on until somebody ends it."""

    media_type = "text/event-stream"

    def __init__(
        self, streams: Streams, stream: Stream, *, seconds: int, still_valid: Callable[[], bool]
    ) -> None:
        super().__init__()
        self._streams = streams
        self._stream = stream
        self._seconds = seconds
        self._still_valid = still_valid

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell what happens until somebody ends it.

        The listener goes, does not keep up, or may not listen any more; or the server stops.
        """
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            # nginx would collect what is to be told at once.
            (b"x-accel-buffering", b"no"),
        ]
        stops = asyncio.Event()
        scope.setdefault("state", {})[ON_STOP] = stops.set
        gone = asyncio.create_task(_until_gone(receive, stops))
        gone.add_done_callback(lambda _: self._stream.woken.set())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._tell(send, gone)
            async with asyncio.timeout(SEND_SECONDS):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (Dropped, TimeoutError):
            self._stream.dropped = True
            _log.warning("stream.dropped", key=self._stream.key_id)
        except Busy as error:
            _log.warning("stream.ended", key=self._stream.key_id, error=str(error))
        finally:
            await end([gone])
            await self._streams.close(self._stream)

    async def _tell(self, send: Send, gone: asyncio.Task[None]) -> None:
        async def say(text: bytes) -> None:
            async with asyncio.timeout(SEND_SECONDS):
                await send({"type": "http.response.body", "body": text, "more_body": True})

        await say(b"retry: %d\n\n" % RETRY_MS)
        while not gone.done() and (frames := await self._streams.backlog(self._stream)):
            await say(b"".join(frames))
        loop = asyncio.get_running_loop()
        until = loop.time() + self._seconds
        while not gone.done() and (left := until - loop.time()) > 0 and self._still_valid():
            frames = await self._stream.take(min(left, HEARTBEAT_SECONDS))
            if not gone.done():
                await say(b"".join(frames) or b": still here\n\n")


async def _until_gone(receive: Receive, stops: asyncio.Event) -> None:
    """Return when the listener has gone, or the server stops."""
    waits = [asyncio.create_task(_disconnected(receive)), asyncio.create_task(stops.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(waits)


async def _disconnected(receive: Receive) -> bool:
    while (await receive())["type"] != "http.disconnect":
        pass
    return True


@router.get(
    "",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def stream_events(
    request: Request,
    context: Context,
    events: Annotated[
        str,
        Query(
            pattern=rf"^(({_KIND})(,({_KIND}))*)?$",
            description="Only these kinds, with commas between.",
        ),
    ] = "",
    after: Annotated[
        int | None,
        Query(ge=0, le=ID_MAX, description="Begin after the event of this number; 0: with all."),
    ] = None,
    seconds: Annotated[
        int,
        Query(ge=0, le=SECONDS_MAX, description="End after so long; 0: with what is there."),
    ] = SECONDS_MAX,
    last_event_id: Annotated[
        str | None,
        Header(pattern=r"^[0-9]{1,18}$", description="As `after`, and wins over it."),
    ] = None,
) -> EventStream:
    """Tell what happens, as it happens, until the connection is closed."""
    key: ApiKey = request.scope[SCOPE_KEY]
    streams = streams_of(request, context)
    begin = after if last_event_id is None else int(last_event_id)
    stream = await streams.open(key, kinds=events.split(",") if events else (), after=begin)

    def still_valid() -> bool:
        try:
            authenticate(context.directory, request.headers.get("authorization"))
        except TollkeeperError:
            return False
        return True

    return EventStream(streams, stream, seconds=seconds, still_valid=still_valid)
