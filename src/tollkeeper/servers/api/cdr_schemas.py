"""What the routes of record files take and give, as the OpenAPI document shows it."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal, Self

import msgspec
from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from tollkeeper.core.usage import Mismatch, Quarantine, Refused, Usage
from tollkeeper.servers.api.cdr_source_schemas import Zone
from tollkeeper.servers.api.schemas import (
    ID_MAX,
    PAGE_MAX,
    AfterNumber,
    Code,
    In,
    Moment,
    Money,
    Out,
    Why,
)
from tollkeeper.services.cdr.brought import AUTO, Brought
from tollkeeper.services.cdr.files import Batch, FileView, MismatchPage
from tollkeeper.services.cdr.quarantine import Filter, Quarantined, ReplayReport
from tollkeeper.services.cdr.rollback import RollbackReport
from tollkeeper.store.cdr_files import MismatchRow
from tollkeeper.store.usage_files import CdrFile
from tollkeeper.wire.cdr.format import Format
from tollkeeper.wire.cdr.sniff import Guess

Id = Annotated[int, Field(ge=1, le=ID_MAX)]
Ids = Annotated[list[Id], Field(min_length=1, max_length=PAGE_MAX)]
FilePath = Annotated[Id, Path(alias="id", description="Number of the file.")]
RecordPath = Annotated[Id, Path(alias="id", description="Number of the record in quarantine.")]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="Items at most.")]
Kind = Literal["load", "replay", "rerate", "rollback", "late_match"]
Status = Literal["loading", "done", "failed", "rolled_back"]
Waiting = Literal["open", "replayed", "dropped"]
FormatCode = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,40}$")]


class _Query(BaseModel):
    """Parameters of an address: what is there and unknown is refused by the app."""

    model_config = ConfigDict(extra="forbid")


class FileQuery(_Query):
    """What is said about a file that is brought."""

    switch: Code = Field(default="", description="The switch whose records these are.")
    source: Code = Field(
        default="",
        description="A source by whose switch, format, mapping and zone the file is read, where "
        "these are not given.",
    )
    name: str = Field(
        min_length=1,
        max_length=255,
        pattern=r"^[^/\x00-\x1f\x7f-\x9f]+$",
        description="Name of the file, for people; its content is what identifies it.",
    )
    format: FormatCode = Field(default=AUTO, description="A code of /v1/cdr/formats, or auto.")
    timezone: Zone = "UTC"


class FileList(Out):
    """A page of files, the newest first; `next` is null on the last one."""

    items: list[FileOut]
    next: int | None


class FilesQuery(_Query):
    """Which files are listed."""

    switch: Code | None = None
    status: Status | None = None
    since: Annotated[Moment, Field(description="First seen then or later.")] = None
    limit: Limit = 100
    after: AfterNumber = 0


class FileOut(Out):
    """A file: records = rated + matched + duplicate + quarantined, to the last one."""

    id: int
    switch: str
    name: str
    sha256: str
    bytes: int
    format: str
    timezone: str
    status: Status
    lines_done: int = Field(description="Lines that are in the books.")
    records: int
    rated: int = Field(description="Priced from the file.")
    matched: int = Field(description="Charged live; the file only confirms it.")
    duplicate: int
    quarantined: int = Field(description="Put aside, whatever became of them since.")
    skipped: int = Field(description="Lines that are no records.")
    error: str
    actor: str
    created_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, file: CdrFile) -> Self:
        """Show a file."""
        return cls(**{name: getattr(file, name) for name in cls.model_fields})


class MoneyOut(Out):
    """What was posted in one currency, reversals taken off."""

    currency: str
    charged: Money = Field(description="To customers, and to resellers above them.")
    cost: Money = Field(description="To vendors.")


class BatchOut(Out):
    """One step that was written as a whole."""

    id: int
    kind: Kind
    file: int | None
    switch: str
    first_line: int
    last_line: int
    records: int
    rated: int
    matched: int
    duplicate: int
    quarantined: int
    skipped: int
    actor: str
    note: str
    summary: dict[str, Any]
    at: datetime
    undone_by: int | None = Field(description="The batch that took it back.")

    @classmethod
    def of(cls, batch: Batch) -> Self:
        """Show a batch."""
        found = {name: getattr(batch, name) for name in cls.model_fields if name != "file"}
        return cls(**found, file=batch.file_id)


class FileDetail(Out):
    """A file and all that became of it."""

    file: FileOut
    quarantine: dict[str, int] = Field(description="Records that wait, by reason.")
    settled: dict[str, int] = Field(description="Records that were replayed or dropped.")
    money: list[MoneyOut]
    batches: list[BatchOut] = Field(description="Its parts; the first thousand.")

    @classmethod
    def of(cls, view: FileView) -> Self:
        """Show a file."""
        return cls(
            file=FileOut.of(view.file),
            quarantine=view.reasons,
            settled=view.settled,
            money=[MoneyOut(currency=m.currency, charged=m.charged, cost=m.cost) for m in view.money],
            batches=[BatchOut.of(batch) for batch in view.batches],
        )  # fmt: skip


class BatchesQuery(_Query):
    """Which batches are listed."""

    kind: Kind | None = None
    file: Id | None = None
    switch: Code | None = None
    limit: Limit = 100
    after: AfterNumber = 0


class BatchList(Out):
    """A page of batches, the newest first; `next` is null on the last one."""

    items: list[BatchOut]
    next: int | None


class Reason(In):
    """Why something is done."""

    reason: Why


class RollbackOut(Out):
    """What was taken back, and by which batch."""

    batch: int
    undone: list[int]
    entries: int = Field(description="Entries posted; nothing is deleted.")

    @classmethod
    def of(cls, report: RollbackReport) -> Self:
        """Show it."""
        return cls(batch=report.batch_id, undone=list(report.undone), entries=report.entries)


# --- quarantine ----------------------------------------------------------------------------------


class QuarantineQuery(_Query):
    """Which records are listed."""

    reason: Quarantine | None = None
    file: Id | None = None
    switch: Code | None = None
    status: Waiting = "open"
    limit: Limit = 100
    after: AfterNumber = 0

    def filter(self) -> Filter:
        """Return it as the services know it."""
        reason = None if self.reason is None else self.reason.value
        return Filter(reason, self.file, self.switch, self.status)


class QuarantineOut(Out):
    """A record that is not in the books, and why."""

    id: int
    file: int | None
    file_name: str
    switch: str
    line: int
    reason: str
    field: str
    value: str
    detail: str
    raw: str
    record: dict[str, Any] | None = Field(description="What was read; null: it could not be.")
    status: Waiting
    at: datetime
    resolved_at: datetime | None
    resolved_by: str

    @classmethod
    def of(cls, held: Quarantined) -> Self:
        """Show a record."""
        own = {"file", "file_name", "record"}
        return cls(
            **{name: getattr(held, name) for name in cls.model_fields if name not in own},
            file=held.file_id,
            file_name=held.file,
            record=None if held.record is None else msgspec.json.decode(held.record),
        )


class QuarantineList(Out):
    """A page of records, the oldest first; `next` is null on the last one."""

    items: list[QuarantineOut]
    next: int | None


class Fix(In):
    """Fields of the record to correct."""

    values: dict[
        Annotated[str, StringConstraints(pattern="^[a-z0-9_]{1,40}$")],
        Annotated[str, StringConstraints(max_length=255)]
        | Annotated[int, Field(ge=-ID_MAX, le=ID_MAX)]
        | None,
    ] = Field(min_length=1, max_length=30, examples=[{"called": "442071838750"}])


class Replay(In):
    """Which open records to play again: all that are given must fit; none given is all."""

    reason: Quarantine | None = Field(default=None, strict=False)
    file: Id | None = None
    switch: Code | None = None
    ids: Ids | None = None

    def filter(self) -> Filter:
        """Return it as the services know it."""
        ids = None if self.ids is None else tuple(self.ids)
        reason = None if self.reason is None else self.reason.value
        return Filter(reason, self.file, self.switch, ids=ids)


class ReplayOut(Out):
    """What became of the records; `still` were put aside again, `unreadable` were never records."""

    played: int
    rated: int
    matched: int
    duplicate: int
    still: int
    unreadable: int

    @classmethod
    def of(cls, report: ReplayReport) -> Self:
        """Show it."""
        return cls(**{name: getattr(report, name) for name in cls.model_fields})


class Drop(In):
    """Records to give up for good."""

    ids: Ids
    why: Why


class Dropped(Out):
    """How many open records were given up."""

    dropped: int


# --- mismatches, formats -------------------------------------------------------------------------


class MismatchQuery(_Query):
    """Which mismatches are listed."""

    from_: date = Field(alias="from", description="Calls of this day (UTC) or later.")
    to: date = Field(description="Calls of this day or earlier.")
    kind: Mismatch | None = None
    customer: Code | None = None
    limit: Limit = 100
    after: AfterNumber = 0


class MismatchOut(Out):
    """Something about a record in the books that does not fit."""

    id: int
    kind: Mismatch
    day: date
    file: int | None
    file_name: str
    line: int
    call_id: str
    customer: str
    vendor: str
    session_id: str | None
    expected: str
    found: str
    detail: str
    at: datetime

    @classmethod
    def of(cls, row: MismatchRow) -> Self:
        """Show it."""
        own = {"file", "file_name"}
        shown = {name: getattr(row, name) for name in cls.model_fields if name not in own}
        return cls(**shown, file=row.file_id, file_name=row.file)


class MismatchList(Out):
    """A page of mismatches, the newest first; `counts` are those of the whole period by kind."""

    items: list[MismatchOut]
    counts: dict[str, int]
    next: int | None

    @classmethod
    def of(cls, page: MismatchPage, limit: int) -> Self:
        """Show a page, of which one more than ``limit`` was asked for."""
        items = [MismatchOut.of(row) for row in page.items[:limit]]
        more = items[-1].id if len(page.items) > limit else None
        return cls(items=items, counts=page.counts, next=more)


class FormatOut(Out):
    """A format that is read."""

    code: str
    title: str
    suffixes: list[str]
    needs_mapping: bool

    @classmethod
    def of(cls, format_: Format) -> Self:
        """Show it."""
        return cls(
            code=format_.code,
            title=format_.title,
            suffixes=list(format_.suffixes),
            needs_mapping=format_.code in {"csv", "jsonl"},
        )


class FormatList(Out):
    """All formats."""

    items: list[FormatOut]


class SniffOut(Out):
    """What a file seems to be."""

    format: str = Field(description="Empty: nothing is known that looks like it.")
    confidence: int = Field(description="0 to 100.")
    mapping: dict[str, Any] | None = Field(description="A proposal, to be checked.")
    rows: list[dict[str, Any]] = Field(description="The first records, as they would be read.")
    notes: list[str]

    @classmethod
    def of(cls, guess: Guess) -> Self:
        """Show it."""
        return cls(
            format=guess.format,
            confidence=guess.confidence,
            mapping=None if guess.mapping is None else guess.mapping.to_dict(),
            rows=[msgspec.to_builtins(row) for row in guess.rows if isinstance(row, Usage | Refused)],
            notes=list(guess.notes),
        )  # fmt: skip


def brought_of(query: FileQuery, mapping: dict[str, object] | None, actor: str) -> Brought:
    """Return what is said about a file."""
    return Brought(query.switch, query.name, query.format, mapping, query.timezone, actor)


FileList.model_rebuild()
