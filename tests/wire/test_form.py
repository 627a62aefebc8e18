"""Forms: read as the standard library reads them, in a small multiple of their size."""

from __future__ import annotations

import tracemalloc
from urllib.parse import parse_qsl, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.wire.esl.dialplan import FORM_MAX, parse_form
from tollkeeper.wire.form import unquoted

PIECES = st.sampled_from([b"%", b"%4", b"%41", b"%fF", b"+", b"a", b"%%", b"g"])


@given(st.lists(PIECES, max_size=40), st.integers(16_370, 16_390))
def test_bytes_are_those_of_the_standard_library(pieces: list[bytes], before: int) -> None:
    """Also where an escape lies across the end of a piece."""
    data = b"x" * before + b"".join(pieces)
    assert unquoted(data) == unquote_to_bytes(data.replace(b"+", b" "))


@given(
    st.lists(st.sampled_from([b"a", b"b", b"=", b"&", b"%41", b"%", b"+", b"%C3%A9"]), max_size=30)
)
def test_fields_are_those_of_the_standard_library(pieces: list[bytes]) -> None:
    """Of a field that is there twice the first one counts."""
    body = b"".join(pieces)
    fields = parse_qsl(body.decode(), keep_blank_values=True)
    assert parse_form(body) == dict(reversed(fields))


@pytest.mark.parametrize("unit", [b"%", b"%ff", b"%C3%A9x", b"%41bc", b"x", b"\xff"])
def test_a_form_takes_a_small_multiple_of_its_size(unit: bytes) -> None:
    """Whatever it is made of; the rest of the process is not to be paged out by one request."""
    body = b"a=" + unit * ((FORM_MAX - 2) // len(unit))
    tracemalloc.start()
    try:
        parse_form(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 * FORM_MAX
