"""Small tools of the steps that records go through."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.services.cdr.records import distinct


@given(st.lists(st.integers(0, 300), max_size=50))
def test_distinct_ids_are_those_of_sorting(values: list[int]) -> None:
    """The same as numpy's own, which sorts the column."""
    ids = np.array(values, dtype=np.int64)
    found, place = distinct(ids)
    expected, where = np.unique(ids, return_inverse=True)
    assert found.tolist() == expected.tolist()
    assert place.tolist() == where.tolist()
