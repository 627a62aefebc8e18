"""Which column of a sheet is what: titles in many words, found in any of the first lines."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tollkeeper.errors import InvalidInput
from tollkeeper.wire.ratesheet.options import FIELDS, HEADER_ROWS, SheetOptions
from tollkeeper.wire.ratesheet.records import Record, records

# Titles as :func:`squash` leaves them, the likeliest first: among two columns for one field the
# earlier wins and the other is named in the notes.
_TITLES: dict[str, str] = {
    "prefix": "prefix dialcode dialcodes dialprefix dialingcode diallingcode destinationcode destcode destinationprefix "
    "destprefix dstprefix code codes prefixes pattern npanxx npanxxx npanxxy npa dialedprefix diallingprefix e164 "
    "e164prefix phoneprefix phonecode telephoneprefix callprefix codeprefix routecode breakoutcode numberprefix code1 prefixfrom "
    "codefrom areacode areacodes citycode regioncode ndc number numbers prefijo codigo prefisso numero numerazione "
    "prefixe indicatif vorwahl rufnummer prefixo",
    "range_end": "code2 prefixto codeto rangeend prefixend endcode",
    "country_prefix": "countrycode countryprefix countrydialcode countrydialingcode countrydiallingcode cc ccode isdcode",
    "destination": "destination destinationname description codename destinations prefixname destname name ratename "
    "dest breakout breakoutname areaname routename zone zonename area region comment destinazione descrizione destino "
    "descripcion bezeichnung ziel libelle destinationsname location localita",
    "country": "country countryname land pays pais paese nation",
    "operator": "operator operatorname carrier carriername network networkname operatore operateur operador "
    "operatoreservizio type calltype linetype",
    "rate": "newrate newprice rateminute ratemin priceminute pricemin costminute costmin chargeminute chargemin "
    "tariffminute minuterate minuteprice ratesecond ratesec pricesecond pricesec costsecond costsec rate price tariff "
    "tarif cost ratecost rateinitial sellrate sellprice callrate callprice voicerate unitprice unitrate charge "
    "currentrate currentprice peakrate peakminute peakprice peak costofasciaintera prezzo prix preis precio tarifa "
    "preco tariffa",
    "first_rate": "firstrate firstprice initialrate initialprice firstminuterate ratefirst pricefirst rate1 firstminute",
    "next_rate": "nextrate nextprice subsequentrate subsequentprice additionalrate ratenext pricenext raten nextminute",
    "connect_fee": "connectfee connectionfee connectioncost connectcost connectcharge connectioncharge connect setupfee "
    "setup setupcharge setupcost callsetup callsetupcharge callsetupfee costcall costoncall ratecall pricecall flagfall "
    "initialcharge ratesurcharge scatto costoallarisposta costorisposta peakcallsetupcharge",
    "attempt_fee": "attemptfee attemptcharge attemptcost",
    "minimum": "minimumcharge mincharge minimumcost minimalcost mincost minimumprice minprice",
    "cap": "cap maximumcharge maxcharge maxcost maximumcost callcap",
    "surcharge": "surcharge surchargeminute minutesurcharge surchargemin",
    "free_below": "grace graceperiod gracetime freebelow nocharge nochargetime ratenochargetime minimaltimecharge "
    "freeifshorterthan",
    "included_seconds": "includedseconds includedsecs includedsec includedtime freeseconds freetime",
    "increments": "increments billingincrement billingincrements billinginterval billing pulse intervals incrementpattern "
    "chargingincrement chargeincrement roundingincrement billingterms ratingincrement mininc minincr",
    "first_interval": "firstinterval initialinterval interval1 initialincrement initinc initblock firstincrement "
    "minimuminterval minimum min minduration minimumduration minimumseconds minimumtime rateminimum mintime firstperiod "
    "initialperiod intervalfirst durataminima",
    "next_interval": "nextinterval subsequentinterval intervaln nextincrement inc increment billingblock subsequentincrement "
    "additionalincrement rateincrement interval int nextperiod intervalnext step",
    "seconds_allowed": "secondsallowed secondbilling persecondbilling",
    "blocked": "blocked block isblocked barred locked isbarred blockedflag",
    "enabled": "enabled active isactive isenabled allowed",
    "status": "status state action change changetype ratestatus diffstatus changestatus codestatus pricechange",
    "effective": "effectivedate effective effectivefrom dateeffective startdate validfrom datefrom from start begindate activationdate "
    "effectivestartdate applytime starttime ratestartdate ratedate validity date",
    "end": "enddate validto validtill validuntil dateto expirydate expirationdate expires effectiveto stopdate "
    "effectiveenddate endtime to end rateenddate",
}
_RANK = {
    title: (field, rank)
    for field, titles in _TITLES.items()
    for rank, title in enumerate(titles.split())
}
_NOISE = frozenset(
    {
        "per",
        "by",
        "the",
        "of",
        "a",
        "in",
        "us",
        "usd",
        "eur",
        "gbp",
        "euro",
        "euros",
        "dollar",
        "dollars",
    }
)
_SHORT = {"minutes": "minute", "mins": "min"}
_AREAS = frozenset({"areacode", "areacodes", "citycode", "regioncode", "ndc"})


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things stand in a sheet.

    ``first`` is the index of the first data line, ``width`` the cells of a line; ``at`` maps a
    field to its 0-based column, ``titles`` to what people call that column.
    """

    delimiter: str
    first: int
    width: int
    at: dict[str, int]
    titles: dict[str, str]
    unknown: list[str]
    has_header: bool
    per_second: bool = False
    nanp: bool = False
    areas: bool = False


def squash(title: str) -> str:
    """Reduce a title to its letters: ``Rate per Minute (USD)`` and ``rate/minute`` are one."""
    plain = unicodedata.normalize("NFKD", title[:200]).casefold()
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    bare = re.sub(r"\([^()]*\)|\[[^\[\]]*\]", " ", plain)
    words = re.findall(r"[a-z0-9]+", bare) or re.findall(r"[a-z0-9]+", plain)
    kept = [_SHORT.get(word, word) for word in words if word not in _NOISE]
    return "".join(kept or words)


def find_layout(lines: list[str], options: SheetOptions) -> Layout:
    """Find the delimiter, the header and the columns.

    Raises:
        InvalidInput: no column of codes or none of prices; it says which columns were seen.
    """
    start = 0
    mark = options.delimiter
    if lines[0][:4].lower() == "sep=" and len(lines[0]) == 5:
        # Excel writes its delimiter into a first line of its own.
        start, mark = 1, lines[0][4] if mark == "auto" else mark
    positions = all(
        isinstance(column, int) for column in options.columns.values() if column is not None
    )
    by_position = bool(options.columns) and positions and _complete(options.columns)
    candidates = [mark] if mark != "auto" else [";", ",", "\t", "|"]
    best: tuple[tuple[int, int], str, list[Record]] | None = None
    for delimiter in candidates:
        sample = [
            r
            for r in records(lines, delimiter, start=start, stop=start + HEADER_ROWS)
            if any(c.strip() for c in r[2])
        ]
        score = (max((_score(r[2], options) for r in sample), default=0), _regular(sample))
        if best is None or score > best[0]:
            best = (score, delimiter, sample)
    assert best is not None
    _, delimiter, sample = best
    if options.header is not False:
        layout = _with_header(sample, delimiter, options, needed=not by_position)
        if layout is not None:
            return layout
    if not by_position:
        raise InvalidInput(
            'Without a header row, columns must map "prefix" and "rate" (or "first_rate" and "next_rate") to positions.',
            code="unknown_columns",
            field="columns",
        )
    return _without_header(sample, delimiter, start, options)


def _complete(fields: Iterable[str]) -> bool:
    found = set(fields)
    return "prefix" in found and ("rate" in found or {"first_rate", "next_rate"} <= found)


def _regular(sample: Sequence[Record]) -> int:
    """How table-like the lines are: lines of the commonest width, if that is two cells or more."""
    widths = Counter(len(cells) for _, _, cells, problem in sample if not problem)
    (width, count) = widths.most_common(1)[0] if widths else (0, 0)
    return count if width > 1 else 0


def _score(cells: Sequence[str], options: SheetOptions) -> int:
    return len(_assign(cells, options)[0])


def _assign(cells: Sequence[str], options: SheetOptions) -> tuple[dict[str, int], bool]:
    """Map fields to columns for a row read as titles; tells whether every told title was found."""
    at: dict[str, int] = {}
    whole = True
    squashed = [squash(cell) for cell in cells]
    for field, column in options.columns.items():
        if isinstance(column, int):
            at[field] = column - 1
        elif column is not None:
            found = _told(column, cells, squashed)
            whole = whole and found is not None
            if found is not None:
                at[field] = found
    taken = set(at.values())
    ranks: dict[str, int] = {}
    for index, title in enumerate(squashed):
        field, rank = _RANK.get(title, ("", 0))
        if not field or index in taken or field in options.columns:
            continue
        if field not in at or rank < ranks[field]:
            at[field], ranks[field] = index, rank
    return at, whole


def _told(column: str, cells: Sequence[str], squashed: Sequence[str]) -> int | None:
    wanted = " ".join(column.casefold().split())
    for index, cell in enumerate(cells):
        if " ".join(cell.casefold().split()) == wanted:
            return index
    short = squash(column)
    return squashed.index(short) if short and short in squashed else None


def _with_header(
    sample: Sequence[Record], delimiter: str, options: SheetOptions, *, needed: bool
) -> Layout | None:
    """Take the first row that names codes and prices; else say what is missing."""
    best: tuple[int, Record] | None = None
    for record in sample:
        cells = record[2]
        at, whole = _assign(cells, options)
        titles = sum(1 for cell in cells if squash(cell) in _RANK)
        named = needed or titles >= 2
        if whole and named and _complete(at) and max(at.values()) < len(cells):
            return _layout(record, at, delimiter)
        if best is None or len(at) > best[0]:
            best = (len(at), record)
    if not needed and options.header == "auto":
        return None
    raise _missing(best[1] if best else None, options)


def _layout(record: Record, at: dict[str, int], delimiter: str) -> Layout:
    number, _, cells, _ = record
    squashed = [squash(cell) for cell in cells]
    names = [" ".join(cell.split())[:60] for cell in cells]
    read = set(at.values())
    price = cells[at["rate"] if "rate" in at else at["first_rate"]]
    words = set(re.findall(r"[a-z]+", price.casefold()))
    code = squashed[at["prefix"]]
    return Layout(
        delimiter=delimiter,
        first=number + sum(cell.count("\n") for cell in cells),
        width=len(cells),
        at=at,
        titles={field: names[index] or f"column {index + 1}" for field, index in at.items()},
        unknown=[name for index, name in enumerate(names) if index not in read and name],
        has_header=True,
        per_second=bool(words & {"sec", "second", "seconds"}),
        nanp=code.startswith("npa"),
        areas=code in _AREAS,
    )


def _missing(record: Record | None, options: SheetOptions) -> InvalidInput:
    cells = [" ".join(cell.split())[:40] for cell in record[2]] if record else []
    at, _ = _assign(record[2], options) if record else ({}, False)
    seen = ", ".join(cell for cell in cells if cell)[:400] or "none"
    told = [
        c
        for c in options.columns.values()
        if isinstance(c, str)
        and (not record or _told(c, cells, [squash(x) for x in cells]) is None)
    ]
    if told:
        what = f'has no column called "{told[0]}"'
    elif "prefix" not in at and not _complete({*at, "prefix"}):
        what = f"has no header row in its first {HEADER_ROWS} lines that names a column of codes (prefixes) and one of prices"
    elif "prefix" not in at:
        what = "has no column of dialling codes (prefixes); destination names alone cannot be rated"
    else:
        what = "has no column of prices (rate per minute)"
    where = f" in line {record[0]}" if record else ""
    return InvalidInput(
        f'The sheet {what}. Columns seen{where}: {seen}. Name them by columns, such as {{"prefix": "...", "rate": "..."}} '
        "or by their positions.",
        code="unknown_columns",
        field="columns",
    )


def _without_header(
    sample: Sequence[Record], delimiter: str, start: int, options: SheetOptions
) -> Layout:
    at = {field: column - 1 for field, column in options.columns.items() if isinstance(column, int)}
    widths = Counter(len(cells) for _, _, cells, problem in sample if not problem)
    width = widths.most_common(1)[0][0] if widths else 0
    if max(at.values()) >= width:
        raise InvalidInput(
            f'The lines have {width} cells when split at "{delimiter}"; column {max(at.values()) + 1} does not exist.',
            code="unknown_columns",
            field="columns",
        )
    return Layout(
        delimiter=delimiter,
        first=start,
        width=width,
        at=at,
        titles={field: f"column {index + 1}" for field, index in at.items()},
        unknown=[f"column {index + 1}" for index in range(width) if index not in set(at.values())],
        has_header=False,
    )


def ordered(at: Mapping[str, int]) -> Iterator[str]:
    """Give the fields of a layout in one order, so that notes read alike for every sheet."""
    return (field for field in FIELDS if field in at)
