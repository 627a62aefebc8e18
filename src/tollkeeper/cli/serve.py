"""The commands ``serve`` and ``migrate``."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import uvicorn
from uvicorn.supervisors import Multiprocess

from tollkeeper.cli.common import console
from tollkeeper.errors import SetupError
from tollkeeper.servers.stopping import StoppingProtocol
from tollkeeper.services.keys import list_keys
from tollkeeper.settings import Settings, load_settings
from tollkeeper.store import migrate as migrations
from tollkeeper.store.db import Database
from tollkeeper.telemetry import configure_logging
from tollkeeper.wiring import database_url

APPLICATION = "tollkeeper.wiring:application"
URL_VARIABLE = "TOLLKEEPER_DATABASE_URL"
METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
BACKLOG = 2048
DRAIN_SECONDS = 15
"""Requests under way may take so long to end once the server is told to stop."""


def serve(*, workers: int | None = None, host: str | None = None, port: int | None = None) -> None:
    """Run the server until it is told to stop (Ctrl+C or SIGTERM).

    Without TOLLKEEPER_DATABASE_URL a private PostgreSQL runs with it. What is under way when it is
    told to stop is answered first.

    Args:
        workers: Processes that serve, each with a lane of its own; one for each core is right.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
    """
    wanted = {"workers": workers, "host": host, "port": port}
    settings = load_settings(**{name: value for name, value in wanted.items() if value is not None})
    configure_logging(settings.log_level, settings.log_format)
    # A stop by a service manager is an ordinary end: everything below is closed in good order.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    with bind(settings.host, settings.port) as listener, database_url(settings) as url:
        applied = migrations.migrate(url)
        _greet(settings, url, listener, applied)
        # Worker processes are started anew and read the settings as any process does.
        os.environ[URL_VARIABLE] = url
        _serve(settings, listener)


def _serve(settings: Settings, listener: socket.socket) -> None:
    config = server_config(APPLICATION, factory=True, workers=settings.workers)
    if settings.workers == 1:
        run_server(config, listener)
        return
    # With several processes, the one that is asked for /metrics answers for all of them: they
    # keep their numbers in files.
    with tempfile.TemporaryDirectory(prefix="tollkeeper-metrics-") as folder:
        os.environ[METRICS_VARIABLE] = folder
        try:
            Multiprocess(config, sockets=[listener]).run()
        finally:
            del os.environ[METRICS_VARIABLE]


def run_server(config: uvicorn.Config, listener: socket.socket) -> None:
    """Serve in this process until it is told to stop.

    Raises:
        SetupError: the application did not start.
    """
    server = uvicorn.Server(config)
    # The server stops in good order by itself, and then passes the signal on.
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    if not server.started:
        raise SetupError("The server did not start; the log above says why.")


def server_config(
    app: Callable[..., Any] | str, *, factory: bool = False, workers: int = 1
) -> uvicorn.Config:
    """How HTTP is served, here and in the demonstration."""
    return uvicorn.Config(
        cast("Any", app),  # uvicorn spells out what ASGI's own types leave open
        factory=factory,
        workers=workers,
        loop="uvloop",
        http=StoppingProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; 0 takes a free port.

    Raises:
        SetupError: the address is not ours or the port is taken.
    """
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.set_inheritable(True)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise SetupError(
            f"Cannot listen on {host} port {port} ({error.strerror or error}); "
            "choose another with --host and --port."
        ) from error
    return listener


def _greet(settings: Settings, url: str, listener: socket.socket, applied: list[str]) -> None:
    """Say where the server is, and on an empty database what to do first."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    out = console(stderr=True)
    kind = (
        "the database given" if settings.database_url else f"a private one in {settings.data_dir}"
    )
    out.print(f"database: {kind}" + (f", {len(applied)} migrations applied" if applied else ""))
    processes = "" if settings.workers == 1 else f" by {settings.workers} processes"
    out.print(f"serving http://{shown}:{port}{processes}; stop with Ctrl+C", soft_wrap=True)
    if not asyncio.run(_has_keys(url)):
        out.print(
            "There is no API key yet. In another terminal:\n"
            "  tollkeeper key create admin --scope manage\n"
            "  tollkeeper key create switch-1 --scope charge --switch switch-1",
            soft_wrap=True,
        )


async def _has_keys(url: str) -> bool:
    database = Database(url, size=1)
    await database.open()
    try:
        return bool(await list_keys(database, limit=1))
    finally:
        await database.close()


def migrate() -> None:
    """Bring the database to the schema of this release. Safe to repeat and to race."""
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)
    with database_url(settings) as url:
        applied = migrations.migrate(url)
    for title in applied:
        console().print(f"applied {title}")
    console().print("nothing to do" if not applied else f"{len(applied)} migrations applied")
