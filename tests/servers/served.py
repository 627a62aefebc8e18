"""The whole HTTP application behind a real socket, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from tests.support import runtime
from tollkeeper.cli.serve import bind, server_config
from tollkeeper.servers.api.app import create_app
from tollkeeper.servers.api.charging import ChargingApp
from tollkeeper.servers.api.context import Services
from tollkeeper.servers.application import Application


@asynccontextmanager
async def served(url: str, **options: Any) -> AsyncIterator[tuple[str, Any, Any]]:
    """Its address, the parts behind it, and the management application; ``options`` as for ``runtime``."""
    async with runtime(url, **options) as parts:
        management = create_app(
            Services(parts.database, parts.directory, parts.charging, parts.clock)
        )

        @asynccontextmanager
        async def opening() -> AsyncIterator[Any]:
            yield ChargingApp(parts.charging, parts.directory), management

        config = server_config(Application(opening))
        config.timeout_graceful_shutdown = 1
        server = uvicorn.Server(config)
        listener = bind("127.0.0.1", 0)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not server.started:
                assert not task.done(), "the server did not start"
                await asyncio.sleep(0.005)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", parts, management
        finally:
            server.should_exit = True
            await task
            listener.close()
