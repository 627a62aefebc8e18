"""What the columns of an unknown table are, by their names and by what stands in them: a proposal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from tollkeeper.wire.cdr.problem import FieldProblem
from tollkeeper.wire.cdr.times import time_reader

# In each list the better column comes first: billsec before duration, for money goes by it.
_NAMES: Final[dict[str, str]] = {
    "call_id": "callid sipcallid uniqueid uuid callguid guid sessionid acctsessionid h323confid "
    "confid linkedid cdrid originid recordid id",
    "start": "start starttime startstamp startdate startingdate calldate callstart setuptime "
    "timestart startdatetime begintime datetime callstarttime date time timestamp",
    "answer": "answer answertime answerstamp connecttime timeconnect answerdate callanswer",
    "end": "end endtime endstamp stoptime stop disconnecttime timeend enddate hanguptime callend",
    "duration": "billsec billseconds billableseconds billedseconds billduration talktime holdtime "
    "sessiontime realsessiontime conversationtime callduration durationsec durationseconds "
    "acctsessiontime usage duration seconds length",
    "caller": "src caller cli ani callerid calleridnumber callingnumber calling anumber source "
    "callingstationid calleriduser origin from callere164 clisrc fromnumber origination",
    "called": "dst called cld dnis callednumber callednum destinationnumber dialednumber "
    "diallednumber bnumber calledstationid calledstation destination calleee164 to dialed number "
    "tonumber",
    "account": "account accountcode accountid customer customeraccount customerid client clientid "
    "user username subscriber",
    "trunk_in": "trunkin intrunk ingresstrunk origtrunk callergateway callergatewayid ingress "
    "sourcetrunk origgw inboundtrunk",
    "trunk_out": "trunkout outtrunk egresstrunk termtrunk calleegateway calleegatewayid egress "
    "vendor provider carrier gateway destinationtrunk termgw outboundtrunk trunk",
    "ip_in": "ipin callerip sourceip srcip originip remoteip ingressip ip networkaddr fromip",
    "ip_out": "ipout calleeip destinationip dstip termip egressip toip",
    "sip": "sip sipcode sipstatus sipresponse responsecode statuscode finalcode",
    "q850": "q850 hangupcauseid hangupcauseq850 causecode releasecause disconnectcause cause isdncause",
    "pdd": "pdd pddms postdialdelay",
    "mos": "mos moscq",
    "price": "price sellcost charge chargedamount amount cost sessionbill fee",
    "currency": "currency currencycode",
}
_LAYOUTS: Final = (
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%d %H:%M:%S.%f",
    "iso",
    "%d/%m/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M",
    "%m/%d/%Y %I:%M:%S %p",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d-%m-%Y %H:%M:%S",
    "%Y/%m/%d %H:%M:%S",
    "%Y-%m-%d %H:%M",
    "%Y%m%d%H%M%S",
    "%d %b %Y %H:%M:%S",
    "%d-%b-%Y %H:%M:%S",
    "%d/%m/%y %H:%M:%S",
    "%a %b %d %H:%M:%S %Y",
)
_EPOCHS: Final = {10: "epoch", 13: "epoch_ms", 16: "epoch_us"}
_CAUSES: Final = frozenset({"1", "3", "16", "17", "18", "19", "20", "21", "27", "31", "34", "38"})
_SIP: Final = frozenset({"200", "404", "480", "486", "487", "503"})
_SMALL_FIELDS: Final = frozenset({"sip", "q850", "mos", "price", "pdd"})
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_NUMBER = re.compile(r"\+?[0-9]{5,15}")
_SMALL = re.compile(r"-?[0-9]{1,6}(\.[0-9]+)?")
_CLOCK = re.compile(r"[0-9]{1,3}:[0-9]{2}(:[0-9]{2})?(\.[0-9]+)?")
_IP = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}(:[0-9]+)?")


@dataclass(slots=True)
class Columns:
    """The columns found, each a table as of a mapping file, and what to say about them."""

    fields: dict[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    taken: set[int] = field(default_factory=set)


def time_layout(texts: Sequence[str]) -> str:
    """Return the layout in which all these are times; "" for none."""
    found = time_layouts(texts)
    return found[0] if found else ""


def time_layouts(texts: Sequence[str]) -> list[str]:
    """Return every known layout in which all these are times."""
    given = [text for text in texts if text and text != "0"]
    if not given:
        return []
    if all(text.partition(".")[0].isascii() and text.partition(".")[0].isdigit() for text in given):
        lengths = {len(text.partition(".")[0]) for text in given}
        if len(lengths) == 1 and (epoch := _EPOCHS.get(min(lengths))):
            # Seconds from 2001 to 2096; a telephone number can look the same and begins otherwise.
            leads = {text[0] for text in given}
            return [epoch] if leads <= set("123") else []
    return [layout for layout in _LAYOUTS if _all_read(layout, given)]


def _all_read(layout: str, texts: Sequence[str]) -> bool:
    read = time_reader(layout)
    try:
        for text in texts:
            read(text, "start")
    except FieldProblem:
        return False
    return True


def guess_columns(
    header: Sequence[str], rows: Sequence[Sequence[str]], names: Sequence[str]
) -> Columns:
    """Propose the fields of a mapping.

    ``header`` are the columns' names as the file has them (empty texts without a header), ``rows``
    some rows of the same width, ``names`` what a mapping calls each column.
    """
    found = Columns()
    cells = [[row[index].strip() for row in rows] for index in range(len(names))]
    _by_name(header, cells, names, found)
    _by_content(header, cells, names, found)
    if "call_id" not in found.fields:
        parts = [
            _source(found.fields[key])
            for key in ("start", "caller", "called")
            if key in found.fields
        ]
        if parts:
            found.fields["call_id"] = {"columns": parts}
            found.notes.append(
                "No column holds an id of the call; it is put together of start, caller and called."
            )
    return found


def _source(rule: object) -> str:
    return str(rule["column"]) if isinstance(rule, dict) else str(rule)


def _by_name(
    header: Sequence[str], cells: Sequence[Sequence[str]], names: Sequence[str], found: Columns
) -> None:
    plain = [re.sub("[^a-z0-9]", "", name.lower()) for name in header]
    for target, aliases in _NAMES.items():
        for alias in aliases.split():
            if alias not in plain:
                continue
            index = plain.index(alias)
            if index in found.taken or not any(cells[index]):
                continue
            if _take(target, index, cells[index], names[index], found):
                break


def _take(target: str, index: int, cells: Sequence[str], name: str, found: Columns) -> bool:
    """Make a column the source of a field, if what stands in it can be that."""
    rule: object = name
    if target in {"start", "answer", "end"}:
        layouts = time_layouts(cells)
        if not layouts:
            return False
        rule = {"column": name, "time": layouts[0]}
        if len(layouts) > 1 and {"%d/%m", "%m/%d"} <= {layout[:5] for layout in layouts[:2]}:
            found.notes.append(f"Day and month of {name} cannot be told apart; check its layout.")
    elif target == "duration":
        given = [cell for cell in cells if cell]
        if all(_CLOCK.fullmatch(cell) for cell in given):
            rule = {"column": name, "unit": "hh:mm:ss"}
        elif not all(_SMALL.fullmatch(cell) for cell in given):
            return False
    elif target in _SMALL_FIELDS and not all(_SMALL.fullmatch(cell) for cell in cells if cell):
        return False
    found.fields[target] = rule
    found.taken.add(index)
    return True


def _by_content(
    header: Sequence[str], cells: Sequence[Sequence[str]], names: Sequence[str], found: Columns
) -> None:
    free = [index for index in range(len(names)) if index not in found.taken and any(cells[index])]
    for index in free:
        column = cells[index]
        if "call_id" not in found.fields and _mostly(_UUID, column):
            _claim("call_id", index, names, found)
        elif "start" not in found.fields and time_layout(column):
            _take("start", index, column, names[index], found)
            found.notes.append(f"{names[index]} looks like the start of the call.")
        elif "ip_in" not in found.fields and not header[index] and _mostly(_IP, column):
            _claim("ip_in", index, names, found)
    _numbers(cells, names, found)
    _durations(cells, names, found)
    for target, usual, common in (("q850", "16", _CAUSES), ("sip", "200", _SIP)):
        for index in range(len(names)):
            if index in found.taken or target in found.fields:
                continue
            if usual in cells[index] and set(cells[index]) <= common:
                _claim(target, index, names, found)


def _claim(target: str, index: int, names: Sequence[str], found: Columns) -> None:
    found.fields[target] = names[index]
    found.taken.add(index)
    found.notes.append(f"{names[index]} looks like {target}.")


def _mostly(pattern: re.Pattern[str], cells: Sequence[str]) -> bool:
    given = [cell for cell in cells if cell]
    return bool(given) and 10 * sum(bool(pattern.fullmatch(one)) for one in given) >= 9 * len(given)


def _numbers(cells: Sequence[Sequence[str]], names: Sequence[str], found: Columns) -> None:
    """Give the columns of telephone numbers, in their order, to caller and called."""
    wanted = [target for target in ("caller", "called") if target not in found.fields]
    like = [
        index
        for index in range(len(names))
        if index not in found.taken
        and _mostly(_NUMBER, cells[index])
        and not time_layout(cells[index])
    ]
    if len(like) == 1 and "called" in wanted:
        wanted = ["called"]
    for target, index in zip(wanted, like, strict=False):
        _claim(target, index, names, found)


def _durations(cells: Sequence[Sequence[str]], names: Sequence[str], found: Columns) -> None:
    """Take the conversation time: of two columns of which one is never longer, the shorter."""
    if "duration" in found.fields:
        return
    small = [
        index
        for index in range(len(names))
        if index not in found.taken
        and all(_SMALL.fullmatch(cell) for cell in cells[index])
        and len(set(cells[index])) > 1
        and not set(cells[index]) <= _CAUSES
    ]
    for first, second in pairwise(small):
        pairs = zip(cells[first], cells[second], strict=True)
        if all(_whole(one) >= _whole(other) for one, other in pairs):
            _claim("duration", second, names, found)
            return
    if small:
        _claim("duration", small[0], names, found)


def _whole(text: str) -> int:
    return int(text.partition(".")[0])
