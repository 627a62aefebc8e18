"""What the commands that buy from suppliers share: a process that charges, and its suppliers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tollkeeper.cli.common import migrated_database
from tollkeeper.gateways.supplier import Suppliers
from tollkeeper.services.supplies import Supplies, make_supplies
from tollkeeper.settings import load_settings
from tollkeeper.telemetry import configure_logging
from tollkeeper.wiring import new_id, open_runtime

T = TypeVar("T")


def supply(work: Callable[[Supplies], Awaitable[T]]) -> T:
    """Do some work that orders, charges and asks suppliers; what it leaves open the servers go on with."""
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)

    async def in_a_process(url: str) -> T:
        async with open_runtime(url, settings, jobs=False) as runtime:
            gateway = Suppliers()
            supplies = make_supplies(
                database=runtime.database,
                charging=runtime.charging,
                gateway=gateway,
                clock=runtime.clock,
                new_id=new_id,
            )
            try:
                return await work(supplies)
            finally:
                await gateway.close()

    with migrated_database(settings) as url:
        return asyncio.run(in_a_process(url))
