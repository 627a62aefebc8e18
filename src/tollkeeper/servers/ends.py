"""Ending calls from here: whether this process can, and whether there is still a call to end."""

from __future__ import annotations

import structlog

from tollkeeper.core.records import Ending
from tollkeeper.errors import Busy, NotFound
from tollkeeper.gateways.kill import KillFailed
from tollkeeper.servers.ids import CallIds
from tollkeeper.servers.owners import Owners
from tollkeeper.servers.reach import Reach
from tollkeeper.services.charging import Charging
from tollkeeper.services.directory import Directory

ENDED_BY_PEER = ("radius", "freeswitch", "kamailio", "asterisk", "vos3000", "diameter")
"""Kinds of peers that are told by their own protocol to end a call; others have an HTTP address."""
_log = structlog.get_logger()


class Ends(Owners):
    """What the switchboard knows of the ends of calls."""

    def __init__(self, directory: Directory, charging: Charging, ids: CallIds) -> None:
        super().__init__(directory)
        self.charging = charging
        self.reach = Reach()
        self._ids = ids

    def elsewhere(self) -> list[str]:
        """Switches whose calls are ended by a connection that this process does not have."""
        return [
            peer.switch
            for peer in self.book.of_kind(*ENDED_BY_PEER)
            if not self.reach.has(peer.switch, peer.kind)
        ]

    def knows(self, switch: str) -> bool:
        """Tell whether a switch's calls are ended by its own protocol."""
        return any(peer.switch == switch for peer in self.book.of_kind(*ENDED_BY_PEER))

    async def end(self, switch: str, call_id: str, reason: str) -> None:
        """Ask a switch to end a call; one that has ended by the switch's own word is left alone.

        A request may come late, and the switch may have given the id to another call meanwhile.

        Raises:
            KillFailed: it did not take it.
        """
        try:
            if await self._has_ended(switch, call_id):
                _log.info("kill.needless", switch=switch, session=call_id)
                return
        except Busy as error:
            raise KillFailed(str(error)) from error
        kinds = [p.kind for p in self.book.of_kind(*ENDED_BY_PEER) if p.switch == switch]
        await self.reach.end(switch, kinds[0] if kinds else "", call_id, reason)

    async def _has_ended(self, switch: str, call_id: str) -> bool:
        newest = await self._ids.newest(switch, call_id)
        if newest is not None and newest.session_id != call_id:
            return True
        try:
            session = await self.charging.session(f"{switch}/{call_id}")
        except NotFound:
            return False
        return session.ending in {Ending.SETTLED, Ending.RELEASED}

    # --- how -------------------------------------------------------------------------------------
