"""What reading a sheet gives: rows, and an account of every line that did not become one."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tollkeeper.core.tariff import RateRow


class SheetRow(NamedTuple):
    """A row of the card, and the line of the file (from 1) that it was read from."""

    line: int
    row: RateRow


class Refusal(NamedTuple):
    """A line that was not taken: the cell that is wrong and why. ``raw`` is the line, cut at 500."""

    line: int
    column: str
    value: str
    reason: str
    raw: str


class Repeat(NamedTuple):
    """Line ``line`` gives a prefix again that line ``other`` gives too, with the same start.

    ``differs`` names what contradicts (``tariff``, ``destination``, ``blocked``, ``valid_to``,
    ``closed``); it is empty when both lines say the same.
    """

    line: int
    other: int
    prefix: str
    differs: tuple[str, ...]


class Closing(NamedTuple):
    """A line that ends the sale of a prefix at ``at`` (UTC; None: when the card is activated)."""

    line: int
    prefix: str
    destination: str
    at: datetime | None


@dataclass(slots=True)
class Sheet:
    """A sheet that was read. Nothing of it is lost: see :meth:`check`.

    Attributes:
        rows: What becomes the card, in the order of the file.
        refused: Lines that were not taken.
        repeats: Lines dropped because the same prefix stands elsewhere (identical repeats, and
            with ``on_repeat`` "first" or "last" the losers).
        contradictions: Every pair of lines that contradict each other, whatever became of them.
        closings: Lines that end a prefix instead of pricing it.
        notes: Sentences for people: how the sheet was understood.
        columns: Field to the title (or position) it was read from.
        unknown: Titles that were not read.
        lines: Data lines that are not blank (a quoted line break does not count).
        blank: Blank lines after the header.
        expanded: Codes that lists and ranges add beyond one a line.
        rows_in: ``lines + expanded``: what the file asks for.
    """

    rows: list[SheetRow] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    repeats: list[Repeat] = field(default_factory=list)
    contradictions: list[Repeat] = field(default_factory=list)
    closings: list[Closing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    delimiter: str = ""
    decimal: str = ""
    encoding: str = ""
    lines: int = 0
    blank: int = 0
    expanded: int = 0

    @property
    def rows_in(self) -> int:
        """How many codes the file asks for; a refused line counts once."""
        return self.lines + self.expanded

    @property
    def repeated(self) -> int:
        """How many lines only repeat, word for word, what an earlier line said."""
        return sum(1 for repeat in self.repeats if not repeat.differs)

    @property
    def closing_times(self) -> dict[str, datetime | None]:
        """Prefix to the moment at which it is closed, as ``core.deck`` takes it."""
        return {closing.prefix: closing.at for closing in self.closings}

    def check(self) -> None:
        """Assert that every code of the file is a row, a refusal, a repeat or a closing."""
        accounted = len(self.rows) + len(self.refused) + len(self.repeats) + len(self.closings)
        assert self.rows_in == accounted, f"{self.rows_in} codes in, {accounted} accounted for"
