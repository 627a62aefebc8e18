"""What the variables of a FreeSWITCH channel say of its call: for its JSON, its events, its CSV.

Sources: the channel variables of ``switch_channel.c`` (``switch_channel_set_timestamps``) and of
``mod_sofia``; mod_json_cdr and the CHANNEL_HANGUP_COMPLETE event carry the same ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote

from tollkeeper.core.usage import Skipped, Usage
from tollkeeper.wire.cdr.causes import of_freeswitch
from tollkeeper.wire.cdr.format import ReadOptions
from tollkeeper.wire.cdr.problem import FieldProblem
from tollkeeper.wire.cdr.values import (
    duration_ms,
    ip_text,
    mos_hundredths,
    number_text,
    plain_text,
    q850_cause,
    time_reader,
)

Look = Callable[[str], str]
"""The value of a channel variable; "" where it is not set."""
_STAMP = "%Y-%m-%d %H:%M:%S"
_SIP_CAUSE = re.compile(r"sip:([1-6][0-9]{2})")
_SIP_STATUS = re.compile(r"[1-6][0-9]{2}")
_OK = 200


def plain_value(text: str) -> str:
    """Undo the percent coding that ``encode-values`` and events put on a value."""
    return unquote(text, errors="replace") if "%" in text else text


def usage_of(
    look: Look, *, caller: str, called: str, mos: str, record: int, options: ReadOptions
) -> Usage | Skipped:
    """Make the record of one channel.

    ``caller`` and ``called`` are those of the channel's caller profile. A leg that another leg
    bridged to is skipped: its call is in the record of the leg that came in, which is charged.

    Raises:
        FieldProblem: a field that cannot be read.
    """
    if look("originator") or look("originating_leg_uuid"):
        return Skipped(record, "The leg was made by another leg, whose record has the call.")
    start = _time(look, "start", options)
    if start is None:
        raise FieldProblem("start", "", "The start of the call is missing.")
    answer = _time(look, "answer", options)
    duration = _duration(look, answered=answer is not None)
    if answer is None and duration > 0:
        answer = start
    uuid = plain_text(look("uuid"), "call_id")
    call_id = plain_text(look("call_uuid"), "call_id") or uuid
    if not call_id:
        raise FieldProblem("call_id", "", "The call id is missing, so the call cannot be told.")
    cause = of_freeswitch(look("hangup_cause"))
    return Usage(
        line=record,
        call_id=call_id,
        start=start,
        duration_ms=duration,
        leg="" if uuid == call_id else uuid,
        caller=number_text(caller, "caller"),
        called=number_text(called, "called"),
        answer=answer,
        end=_time(look, "end", options),
        trunk_in=plain_text(look("sip_gateway"), "trunk_in"),
        ip_in=ip_text(look("sip_network_ip") or look("network_addr"), "ip_in"),
        account=plain_text(look("accountcode"), "account"),
        trunk_out=plain_text(look("sip_gateway_name") or look("bridge_gateway"), "trunk_out"),
        ip_out=_host_of_channel(look("bridge_channel")),
        sip=_OK if answer is not None else _sip(look) or cause.sip,
        q850=_q850(look("hangup_cause_q850")) or cause.q850,
        pdd_ms=_pdd(look, start),
        mos=mos_hundredths(look("rtp_audio_in_mos") or mos),
    )


def _time(look: Look, name: str, options: ReadOptions) -> int | None:
    """Return a time from the most precise of its three variables; 0 is FreeSWITCH's "never"."""
    for suffix, layout in (("_uepoch", "epoch_us"), ("_epoch", "epoch"), ("_stamp", _STAMP)):
        text = look(name + suffix)
        if text in {"0", ""}:
            continue
        return time_reader(layout, options.timezone)(text, name)
    return None


def _duration(look: Look, *, answered: bool) -> int:
    for name, unit in (("billusec", "us"), ("billmsec", "ms"), ("billsec", "s")):
        text = look(name)
        if text:
            return duration_ms(text, unit)
    if answered:
        raise FieldProblem("duration", "", "The call was answered and has no billsec.")
    return 0


def _pdd(look: Look, start: int) -> int | None:
    """Milliseconds from the setup to the first sign of ringing or early media."""
    signs: list[int] = []
    for name in ("progress", "progress_media"):
        text = look(f"{name}_uepoch")
        if text.isascii() and text.isdigit() and int(text[:19]) > start:
            signs.append(int(text[:19]))
    if not signs:
        return None
    return min((min(signs) - start + 500) // 1_000, 2**31 - 1)


def _sip(look: Look) -> int | None:
    for name in ("sip_term_status", "sip_invite_failure_status"):
        if _SIP_STATUS.fullmatch(look(name)):
            return int(look(name))
    for name in ("proto_specific_hangup_cause", "last_bridge_proto_specific_hangup_cause"):
        match = _SIP_CAUSE.fullmatch(look(name))
        if match:
            return int(match[1])
    return None


def _q850(text: str) -> int | None:
    # FreeSWITCH counts its own causes on above 127; they are known by their name.
    return None if len(text) == 3 and text > "127" else q850_cause(text)


def _host_of_channel(name: str) -> str:
    """Return the address in a channel's name, such as "sofia/out/1002@192.0.2.1:5060"."""
    host = name.rpartition("@")[2] if "@" in name else ""
    return ip_text(host.partition(";")[0], "ip_out")
