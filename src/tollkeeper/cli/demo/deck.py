"""The demonstration's rate deck: the world's prefixes with their true names, at invented prices.

Countries, areas and operators come from the ``phonenumbers`` package (libphonenumber, Apache-2.0).
Prices are made up from the names alone, so that the same release of the package gives the same
deck, line by line: mobiles dearer than landlines, satellites and islands very dear, premium
numbers not sold at all.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from functools import cache
from typing import Literal

from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata, PhoneNumber
from phonenumbers.carrierdata import CARRIER_DATA
from phonenumbers.geodata import GEOCODE_DATA
from phonenumbers.geodata.locale import LOCALE_DATA
from phonenumbers.phonenumberutil import region_code_for_number

Kind = Literal["fixed", "mobile", "special", "premium"]

MOBILE_DIGITS_MAX = 7
AREA_DIGITS_MAX = 5
"""Longer prefixes say more about places than about prices; a carrier's deck stops about here."""

UNIT = Decimal("0.0001")

# Landline and mobile, in 1/10000 USD a minute, where everybody knows about what it costs.
_KNOWN: dict[str, tuple[int, int]] = {
    "US": (60, 60), "CA": (55, 55), "GB": (58, 165), "DE": (72, 190), "FR": (64, 175),
    "ES": (68, 160), "IT": (79, 185), "NL": (81, 210), "PL": (95, 195), "RU": (410, 890),
    "CN": (98, 105), "IN": (115, 118), "BD": (260, 275), "PK": (520, 560), "PH": (1150, 1420),
    "NG": (780, 1250), "MX": (62, 118), "BR": (88, 310), "CO": (140, 190), "AR": (105, 820),
    "AU": (102, 280), "JP": (190, 620), "ZA": (430, 610), "EG": (890, 1010), "TR": (240, 1130),
    "AE": (1480, 1540), "SA": (720, 1190), "VN": (510, 540), "ID": (340, 620), "TH": (150, 170),
}  # fmt: skip

_PER_SECOND = frozenset(("GB", "DE", "FR", "ES", "IT", "NL", "PL", "AU", "JP", "SE", "CH", "AT"))
_WHOLE_MINUTES = frozenset(("MX", "GM", "FJ", "KI", "NR", "PG", "SB", "TO", "TV", "VU", "WS"))

# Codes that belong to no country: name, price in 1/10000 USD, sold or not.
_SPECIAL: dict[str, tuple[str, int, bool]] = {
    "800": ("International Freephone", 900, False),
    "808": ("International Shared Cost", 1500, False),
    "870": ("Inmarsat", 52_000, True),
    "878": ("Universal Personal Telecommunications", 30_000, False),
    "8816": ("Iridium", 68_000, True),
    "8817": ("Iridium", 68_000, True),
    "8818": ("Globalstar", 61_000, True),
    "8819": ("Globalstar", 61_000, True),
    "882": ("International Networks", 57_000, True),
    "8835": ("International Networks", 41_000, True),
    "888": ("Disaster Relief", 30_000, False),
    "979": ("International Premium Rate", 90_000, False),
}  # fmt: skip

# Numbers whose owners are paid by the caller: the usual way to lose money to fraud.
_PREMIUM: dict[str, str] = {
    "1900": "US", "1976": "US", "4487": "GB", "4490": "GB", "4491": "GB", "4498": "GB",
    "49900": "DE", "3389": "FR", "34803": "ES", "34806": "ES", "39892": "IT", "39899": "IT",
    "31900": "NL", "31906": "NL", "48700": "PL", "611900": "AU",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class DeckRow:
    """A line of the deck; ``rate`` is USD per minute, ``increments`` first/next interval in seconds."""

    prefix: str
    region: str
    country: str
    destination: str
    kind: Kind
    rate: Decimal
    increments: str
    blocked: bool = False


def make_deck() -> list[DeckRow]:
    """Return the whole deck in the order of its prefixes, each prefix once."""
    rows: dict[str, DeckRow] = {}
    for prefix, region in _countries():
        rows[prefix] = _row(prefix, region, "", "fixed")
    for prefix, name in _areas():
        rows[prefix] = _row(prefix, _region(prefix), name, "fixed")
    for prefix, names in CARRIER_DATA.items():
        if len(prefix) <= MOBILE_DIGITS_MAX and (operator := _clean(names.get("en", ""))):
            rows[prefix] = _row(prefix, _region(prefix), operator, "mobile")
    for prefix, region in _PREMIUM.items():
        rows[prefix] = _row(prefix, region, "", "premium")
    for prefix, (name, units, sold) in _SPECIAL.items():
        rows[prefix] = DeckRow(
            prefix, "001", name, name, "special", units * UNIT, "60/60", blocked=not sold
        )
    return [rows[prefix] for prefix in sorted(rows)]


def _countries() -> Iterable[tuple[str, str]]:
    """Prefixes of whole countries with their regions, those inside of a shared code too."""
    for code, regions in COUNTRY_CODE_TO_REGION_CODE.items():
        if regions[0] == "001":
            continue
        yield str(code), regions[0]
        if len(regions) > 1:
            # North America shares its code by three digits, all others by the first one.
            inner = range(200, 1000) if code == 1 else range(10)
            for rest in inner:
                region = _sharing(str(code), str(rest))
                if region != regions[0]:
                    yield f"{code}{rest}", region


def _areas() -> Iterable[tuple[str, str]]:
    """Prefixes of areas with their English names."""
    for prefix, names in GEOCODE_DATA.items():
        if len(prefix) <= AREA_DIGITS_MAX and (area := _clean(names.get("en", ""))):
            yield prefix, area


def _clean(name: str) -> str:
    return " ".join(name.replace(";", ",").split())[:60]


# --- countries -----------------------------------------------------------------------------------


@cache
def country_name(region: str) -> str:
    """The English name of a region such as GB."""
    names = LOCALE_DATA.get(region, {})
    name = str(names.get("en", region))
    # A name that begins with * stands under another language, such as "*aa".
    return str(names.get(name[1:], region)) if name.startswith("*") else name


def _region(prefix: str) -> str:
    """The region of a prefix: where countries share a code, by the digits behind it."""
    for length in (1, 2, 3):
        if (regions := COUNTRY_CODE_TO_REGION_CODE.get(int(prefix[:length]))) is not None:
            rest = prefix[length:]
            return _sharing(prefix[:length], rest[:3]) if len(regions) > 1 else regions[0]
    return "001"


@cache
def _sharing(code: str, rest: str) -> str:
    """Which of the countries that share a code a prefix belongs to; the first of them if unsure."""
    regions = COUNTRY_CODE_TO_REGION_CODE[int(code)]
    for region in regions[1:]:
        metadata = PhoneMetadata.metadata_for_region(region)
        digits = metadata.leading_digits if metadata is not None else None
        if digits and rest and re.match(digits, rest):
            return region
    if code == "1" and len(rest) == 3:
        # Canada is known by its area codes only; any number in one of them will tell.
        found = region_code_for_number(
            PhoneNumber(country_code=1, national_number=int(rest + "2345678"))
        )
        return found or regions[0]
    return regions[0]


# --- prices --------------------------------------------------------------------------------------


def _row(prefix: str, region: str, name: str, kind: Kind) -> DeckRow:
    country = country_name(region)
    if kind == "mobile":
        destination = f"{country} - Mobile - {name}"
    elif kind == "premium":
        destination = f"{country} - Premium"
    else:
        destination = f"{country} - {name}" if name and name != country else country
    return DeckRow(
        prefix=prefix,
        region=region,
        country=country,
        destination=destination,
        kind=kind,
        rate=_units(region, destination, kind) * UNIT,
        increments=_increments(region),
        blocked=kind == "premium",
    )


def _units(region: str, destination: str, kind: Kind) -> int:
    """A price in 1/10000 USD a minute: the country sets the level, the name moves it a little."""
    fixed, mobile = _KNOWN.get(region, (0, 0))
    if not fixed:
        level = _number(region)
        # Most countries cost a few cents; every twelfth is an island or a monopoly.
        fixed = 2_500 + level % 4_000 if level % 12 == 0 else 150 + level % 1_100
        mobile = fixed + fixed * (30 + level // 7 % 140) // 100
    if kind == "premium":
        return 20_000
    level = fixed if kind == "fixed" else mobile
    return max(20, level + level * (_number(destination) % 25 - 12) // 100)


def _increments(region: str) -> str:
    if region in {"US", "CA"}:
        return "6/6"
    if region in _PER_SECOND:
        return "1/1"
    if region in _WHOLE_MINUTES:
        return "60/60"
    return ("1/1", "30/6", "60/1", "60/60")[_number(region) % 4]


@cache
def _number(text: str) -> int:
    """A number that is always the same for a text, unlike Python's own hash."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


# --- sheets --------------------------------------------------------------------------------------

HEADER = ("Destination", "Dial Code", "Rate USD/min", "Billing Increment", "Blocked")
# A supplier's sheet is never quite clean. Each of these lines is refused, and says why.
BLEMISHES = (
    ("Germany - Mobile - Someone", "49ABC", "0.0190", "1/1", "no"),
    ("France - Overseas", "33999", "on request", "1/1", "no"),
    ("Nigeria - Mobile", "234", "0.9999", "60/1", "no"),
    ("Atlantis", "", "0.0500", "60/60", "no"),
)


def sheet(rows: Iterable[DeckRow], *, blemishes: bool = False) -> bytes:
    """The deck as a carrier mails it: CSV with a header, one line a code."""
    lines = [
        (row.destination, row.prefix, str(row.rate), row.increments, "yes" if row.blocked else "no")
        for row in rows
    ]
    return _csv(HEADER, lines + list(BLEMISHES if blemishes else ()))


def change_sheet(rows: Iterable[DeckRow], today: date) -> bytes:
    """A change of some prices: decreases at once, increases with the usual seven days' notice."""
    soon = today + timedelta(days=7)
    lines = []
    for row in rows:
        pick = _number("change " + row.prefix) % 40
        if row.blocked or pick > 2:
            continue
        rise = pick == 0
        rate = row.rate + row.rate * (8 if rise else -5) / 100
        lines.append(
            (
                row.destination,
                row.prefix,
                str(rate.quantize(UNIT)),
                row.increments,
                "no",
                str(soon) if rise else "",
            )
        )
    lines.append(("Germany - Mobile - New operator", "4915099", "0.0200", "1/1", "no", ""))
    return _csv((*HEADER, "Effective Date"), lines)


def _csv(header: Iterable[str], lines: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows(lines)
    return text.getvalue().encode()
