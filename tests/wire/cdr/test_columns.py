"""The fast reader of delimited files says exactly what the reader of rows says."""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass
from typing import BinaryIO, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.wire.cdr.nasty import HEADER, MAPPINGS, nasty_lines
from tollkeeper.bulk.frames import PARSED, usages_of
from tollkeeper.core.usage import Item, Refused, Skipped, Usage
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.cdr.columns import open_parts, read_parts
from tollkeeper.wire.cdr.format import ReadOptions
from tollkeeper.wire.cdr.mapping import Mapping, load_mapping
from tollkeeper.wire.cdr.part import Part
from tollkeeper.wire.cdr.rows import CSV, RowReader, read_rows


class Forward(io.RawIOBase):
    """A stream like a pipe: it cannot seek, and gives less than it is asked for."""

    def __init__(self, data: bytes) -> None:
        self._inner = io.BytesIO(data)

    def readable(self) -> bool:
        """Say yes."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Read at most 1,000 bytes."""
        return self._inner.read(min(size, 1_000) if size > 0 else size)


@dataclass(frozen=True)
class Case:
    """One file, and what reads it."""

    mapping: Mapping
    data: bytes
    block: int
    records: int
    seekable: bool

    def stream(self) -> BinaryIO:
        """Open the file anew."""
        return cast(BinaryIO, io.BytesIO(self.data) if self.seekable else Forward(self.data))

    def parts(self, offset: int = 0, line: int = 0) -> list[Part]:
        """Read it fast, from a place on."""
        return list(
            read_parts(
                self.stream(),
                ReadOptions("Europe/Rome", self.mapping),
                offset=offset,
                line=line,
                records=self.records,
                block=self.block,
            )
        )

    def rows(self) -> list[Item]:
        """Read it row by row."""
        return list(read_rows(self.stream(), ReadOptions("Europe/Rome", self.mapping)))

    def refusal(self) -> str | None:
        """Say why the file is refused as a whole, if it is."""
        try:
            self.rows()
        except InvalidInput as error:
            return error.detail
        return None


@st.composite
def _cases(draw: st.DrawFn) -> Case:
    mapping = load_mapping(MAPPINGS[draw(st.sampled_from(sorted(MAPPINGS)))])
    count = draw(st.integers(0, 12))
    encoding = draw(st.sampled_from([mapping.encoding, "utf-8"]))
    one = nasty_lines(mapping.delimiter, mapping.quote, encoding)
    lines = [draw(one) for _ in range(count)]
    if mapping.header and draw(st.integers(0, 9)):
        lines.insert(0, mapping.delimiter.join(HEADER).encode(encoding))
        for _ in range(draw(st.integers(0, 2))):
            lines.insert(0, draw(st.sampled_from([b"", b"# before"])))
    newline = "\n".encode(encoding)
    ends = st.sampled_from([newline, newline, newline, b"\r\n", b"\r"])
    data = b"".join(line + draw(ends) for line in lines)
    if draw(st.booleans()):
        data = data.removesuffix(newline)
    mark = draw(st.sampled_from([b"", b"", b"", b"\xef\xbb\xbf", b"\xff\xfe"]))
    return Case(
        mapping=mapping,
        data=mark + data,
        block=draw(st.sampled_from([1, 2, 7, 50, 300, 1 << 20])),
        records=draw(st.sampled_from([1, 2, 5, 1_000])),
        seekable=draw(st.booleans()),
    )


def _flat(parts: list[Part]) -> tuple[list[Usage], list[Refused], int]:
    usages = [usage for part in parts for usage in usages_of(part.frame)]
    return usages, [one for part in parts for one in part.refused], sum(p.skipped for p in parts)


def _sorted_out(items: list[Item]) -> tuple[list[Usage], list[Refused], int]:
    return (
        [item for item in items if isinstance(item, Usage)],
        [item for item in items if isinstance(item, Refused)],
        sum(isinstance(item, Skipped) for item in items),
    )


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(_cases())
def test_the_fast_reader_says_what_the_reader_of_rows_says(case: Case) -> None:
    """Records, refusals, their order, and what is skipped are the same for every block size."""
    expected = case.refusal()
    if expected is not None:
        with pytest.raises(InvalidInput) as raised:
            case.parts()
        assert raised.value.detail == expected
        return
    parts = case.parts()
    assert _flat(parts) == _sorted_out(case.rows())
    for part in parts:
        assert part.frame.schema == PARSED
        lines = part.frame["line"].to_list()
        assert lines == sorted(lines)
        assert part.frame.height + len(part.refused) <= 2 * case.records


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(_cases())
def test_a_reading_that_goes_on_behind_any_part_says_what_was_left(case: Case) -> None:
    """The offset and the line of a part are exact: what follows is read as in one go."""
    if case.refusal() is not None:
        return
    parts = case.parts()
    for number, part in enumerate(parts):
        assert part.offset <= len(case.data)
        rest = case.parts(part.offset, part.line)
        assert _flat(rest) == _flat(parts[number + 1 :])


def _usual(rows: int, *, quoted: bool = False) -> bytes:
    mark = '"' if quoted else ""
    lines = [",".join(HEADER)]
    for row in range(rows):
        cells = (
            f"id-{row}",
            f"2026-03-01 10:{row % 60:02d}:00",
            f"2026-03-01 10:{row % 60:02d}:07.5"[:19] if row % 2 else "",
            "",
            f"+3902{row}",
            f"0044{row}",
            f"{row % 2 * (row % 100)}.5" if row % 2 else "0",
            "ANSWERED" if row % 2 else "null",
            "10.0.0.1:5060",
            "4",
        )
        lines.append(",".join(f"{mark}{cell}{mark}" for cell in cells))
    return ("\n".join(lines) + "\n").encode()


@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize("name", ["plain", "rome", "numbers", "all"])
def test_usual_lines_are_not_read_one_by_one(
    name: str, quoted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quoted or not, what is as usual never meets the reader of rows."""
    mapping = load_mapping(MAPPINGS[name] | {"delimiter": ","})
    data = _usual(500, quoted=quoted)
    options = ReadOptions("UTC", mapping)
    expected = _sorted_out(list(read_rows(io.BytesIO(data), options)))

    def never(*_: object) -> None:
        raise AssertionError("a usual line was read by itself")

    monkeypatch.setattr(RowReader, "read", never)
    assert _flat(list(read_parts(io.BytesIO(data), options))) == expected
    assert len(expected[0]) == 500


@pytest.mark.parametrize("block", [1_000, 1 << 20, 1 << 24])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_a_line_of_more_than_a_mebibyte_is_refused_whole_and_the_next_ones_are_read(
    block: int, end: bytes
) -> None:
    """Wherever blocks end, the refusal tells the length and the reading goes on behind it."""
    whole = _usual(4).splitlines(keepends=True)
    for length in (2**20 - 1, 2**20, 2**20 + 1, 3_000_000):
        long = b"x" * length
        data = b"".join([*whole[:3], long, end, *(whole[3:] if end else [])])
        case = Case(load_mapping(MAPPINGS["plain"]), data, block, 2, seekable=True)
        parts = case.parts()
        assert _flat(parts) == _sorted_out(case.rows())
        assert parts[-1].offset == len(data)
        assert _flat(case.parts(parts[0].offset, parts[0].line)) == _flat(parts[1:])


@pytest.mark.parametrize("rest", [b"", b"\n", b"x" * 2**20, b"x" * (2**20 + 1)])
def test_the_mark_of_utf8_is_no_part_of_the_first_line(rest: bytes) -> None:
    """A file of the mark alone has no line, and the mark does not make a line too long."""
    mapping = load_mapping(MAPPINGS["numbered"])
    case = Case(mapping, b"\xef\xbb\xbf" + rest, 1_000, 5, seekable=True)
    assert _flat(case.parts()) == _sorted_out(case.rows())


def test_a_packed_file_that_is_cut_short_gives_what_it_has_and_then_says_so() -> None:
    """The lines before the cut are in parts, the torn one is not, and the error says where."""
    data = _usual(20_000)
    packed = gzip.compress(data)
    options = ReadOptions("UTC", load_mapping(MAPPINGS["plain"]))
    parts: list[Part] = []
    reading = open_parts(io.BytesIO(packed[: len(packed) // 2]), CSV, options, records=1_000)
    with pytest.raises(InvalidInput, match="cut short: its gzip data breaks off at byte"):
        parts.extend(reading)
    usages, refused, _ = _flat(parts)
    assert not refused
    assert len(usages) > 5_000
    expected = _sorted_out(list(read_rows(io.BytesIO(data), options)))[0]
    assert usages == expected[: len(usages)]


def test_a_packed_file_goes_on_behind_a_part() -> None:
    """Offsets are those of the unpacked bytes."""
    packed = gzip.compress(_usual(3_000))
    options = ReadOptions("UTC", load_mapping(MAPPINGS["plain"]))
    parts = list(open_parts(io.BytesIO(packed), CSV, options, records=1_000))
    assert len(parts) == 3
    rest = open_parts(
        io.BytesIO(packed), CSV, options, offset=parts[0].offset, line=parts[0].line, records=1_000
    )
    assert _flat(list(rest)) == _flat(parts[1:])


def test_a_mapping_is_needed() -> None:
    """Without one the columns mean nothing."""
    with pytest.raises(InvalidInput, match="mapping is needed"):
        list(read_parts(io.BytesIO(b"a,b\n"), ReadOptions()))
