"""Office codes of North America: lines ``npa,nxx,state,lata,ocn`` or ``npanxx,state,lata,ocn``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tollkeeper.errors import InvalidInput
from tollkeeper.wire.fx_csv import BadLine, decode, lines_of

BYTES_MAX = 32 * 1024 * 1024
"""There are at most 640,000 office codes; a full list has about 10 MB."""

REFUSED_MAX = 1000
_CODE = re.compile(r"[2-9][0-9]{2}[2-9][0-9]{2}")
_STATE = re.compile(r"[A-Z]{2}")
_WORD = re.compile(r"[A-Za-z0-9]{0,10}")
_NAMES = {
    "npa-nxx": "npanxx",
    "npa_nxx": "npanxx",
    "npa nxx": "npanxx",
    "state/province": "state",
    "st": "state",
    "region": "state",
    "province": "state",
}


@dataclass(frozen=True, slots=True)
class GivenPlace:
    """Where an office code (six digits) lies; ``state`` also names provinces and islands."""

    npanxx: str
    state: str
    lata: str = ""
    ocn: str = ""


@dataclass(frozen=True, slots=True)
class PlaceSheet:
    """The office codes of a file, each once, and the lines that are none."""

    places: tuple[GivenPlace, ...]
    refused: tuple[BadLine, ...]


def read_places(data: bytes) -> PlaceSheet:
    """Read office codes; the first line has the titles.

    Raises:
        InvalidInput: too large, without titles, or no such file.
    """
    if len(data) > BYTES_MAX:
        raise InvalidInput(
            f"the file is larger than {BYTES_MAX // 2**20} MiB: is it one of office codes?",
            code="file_too_large",
        )
    places: dict[str, GivenPlace] = {}
    refused: list[BadLine] = []
    titles: list[str] = []
    for number, cells, line in lines_of(decode(data)):
        if not titles:
            titles = _titles(cells)
            continue
        given = dict(zip(titles, cells, strict=False))
        code = re.sub(r"[^0-9]", "", given.get("npanxx", "")) or given.get("npa", "") + given.get(
            "nxx", ""
        )
        place = GivenPlace(
            code, given.get("state", "").upper(), given.get("lata", ""), given.get("ocn", "")
        )
        reason = _problem(place, places.get(code))
        if reason:
            refused.append(BadLine(number, reason, line[:200]))
            if len(refused) > REFUSED_MAX:
                raise InvalidInput(
                    f"more than {REFUSED_MAX} lines are no office codes, beginning with line "
                    f"{refused[0].line}: {refused[0].reason}",
                    code="not_office_codes",
                )
        else:
            places[code] = place
    if not places and not refused:
        raise InvalidInput("there is no office code in the file", code="not_office_codes")
    return PlaceSheet(tuple(places.values()), tuple(refused))


def _titles(cells: list[str]) -> list[str]:
    titles = [_NAMES.get(cell.casefold(), cell.casefold()) for cell in cells]
    if "state" not in titles or not ("npanxx" in titles or {"npa", "nxx"} <= set(titles)):
        raise InvalidInput(
            "the first line must name the columns: npa,nxx,state,lata,ocn or npanxx,state,lata,ocn",
            code="not_office_codes",
        )
    return titles


def _problem(place: GivenPlace, before: GivenPlace | None) -> str:
    if _CODE.fullmatch(place.npanxx) is None:
        return (
            f'"{place.npanxx[:12]}" is not an office code: NPA and NXX, each [2-9] and two digits'
        )
    if _STATE.fullmatch(place.state) is None:
        return f'"{place.state[:12]}" is not a state or province of two letters'
    if _WORD.fullmatch(place.lata) is None or _WORD.fullmatch(place.ocn) is None:
        return "LATA and OCN are at most ten letters and digits"
    if before is not None and before.state != place.state:
        return f"{place.npanxx} is in {before.state} by an earlier line"
    return ""
