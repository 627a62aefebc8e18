"""What is known of the sessions of Diameter clients: totals of what they report in pieces.

A client says what was used since its last report; the core wants totals. The total of a request is
what was known before it and what it adds, where it is the next one. After a restart, a gap or a
repetition the truth is what is stored: a request that was carried out is found there by its
CC-Request-Number with the total it had, so that it is answered the same; else it adds to the session's.

A service whose quota is given back early is settled there; where its client asks for more later, it is
opened again as its next turn, ``Session-Id#rating group@2``, in the same Diameter session.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from tollkeeper.core.records import Ending, Session, Unit
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.store.db import Connection
from tollkeeper.store.peers import Peer, read_open
from tollkeeper.store.sessions import read_messages, read_session
from tollkeeper.telemetry import PeerMeter

KNOWN_MAX = 100_000
"""Sessions that one process remembers; of others it asks the database."""
OTHERS_MAX = 64
"""Services of one session that its end closes at once; beyond, each is closed by its time."""
TURNS_MAX = 100
"""How often a service of a session may be opened; the last time, its hold stays until its session ends."""
TURN = "@"
"""Between the id of a service and which time it was opened."""
GIVEN_BACK = "reporting_reason"
"""Why a service was settled while its session goes on: its quota was given back."""
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
    ``kept`` is the session's id as it is stored, ``turn`` which time the service was opened.
    """

    switch: str
    call_id: str
    client: Client
    party: str
    kept: str
    used: int = 0
    final: bool = False
    stale: bool = False
    turn: int = 1
    unit: Unit = Unit.SECOND


@dataclass(frozen=True, slots=True)
class Total:
    """Units ``used`` in all by a request of the session ``kept``; ``latest``: nothing newer is known.

    ``unit`` is that in which the session is charged, whatever this request looks like.
    ``ended``: this service was given back or refused, and the client may open it again (as ``turn`` + 1).
    """

    kept: str
    used: int
    latest: bool
    turn: int
    unit: Unit
    ended: bool = False


@dataclass(slots=True)
class Known:
    """A Diameter session: the highest CC-Request-Number seen, and the ids of its services.

    ``whole``: it began here and no number is missing, so that all that it did is known.
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
            # What was missing before may have gone to another process since, so the database is asked.
            return known.whole
        if number > known.number:
            if known.number >= 0 and known.whole:
                detail = f"{base} request {number} after {known.number}"
                PeerMeter.of(peer.code, "diameter").fault("gap", detail)
            known.number, known.whole = number, False
        # Another process may have had what is missing, or this is an old one.
        self._doubt(peer.switch, known)
        return False

    def doubt(self, switch: str, base: str) -> None:
        """Nobody knows what a request did: until its repetition comes, only the database knows the totals."""
        known = self._sessions.get((switch, base))
        if known is not None:
            self._doubt(switch, known)

    def anew(self, switch: str, base: str, number: int) -> None:
        """A client that lost its sessions begins one of them again with the same Session-Id."""
        self.over(switch, base)
        self._sessions[switch, base] = Known(number, whole=False)

    def _doubt(self, switch: str, known: Known) -> None:
        for call_id in known.ids:
            self._known[switch, call_id].stale = True

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

    def forget(self, switch: str, call_id: str, kept: str = "") -> None:
        """A service is over; with ``kept`` only if it is this turn of it that is known."""
        call = self._known.get((switch, call_id))
        if kept and call is not None and call.kept != kept:
            return
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
                call = Call(
                    peer.switch, call_id, client, party, kept, final=True, stale=True,
                    turn=_turn_of(kept), unit=session.unit,
                )  # fmt: skip
                # No number is known: the next report asks the database for its total.
                self.note(call, -2)

    async def total(
        self,
        peer: Peer,
        call_id: str,
        kind: str,
        number: int,
        more: Callable[[Unit], int],
        *,
        following: bool,
    ) -> Total | None:
        """What is used in all by this request, which adds ``more``; None where no such session is stored.

        ``kind`` is update or stop, ``following`` what :meth:`arrive` said. Raises Busy where the database
        does not answer.
        """
        call = self.get(peer.switch, call_id)
        if call is not None and following and not call.stale:
            known = call.used + more(call.unit)
            return Total(call.kept, known, latest=True, turn=call.turn, unit=call.unit)
        async with self._board.database.read() as connection:
            turns = await _read_turns(connection, f"{peer.switch}/{call_id}")
            life = _life(turns)
            for turn, session in life:
                for message in await read_messages(
                    connection, session.opened_at.date(), session.id
                ):
                    if message.message_id == f"{kind}:{number}":
                        used = _read_request(message.request).get("used_ms")
                        if not isinstance(used, int):
                            return None
                        kept, ended = _kept(session), _may_come_again(session)
                        return Total(
                            kept, used // 1000, latest=False, turn=turn, unit=session.unit,
                            ended=ended,
                        )  # fmt: skip
        if not life:
            return None
        # What is used is of the latest that was allowed.
        allowed = [one for _, one in life if one.ending is not Ending.REFUSED]
        session = allowed[0] if allowed else life[0][1]
        return Total(
            _kept(session),
            session.used_ms // 1000 + more(session.unit),
            latest=True,
            turn=len(turns),
            unit=session.unit,
            ended=_may_come_again(life[0][1]),
        )

    async def reborn(self, peer: Peer, call_id: str, number: int) -> tuple[int, Session] | None:
        """Whether the beginning of a session that is stored is that of another: its turn, and the last one.

        None: it is the same request again, for nothing came after it. Raises Busy.
        """
        async with self._board.database.read() as connection:
            turns = await _read_turns(connection, f"{peer.switch}/{call_id}")
            if not turns:
                return None
            last = turns[-1]
            messages = await read_messages(connection, last.opened_at.date(), last.id)
        its_own = {"authorise", f"update:{number}"}
        if last.open and all(message.message_id in its_own for message in messages):
            return None
        return len(turns) + 1, last

    async def others(self, peer: Peer, base: str, *, following: bool) -> list[str]:
        """Ids of the open services of a session. Raises Busy where the database does not answer."""
        known = self._sessions.get((peer.switch, base))
        if known is not None and known.whole and following:
            return sorted(known.ids)
        async with self._board.database.read() as connection:
            after = f"{peer.switch}/{base}"
            found = await read_open(connection, peer.switch, after=after, limit=OTHERS_MAX)
        ids = [plain_id(one.key.partition("/")[2]) for one in found]
        return [one for one in ids if one.startswith(base)]


async def _read_turns(connection: Connection, key: str) -> list[Session]:
    """Every session that a service had, in their order."""
    found: list[Session] = []
    while len(found) < TURNS_MAX:
        session = await read_session(connection, kept_id(key, len(found) + 1))
        if session is None:
            break
        found.append(session)
    return found


def _life(turns: list[Session]) -> list[tuple[int, Session]]:
    """The turns of the Diameter session that is the latest of its id, the last one first.

    Numbers of requests count from 0 again in another one.
    """
    found: list[tuple[int, Session]] = []
    for turn in range(len(turns), 0, -1):
        if found and not _may_come_again(turns[turn - 1]):
            break
        found.append((turn, turns[turn - 1]))
    return found


def _may_come_again(session: Session) -> bool:
    return session.ending is Ending.REFUSED or (
        not session.open and session.cause.startswith(GIVEN_BACK)
    )


def _kept(session: Session) -> str:
    return session.key.partition("/")[2]


def _turn_of(kept: str) -> int:
    turn = kept.rpartition("#")[2].partition(TURN)[2]
    return int(turn) if turn.isdigit() else 1


def kept_id(call_id: str, turn: int) -> str:
    """The id of a service that is opened for the so manieth time."""
    return call_id if turn == 1 else f"{call_id}{TURN}{turn}"


def plain_id(kept: str) -> str:
    """The id of a service without which time it was opened."""
    base, mark, group = kept.rpartition("#")
    return f"{base}{mark}{group.partition(TURN)[0]}"


def base_of(call_id: str) -> str:
    """What the ids of all services of a session begin with."""
    return call_id.rpartition("#")[0] + "#"


def client_of(call_id: str, peer: Peer) -> Client:
    """The client by the Session-Id, which begins with its host (RFC 6733 section 8.8)."""
    session_id = call_id.rpartition("#")[0]
    host = session_id.partition(";")[0]
    realm = host.partition(".")[2] or peer.text("realm") or host
    return Client(session_id, host, realm)
