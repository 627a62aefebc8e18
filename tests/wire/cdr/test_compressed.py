"""Packed files give their bytes, never more than they may, and say what is wrong with them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
from collections.abc import Callable
from typing import BinaryIO, cast

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.errors import InvalidInput
from tollkeeper.wire.cdr.compressed import Limits, open_stream


def _zstd(data: bytes) -> bytes:
    return cast(bytes, pa.compress(data, codec="zstd", asbytes=True))


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": _zstd,
}
_NAMES = sorted(PACKERS)


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


def _open(data: bytes, *, seekable: bool = True, limits: Limits | None = None) -> BinaryIO:
    stream = io.BytesIO(data) if seekable else Forward(data)
    return open_stream(cast(BinaryIO, stream), limits)


def _records(rows: int) -> bytes:
    chance = random.Random(1)
    return b"".join(b"%d,%x\n" % (row, chance.getrandbits(64)) for row in range(rows))


def _until_error(stream: BinaryIO, size: int = 10_000) -> tuple[bytes, InvalidInput]:
    pieces: list[bytes] = []
    with pytest.raises(InvalidInput) as raised:
        pieces.extend(iter(lambda: stream.read(size), b""))
    return b"".join(pieces), raised.value


@pytest.mark.parametrize("seekable", [True, False])
@pytest.mark.parametrize("name", _NAMES)
def test_a_packed_file_gives_its_bytes(name: str, seekable: bool) -> None:
    """Whole, in pieces of any size, empty, or several packed files behind one another."""
    data = _records(30_000)
    packed = PACKERS[name](data)
    assert _open(packed, seekable=seekable).read() == data
    assert _open(packed + packed, seekable=seekable).read() == data + data
    assert _open(PACKERS[name](b""), seekable=seekable).read() == b""
    stream = _open(packed, seekable=seekable)
    pieces = [stream.read(7), stream.read(70_000), stream.read(0), stream.read()]
    assert b"".join(pieces) == data
    assert [len(piece) for piece in pieces[:3]] == [7, 70_000, 0]
    assert stream.read(1) == b""


@pytest.mark.parametrize("seekable", [True, False])
@given(data=st.binary(max_size=40))
def test_a_plain_file_is_left_as_it_is(seekable: bool, data: bytes) -> None:
    """Whatever it begins with that is no sign of packing, nothing of it is lost."""
    data = b"a" + data
    assert _open(data, seekable=seekable).read() == data
    stream = _open(data, seekable=seekable)
    found = b""
    while piece := stream.read(3):
        found += piece
    assert found == data


@pytest.mark.parametrize("seekable", [True, False])
@pytest.mark.parametrize("name", _NAMES)
def test_a_file_that_is_cut_short_gives_what_it_has_and_then_says_where_it_ends(
    name: str, seekable: bool
) -> None:
    """What is given is the beginning of the truth, and most of it."""
    data = _records(200_000)
    packed = PACKERS[name](data)
    cut = len(packed) * 2 // 3
    found, error = _until_error(_open(packed[:cut], seekable=seekable))
    assert data.startswith(found)
    assert len(found) > len(data) // 4
    assert error.code == "truncated_file"
    assert f"breaks off at byte {cut}, after {len(found)} unpacked bytes" in error.detail


@pytest.mark.parametrize("name", ["bzip2", "gzip", "xz"])
def test_a_damaged_file_says_so(name: str) -> None:
    """Its checksum or its structure gives it away."""
    packed = bytearray(PACKERS[name](_records(50_000)))
    packed[len(packed) // 2] ^= 0xFF
    _, error = _until_error(_open(bytes(packed)))
    assert error.code == "damaged_file"


@pytest.mark.parametrize("name", ["bzip2", "gzip", "xz"])
def test_zeros_behind_a_packed_file_are_padding_and_anything_else_is_damage(name: str) -> None:
    """Tapes and disks pad with zeros; all before is given in both cases."""
    data = _records(1_000)
    packed = PACKERS[name](data)
    assert _open(packed + bytes(100_000)).read() == data
    found, error = _until_error(_open(packed + b"more that is not packed"))
    assert found == data
    assert error.code == "damaged_file"


@pytest.mark.parametrize("name", _NAMES)
def test_a_bomb_is_read_no_further_than_its_ratio_allows(name: str) -> None:
    """A few bytes that unpack to gigabytes are no call records."""
    bomb = PACKERS[name](bytes(40_000_000))
    found, error = _until_error(_open(bomb, limits=Limits(ratio_max=100, ratio_from=1_000_000)))
    assert error.code == "packed_bomb"
    assert "more than 100 times its size" in error.detail
    assert 1_000_000 < len(found) <= max(1_000_000, 100 * len(bomb)) + 2**20


@pytest.mark.parametrize("name", _NAMES)
def test_a_file_gives_no_more_bytes_than_the_limit(name: str) -> None:
    """The limit is exact."""
    data = _records(20_000)
    found, error = _until_error(_open(PACKERS[name](data), limits=Limits(bytes_max=100_001)))
    assert found == data[:100_001]
    assert error.code == "file_too_large"
    assert _open(PACKERS[name](data), limits=Limits(bytes_max=len(data))).read() == data


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"PK\x03\x04", "a zip archive"),
        (b"\x1f\x9d\x90", "compress program"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"Rar!\x1a\x07\x01", "a RAR archive"),
    ],
)
def test_an_archive_of_another_kind_is_refused_by_name(head: bytes, what: str) -> None:
    """It is not taken for text."""
    with pytest.raises(InvalidInput, match=what):
        _open(head + b"something")


def test_an_error_is_said_again_when_it_is_read_again() -> None:
    """A reader that swallows it cannot take the file for whole."""
    stream = _open(gzip.compress(_records(1_000))[:-20])
    _until_error(stream)
    with pytest.raises(InvalidInput, match="cut short"):
        stream.read(1)
    with pytest.raises(InvalidInput, match="cut short"):
        stream.read()
