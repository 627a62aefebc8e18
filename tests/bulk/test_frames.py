"""Usage records go into columns and come back as they were."""

from __future__ import annotations

from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.bulk.frames import NULLABLE, PARSED, frame_of, price_text, usages_of
from tollkeeper.core.usage import Usage

_LONG = st.integers(-(2**63), 2**63 - 1)
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_PRICE = st.decimals(allow_nan=False, allow_infinity=False, places=6, max_value=10**9)
_USAGES = st.builds(
    Usage,
    line=_LONG,
    call_id=_TEXT,
    start=_LONG,
    duration_ms=_LONG,
    leg=_TEXT,
    caller=_TEXT,
    called=_TEXT,
    answer=st.none() | _LONG,
    end=st.none() | _LONG,
    account=_TEXT,
    sip=st.none() | st.integers(100, 699),
    q850=st.none() | st.integers(1, 127),
    pdd_ms=st.none() | st.integers(0, 2**31 - 1),
    mos=st.none() | st.integers(100, 500),
    service=_TEXT,
    price=st.none() | _PRICE,
    currency=_TEXT,
    sequence=st.none() | _LONG,
)


@given(st.lists(_USAGES, max_size=5))
def test_records_come_back_from_a_frame_as_they_went_in(usages: list[Usage]) -> None:
    """No field is lost or changed, and the order stays."""
    frame = frame_of(usages)
    assert frame.schema == PARSED
    assert list(usages_of(frame)) == usages


def test_the_columns_are_the_fields_of_a_record_and_only_some_may_be_null() -> None:
    """A text that is absent is empty; a number that is absent is null."""
    assert tuple(PARSED) == Usage.__struct_fields__
    frame = frame_of([Usage(1, "id", 2, 3)])
    nulls = {name for name in frame.columns if frame[name].null_count()}
    assert nulls == NULLABLE
    assert frame["service"].item() == "voice"


def test_no_records_make_an_empty_frame_of_the_same_columns() -> None:
    """So that frames can be put behind one another."""
    whole = pl.concat([frame_of([]), frame_of([Usage(1, "id", 2, 3)])])
    assert whole.schema == PARSED
    assert whole.height == 1


def test_a_price_is_written_with_plain_digits() -> None:
    """Exponents are for machines; the zeros that were written stay."""
    assert price_text(Decimal("1E+2")) == "100"
    assert price_text(Decimal("0.0500")) == "0.0500"
    assert price_text(Decimal("1E-8")) == "0.00000001"
    assert price_text(None) is None


def test_a_number_too_large_for_its_column_is_an_error() -> None:
    """It is never cut off or made null."""
    with pytest.raises(TypeError):
        frame_of([Usage(1, "id", 2, 3, sip=40_000)])
