"""How units and prices of a service are written for people: 60 s, 3 segments, 2.5 MB, 0.06/min."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from tollkeeper.core.money import EXACT

DECIMALS_MAX = 6
"""A volume that needs more decimals than that is written in bytes."""

_NAMES = {
    "second": ("s", "s"),
    "byte": ("byte", "bytes"),
    "message": ("segment", "segments"),
    "item": ("item", "items"),
}
_OF_SERVICES = {
    "lookup": ("lookup", "lookups"),
    "lookup_cached": ("lookup", "lookups"),
    "did": ("number", "numbers"),
    "did_setup": ("number", "numbers"),
    "esim": ("eSIM", "eSIMs"),
    "ivr": ("use", "uses"),
}
_VOLUMES = {
    10**3: "kB", 10**6: "MB", 10**9: "GB", 2**10: "KiB", 2**20: "MiB", 2**30: "GiB",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Words:
    """The words of one tariff.

    ``one`` and ``many`` name units, ``size`` units make one ``big`` (a megabyte; '' for none). In a
    sum a price is followed by ``rate`` (``/min``, nothing for pieces), elsewhere by ``each``.
    """

    one: str
    many: str
    rate: str
    each: str
    size: int = 1
    big: str = ""

    def count(self, units: int) -> str:
        """So many units."""
        if self.big:
            number = EXACT.divide(Decimal(units), Decimal(self.size)).normalize()
            exponent = number.as_tuple().exponent
            if isinstance(exponent, int) and exponent >= -DECIMALS_MAX:
                return f"{number:f} {self.big}"
        return f"{units} {self.one if abs(units) == 1 else self.many}"


def words_of(unit: str, per: int, service: str = "") -> Words:
    """The words for a service's unit (second, byte, message, item) and prices for ``per`` of them."""
    one, many = _OF_SERVICES.get(service) or _NAMES.get(unit, ("unit", "units"))
    if unit == "second" and per == 60:
        return Words(one, many, "/min", "/min")
    if unit == "byte" and per in _VOLUMES:
        big = _VOLUMES[per]
        return Words(one, many, f"/{big}", f"/{big}", per, big)
    if per == 1:
        each = "/s" if unit == "second" else f" per {one}"
        return Words(one, many, each if unit == "second" else "", each)
    rate = f" per {per} {many}"
    return Words(one, many, rate, rate)
