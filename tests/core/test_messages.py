"""How many segments a text is, counted by hand and against a slow but plain way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.core.messages import TEXT_MAX, Segments, coded_segments, segments
from tollkeeper.errors import InvalidInput

THUMB = "\U0001f44d"
EURO = "\u20ac"

BY_HAND = [
    pytest.param("", "gsm7", 0, 1, id="an empty text is sent as well"),
    pytest.param("hello", "gsm7", 5, 1, id="plain"),
    pytest.param("a" * 160, "gsm7", 160, 1, id="160 fit"),
    pytest.param("a" * 161, "gsm7", 161, 2, id="161 do not: 153 and 8"),
    pytest.param("a" * 306, "gsm7", 306, 2, id="twice 153"),
    pytest.param("a" * 307, "gsm7", 307, 3, id="and one more"),
    # 10 x 153 = 1530, 70 more
    pytest.param("a" * 1600, "gsm7", 1600, 11, id="1,600 characters"),
    pytest.param("@\u00a3\u00e8\u00c7\u0394\u03a9\u00e0\u00a7\u00bf\n", "gsm7", 10, 1, id="all default"),
    pytest.param("price: 5 " + EURO, "gsm7", 11, 1, id="the euro takes two septets"),
    pytest.param("[~]", "gsm7", 6, 1, id="brackets and tilde take two"),
    pytest.param(EURO * 80, "gsm7", 160, 1, id="80 euros fit"),
    # 76 pairs and one septet that stays empty: 76 in the first, 5 in the second
    pytest.param(EURO * 81, "gsm7", 162, 2, id="81 do not"),
    # 306 septets would be two segments, but the pair at 153/154 is not cut: 152, 153, 1
    pytest.param("a" * 152 + EURO + "a" * 152, "gsm7", 306, 3, id="a pair is not cut"),
    # 153 pairs are 306 septets; 76 pairs to a segment make three
    pytest.param(EURO * 153, "gsm7", 306, 3, id="pairs only"),
    pytest.param("\u00e7", "ucs2", 1, 1, id="small c with cedilla is not in the alphabet"),
    pytest.param("\u0159" * 70, "ucs2", 70, 1, id="70 fit"),
    pytest.param("\u0159" * 71, "ucs2", 71, 2, id="71 do not: 67 and 4"),
    pytest.param("a" * 69 + "\u0159", "ucs2", 70, 1, id="one such letter turns the text"),
    pytest.param(THUMB, "ucs2", 2, 1, id="an emoji is two units"),
    pytest.param(THUMB * 35, "ucs2", 70, 1, id="35 fit"),
    # 33 to a segment, the 67th unit stays empty: 33 and 3
    pytest.param(THUMB * 36, "ucs2", 72, 2, id="36 do not"),
    # 134 units would be two segments, but the pair at 67/68 is not cut: 66, 67, 1
    pytest.param("\u0159" * 66 + THUMB + "\u0159" * 66, "ucs2", 134, 3, id="an emoji is not cut"),
    # 1,600 emoji, 33 to a segment: 48 are 1,584
    pytest.param(THUMB * 1600, "ucs2", 3200, 49, id="1,600 emoji"),
    # 1,599 letters and an emoji: 23 x 67 = 1541, the other 60 units in the 24th
    pytest.param("a" * 1599 + THUMB, "ucs2", 1601, 24, id="1,600 characters with an emoji"),
    pytest.param("a" * 39_015, "gsm7", 39_015, 255, id="the longest"),
    pytest.param("\u0159" * 17_085, "ucs2", 17_085, 255, id="the longest in UCS-2"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "encoding", "characters", "count"), BY_HAND)
def test_segments_come_out_as_by_hand(
    text: str, encoding: str, characters: int, count: int
) -> None:
    assert segments(text) == Segments(encoding, characters, count)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a" * 39_016, "has 39,016 characters and 39,015 are the most"),
        (EURO * 19_500, "would be 257 segments in gsm7 and 255 are the most"),
        ("\u0159" * 17_086, "would be 256 segments in ucs2 and 255 are the most"),
    ],
)
def test_what_cannot_be_sent_is_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as refused:
        segments(text)
    assert (refused.value.field, refused.value.code) == ("text", "text_too_long")


def test_the_bound_for_callers_is_that_of_the_longest_text() -> None:
    assert TEXT_MAX == 39_015


def _slowly(text: str) -> int:
    """Cut the encoded text from the front, one whole character at a time."""
    doubles = "\f^{}\\[~]|\u20ac"
    if segments(text).encoding == "gsm7":
        coded = [("\x1b" + one) if one in doubles else one for one in text]
        single, each = 160, 153
    else:
        coded = ["xx" if ord(one) > 0xFFFF else "x" for one in text]
        single, each = 70, 67
    if len("".join(coded)) <= single:
        return 1
    parts = [""]
    for one in coded:
        if len(parts[-1]) + len(one) > each:
            parts.append("")
        parts[-1] += one
    return len(parts)


@given(
    st.text(alphabet=f"aZ @{EURO}[~", max_size=700)
    | st.text(alphabet=f"a\u0159{THUMB}", max_size=300)
)
def test_segments_agree_with_cutting_the_text(text: str) -> None:
    assert segments(text).segments == _slowly(text)


@given(st.text(max_size=400), st.text(max_size=40))
def test_a_longer_text_is_never_fewer_segments(text: str, more: str) -> None:
    assert segments(text + more).segments >= segments(text).segments


@pytest.mark.parametrize(
    ("encoding", "sizes", "header", "count"),
    [
        ("gsm7", 160, 0, 1),
        ("gsm7", 161, 0, 2),
        ("gsm7", [1] * 152 + [2] + [1] * 152, 0, 3),
        ("ucs2", 70, 0, 1),
        ("ucs2", [2] * 36, 0, 2),
        ("octets", 140, 0, 1),
        ("octets", 141, 0, 2),
        ("octets", 134, 6, 1),
        ("octets", 0, 140, 1),
        # room for one octet in each part
        ("octets", 200, 134, 200),
    ],
)
def test_coded_texts_come_out_as_by_hand(
    encoding: str, sizes: list[int] | int, header: int, count: int
) -> None:
    assert coded_segments(encoding, sizes, header) == count


@pytest.mark.parametrize(
    ("encoding", "sizes", "header"),
    [
        ("octets", 0, 141),
        ("octets", 2, 139),
        ("octets", 256, 134),
        ("ucs2", [2, 2], 134),
        ("gsm7", 153 * 255 + 1, 0),
    ],
)
def test_a_coded_text_without_room_is_refused(
    encoding: str, sizes: list[int] | int, header: int
) -> None:
    with pytest.raises(InvalidInput, match="does not fit into 255 segments"):
        coded_segments(encoding, sizes, header)
