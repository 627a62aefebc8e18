"""Codecs of switch files meet any bytes: they refuse, and they never fail or hold a line."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.wire.cdr import test_cucm, test_oracle, test_radius_detail, test_ribbon, test_sansay
from tests.wire.cdr.shared import Endless, items
from tests.wire.cdr.test_broadworks import CALL, HEAD, record
from tests.wire.cdr.test_tap3 import batch, gprs, indefinite, originated, terminated
from tollkeeper.core.usage import Item, Refused, Skipped, Usage
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.cdr import broadworks, cucm, oracle, radius_detail, ribbon, sansay, tap3
from tollkeeper.wire.cdr.format import Format, ReadOptions

GOOD: dict[str, tuple[Format, bytes]] = {
    "broadworks": (broadworks.FORMAT, HEAD + record(CALL) * 2 + b"</broadWorksCDR>"),
    "cucm": (cucm.FORMAT, test_cucm.NAMES + test_cucm.TYPES + test_cucm.row()),
    "oracle": (oracle.FORMAT, test_oracle.stop()),
    "radius": (
        radius_detail.FORMAT,
        test_radius_detail.detail(h323_setup_time="14:24:55.000 EET Mon Nov 28 2005"),
    ),
    "radius json": (
        radius_detail.FORMAT,
        b'[["Acct-Status-Type","Stop"],["Timestamp","1772445665"],["Acct-Session-Id","1"]]',
    ),
    "ribbon": (ribbon.FORMAT, test_ribbon.HEADER + test_ribbon.record()),
    "sansay": (sansay.FORMAT, test_sansay.line()),
    "tap3": (tap3.FORMAT, batch(originated(), terminated(), gprs())),
    "tap3 indefinite": (tap3.FORMAT, indefinite(batch(originated(), gprs()))),
}
named = pytest.mark.parametrize("name", list(GOOD))
many = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.differing_executors]
)


def check(form: Format, data: bytes) -> list[Item]:
    """Read it; whatever comes is an item that can be stored, or the refusal of the whole file."""
    assert 0 <= form.recognise(data) <= 100
    try:
        found = items(form, data)
    except InvalidInput:
        return []
    for item in found:
        assert isinstance(item, Usage | Refused | Skipped)
        assert item.line > 0
        if isinstance(item, Usage):
            assert 0 <= item.duration_ms < 2**40
            assert all(
                time is None or -(2**62) < time < 2**62
                for time in (item.start, item.answer, item.end)
            )
            assert item.sip is None or 100 <= item.sip <= 699
            assert item.q850 is None or 1 <= item.q850 <= 127
            assert item.pdd_ms is None or 0 <= item.pdd_ms < 2**31
            assert 0 < len(item.call_id.encode()) <= 1_020
            assert all(len(text) <= 255 for text in (item.caller, item.called, item.account))
        elif isinstance(item, Refused):
            assert item.reason
            assert len(item.raw.encode()) <= 16_000
    return found


@named
@many
@given(data=st.binary(max_size=300))
def test_any_bytes(name: str, data: bytes) -> None:
    check(GOOD[name][0], data)


@named
@many
@given(data=st.data())
def test_a_good_file_with_some_bytes_changed_and_cut(name: str, data: st.DataObject) -> None:
    form, good = GOOD[name]
    spoilt = bytearray(good)
    for _ in range(data.draw(st.integers(0, 6))):
        spoilt[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    check(form, bytes(spoilt[: data.draw(st.integers(0, len(good)))]))


@named
@many
@given(at=st.integers(0, 5_000), more=st.binary(max_size=40))
def test_a_good_file_with_bytes_put_in(name: str, at: int, more: bytes) -> None:
    form, good = GOOD[name]
    at %= len(good)
    check(form, good[:at] + more + good[at:])


@named
def test_every_truncation(name: str) -> None:
    form, good = GOOD[name]
    whole = sum(isinstance(item, Usage) for item in check(form, good))
    assert whole
    step = max(1, len(good) // 400)
    for end in range(0, len(good), step):
        found = check(form, good[:end])
        assert sum(isinstance(item, Usage) for item in found) <= whole


@named
def test_each_format_knows_its_own_file_best(name: str) -> None:
    form, good = GOOD[name]
    sure = {other.code: other.recognise(good) for other, _ in GOOD.values()}
    assert max(sure, key=lambda code: sure[code]) == form.code


SIZE = 200 * 2**20


@pytest.mark.parametrize(
    ("form", "head", "tail"),
    [
        (cucm.FORMAT, test_cucm.NAMES, b"\n" + test_cucm.row()),
        (oracle.FORMAT, b"2,", b"\n" + test_oracle.stop()),
        (ribbon.FORMAT, b"STOP,", b"\n" + test_ribbon.record()),
        (sansay.FORMAT, b"0;", b"\n" + test_sansay.line()),
        (radius_detail.FORMAT, b"Mon", b"\n\n" + test_radius_detail.detail()),
        (
            radius_detail.FORMAT,
            b"Mon Mar  2 10:01:05 2026\n\tAcct-Status-Type = ",
            b"\n\n" + test_radius_detail.detail(),
        ),
    ],
)
def test_a_line_of_200_mib_is_one_refusal_and_is_never_held(
    form: Format, head: bytes, tail: bytes
) -> None:
    stream = Endless(head, b"7", SIZE, tail)
    tracemalloc.start()
    found = list(form.read(stream, ReadOptions()))  # type: ignore[arg-type]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    (refusal,) = [item for item in found if isinstance(item, Refused)]
    assert "bytes long" in refusal.reason
    assert isinstance(found[-1], Usage)
    assert peak < 2**24


def test_a_record_of_many_short_lines_is_not_held_either() -> None:
    head = b"Mon Mar  2 10:01:05 2026\n"
    stream = Endless(head, b"\ta = b\n", 2**20, b"\n" + test_radius_detail.detail())
    tracemalloc.start()
    found = list(radius_detail.FORMAT.read(stream, ReadOptions()))  # type: ignore[arg-type]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(found[0], Refused)
    assert peak < 2**23


def test_a_json_record_of_2_mib_is_refused_and_the_next_one_is_read() -> None:
    good = GOOD["radius json"][1]
    stream = Endless(b'[["a","', b"7", 2**21, b'"]]\n' + good)
    refusal, call = list(radius_detail.FORMAT.read(stream, ReadOptions()))  # type: ignore[arg-type]
    assert isinstance(refusal, Refused)
    assert isinstance(call, Usage)


def test_a_tap_record_of_8_mib_is_refused_and_the_next_one_is_read() -> None:
    content = b"\x69\x84\x00\x80\x00\x00" + b"\0" * 2**23 + originated()
    frame = batch()
    # Behind the head of the batch (its length written anew) and before the audit information.
    inner = frame[2:].replace(b"\x63\x00", b"\x63\x80" + content + b"\0\0")
    found = list(items(tap3.FORMAT, b"\x61\x80" + inner + b"\0\0"))
    assert [type(item) for item in found] == [Refused, Usage]
