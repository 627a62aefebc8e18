"""Orders to the NAS about calls that are up: end this one, let that one last longer (RFC 5176)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from tollkeeper.gateways.kill import KillFailed
from tollkeeper.servers.radius.names import Handle, target_of, word
from tollkeeper.servers.radius.orders import PATIENCE, OrderFailed, Orders, Patience
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.services.tasks import end
from tollkeeper.store.peers import Peer
from tollkeeper.telemetry import PeerMeter
from tollkeeper.wire.radius.attributes import ErrorCause
from tollkeeper.wire.radius.orders import disconnect, error_cause, prolong
from tollkeeper.wire.radius.packet import Attribute, Code, Packet

PORT = 3799
"""Where a NAS takes orders (option ``orders_port``; 0: it takes none)."""
WAIT_SECONDS = 2.5
"""So long whoever asks waits for an order; it is repeated in the background after that."""
GRACE_SECONDS = 10.0
"""A NAS that does not know a call may still have its stop under way."""
_log = structlog.get_logger()


class RadiusEnder:
    """Ends calls at every RADIUS peer; needs no connection, so every process has one."""

    def __init__(
        self,
        board: Switchboard,
        patience: Patience = PATIENCE,
        *,
        wait: float = WAIT_SECONDS,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self._board = board
        self._patience = patience
        self._wait = wait
        self._grace = grace
        self._orders: Orders | None = None
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def end(self, switch: str, call_id: str, reason: str) -> None:
        """Order the end of a call.

        Raises:
            KillFailed: it was not obeyed, or not answered yet (the order is repeated meanwhile), or
                nobody knows by what the NAS calls it.
        """
        key = f"{switch}/{call_id}"
        task = self._ending.get(key)
        if task is None:
            handle = await self._board.handles.find(key)
            peer = self._peer(switch, handle)
            if peer is None or handle is None:
                raise KillFailed(f"nobody knows by what the switch {switch} calls {call_id}")
            if not takes_orders(peer):
                _log.warning("radius.takes_no_orders", peer=peer.code, call=call_id, reason=reason)
                return
            task = self.run(self._end(peer, call_id, handle))
            self._ending[key] = task
            task.add_done_callback(lambda _: self._ending.pop(key, None))
        done, _ = await asyncio.wait({task}, timeout=self._wait)
        if not done:
            raise KillFailed(f"the switch {switch} has not answered yet")
        if task.cancelled():
            raise KillFailed("this process stops; the request comes again")
        error = task.exception()
        if error is not None:
            raise KillFailed(str(error)) from error

    async def _end(self, peer: Peer, call_id: str, handle: Handle) -> None:
        def order() -> list[Attribute]:
            return disconnect(target_of(peer, handle), self._board.clock())

        answer = await self._send(peer, handle, Code.DISCONNECT_REQUEST, order)
        if answer.code == Code.DISCONNECT_ACK:
            return
        cause = error_cause(answer)
        if cause != ErrorCause.SESSION_CONTEXT_NOT_FOUND:
            raise KillFailed(f"the NAS of {peer.code} refused to end {call_id}: {cause or 'NAK'}")
        # There is no such call: if its stop does not come either, it ended as it was last told of.
        self.run(self._close(peer, call_id))

    async def _close(self, peer: Peer, call_id: str) -> None:
        await asyncio.sleep(self._grace)
        await self._board.stop_call(peer, call_id, 0, cause="unknown_to_nas", exact=True)

    async def prolong(self, peer: Peer, call_id: str, handle: Handle, seconds: int) -> bool:
        """Tell the NAS that a call may last so many seconds in all; False: it did not take it."""

        def order() -> list[Attribute]:
            return prolong(target_of(peer, handle), seconds, self._board.clock())

        try:
            answer = await self._send(peer, handle, Code.COA_REQUEST, order)
        except KillFailed as error:
            PeerMeter.of(peer.code, peer.kind).fault("order_failed", f"{call_id}: {error}")
            return False
        if answer.code == Code.COA_ACK:
            return True
        cause = error_cause(answer)
        detail = f"{call_id} may not be prolonged: {cause or 'NAK'}"
        PeerMeter.of(peer.code, peer.kind).fault("order_refused", detail)
        return False

    async def _send(
        self, peer: Peer, handle: Handle, code: Code, make: Callable[[], list[Attribute]]
    ) -> Packet:
        try:
            attributes = make()
        except ValueError as error:
            raise KillFailed(str(error)) from error
        if self._orders is None:
            self._orders = await Orders.open(patience=self._patience)
        host = word(handle, "addr") or next(iter(peer.addresses), "")
        port = peer.whole("orders_port", PORT)
        secret = (peer.text("orders_secret") or peer.secret).encode()
        try:
            return await self._orders.send(host, port, secret, code, attributes)
        except (OrderFailed, OSError) as error:
            raise KillFailed(str(error)) from error

    def _peer(self, switch: str, handle: Handle | None) -> Peer | None:
        named = self._board.book.named(word(handle, "peer"), "radius")
        if named is not None and named.switch == switch:
            return named
        of_switch = [one for one in self._board.book.of_kind("radius") if one.switch == switch]
        return of_switch[0] if len(of_switch) == 1 else None

    def run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something in the background, until :meth:`stop`."""
        task = asyncio.get_running_loop().create_task(work, name="radius order")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, KillFailed):
            _log.error("radius.order_failed", error=str(error), exc_info=error)

    async def stop(self) -> None:
        """Give up what is under way; kill requests are in the outbox and come again."""
        await end(self._tasks)
        if self._orders is not None:
            self._orders.close()
            self._orders = None


def takes_orders(peer: Peer) -> bool:
    """Tell whether a peer's NAS takes orders at all."""
    return peer.whole("orders_port", PORT) != 0
