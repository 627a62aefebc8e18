"""A supplier's rate sheet to rows of a card, with an account of every line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from itertools import chain, islice
from operator import itemgetter

from tollkeeper.core.tariff import PREFIX_MAX, RateRow
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.ratesheet.codes import read_codes
from tollkeeper.wire.ratesheet.decode import read_text
from tollkeeper.wire.ratesheet.header import Layout, find_layout, ordered
from tollkeeper.wire.ratesheet.options import SheetOptions
from tollkeeper.wire.ratesheet.problem import CellProblem
from tollkeeper.wire.ratesheet.records import Record, records
from tollkeeper.wire.ratesheet.result import Closing, Refusal, Repeat, Sheet, SheetRow
from tollkeeper.wire.ratesheet.terms import TERM_FIELDS, Terms, TermsReader
from tollkeeper.wire.ratesheet.values import join_names, sniff_decimal

_SAMPLE = 2_000
_RAW_MAX = 500
_LIST_LONG = 200
_DEFAULT = SheetOptions()

_Key = tuple[str, datetime | None]
_Held = tuple[int, RateRow, bool, int]
"""Line, row, whether it closes the prefix, and its place in the list of rows or of closings."""


def read_sheet(data: bytes | Iterable[bytes], options: SheetOptions = _DEFAULT) -> Sheet:
    """Read a rate sheet (a CSV file, or its chunks; gzip too). Prices in rows are per minute.

    A line that cannot be read, or not without a guess, is refused with its line number, cell and
    reason, and the others are read; no line is dropped without being listed.

    Raises:
        InvalidInput: the file as a whole is no rate sheet (empty, binary, too large, no column of
            codes or of prices) or the options do not fit it.
    """
    text = read_text(data, options)
    layout = find_layout(text.lines, options)
    sheet = Sheet(
        delimiter=layout.delimiter,
        encoding=text.encoding,
        unknown=layout.unknown,
        notes=list(text.notes),
    )
    sheet.columns = {field: layout.titles[field] for field in ordered(layout.at)}
    stream = records(text.lines, layout.delimiter, start=layout.first)
    sample = list(islice(stream, _SAMPLE))
    layout = _settle_country_codes(layout, sample, options, sheet)
    sheet.decimal = options.decimal if options.decimal != "auto" else _sniff(layout, sample)
    _Reading(layout, options, sheet).run(chain(sample, stream))
    sheet.check()
    return sheet


def _sniff(layout: Layout, sample: list[Record]) -> str:
    columns = [
        layout.at[field]
        for field in ("rate", "first_rate", "next_rate", "connect_fee")
        if field in layout.at
    ]
    return sniff_decimal(
        cells[column] for _, _, cells, _ in sample for column in columns if column < len(cells)
    )


def _settle_country_codes(
    layout: Layout, sample: list[Record], options: SheetOptions, sheet: Sheet
) -> Layout:
    """Decide whether codes stand with or without the digits of the country code column."""
    column = layout.at.get("country_prefix")
    if column is None:
        return layout
    split = (
        options.country_codes == "split"
        or options.columns.get("country_prefix") is not None
        or layout.areas
    )
    if options.country_codes == "auto" and not split:
        code = layout.at["prefix"]
        pairs = [
            (c[column].strip().lstrip("+"), c[code].strip().lstrip("+"))
            for _, _, c, _ in sample
            if len(c) > max(column, code)
        ]
        pairs = [
            (country, whole)
            for country, whole in pairs
            if country[:1].isdigit() and whole[:1].isdigit()
        ]
        full = sum(1 for country, whole in pairs if whole.startswith(country))
        if pairs and len(pairs) > full >= len(pairs) / 2:
            raise InvalidInput(
                f'Some codes begin with the "{layout.titles["country_prefix"]}" beside them and some do not: say by '
                'country_codes whether it is to be put before them ("split") or stands in them already ("full").',
                code="unknown_columns",
                field="country_codes",
            )
        split = bool(pairs) and full < len(pairs)
    if split:
        sheet.notes.append(
            f'The code is "{layout.titles["country_prefix"]}" followed by "{layout.titles["prefix"]}".'
        )
        return layout
    sheet.unknown.append(layout.titles["country_prefix"])
    sheet.columns.pop("country_prefix")
    return replace(
        layout, at={field: at for field, at in layout.at.items() if field != "country_prefix"}
    )


def _getter(columns: list[int]) -> Callable[[list[str]], tuple[str, ...]]:
    """Pick cells as a tuple, also where there is one or none (itemgetter alone would not)."""
    if not columns:
        return lambda _: ()
    if len(columns) == 1:
        only = columns[0]
        return lambda cells: (cells[only],)
    return itemgetter(*columns)


class _Reading:
    """One pass over the records of a sheet."""

    def __init__(self, layout: Layout, options: SheetOptions, sheet: Sheet) -> None:
        self._layout = layout
        self._options = options
        self._sheet = sheet
        at = dict(layout.at)
        if options.seconds_allowed is None:
            at.pop("seconds_allowed", None)
        fields = tuple(field for field in TERM_FIELDS if field in at)
        per_second = options.per == "second" or (options.per == "auto" and layout.per_second)
        self._reader = TermsReader(options, fields, decimal=sheet.decimal, per_second=per_second)
        self._term_cells = _getter([at[field] for field in fields])
        self._terms: dict[tuple[str, ...], Terms | CellProblem] = {}
        named = [at.get(field) for field in ("country", "destination", "operator")]
        self._name_cells = _getter([column for column in named if column is not None])
        self._named = [column is not None for column in named]
        self._names: dict[tuple[str, ...], str | CellProblem] = {}
        self._seen: dict[_Key, _Held] = {}
        # What goes before a code of plain digits; NPA-NXX gets its 1 unless told otherwise.
        self._lead = options.prefix_add or (
            "1" if layout.nanp and options.prefix_add is None else ""
        )
        self._free = 0
        self._listed = 0

    def run(self, stream: Iterator[Record]) -> None:
        """Read every record; then say what a person should know."""
        sheet, at, width = self._sheet, self._layout.at, self._layout.width
        code_at, country_at, end_at = at["prefix"], at.get("country_prefix"), at.get("range_end")
        plain = country_at is None and end_at is None
        lowest = "2" if self._layout.nanp else "1"
        lead, longest = self._lead, PREFIX_MAX - len(self._lead)
        terms_of, name_of, take = self._terms_of, self._name_of, self._take
        rows_max = self._options.rows_max
        for line, raw, found, problem in stream:
            cells = found if len(found) == width else self._fit(line, raw, found, problem)
            if not cells:
                continue
            code = cells[code_at].strip()
            try:
                if (
                    plain
                    and code.isdigit()
                    and code.isascii()
                    and code[0] >= lowest
                    and len(code) <= longest
                ):
                    codes: tuple[str, ...] = (lead + code,)
                elif not code and not any(cell.strip() for cell in cells):
                    sheet.blank += 1
                    continue
                else:
                    codes = self._codes(cells, country_at, end_at)
                terms = terms_of(cells)
                name = name_of(cells)
            except CellProblem as wrong:
                sheet.lines += 1
                self._refuse(line, raw, wrong.field, wrong.value, wrong.reason)
                continue
            sheet.lines += 1
            sheet.expanded += len(codes) - 1
            self._free += terms.free
            if sheet.lines + sheet.expanded > rows_max:
                raise self._too_many()
            for prefix in codes:
                take(line, raw, prefix, name, terms)
        self._close()

    def _fit(self, line: int, raw: str, cells: list[str], problem: str) -> list[str]:
        """Pad a short line; refuse one that could not be split or has more cells than the sheet."""
        width = self._layout.width
        if not problem and not any(cell.strip() for cell in cells):
            self._sheet.blank += 1
            return []
        if not problem and any(cell.strip() for cell in cells[width:]):
            problem = (
                f"{len(cells)} cells where the sheet has {width}: is there an unquoted "
                f"{'tab' if self._layout.delimiter == chr(9) else repr(self._layout.delimiter)} in a value?"
            )
        if problem:
            self._sheet.lines += 1
            self._refuse(line, raw, "", "", problem)
            return []
        return (cells + [""] * width)[:width]

    def _codes(
        self, cells: list[str], country_at: int | None, end_at: int | None
    ) -> tuple[str, ...]:
        code = cells[self._layout.at["prefix"]]
        if len(code) > _LIST_LONG:
            # Long lists that end in a refusal add no rows, and would else be work without bound.
            self._listed += len(code)
            if self._listed > self._options.rows_max * 10:
                raise self._too_many()
        end = cells[end_at].strip() if end_at is not None else ""
        if end:
            code = f"{code.strip()}-{end}"
        country = cells[country_at].strip() if country_at is not None else ""
        if country_at is not None and not country:
            raise CellProblem("country_prefix", "", "the country code is missing")
        return read_codes(
            code, country=country, add=self._options.prefix_add, nanp=self._layout.nanp
        )

    def _too_many(self) -> InvalidInput:
        return InvalidInput(
            f"The sheet has more than {self._options.rows_max:,} codes.", code="file_too_large"
        )

    def _terms_of(self, cells: list[str]) -> Terms:
        key = self._term_cells(cells)
        terms = self._terms.get(key)
        if terms is None:
            try:
                terms = self._reader.read(key)
            except CellProblem as problem:
                terms = problem
            self._terms[key] = terms
        if isinstance(terms, CellProblem):
            raise CellProblem(terms.field, terms.value, terms.reason)
        return terms

    def _name_of(self, cells: list[str]) -> str:
        key = self._name_cells(cells)
        name = self._names.get(key)
        if name is None:
            given = iter(key)
            try:
                name = join_names(*(next(given) if there else "" for there in self._named))
            except CellProblem as problem:
                name = problem
            self._names[key] = name
        if isinstance(name, CellProblem):
            raise CellProblem(name.field, name.value, name.reason)
        return name

    def _take(self, line: int, raw: str, prefix: str, name: str, terms: Terms) -> None:
        """Keep a row, unless the prefix stands in the sheet already with the same start."""
        row = RateRow(prefix, name, terms.tariff, terms.blocked, terms.valid_from, terms.valid_to)
        sheet, key = self._sheet, (prefix, terms.valid_from)
        held = self._seen.get(key)
        if held is not None:
            self._again(line, raw, row, held, closed=terms.closed)
        elif terms.closed:
            self._seen[key] = (line, row, True, len(sheet.closings))
            sheet.closings.append(Closing(line, prefix, name, _closing_time(row)))
        else:
            self._seen[key] = (line, row, False, len(sheet.rows))
            sheet.rows.append(SheetRow(line, row))

    def _again(self, line: int, raw: str, row: RateRow, held: _Held, *, closed: bool) -> None:
        """Settle a repeated prefix by the option, and list the pair."""
        sheet, (other, kept, kept_closed, place) = self._sheet, held
        differs = _differences(kept, row, closings=(kept_closed, closed))
        if differs:
            sheet.contradictions.append(Repeat(line, other, row.prefix, differs))
        if not differs or self._options.on_repeat == "first":
            sheet.repeats.append(Repeat(line, other, row.prefix, differs))
        elif self._options.on_repeat == "refuse":
            self._refuse(
                line,
                raw,
                "prefix",
                row.prefix,
                f"contradicts line {other}: {_contrast(differs, kept, row)}",
            )
        elif closed != kept_closed:
            raise InvalidInput(
                f"Lines {other} and {line} price and close prefix {row.prefix} at once: correct the sheet.",
                code="contradicting_rows",
            )
        else:
            sheet.repeats.append(Repeat(other, line, row.prefix, differs))
            self._seen[row.prefix, row.valid_from] = (line, row, closed, place)
            if closed:
                sheet.closings[place] = Closing(
                    line, row.prefix, row.destination, _closing_time(row)
                )
            else:
                sheet.rows[place] = SheetRow(line, row)

    def _refuse(self, line: int, raw: str, field: str, value: str, reason: str) -> None:
        refused = self._sheet.refused
        if len(refused) >= self._options.refused_max:
            first = refused[0] if refused else Refusal(line, field, value, reason, raw)
            raise InvalidInput(
                f"More than {self._options.refused_max:,} rows were refused, the first in line {first.line}: {first.reason}. "
                "The file is no rate sheet, or it needs other options.",
                code="too_many_refused",
            )
        refused.append(
            Refusal(
                line, self._layout.titles.get(field, field), value[:100], reason, raw[:_RAW_MAX]
            )
        )

    def _close(self) -> None:
        """Judge what only the whole sheet tells, and write the notes."""
        sheet, layout, notes = self._sheet, self._layout, self._sheet.notes
        numbers = self._reader.status_numbers
        if len(numbers) > 1:
            raise InvalidInput(
                f'The column "{layout.titles["status"]}" holds the numbers {", ".join(sorted(numbers))[:60]}: '
                "say by status_active which of them means that the code is sold.",
                code="unknown_status",
                field="status_active",
            )
        if not sheet.lines:
            raise InvalidInput("The sheet has a header but no rows.", code="empty_file")
        notes.extend(_column_notes(sheet, layout, self._options, self._reader))
        if numbers:
            notes.append(
                f'"{layout.titles["status"]}" is {min(numbers)} in every row and was not interpreted.'
            )
        if self._reader.prices.sign:
            notes.append(f"Prices carry the sign {self._reader.prices.sign}; it was taken off.")
        if self._free:
            notes.append(f"{self._free} line(s) are sold at price 0.")
        if sheet.contradictions:
            notes.append(
                f"{len(sheet.contradictions)} line(s) contradict another line on the same prefix."
            )
        if sheet.repeated:
            notes.append(f"{sheet.repeated} line(s) only repeat another line.")
        if sheet.refused:
            reasons = Counter(
                refusal.reason.partition(":")[0] for refusal in sheet.refused
            ).most_common(3)
            notes.append(
                f"{len(sheet.refused)} row(s) refused, mostly: {'; '.join(f'{r} ({n})' for r, n in reasons)}."
            )


def _column_notes(
    sheet: Sheet, layout: Layout, options: SheetOptions, reader: TermsReader
) -> Iterator[str]:
    """Say what was read as what, wherever there was a choice."""
    read = ", ".join(f"{field} from {title}" for field, title in sheet.columns.items())
    yield f"Read: {read}."
    if sheet.unknown:
        yield f"Not read: {', '.join(sheet.unknown)}."
    if layout.has_header and layout.first > 1:
        yield f"The header is in line {layout.first}; what stands above it was not read."
    if reader.per_second:
        yield "Prices were given per second and are kept per minute."
    if layout.nanp and options.prefix_add is None:
        yield f'"{layout.titles["prefix"]}" holds North American codes: the country code 1 was put before them.'
    timed = {"increments", "first_interval", "next_interval"} & layout.at.keys()
    if "seconds_allowed" in layout.at and options.seconds_allowed is not None:
        yes, no = options.seconds_allowed
        yield f'"{layout.titles["seconds_allowed"]}" was read as increments: yes is {yes}, no is {no}.'
    elif not timed:
        yield f"No column gives increments: every row has {options.increments}."
    elif timed == {"next_interval"} and reader.lone_increment:
        where = "Where only" if reader.paired_increments else "Only"
        yield f"{where} one increment is given: it is the first interval too."
    if "surcharge" in layout.at:
        yield "The surcharge was read as per minute."


def _closing_time(row: RateRow) -> datetime | None:
    """When a closing line ends its prefix: at its end date if it has one, else at its effective date."""
    return row.valid_to if row.valid_to is not None else row.valid_from


def _contrast(differs: tuple[str, ...], kept: RateRow, row: RateRow) -> str:
    """Say what a line says beside what the line before it said."""
    if differs == ("tariff",):
        one, two = kept.tariff, row.tariff
        there = f"{one.next_price}/min in {one.first_interval}/{one.next_interval}"
        here = f"{two.next_price}/min in {two.first_interval}/{two.next_interval}"
        if there != here:
            return f"{there} there, {here} here"
    return f"same prefix, other {' and '.join(word.replace('_', ' ') for word in differs)}"


def _differences(one: RateRow, two: RateRow, *, closings: tuple[bool, bool]) -> tuple[str, ...]:
    """Name what two rows of the same prefix and start do not agree on."""
    found = [
        name
        for name, differ in (
            ("tariff", one.tariff is not two.tariff and one.tariff != two.tariff),
            ("destination", one.destination != two.destination),
            ("blocked", one.blocked != two.blocked),
            ("valid_to", one.valid_to != two.valid_to),
            ("closed", closings[0] != closings[1]),
        )
        if differ
    ]
    if all(closings):
        found = [name for name in found if name == "valid_to"]
    return tuple(found)
