"""What is known of the sessions of Diameter clients: totals of what they report in pieces.

A client says what was used since its last report; the core wants totals. The total of a request is
what was known before it and what it adds, where it is the next one. After a restart, a gap or a
repetition the truth is what is stored: a request that was carried out is found there by its
CC-Request-Number with the total it had, so that it is answered the same; else it adds to the session's.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import msgspec

from tollkeeper.core.records import Session
from tollkeeper.servers.switchboard import AGAIN, Switchboard
from tollkeeper.store.peers import Peer, read_open
from tollkeeper.store.sessions import read_messages, read_session
from tollkeeper.telemetry import PeerMeter

KNOWN_MAX = 100_000
"""Sessions that one process remembers; of others it asks the database."""
OTHERS_MAX = 64
"""Services of one session that its end closes at once; beyond, each is closed by its time."""
_read_request = msgspec.json.Decoder(dict[str, object]).decode


@dataclass(slots=True)
class Client:
    """Where the client of a session is reached: RAR and ASR are sent to its host."""

    session_id: str
    host: str
    realm: str


@dataclass(slots=True)
class Call:
    """One service of a session; ``used`` units in all, ``stale`` where the database may know of more.

    ``final``: it was told that no more will come, and is asked to come again when money does.
    ``kept`` is the session's id as it is stored.
    """

    switch: str
    call_id: str
    client: Client
    party: str
    kept: str
    used: int = 0
    final: bool = False
    stale: bool = False


@dataclass(slots=True)
class Known:
    """A Diameter session: the highest CC-Request-Number seen, and the ids of its services.

    ``whole``: it began here, so that all of them are known.
    """

    number: int
    whole: bool
    ids: set[str] = field(default_factory=set)


class Calls:
    """The sessions of one process's clients."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board
        self._known: OrderedDict[tuple[str, str], Call] = OrderedDict()
        self._final: dict[tuple[str, str], Call] = {}
        self._sessions: dict[tuple[str, str], Known] = {}

    def __len__(self) -> int:
        """How many services of sessions are known."""
        return len(self._known)

    def arrive(self, peer: Peer, base: str, number: int, *, first: bool) -> bool:
        """A request of a session came; tell whether it is the next one, so that what is known is right."""
        known = self._sessions.get((peer.switch, base))
        if known is None:
            if first:
                self._sessions[peer.switch, base] = Known(number, whole=True)
                self._bound()
            return first
        if number == known.number + 1:
            known.number = number
            return True
        if number > known.number:
            if known.number >= 0:
                detail = f"{base} request {number} after {known.number}"
                PeerMeter.of(peer.code, "diameter").fault("gap", detail)
            known.number, known.whole = number, False
        # Another process may have had what is missing, or this is an old one.
        for call_id in known.ids:
            self._known[peer.switch, call_id].stale = True
        return False

    def get(self, switch: str, call_id: str) -> Call | None:
        """A service of a session that is known."""
        return self._known.get((switch, call_id))

    def note(self, call: Call, number: int) -> None:
        """Remember a service of a session, or that it changed by this request."""
        key = (call.switch, call.call_id)
        self._known[key] = call
        self._known.move_to_end(key)
        if call.final:
            self._final[key] = call
        else:
            self._final.pop(key, None)
        base = (call.switch, base_of(call.call_id))
        known = self._sessions.get(base)
        if known is None:
            known = self._sessions[base] = Known(number, whole=False)
        known.ids.add(call.call_id)
        self._bound()

    def _bound(self) -> None:
        """Forget what was heard of least lately; whatever is asked of it, the database knows."""
        if len(self._known) > KNOWN_MAX:
            self.forget(*next(iter(self._known)))
        if len(self._sessions) > KNOWN_MAX:
            switch, base = next(iter(self._sessions))
            self.over(switch, base)

    def forget(self, switch: str, call_id: str) -> None:
        """A service is over."""
        self._known.pop((switch, call_id), None)
        self._final.pop((switch, call_id), None)
        known = self._sessions.get((switch, base_of(call_id)))
        if known is not None:
            known.ids.discard(call_id)

    def over(self, switch: str, base: str) -> None:
        """A session is over, with all its services."""
        known = self._sessions.pop((switch, base), None)
        for call_id in known.ids if known is not None else ():
            self._known.pop((switch, call_id), None)
            self._final.pop((switch, call_id), None)

    def siblings(self, switch: str, base: str, but: str) -> bool:
        """Tell whether other services of a session are up; ``base`` is what their ids begin with."""
        known = self._sessions.get((switch, base))
        return known is not None and bool(known.ids - {but})

    def waiting(self, party_id: int) -> list[Call]:
        """Services that would get more if the money of this party grew."""
        payers: dict[str, bool] = {}
        for call in self._final.values():
            if call.party not in payers:
                payers[call.party] = party_id in self._board.payers(call.party)
        return [call for call in self._final.values() if payers[call.party]]

    def restore(self, peer: Peer, sessions: list[Session]) -> None:
        """Know again what was up before this process began; all of them hear of money that comes."""
        for session in sessions:
            kept = session.key.partition("/")[2]
            call_id = plain_id(kept)
            if "#" in call_id and (peer.switch, call_id) not in self._known:
                party = self._board.party_code(session.party_id)
                client = client_of(call_id, peer)
                call = Call(peer.switch, call_id, client, party, kept, final=True, stale=True)
                # No number is known: the next report asks the database for its total.
                self.note(call, -2)

    async def total(
        self, peer: Peer, call_id: str, kind: str, number: int, more: int, *, following: bool
    ) -> tuple[int, bool] | None:
        """Units used in all by this request, which adds ``more``, and whether that is the latest.

        ``kind`` is update or stop, ``following`` what :meth:`arrive` said. None where no such session is
        stored. Raises Busy where the database does not answer.
        """
        call = self.get(peer.switch, call_id)
        if call is not None and following and not call.stale:
            return call.used + more, True
        async with self._board.database.read() as connection:
            kept = call_id if call is None else call.kept
            session = await read_session(connection, f"{peer.switch}/{kept}")
            if session is None:
                return None
            messages = await read_messages(connection, session.opened_at.date(), session.id)
        for message in messages:
            if message.message_id == f"{kind}:{number}":
                used = _read_request(message.request).get("used_ms")
                return (used // 1000, False) if isinstance(used, int) else None
        return session.used_ms // 1000 + more, True

    async def others(self, peer: Peer, base: str, but: set[str], *, following: bool) -> list[str]:
        """Ids of the open services of a session beside those named."""
        known = self._sessions.get((peer.switch, base))
        if known is not None and known.whole and following:
            return sorted(known.ids - but)
        async with self._board.database.read() as connection:
            after = f"{peer.switch}/{base}"
            found = await read_open(connection, peer.switch, after=after, limit=OTHERS_MAX)
        ids = [plain_id(one.key.partition("/")[2]) for one in found]
        return [one for one in ids if one.startswith(base) and one not in but]


def plain_id(call_id: str) -> str:
    """A session's id without the mark of an id that was used again."""
    return call_id.partition(AGAIN)[0]


def base_of(call_id: str) -> str:
    """What the ids of all services of a session begin with."""
    return call_id.rpartition("#")[0] + "#"


def client_of(call_id: str, peer: Peer) -> Client:
    """The client by the Session-Id, which begins with its host (RFC 6733 section 8.8)."""
    session_id = call_id.rpartition("#")[0]
    host = session_id.partition(";")[0]
    realm = host.partition(".")[2] or peer.text("realm") or host
    return Client(session_id, host, realm)
