"""Static routes: where calls go by the prefix of their number, until there is routing by price and quality."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from tollkeeper.errors import InvalidInput

ROUTES_MAX = 5000
CONTACTS_MAX = 16
"""More destinations than this are not tried by anybody, and would not fit into a datagram."""
NUMBER = "{number}"

_PREFIX = re.compile(r"[0-9]{0,20}")
_Q = re.compile(r"0(?:\.[0-9]{1,3})?|1(?:\.0{1,3})?")
_DIGITS = re.compile(r"[0-9*#]{1,40}")
# A URI, or a bare address or gateway name as RADIUS and dialplans have it.
_TARGET = re.compile(r"[!-~]{1,300}")
_FORBIDDEN = re.compile(r"[<>\"\\,]")


@dataclass(frozen=True, slots=True)
class Route:
    """One way of a call: ``to`` with the number in it, and how much it is preferred (0 to 1)."""

    to: str
    q: Decimal
    prefix: str = ""


def read_routes(rows: object) -> tuple[Route, ...]:
    """Read the rows of the option ``routes``; ``to`` still holds its ``{number}``.

    Raises:
        InvalidInput: a row that is none; the text names it.
    """
    if not isinstance(rows, Sequence) or isinstance(rows, str) or len(rows) > ROUTES_MAX:
        raise InvalidInput(f"Routes must be a list of at most {ROUTES_MAX} rows.", field="routes")
    return tuple(_read(row, place) for place, row in enumerate(rows, 1))


def _read(row: object, place: int) -> Route:
    if not isinstance(row, Mapping) or not set(row) <= {"prefix", "to", "q"}:
        raise _problem(place, 'must be a record with "to" and, if wanted, "prefix" and "q"')
    prefix, to, q = row.get("prefix", ""), row.get("to", ""), row.get("q", "1.0")
    if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
        raise _problem(place, "has a prefix that is not up to 20 digits")
    if not isinstance(to, str) or not _TARGET.fullmatch(to) or _FORBIDDEN.search(to):
        raise _problem(
            place,
            'has a "to" that is no destination such as sip:{number}@203.0.113.5 (no spaces, quotes, '
            "commas or angle brackets)",
        )
    if to.replace(NUMBER, "").count("{"):
        raise _problem(place, f'has a "to" with a brace that is not {NUMBER}')
    if not isinstance(q, str) or not _Q.fullmatch(q):
        raise _problem(place, 'has a "q" that is not a text from "0" to "1" with up to 3 decimals')
    return Route(to, Decimal(q), prefix)


def _problem(place: int, what: str) -> InvalidInput:
    return InvalidInput(f"Row {place} of the routes {what}.", field=f"routes.{place}")


def routes_for(number: str, rows: Sequence[Mapping[str, object]]) -> list[Route]:
    """The ways of a call to a number (digits): those of the longest prefix that fits, by preference.

    Among equals the order of the rows decides. None where no prefix fits, where the number is none
    that could stand in a URI, or where a row that fits is no route.
    """
    if not _DIGITS.fullmatch(number):
        return []
    longest, best = -1, list[Mapping[str, object]]()
    for row in rows:
        prefix = row.get("prefix", "")
        if isinstance(prefix, str) and number.startswith(prefix) and len(prefix) >= longest:
            if len(prefix) > longest:
                longest, best = len(prefix), []
            best.append(row)
    try:
        routes = read_routes(best)
    except InvalidInput:
        # They were checked when they were written: only a row put there by hand comes by here.
        return []
    ordered = sorted(routes, key=lambda route: -route.q)[:CONTACTS_MAX]
    return [replace(route, to=route.to.replace(NUMBER, number)) for route in ordered]
