"""A day of usage records as a class-4 switch writes them, made up; the same seed makes the same file.

Lines come in the order in which the calls end, at the rate of the hour. Each customer has favourite
destinations of its own, so that few prefixes make most of the traffic. Some lines are repeats of
earlier ones, some cannot be read, and some are of calls that were charged live.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Columns = dict[str, Ints]

CUSTOMERS, VENDORS = 40, 3
CHUNK = 250_000
"""Lines that are made at once: the memory that this takes does not grow with the file."""

HEADER = (
    "call_id,trunk_in,ip_in,trunk_out,caller,called,setup_time,answer_time,release_time,duration,"
    "sip_code,q850_cause,pdd_ms,codec,sequence"
)
MAPPING: dict[str, object] = {
    "format": "csv",
    "delimiter": ",",
    "header": True,
    "quote": "",
    "fields": {
        "call_id": "call_id",
        "trunk_in": "trunk_in",
        "ip_in": "ip_in",
        "trunk_out": "trunk_out",
        "caller": "caller",
        "called": "called",
        "start": {"column": "setup_time", "time": "%Y-%m-%d %H:%M:%S.%f"},
        "answer": {"column": "answer_time", "time": "%Y-%m-%d %H:%M:%S.%f"},
        "end": {"column": "release_time", "time": "%Y-%m-%d %H:%M:%S.%f"},
        "duration": {"column": "duration", "unit": "s"},
        "sip": "sip_code",
        "q850": "q850_cause",
        "pdd": {"column": "pdd_ms", "unit": "ms"},
        "sequence": "sequence",
    },
}
"""How the file is read (tollkeeper.wire.cdr.mapping)."""

_DAY_S = 86_400
_FIRST_LIVE_LINES = 10
# Relative traffic of each hour of the day, UTC: a wholesale carrier between Europe and Asia.
_HOURS = (3, 2, 2, 2, 3, 4, 6, 9, 12, 14, 15, 15, 14, 15, 15, 14, 13, 12, 11, 10, 9, 8, 6, 4)
_ANSWERED = 0.62
_FAVOURITES = 1.25
"""The exponent of Zipf's law for destinations; for customers it is 0.8."""
_MEAN_MS = 150_000
# Why calls fail: share, SIP status, Q.850 cause.
_CAUSES = ((40, 486, 17), (25, 480, 18), (15, 487, 19), (12, 503, 34), (8, 404, 1))
_OTHER_BODY_MS = 7_000
"""By so much longer is the second record of a call that comes again with another body."""


@dataclass(frozen=True, slots=True)
class LiveCalls:
    """Calls that were charged live: their ids, and columns of the same length (times in ms, UTC)."""

    call_id: tuple[str, ...]
    customer: Ints
    caller: Ints
    called: Ints
    start_ms: Ints
    duration_ms: Ints


@dataclass(frozen=True, slots=True)
class Day:
    """What was written: ``lines`` without the header, and how many of them are what.

    ``lines`` = ``plain`` + ``live`` + ``duplicates`` + ``malformed``.
    """

    path: Path
    day: date
    lines: int
    duplicates: int
    malformed: int
    live: LiveCalls

    @property
    def plain(self) -> int:
        """Records that are neither repeats nor charged live, and can be read."""
        return self.lines - self.duplicates - self.malformed - len(self.live.call_id)


def customer_trunk(number: int) -> str:
    """The name of a customer's trunk; customers are numbered from 0."""
    return f"cust-{number + 1:02d}"


def vendor_trunk(number: int) -> str:
    """The name of a vendor's trunk; vendors are numbered from 0."""
    return f"vend-{number + 1:02d}"


def write_day(
    path: Path,
    lines: int,
    *,
    prefixes: Sequence[str],
    day: date = date(2026, 3, 1),
    seed: int = 1,
    duplicates: float = 0.001,
    malformed: float = 0.001,
    live: float = 0.01,
) -> Day:
    """Write a day of ``lines`` records of calls to ``prefixes``.

    ``duplicates``, ``malformed`` and ``live`` are shares of the lines. Half of the duplicates are
    the same line again, the other half differ in their duration; each stands anywhere behind the
    first, near ones more often. A call charged live was answered.
    """
    special = _Special.choose(np.random.default_rng(seed), lines, duplicates, malformed)
    calls = _Calls(prefixes, day, lines, seed)
    found: list[Columns] = []
    with path.open("wb") as file:
        file.write(HEADER.encode() + b"\n")
        text = _Text(file, calls.midnight, seed)
        for first in range(0, lines, CHUNK):
            count = min(CHUNK, lines - first)
            columns = calls.make(first, count)
            ordinary = special.apply(columns, first)
            dice = np.random.default_rng([seed, first, 1])
            chosen = dice.random(count) < live / _ANSWERED
            chosen &= ordinary & (columns["duration"] > 0)
            found.append({name: values[chosen] for name, values in columns.items()})
            text.write(columns, special.torn(first, count))
    joined = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
    return Day(
        path=path,
        day=day,
        lines=lines,
        duplicates=len(special.repeat),
        malformed=len(special.bad),
        live=LiveCalls(
            call_id=tuple(call_ids(joined["id"], seed).to_pylist()),
            customer=joined["customer"],
            caller=joined["caller"],
            called=joined["called"],
            start_ms=joined["start"],
            duration_ms=joined["duration"],
        ),
    )


# --- lines that are not ordinary -----------------------------------------------------------------


class _Special:
    """Which lines are repeats (``repeat``, of the lines ``of``) and which cannot be read (``bad``)."""

    def __init__(self, repeat: Ints, of: Ints, bad: Ints) -> None:
        self.repeat, self.bad = repeat, bad
        self._of = of
        self._order = np.argsort(of, kind="stable")
        self._kept: Columns = {}

    @classmethod
    def choose(
        cls, dice: np.random.Generator, lines: int, duplicates: float, malformed: float
    ) -> _Special:
        """Choose lines for each purpose; the first some are ordinary."""
        again, bad = round(lines * duplicates), round(lines * malformed)
        room = lines - _FIRST_LIVE_LINES
        picked = dice.choice(room, min(again + bad, max(room, 0)), replace=False)
        picked = picked.astype(np.int64) + _FIRST_LIVE_LINES
        repeat, torn = np.sort(picked[:again]), np.sort(picked[again:])
        taken = np.zeros(lines, dtype=np.bool_)
        taken[picked] = True
        # Distances from one line to the whole file, each order of magnitude as often as the other.
        back = np.exp(dice.random(len(repeat)) * np.log(np.maximum(repeat, 2))).astype(np.int64)
        of = np.maximum(repeat - np.maximum(back, 1), 0)
        while (busy := taken[of]).any():
            of[busy] -= 1
        return cls(repeat, of, torn)

    def apply(self, columns: Columns, first: int) -> Flags:
        """Put the repeats among the lines from ``first`` on; True where a line is an ordinary one."""
        count = len(columns["id"])
        if not self._kept:
            self._kept = {name: np.zeros(len(self.repeat), dtype=np.int64) for name in columns}
        low, high = np.searchsorted(self._of[self._order], (first, first + count))
        asked = self._order[low:high]
        for name, values in columns.items():
            self._kept[name][asked] = values[self._of[asked] - first]
        low, high = np.searchsorted(self.repeat, (first, first + count))
        here = np.arange(low, high)
        places = self.repeat[here] - first
        for name, values in columns.items():
            if name != "sequence":
                values[places] = self._kept[name][here]
        other = places[here % 2 == 1]
        columns["pdd"][other] += 1
        columns["duration"][other] += np.where(columns["duration"][other] > 0, _OTHER_BODY_MS, 0)
        ordinary = np.ones(count, dtype=np.bool_)
        ordinary[places] = False
        ordinary[self.torn(first, count)] = False
        return ordinary

    def torn(self, first: int, count: int) -> Ints:
        """The lines among so many from ``first`` on that cannot be read, from 0."""
        low, high = np.searchsorted(self.bad, (first, first + count))
        return self.bad[low:high] - first


# --- calls -----------------------------------------------------------------------------------------


class _Calls:
    """Makes calls: columns of integers, times and durations in milliseconds."""

    def __init__(self, prefixes: Sequence[str], day: date, lines: int, seed: int) -> None:
        dice = np.random.default_rng([seed, 2])
        self._seed = seed
        self._lines = lines
        self._prefix = np.array([int(text) for text in prefixes], dtype=np.int64)
        self._digits = np.array([len(text) for text in prefixes], dtype=np.int64)
        self._favourite = dice.permutation(len(prefixes))
        self._ranks = _shares(1.0 / np.arange(1, len(prefixes) + 1) ** _FAVOURITES)
        self._sizes = _shares(1.0 / np.arange(1, CUSTOMERS + 1) ** 0.8)
        self._causes = _shares(np.array([share for share, _, _ in _CAUSES]))
        self._hours = np.concatenate(([0.0], _shares(np.array(_HOURS))))
        self._home = dice.integers(10**10, 9 * 10**10, CUSTOMERS)
        self.midnight = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000

    def make(self, first: int, count: int) -> Columns:
        """Make the calls of the lines from ``first`` on."""
        dice = np.random.default_rng([self._seed, first])
        customer = np.searchsorted(self._sizes, dice.random(count))
        rank = np.searchsorted(self._ranks, dice.random(count))
        prefix = self._favourite[(rank + customer * 977) % len(self._favourite)]
        # A prefix goes to its vendor of choice, and now and then to the next one.
        vendor = (prefix * 7 + (dice.random(count) < 0.08)) % VENDORS
        answered = dice.random(count) < _ANSWERED
        duration = np.where(answered, dice.exponential(_MEAN_MS, count).astype(np.int64) + 1, 0)
        pdd = dice.integers(300, 6_000, count)
        ring = dice.integers(1_000, 25_000, count)
        share = (first + np.sort(dice.random(count)) * count) / self._lines
        end = np.interp(share, self._hours, np.arange(25) * 3_600_000.0).astype(np.int64)
        end += self.midnight
        cause = np.where(answered, len(_CAUSES), np.searchsorted(self._causes, dice.random(count)))
        return {
            "id": np.arange(first, first + count),
            "customer": customer.astype(np.int64),
            "vendor": vendor.astype(np.int64),
            "caller": self._home[customer] + (dice.random(count) ** 4 * 50_000).astype(np.int64),
            "called": self._called(dice, prefix),
            "start": end - duration - ring - pdd,
            "ring": ring + pdd,
            "duration": duration,
            "cause": cause.astype(np.int64),
            "pdd": pdd,
            "sequence": np.arange(first + 1, first + count + 1),
        }

    def _called(self, dice: np.random.Generator, prefix: Ints) -> Ints:
        """Numbers of 11 to 13 digits, or a little longer than their prefix."""
        digits = self._digits[prefix]
        size = np.clip(np.maximum(dice.integers(11, 14, len(prefix)), digits + 2), digits, 15)
        unit = 10 ** (size - digits)
        return self._prefix[prefix] * unit + (dice.random(len(prefix)) * unit).astype(np.int64)


def _shares(weights: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """The running share of each weight; the last is 1."""
    sums = np.cumsum(weights, dtype=np.float64)
    shares: npt.NDArray[np.float64] = sums / sums[-1]
    shares[-1] = 1.0
    return shares


# --- text ------------------------------------------------------------------------------------------

_HEX = np.frombuffer(b"".join(b"%02x" % n for n in range(256)), dtype=np.uint16)


def call_ids(number: Ints, seed: int) -> pa.LargeStringArray:
    """32 hexadecimal digits for each call, as evenly spread as if they were thrown."""
    words = np.empty((len(number), 2), dtype=np.uint64)
    for half in range(2):
        # SplitMix64 (Steele, Lea, Flood 2014): no two numbers give the same.
        mixed = number.astype(np.uint64) * np.uint64(2) + np.uint64(half)
        mixed += np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        words[:, half] = mixed ^ (mixed >> np.uint64(31))
    data = _HEX[words.view(np.uint8)].view(np.uint8)
    offsets = np.arange(len(number) + 1, dtype=np.int64) * 32
    return pa.LargeStringArray.from_buffers(len(number), pa.py_buffer(offsets), pa.py_buffer(data))


def _texts(values: Sequence[str], index: Ints) -> pl.Series:
    return pl.Series(values, dtype=pl.String).gather(index)


_MILLISECONDS = [f".{n:03d}" for n in range(1000)]
_CODECS = ("G729", "PCMA", "PCMU")
_NAMES = [f"{customer_trunk(n)},10.0.{n}.5" for n in range(CUSTOMERS)]
_VENDORS = [vendor_trunk(n) for n in range(VENDORS)]
_ENDS = [*(f"{sip},{q850}" for _, sip, q850 in _CAUSES), "200,16"]


class _Text:
    """Writes calls as lines."""

    def __init__(self, file: BinaryIO, midnight: int, seed: int) -> None:
        self._file = file
        self._seed = seed
        # The text of each second: of the day before too, where calls begin that end after midnight.
        self._first = midnight // 1000 - _DAY_S
        seconds = np.arange(self._first, self._first + 3 * _DAY_S, dtype=np.int64) * 1000
        times = pl.Series(seconds).cast(pl.Datetime("ms"))
        self._seconds = times.dt.strftime("%Y-%m-%d %H:%M:%S")

    def write(self, columns: Columns, torn: Ints) -> None:
        """Write the lines; those at the places ``torn`` so that nobody can read them."""
        text = self._lines(columns)
        if len(torn):
            text = text.scatter(torn, [_tear(text[at], at) for at in torn.tolist()])
        held = text.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
        _, offsets, data = held.buffers()
        places = np.frombuffer(offsets, np.int64, len(held) + 1, held.offset * 8)
        self._file.write(memoryview(data)[places[0] : places[-1]])

    def _lines(self, columns: Columns) -> pl.Series:
        """The lines with their ends."""
        start, duration = columns["start"], columns["duration"]
        answer = start + columns["ring"]
        silent = pl.Series(duration == 0)
        cells: list[pl.Series | str] = [
            pl.Series(call_ids(columns["id"], self._seed)),
            _texts(_NAMES, columns["customer"]),
            _texts(_VENDORS, columns["vendor"]),
            pl.Series(columns["caller"]),
            pl.Series(columns["called"]),
            *self._time(start),
            *(_blank(one, silent) for one in self._time(answer)),
            *self._time(answer + duration),
            pl.Series(duration // 1000),
            _texts(_MILLISECONDS, duration % 1000),
            _texts(_ENDS, columns["cause"]),
            pl.Series(columns["pdd"]),
            _texts(_CODECS, columns["id"] % len(_CODECS)),
            pl.Series(columns["sequence"]),
        ]
        # Between a second and its fraction there is no comma.
        joints = [",", ",", ",", ",", ",", "", ",", "", ",", "", ",", "", ",", ",", ",", ",", "\n"]
        frame = pl.DataFrame({str(n): cell for n, cell in enumerate(cells)})
        parts = [part for n, joint in enumerate(joints) for part in (pl.col(str(n)), pl.lit(joint))]
        return frame.select(pl.concat_str(parts)).to_series()

    def _time(self, at_ms: Ints) -> tuple[pl.Series, pl.Series]:
        second, rest = np.divmod(at_ms, 1000)
        return self._seconds.gather(second - self._first), _texts(_MILLISECONDS, rest)


def _blank(texts: pl.Series, where: pl.Series) -> pl.Series:
    return pl.select(pl.when(where).then(pl.lit("")).otherwise(texts)).to_series()


def _tear(line: str, at: int) -> str:
    """What becomes of a line when a disk is full, a program crashes or a field goes wrong."""
    cells = line.rstrip("\n").split(",")
    if at % 4 == 0:
        return ",".join(cells[:4]) + "\n"
    if at % 4 == 1:
        cells[6] = "0000-00-00 00:00:00"
    elif at % 4 == 2:
        cells[9] = "NaN"
    else:
        cells[0] = ""
    return ",".join(cells) + "\n"
