"""How calls that are up are reached: the request to end one goes to where its switch is connected."""

from __future__ import annotations

from typing import Protocol

from tollkeeper.gateways.kill import KillFailed


class Ender(Protocol):
    """Ends calls at one switch, or at all of a kind."""

    async def end(self, switch: str, call_id: str, reason: str) -> None:
        """Ask for the end of a call; one that is not there is ended already.

        Raises:
            KillFailed: the switch did not take it; it is tried again.
        """


class Reach:
    """The switches that this process can reach itself."""

    def __init__(self) -> None:
        self._enders: dict[str, Ender] = {}
        self._kinds: dict[str, Ender] = {}

    def add_kind(self, kind: str, ender: Ender) -> None:
        """All peers of a kind can be reached from here, without a connection."""
        self._kinds[kind] = ender

    def add(self, switch: str, ender: Ender) -> None:
        """A switch is connected now."""
        self._enders[switch] = ender

    def remove(self, switch: str, ender: Ender) -> None:
        """It is not any more, by this ender."""
        if self._enders.get(switch) is ender:
            del self._enders[switch]

    def has(self, switch: str, kind: str) -> bool:
        """Tell whether this process reaches a switch of a kind itself."""
        return switch in self._enders or kind in self._kinds

    async def end(self, switch: str, kind: str, call_id: str, reason: str) -> None:
        """End a call at its switch.

        Raises:
            KillFailed: it is not connected here, or did not take it.
        """
        ender = self._enders.get(switch) or self._kinds.get(kind)
        if ender is None:
            raise KillFailed(f"switch {switch} is not connected")
        await ender.end(switch, call_id, reason)
