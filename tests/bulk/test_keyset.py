"""The set of known keys answers as Python's own set does."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.bulk.keyset import KeySet

KEY = st.tuples(st.integers(1, 2**64 - 1), st.integers(0, 2**64 - 1))


def rows(keys: list[tuple[int, int]]) -> np.ndarray:
    return np.array(keys, dtype=np.uint64).reshape(-1, 2)


@given(
    st.lists(st.lists(st.one_of(KEY, st.sampled_from([(1, 1), (4097, 1), (1, 2)])), max_size=50))
)
def test_a_key_is_new_the_first_time_only(parts: list[list[tuple[int, int]]]) -> None:
    """Over any parts, also where keys share their place."""
    known, seen = KeySet(), set()
    for part in parts:
        assert known.contains(rows(part)).tolist() == [key in seen for key in part]
        expected = []
        for key in part:
            expected.append(key not in seen)
            seen.add(key)
        assert known.add(rows(part)).tolist() == expected
        assert known.size == len(seen)


def test_it_grows_and_forgets_nothing() -> None:
    generator = np.random.default_rng(1)
    keys = generator.integers(1, 2**63, size=(100_000, 2), dtype=np.uint64)
    known = KeySet()
    for part in np.array_split(keys, 7):
        assert known.add(part).all()
    assert known.contains(keys).all()
    assert not known.contains(keys + np.uint64(2**63)).any()
