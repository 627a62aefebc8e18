"""The benchmarks of protocols: which there are, and the server that they are measured on."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from tollkeeper.errors import SetupError

PROTOCOLS = ("radius", "diameter", "smpp", "kamailio")
START_SECONDS = 60.0

Figures = dict[str, object]


async def measure(protocol: str, url: str, seconds: float) -> Figures:
    """The figures of one protocol; ``url`` is a migrated database with the parties bench-1 to bench-1000.

    Each has money in USD and the plan "bench". Every module ``cli/bench/<protocol>.py`` has
    ``measure(url, seconds)``.
    """
    module = importlib.import_module(f"tollkeeper.cli.bench.{protocol}")
    figures: Figures = await module.measure(url, seconds)
    return figures


@contextmanager
def serving(url: str, port: int, settings: Mapping[str, str]) -> Iterator[None]:
    """``tollkeeper serve`` in a process of its own with these settings, up when the block begins.

    ``port`` is that of HTTP; ``settings`` are environment variables without TOLLKEEPER_.

    Raises:
        SetupError: it did not start.
    """
    environment = {
        **os.environ,
        "TOLLKEEPER_DATABASE_URL": url,
        "TOLLKEEPER_LOG_LEVEL": "error",
        "TOLLKEEPER_PORT": str(port),
        **{f"TOLLKEEPER_{name.upper()}": value for name, value in settings.items()},
    }
    command = [str(Path(sys.executable).with_name("tollkeeper")), "serve"]
    process = subprocess.Popen(command, env=environment)  # noqa: S603 - our own program
    try:
        _wait_until_up(port, process)
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait_until_up(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/healthz").is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise SetupError("the server for the benchmark did not start")
