"""The server of the demonstration: the real one in a process of its own, by a clock that runs faster."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from tollkeeper.cli.serve import URL_VARIABLE, bind, run_server, server_config
from tollkeeper.errors import SetupError
from tollkeeper.wiring import application, scaled_clock

START_SECONDS = 30
STOP_SECONDS = 20
LOG_TAIL = 12


@asynccontextmanager
async def running_server(url: str, *, speed: int) -> AsyncIterator[str]:
    """Run the server on a free loopback port while the block lasts; gives its address.

    Raises:
        SetupError: it did not start; the text has the end of its log.
    """
    listener = bind("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    # Its log would tear the live view apart: it goes to a file, which is shown if it is needed.
    with tempfile.NamedTemporaryFile(prefix="tollkeeper-demo-", suffix=".log") as log, listener:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tollkeeper.cli.demo.server",
            str(listener.fileno()),
            str(speed),
            stdin=asyncio.subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
            # Ctrl+C at the terminal is for the demonstration, which stops its server in good order.
            start_new_session=True,
            env={**os.environ, URL_VARIABLE: url, "TOLLKEEPER_LOG_LEVEL": "warning"},
        )
        try:
            if not await _answers(address, process):
                log.seek(0)
                tail = log.read().decode(errors="replace").splitlines()[-LOG_TAIL:]
                raise SetupError("\n  ".join(["The demonstration's server did not start:", *tail]))
            yield address
        finally:
            await _stop(process)


async def _answers(address: str, process: asyncio.subprocess.Process) -> bool:
    async with httpx.AsyncClient(base_url=address, timeout=2.0) as client:
        for _ in range(START_SECONDS * 10):
            if process.returncode is not None:
                return False
            with contextlib.suppress(httpx.TransportError):
                if (await client.get("/healthz")).status_code == 200:
                    return True
            await asyncio.sleep(0.1)
    return False


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


def main(descriptor: int, speed: int) -> None:
    """Serve on an inherited socket until standard input ends: so no server outlives its parent."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    config = server_config(application(scaled_clock(speed)))
    with socket.socket(fileno=descriptor) as listener:
        run_server(config, listener)


def _stop_at_end_of_input() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
