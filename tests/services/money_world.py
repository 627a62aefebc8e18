"""What the tests of money share: calls on a runtime, time that can be moved, and the proof of the books."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support import UK_FIXED, World, until
from tollkeeper.services.verify import verify

CENT_A_SECOND = UK_FIXED
"""Calling this number costs exactly 0.01 a second."""


class Clock:
    """The time now, moved by hand."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        """The time, in UTC."""
        return datetime.now(UTC) + self.ahead

    def forward(self, **by: int) -> None:
        """Let time pass."""
        self.ahead += timedelta(**by)


async def call(parts: Any, name: str, seconds: int = 60, party: str = "acme") -> Any:
    """The answer to an authorisation of a call at a cent a second."""
    reply, _ = await parts.charging.authorise(
        switch="sw1",
        session_id=name,
        party=party,
        called=CENT_A_SECOND,
        requested_seconds=seconds,
    )
    return reply


async def answered(parts: Any, name: str) -> None:
    """The call is answered now."""
    await parts.charging.start(switch="sw1", session_id=name)


async def goes_on(parts: Any, name: str, used_seconds: int) -> Any:
    """The answer to an interim report that asks for more."""
    reply, _ = await parts.charging.update(
        switch="sw1", session_id=name, used_ms=used_seconds * 1000
    )
    return reply


async def stop(parts: Any, name: str, used_seconds: int) -> Any:
    """The answer to the end of a call."""
    reply, _ = await parts.charging.stop(switch="sw1", session_id=name, used_ms=used_seconds * 1000)
    return reply


async def prove(parts: Any) -> None:
    """The books hold."""
    report = await verify(parts.database)
    assert report.clean, report.findings


async def known(parts: Any, *codes: str) -> None:
    """The runtime has heard of these parties."""
    await until(lambda: all(_has(parts, code) for code in codes), what=f"{codes} known")


def _has(parts: Any, code: str) -> bool:
    return code in parts.directory._by_code


async def hears(parts: Any, code: str, *, suspended: bool) -> None:
    """The runtime has heard that a party is suspended, or is no more."""

    def heard() -> bool:
        return bool(parts.directory.party(code).limits.suspended) is suspended

    await until(heard, what=f"{code} suspended={suspended}")


def audited(world: World, action: str) -> list[dict[str, Any]]:
    """What the audit trail says of an action, in order."""
    return world.sql(
        "SELECT actor, subject, detail FROM audit WHERE action = %s ORDER BY id", action
    )
