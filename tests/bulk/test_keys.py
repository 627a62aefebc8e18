"""Keys of records: the published hash, stable for ever, and sets of keys as Python has them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.bulk.keys import (
    Keys,
    contains,
    find,
    first_of_each,
    pack,
    record_keys,
    session_keys,
    siphash128,
    sorted_unique,
    text_keys,
    unpack,
)

SECRET = bytes(range(16))

# The vectors that the authors of SipHash publish with their reference implementation (vectors.h,
# vectors_sip128): key 00 01 .. 0f, the message 00 01 .. of as many bytes as lines stand before.
VECTORS = [
    "a3817f04ba25a8e66df67214c7550293",
    "da87c1d86b99af44347659119b22fc45",
    "8177228da4a45dc7fca38bdef60affe4",
    "9c70b60c5267a94e5f33b6b02985ed51",
    "f88164c12d9c8faf7d0f6e7c7bcd5579",
    "1368875980776f8854527a07690e9627",
    "14eeca338b208613485ea0308fd7a15e",
    "a1f1ebbed8dbc153c0b84aa61ff08239",
    "3b62a9ba6258f5610f83e264f31497b4",
    "264499060ad9baabc47f8b02bb6d71ed",
    "00110dc378146956c95447d3f3d0fbba",
    "0151c568386b6677a2b4dc6f81e5dc18",
    "d626b266905ef35882634df68532c125",
    "9869e247e9c08b10d029934fc4b952f7",
    "31fcefac66d7de9c7ec7485fe4494902",
    "5493e99933b0a8117e08ec0f97cfc3d9",
    "6ee2a4ca67b054bbfd3315bf85230577",
    "473d06e8738db89854c066c47ae47740",
    "a426e5e423bf4885294da481feaef723",
    "78017731cf65fab074d5208952512eb1",
    "9e25fc833f2290733e9344a5e83839eb",
    "568e495abe525a218a2214cd3e071d12",
    "4a29b54552d16b9a469c10528eff0aae",
    "c9d184ddd5a9f5e0cf8ce29a9abf691c",
    "2db479ae78bd50d8882a8a178a6132ad",
    "8ece5f042d5e447b5051b9eacb8d8f6f",
    "9c0b53b4b3c307e87eaee08678141f66",
    "abf248af69a6eae4bfd3eb2f129eeb94",
    "0664da1668574b88b935f3027358aef4",
    "aa4b9dc4bf337de90cd4fd3c467c6ab7",
    "ea5c7f471faf6bde2b1ad7d4686d2287",
    "2939b0183223fafc1723de4f52c43d35",
    "7c3956ca5eeafc3e363e9d556546eb68",
    "77c6077146f01c32b6b69d5f4ea9ffcf",
    "37a6986cb8847edf0925f0f1309b54de",
    "a705f0e69da9a8f907241a2e923c8cc8",
    "3dc47d1f29c448461e9e76ed904f6711",
    "0d62bf01e6fc0e1a0d3c4751c5d3692b",
    "8c03468bca7c669ee4fd5e084bbee7b5",
    "528a5bb93baf2c9c4473cce5d0d22bd9",
    "df6a301e95c95dad97ae0cc8c6913bd8",
    "801189902c857f39e73591285e70b6db",
    "e617346ac9c231bb3650ae34ccca0c5b",
    "27d93437efb721aa401821dcec5adf89",
    "89237d9ded9c5e78d8b1c9b166cc7342",
    "4a6d8091bf5e7d651189fa94a250b14c",
    "0e33f96055e7ae893ffc0e3dcf492902",
    "e61c432b720b19d18ec8d84bdc63151b",
    "f7e5aef549f782cf379055a608269b16",
    "438d030fd0b7a54fa837f2ad201a6403",
    "a590d3ee4fbf04e3247e0d27f286423f",
    "5fe2c1a172fe93c4b15cd37caef9f538",
    "2c97325cbd06b36eb2133dd08b3a017c",
    "92c814227a6bca949ff0659f002ad39e",
    "dce850110bd8328cfbd50841d6911d87",
    "67f14984c7da791248e32bb5922583da",
    "1938f2cf72d54ee97e94166fa91d2a36",
    "74481e9646ed49fe0f6224301604698e",
    "57fca5de98a9d6d8006438d0583d8a1d",
    "9fecde1cefdc1cbed4763674d9575359",
    "e3040c00eb28f15366ca73cbd872e740",
    "7697009a6a831dfecca91c5993670f7a",
    "5853542321f567a005d547a4f04759bd",
    "5150d1772f50834a503e069a973fbd7c",
]


def test_the_hash_has_the_published_values() -> None:
    assert len(VECTORS) == 64
    found = [siphash128(bytes(range(size)), SECRET).hex() for size in range(64)]
    assert found == VECTORS


def test_the_short_hash_has_the_value_of_the_paper() -> None:
    """SipHash paper, appendix A: the message 00 .. 0e; and the reference's for no bytes and 63."""
    texts = pl.Series([bytes(range(15)).decode(), "", bytes(range(63)).decode()])
    assert [hex(n) for n in text_keys(texts, SECRET).tolist()] == [
        "0xa129ca6149be45e5", "0x726fdb47dd0e0e31", "0x958a324ceb064572",
    ]  # fmt: skip


# --- records -------------------------------------------------------------------------------------

texts = st.text(max_size=30)
starts = st.integers(-(2**63), 2**63 - 1)


def message_of(switch: str, call_id: str, leg: str, start: int) -> bytes:
    parts = [part.encode() for part in (switch, call_id, leg)]
    framed = b"".join(len(part).to_bytes(4, "little") + part for part in parts)
    return framed + start.to_bytes(8, "little", signed=True)


@given(
    texts,
    st.lists(st.tuples(texts, texts, starts), max_size=20),
    st.binary(min_size=16, max_size=16),
)
def test_a_record_is_hashed_as_it_is_written_down(
    switch: str, records: list[tuple[str, str, int]], secret: bytes
) -> None:
    """The message is the switch, call id and leg with their lengths, and the start."""
    calls, legs, begun = zip(*records, strict=True) if records else ((), (), ())
    keys = record_keys(
        switch,
        pl.Series(calls, dtype=pl.String),
        pl.Series(legs, dtype=pl.String),
        np.array(begun, np.int64),
        secret,
    )
    expected = [siphash128(message_of(switch, *record), secret) for record in records]
    assert pack(keys) == b"".join(expected)


def test_keys_never_change() -> None:
    """A stored key must be found again by every later release."""
    keys = record_keys(
        "sbc-1", pl.Series(["a84b4c76e66710", ""]), pl.Series(["a", ""]), np.array([1, -1]), SECRET
    )
    assert pack(keys).hex() == "7da95dddf265908dfe9b11235b0eeed9b1bacf2021b97a49673a9eaed9d032c9"


def test_texts_that_only_run_into_each_other_differ() -> None:
    """The texts "ab" and "c" are another record than "a" and "bc"."""
    keys = record_keys(
        "s",
        pl.Series(["ab", "a", "abc"]),
        pl.Series(["c", "bc", ""]),
        np.zeros(3, np.int64),
        SECRET,
    )
    assert len(sorted_unique(keys)) == 3


@given(texts, st.lists(texts, max_size=20))
def test_a_session_is_hashed_with_its_switch_in_front(switch: str, calls: list[str]) -> None:
    found = session_keys(switch, pl.Series(calls, dtype=pl.String), SECRET)
    whole = pl.Series([f"{switch}/{call}" for call in calls], dtype=pl.String)
    assert found.tolist() == text_keys(whole, SECRET).tolist()


def test_a_sliced_column_and_a_huge_text_are_hashed_like_any_other() -> None:
    calls = pl.Series(["x" * 100_000, "a", "é", ""])
    whole = text_keys(calls, SECRET)
    assert text_keys(calls.slice(1, 2), SECRET).tolist() == whole[1:3].tolist()
    assert text_keys(pl.concat([calls, calls], rechunk=False), SECRET).tolist() == [*whole, *whole]


def test_a_secret_has_16_bytes_and_columns_are_equally_long() -> None:
    with pytest.raises(ValueError, match="16"):
        text_keys(pl.Series(["a"]), b"short")
    with pytest.raises(ValueError, match="differ in length"):
        record_keys("s", pl.Series(["a"]), pl.Series(["a", "b"]), np.zeros(1, np.int64), SECRET)


# --- sets ----------------------------------------------------------------------------------------

halves = st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1), st.just(2**64 - 1))
some_keys = st.lists(st.tuples(halves, halves), max_size=60)


def array(keys: list[tuple[int, int]]) -> Keys:
    return np.array(keys, np.uint64).reshape(-1, 2)


@given(some_keys)
def test_sorted_unique_is_a_sorted_set(keys: list[tuple[int, int]]) -> None:
    assert [tuple(key) for key in sorted_unique(array(keys)).tolist()] == sorted(set(keys))


@given(some_keys, some_keys)
def test_contains_is_membership(held: list[tuple[int, int]], asked: list[tuple[int, int]]) -> None:
    asked = asked + held[::3]
    table = sorted_unique(array(held))
    assert contains(table, array(asked)).tolist() == [key in set(held) for key in asked]
    for key, place in zip(asked, find(table, array(asked)).tolist(), strict=True):
        assert place == -1 if key not in held else tuple(table[place].tolist()) == key


@given(some_keys)
def test_the_first_of_each_key_is_its_first_row(keys: list[tuple[int, int]]) -> None:
    assert first_of_each(array(keys)).tolist() == [
        key not in keys[:place] for place, key in enumerate(keys)
    ]


@given(some_keys)
def test_packed_keys_come_back(keys: list[tuple[int, int]]) -> None:
    packed = pack(array(keys))
    assert len(packed) == 16 * len(keys)
    assert unpack(packed).tolist() == [list(key) for key in keys]


def test_half_a_key_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        unpack(b"x" * 17)


def test_many_keys_are_found_however_they_are_spread() -> None:
    """Even keys, which hashes are, and keys that all lie close together."""
    draw = np.random.default_rng(7)
    even = draw.integers(0, 2**64, (20_000, 2), np.uint64)
    close = np.stack([np.arange(20_000, dtype=np.uint64), np.zeros(20_000, np.uint64)], axis=1)
    for keys in (even, close):
        table = sorted_unique(keys[::2])
        assert contains(table, keys).tolist() == [True, False] * 10_000
