"""Why calls end, by the tables of RFC 3398 and the words of each switch."""

from __future__ import annotations

import pytest

from tollkeeper.wire.cdr import causes


@pytest.mark.parametrize(
    ("cause", "status"),
    [(1, 404), (17, 486), (18, 408), (19, 480), (21, 403), (27, 502), (28, 484), (34, 503),
     (41, 503), (65, 488), (102, 504), (111, 500), (127, 500), (99, 500)],
)  # fmt: skip
def test_a_cause_has_the_status_of_rfc_3398(cause: int, status: int) -> None:
    assert causes.sip_of_q850(cause) == status


@pytest.mark.parametrize(
    ("status", "cause"),
    [(400, 41), (403, 21), (404, 1), (408, 102), (480, 18), (484, 28), (486, 17), (503, 41),
     (504, 102), (600, 17), (603, 21), (604, 1), (499, 41), (599, 41), (699, 17)],
)  # fmt: skip
def test_a_failure_has_the_cause_of_rfc_3398(status: int, cause: int) -> None:
    """Those that the table lacks count as x00 of their class."""
    assert causes.q850_of_sip(status) == cause


@pytest.mark.parametrize("status", [None, 100, 200, 302, 487, 488, 606, 700])
def test_what_is_no_failure_or_says_no_cause_has_none(status: int | None) -> None:
    assert causes.q850_of_sip(status) is None


@pytest.mark.parametrize("cause", [None, 0, 16, 128, -1])
def test_a_plain_end_and_what_is_not_q850_have_no_status(cause: int | None) -> None:
    assert causes.sip_of_q850(cause) is None


@pytest.mark.parametrize(
    ("text", "cause"),
    [("10", 16), ("1F", 31), ("1f ", 31), ("0x11", 17), ("7F", 127), ("80", None), ("0", None),
     ("", None), ("zz", None), ("123456789", None)],
)  # fmt: skip
def test_a_cisco_cause_is_hex(text: str, cause: int | None) -> None:
    assert causes.q850_of_hex(text) == cause


@pytest.mark.parametrize(
    ("name", "sip", "q850"),
    [("NORMAL_CLEARING", None, 16), ("USER_BUSY", 486, 17), ("no_answer", 480, 19),
     ("UNALLOCATED_NUMBER", 404, 1), ("ORIGINATOR_CANCEL", 487, None), ("17", 486, 17),
     ("ATTENDED_TRANSFER", None, 16), ("DECLINE", 603, 21), ("NONE", None, None),
     ("999999999999", None, None), ("", None, None)],
)  # fmt: skip
def test_freeswitch_names(name: str, sip: int | None, q850: int | None) -> None:
    assert causes.of_freeswitch(name) == (sip, q850)


@pytest.mark.parametrize(
    ("word", "sip", "q850"),
    [("ANSWERED", 200, 16), ("BUSY", 486, 17), ("NO ANSWER", 480, 19), ("no_answer", 480, 19),
     ("CONGESTION", 503, 34), ("FAILED", None, None), ("", None, None)],
)  # fmt: skip
def test_asterisk_dispositions(word: str, sip: int | None, q850: int | None) -> None:
    assert causes.of_asterisk(word) == (sip, q850)


@pytest.mark.parametrize(
    ("reason", "sip", "q850"),
    [("16", None, 16), ("17", 486, 17), ("486", 486, 17), ("487", 487, None), ("-9", None, None),
     ("0", None, None), ("200", None, None), ("", None, None), ("busy", None, None)],
)  # fmt: skip
def test_vos3000_end_reasons(reason: str, sip: int | None, q850: int | None) -> None:
    """The server's own reasons, which are negative, get no cause that could be wrong."""
    assert causes.of_vos3000(reason) == (sip, q850)
