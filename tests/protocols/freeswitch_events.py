"""What the fake FreeSWITCH says: the headers of its events and how they are written.

Header names and their order are those of the real switch; the values are made up.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

Pairs = list[tuple[str, str]]
UNCODED = "/,()*!'"
"""What stays as it is in a value; all else but letters and digits is percent-coded."""
CAUSES = {
    "NORMAL_CLEARING": 16, "CALL_REJECTED": 21, "NO_ROUTE_DESTINATION": 3, "USER_BUSY": 17,
    "ALLOTTED_TIMEOUT": 602, "ORIGINATOR_CANCEL": 487, "MANAGER_REQUEST": 503,
    "NORMAL_CIRCUIT_CONGESTION": 34, "SWITCH_CONGESTION": 42, "NORMAL_TEMPORARY_FAILURE": 41,
    "INVALID_NUMBER_FORMAT": 28, "OUTGOING_CALL_BARRED": 52, "NORMAL_UNSPECIFIED": 31,
    "RECOVERY_ON_TIMER_EXPIRE": 102, "NETWORK_OUT_OF_ORDER": 38,
}  # fmt: skip
"""The names of causes that the switch knows, and their numbers; over 127 they are its own."""


@dataclass(eq=False)
class Call:
    """One channel, in times of the switch's clock (microseconds, 0 is never)."""

    uuid: str
    caller: str
    called: str
    account: str
    variables: dict[str, str]
    created: int
    answered: int = 0
    ended: int = 0
    state: str = "CS_EXECUTE"
    parked: bool = False
    context: str = "tollkeeper"
    transferred: list[tuple[str, str]] = field(default_factory=list)
    cause: str = ""
    direction: str = "inbound"

    @property
    def live(self) -> bool:
        """True until the hangup."""
        return not self.ended

    @property
    def seconds(self) -> float:
        """How long it was answered."""
        return (self.ended - self.answered) / 1e6 if self.answered else 0.0


def base_headers(name: str, core: str, now: int, sequence: int) -> Pairs:
    """What every event begins with; ``now`` is the switch's clock in microseconds."""
    at = datetime.fromtimestamp(now / 1e6, UTC)
    return [
        ("Event-Name", name),
        ("Core-UUID", core),
        ("FreeSWITCH-Hostname", "fake-switch"),
        ("FreeSWITCH-Switchname", "fake-switch"),
        ("FreeSWITCH-IPv4", "127.0.0.1"),
        ("FreeSWITCH-IPv6", "::1"),
        ("Event-Date-Local", f"{at:%Y-%m-%d %H:%M:%S}"),
        ("Event-Date-GMT", f"{at:%a, %d %b %Y %H:%M:%S} GMT"),
        ("Event-Date-Timestamp", str(now)),
        ("Event-Calling-File", "switch_channel.c"),
        ("Event-Calling-Function", "switch_channel_perform"),
        ("Event-Calling-Line-Number", "1234"),
        ("Event-Sequence", str(sequence)),
    ]


def channel_headers(name: str, call: Call, base: Pairs) -> Pairs:
    """The headers of a channel's event, its variables last."""
    up = "answered" if call.answered else "ringing"
    headers = list(base)
    if call.cause:
        headers.append(("Hangup-Cause", call.cause))
    headers += [
        ("Channel-State", call.state),
        ("Channel-Call-State", "HANGUP" if call.ended else "ACTIVE"),
        ("Channel-Name", f"sofia/external/{call.caller}@127.0.0.1:5080"),
        ("Unique-ID", call.uuid),
        ("Call-Direction", call.direction),
        ("Presence-Call-Direction", call.direction),
        ("Channel-HIT-Dialplan", "true"),
        ("Channel-Call-UUID", call.uuid),
        ("Answer-State", "hangup" if call.ended else up),
    ]
    if call.cause:
        headers.append(("Hangup-Cause", call.cause))
    headers += [
        ("Channel-Read-Codec-Name", "PCMA"),
        ("Channel-Read-Codec-Rate", "8000"),
        ("Caller-Direction", call.direction),
        ("Caller-Username", call.caller),
        ("Caller-Dialplan", "XML"),
        ("Caller-Caller-ID-Name", f"Caller {call.caller}"),
        ("Caller-Caller-ID-Number", call.caller),
        ("Caller-Network-Addr", "127.0.0.1"),
        ("Caller-ANI", call.caller),
        ("Caller-Destination-Number", call.called),
        ("Caller-Unique-ID", call.uuid),
        ("Caller-Source", "mod_sofia"),
        ("Caller-Context", call.context),
        ("Caller-Channel-Name", f"sofia/external/{call.caller}@127.0.0.1:5080"),
        ("Caller-Profile-Index", "1"),
        ("Caller-Profile-Created-Time", str(call.created)),
        ("Caller-Channel-Created-Time", str(call.created)),
        ("Caller-Channel-Answered-Time", str(call.answered)),
        ("Caller-Channel-Progress-Time", "0"),
        ("Caller-Channel-Progress-Media-Time", "0"),
        ("Caller-Channel-Hangup-Time", str(call.ended)),
        ("Caller-Channel-Transfer-Time", "0"),
        ("Caller-Channel-Bridged-Time", str(call.answered)),
        ("Caller-Screen-Bit", "true"),
        ("Caller-Privacy-Hide-Name", "false"),
        ("variable_direction", call.direction),
        ("variable_uuid", call.uuid),
        ("variable_call_uuid", call.uuid),
        ("variable_sip_from_user", call.caller),
        ("variable_sip_network_ip", "127.0.0.1"),
        ("variable_sip_req_user", call.called),
        ("variable_sip_call_id", f"{call.uuid[:8]}@127.0.0.1"),
        ("variable_accountcode", call.account),
        ("variable_DP_MATCH", f"ARRAY::{call.called}|:{call.called}"),
    ]
    headers += [(f"variable_{key}", value) for key, value in call.variables.items()]
    return headers + (_totals(call) if name == "CHANNEL_HANGUP_COMPLETE" else [])


def _totals(call: Call) -> Pairs:
    """What the switch counts when a call is over."""
    bill = call.ended - call.answered if call.answered else 0
    whole = call.ended - call.created
    number = CAUSES[call.cause]
    found = [
        ("variable_hangup_cause", call.cause),
        ("variable_hangup_cause_q850", str(number if number < 128 else 16)),
        ("variable_sip_hangup_disposition", "recv_bye"),
    ]
    for name, at in (("start", call.created), ("answer", call.answered), ("end", call.ended)):
        found += [(f"variable_{name}_epoch", str(at // 10**6))]
        found += [(f"variable_{name}_uepoch", str(at))]
    for seconds, milliseconds, microseconds, span in (
        ("duration", "mduration", "uduration", whole),
        ("billsec", "billmsec", "billusec", bill),
    ):
        found += [
            (f"variable_{seconds}", str(span // 10**6)),
            (f"variable_{milliseconds}", str(span // 1000)),
            (f"variable_{microseconds}", str(span)),
        ]
    return found


# --- writing -----------------------------------------------------------------------------------------


def plain(headers: Pairs) -> str:
    """Headers as the switch writes an event: percent-coded values, one to a line."""
    return "".join(f"{name}: {quote(value, safe=UNCODED)}\n" for name, value in headers)


def frame(kind: str, body: str, headers: Pairs | None = None) -> bytes:
    """One frame."""
    lines = [("Content-Type", kind), *(headers or [])]
    data = body.encode()
    if data:
        lines.append(("Content-Length", str(len(data))))
    return "".join(f"{name}: {value}\n" for name, value in lines).encode() + b"\n" + data


def encode_event(headers: Pairs, body: str = "", form: str = "plain") -> bytes:
    """An event as a frame; headers of one name are repeated as lines, or made a list in JSON."""
    if form == "json":
        values: dict[str, str | list[str]] = {}
        for name, value in headers:
            before = values.get(name)
            if before is None:
                values[name] = value
            elif isinstance(before, list):
                before.append(value)
            else:
                values[name] = [before, value]
        if body:
            values["_body"] = body
        return frame("text/event-json", json.dumps(values))
    text = plain(headers)
    if body:
        text += f"Content-Length: {len(body.encode())}\n\n{body}"
    else:
        text += "\n"
    return frame("text/event-plain", text)
