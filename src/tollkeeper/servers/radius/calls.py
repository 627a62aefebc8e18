"""The RADIUS calls that are up: what their switches have to be told while they are.

Only usage that a switch reported counts here. Our own clock is never taken for it: a stop that comes
late would otherwise find more charged than was used.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import Outcome
from tollkeeper.gateways.kill import KillFailed
from tollkeeper.servers.asks import Verdict
from tollkeeper.servers.radius.ender import RadiusEnder, takes_orders
from tollkeeper.servers.radius.names import Handle, word
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.store.peers import Peer
from tollkeeper.telemetry import PeerMeter

CALLS_MAX = 200_000


@dataclass(slots=True)
class Live:
    """A call that was granted; ``told`` units are what its switch knows of."""

    peer: Peer
    call_id: str
    payers: frozenset[int]
    handle: Handle
    told: int
    final: bool
    used_ms: int = 0
    begun: bool = False


class RadiusCalls:
    """Those of one listener. What is lost by a restart comes again with the next interim."""

    def __init__(self, board: Switchboard, ender: RadiusEnder) -> None:
        self._board = board
        self._ender = ender
        self._live: dict[str, Live] = {}
        self._deaf = board.on_money(self._money_changed)
        self._count = itertools.count()

    def granted(self, peer: Peer, verdict: Verdict, handle: Handle) -> None:
        """A call may begin."""
        key = f"{peer.switch}/{verdict.call_id}"
        self._board.handles.keep(key, handle)
        while len(self._live) >= CALLS_MAX:
            self._live.pop(next(iter(self._live)))
        if verdict.repeated and key in self._live:
            return  # asked for once more; how far it has come is known
        payers = self._board.payers(verdict.party)
        self._live[key] = Live(
            peer, verdict.call_id, payers, handle, verdict.granted, verdict.final
        )

    def reported(self, peer: Peer, verdict: Verdict, handle: Handle, used_ms: int) -> None:
        """A call has said how it stands: tell its switch what follows."""
        key = f"{peer.switch}/{verdict.call_id}"
        if verdict.outcome is Outcome.CLOSED and verdict.reason is Reason.NONE:
            return  # the switch itself has ended it; this message came late
        if not verdict.allowed:
            self._end(peer, verdict.call_id, verdict.reason.value or "no_more_credit")
            return
        live = self._live.get(key)
        if live is None:
            party = verdict.party or word(handle, "party")
            payers = self._board.payers(party) if party else frozenset()
            live = Live(peer, verdict.call_id, payers, handle, 0, verdict.final)
            self._live[key] = live
        live.final, live.used_ms, live.handle = verdict.final, max(live.used_ms, used_ms), handle
        live.begun = True
        if verdict.granted > live.told:
            live.told = verdict.granted
            if peer.text("extend") == "coa" and takes_orders(peer):
                self._ender.run(self._prolong(live, verdict.granted))

    def over(self, peer: Peer, call_id: str) -> None:
        """The call has ended."""
        self._live.pop(f"{peer.switch}/{call_id}", None)

    async def stop(self) -> None:
        """Forget the calls; they go on."""
        self._deaf()
        self._live = {}

    async def _prolong(self, live: Live, seconds: int) -> None:
        if not await self._ender.prolong(live.peer, live.call_id, live.handle, seconds):
            # The next interim tells it again.
            live.told = min(live.told, seconds - 1)

    def _end(self, peer: Peer, call_id: str, reason: str) -> None:
        if takes_orders(peer):
            self._ender.run(self._try_to_end(peer, call_id, reason))

    async def _try_to_end(self, peer: Peer, call_id: str, reason: str) -> None:
        try:
            await self._ender.end(peer.switch, call_id, reason)
        except KillFailed as error:
            PeerMeter.of(peer.code, peer.kind).fault("not_ended", f"{call_id}: {error}")

    def _money_changed(self, party_id: int) -> None:
        for live in self._live.values():
            # One that rings is left alone: to report its usage would begin it.
            waits = live.begun and live.final and party_id in live.payers
            if waits and live.peer.text("extend") == "coa":
                self._ender.run(self._renew(live))

    async def _renew(self, live: Live) -> None:
        """There is more money: ask again with what was last reported."""
        verdict = await self._board.interim(
            live.peer,
            live.call_id,
            live.used_ms,
            request_id=f"money-{self._unique()}",
            exact=True,
        )
        if not verdict.busy:
            self.reported(live.peer, verdict, live.handle, live.used_ms)

    def _unique(self) -> str:
        return f"{int(self._board.clock().timestamp() * 1000)}-{next(self._count)}"
