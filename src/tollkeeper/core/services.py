"""What is sold: what each service is counted in, and whether it is charged at once or while it lasts."""

from __future__ import annotations

import msgspec

from tollkeeper.core.records import Unit


class Service(msgspec.Struct, frozen=True, gc=False):
    """A service: its unit, how many units are held at a time, and whether uses are one-shot events."""

    unit: Unit
    slice: int
    event: bool


SERVICES: dict[str, Service] = {
    "voice": Service(Unit.SECOND, 300, event=False),
    "data": Service(Unit.BYTE, 10_000_000, event=False),
    "sms": Service(Unit.MESSAGE, 1, event=True),
    "did": Service(Unit.ITEM, 1, event=True),
    "did_setup": Service(Unit.ITEM, 1, event=True),
    "esim": Service(Unit.ITEM, 1, event=True),
    "lookup": Service(Unit.ITEM, 1, event=True),
    "lookup_cached": Service(Unit.ITEM, 1, event=True),
    "ivr": Service(Unit.ITEM, 1, event=True),
    "fee": Service(Unit.ITEM, 1, event=True),
}
"""The services that are known by name."""

_UNKNOWN = SERVICES["voice"]

NUMBERED = frozenset({"voice", "sms", "lookup", "lookup_cached"})
"""Services that are used towards a telephone number; what others are used for is named freely."""


def service_of(name: str) -> Service:
    """Return what a service is; one that is not known by name is counted in seconds, like a call."""
    return SERVICES.get(name, _UNKNOWN)


def takes_number(name: str) -> bool:
    """Tell whether what a service is used towards must be a number that can be called."""
    return name in NUMBERED or name not in SERVICES
