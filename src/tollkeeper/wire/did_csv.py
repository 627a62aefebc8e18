"""An inventory of telephone numbers as CSV: good lines are kept, each bad one is told with its reason.

The first line has the titles: ``number`` and ``country``, and any of ``kind``, ``item``, ``destination``,
``quarantine_days``, ``grace_days``. What is left out is a geographic number that is priced by its own
digits, in quarantine for 30 days, with a grace of 7.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass

from tollkeeper.core.numbering import normalise
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.fx_csv import BadLine

__all__ = ["COLUMNS", "KINDS", "BadLine", "DidSheet", "GivenDid", "read_dids"]

LINES_MAX = 100_000
COLUMNS = ("number", "country", "kind", "item", "destination", "quarantine_days", "grace_days")
KINDS = ("geographic", "mobile", "toll-free")
QUARANTINE_DAYS, GRACE_DAYS = 30, 7
DAYS_MAX = 3660
_COUNTRY = re.compile(r"[A-Z]{2}")
_NUMBER = re.compile(r"[1-9][0-9]{2,14}")
_ITEM = re.compile(r"[0-9]{0,15}")
_DESTINATION = re.compile(r"[!-~]{0,200}")


@dataclass(frozen=True, slots=True)
class GivenDid:
    """A number in E.164 digits; ``country`` by ISO 3166; ``item``: the digits that price it, empty: its own."""

    number: str
    country: str
    kind: str
    item: str
    destination: str
    quarantine_days: int
    grace_days: int


@dataclass(frozen=True, slots=True)
class DidSheet:
    """What a file holds."""

    numbers: tuple[GivenDid, ...]
    refused: tuple[BadLine, ...]


def read_dids(data: bytes) -> DidSheet:
    """Read an inventory; comma or semicolon between the fields.

    Raises:
        InvalidInput: no text in UTF-8, no titles that are known, or too many lines.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidInput("the file is not text in UTF-8", code="unreadable_file") from None
    first = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text), delimiter=";" if ";" in first else ",")
    numbers: dict[str, GivenDid] = {}
    refused: list[BadLine] = []
    try:
        titles = [title.strip().lower() for title in next(reader, [])]
        _check_titles(titles)
        for fields in reader:
            if not any(field.strip() for field in fields):
                continue
            if len(numbers) + len(refused) >= LINES_MAX:
                raise InvalidInput(
                    f"the file has more than {LINES_MAX:,} lines; send it in parts",
                    code="file_too_large",
                )
            try:
                given = _read(titles, fields)
                if given.number in numbers:
                    raise InvalidInput(f"{given.number} stands in this file already")
                numbers[given.number] = given
            except InvalidInput as error:
                refused.append(BadLine(reader.line_num, error.detail, ",".join(fields)[:200]))
    except csv.Error as error:
        raise InvalidInput(
            f"line {reader.line_num} is not CSV: {error}", code="unreadable_file"
        ) from None
    return DidSheet(tuple(numbers.values()), tuple(refused))


def _check_titles(titles: list[str]) -> None:
    if "number" not in titles or "country" not in titles:
        raise InvalidInput(
            "the first line must have the titles of the columns, number and country among them",
            code="missing_columns",
        )
    strange = [title for title in titles if title not in COLUMNS]
    if strange or len(set(titles)) != len(titles):
        raise InvalidInput(
            f"the columns may be {', '.join(COLUMNS)}, each once", code="unknown_columns"
        )


def _read(titles: list[str], fields: list[str]) -> GivenDid:
    if len(fields) != len(titles):
        raise InvalidInput(f"the line has {len(fields)} fields and the titles are {len(titles)}")
    row = {title: field.strip() for title, field in zip(titles, fields, strict=True)}
    number = normalise(row["number"], field="number")
    if _NUMBER.fullmatch(number) is None:
        raise InvalidInput(f"number: {number} is no international number of 3 to 15 digits")
    country = row["country"].upper()
    if _COUNTRY.fullmatch(country) is None:
        raise InvalidInput("country: give two letters by ISO 3166, such as IT")
    kind = row.get("kind") or KINDS[0]
    if kind not in KINDS:
        raise InvalidInput(f"kind: give {', '.join(KINDS)}")
    item, destination = row.get("item", ""), row.get("destination", "")
    if _ITEM.fullmatch(item) is None:
        raise InvalidInput("item: give up to 15 digits, by which cards price the number")
    if _DESTINATION.fullmatch(destination) is None:
        raise InvalidInput("destination: give up to 200 characters without spaces")
    return GivenDid(
        number,
        country,
        kind,
        item,
        destination,
        _days(row, "quarantine_days", QUARANTINE_DAYS),
        _days(row, "grace_days", GRACE_DAYS),
    )


def _days(row: Mapping[str, str], name: str, default: int) -> int:
    text = row.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 4 or int(text) > DAYS_MAX:
        raise InvalidInput(f"{name}: give days from 0 to {DAYS_MAX}")
    return int(text)
