"""North American calls: does a call stay in a state, told by the office codes of both numbers.

A number of the North American Numbering Plan is 1, area code (NPA) and office code (NXX), both
[2-9]XX, and four digits. A ported number says nothing of where it rings: its location routing
number (LRN), where the switch knows it, does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

Places = Mapping[str, str]
"""State by NPA-NXX (six digits)."""

INTERSTATE = "interstate"
INTRASTATE = "intrastate"
INDETERMINATE = "indeterminate"
JURISDICTIONS = (INTERSTATE, INTRASTATE, INDETERMINATE)

TOLL_FREE = frozenset({"800", "833", "844", "855", "866", "877", "888"})
"""Area codes that say who pays, not where the number rings (47 CFR 52.103)."""

_NUMBER = re.compile(r"1[2-9][0-9]{2}[2-9][0-9]{6}")


def is_nanp(number: str) -> bool:
    """Tell whether these E.164 digits are a number of the North American plan."""
    return len(number) == 11 and _NUMBER.fullmatch(number) is not None


def located(called: str, lrn: str) -> str:
    """Return the number by which the called side's place is known: the LRN with 1, or the number.

    What is not an LRN (10 digits, or 11 with the leading 1) is passed over, as is one of a number
    outside North America or a toll-free one.
    """
    if not lrn or not is_nanp(called) or called[1:4] in TOLL_FREE:
        return called
    full = lrn if len(lrn) == 11 else "1" + lrn
    return full if is_nanp(full) else called


def jurisdiction(caller: str, called: str, lrn: str, places: Places) -> str:
    """Return interstate, intrastate or indeterminate; '' where the called number is not NANP.

    Indeterminate: a toll-free number is called, the caller's number is missing or foreign, or the
    state of one of the two is not known.
    """
    if not is_nanp(called):
        return ""
    if called[1:4] in TOLL_FREE or not is_nanp(caller):
        return INDETERMINATE
    here = places.get(caller[1:7])
    there = places.get(located(called, lrn)[1:7])
    if not here or not there:
        return INDETERMINATE
    return INTRASTATE if here == there else INTERSTATE
