"""Mappings and lines that are hard to read, to hold two readers against each other."""

from __future__ import annotations

from hypothesis import strategies as st

_PLAIN = "%Y-%m-%d %H:%M:%S"
HEADER = ("id", "began", "answered", "ended", "src", "dst", "secs", "what", "ip", "code")


def _fields(**more: object) -> dict[str, object]:
    return {
        "call_id": "id",
        "start": {"column": "began", "time": _PLAIN},
        "duration": "secs",
        "caller": "src",
        "called": "dst",
    } | more


def _times(layout: str, zone: str = "") -> dict[str, object]:
    rule = {"time": layout} | ({"zone": zone} if zone else {})
    return {
        "start": {"column": "began"} | rule,
        "answer": {"column": "answered"} | rule,
        "end": {"column": "ended"} | rule,
    }


MAPPINGS: dict[str, dict[str, object]] = {
    "plain": {"fields": _fields(**_times(_PLAIN))},
    "rome": {"fields": _fields(**_times(_PLAIN, "Europe/Rome")), "comment": "#"},
    "lord howe": {"fields": _fields(**_times(_PLAIN, "Australia/Lord_Howe"))},
    "iso": {"fields": _fields(**_times("iso", "Africa/Casablanca"))},
    "epoch": {"fields": _fields(**_times("epoch"))},
    "epoch_ms": {
        "fields": _fields(**_times("epoch_ms"), duration={"column": "secs", "unit": "ms"})
    },
    "epoch_us": {
        "fields": _fields(**_times("epoch_us"), duration={"column": "secs", "unit": "us"})
    },
    "american": {
        "fields": _fields(
            **_times("%m/%d/%y %I:%M %p"), duration={"column": "secs", "unit": "hh:mm:ss"}
        )
    },
    "letters": {"fields": _fields(**_times("%a, %d %b %Y %H:%M:%S.%f %z"))},
    "packed": {"fields": _fields(**_times("%Y%m%d%H%M%S")), "delimiter": "|", "quote": ""},
    "no duration": {
        "fields": {
            key: value for key, value in _fields(**_times(_PLAIN)).items() if key != "duration"
        }
    },
    "numbers": {
        "fields": _fields(
            caller={"column": "src", "strip": "+", "prefix": "39"},
            called={"column": "dst", "strip": "00", "cut": 1},
            account={"column": "what", "prefix": "é"},
            leg={"column": "ended", "cut": 2},
        ),
        "delimiter": ";",
    },
    "all": {
        "fields": _fields(
            ip_in="ip",
            sip={"column": "what", "values": {"ANSWERED": "200", "BUSY": 486}},
            q850="code",
            pdd={"column": "secs", "unit": "s"},
            mos={"column": "code"},
            price="secs",
            sequence="code",
            currency={"constant": "eur"},
            service="what",
            trunk_in={"constant": "main"},
            trunk_out={"column": "what", "else": "ip"},
            account={"columns": ["what", "ip", "code"], "join": "/"},
            leg={"column": "src", "extract": "([0-9]+)"},
        ),
        "filters": [
            {"column": "what", "not_in": ["FAILED"]},
            {"column": "dst", "matches": "^[^9]"},
        ],
    },
    "numbered": {
        "header": False,
        "delimiter": "\t",
        "fields": {
            "call_id": "c1",
            "start": {"column": 2, "time": _PLAIN},
            "duration": 7,
            "caller": "c5",
        },
    },
    "narrow": {
        "header": False,
        "columns": 2,
        "encoding": "cp1252",
        "fields": {
            "call_id": "c1",
            "start": {"column": 2, "time": _PLAIN},
            "duration": {"constant": "1"},
        },
    },
    "spaced": {"fields": _fields(**_times("epoch")), "delimiter": " ", "quote": "'"},
    "joined by blanks": {"fields": _fields(account={"columns": ["what", "ip"], "join": " "})},
    "bad constant": {"fields": _fields(currency={"constant": "money"})},
    "wide": {"fields": _fields(), "encoding": "utf-16-le"},
}

_TIMES = (
    "2026-03-01 10:11:12",
    "2026-03-29 02:30:00",
    "2026-10-25 02:30:00",
    "2026-04-05 01:45:00",
    "2026-10-04 02:15:00",
    "2026-02-30 00:00:00",
    "0000-00-00 00:00:00",
    "1969-12-31 23:59:59",
    "2081-01-01 00:00:00",
    "2026-03-01T10:11:12.5Z",
    "20260301 101112+0130",
    "2026-03-01 10:11",
    "2026-03-01 10:11 -03:00",
    "20260301101112",
    "2026-3-1 1:1:1",
    "3/1/26 1:05 PM",
    "12/31/69 12:00 am",
    "13/1/26 1:05 PM",
    "Sun, 01 Mar 2026 10:11:12.123456789 UTC",
    "Sun, 1 March 2026 10:11:12.5 +01:00",
    "1772359872",
    "1772359872.1234567",
    "1772359872123",
    "1772359872123456",
    "46082.4244",
    "99999999999999999999",
    "01/03/2026 10:11",
    "2026-03-01  10:11:12",
    "-",
    "0",
)
_TEXTS = (
    "",
    " ",
    "a",
    "id-1",
    "+39021234",
    "0044207",
    "4.4E+11",
    "1,5",
    "391234.00",
    '="0039"',
    "'0039",
    "sip:391@10.0.0.1",
    "é",
    "中文",
    "\u3000x\u3000",
    "x\xa0",
    "null",
    "NULL",
    "Null",
    "\\N",
    "10.0.0.1:5060",
    "[::1]:5060",
    "ANSWERED",
    "FAILED",
    "BUSY",
    "voice",
    "x" * 255,
    "x" * 256,
    "a\x00b",
    "a\x1fb",
    "a\rb",
    'a"b',
    "a,b",
    "a;b",
    "# no",
    "+ 39",
    "00 44",
)
_AMOUNTS = (
    "0",
    "1",
    "60",
    "12.345",
    "12.3455",
    "0.0005",
    "12.",
    ".5",
    "-1",
    "-0",
    "4294967295",
    "4294967296",
    "4294867296",
    "4294867295",
    "10000000",
    "10000000.001",
    "10000000000.4",
    "1:02:03",
    "02:03.5",
    "61:61",
    "1:60:00",
    "1:2:3:4",
    "999999999999999999999",
    "16",
    "200",
    "4.35",
    "128",
)

_TAMED = st.sampled_from(("a", "id-1", "+39021234", "0044207", "ANSWERED", "é", "10.0.0.1"))


def _cells(kind: str) -> st.SearchStrategy[str]:
    usual = {
        "time": st.sampled_from(_TIMES[:1] + _TIMES[9:22]),
        "amount": st.sampled_from(_AMOUNTS[:4]),
        "text": _TAMED,
    }[kind]
    odd = st.sampled_from((*_TEXTS, *_TIMES, *_AMOUNTS)) | st.text(max_size=6)
    own = {"time": _TIMES, "amount": _AMOUNTS, "text": _TEXTS}[kind]
    return st.one_of(usual, usual, usual, st.sampled_from(own), st.sampled_from(own), odd)


_ROW = st.tuples(
    _cells("text"),
    *(_cells("time"),) * 3,
    *(_cells("text"),) * 2,
    _cells("amount"),
    *(_cells("text"),) * 2,
    _cells("amount"),
)


@st.composite
def nasty_lines(draw: st.DrawFn, delimiter: str, quote: str, encoding: str) -> bytes:
    """One line of a file for ``MAPPINGS``, as it should be or in one of many ways not."""
    cells = list(draw(_ROW))
    how = draw(st.integers(0, 19))
    if how == 0:
        cells = cells[: draw(st.integers(0, 9))]
    elif how == 1:
        cells += draw(st.lists(st.sampled_from(["", " ", "x"]), min_size=1, max_size=2))
    elif how == 2:
        return draw(st.binary(max_size=60))
    elif how == 3:
        return draw(st.sampled_from([b"", b" ", b"# a note", b"#", b"\t", b"\r", b"\xef\xbb\xbf"]))
    elif how == 4:
        cells = list(HEADER)
    elif how < 9 and quote:
        doubled = [cell.replace(quote, quote * 2) if how < 8 else cell for cell in cells]
        pad = " " if how == 5 else ""
        cells = [f"{pad}{quote}{cell}{quote}" for cell in doubled]
    elif how == 9:
        cells = [f" {cell} " for cell in cells]
    text = delimiter.join(cells)
    if how == 10:
        return text.encode("cp1252", "replace")
    return text.encode(encoding, "replace")
