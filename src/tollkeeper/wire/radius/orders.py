"""Orders to a NAS (RFC 5176): end this session, or let it last until then.

An order that names too little would hit other calls as well, since a NAS has to apply it to all that
match (section 3). So there is none without an Acct-Session-Id.
"""

from __future__ import annotations

from datetime import datetime
from ipaddress import IPv4Address, ip_address

import msgspec

from tollkeeper.wire.radius.attributes import (
    Attributes,
    Type,
    Voice,
    address,
    integer,
    text,
    voice,
)
from tollkeeper.wire.radius.packet import Attribute, Packet


class Target(msgspec.Struct, frozen=True, gc=False):
    """A session as its NAS named it, in its own words."""

    session_id: str
    user: str = ""
    nas_address: str = ""
    nas_identifier: str = ""
    calling: str = ""
    called: str = ""
    conference: str = ""


def disconnect(target: Target, at: datetime, *, proxied: str = "") -> list[Attribute]:
    """The attributes of a Disconnect-Request: which NAS, which session, and nothing else.

    ``at`` goes unchanged into every retransmission (section 6.3); ``proxied`` is a Proxy-State.

    Raises:
        ValueError: the target has no session id.
    """
    return _identify(target, at, proxied)


def prolong(target: Target, seconds: int, at: datetime) -> list[Attribute]:
    """The attributes of a CoA-Request that sets Session-Timeout, counted from the session's start.

    Raises:
        ValueError: the target has no session id.
    """
    return [*_identify(target, at, ""), integer(Type.SESSION_TIMEOUT, seconds)]


def _identify(target: Target, at: datetime, proxied: str) -> list[Attribute]:
    if not target.session_id:
        raise ValueError(
            "an order without an Acct-Session-Id could end other calls; the session has none"
        )
    found: list[Attribute] = []
    if target.nas_address:
        nas = ip_address(target.nas_address)
        four = isinstance(nas, IPv4Address)
        found.append(address(Type.NAS_IP_ADDRESS if four else Type.NAS_IPV6_ADDRESS, nas))
    if target.nas_identifier:
        found.append(text(Type.NAS_IDENTIFIER, target.nas_identifier))
    if target.user:
        found.append(text(Type.USER_NAME, target.user))
    found.append(text(Type.ACCT_SESSION_ID, target.session_id))
    if target.called:
        found.append(text(Type.CALLED_STATION_ID, target.called))
    if target.calling:
        found.append(text(Type.CALLING_STATION_ID, target.calling))
    if target.conference:
        found.append(voice(Voice.CONF_ID, target.conference))
    found.append(integer(Type.EVENT_TIMESTAMP, int(at.timestamp())))
    if proxied:
        found.append(text(Type.PROXY_STATE, proxied))
    return found


def error_cause(answer: Packet) -> int:
    """The Error-Cause of a NAK, 0 if it does not tell (section 3.5)."""
    return Attributes(answer.attributes).integer(Type.ERROR_CAUSE) or 0
