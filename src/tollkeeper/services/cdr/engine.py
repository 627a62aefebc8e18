"""Re-rating of archived records: what they would cost by other rates, worked out part by part.

A dry run over days that are archived, and over what the same period still has in the database. The
records are read where they are, a piece of a Parquet file at a time; each piece gives a partial sum
and, where wanted, a file of its own. Partial sums are added in any order, so that it is of no
matter who works out which piece, or how often: the result is the same in this process
(:class:`LocalEngine`) and on a cluster (tollkeeper.services.cdr.ray_engine).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Protocol

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from tollkeeper.bulk.rerate import (
    COLUMNS,
    RESOLD,
    Beside,
    Partial,
    Prices,
    Rerated,
    Wanted,
    merge,
    rerate_table,
)
from tollkeeper.errors import Conflict, InvalidInput, SetupError
from tollkeeper.services.cdr.assemble import money
from tollkeeper.services.cdr.reference import Reference, microseconds, read_reference
from tollkeeper.services.cdr.rerate import Change, RerateJob, RerateReport
from tollkeeper.store import rerate as store
from tollkeeper.store import rerate_archive as archived
from tollkeeper.store.archive import ArchivePart, read_parts
from tollkeeper.store.archive_files import USAGE, place_of, readable
from tollkeeper.store.db import Connection, Database

__all__ = [
    "ENGINES",
    "Engine",
    "LocalEngine",
    "Piece",
    "Shared",
    "engine_by_name",
    "folder_uri",
    "rerate_archive",
    "rerate_piece",
]

ENGINES = ("local", "ray")

Say = Callable[[int, int], None]
"""Pieces done, pieces in all."""

PIECE_ROWS = 500_000
"""A piece takes about half a GiB to work out, and a second on one core."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What every piece needs: the rates, what is wanted, and the folder of the result (a URI)."""

    prices: Prices
    wanted: Wanted
    output: str | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """Some row groups of an archived part; ``name`` is that of the file of its result."""

    day: date
    uri: str
    groups: tuple[int, ...]
    name: str


class Engine(Protocol):
    """Who works out the pieces. The functions block, and are called one after the other.

    Raises (all of them):
        SetupError: it cannot work as it is installed. OSError: a part cannot be read.
    """

    def start(self, shared: Shared) -> None:
        """Take what every piece needs."""

    def submit(self, beside: Beside, pieces: Sequence[Piece]) -> list[Partial]:
        """Take pieces of one day; returns what was finished meanwhile, of whatever piece."""

    def finish(self) -> list[Partial]:
        """Wait for the rest."""

    def close(self) -> None:
        """Let go of everything, at whatever stage."""


@dataclass(slots=True)
class LocalEngine:
    """Works out one piece after the other in this process."""

    threads: int = 1
    _shared: Shared | None = field(default=None, init=False)

    def start(self, shared: Shared) -> None:
        """Take what every piece needs."""
        self._shared = shared

    def submit(self, beside: Beside, pieces: Sequence[Piece]) -> list[Partial]:
        """Work the pieces out."""
        assert self._shared is not None
        return [rerate_piece(self._shared, beside, piece, threads=self.threads) for piece in pieces]

    def finish(self) -> list[Partial]:
        """Nothing is left."""
        return []

    def close(self) -> None:
        """Forget the rates."""
        self._shared = None


def engine_by_name(name: str, *, address: str | None = None) -> Engine:
    """The engine of a name; ``address`` is that of its cluster, None: the one of this machine.

    Raises:
        InvalidInput: there is no such engine, or it has no address.
        SetupError: what it needs is not installed.
    """
    if name == "local":
        if address is not None:
            raise InvalidInput("address: the engine local has none", field="address")
        return LocalEngine()
    if name == "ray":
        # Ray is an optional extra: only those who ask for it need it.
        from tollkeeper.services.cdr.ray_engine import RayEngine  # noqa: PLC0415

        return RayEngine(address)
    raise InvalidInput(f"engine: choose one of {', '.join(ENGINES)}", field="engine")


def folder_uri(folder: str) -> str:
    """The URI of a folder that a user names: a path, or what is a URI already."""
    return folder if "://" in folder else Path(folder).expanduser().absolute().as_uri()


# --- a piece -------------------------------------------------------------------------------------


def rerate_piece(shared: Shared, beside: Beside, piece: Piece, *, threads: int = 1) -> Partial:
    """Price a piece's records anew. Doing it again gives the same and writes the same file.

    Raises:
        OSError: the part cannot be read, or the result not be written.
    """
    place, path = place_of(piece.uri)
    with readable(), place.open_input_file(f"{path}/{USAGE}") as source:
        table = pq.ParquetFile(source).read_row_groups(list(piece.groups), columns=list(COLUMNS))
    rerated = rerate_table(table, shared.prices, shared.wanted, beside, threads=threads)
    if shared.output is not None:
        write_result(shared.output, piece.day, piece.name, rerated)
    return rerated.partial


def write_result(output: str, day: date, name: str, rerated: Rerated) -> None:
    """Write what legs cost and would cost: one file, there as a whole or not at all.

    Its columns are ``day`` and those of tollkeeper.bulk.rerate.LEGS. Without legs there is no file.

    Raises:
        OSError: it cannot be written.
    """
    legs = rerated.legs()
    if not legs.num_rows:
        return
    legs = legs.add_column(0, "day", pa.repeat(pa.scalar(day, pa.date32()), legs.num_rows))
    place, folder = place_of(output)
    place.create_dir(folder, recursive=True)
    target = f"{folder}/{name}.parquet"
    if not isinstance(place, fs.LocalFileSystem):
        # A bucket shows an object only when it is complete.
        pq.write_table(legs, target, filesystem=place, compression="zstd")
        return
    pq.write_table(legs, f"{target}.part", filesystem=place, compression="zstd")
    place.move(f"{target}.part", target)


def pieces_of(part: ArchivePart, wanted: Wanted) -> Iterator[Piece]:
    """The pieces of a part that can have wanted records: it is sorted by the number called.

    Raises:
        OSError: the part cannot be read.
    """
    place, path = place_of(part.uri)
    with readable(), place.open_input_file(f"{path}/{USAGE}") as source:
        file = pq.ParquetFile(source)
        column = file.schema_arrow.names.index("called")
        groups: list[int] = []
        rows = count = 0
        for number in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(number)
            if not _may_have(group.column(column).statistics, wanted.called):
                continue
            groups.append(number)
            rows += group.num_rows
            if rows >= PIECE_ROWS:
                yield _piece(part, tuple(groups), count)
                groups, rows, count = [], 0, count + 1
        if groups:
            yield _piece(part, tuple(groups), count)


def _piece(part: ArchivePart, groups: tuple[int, ...], count: int) -> Piece:
    return Piece(part.day, part.uri, groups, f"{part.day}-part-{part.part}-{count:05d}")


def _may_have(statistics: object, prefix: str | None) -> bool:
    """Whether a row group can have numbers with a prefix, by the least and greatest of them."""
    if not prefix or statistics is None or not getattr(statistics, "has_min_max", False):
        return True
    least, greatest = str(getattr(statistics, "min", "")), str(getattr(statistics, "max", ""))
    return least[: len(prefix)] <= prefix <= greatest[: len(prefix)]


# --- a period ------------------------------------------------------------------------------------


async def rerate_archive(
    database: Database,
    job: RerateJob,
    engine: Engine,
    *,
    output: str | None = None,
    say: Say = lambda *_: None,
) -> RerateReport:
    """Tell what records would cost by other rates, archived or not; nothing is posted.

    With ``output``, a folder's URI, every leg's old and new amount is written there as Parquet
    files. With an engine of many machines all of them must reach the archive and that folder.

    Raises:
        InvalidInput: no time to look at, it is to be applied, or the folder's URI is none.
        Conflict: the folder is not empty. Busy: a day is being archived just now.
        NotFound: a card or version that is to be used does not exist.
        SetupError: the engine cannot work, or a part not be read.
    """
    wanted = _wanted(job)
    try:
        if output is not None:
            await asyncio.to_thread(_check_output, output)
        reference = await read_reference(
            database, "", since=wanted.since, until=wanted.until, choice=job.choice
        )
        shared = Shared(prices_of(reference), wanted, output)
        try:
            await asyncio.to_thread(engine.start, shared)
            async with archived.one_moment(database) as connection:
                run = _Run(job, engine, shared, say)
                await run.read(connection)
            total = await run.finish()
        finally:
            await asyncio.to_thread(engine.close)
    except OSError as error:
        raise SetupError(f"the records cannot be re-rated: {error}") from error
    return report_of(total, reference)


def _wanted(job: RerateJob) -> Wanted:
    chosen = job.selection
    if chosen.since >= chosen.until:
        raise InvalidInput("until: the period must end after it begins", field="until")
    if job.apply:
        raise InvalidInput(
            "apply: with an engine it is a dry run; archived records cannot be revised",
            field="apply",
        )
    return Wanted(
        since=microseconds(chosen.since),
        until=microseconds(chosen.until),
        customer=chosen.customer,
        vendor=chosen.vendor,
        called=chosen.called,
        destination=chosen.destination,
    )


def _check_output(output: str) -> None:
    try:
        place, path = place_of(output)
    except pa.ArrowInvalid as error:
        raise InvalidInput(
            f"output: {error}; give a folder or s3://bucket/folder", field="output"
        ) from error
    there = place.get_file_info(fs.FileSelector(path, allow_not_found=True))
    if there:
        raise Conflict(
            f"{output} is not empty; choose a new folder for the result", code="output_exists"
        )


def prices_of(reference: Reference) -> Prices:
    """The rates of a picture as they are sent to workers."""
    # A user's records are priced and paid by its customer's plan and wallets.
    paid_by = {
        id_: payer
        for id_ in reference.parties
        if (payer := reference.parties.get(reference.payers.get(id_, id_))) is not None
    }
    plans = {
        (id_, side, service): place
        for (plan_id, side, service), place in reference.plans.items()
        for id_, payer in paid_by.items()
        if payer.plan_id == plan_id and (plan_id, side, service) not in reference.live_terms
    }
    wallets = {
        (id_, currency): wallet
        for id_, payer in paid_by.items()
        for currency, wallet in payer.wallets.items()
    }
    return Prices.of(reference.book, plans, wallets)


class _Run:
    """One re-rating on its way through the days."""

    def __init__(self, job: RerateJob, engine: Engine, shared: Shared, say: Say) -> None:
        self._job, self._engine, self._shared, self._say = job, engine, shared, say
        self._total = Partial()
        self._done = self._all = 0

    async def read(self, connection: Connection) -> None:
        """Give the pieces of all days to the engine; price here what is still in the database."""
        chosen = self._job.selection
        days = await store.read_days(connection, chosen)
        parts = await read_parts(connection, chosen.since.date(), chosen.until.date())
        pieces = await asyncio.to_thread(self._pieces, parts)
        self._all = sum(map(len, pieces.values()))
        for day in days:
            batches = await store.read_batches(connection, chosen, day)
            if day in pieces:
                beside = Beside(
                    batches,
                    await archived.read_revised(connection, day),
                    await archived.read_resold(connection, day),
                )
                self._add(await asyncio.to_thread(self._engine.submit, beside, pieces[day]))
            for batch in batches:
                await self._here(connection, day, batch)

    def _pieces(self, parts: Sequence[ArchivePart]) -> Mapping[date, list[Piece]]:
        found: dict[date, list[Piece]] = {}
        for part in parts:
            found.setdefault(part.day, []).extend(pieces_of(part, self._shared.wanted))
        return found

    async def _here(self, connection: Connection, day: date, batch: int) -> None:
        """Price what the database has of a day and batch."""
        frame = await store.read_records(connection, self._job.selection, day, batch)
        if frame.is_empty():
            return
        number = pl.lit(batch, pl.Int64).alias("batch_id")
        legs = (await store.read_legs(connection, day, batch)).with_columns(number)
        records = frame.with_columns(number).rename({"start": "start_at"}).select(COLUMNS)
        rerated = await asyncio.to_thread(
            rerate_table,
            records.to_arrow(),
            self._shared.prices,
            self._shared.wanted,
            Beside(resold=legs.select(RESOLD.names).to_arrow().cast(RESOLD)),
        )
        if self._shared.output is not None:
            name = f"{day}-batch-{batch}"
            await asyncio.to_thread(write_result, self._shared.output, day, name, rerated)
        self._total = merge([self._total, rerated.partial])

    def _add(self, partials: Sequence[Partial]) -> None:
        self._total = merge([self._total, *partials])
        self._done += len(partials)
        self._say(self._done, self._all)

    async def finish(self) -> Partial:
        """Wait for the engine."""
        self._add(await asyncio.to_thread(self._engine.finish))
        return self._total


def report_of(total: Partial, reference: Reference) -> RerateReport:
    """What was found, the largest differences first."""
    changes = [
        Change(
            side, reference.parties[party].code, destination, currency, legs, money(was), money(amount)
        )
        for (side, party, destination, currency), (legs, was, amount) in total.sums.items()
    ]  # fmt: skip
    changes.sort(
        key=lambda one: (-abs(one.difference), one.side, one.party, one.destination, one.currency)
    )
    return RerateReport(
        records=total.records,
        changed=total.changed,
        unpriced=total.unpriced,
        live=total.live,
        changes=tuple(changes),
    )
