"""Access-Requests: who calls, is that proven, and may the call proceed?"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from dataclasses import replace
from datetime import timedelta

from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import Outcome, Session, State
from tollkeeper.errors import NotFound
from tollkeeper.servers.asks import Verdict
from tollkeeper.servers.radius.calls import RadiusCalls
from tollkeeper.servers.radius.names import (
    Handle,
    ask_of,
    asked_by,
    asked_too,
    extends,
    handle_of,
    is_address,
    made_name,
    names_of,
    read_states,
)
from tollkeeper.servers.radius.replies import accept, reject, welcome
from tollkeeper.servers.switchboard import RESTART, Switchboard
from tollkeeper.store.peers import Peer
from tollkeeper.telemetry import PeerMeter
from tollkeeper.wire.radius.attributes import Attributes, Type
from tollkeeper.wire.radius.messages import Question, read_question
from tollkeeper.wire.radius.packet import Attribute, Code, MalformedRadius, Packet
from tollkeeper.wire.radius.passwords import (
    chap_matches,
    digest_matches,
    password_matches,
    reveal_password,
)

Answer = tuple[Code, list[Attribute]]
FAILOVER = timedelta(seconds=30)
"""So long after its first request a switch may still ask for the same call by another one: it asked
the next server, and the first was slow. Later, another request means that it began anew."""
REQUESTS_MAX = 65_536
_PROVEN_BY_TRUNK = ""


class RadiusAccess:
    """Answers Access-Requests."""

    def __init__(self, board: Switchboard, calls: RadiusCalls) -> None:
        self._board = board
        self._calls = calls
        self._requests: OrderedDict[tuple[str, bytes], str] = OrderedDict()

    async def answer(self, peer: Peer, source: str, packet: Packet) -> Answer | None:
        """Decide; None: nothing can be decided now, and another server may."""
        question = read_question(packet)
        states = Attributes(packet.attributes).every(Type.STATE)
        if again := read_states(states):
            return await self._more(peer, *again)
        party, reason = self._who(peer, question, packet)
        if reason is not Reason.NONE:
            PeerMeter.of(peer.code, peer.kind).refusal(reason.value)
            return Code.ACCESS_REJECT, reject(peer, Verdict("", Outcome.REFUSED, reason))
        names = names_of(peer, question)
        call_id = names[0] if names else made_name(source, question, packet.authenticator)
        ask = replace(ask_of(peer, call_id, question, source), unique=not names)
        if party:
            ask = replace(ask, party=party)
        if not ask.called:
            return self._known(peer, self._board.whose(peer, ask)[0])
        if await self._is_replayed(peer, packet):
            return None
        verdict = await self._board.authorise(peer, ask)
        before: Handle | None = None
        if verdict.repeated:
            before = await self._board.handles.find(f"{peer.switch}/{verdict.call_id}")
            if await self._began_anew(peer, verdict.call_id, packet, before):
                # The call that had the id has ended as it was last told of.
                ended = await self._board.stop_call(
                    peer, verdict.call_id, 0, cause=RESTART, exact=True
                )
                if ended.busy:
                    return None
                before, verdict = None, await self._board.authorise(peer, ask)
        if verdict.busy:
            return None
        self._remember(peer, packet, verdict.call_id)
        if not verdict.allowed:
            return Code.ACCESS_REJECT, reject(peer, verdict)
        handle = handle_of(peer, question, source, before, verdict.party)
        self._calls.granted(peer, verdict, asked_too(handle, packet.authenticator))
        return Code.ACCESS_ACCEPT, accept(peer, verdict, ask.called)

    # --- asked for once more ---------------------------------------------------------------------

    async def _is_replayed(self, peer: Peer, packet: Packet) -> bool:
        """Tell whether this very request opened a call that has ended: it is not to open another one.

        A network that delays, or whoever caught it, sends it when nobody waits for an answer any more.
        """
        call_id = self._requests.get((peer.switch, packet.authenticator))
        session = None if call_id is None else await self._session(peer, call_id)
        if session is None or session.state is not State.CLOSED:
            return False
        PeerMeter.of(peer.code, peer.kind).fault(
            "replayed", f"the request for {call_id} came once more after the call"
        )
        return True

    async def _began_anew(
        self, peer: Peer, call_id: str, packet: Packet, handle: Handle | None
    ) -> bool:
        """Tell whether a call that is asked for again is another one: its switch restarted in silence.

        Not where it is the request that opened the call, however late it is repeated; nor where the
        switch asked two of our servers, and was answered by the other one first.
        """
        if packet.authenticator.hex() in asked_by(handle):
            PeerMeter.of(peer.code, peer.kind).fault("duplicate", log=False)
            return False
        session = await self._session(peer, call_id)
        if session is None or session.state is not State.ACTIVE:
            return False
        return session.opened_at < self._board.clock() - FAILOVER

    def _remember(self, peer: Peer, packet: Packet, call_id: str) -> None:
        while len(self._requests) >= REQUESTS_MAX:
            self._requests.popitem(last=False)
        self._requests[peer.switch, packet.authenticator] = call_id

    async def _session(self, peer: Peer, call_id: str) -> Session | None:
        try:
            return await self._board.charging.session(f"{peer.switch}/{call_id}")
        except NotFound:
            return None

    # --- not a new call --------------------------------------------------------------------------

    def _known(self, peer: Peer, party: str) -> Answer:
        """Only who it is was asked, as when a caller dials in before choosing a number."""
        if party:
            return Code.ACCESS_ACCEPT, welcome(peer)
        verdict = Verdict("", Outcome.REFUSED, Reason.UNKNOWN_CUSTOMER)
        return Code.ACCESS_REJECT, reject(peer, verdict)

    async def _more(self, peer: Peer, call_id: str, told: int) -> Answer | None:
        """The ``told`` seconds are over, and the switch asks for more (RFC 2865 section 5.29).

        What is used up is what the State says: asked once more, nothing more is taken for used.
        """
        refused = Verdict(call_id, Outcome.REFUSED, Reason.UNKNOWN_SESSION)
        if not extends(peer):
            return Code.ACCESS_REJECT, reject(peer, refused)
        session = await self._session(peer, call_id)
        if session is None or session.state is State.CLOSED:
            return Code.ACCESS_REJECT, reject(peer, refused)
        before = min(told, session.granted_seconds)
        verdict = await self._board.interim(
            peer, call_id, before * 1000, request_id=f"again-{before}", exact=True
        )
        if verdict.busy:
            return None
        if not verdict.allowed or verdict.granted <= before:
            return Code.ACCESS_REJECT, reject(peer, verdict)
        return Code.ACCESS_ACCEPT, accept(peer, verdict, session.called, already=before)

    # --- who it is -------------------------------------------------------------------------------

    def _who(self, peer: Peer, question: Question, packet: Packet) -> tuple[str, Reason]:
        """The party that was proven, "" where the trunk has to tell; or what stands against it."""
        if question.eap:
            return "", Reason.WRONG_PASSWORD
        digest = question.digest
        if digest is not None:
            credential = self._board.book.credential(digest.username, digest.realm)
            if credential is None:
                return "", Reason.UNKNOWN_CUSTOMER
            if not digest_matches(digest, credential.ha1):
                return "", Reason.WRONG_PASSWORD
            return self._board.party_code(credential.party_id), Reason.NONE
        if question.password is not None or question.chap is not None:
            return self._by_password(peer, question, packet)
        if peer.flag("passwords_only"):
            return "", Reason.WRONG_PASSWORD
        return _PROVEN_BY_TRUNK, Reason.NONE

    def _by_password(self, peer: Peer, question: Question, packet: Packet) -> tuple[str, Reason]:
        """PAP of a user, or PAP or CHAP with the one password that the switch uses for trunks."""
        password = b""
        if question.password is not None:
            try:
                password = reveal_password(
                    question.password, packet.authenticator, peer.secret.encode()
                )
            except MalformedRadius:
                return "", Reason.WRONG_PASSWORD
        realm = peer.text("realm")
        credential = self._board.book.credential(question.user, realm)
        if credential is not None and not is_address(question.user):
            if question.password is None:
                # A password is kept as a hash only, which CHAP cannot be checked with.
                PeerMeter.of(peer.code, peer.kind).fault(
                    "chap", "users cannot be checked by CHAP; let the switch use PAP or digest"
                )
                return "", Reason.WRONG_PASSWORD
            if not password_matches(
                credential.username, credential.realm, password, credential.ha1
            ):
                return "", Reason.WRONG_PASSWORD
            return self._board.party_code(credential.party_id), Reason.NONE
        common = peer.text("trunk_password").encode()
        if common:
            if question.chap is not None:
                right = chap_matches(*question.chap, common)
            else:
                right = hmac.compare_digest(password, common)
            return _PROVEN_BY_TRUNK, Reason.NONE if right else Reason.WRONG_PASSWORD
        if peer.flag("passwords_only"):
            return "", Reason.UNKNOWN_CUSTOMER
        return _PROVEN_BY_TRUNK, Reason.NONE
