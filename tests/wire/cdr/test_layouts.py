"""The kernel of times agrees with the reader of times, wherever it is sure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import available_timezones

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper.bulk.clock import times
from tollkeeper.wire.cdr.batch import text_bytes
from tollkeeper.wire.cdr.layouts import program, spans
from tollkeeper.wire.cdr.problem import FieldProblem
from tollkeeper.wire.cdr.times import time_reader

LAYOUTS = (
    "iso",
    "%Y-%m-%d %H:%M:%S",
    "%F %T.%f %z",
    "%d/%m/%Y %H:%M",
    "%m/%d/%y %I:%M:%S %p",
    "%a %b %e %H:%M:%S %Z %Y",
    "%Y%m%d%H%M%S",
    "%Y%m%dT%H%M%S%z",
    "%d-%B-%Y%%%R",
    "%y年%m月%d日 %H",
    "%D",
)
# Hypothesis wants bounds without a zone.
_SINCE, _UNTIL, _EARLY, _LATE = (
    datetime(year, 1, 1)  # noqa: DTZ001
    for year in (1985, 2055, 1950, 2150)
)
_ZONES = st.sampled_from(sorted(available_timezones()))


def _fast(texts: list[str], layout: str, zone: str) -> list[int | None]:
    raw = [text.encode() for text in texts]
    last = np.cumsum([len(one) for one in raw], dtype=np.int32)
    first = (last - [len(one) for one in raw]).astype(np.int32)
    sure = np.ones(len(raw), dtype=np.bool_)
    null = np.zeros(len(raw), dtype=np.bool_)
    steps = program(layout)
    assert steps is not None
    found = times(text_bytes("".join(texts)), first, last, steps, *spans(zone), sure, null)
    assert not null.any()
    return [int(us) if certain else None for us, certain in zip(found, sure, strict=True)]


def _slow(text: str, layout: str, zone: str) -> int | None:
    try:
        return time_reader(layout, zone)(text, "start")
    except FieldProblem:
        return None


@pytest.mark.parametrize("zone", ["Europe/Rome", "Africa/Casablanca", "Australia/Lord_Howe", "UTC"])
def test_every_change_of_the_clocks_is_read_as_by_the_reader_of_rows(zone: str) -> None:
    """Around each change: hours that come twice are their first, skipped ones are given up."""
    layout = "%Y-%m-%d %H:%M:%S"
    changes = [int(since) for since in spans(zone)[0][1:-1]]
    around = [change + by for change in changes for by in (-3_600, -1_800, -1, 0, 1, 1_799, 3_600)]
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    texts = [(epoch + timedelta(seconds=second)).strftime(layout) for second in around]
    assert len(texts) > 100 or zone == "UTC"
    assert _fast(texts, layout, zone) == [_slow(text, layout, zone) for text in texts]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.datetimes(_SINCE, _UNTIL), min_size=1, max_size=10),
    _ZONES,
    st.sampled_from(LAYOUTS[1:]),
)
def test_well_written_times_are_read_in_every_zone(
    moments: list[datetime], zone: str, layout: str
) -> None:
    """What the reader of rows reads, the kernel is sure of, and reads the same."""
    texts = [moment.replace(tzinfo=UTC).strftime(layout) for moment in moments]
    assert _fast(texts, layout, zone) == [_slow(text, layout, zone) for text in texts]


@settings(max_examples=500, deadline=None)
@given(st.data(), _ZONES, st.sampled_from(LAYOUTS))
def test_spoilt_times_are_given_up_or_read_the_same(
    data: st.DataObject, zone: str, layout: str
) -> None:
    """The kernel never reads what the reader of rows refuses or reads otherwise."""
    moment = data.draw(st.datetimes(_EARLY, _LATE))
    shown = "%Y-%m-%dT%H:%M:%S.%f%z" if layout == "iso" else layout
    text = moment.replace(tzinfo=UTC).strftime(shown)
    at = data.draw(st.integers(0, len(text)))
    size = data.draw(st.integers(0, 3))
    text = text[:at] + data.draw(st.text("0123456789 :-+./ZTapm", max_size=2)) + text[at + size :]
    text = text.strip()
    if text in {"", "0", "-"}:
        return
    (found,) = _fast([text], layout, zone)
    if found is not None:
        assert found == _slow(text, layout, zone)
