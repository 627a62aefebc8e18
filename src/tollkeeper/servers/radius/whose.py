"""Which session a report is about: by the Class that we gave along, else by the switch's own words.

A Class may come back with another call than ours (switches keep it for the user), or twice; an id may
name its second call while the first one's stop is still on its way. Usage then must not go to the
wrong one of two calls.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta

from tollkeeper.core.records import Session, State
from tollkeeper.errors import NotFound
from tollkeeper.servers.asks import call_id_of
from tollkeeper.servers.radius.names import Handle, delay_of, marked, names_of, word
from tollkeeper.servers.switchboard import AGAIN, Switchboard
from tollkeeper.store.peers import Peer
from tollkeeper.telemetry import PeerMeter
from tollkeeper.wire.radius.messages import Report, Status

OTHER_LEG = timedelta(seconds=60)
"""So long after the end of a call its Class may come with the stop of its other leg."""
AHEAD = timedelta(seconds=5)
"""A switch's counter may be so much ahead of the moment at which it asked for the call."""
ENDED_MAX = 50_000
CLASSES_MAX = 4
"""Of more values of Class the rest is not looked at."""


@dataclass(frozen=True, slots=True)
class Found:
    """``kept``: the id of the session; ``named``: what the switch calls it; what is known of it.

    ``exact``: no other session can be meant, such as a later one that another process has opened.
    """

    kept: str
    named: str
    handle: Handle | None
    exact: bool = True


class Whose:
    """Finds the sessions of reports."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board
        self._ended: OrderedDict[str, Handle] = OrderedDict()

    def ended(self, peer: Peer, call_id: str, handle: Handle) -> None:
        """A call has ended; its other leg may still be heard of."""
        while len(self._ended) >= ENDED_MAX:
            self._ended.popitem(last=False)
        self._ended[f"{peer.switch}/{call_id}"] = handle

    async def find(self, peer: Peer, report: Report) -> Found | None:
        """The session that a report is about, known or not; None where it names none."""
        own = names_of(peer, report)
        other: Found | None = None
        for name in list(dict.fromkeys(marked(report.classes)))[:CLASSES_MAX]:
            handle = await self._handle(peer, name)
            found = Found(name, own[0] if own else name, handle)
            if _is_named(report, found, own):
                return found
            if other is None and await self._may_be_meant(peer, name):
                other = found
        for name in own:
            found = await self._by_name(peer, report, name)
            if found.handle is not None:
                if other is not None:
                    PeerMeter.of(peer.code, peer.kind).fault(
                        "foreign_class", f"the Class of {other.kept} came with {name}"
                    )
                return found
        if other is not None or not own:
            return other
        return await self._by_name(peer, report, own[0])

    async def session(self, peer: Peer, call_id: str) -> Session | None:
        """A session of the peer's switch."""
        try:
            return await self._board.charging.session(f"{peer.switch}/{call_id}")
        except NotFound:
            return None

    async def _handle(self, peer: Peer, call_id: str) -> Handle | None:
        key = f"{peer.switch}/{call_id}"
        return self._ended.get(key) or await self._board.handles.find(key)

    async def _may_be_meant(self, peer: Peer, name: str) -> bool:
        """Tell whether a Class may belong to a report that names another call, or none.

        It is the first word of a call that had no name, or comes with the other leg: while the call is
        up, or a moment after.
        """
        session = await self.session(peer, name)
        if session is None:
            return False
        since = session.closed_at
        return since is None or since > self._board.clock() - OTHER_LEG

    async def _by_name(self, peer: Peer, report: Report, name: str) -> Found:
        """The latest call of a switch's id, or the one before it."""
        latest = self._board.latest(peer, name)
        ended = f"{peer.switch}/{latest}" in self._ended
        if ended:
            # Another process may have opened a later call of this id.
            session = await self._board.open_call(peer, name)
            latest = latest if session is None else session.key.partition("/")[2]
        kept = await self._of_earlier(peer, report, latest)
        return Found(kept, name, await self._handle(peer, kept), ended or kept != latest)

    async def _of_earlier(self, peer: Peer, report: Report, kept: str) -> str:
        """Of the calls that had one id the one that a report without a Class is about.

        No call began before it was asked for; and the same end once more is no new call's.
        """
        plain, _, number = kept.rpartition(AGAIN)
        if not plain or not number.isdecimal() or not report.seconds:
            return kept
        session = await self.session(peer, kept)
        if session is None:
            return kept
        before = plain if number == "2" else f"{plain}{AGAIN}{int(number) - 1}"
        gone = timedelta(seconds=delay_of(report) + report.seconds)
        if self._board.clock() - gone < session.opened_at - AHEAD:
            return before
        if session.state is State.AUTHORISED and report.status == Status.STOP:
            earlier = await self.session(peer, before)
            if earlier is not None and earlier.used_ms == report.seconds * 1000:
                return before
        return kept


def _is_named(report: Report, found: Found, own: list[str]) -> bool:
    """Tell whether the switch's own words name the call of a Class, too."""
    if found.kept.partition(AGAIN)[0] in {call_id_of(one) for one in own}:
        return True
    first = word(found.handle, "sid")
    return bool(first) and first == report.session_id
