"""The one ASGI application of a process: charging routes on the lean path, all else by FastAPI."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tollkeeper.servers.api.charging import ChargingApp
from tollkeeper.servers.problem import PROBLEM_TYPE, problem

Parts = tuple[ChargingApp, ASGIApp]


class Application:
    """Opens the process's parts at start-up, and gives each request to whom it belongs."""

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[Parts]]) -> None:
        self._opening = opening
        self._charging: ChargingApp | None = None
        self._rest: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or live through the process's life."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        charging, rest = self._charging, self._rest
        if charging is None or rest is None:
            raise RuntimeError("the application has not been started")
        if scope["type"] == "http":
            route = charging.route(scope["method"], scope["path"])
            if route is not None:
                await charging.handle(*route, scope, receive, send)
                return
            allowed = charging.allowed(scope["path"])
            if allowed is not None and scope["method"] not in allowed.split(", "):
                await _refuse_method(allowed, scope, receive, send)
                return
        await rest(scope, receive, send)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the parts without a server around, for tests."""
        async with self._opening() as parts:
            self._charging, self._rest = parts
            try:
                yield
            finally:
                self._charging = self._rest = None

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            opening = self.running()
            await opening.__aenter__()
        except Exception as error:  # noqa: BLE001 - the server prints it and ends
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await opening.__aexit__(None, None, None)
        await send({"type": "lifespan.shutdown.complete"})


async def _refuse_method(allowed: str, scope: Scope, receive: Receive, send: Send) -> None:
    """The framework does not know the lean routes, so it would say that there is nothing."""
    text = "this address does not take this method"
    answer = Response(
        problem(405, "method_not_allowed", text), 405, {"Allow": allowed}, PROBLEM_TYPE
    )
    await answer(scope, receive, send)
