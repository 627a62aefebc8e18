"""Schemathesis over the whole OpenAPI document of a real server: no request makes it fail.

Both kinds of requests are made: those that the document allows and those that it forbids. Each
answer must be one that is documented, of the type and form that the document says.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.support import Node, World, until
from tollkeeper.services.verify import verify
from tollkeeper.store.db import Database

SECONDS = int(os.environ.get("TOLLKEEPER_TEST_SCHEMATHESIS_SECONDS", "45"))

CONFIG = """
# What JSON Schema cannot say (two fields exclude each other, a parent must be a reseller) is
# refused with 422, as what it can say.
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 401, 403, 404, 409, 422]
"""


@pytest.mark.slow
async def test_schemathesis_finds_no_request_that_the_server_answers_wrongly(
    database_url: str, tmp_path: Path
) -> None:
    """All checks of schemathesis over all routes, with parties, cards and calls that exist."""
    with World(database_url) as world:
        world.customer("acme", balance="100000")
        token = world.key("manage", "charge", "read")
    node = Node(database_url, tmp_path / "node.log")
    node.start()
    try:
        await until(node.answers, seconds=30)
        output = await _schemathesis(f"{node.url}/openapi.json", token, tmp_path)
        assert await node.answers()
    finally:
        node.kill()
    assert "failed" not in node.log.read_text(), node.log.read_text()[-5000:]
    print(output[-2000:])
    database = Database(database_url)
    await database.open()
    try:
        report = await verify(database)
    finally:
        await database.close()
    assert report.clean, report.findings[:10]


async def _schemathesis(url: str, token: str, folder: Path) -> str:
    """Run it; its last lines are shown when it finds something."""
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG)
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "schemathesis"),
        "--config-file", str(config),
        "run", url,
        "--header", f"Authorization: Bearer {token}",
        "--max-time", str(SECONDS),
        "--checks", "all",
        # It takes the version of a card that has none yet for the card itself.
        "--exclude-checks", "ensure_resource_availability",
        # Its answer goes on for a day.
        "--exclude-operation-id", "stream_events",
        "--continue-on-failure",
        "--generation-database", "none",
        "--no-color",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder,
    )  # fmt: skip
    raw, _ = await process.communicate()
    output = raw.decode(errors="replace")
    assert process.returncode == 0, output[-20_000:]
    return output
