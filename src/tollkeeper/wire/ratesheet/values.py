"""Single cells to values: prices, increments, dates, flags, names. What is doubtful is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal

from tollkeeper.core.money import EXACT
from tollkeeper.wire.ratesheet.problem import CellProblem

NAME_MAX = 200
"""Characters of a destination name; the rest is cut."""

SIGNS = {
    "$": frozenset(
        {
            "USD",
            "CAD",
            "AUD",
            "NZD",
            "SGD",
            "HKD",
            "TWD",
            "MXN",
            "ARS",
            "CLP",
            "COP",
            "BSD",
            "BBD",
            "JMD",
        }
    ),
    "US$": frozenset({"USD"}),
    "€": frozenset({"EUR"}),
    "£": frozenset({"GBP"}),
    "¥": frozenset({"JPY", "CNY"}),
    "₹": frozenset({"INR"}),
    "₽": frozenset({"RUB"}),
    "₺": frozenset({"TRY"}),
}
_CURRENCIES = """
    AED ARS AUD BDT BGN BRL CAD CHF CLP CNY COP CZK DKK EGP EUR GBP GHS HKD HUF IDR
    ILS INR JPY KES KRW KWD KZT LKR MXN MYR NGN NOK NZD PEN PHP PKR PLN QAR RON RUB
    SAR SEK SGD THB TRY TWD UAH USD UYU VND XAF XOF ZAR
"""
CODES = frozenset(_CURRENCIES.split())
"""Currency codes that may stand beside a price; other letters beside it are not understood."""
_YES = frozenset(
    {"y", "yes", "true", "t", "1", "x", "on", "si", "oui", "ja", "blocked", "block", "barred"}
)
_NO = frozenset(
    {
        "n",
        "no",
        "false",
        "f",
        "0",
        "off",
        "non",
        "nein",
        "",
        "-",
        "active",
        "open",
        "allowed",
        "unblocked",
    }
)

_PLAIN = re.compile(r"[0-9]{1,15}(\.[0-9]{1,30})?|\.[0-9]{1,30}")
_MONEY = re.compile(r"([^0-9.,]{0,12})([0-9.,]{1,50})([^0-9.,]{0,12})")
_UNIT = re.compile(r"(?:/|per) ?(?:minute|mins|min|m)\.?")
_THOUSANDS = {sep: re.compile(rf"[0-9]{{1,3}}(?:\{sep}[0-9]{{3}}){{1,4}}") for sep in ".,"}
_SCIENTIFIC = re.compile(r"[+-]?[0-9]+([.,][0-9]+)?[eE][+-]?[0-9]+")
_INTERVAL = r"([0-9]{1,6})(?:\.0)? ?(?:s|sec|secs|second|seconds)?\.?"
_PAIR = re.compile(_INTERVAL + r" ?[/:+\-] ?" + _INTERVAL)
_ONE = re.compile(_INTERVAL)
_ISO = re.compile(r"([0-9]{4})[-/.]([0-9]{1,2})[-/.]([0-9]{1,2})")
_ISO_BARE = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})")
_NUMERIC_DATE = re.compile(r"([0-9]{1,2})([-/.])([0-9]{1,2})\2([0-9]{4}|[0-9]{2})")
_NAMED_DATE = re.compile(r"([0-9]{1,2})[- /.]([a-z]{3,9})[- /.,]+([0-9]{4}|[0-9]{2})")
_NAMED_US_DATE = re.compile(r"([a-z]{3,9})[- .]([0-9]{1,2})[, -]+([0-9]{4})")
_TIME = re.compile(
    r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)? ?(am|pm)? ?(z|utc|gmt|[+-][0-9]{2}:?[0-9]{2}|[+-][0-9]{2})?"
)
_LONG_MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_MONTHS = {name: n for n, long in enumerate(_LONG_MONTHS, 1) for name in (long, long[:3])} | {
    "sept": 9
}
_NEVER = frozenset(
    {"", "-", "none", "null", "never", "n/a", "0000-00-00", "0000-00-00 00:00:00", "open"}
)
_NOW = _NEVER | {"now", "immediate", "immediately", "asap", "current"}


def sniff_decimal(cells: Iterable[str]) -> str:
    """Tell the decimal mark of a column of prices: ".", ",", or "mixed" where the cells do not say."""
    point = comma = only_points = 0
    for cell in cells:
        match = _MONEY.fullmatch(cell.strip())
        text = match[2] if match else ""
        if "." in text and "," in text:
            point += text.rfind(".") > text.rfind(",")
            comma += text.rfind(",") > text.rfind(".")
        elif "," in text:
            comma += _THOUSANDS[","].fullmatch(text) is None or text[0] == "0"
            only_points -= 10**9
        elif "." in text:
            point += _THOUSANDS["."].fullmatch(text) is None or text[0] == "0"
            only_points += 1
    if point and not comma:
        return "."
    if comma and not point:
        return ","
    # "1.234" could be a thousand; but where no cell has a comma, nobody wrote decimal commas.
    return "." if only_points > 0 and not comma else "mixed"


class PriceReader:
    """Reads prices of one sheet: its decimal mark, its currency, its bounds."""

    def __init__(
        self, *, decimal: str, currency: str | None, price_max: Decimal, decimals_max: int
    ) -> None:
        self._decimal = decimal
        self._currency = currency
        self._price_max = price_max
        self._decimals_max = decimals_max
        self._quantum = Decimal(1).scaleb(-decimals_max)
        self.sign: str | None = None

    def read(self, field: str, cell: str, *, times: int = 1) -> Decimal:
        """Read a price, times 60 where the sheet gives it per second.

        Raises:
            CellProblem: not a plain price, ambiguous, negative, above the bound, too many decimals.
        """
        text = cell.strip()
        if self._decimal != "." or _PLAIN.fullmatch(text) is None:
            text = self._plain(field, text)
        price = EXACT.multiply(Decimal(text), times)
        if price > self._price_max:
            raise CellProblem(
                field,
                cell,
                f"{price} is an absurd price; where it is right, raise price_max ({self._price_max})",
            )
        if price != price.quantize(self._quantum, context=EXACT):
            raise CellProblem(
                field,
                cell,
                f"more than {self._decimals_max} decimals (per minute); round it in the sheet",
            )
        # Trailing zeros are not digits of the price: 0.1000000000 is 0.1.
        return min(price, price.quantize(self._quantum, context=EXACT), key=_decimals)

    def _plain(self, field: str, text: str) -> str:
        """Turn a price as people write it into digits with a point."""
        if text.startswith("="):
            raise CellProblem(field, text, "a formula is not read; save the sheet with values")
        if _SCIENTIFIC.fullmatch(text):
            raise CellProblem(
                field,
                text,
                "scientific notation: a spreadsheet may have lost digits; format the column as number",
            )
        match = _MONEY.fullmatch(text)
        if match is None or not any(c.isdigit() for c in match[2]):
            raise CellProblem(field, text, "not a price" if text else "the price is missing")
        before, digits, after = match[1].strip(), match[2], match[3].strip()
        if before.startswith(("-", "\u2212")) or before.endswith(("-", "\u2212")) or after == "-":
            raise CellProblem(field, text, "negative price")
        after = _UNIT.sub("", after.casefold()).strip().upper()
        self._note_sign(field, text, before.removeprefix("+").strip().upper())
        self._note_sign(field, text, after)
        return self._point(field, text, digits)

    def _note_sign(self, field: str, text: str, sign: str) -> None:
        if not sign:
            return
        currencies = SIGNS.get(sign)
        if currencies is None:
            if sign not in CODES:
                raise CellProblem(field, text, "not a price")
            currencies = frozenset({sign})
        if self._currency is not None and self._currency not in currencies:
            raise CellProblem(field, text, f"the price is in {sign}, the card in {self._currency}")
        if self.sign is None:
            self.sign = sign
        if self.sign != sign and not SIGNS.get(self.sign, {self.sign}) & currencies:
            raise CellProblem(
                field, text, f"the price is in {sign}, those before it in {self.sign}"
            )

    def _point(self, field: str, text: str, digits: str) -> str:
        """Resolve decimal marks and thousands marks, refusing what can be read in two ways."""
        mark = self._decimal
        if mark == "mixed":
            if "." in digits and "," in digits:
                mark = "." if digits.rfind(".") > digits.rfind(",") else ","
            elif (
                digits[0] != "0"
                and any(shape.fullmatch(digits) for shape in _THOUSANDS.values())
                and not digits.isdigit()
            ):
                raise CellProblem(
                    field,
                    text,
                    "the mark may be of decimals or thousands; say which by the decimal option",
                )
            else:
                mark = "," if "," in digits else "."
        other = "," if mark == "." else "."
        whole, _, fraction = digits.partition(mark)
        if other in whole:
            if _THOUSANDS[other].fullmatch(whole) is None or whole[0] == "0":
                raise CellProblem(
                    field, text, f'"{other}" is not the decimal mark of this sheet ("{mark}" is)'
                )
            whole = whole.replace(other, "")
        plain = f"{whole or '0'}.{fraction}" if fraction else whole
        if _PLAIN.fullmatch(plain) is None:
            raise CellProblem(field, text, "not a price")
        return plain


def _decimals(price: Decimal) -> int:
    exponent = price.as_tuple().exponent
    return -exponent if isinstance(exponent, int) else 0


def read_increments(cell: str, field: str = "increments") -> tuple[int, int]:
    """Read ``60/1`` (first and next interval) or ``6`` (both) in seconds.

    Raises:
        CellProblem: not intervals, or not from 1 to 86,400 seconds.
    """
    text = cell.strip().casefold()
    pair = _PAIR.fullmatch(text)
    one = None if pair else _ONE.fullmatch(text)
    if pair is not None:
        first, following = int(pair[1]), int(pair[2])
    elif one is not None:
        first = following = int(one[1])
    else:
        raise CellProblem(field, cell, 'not an increment such as "60/1" or "6" (seconds)')
    if not (1 <= first <= 86_400 and 1 <= following <= 86_400):
        raise CellProblem(field, cell, "an interval is 1 to 86400 seconds")
    return first, following


def read_seconds(cell: str, field: str) -> int:
    """Read a number of seconds from 0 to 86,400."""
    match = _ONE.fullmatch(cell.strip().casefold())
    if match is None:
        raise CellProblem(field, cell, "not a number of seconds")
    if int(match[1]) > 86_400:
        raise CellProblem(field, cell, "more than 86400 seconds")
    return int(match[1])


def read_flag(cell: str, field: str) -> bool:
    """Read a yes or no; blank is no."""
    text = cell.strip().casefold()
    if text in _YES:
        return True
    if text in _NO:
        return False
    raise CellProblem(field, cell, "neither yes nor no")


class DateReader:
    """Reads the dates of one sheet into UTC."""

    def __init__(self, *, date_format: str, timezone: tzinfo, end_inclusive: bool) -> None:
        self._format = date_format
        self._timezone = timezone
        self._end_inclusive = end_inclusive

    def start(self, cell: str) -> datetime | None:
        """Read the moment from which a row holds; None for blank or "immediately"."""
        text = " ".join(cell.casefold().split())
        return None if text in _NOW else self._moment("effective", cell, text)[0]

    def end(self, cell: str) -> datetime | None:
        """Read the moment (exclusive) at which a row ends; a bare date is the last day in force."""
        text = " ".join(cell.casefold().split())
        if text in _NEVER or text.startswith("9999"):
            return None
        moment, bare = self._moment("end", cell, text)
        return moment + timedelta(days=1) if bare and self._end_inclusive else moment

    def _moment(self, field: str, cell: str, text: str) -> tuple[datetime, bool]:
        """Give the moment in UTC and whether the cell is a date without a time."""
        found = _TIME.search(text)
        day_text = text if found is None else text[: found.start()].rstrip(" t,")
        if found is not None and found.end() != len(text):
            raise CellProblem(field, cell, "not a date")
        year, month, day = self._day(field, cell, day_text)
        if not 1990 <= year <= 2199:
            raise CellProblem(field, cell, "the year is not between 1990 and 2199")
        try:
            midnight = datetime(year, month, day, tzinfo=UTC)
            moment = midnight if found is None else _at_clock(midnight, found)
            return _in_zone(moment, (found and found[6]) or "", self._timezone), found is None
        except ValueError:
            raise CellProblem(field, cell, "there is no such date") from None

    def _day(self, field: str, cell: str, text: str) -> tuple[int, int, int]:
        match = _ISO.fullmatch(text) or _ISO_BARE.fullmatch(text)
        if match is not None:
            return int(match[1]), int(match[2]), int(match[3])
        match = _NAMED_DATE.fullmatch(text)
        if match is not None:
            return _year(match[3]), _month(field, cell, match[2]), int(match[1])
        match = _NAMED_US_DATE.fullmatch(text)
        if match is not None:
            return int(match[3]), _month(field, cell, match[1]), int(match[2])
        match = _NUMERIC_DATE.fullmatch(text)
        if match is not None:
            return self._numeric(
                field, cell, int(match[1]), int(match[3]), match[4], dotted=match[2] == "."
            )
        if re.fullmatch(r"[0-9]{5}(\.[0-9]+)?", text):
            raise CellProblem(
                field,
                cell,
                "the number of a day in a spreadsheet, not a date; format the column as date",
            )
        raise CellProblem(field, cell, "not a date")

    def _numeric(
        self, field: str, cell: str, one: int, two: int, year: str, *, dotted: bool
    ) -> tuple[int, int, int]:
        form = self._format
        if form == "auto":
            # Dots are day-first wherever they are used.
            if dotted or one > 12 or one == two:
                form = "day_first"
            elif two > 12:
                form = "month_first"
            if form == "auto" or (len(year) == 2 and not dotted):
                raise CellProblem(
                    field,
                    cell,
                    "the date can be read day first or month first; say which by date_format",
                )
        if form == "iso":
            raise CellProblem(field, cell, "not a date of the form 2022-12-31")
        day, month = (one, two) if form == "day_first" else (two, one)
        return _year(year), month, day


def _year(text: str) -> int:
    return int(text) if len(text) == 4 else 2000 + int(text)


def _month(field: str, cell: str, name: str) -> int:
    month = _MONTHS.get(name)
    if month is None:
        raise CellProblem(field, cell, "not a date: no such month")
    return month


def _at_clock(midnight: datetime, found: re.Match[str]) -> datetime:
    """Add a time of day; hours of a.m. and p.m. run from 12 over 1 to 11."""
    hour = int(found[1])
    if found[5]:
        hour = hour % 12 + (12 if found[5] == "pm" else 0) if 1 <= hour <= 12 else 24
    micro = int((found[4] or "0")[:6].ljust(6, "0"))
    return midnight.replace(
        hour=hour, minute=int(found[2]), second=int(found[3] or 0), microsecond=micro
    )


def _in_zone(wall: datetime, zone: str, default: tzinfo) -> datetime:
    """Turn a clock reading (that only looks like UTC) into the moment it means."""
    if not zone:
        return wall.replace(tzinfo=default).astimezone(UTC)
    if zone in ("z", "utc", "gmt"):
        return wall
    hours, minutes = int(zone[1:3]), int(zone[-2:]) if len(zone) > 3 else 0
    offset = timedelta(hours=min(hours, 24), minutes=minutes)
    # A zone of a day or more is none: timezone refuses it as a ValueError.
    return wall.replace(tzinfo=timezone(offset if zone[0] == "+" else -offset)).astimezone(UTC)


def join_names(country: str, destination: str, operator: str) -> str:
    """One destination name of the columns that name it: ``Italy - Rome``, not ``Italy - Italy Rome``."""
    parts = [_clean(part) for part in (country, destination, operator)]
    place, rest = parts[0], [part for part in parts[1:] if part]
    if rest and (
        (len(place) <= 3 and place.isupper())
        or any(part.casefold().startswith(place.casefold()) for part in rest)
    ):
        # An ISO code or a repetition tells people nothing that the rest does not.
        place = ""
    named = [place, *rest] if place else rest
    return " - ".join(dict.fromkeys(named))[:NAME_MAX]


def _clean(text: str) -> str:
    if text[:1] == "=":
        raise CellProblem("destination", text, "a formula is not read; save the sheet with values")
    text = " ".join(text.split())
    return text if text.isprintable() else "".join(c for c in text if c.isprintable())
