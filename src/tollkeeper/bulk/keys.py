"""Keys of records: what makes two lines the same record, in 128 bits.

A key is SipHash-2-4 with 128-bit output (J.-P. Aumasson, D. J. Bernstein, "SipHash: a fast
short-input PRF", 2012, and the authors' reference implementation) under a secret of 16 bytes, so
that nobody can write records that collide. The message of a record is the switch, the call id and
the leg, each as its length in bytes (4 bytes, little-endian) and its UTF-8 bytes, and then the
start in microseconds (8 bytes, little-endian, two's complement). This never changes: the keys that
are stored would be worth nothing. Words are read in the byte order of the machine, which the
published test vectors prove to be little-endian.
"""

from __future__ import annotations

import numba
import numpy as np
import polars as pl
from numpy.typing import NDArray

from tollkeeper.bulk.numbers import utf8

Keys = NDArray[np.uint64]
"""uint64[n, 2]: the two halves of the 16 bytes, each read little-endian."""

SECRET_BYTES = 16

_U32 = np.uint64(32)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: spreads any keys over a table


def record_keys(
    switch: str, call_id: pl.Series, leg: pl.Series, start: NDArray[np.int64], secret: bytes
) -> Keys:
    """Keys of records, uint64[n, 2]; ``start`` in microseconds, ``secret`` 16 bytes.

    Raises:
        ValueError: columns of different lengths, or a secret that is not 16 bytes.
    """
    if len(call_id) != len(leg) or len(call_id) != len(start):
        raise ValueError("the columns of the records differ in length")
    name = switch.encode()
    head = np.frombuffer(len(name).to_bytes(4, "little") + name, np.uint8)
    calls, call_bytes = utf8(call_id)
    legs, leg_bytes = utf8(leg)
    at = np.ascontiguousarray(start, np.int64)
    out = np.empty((len(at), 2), np.uint64)
    _record_keys(head, calls, call_bytes, legs, leg_bytes, at, _halves(secret), out)
    return out


def session_keys(switch: str, call_id: pl.Series, secret: bytes) -> NDArray[np.uint64]:
    """64-bit SipHash-2-4 of the UTF-8 bytes of ``switch/call_id``, uint64[n].

    Raises:
        ValueError: a secret that is not 16 bytes.
    """
    return _hash_texts(f"{switch}/", call_id, secret)[:, 0].copy()


def text_keys(texts: pl.Series, secret: bytes) -> NDArray[np.uint64]:
    """64-bit SipHash-2-4 of the UTF-8 bytes of each text, uint64[n]; ``secret`` is 16 bytes."""
    return _hash_texts("", texts, secret)[:, 0].copy()


def siphash128(message: bytes, secret: bytes) -> bytes:
    """SipHash-2-4-128 of one message, 16 bytes; ``secret`` is 16 bytes."""
    buffer = np.zeros(len(message) // 8 * 8 + 8, np.uint8)
    buffer[: len(message)] = np.frombuffer(message, np.uint8)
    secrets = _halves(secret)
    return pack(np.array([_sip(buffer.view(np.uint64), len(message), secrets, 1)], np.uint64))


def _hash_texts(before: str, texts: pl.Series, secret: bytes) -> Keys:
    offsets, data = utf8(texts)
    out = np.zeros((len(texts), 2), np.uint64)
    _text_keys(np.frombuffer(before.encode(), np.uint8), offsets, data, _halves(secret), out)
    return out


def _halves(secret: bytes) -> NDArray[np.uint64]:
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"the secret has {len(secret)} bytes and must have {SECRET_BYTES}")
    return np.frombuffer(secret, "<u8").astype(np.uint64)


# --- sets of keys --------------------------------------------------------------------------------


def sorted_unique(keys: Keys) -> Keys:
    """The keys in ascending order (first half, then second), each once."""
    keys = np.ascontiguousarray(keys, np.uint64).reshape(-1, 2)
    order = np.argsort(keys[:, 0])
    out = keys[order]
    return out[: _settle(out)].copy()


def find(sorted_keys: Keys, keys: Keys) -> NDArray[np.int64]:
    """Place of each key in ``sorted_keys`` (of :func:`sorted_unique`), -1 where it is not there."""
    out = np.empty(len(keys), np.int64)
    _find(
        np.ascontiguousarray(sorted_keys, np.uint64).reshape(-1, 2),
        np.ascontiguousarray(keys, np.uint64).reshape(-1, 2),
        out,
    )
    return out


def contains(sorted_keys: Keys, keys: Keys) -> NDArray[np.bool_]:
    """Tell for each key whether it is among ``sorted_keys`` (of :func:`sorted_unique`)."""
    return find(sorted_keys, keys) >= 0


def first_of_each(keys: Keys) -> NDArray[np.bool_]:
    """True for the first row of each key, in the order of the rows."""
    out = np.zeros(len(keys), np.bool_)
    _first_of_each(np.ascontiguousarray(keys, np.uint64).reshape(-1, 2), out)
    return out


def pack(keys: Keys) -> bytes:
    """Keys as 16 bytes each, for storing."""
    return np.ascontiguousarray(keys, np.dtype("<u8")).tobytes()


def unpack(data: bytes) -> Keys:
    """The keys that :func:`pack` wrote; ValueError where bytes are missing."""
    if len(data) % 16:
        raise ValueError(f"{len(data)} bytes are no whole number of keys of 16 bytes")
    return np.frombuffer(data, "<u8").astype(np.uint64).reshape(-1, 2)


# --- compiled ------------------------------------------------------------------------------------


@numba.njit(nogil=True, cache=True, inline="always")
def _turn(x: np.uint64, bits: int) -> np.uint64:
    return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))


@numba.njit(nogil=True, cache=True)
def _round(
    a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    a += b
    b = _turn(b, 13) ^ a
    a = _turn(a, 32)
    c += d
    d = _turn(d, 16) ^ c
    a += d
    d = _turn(d, 21) ^ a
    c += b
    b = _turn(b, 17) ^ c
    c = _turn(c, 32)
    return a, b, c, d


@numba.njit(nogil=True, cache=True)
def _sip(
    words: NDArray[np.uint64], size: int, secret: NDArray[np.uint64], wide: int
) -> tuple[np.uint64, np.uint64]:
    """SipHash-2-4 of the first ``size`` bytes of ``words``; the second half is 0 unless ``wide``."""
    a = secret[0] ^ np.uint64(0x736F6D6570736575)
    b = secret[1] ^ np.uint64(0x646F72616E646F6D)
    c = secret[0] ^ np.uint64(0x6C7967656E657261)
    d = secret[1] ^ np.uint64(0x7465646279746573)
    if wide:
        b ^= np.uint64(0xEE)
    whole = size >> 3
    for at in range(whole):
        d ^= words[at]
        a, b, c, d = _round(a, b, c, d)
        a, b, c, d = _round(a, b, c, d)
        a ^= words[at]
    rest = np.uint64(8 * (size & 7))
    last = (np.uint64(size) & np.uint64(255)) << np.uint64(56)
    if rest:
        last |= words[whole] & ((np.uint64(1) << rest) - np.uint64(1))
    d ^= last
    a, b, c, d = _round(a, b, c, d)
    a, b, c, d = _round(a, b, c, d)
    a ^= last
    c ^= np.uint64(0xEE) if wide else np.uint64(0xFF)
    for _ in range(4):
        a, b, c, d = _round(a, b, c, d)
    first = a ^ b ^ c ^ d
    if not wide:
        return first, np.uint64(0)
    b ^= np.uint64(0xDD)
    for _ in range(4):
        a, b, c, d = _round(a, b, c, d)
    return first, a ^ b ^ c ^ d


@numba.njit(nogil=True, cache=True)
def _longest(offsets: NDArray[np.int64]) -> int:
    longest = 0
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    return longest


@numba.njit(nogil=True, cache=True)
def _put_text(
    buffer: NDArray[np.uint8], at: int, data: NDArray[np.uint8], first: int, end: int
) -> int:
    for place in range(first, end):
        buffer[at] = data[place]
        at += 1
    return at


@numba.njit(nogil=True, cache=True)
def _put_number(buffer: NDArray[np.uint8], at: int, value: int, size: int) -> int:
    for _ in range(size):
        buffer[at] = value & 255
        value >>= 8
        at += 1
    return at


@numba.njit(nogil=True, cache=True)
def _record_keys(
    head: NDArray[np.uint8],
    calls: NDArray[np.int64],
    call_bytes: NDArray[np.uint8],
    legs: NDArray[np.int64],
    leg_bytes: NDArray[np.uint8],
    start: NDArray[np.int64],
    secret: NDArray[np.uint64],
    out: Keys,
) -> None:
    room = len(head) + _longest(calls) + _longest(legs) + 24
    words = np.zeros((room >> 3) + 1, np.uint64)
    buffer = words.view(np.uint8)
    begin = _put_text(buffer, 0, head, 0, len(head))
    for row in range(len(start)):
        at = _put_number(buffer, begin, calls[row + 1] - calls[row], 4)
        at = _put_text(buffer, at, call_bytes, calls[row], calls[row + 1])
        at = _put_number(buffer, at, legs[row + 1] - legs[row], 4)
        at = _put_text(buffer, at, leg_bytes, legs[row], legs[row + 1])
        at = _put_number(buffer, at, start[row], 8)
        out[row, 0], out[row, 1] = _sip(words, at, secret, 1)


@numba.njit(nogil=True, cache=True)
def _text_keys(
    head: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    secret: NDArray[np.uint64],
    out: Keys,
) -> None:
    words = np.zeros(((len(head) + _longest(offsets)) >> 3) + 1, np.uint64)
    buffer = words.view(np.uint8)
    begin = _put_text(buffer, 0, head, 0, len(head))
    for row in range(len(offsets) - 1):
        at = _put_text(buffer, begin, data, offsets[row], offsets[row + 1])
        out[row, 0], out[row, 1] = _sip(words, at, secret, 0)


@numba.njit(nogil=True, cache=True)
def _settle(keys: Keys) -> int:
    """Sort runs of equal first halves by the second, drop what is there twice: the number left."""
    for row in range(1, len(keys)):
        at = row
        while at > 0 and keys[at - 1, 0] == keys[at, 0] and keys[at - 1, 1] > keys[at, 1]:
            held = keys[at, 1]
            keys[at, 1] = keys[at - 1, 1]
            keys[at - 1, 1] = held
            at -= 1
    left = 0
    for row in range(len(keys)):
        one, two = keys[row, 0], keys[row, 1]
        if left == 0 or keys[left - 1, 0] != one or keys[left - 1, 1] != two:
            keys[left, 0], keys[left, 1] = one, two
            left += 1
    return left


@numba.njit(nogil=True, cache=True, inline="always")
def _below(keys: Keys, at: int, one: np.uint64, two: np.uint64) -> bool:
    return bool(keys[at, 0] < one or (keys[at, 0] == one and keys[at, 1] < two))


@numba.njit(nogil=True, cache=True)
def _find(table: Keys, keys: Keys, out: NDArray[np.int64]) -> None:
    count = len(table)
    for row in range(len(keys)):
        one, two = keys[row, 0], keys[row, 1]
        # Keys are spread evenly, so the place is near the one in proportion; go from there in
        # growing steps until it is passed, then halve. Evenness makes it fast, not right.
        guess = int(np.int64(((one >> _U32) * np.uint64(count)) >> _U32))
        low, high, step = 0, count, 8
        if guess < count and _below(table, guess, one, two):
            low = guess + 1
            while guess + step < count and _below(table, guess + step, one, two):
                low = guess + step + 1
                step *= 2
            high = min(count, guess + step)
        else:
            high = min(count, guess)
            while guess - step >= 0 and not _below(table, guess - step, one, two):
                high = guess - step
                step *= 2
            low = max(0, guess - step)
        while low < high:
            middle = (low + high) >> 1
            if _below(table, middle, one, two):
                low = middle + 1
            else:
                high = middle
        hit = low < count and table[low, 0] == one and table[low, 1] == two
        out[row] = low if hit else -1


@numba.njit(nogil=True, cache=True)
def _first_of_each(keys: Keys, first: NDArray[np.bool_]) -> None:
    bits = 4
    while 1 << bits < 2 * len(keys):
        bits += 1
    places = np.full(1 << bits, -1, np.int32)
    mask = (1 << bits) - 1
    for row in range(len(keys)):
        mixed = (keys[row, 0] ^ _turn(keys[row, 1], 32)) * _SPREAD
        at = np.int64(mixed >> np.uint64(64 - bits))
        while places[at] >= 0:
            other = places[at]
            if keys[other, 0] == keys[row, 0] and keys[other, 1] == keys[row, 1]:
                break
            at = (at + 1) & mask
        if places[at] < 0:
            places[at] = row
            first[row] = True
