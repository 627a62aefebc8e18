"""Single fields to values: texts, numbers, durations, causes. What is doubtful is refused.

Lines and encodings are in ``lines``, times in ``times``, refusals in ``problem``; what codecs need
of those can be had here too.
"""

from __future__ import annotations

import re
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address, ip_address

from tollkeeper.core.usage import DURATION_MAX_MS, TEXT_MAX
from tollkeeper.wire.cdr.lines import LINE_MAX, TooLong, decode, known_encoding, lines
from tollkeeper.wire.cdr.problem import FieldProblem, raw_text, refused
from tollkeeper.wire.cdr.times import TimeReader, time_reader, zone_of

__all__ = [
    "LINE_MAX",
    "UNITS",
    "WRAPPED",
    "FieldProblem",
    "TimeReader",
    "TooLong",
    "decimal_price",
    "decode",
    "duration_ms",
    "integer",
    "ip_text",
    "known_encoding",
    "lines",
    "mos_hundredths",
    "number_text",
    "pdd",
    "plain_text",
    "q850_cause",
    "raw_text",
    "refused",
    "sip_status",
    "time_reader",
    "zone_of",
]

UNITS = ("s", "ms", "us", "hh:mm:ss")
"""How a duration may be written."""
WRAPPED = 100_000
"""A duration (in s or ms) this close under 2**32 is a negative one in disguise."""
_PDD_MAX_MS = 2**31 - 1
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_EXCEL_NUMBER = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]+)?E\+[0-9]+|[0-9][.,][0-9]+e\+?[0-9]+")
_EXCEL_FLOAT = re.compile(r"[0-9]+[.,]0+")
_EXCEL_TEXT = re.compile(r'="([^"]*)"|\'([0-9+].*)')
_SECONDS = re.compile(r"(-?)([0-9]{1,30})(?:\.([0-9]{0,30}))?")
_CLOCK = re.compile(r"(-?)(?:([0-9]{1,6}):)?([0-9]{1,6}):([0-9]{1,2})(?:[.,]([0-9]{1,9}))?")
_INTEGER = re.compile(r"-?[0-9]{1,30}(?:\.0+)?")
_PRICE = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,12})?")
_MOS = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,9}))?")


def plain_text(text: str, field: str) -> str:
    """Return an identifying text without blanks around it.

    Raises:
        FieldProblem: control characters in it, longer than 255, or spoilt by Excel.
    """
    text = text.strip()
    if len(text) > TEXT_MAX:
        raise FieldProblem(
            field, text, f"The field has {len(text):,} characters and {TEXT_MAX} are the most."
        )
    if not text.isprintable() and _CONTROL.search(text):
        raise FieldProblem(field, text, "The field has control characters in it.")
    if "+" in text and _EXCEL_NUMBER.fullmatch(text):
        raise FieldProblem(field, text, _excel(text))
    return text


def number_text(text: str, field: str) -> str:
    """Return a calling or called number as it was written (mediation normalises it).

    The marks by which a spreadsheet keeps a number as text (="00..", '00..) are taken off.

    Raises:
        FieldProblem: as ``plain_text``, and a number that a spreadsheet has rounded (4.4E+11).
    """
    text = plain_text(text, field)
    if not text or (text.isascii() and text.isdigit()):
        return text
    if text[0] in "='" and (match := _EXCEL_TEXT.fullmatch(text)):
        text = match[1] if match[1] is not None else match[2]
    if text[-1].isdigit() and (_EXCEL_NUMBER.fullmatch(text) or _EXCEL_FLOAT.fullmatch(text)):
        raise FieldProblem(field, text, _excel(text))
    return text


def _excel(text: str) -> str:
    return (
        f'"{text[:40]}" is a number that a spreadsheet has shortened, so digits are lost; export '
        "the file again without opening it in Excel, or with the column formatted as text."
    )


def ip_text(text: str, field: str) -> str:
    """Return an address without port and brackets; other texts (a host name) as they are."""
    text = plain_text(text, field)
    if text.startswith("["):
        inner, bracket, _ = text[1:].partition("]")
        return inner if bracket and _address(inner) else text
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        if port.isdigit() and _address(host):
            return host
    return text


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def integer(text: str, field: str, low: int, high: int) -> int:
    """Return a whole number between ``low`` and ``high``; "16.0" is 16.

    Raises:
        FieldProblem: anything else.
    """
    text = text.strip()
    if _INTEGER.fullmatch(text):
        value = int(text.partition(".")[0])
        if low <= value <= high:
            return value
    raise FieldProblem(
        field, text, f'"{text[:40]}" is not a whole number from {low:,} to {high:,}.'
    )


def sip_status(text: str, field: str = "sip") -> int | None:
    """Return a SIP status, 100 to 699; None when there is none ("", "0")."""
    return _optional(text, field, 100, 699)


def q850_cause(text: str, field: str = "q850") -> int | None:
    """Return an ITU-T Q.850 cause, 1 to 127; None when there is none ("", "0")."""
    return _optional(text, field, 1, 127)


def _optional(text: str, field: str, low: int, high: int) -> int | None:
    text = text.strip()
    return None if text in {"", "0", "-"} else integer(text, field, low, high)


def duration_ms(text: str, unit: str = "s", field: str = "duration") -> int:
    """Return a duration in whole milliseconds, the nearest (a half goes up).

    ``unit`` is one of ``UNITS``; with "hh:mm:ss" also mm:ss and plain seconds are read. Decimals
    are allowed in each.

    Raises:
        FieldProblem: missing, negative, longer than 115 days, or not a duration.
    """
    text = text.strip()
    if unit == "hh:mm:ss" and (match := _CLOCK.fullmatch(text)):
        sign, hours, minutes, seconds, part = match.groups()
        if int(seconds) > 59 or (hours is not None and int(minutes) > 59):
            raise FieldProblem(field, text, f'"{text[:40]}" is not a duration written as hh:mm:ss.')
        whole = int(hours or 0) * 3_600 + int(minutes) * 60 + int(seconds)
        return _bounded_ms(whole, part or "", 3, sign, text, field)
    match = _SECONDS.fullmatch(text)
    if match is None:
        raise FieldProblem(field, text, _no_duration(text, unit))
    shift = {"ms": 0, "us": -3}.get(unit, 3)
    return _bounded_ms(int(match[2]), match[3] or "", shift, match[1], text, field)


def _bounded_ms(whole: int, part: str, shift: int, sign: str, text: str, field: str) -> int:
    """Milliseconds of whole.part units, where one unit is 10**shift of them."""
    digits = len(part)
    scaled = int(f"{whole}{part}")
    power = shift - digits
    one: int = 10 ** abs(power)
    ms = scaled * one if power >= 0 else (scaled * 2 + one) // (2 * one)
    if sign and scaled:
        raise FieldProblem(field, text, "The duration is negative; look at the switch's clock.")
    # Microseconds pass this number in 71 minutes, so there it says nothing.
    if shift >= 0 and 0 <= 2**32 - whole <= WRAPPED:
        reason = (
            f"The duration is {whole - 2**32} written in 32 bits without a sign; look at the "
            "switch's clock."
        )
        raise FieldProblem(field, text, reason)
    if ms > DURATION_MAX_MS:
        raise FieldProblem(
            field, text, "The duration is longer than 115 days; check its unit and the switch."
        )
    return ms


def _no_duration(text: str, unit: str) -> str:
    if not text:
        return "The duration is missing."
    return f'"{text[:40]}" is not a duration in {unit}; check the unit of the mapping.'


def pdd(text: str, unit: str = "ms", field: str = "pdd_ms") -> int | None:
    """Return a post dial delay in milliseconds; None when empty."""
    text = text.strip()
    if not text:
        return None
    value = duration_ms(text, unit, field)
    if value > _PDD_MAX_MS:
        raise FieldProblem(field, text, "The delay is longer than 24 days; check its unit.")
    return value


def mos_hundredths(text: str, field: str = "mos") -> int | None:
    """Return a mean opinion score in hundredths ("4.35" is 435); None when empty or 0.

    Raises:
        FieldProblem: not a number from 0 to 5 (ITU-T P.800).
    """
    text = text.strip()
    if not text:
        return None
    match = _MOS.fullmatch(text)
    if match is None:
        raise FieldProblem(field, text, f'"{text[:40]}" is not a score from 1 to 5.')
    value = int(match[1]) * 100 + int((match[2] or "").ljust(2, "0")[:2])
    if value > 500:
        raise FieldProblem(field, text, f'"{text[:40]}" is not a score from 1 to 5.')
    return value or None


def decimal_price(text: str, field: str = "price") -> Decimal | None:
    """Return an amount of money; None when empty.

    Raises:
        FieldProblem: not plain digits with a decimal point.
    """
    text = text.strip()
    if not text:
        return None
    if _PRICE.fullmatch(text) is None:
        raise FieldProblem(
            field, text, f'"{text[:40]}" is not an amount; write digits such as 0.0125.'
        )
    return Decimal(text)
