"""The drivers of the common scenarios: a line for each protocol."""

from __future__ import annotations

import importlib

from tests.protocols.driver import Driver

DRIVERS = {
    "radius": ("tests.protocols.radius_driver", "RadiusDriver"),
    "diameter": ("tests.protocols.diameter_driver", "DiameterDriver"),
    "kamailio": ("tests.protocols.kamailio_driver", "KamailioDriver"),
    "freeswitch": ("tests.protocols.freeswitch_driver", "FreeswitchDriver"),
    "asterisk": ("tests.protocols.asterisk_driver", "AsteriskDriver"),
}
"""Messages have scenarios of their own: test_messages.py."""


def driver_class(name: str) -> type[Driver]:
    """The class of a protocol's driver."""
    module, attribute = DRIVERS[name]
    found: type[Driver] = getattr(importlib.import_module(module), attribute)
    return found
