"""Archived days as files: a folder of Parquet a part, on this machine or in an S3 bucket.

``usage.parquet`` holds the records sorted by the number called, so that the statistics of its row
groups lead to the few that can have a number. ``by_caller.parquet`` and ``by_call_id.parquet`` are
small and sorted by those; they tell the number that each record is found by.

Files are made on this machine's disk in bounded memory and then copied through pyarrow's file
systems; what was copied is read back and checked before anybody relies on it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import csv, fs

from tollkeeper.errors import SetupError
from tollkeeper.store.db import queries
from tollkeeper.store.usage_search import COLUMNS

_SQL = queries("archive_files")

USAGE, BY_CALLER, BY_CALL_ID = "usage.parquet", "by_caller.parquet", "by_call_id.parquet"
FILES = (USAGE, BY_CALLER, BY_CALL_ID)

ROW_GROUP_ROWS = 102_400
"""About 100,000, and a multiple of the 2,048 rows that DuckDB works on at once."""

MONEY = pa.decimal128(28, 8)
_TIME = pa.timestamp("us", tz="UTC")
_TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(COLUMNS, pa.string()),
    **dict.fromkeys(("batch_id", "line", "duration_ms", "customer_id", "vendor_id"), pa.int64()),
    **dict.fromkeys(("trunk_in", "trunk_out", "sell_wallet", "buy_wallet"), pa.int64()),
    **dict.fromkeys(("sell_version", "buy_version"), pa.int64()),
    **dict.fromkeys(("pdd_ms", "sell_row", "sell_billed", "buy_row", "buy_billed"), pa.int32()),
    **dict.fromkeys(("sip", "q850", "mos"), pa.int16()),
    **dict.fromkeys(("start_at", "answer_at"), _TIME),
    **dict.fromkeys(("charge", "cost"), MONEY),
    "day": pa.date32(),
}
SCHEMA = pa.schema([(name, _TYPES[name]) for name in COLUMNS])
"""The columns of ``usage.parquet``: those of the table, in their order."""

INDEXES = {BY_CALLER: "caller", BY_CALL_ID: "call_id"}
PAGE_BYTES = 32 * 1024
"""Small pages: a search decodes the few of them that hold what it found. With the usual megabyte it
took twice as long."""

_REPEATED = [
    name
    for name in COLUMNS
    if name not in {"line", "start_at", "answer_at", "duration_ms", "call_id", "caller", "called"}
]
"""Columns whose values come again; a dictionary of the others would only be in the way."""

SORT_MIB = 256
_COPY_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class FileFact:
    """What a file is known by."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Totals:
    """What the records of a part add up to, over all currencies: a checksum, not money."""

    rows: int
    charge: Decimal
    cost: Decimal


# --- places --------------------------------------------------------------------------------------


def root_uri(url: str, data_dir: Path) -> str:
    """The archive's address: a folder of this machine or ``s3://bucket/folder``.

    Raises:
        SetupError: neither, or an address with credentials in it: it is stored with each part.
    """
    if "://" not in url:
        return (Path(url).expanduser() if url else data_dir / "archive").absolute().as_uri()
    parts = urlsplit(url)
    if "@" in parts.netloc or "secret" in parts.query.lower():
        raise SetupError(
            "archive_url must not hold credentials; give them by AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or by the machine's role."
        )
    if parts.scheme not in {"file", "s3"}:
        raise SetupError("archive_url must be a folder, or begin with s3:// or file://.")
    return url


def below(uri: str, *names: str) -> str:
    """The address of something in a folder; what stands after ``?`` stays at the end."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(path="/".join((parts.path.rstrip("/"), *names))))


def place_of(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system of an address, and the path in it."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return _filesystem("file:///"), fs.FileSystem.from_uri(uri)[1]
    # The client of a bucket is made once: it may ask the network where the bucket is.
    client = _filesystem(urlunsplit(parts._replace(path="")))
    return client, f"{parts.netloc}{parts.path}"


@cache
def _filesystem(uri: str) -> fs.FileSystem:
    return fs.FileSystem.from_uri(uri)[0]


def local_path(uri: str) -> str | None:
    """The path of an address on this machine; None for a bucket."""
    return place_of(uri)[1] if urlsplit(uri).scheme == "file" else None


# --- making --------------------------------------------------------------------------------------


class RowWriter:
    """Records on their way: CSV as PostgreSQL copies it goes in, a Parquet file is what remains.

    Raises (from :meth:`add`):
        pyarrow.ArrowInvalid: a value that the columns cannot hold, such as an amount with more
            than 8 decimals.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._writer = pq.ParquetWriter(path, SCHEMA, compression="lz4")

    def add(self, block: bytes) -> None:
        """Take some whole lines of CSV."""
        table = csv.read_csv(
            pa.BufferReader(block),
            read_options=csv.ReadOptions(
                column_names=list(COLUMNS), use_threads=False, block_size=len(block) + 1
            ),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types=SCHEMA,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
        self.rows += table.num_rows
        self._writer.write_table(table)

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


def connect(work: Path | None = None, *, memory_mib: int = SORT_MIB, threads: int = 1) -> Any:
    """A DuckDB of this call alone; what does not fit into memory goes to the folder ``work``."""
    config: dict[str, Any] = {"memory_limit": f"{memory_mib}MiB", "threads": threads}
    if work is not None:
        config["temp_directory"] = str(work)
    connection = duckdb.connect(":memory:", config=config)
    connection.execute(_SQL["settings"])
    return connection


@contextmanager
def readable() -> Iterator[None]:
    """Whatever says that a file cannot be read says so as OSError."""
    try:
        yield
    except (duckdb.Error, pa.ArrowInvalid) as error:
        raise OSError(str(error).partition("\n")[0]) from error


def quote(text: str) -> str:
    """A text as it stands in DuckDB's SQL."""
    return "'" + text.replace("'", "''") + "'"


def open_writer(path: Path, file: str) -> pq.ParquetWriter:
    """A writer of one of the files of a part; each table written to it is a row group."""
    schema = SCHEMA if file == USAGE else index_schema(file)
    return pq.ParquetWriter(
        path, schema, compression="zstd", use_dictionary=_REPEATED, data_page_size=PAGE_BYTES
    )


def index_schema(file: str) -> pa.Schema:
    """The columns of one of the small files."""
    columns = (INDEXES[file], "called", "start_at", "batch_id", "line")
    return pa.schema([SCHEMA.field(name) for name in columns])


def sort_part(source: Path, folder: Path, *, memory_mib: int = SORT_MIB) -> None:
    """Make the files of a part in ``folder`` from records in any order."""
    with connect(folder / "sorting", memory_mib=memory_mib) as duck:
        for file in FILES:
            first = INDEXES.get(file, "called")
            schema = SCHEMA if file == USAGE else index_schema(file)
            text = _SQL["sorted"].format(
                columns=", ".join(schema.names), source=quote(str(source)), first=first
            )
            with open_writer(folder / file, file) as writer:
                for batch in duck.sql(text).to_arrow_reader(ROW_GROUP_ROWS):
                    writer.write_table(pa.Table.from_batches([batch]).cast(schema))


def store_part(folder: Path, uri: str) -> dict[str, FileFact]:
    """Copy the files of a part to their place, for good; returns what was sent."""
    place, path = place_of(uri)
    place.create_dir(path, recursive=True)
    facts = {}
    for name in FILES:
        with (folder / name).open("rb") as source, place.open_output_stream(f"{path}/{name}") as to:
            digest = hashlib.sha256()
            while block := source.read(_COPY_BYTES):
                digest.update(block)
                to.write(block)
        facts[name] = FileFact((folder / name).stat().st_size, digest.hexdigest())
    if (local := local_path(uri)) is not None:
        _sync(Path(local))
    return facts


def _sync(folder: Path) -> None:
    """Wait until the files are on the disk, and the folders that lead to them."""
    for each in [*sorted(folder.iterdir()), folder, *list(folder.parents)[:4]]:
        handle = os.open(each, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_back(uri: str) -> tuple[Totals, dict[str, FileFact]]:
    """Read a stored part to its end: what it adds up to, and what its files are."""
    place, path = place_of(uri)
    facts = {}
    for name in FILES:
        digest, size = hashlib.sha256(), 0
        with place.open_input_stream(f"{path}/{name}") as stream:
            while block := stream.read(_COPY_BYTES):
                digest.update(block)
                size += len(block)
        facts[name] = FileFact(size, digest.hexdigest())
    rows = {name: pq.read_metadata(f"{path}/{name}", filesystem=place).num_rows for name in FILES}
    scanned = ds.dataset(f"{path}/{USAGE}", filesystem=place, format="parquet").scanner(
        columns=["charge", "cost"], batch_size=65_536, batch_readahead=2, fragment_readahead=1
    )
    with readable(), connect() as duck:
        duck.register("source", scanned.to_reader())
        ((count, charge, cost),) = duck.execute(_SQL["totals"]).fetchall()
    if set(rows.values()) != {count}:
        raise OSError(f"the files of {uri} disagree: {rows}")
    return Totals(count, charge, cost), facts


def remove_part(uri: str) -> None:
    """Delete a part's folder; one that is not there is gone already."""
    place, path = place_of(uri)
    if place.get_file_info(path).type == fs.FileType.NotFound:
        return
    place.delete_dir(path)


def batches_of(path: Path, rows: int) -> Iterator[pa.RecordBatch]:
    """The records of a file of :class:`RowWriter`, ``rows`` at a time, in their order."""
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=rows)
