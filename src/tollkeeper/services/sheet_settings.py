"""How to read a supplier's sheet, as people write it: texts from a command line or a query."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import Literal
from zoneinfo import ZoneInfo

from tollkeeper.core.money import parse_amount
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.ratesheet import SheetOptions

_DEFAULTS = SheetOptions()
_DELIMITERS = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "\\t": "\t"}
_HEADER: dict[str, bool | Literal["auto"]] = {"yes": True, "no": False, "auto": "auto"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetSettings:
    """Options for sheets that cannot be understood without being told; usually none is needed.

    Attributes:
        delimiter: A character, or comma, semicolon, tab, pipe; "auto" finds it.
        decimal: The decimal mark: "." or ","; "auto" finds it.
        encoding: Such as utf-8, cp1252, utf-16; "auto" finds it.
        header: Whether the sheet has a line of titles: yes, no, auto.
        column: FIELD=TITLE, or FIELD=3 for the third column, or FIELD= for "do not read"; again
            for each column. Fields: prefix, destination, rate, connect_fee, increments, blocked,
            effective, end and more.
        per: Prices are per minute or per second; "auto" goes by the title.
        increments: First and next interval in seconds where the sheet gives none: 60/60, 1/1.
        prefix_add: Digits to put before every code; empty for none. Left out: 1 before NPA-NXX.
        country_codes: "split" if the country code stands in a column of its own and is not
            repeated in the code, "full" if it is; "auto" looks.
        seconds_allowed: Increments for yes and for no in such a column: 1/1,60/60; or "ignore".
        date_format: iso, day_first, month_first; "auto" refuses what can be read both ways.
        timezone: Zone of dates that name none, such as Europe/Rome.
        end_inclusive: Whether an end date is the last day in force.
        blocked_words: Words that mean "not sold", with commas between.
        status_active: The value of a status column that means "sold".
        price_max: Prices above it are refused as absurd.
        on_repeat: What to do where a prefix contradicts an earlier line: refuse it, or keep the
            first or the last.
    """

    delimiter: str = "auto"
    decimal: Literal["auto", ".", ","] = "auto"
    encoding: str = "auto"
    header: Literal["auto", "yes", "no"] = "auto"
    column: tuple[str, ...] = ()
    per: Literal["auto", "minute", "second"] = "auto"
    increments: str = "60/60"
    prefix_add: str | None = None
    country_codes: Literal["auto", "split", "full"] = "auto"
    seconds_allowed: str = "1/1,60/60"
    date_format: Literal["auto", "iso", "day_first", "month_first"] = "auto"
    timezone: str = "UTC"
    end_inclusive: bool = True
    blocked_words: str | None = None
    status_active: str | None = None
    price_max: str = "1000"
    on_repeat: Literal["refuse", "first", "last"] = "refuse"

    def options(self) -> SheetOptions:
        """Give the reader's options.

        Raises:
            InvalidInput: naming the setting in ``field``.
        """
        words = self.blocked_words
        return SheetOptions(
            delimiter=_DELIMITERS.get(self.delimiter, self.delimiter),
            decimal=self.decimal,
            encoding=self.encoding,
            header=_header(self.header),
            columns=dict(_column(text) for text in self.column),
            per=self.per,
            increments=self.increments,
            prefix_add=self.prefix_add,
            country_codes=self.country_codes,
            seconds_allowed=_seconds_allowed(self.seconds_allowed),
            date_format=self.date_format,
            timezone=_timezone(self.timezone),
            end_inclusive=self.end_inclusive,
            blocked_words=_DEFAULTS.blocked_words if words is None else _words(words),
            status_active=self.status_active,
            price_max=parse_amount(self.price_max, field="price_max"),
            on_repeat=self.on_repeat,
        )


def _header(text: str) -> bool | Literal["auto"]:
    try:
        return _HEADER[text]
    except KeyError:
        raise InvalidInput("header: yes, no or auto", field="header") from None


def _column(text: str) -> tuple[str, str | int | None]:
    name, mark, title = text.partition("=")
    if not mark:
        raise InvalidInput(
            f'column: "{text[:40]}" is not FIELD=TITLE, such as prefix=Code or rate=3',
            field="column",
        )
    title = title.strip()
    if title.isascii() and title.isdigit() and len(title) <= 4:
        return name.strip(), int(title)
    return name.strip(), title or None


def _seconds_allowed(text: str) -> tuple[str, str] | None:
    if text == "ignore":
        return None
    yes, mark, no = text.partition(",")
    if not mark:
        raise InvalidInput(
            "seconds_allowed: increments for yes and for no, such as 1/1,60/60, or ignore",
            field="seconds_allowed",
        )
    return yes.strip(), no.strip()


def _timezone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        # A KeyError is zoneinfo's own "no such zone"; an OSError a name that is a folder.
        raise InvalidInput(
            f'timezone: "{name[:40]}" is not a time zone such as Europe/Rome', field="timezone"
        ) from None


def _words(text: str) -> frozenset[str]:
    return frozenset(word for part in text.split(",") if (word := part.strip().casefold()))
