"""What RADIUS calls a call, and what is kept to reach it again.

A session is kept under the h323-conf-id where there is one, since all legs of a call share it, else
under the Acct-Session-Id, else under the SIP Call-ID. What the switch is told comes back in Class.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from ipaddress import ip_address

from tollkeeper.servers.asks import Ask
from tollkeeper.store.peers import Peer
from tollkeeper.wire.radius.messages import Question, Report
from tollkeeper.wire.radius.orders import Target

MARK = b"tk:"
"""What a Class or State of ours begins with; those of others are none of our business."""
WHOLE_CALL_SECONDS = 7200
"""Asked for at once where the switch cannot be told of more (option ``whole_call``)."""
SECONDS_MAX = 31 * 86_400
"""A longer Acct-Session-Time is a fault of the switch and counts as absent."""
DELAY_MAX = 7 * 86_400
"""A longer Acct-Delay-Time likewise."""
CLOCK_STEP_MS = 60_000
"""The switch's clock was set during a call that lasts so much longer by it than by ours."""
ASKED_MAX = 8
"""Requests that one call is remembered to have been asked for by."""

Handle = Mapping[str, object]


def mark_of(call_id: str) -> bytes:
    """The Class of a session."""
    return MARK + call_id.encode()


def marked(values: tuple[bytes, ...]) -> list[str]:
    """The sessions that values of Class name."""
    return [
        value[len(MARK) :].decode("ascii", "replace") for value in values if value.startswith(MARK)
    ]


def state_of(call_id: str, granted: int) -> bytes:
    """The State of a session of which so many seconds are granted: it says what is used up by then."""
    return mark_of(call_id) + b" %d" % granted


def read_states(values: list[bytes]) -> tuple[str, int] | None:
    """The session that a State of ours names, and the seconds that are used up; none if none is ours."""
    for said in marked(tuple(values)):
        call_id, _, granted = said.partition(" ")
        if call_id and granted.isascii() and granted.isdecimal() and len(granted) <= 9:
            return call_id, int(granted)
    return None


def names_of(peer: Peer, said: Question | Report) -> list[str]:
    """What a switch's own words call a call, the name under which it is kept first.

    Behind a proxy ids are unique only for each NAS, so that they go with its name.
    """
    found = [name for name in (said.conference, said.session_id, said.call_id) if name]
    if not peer.flag("proxied"):
        return found
    nas = said.nas_identifier or said.nas_address
    return [f"{nas}:{name}" if name != said.conference else name for name in found]


def made_name(source: str, said: Question, authenticator: bytes) -> str:
    """A name for a call that the switch gave none: the same for the same packet sent again."""
    parts = (source, said.user, said.calling, said.called, authenticator.hex())
    return "r-" + hashlib.blake2b("\n".join(parts).encode(), digest_size=12).hexdigest()


def extends(peer: Peer) -> bool:
    """Tell whether a call that is up can be given more."""
    return peer.text("extend", "none") != "none"


def ask_of(
    peer: Peer, call_id: str, said: Question | Report, source: str, units: int | None = None
) -> Ask:
    """What is asked for a call, by an Access-Request or by accounting alone; ``units`` if that is known.

    Where it came from is the gateway's word for it, or a user name that is an address (as IP trunks
    are told of), or the switch itself.
    """
    user = said.user
    by_address = is_address(user)
    data = peer.text("service", "voice") == "data"
    requested = units
    if requested is None and not data and not extends(peer):
        requested = peer.whole("whole_call", WHOLE_CALL_SECONDS)
    return Ask(
        call_id=call_id,
        called=said.called or ("data" if data else ""),
        caller=said.calling,
        service=peer.text("service", "voice"),
        trunk=said.nas_identifier,
        address=said.remote_address or (user if by_address else "") or said.nas_address or source,
        account="" if by_address else user,
        requested=requested,
        fresh=True,
    )


def is_address(text: str) -> bool:
    """Tell whether a text is an IP address."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def handle_of(
    peer: Peer, said: Question | Report, source: str, before: Handle | None, party: str = ""
) -> Handle:
    """What is kept of a call to reach it: in the words that the switch used first."""
    known = dict(before or {})
    known.setdefault("peer", peer.code)
    known["addr"] = source
    if party:
        known["party"] = party
    for name, value in (
        ("sid", said.session_id),
        ("user", said.user),
        ("nas", said.nas_address),
        ("nas_id", said.nas_identifier),
        ("conf", said.conference),
    ):
        if value and not known.get(name):
            known[name] = value
    return known


def asked_by(handle: Handle | None) -> list[str]:
    """The authenticators of the requests that a call was asked for by, in hexadecimal."""
    value = handle.get("asked") if handle is not None else None
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def asked_too(handle: Handle, authenticator: bytes) -> Handle:
    """A handle that knows of one more request for its call."""
    known = [one for one in asked_by(handle) if one != authenticator.hex()]
    return {**handle, "asked": [*known, authenticator.hex()][-ASKED_MAX:]}


def target_of(peer: Peer, handle: Handle) -> Target:
    """A session as orders name it: no more than is needed, since a NAS refuses what it does not know."""
    conference = word(handle, "conf") if peer.dialect == "cisco" else ""
    if len(conference) == 32:
        # As Cisco's gateways write it: four groups.
        conference = " ".join(conference[at : at + 8].upper() for at in range(0, 32, 8))
    return Target(
        session_id=word(handle, "sid"),
        user=word(handle, "user"),
        nas_address=word(handle, "nas"),
        nas_identifier=word(handle, "nas_id"),
        conference=conference,
    )


def word(handle: Handle | None, name: str) -> str:
    """A text of a handle."""
    value = handle.get(name, "") if handle is not None else ""
    return value if isinstance(value, str) else ""


def whole(handle: Handle | None, name: str) -> int | None:
    """A number of a handle."""
    value = handle.get(name) if handle is not None else None
    return value if isinstance(value, int) else None


def used_ms(report: Report, handle: Handle | None, now: datetime, *, data: bool) -> int:
    """The cumulative usage that a report claims, in thousandths of the unit.

    The switch's own counter is believed first; else the times of its one clock are subtracted, since
    an hour that it is off is so in both; else our own, less what it says the message was delayed. Ours
    count as well where its clock was set during the call: it went back, or far ahead of ours.
    """
    if data:
        return (report.octets or 0) * 1000
    if report.seconds is not None and report.seconds <= SECONDS_MAX:
        return report.seconds * 1000
    began, heard = whole(handle, "began"), whole(handle, "heard")
    ours: int | None = None
    if heard is not None:
        ours = max(0, milliseconds(now - timedelta(seconds=delay_of(report))) - heard)
    claims = [report.connected_ms]
    if began is not None and report.happened_at is not None:
        claims.append((int(report.happened_at.timestamp()) - began) * 1000)
    for claim in claims:
        if claim is None or not 0 <= claim <= SECONDS_MAX * 1000:
            continue
        if ours is None or claim <= ours + CLOCK_STEP_MS:
            return claim
    return min(ours or 0, SECONDS_MAX * 1000)


def delay_of(report: Report) -> int:
    """For how many seconds a report has been on its way, as far as that can be believed."""
    return report.delay if report.delay <= DELAY_MAX else 0


def milliseconds(at: datetime) -> int:
    """A time as milliseconds since 1970."""
    return int(at.timestamp() * 1000)
