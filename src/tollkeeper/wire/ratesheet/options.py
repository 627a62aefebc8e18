"""What a reader may be told about a supplier's sheet, and the bounds of what it will read."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from decimal import Decimal
from typing import Literal

from tollkeeper.core.money import SCALE, Rounding
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.ratesheet.problem import CellProblem
from tollkeeper.wire.ratesheet.values import read_increments

BYTES_MAX = 64 * 1024 * 1024
"""A deck of a million rows is about 80 bytes a row at most; more is not a rate sheet."""

ROWS_MAX = 1_000_000
"""Codes of one sheet after ranges are written out: five times the largest deck in use."""

REFUSED_MAX = 100_000
"""With more refused rows than this, it is the options that are wrong, not the rows."""

HEADER_ROWS = 50
"""The header row is looked for in so many first lines."""

PRICE_MAX = Decimal(1000)
"""Per minute or per call. Satellite calls cost about 10 dollars; weak currencies raise it."""

FIELDS = (
    "prefix",
    "range_end",
    "country_prefix",
    "destination",
    "country",
    "operator",
    "rate",
    "first_rate",
    "next_rate",
    "connect_fee",
    "attempt_fee",
    "minimum",
    "cap",
    "surcharge",
    "free_below",
    "included_seconds",
    "increments",
    "first_interval",
    "next_interval",
    "seconds_allowed",
    "blocked",
    "enabled",
    "status",
    "effective",
    "end",
)
"""The names that ``SheetOptions.columns`` maps: everything a sheet can say about a code."""

_ENCODINGS = (
    "ascii",
    "big5",
    "cp",
    "euc_",
    "gb",
    "iso8859",
    "koi8",
    "latin",
    "mac",
    "shift",
    "utf-16",
    "utf-8",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetOptions:
    """How to read one supplier's sheet. Every default means: find out from the sheet itself.

    Attributes:
        delimiter: One character, or "auto" (comma, semicolon, tab or pipe).
        decimal: "." or ",", or "auto": told from the prices; what stays ambiguous is refused.
        encoding: A text encoding, or "auto": UTF-8 (UTF-16 with a mark), else Windows-1252.
        header: True: there is one; False: the first line is data already (then ``columns`` gives
            positions); "auto": looked for in the first 50 lines.
        columns: Field (one of :data:`FIELDS`) to a column title, a 1-based position, or None for
            "do not read this field". Overrides what the titles say.
        per: Unit of the prices: "minute", "second", or "auto" (minute, unless the title says
            second). Prices in rows are always per minute.
        increments: First and next interval in seconds for rows that give none, such as "60/1".
        decimals: Decimals to which the card rounds a leg.
        rounding: Mode of that one rounding.
        units: How many units the card's prices are for: 60 seconds, or 1 message. With any other
            number than 60 prices are taken as they stand, whatever their title says of time.
        prefix_add: Digits to put before every code. None: "1" where the column is called NPANXX
            and the code has no 1, otherwise nothing.
        country_codes: Whether codes stand without ("split") or with ("full") the digits of the
            country code column beside them; "auto" looks at the rows.
        seconds_allowed: Increments for yes and for no in a column ``seconds_allowed``: per second
            or only whole minutes. None: do not read that column.
        date_format: "iso", "day_first", "month_first", or "auto", which refuses rows whose date
            can be read both ways.
        timezone: Zone of dates that name none.
        end_inclusive: An end that is a bare date is the last day in force.
        blocked_words: Words in a price or status cell that mean "not sold" (any case).
        status_active: The value of a numeric status column that means "sold"; the others block.
        currency: Currency of the card, such as "USD": prices with another sign are refused.
        price_max: Prices and fees above it are refused as absurd.
        price_decimals: Prices with more decimals are refused, never rounded.
        on_repeat: When a prefix comes again with other content (and the same start): "refuse" the
            later row, or keep the "first" or the "last".
        bytes_max: Bound on the file, inflated if it is a gzip file.
        rows_max: Bound on lines, and on codes.
        refused_max: Bound on refused rows.
    """

    delimiter: str = "auto"
    decimal: Literal["auto", ".", ","] = "auto"
    encoding: str = "auto"
    header: bool | Literal["auto"] = "auto"
    columns: Mapping[str, str | int | None] = field(default_factory=dict)
    per: Literal["auto", "minute", "second"] = "auto"
    increments: str = "60/60"
    decimals: int = 6
    rounding: Rounding = Rounding.HALF_UP
    units: int = 60
    prefix_add: str | None = None
    country_codes: Literal["auto", "split", "full"] = "auto"
    seconds_allowed: tuple[str, str] | None = ("1/1", "60/60")
    date_format: Literal["auto", "iso", "day_first", "month_first"] = "auto"
    timezone: tzinfo = UTC
    end_inclusive: bool = True
    blocked_words: frozenset[str] = frozenset(
        {"blocked", "block", "barred", "not allowed", "not available"}
    )
    status_active: str | None = None
    currency: str | None = None
    price_max: Decimal = PRICE_MAX
    price_decimals: int = SCALE
    on_repeat: Literal["refuse", "first", "last"] = "refuse"
    bytes_max: int = BYTES_MAX
    rows_max: int = ROWS_MAX
    refused_max: int = REFUSED_MAX

    def __post_init__(self) -> None:
        """Refuse options that no sheet could be read with.

        Raises:
            InvalidInput: naming the option in ``field``.
        """
        _one_of("decimal", self.decimal, ("auto", ".", ","))
        _one_of("header", self.header, (True, False, "auto"))
        _one_of("per", self.per, ("auto", "minute", "second"))
        _one_of("country_codes", self.country_codes, ("auto", "split", "full"))
        _one_of("date_format", self.date_format, ("auto", "iso", "day_first", "month_first"))
        _one_of("on_repeat", self.on_repeat, ("refuse", "first", "last"))
        if self.delimiter != "auto" and (
            len(self.delimiter) != 1 or self.delimiter in '"\r\n' or self.delimiter.isalnum()
        ):
            raise InvalidInput('delimiter: one character such as ";", or "auto"', field="delimiter")
        if not 0 <= self.decimals <= SCALE:
            raise InvalidInput(
                f"decimals: the card rounds to 0 to {SCALE} decimals", field="decimals"
            )
        if not 0 <= self.price_decimals <= 12:
            raise InvalidInput(
                "price_decimals: prices keep 0 to 12 decimals", field="price_decimals"
            )
        if not self.price_max.is_finite() or self.price_max <= 0:
            raise InvalidInput("price_max: a price above 0", field="price_max")
        if self.prefix_add is not None and not (self.prefix_add == "" or _digits(self.prefix_add)):
            raise InvalidInput('prefix_add: digits such as "1"', field="prefix_add")
        if min(self.bytes_max, self.rows_max) < 1 or self.refused_max < 0:
            raise InvalidInput("bytes_max, rows_max and refused_max are above 0", field="bytes_max")
        for name, text in (
            ("increments", self.increments),
            *(("seconds_allowed", t) for t in self.seconds_allowed or ()),
        ):
            _check_increments(name, text)
        self._check_encoding()
        self._check_columns()

    def _check_encoding(self) -> None:
        if self.encoding == "auto":
            return
        try:
            known = codecs.lookup(self.encoding).name
        except (LookupError, ValueError):
            known = ""
        if not known.startswith(_ENCODINGS):
            raise InvalidInput(
                f'encoding: "{self.encoding[:40]}" is not a text encoding such as "utf-8"',
                field="encoding",
            )

    def _check_columns(self) -> None:
        for name, column in self.columns.items():
            if name not in FIELDS:
                raise InvalidInput(
                    f'columns: "{name[:40]}" is not a field of a rate sheet; the fields are {", ".join(FIELDS)}',
                    field="columns",
                )
            if isinstance(column, int) and not 1 <= column <= 1000:
                raise InvalidInput(
                    f"columns: the position of {name} counts from 1", field="columns"
                )


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise InvalidInput(f"{name}: one of {', '.join(str(a) for a in allowed)}", field=name)


def _check_increments(name: str, text: str) -> None:
    try:
        read_increments(text)
    except CellProblem as problem:
        raise InvalidInput(f"{name}: {problem.reason}", field=name) from None
