"""VOS3000: calls of its switch are ended over its web interface, and its accounts follow our wallets."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta

import structlog

from tollkeeper.core.records import Session
from tollkeeper.errors import Busy, NotFound
from tollkeeper.gateways.kill import KillFailed
from tollkeeper.gateways.vos3000 import DISCONNECT, PATH, HttpVos, VosGateway, VosUnknown
from tollkeeper.servers.asks import switch_id_of
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.services.balance_push import BalancePush
from tollkeeper.store.peers import Peer
from tollkeeper.telemetry import PeerMeter
from tollkeeper.wire.vos3000 import CurrentCall, VosRefused

KIND = "vos3000"
PUSH_SECONDS = 300
CHANGE_SECONDS = 2.0
"""After a change of money so long is waited for further ones before accounts are compared."""
HOUSE_ROUNDS = 1000
CLOCK_MARGIN = timedelta(seconds=30)
"""A call that has been up longer than its session, and this, is another one."""
DIGITS_SAME = 7
"""Numbers of which so many last digits are the same are the same: prefixes differ between switches."""
_CALL_ID = re.compile(r"[0-9]{1,10}")
_log = structlog.get_logger()


def gateway_of(peer: Peer) -> HttpVos:
    """The web interface of a platform, by the peer's options.

    Raises:
        KillFailed: no address is set.
    """
    place = peer.text("connect") or next(iter(peer.addresses), "").partition("/")[0]
    if not place:
        raise KillFailed(f"peer {peer.code}: its option connect (host:port) is not set")
    scheme = "https" if peer.flag("tls") else "http"
    return HttpVos(
        f"{scheme}://{place}",
        path=peer.text("path") or PATH,
        disconnect=peer.text("disconnect") or DISCONNECT,
    )


class VosEnder:
    """Ends calls at all VOS3000 peers, from any process."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board

    async def end(self, switch: str, call_id: str, reason: str) -> None:  # noqa: ARG002
        """End the one call that this session is; see :class:`tollkeeper.servers.reach.Ender`."""
        peers = [peer for peer in self._board.book.of_kind(KIND) if peer.switch == switch]
        if not peers:
            raise KillFailed(f"switch {switch} has no peer of kind {KIND}")
        session = await self._session(switch, call_id)
        if session is None:
            return  # there is nothing to end
        gateway = gateway_of(peers[0])
        try:
            age = self._board.clock() - session.opened_at + CLOCK_MARGIN
            found = [
                call
                for call in matching(await gateway.calls(), switch_id_of(call_id), session)
                if call.keep_ms <= age.total_seconds() * 1000
            ]
            if not found:
                return  # it is not up any more
            if not (session.caller or _CALL_ID.fullmatch(switch_id_of(call_id))):
                raise KillFailed(
                    f"{switch}/{call_id} names no caller: which call it is is not sure"
                )
            if len(found) > 1:
                raise KillFailed(f"{len(found)} calls there could be {switch}/{call_id}")
            await gateway.disconnect(found[0].call_id)
        except (VosUnknown, VosRefused) as error:
            raise KillFailed(str(error)) from error
        finally:
            await gateway.close()

    async def _session(self, switch: str, call_id: str) -> Session | None:
        try:
            return await self._board.charging.session(f"{switch}/{call_id}")
        except NotFound:
            return None
        except (Busy, OSError) as error:
            raise KillFailed(str(error)) from error


def matching(calls: list[CurrentCall], call_id: str, session: Session) -> list[CurrentCall]:
    """The calls that may be this session: between its numbers and, where its id is one, of this callId.

    The platform counts its callIds from the beginning again, so that one alone could hit another call.
    """
    found = [
        call
        for call in calls
        if _same(call.called, session.called)
        and (not session.caller or _same(call.caller, session.caller))
    ]
    if _CALL_ID.fullmatch(call_id) is not None:
        return [call for call in found if call.call_id == int(call_id)]
    return found


def _same(theirs: str, ours: str) -> bool:
    a, b = (re.sub(r"[^0-9]", "", text) for text in (theirs, ours))
    least = min(len(a), len(b))
    if not least:
        return False
    return a[-least:] == b[-least:] if least >= DIGITS_SAME else a == b


class Vos3000Agent:
    """Lets the accounts of one platform follow our wallets, regularly and when money changes."""

    def __init__(
        self, board: Switchboard, peer: Peer, *, gateway: VosGateway | None = None
    ) -> None:
        self._board = board
        self._peer = peer
        self._gateway = gateway
        self._meter = PeerMeter.of(peer.code, peer.kind)
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Compare and pay until cancelled; see :class:`tollkeeper.servers.agents.Agent`."""
        if self._peer.text("push") not in ("available", "balance"):
            await asyncio.Event().wait()
        try:
            gateway = self._gateway or gateway_of(self._peer)
        except KillFailed as error:
            self._meter.fault("not_set", str(error))
            await asyncio.Event().wait()
            raise
        push = BalancePush(self._board.database, gateway, self._peer, self._board.clock)
        payers = frozenset[int]().union(
            *(self._board.payers(party) for party in push.parties().values())
        )
        deaf = self._board.on_money(lambda party: self._wake.set() if party in payers else None)
        try:
            await self._rounds(push)
        finally:
            deaf()
            await gateway.close()

    async def _rounds(self, push: BalancePush) -> None:
        seconds = max(1, self._peer.whole("push_seconds", PUSH_SECONDS))
        rounds = 0
        while True:
            self._wake.clear()
            try:
                report = await push.round()
                if report.paid or report.unknown:
                    _log.info(
                        "push.round", peer=self._peer.code, paid=report.paid, unknown=report.unknown
                    )
                if rounds % HOUSE_ROUNDS == 0:
                    await push.keep_house()
            except (VosUnknown, VosRefused) as error:
                self._meter.fault("away", str(error))
            except (Busy, OSError) as error:
                _log.warning("push.waits", peer=self._peer.code, error=str(error))
            rounds += 1
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(min(CHANGE_SECONDS, seconds))
