"""Reading what Asterisk's channels and variables say: peers, addresses, durations."""

from __future__ import annotations

import re
from decimal import Decimal
from ipaddress import ip_address
from typing import Final

_CHANNEL = re.compile(r"(?:Local|[A-Za-z0-9]+)/(?P<peer>.+)-[0-9a-fA-F]{4,}(?:;[12])?")
_WHOLE = re.compile(r"[0-9]{1,12}")
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
THOUSAND: Final = 1000


def peer_of_channel(name: str) -> str:
    """The endpoint in a channel's name: acme of ``PJSIP/acme-00000002``; empty where there is none."""
    match = _CHANNEL.fullmatch(name)
    return match["peer"].partition("@")[0] if match is not None else ""


def address_of(text: str) -> str:
    """The IP address in ``192.0.2.1:5060`` or ``[2001:db8::1]:5060``; empty where there is none.

    So ``CHANNEL(pjsip,remote_addr)`` writes it.
    """
    text = text.strip()
    plain = text[1:].partition("]")[0] if text.startswith("[") else text
    for candidate in (plain, plain.rpartition(":")[0]):
        try:
            return str(ip_address(candidate))
        except ValueError:
            continue
    return ""


def call_ms(milliseconds: str, seconds: str, billed: str) -> int | None:
    """The longest that ANSWEREDTIME_MS, ANSWEREDTIME or CDR(billsec) say, in milliseconds.

    ANSWEREDTIME is cut to whole seconds, so the milliseconds are taken where both are there; an older
    Asterisk has only the seconds. CDR(billsec) counts from the channel's own answer, which a dialplan
    may have given before it dialled: it is read only where nothing else is there. None: nothing is.
    """
    if _WHOLE.fullmatch(milliseconds) is not None:
        return int(milliseconds)
    for text in (seconds, billed):
        if _SECONDS.fullmatch(text) is not None:
            return int(Decimal(text) * THOUSAND)
    return None
