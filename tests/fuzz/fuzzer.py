"""A seeded mutation fuzzer for codecs: what it does to packets, and what it holds a codec to.

A codec is total: any bytes give a record or its own error, in time and memory that grow with the
input and no faster, and what it read it can write and read again. Inputs that lead to an outcome
not seen before (a new kind of record, a new sentence of refusal) are mutated further, so that the
search goes deeper than one step from the seeds.
"""

from __future__ import annotations

import hashlib
import importlib
import random
import re
import signal
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

FOLDER = Path(__file__).parent
INPUT_BYTES_MAX = 65_536
CORPUS_MAX = 2_000

HANG_SECONDS = 10
TIME_BASE_MS, TIME_PER_KILOBYTE_MS = 10.0, 5.0
"""Time allowed: 330 ms for 64 KB. What grows with the square of the input needs minutes there."""
MEMORY_BASE, MEMORY_PER_BYTE = 262_144, 128
"""Memory allowed at the peak: the smallest header is three bytes and becomes three Python objects."""
MEMORY_EVERY = 200
"""tracemalloc is slow, so it watches one input in so many, and every one that is large."""
LARGE = 30_000
PARTS_SHOWN, SHAPE_CHARS = 12, 200

NUMBERS = (0, 1, 2, 7, 8, 15, 16, 127, 128, 255, 256, 4095, 4096, 65_535, 65_536, 2**24 - 1)
WIDE = (2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
WRITTEN = (b"-1", b"0", b"00", b"1e9", b"4294967296", b"9" * 30, b"9" * 5000, b"\xb2", b"0x10", b"")
DIGITS = re.compile(rb"[0-9]+")


class Hang(BaseException):
    """The codec did not come back; no ``except Exception`` of it can swallow this."""


@dataclass(frozen=True)
class Target:
    """A codec under test; ``targets.py`` says how to add one.

    ``decode`` takes the modules and bytes and reads as deep as a server would; ``malformed`` is the
    only error that it may raise. ``encode`` writes what ``decode`` returned, and ``seeds`` makes
    the packets to begin with. ``tokens`` are words of the protocol.
    """

    modules: tuple[str, ...]
    malformed: str
    decode: Callable[[Any, bytes], Any]
    seeds: Callable[[Any], dict[str, bytes]]
    encode: Callable[[Any, Any], bytes | None] | None = None
    tokens: tuple[bytes, ...] = ()

    def load(self) -> SimpleNamespace:
        """Import the modules: only those of the codecs that are asked for."""
        return SimpleNamespace(
            **{
                name.replace(".", "_"): importlib.import_module(f"tollkeeper.wire.{name}")
                for name in self.modules
            }
        )


@dataclass(frozen=True)
class Finding:
    """An input that a codec does not stand, and what it did."""

    data: bytes
    what: str


@dataclass
class Fuzzer:
    """One run over one codec: the same seed makes the same inputs in the same order."""

    name: str
    target: Target
    seed: int
    runs: int = 0
    corpus: list[bytes] = field(default_factory=list)
    outcomes: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.random = random.Random(f"{self.name} {self.seed}")
        self.module = self.target.load()
        self.errors: type[Exception] = attrgetter(self.target.malformed)(self.module)
        self.corpus += kept(self.name)

    def seeds(self) -> Iterator[Finding]:
        """Hold the codec to every seed and to all that was ever found."""
        for data in list(self.corpus):
            if (what := self.fault(data, watched=True)) is not None:
                yield Finding(data, what)

    def run(
        self, *, seconds: float = 1e9, runs: int = 10**18, most: int = 10**9
    ) -> Iterator[Finding]:
        """Mutate until the time or a count is over; yields what was found, and ends after ``most``."""
        end, last = time.monotonic() + seconds, self.runs + runs
        while self.runs < last and (self.runs % 64 or time.monotonic() < end):
            data = self.mutated()
            self.runs += 1
            watched = self.runs % MEMORY_EVERY == 0 or len(data) >= LARGE
            if (what := self.fault(data, watched=watched)) is not None:
                yield Finding(data, what)
                most -= 1
                if not most:
                    return

    def fault(self, data: bytes, *, watched: bool) -> str | None:
        """What is wrong with the codec's behaviour on these bytes; None where nothing is."""
        try:
            with hang_guard():
                record, spent_ms = self.timed(data)
                if spent_ms > allowed_ms(data):
                    # The garbage collector may have come by: only what is slow again is slow.
                    spent_ms = min(self.timed(data)[1] for _ in range(3))
                if spent_ms > allowed_ms(data):
                    return f"{spent_ms:.0f} ms for {len(data)} bytes"
                if watched and (peak := self.peak(data)) > MEMORY_BASE + MEMORY_PER_BYTE * len(
                    data
                ):
                    return f"{peak} bytes of memory for {len(data)} bytes"
                if isinstance(record, self.errors):
                    self.note(data, f"{type(record).__name__} {record}")
                    return None
                self.note(data, shape(record))
                return self.unstable(record)
        except Hang:
            return f"no answer within {HANG_SECONDS} s for {len(data)} bytes"
        except Exception as error:  # noqa: BLE001 - any other error is what is searched for
            return f"{type(error).__name__}: {error}"

    def timed(self, data: bytes) -> tuple[Any, float]:
        """The record or the codec's own error, and the milliseconds that it computed."""
        # Processor time: a busy machine makes no codec slower.
        before = time.thread_time()
        try:
            record = self.target.decode(self.module, data)
        except self.errors as error:
            record = error
        return record, (time.thread_time() - before) * 1000

    def peak(self, data: bytes) -> int:
        """The most memory that was held at once while decoding, in bytes."""
        tracemalloc.start()
        try:
            self.timed(data)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def unstable(self, record: Any) -> str | None:
        """Whether what is written of the record reads back as something else."""
        if self.target.encode is None:
            return None
        written = self.target.encode(self.module, record)
        if written is None:
            return None
        again = self.target.encode(self.module, self.target.decode(self.module, written))
        return None if again == written else f"written {written!r:.200}, again {again!r:.200}"

    def note(self, data: bytes, outcome: str) -> None:
        """Keep an input whose outcome is new."""
        outcome = re.sub(r"[0-9]+|'[^']*'|\"[^\"]*\"", "#", outcome)
        if outcome not in self.outcomes and len(self.corpus) < CORPUS_MAX:
            self.outcomes.add(outcome)
            if len(data) < LARGE:
                self.corpus.append(data)

    def mutated(self) -> bytes:
        """A packet of the corpus with some of the changes below, one after another."""
        data = bytearray(self.random.choice(self.corpus))
        for _ in range(self.random.choice((1, 1, 1, 2, 2, 3, 5, 8))):
            self.random.choice(CHANGES)(self, data)
            del data[INPUT_BYTES_MAX:]
        return bytes(data)

    def place(self, data: bytearray) -> int:
        """Any offset; the first bytes, where lengths stand, more often."""
        return self.random.randrange(min(len(data), self.random.choice((8, 24, 10**9))) or 1)

    def piece(self, data: bytearray) -> slice:
        """Any short or long piece."""
        at = self.place(data)
        return slice(at, at + self.random.choice((1, 2, 4, 8, 16, 64, 10**9)))


def flip(it: Fuzzer, data: bytearray) -> None:
    """One bit."""
    if data:
        data[it.place(data)] ^= 1 << it.random.randrange(8)


def set_byte(it: Fuzzer, data: bytearray) -> None:
    """One byte to anything."""
    if data:
        data[it.place(data)] = it.random.randrange(256)


def truncate(it: Fuzzer, data: bytearray) -> None:
    """The end is lost."""
    del data[it.random.randrange(len(data) + 1) :]


def remove(it: Fuzzer, data: bytearray) -> None:
    """A piece is lost."""
    del data[it.piece(data)]


def insert(it: Fuzzer, data: bytearray) -> None:
    """Noise, or a word of the protocol, gets in between."""
    noise = it.random.randbytes(it.random.choice((1, 2, 4, 16, 200)))
    at = it.place(data)
    data[at:at] = it.random.choice((noise, *it.target.tokens))


def splice(it: Fuzzer, data: bytearray) -> None:
    """The front of one packet, the end of another."""
    other = it.random.choice(it.corpus)
    data[it.place(data) :] = other[it.random.randrange(len(other) + 1) :]


def number(it: Fuzzer, data: bytearray) -> None:
    """A field of 1 to 8 bytes gets a number at the edge, or a little more or less than it had."""
    width = it.random.choice((1, 2, 2, 3, 4, 4, 8))
    at = it.place(data)
    old = int.from_bytes(data[at : at + width], "big")
    near = old + it.random.choice((-8, -4, -1, 1, 4, 8, len(data)))
    new = it.random.choice((*NUMBERS, *WIDE, near, len(data), len(data) - at)) % (1 << 8 * width)
    data[at : at + width] = new.to_bytes(width, it.random.choice(("big", "big", "little")))


def written_number(it: Fuzzer, data: bytearray) -> None:
    """A number in letters becomes a huge, negative or foreign one."""
    found = list(DIGITS.finditer(data))
    if found:
        hit = it.random.choice(found)
        data[hit.start() : hit.end()] = it.random.choice((*WRITTEN, str(len(data)).encode()))


def repeat(it: Fuzzer, data: bytearray) -> None:
    """A piece comes again and again, up to the largest input."""
    where = it.piece(data)
    piece = bytes(data[where])
    most = (INPUT_BYTES_MAX - len(data)) // (len(piece) or 1)
    times = min(it.random.choice((1, 2, 10, 100, 100_000)), max(most, 0))
    data[where.start : where.start] = piece * times


def move(it: Fuzzer, data: bytearray) -> None:
    """A piece changes its place."""
    where = it.piece(data)
    piece = bytes(data[where])
    del data[where]
    at = it.place(data)
    data[at:at] = piece


CHANGES: tuple[Callable[[Fuzzer, bytearray], None], ...] = (
    flip,
    set_byte,
    truncate,
    remove,
    insert,
    splice,
    number,
    number,
    written_number,
    repeat,
    move,
)


def shape(record: Any) -> str:
    """What kind of record it is, without its values: types, and the numbers in powers of two."""
    if isinstance(record, str):
        return record
    if isinstance(record, tuple | list):
        if len(record) <= PARTS_SHOWN:
            return " ".join(shape(each)[:SHAPE_CHARS] for each in record)
        return f"{len(record).bit_length()} {sorted({type(each).__name__ for each in record})}"
    names = getattr(record, "__struct_fields__", None) or getattr(record, "__slots__", ())
    parts = []
    for name in names:
        value = getattr(record, name, None)
        sized = len(value) if isinstance(value, str | bytes | tuple | list | dict) else value
        large = sized.bit_length() if isinstance(sized, int) else 0
        parts.append(
            f"{name}:{type(value).__name__}:{'abcdefghijklmnopqrstuvwxyz'[min(large, 25)]}"
        )
    return f"{type(record).__name__} {parts}"


def allowed_ms(data: bytes) -> float:
    """The time that an input of this size may take, in milliseconds."""
    return TIME_BASE_MS + TIME_PER_KILOBYTE_MS * len(data) / 1024


@contextmanager
def hang_guard() -> Iterator[None]:
    """End what does not end by itself."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, HANG_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def kept(name: str) -> list[bytes]:
    """The seeds and the findings of a codec, in the order of their names."""
    folders = (FOLDER / "seeds" / name, FOLDER / "findings" / name)
    return [path.read_bytes() for each in folders for path in sorted(each.glob("*.bin"))]


def keep(name: str, finding: Finding, folder: Path = FOLDER / "findings") -> Path:
    """Write a finding to where the tests take it from for ever after."""
    path = folder / name / f"{hashlib.sha256(finding.data).hexdigest()[:16]}.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(finding.data)
    return path
