"""One code cell to the prefixes it names, in every notation that suppliers use.

``93`` ``+93`` ``0093`` ``01193`` ``^93.*`` ``_93X.`` ``93[7-9]`` ``93.0`` ``370,371`` ``91-93,95``
``61 38,39``. What can be read in two ways is refused with the reason: a wrong prefix prices
somebody else's calls.
"""

from __future__ import annotations

import re

from tollkeeper.core.tariff import PREFIX_MAX
from tollkeeper.wire.ratesheet.problem import CellProblem

CODES_MAX = 10_000
"""Codes that one cell may stand for."""

_SCIENTIFIC = re.compile(r"[0-9]+([.,][0-9]+)?[eE]\+?[0-9]+")
_FLOAT = re.compile(r"([0-9]{1,15})\.00?")
_BLANKS = re.compile(r"[^\S\n]+")
_CLASS = re.compile(r"([0-9]*)\[([0-9]|[0-9]-[0-9]|[0-9]{2,10})\]([0-9]*)")
_GROUPED = re.compile(r"\(?([0-9]{1,3})\)?[ \t]+([0-9][0-9 \t-]*)")
_DASH = re.compile(r"\s*-\s*")
_NPANXX = re.compile(r"([2-9][0-9]{2})[-. ]?([0-9]{3})[-. ]?([0-9]?)")


def read_codes(
    cell: str, *, country: str = "", add: str | None = None, nanp: bool = False
) -> tuple[str, ...]:
    """Give the full prefixes of a cell.

    ``country`` is the country code that stands in a column of its own: the items are then
    suffixes. ``add`` is put before everything; ``nanp`` means that the column holds NPA-NXX, where
    a hyphen only groups digits and the leading 1 is added unless ``add`` says otherwise.

    Raises:
        CellProblem: not a code, or one that can be read in more than one way.
    """
    # Runs of blanks shrink to one first: no pattern below can then be slow on a hostile cell.
    text = _BLANKS.sub(" ", cell.strip().strip("'\u200b\ufeff").strip())
    if text.startswith("="):
        raise _problem(cell, "a formula is not read; save the sheet with values")
    if country:
        country = _country(country)
    elif not text:
        raise _problem(cell, "the code is missing")
    if nanp:
        return (_npanxx(cell, text, add),)
    if _SCIENTIFIC.fullmatch(text):
        raise _problem(
            cell,
            "scientific notation: a spreadsheet has lost digits of the code; format the column as text",
        )
    items = _items(cell, text, country)
    codes: list[str] = []
    for item in items:
        for suffix in _spread(cell, item):
            if not suffix and not country:
                raise _problem(cell, "the code is missing")
            codes.append(finish_code(cell, (add or "") + country + suffix))
        if len(codes) > CODES_MAX:
            raise _problem(cell, f"the cell stands for more than {CODES_MAX:,} codes")
    return tuple(codes)


def _problem(cell: str, reason: str) -> CellProblem:
    return CellProblem("prefix", cell, reason)


def _country(text: str) -> str:
    digits = text.strip().strip("'").removeprefix("+")
    floated = _FLOAT.fullmatch(digits)
    digits = floated[1] if floated else digits
    digits = digits.removeprefix("00")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 7 and digits[0] != "0"):
        raise CellProblem("country_prefix", text, "not a country code")
    return digits


def _npanxx(cell: str, text: str, add: str | None) -> str:
    floated = _FLOAT.fullmatch(text)
    text = floated[1] if floated else text
    bare = text.removeprefix("+")
    match = _NPANXX.fullmatch(bare)
    if match is not None:
        return finish_code(cell, ("1" if add is None else add) + "".join(match.groups()))
    if bare.isascii() and bare.isdigit():
        # Area codes begin with 2 to 9: a 1 in front is the country code already.
        lead = ("" if bare[0] == "1" else "1") if add is None else add
        return finish_code(cell, lead + bare)
    raise _problem(cell, "not an NPA-NXX code")


def _items(cell: str, text: str, country: str) -> list[str]:
    """Split a list; every item comes back whole (with its country code) unless ``country`` is given."""
    parts = [part.strip() for part in re.split(r"[,;\n|/]", text)]
    if len(parts) == 1 and not parts[0]:
        return [""]
    if len(parts) > CODES_MAX:
        raise _problem(cell, f"the cell stands for more than {CODES_MAX:,} codes")
    if not all(parts):
        raise _problem(cell, "an item of the list of codes is empty")
    grouped = [_GROUPED.fullmatch(part.removeprefix("+")) for part in parts]
    head = grouped[0]
    if head is not None and not country:
        # "61 38,39": the country code once, then suffixes; "61 38, 61 39" names it each time.
        lead = head[1]
        out = []
        for part, match in zip(parts, grouped, strict=True):
            if match is None:
                out.append(_with_lead(lead, part))
            else:
                _refuse_list_by_blanks(cell, part, match[1], match[2])
                out.append(_with_lead(match[1], match[2]))
        return out
    if any(re.search(r"\s", part) for part in parts):
        parts = [re.sub(r"\s*-\s*", "-", part) for part in parts]
    if any(re.search(r"\s", part) for part in parts):
        raise _problem(
            cell,
            "codes separated by blanks can be read in more than one way; separate them by commas",
        )
    if not country:
        _refuse_loose_suffixes(cell, parts)
    return parts


def _refuse_list_by_blanks(cell: str, part: str, lead: str, suffix: str) -> None:
    """``93 94 95`` may be three codes or one: only + or brackets show that blanks group one number.

    A country code and one group after it are one code, unless the two are neighbours (``370 371``).
    """
    if part.startswith(("+", "(")):
        return
    groups = [lead, *_DASH.sub("-", suffix).split()]
    neighbours = len(set(groups)) == 2 and groups[0][:-1] == groups[1][:-1]
    if len(groups) > 2 or (neighbours and len(groups[0]) == len(groups[1])):
        raise _problem(
            cell,
            "more than one code in the cell? write one code, a list with commas or a range",
        )


def _with_lead(lead: str, suffix: str) -> str:
    """Put the lead before a suffix, or before both ends of a range of suffixes."""
    if re.fullmatch(r"[0-9]+\s*-\s*[0-9]+", suffix):
        first, last = re.split(r"\s*-\s*", suffix)
        return f"{lead}{first}-{lead}{last}"
    return lead + re.sub(r"\s+", "", suffix)


def _refuse_loose_suffixes(cell: str, parts: list[str]) -> None:
    """``9370,71`` may mean 9371 or Russia: only items that cannot be suffixes pass."""
    first = _bare(parts[0])
    for part in parts[1:]:
        item = _bare(part)
        if len(item) < len(first) and item[:2] != first[: min(2, len(item))]:
            raise _problem(
                cell,
                f'"{part}" may be a whole code or a suffix of the first; write every code in full',
            )


def _bare(part: str) -> str:
    match = re.match(r"[0-9]+", part.lstrip("^_+"))
    digits = match[0] if match else ""
    return digits[2:] if digits.startswith("00") else digits.removeprefix("011")


def _spread(cell: str, item: str) -> list[str]:
    """Write out one item: a code, a range of equal width, or a code with a class of digits."""
    if "-" in item and "[" not in item:
        first, _, last = item.partition("-")
        first, last = _international(first.lstrip("+")), _international(last.lstrip("+"))
        if not (first.isascii() and last.isascii() and first.isdigit() and last.isdigit()):
            raise _problem(cell, "not a range of codes")
        if len(first) != len(last):
            raise _problem(
                cell,
                "a range of unequal widths can be read in more than one way; write the codes out",
            )
        low, high = int(first), int(last)
        if high < low:
            raise _problem(cell, "the range ends before it begins")
        if high - low >= CODES_MAX:
            raise _problem(cell, f"the cell stands for more than {CODES_MAX:,} codes")
        return [str(code).zfill(len(first)) for code in range(low, high + 1)]
    floated = _FLOAT.fullmatch(item)
    if floated:
        return [floated[1]]
    bare = (
        item.rstrip("$")
        .removesuffix("*")
        .removesuffix("[0-9]")
        .removesuffix("\\d")
        .rstrip(".*+%xX")
    )
    bare = _international(
        bare.removeprefix("^").removeprefix("_").removeprefix("\\").removeprefix("+")
    )
    match = _CLASS.fullmatch(bare)
    if match is None:
        return [bare]
    start, dash, stop = match[2].partition("-")
    digits = [str(d) for d in range(int(start), int(stop) + 1)] if dash else sorted(set(match[2]))
    if not digits:
        raise _problem(cell, "the range ends before it begins")
    return [match[1] + digit + match[3] for digit in digits]


def _international(code: str) -> str:
    """Take off the dialled marks 00 and 011: no country code begins with 0."""
    if code.startswith("00"):
        return code[2:]
    return code.removeprefix("011")


def finish_code(cell: str, code: str) -> str:
    """Check that a code is one: digits, no leading 0, no longer than a prefix can be."""
    if not (code.isascii() and code.isdigit()):
        raise _problem(cell, "not a code: digits are expected")
    if code[0] == "0":
        raise _problem(cell, "no country code begins with 0: the code is not in international form")
    if len(code) > PREFIX_MAX:
        raise _problem(cell, f"the code is longer than {PREFIX_MAX} digits")
    return code
