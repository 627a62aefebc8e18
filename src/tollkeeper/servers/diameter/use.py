"""What a Credit-Control-Request is about: which service, in which unit, whose, towards whom.

The Service-Context-Id of 3GPP names the specification (32251 is data, 32260 and 32276 calls, 32274
messages); a peer's option ``services`` says otherwise for a context or a rating group.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from tollkeeper.core.rating import SECONDS_MAX, UNITS_MAX
from tollkeeper.core.records import Unit
from tollkeeper.core.services import service_of, takes_number
from tollkeeper.servers.asks import Ask
from tollkeeper.store.peers import Peer
from tollkeeper.wire.diameter.codes import Reporting, Subscriber
from tollkeeper.wire.diameter.credit import Control, CreditRequest, Units
from tollkeeper.wire.diameter.service import number_of, user_of

CONTEXTS: Final = {
    "32251": "data",
    "32260": "voice",
    "32270": "sms",
    "32274": "sms",
    "32276": "voice",
}
"""Services of 3GPP's specifications: packet data, IMS, MMS, SMS, voice calls."""
ID_MAX: Final = 140
"""Characters of a Session-Id that is kept as it is; a rating group still goes behind it."""
REPORTED_MAX: Final = 10**12
"""Octets or other units of one report beyond which it is no report; of time, ``SECONDS_MAX``."""
GIVES_BACK: Final = frozenset((Reporting.QHT, Reporting.FINAL, Reporting.UNUSED_QUOTA_TIMER))
_ORDER: Final = (
    Subscriber.E164,
    Subscriber.SIP_URI,
    Subscriber.IMSI,
    Subscriber.NAI,
    Subscriber.PRIVATE,
)
_context: Final = re.compile(r"(?<!\d)(\d{5})@3gpp")
_plain: Final = re.compile(r"[!-}]+")


@dataclass(frozen=True, slots=True)
class Use:
    """One service of a request: ``call_id`` is the session's id here, ``line`` what was asked.

    ``called`` is set where the peer's options name what the service is used towards.
    """

    call_id: str
    service: str
    unit: Unit
    line: Control
    called: str = ""

    @property
    def wanted(self) -> int | None:
        """Units asked for; None: as many as usual, or no number of this unit."""
        asked = amount_of(self.line.requested, self.unit) if self.line.requested else None
        most = SECONDS_MAX if self.unit is Unit.SECOND else UNITS_MAX
        return min(asked, most) if asked else None

    @property
    def used(self) -> int:
        """Units used since the last report."""
        return self.used_in(self.unit)

    def used_in(self, unit: Unit) -> int:
        """As :attr:`used`, of another unit: that in which its session was begun."""
        return sum(amount_of(one, unit) or 0 for one in self.line.used)

    @property
    def absurd(self) -> bool:
        """Whether so much cannot have been used: a counter that fell below 0, or no counter at all."""
        return self.used > (SECONDS_MAX if self.unit is Unit.SECOND else REPORTED_MAX)

    @property
    def otherwise(self) -> bool:
        """Whether what was used was told, but not in the unit that is charged."""
        if any(amount_of(one, self.unit) is not None for one in self.line.used):
            return False
        return any(
            replace(one, tariff_change=None, reason=None) != Units() for one in self.line.used
        )

    @property
    def given_back(self) -> int | None:
        """The Reporting-Reason with which a quota is given back early and no other is asked for."""
        if self.line.requested is not None:
            return None
        for reason in (self.line.reason, *(one.reason for one in self.line.used)):
            if reason in GIVES_BACK:
                return reason
        return None

    @property
    def fits(self) -> bool:
        """Whether what is asked for is of the service's unit, or left to us."""
        asked = self.line.requested
        return asked is None or asked == Units() or amount_of(asked, self.unit) is not None


def uses_of(peer: Peer, request: CreditRequest) -> list[Use]:
    """The services of a request; rating groups that stand twice are taken together."""
    if not request.controls:
        services = () if request.service is None else (request.service,)
        line = Control(services=services, requested=request.requested, used=request.used)
        return [_use(peer, request, line, "")]
    lines: dict[str, Control] = {}
    for one in request.controls:
        name = name_of(one)
        there = lines.get(name)
        lines[name] = one if there is None else _together(there, one)
    return [_use(peer, request, line, name) for name, line in lines.items()]


def name_of(line: Control) -> str:
    """What tells a service from the others of its session: the rating group, else the identifier."""
    if line.rating_group is not None:
        return str(line.rating_group)
    return f".{line.services[0]}" if line.services else "."


def call_id_of(session_id: str, name: str) -> str:
    """The id under which a service of a session is kept: ``Session-Id#rating group``."""
    kept = session_id
    if len(session_id) > ID_MAX or _plain.fullmatch(session_id) is None:
        kept = "h-" + hashlib.blake2b(session_id.encode(), digest_size=20).hexdigest()
    return f"{kept}#{name}"


def amount_of(units: Units, unit: Unit) -> int | None:
    """The number of this unit in a group of units; None where there is none."""
    if unit is Unit.SECOND:
        return units.time
    return units.octets if unit is Unit.BYTE else units.specific


def units_of(amount: int, unit: Unit) -> Units:
    """A number of this unit as a group of units."""
    if unit is Unit.SECOND:
        return Units(time=min(amount, 2**32 - 1))
    return Units(total=amount) if unit is Unit.BYTE else Units(specific=amount)


def ask_of(peer: Peer, request: CreditRequest, use: Use) -> Ask:
    """What the switchboard is asked for a service of a request."""
    about = request.information
    account = account_of(request)
    caller = number_of(about.calling) or number_of(account)
    wanted = use.wanted
    if use.unit is not Unit.SECOND:
        # The peer's slice is in seconds of calls.
        wanted = wanted or service_of(use.service).slice
    elif wanted and peer.whole("slice"):
        wanted = min(wanted, peer.whole("slice"))
    return Ask(
        call_id=use.call_id,
        called=_towards(request, use),
        caller=caller,
        service=use.service,
        trunk=about.trunk,
        account=account,
        requested=wanted,
        # No message tells the answer: from the grant on, it counts as up.
        start_expected=False,
        # A Session-Id is of one session for ever (RFC 6733 section 8.8).
        unique=True,
        network=about.network,
    )


def account_of(request: CreditRequest) -> str:
    """Who pays, as the client names him: the first Subscription-Id by our order, else the User-Name."""
    known = dict(reversed(request.subscribers))
    for kind in _ORDER:
        if kind in known:
            return user_of(known[kind])
    return user_of(request.user_name)


def _towards(request: CreditRequest, use: Use) -> str:
    about = request.information
    if use.called:
        return use.called
    if takes_number(use.service):
        for address in (*about.recipients, about.called, about.requested, request.called_station):
            number = number_of(address)
            if number:
                return number
        return about.called
    return about.network or about.access_point or request.called_station or use.service


def _use(peer: Peer, request: CreditRequest, line: Control, name: str) -> Use:
    found = _context.search(request.context)
    service = CONTEXTS.get(found.group(1), "") if found else ""
    called = ""
    for row in peer.rows("services"):
        group = str(row.get("rating_group", ""))
        if str(row.get("context", "")) in request.context and group in {"", name}:
            service, called = str(row.get("service", service)), str(row.get("called", ""))
            break
    service = service or _guess(line)
    unit = service_of(service).unit
    return Use(call_id_of(request.session_id, name), service, unit, line, called)


def _guess(line: Control) -> str:
    """A service by what it is counted in, where nothing else tells: calls by time, data by volume."""
    given = [line.requested, *line.used]
    if any(one is not None and one.octets is not None for one in given):
        return "data"
    if any(one is not None and one.specific is not None for one in given):
        return "sms"
    return "voice"


def _together(one: Control, other: Control) -> Control:
    return Control(
        rating_group=one.rating_group,
        services=tuple(dict.fromkeys((*one.services, *other.services))),
        requested=other.requested if one.requested is None else one.requested,
        used=(*one.used, *other.used),
        reason=other.reason if one.reason is None else one.reason,
    )
