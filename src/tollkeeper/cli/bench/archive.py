"""The archive: how long one number, one caller and one call take to be found in very many records.

The records are made up in bounded memory, a day at a time, and written as archived days are.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tollkeeper.store import archive_files as files
from tollkeeper.store.archive_search import Part, search_parts
from tollkeeper.store.usage_search import UsageFilter

FIRST_DAY = date(2026, 1, 1)
CALLED, CALLERS = 20_000_000, 5_000_000
"""Different numbers called and calling: each number comes again some times a month."""
SEED = 17
ROUNDS = 9

_Ints = npt.NDArray[np.int64]


async def measure(
    folder: Path, *, records: int = 100_000_000, days: int = 30, keep: bool = False
) -> dict[str, object]:
    """Write ``records`` over ``days`` into ``folder``, search them, and delete them unless ``keep``.

    Returns seconds of nine different searches each, over all days: ``called_s``, ``caller_s``,
    ``call_id_s`` (the median) and the same with ``_worst_s``; also ``records``, ``bytes`` (about
    80 a record) and ``write_s``.
    """
    place = folder / "usage"
    began = time.perf_counter()
    try:
        parts = [
            await asyncio.to_thread(write_day, place, FIRST_DAY + timedelta(n), records // days, n)
            for n in range(days)
        ]
        found: dict[str, object] = {
            "records": records // days * days,
            "bytes": await asyncio.to_thread(_bytes, place),
            "write_s": time.perf_counter() - began,
        }
        for name, texts in _wanted(records // days, days).items():
            seconds = [await asyncio.to_thread(_search, parts, name, text) for text in texts]
            found[f"{name}_s"] = statistics.median(seconds)
            found[f"{name}_worst_s"] = max(seconds)
        return found
    finally:
        if not keep:
            await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)


def _wanted(rows: int, days: int) -> dict[str, list[str]]:
    """What is looked for: numbers that come some times or never, and calls that there are."""
    dice = np.random.default_rng(SEED)
    ids = [
        _call_ids(np.array([number]), n % days)[0].as_py()
        for n, number in enumerate(dice.integers(0, rows, ROUNDS))
    ]
    return {
        "called": [str(_CALLED_BASE + number) for number in dice.integers(0, CALLED, ROUNDS)],
        "caller": [str(_CALLER_BASE + number) for number in dice.integers(0, CALLERS, ROUNDS)],
        "call_id": ids,
    }


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.parquet"))


def _search(parts: list[Part], name: str, text: str) -> float:
    since = datetime(FIRST_DAY.year, 1, 1, tzinfo=UTC)
    wanted = UsageFilter(since=since, until=since + timedelta(366), **{name: text})  # type: ignore[arg-type]
    began = time.perf_counter()
    rows = search_parts(parts, wanted, limit=1000, undone=())
    taken = time.perf_counter() - began
    assert all(getattr(row, name) == text for row in rows)
    assert rows or name != "call_id"
    return taken


# --- made up -------------------------------------------------------------------------------------

_CALLED_BASE, _CALLER_BASE = 440_000_000_000, 390_000_000_000


def write_day(folder: Path, day: date, rows: int, seed: int) -> Part:
    """Write one archived day; the same seed makes the same records."""
    dice = np.random.default_rng(SEED + seed)
    called = np.sort(dice.integers(0, CALLED, rows))
    caller = dice.integers(0, CALLERS, rows)
    midnight = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000
    start = midnight + dice.integers(0, 86_400_000_000, rows)
    number = dice.permutation(rows)
    target = folder / f"{day:%Y/%m/%d}" / "part-1"
    target.mkdir(parents=True)
    groups = range(0, rows, files.ROW_GROUP_ROWS)
    with files.open_writer(target / files.USAGE, files.USAGE) as writer:
        for first in groups:
            part = slice(first, first + files.ROW_GROUP_ROWS)
            writer.write_table(
                _table(day, seed, dice, called[part], caller[part], start[part], number[part])
            )
    for name, sorted_by in ((files.BY_CALLER, caller), (files.BY_CALL_ID, None)):
        order = np.argsort(number) if sorted_by is None else np.argsort(sorted_by, kind="stable")
        with files.open_writer(target / name, name) as writer:
            for first in groups:
                take = order[first : first + files.ROW_GROUP_ROWS]
                key = (
                    _call_ids(number[take], seed)
                    if sorted_by is None
                    else _numbers(_CALLER_BASE + caller[take])
                )
                columns = [key, _numbers(_CALLED_BASE + called[take]), pa.array(start[take]).cast(files.SCHEMA.field("start_at").type),
                           _same(1 + seed, len(take), pa.int64()), pa.array(number[take])]  # fmt: skip
                writer.write_table(pa.Table.from_arrays(columns, schema=files.index_schema(name)))
    return Part(day, target.as_uri())


def _numbers(values: _Ints) -> pa.Array:
    return pa.array(values).cast(pa.string())


def _call_ids(values: _Ints, seed: int) -> pa.Array:
    """As switches make them: long, and telling nothing of the number or the time."""
    scattered = (values.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) ^ np.uint64(seed)
    # The order of the index is that of the text, so the number comes first, zeros and all.
    head = [f"{value:09d}" for value in values.tolist()]
    tail = [f"{value:016x}" for value in scattered.tolist()]
    return pa.array([f"{a}-{b}@10.0.0.{seed}" for a, b in zip(head, tail, strict=True)])


def _same(value: object, rows: int, kind: pa.DataType) -> pa.Array:
    return pa.repeat(pa.scalar(value, kind), rows)


def _table(
    day: date,
    seed: int,
    dice: np.random.Generator,
    called: _Ints,
    caller: _Ints,
    start: _Ints,
    number: _Ints,
) -> pa.Table:
    rows = len(called)
    seconds = dice.integers(0, 600, rows)
    money = pa.array(seconds * 10_833).cast(pa.decimal128(20, 0)).cast(files.MONEY)
    columns = {
        "day": _same(day, rows, pa.date32()),
        "batch_id": _same(1 + seed, rows, pa.int64()),
        "line": pa.array(number),
        "start_at": pa.array(start).cast(files.SCHEMA.field("start_at").type),
        "answer_at": pa.array(start + 3_000_000).cast(files.SCHEMA.field("answer_at").type),
        "duration_ms": pa.array(seconds * 1000 + 7),
        "call_id": _call_ids(number, seed),
        "caller": _numbers(_CALLER_BASE + caller),
        "called": _numbers(_CALLED_BASE + called),
        "customer_id": pa.array(dice.integers(1, 41, rows)),
        "vendor_id": pa.array(dice.integers(41, 44, rows)),
        "sell_billed": pa.array(seconds.astype(np.int32)),
        "buy_billed": pa.array(seconds.astype(np.int32)),
        "pdd_ms": pa.array(dice.integers(200, 9000, rows).astype(np.int32)),
        "charge": money,
        "cost": money,
    }
    usual = {"service": "voice", "leg": "", "state": "rated", "destination": "United Kingdom",
             "sell_prefix": "44", "buy_prefix": "447"}  # fmt: skip
    for field in files.SCHEMA:
        if field.name in columns:
            continue
        if field.name == "session_id":
            columns[field.name] = pa.nulls(rows, pa.string())
        elif pa.types.is_string(field.type):
            columns[field.name] = _same(usual[field.name], rows, field.type)
        else:
            columns[field.name] = _same(
                Decimal(200) if field.type == files.MONEY else 200, rows, field.type
            )
    return pa.Table.from_arrays([columns[name] for name in files.SCHEMA.names], schema=files.SCHEMA)
