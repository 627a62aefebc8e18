"""What is granted while nothing can be charged: bounded, and charged as soon as that works again."""

from __future__ import annotations

from dataclasses import dataclass, field

from tollkeeper.core.numbering import DialRules
from tollkeeper.servers.asks import Ask
from tollkeeper.store.peers import Peer

RISK_GRANT_SECONDS = 60
"""What one call gets at most while its money is not known."""


@dataclass(frozen=True, slots=True)
class RiskCall:
    """A call that was let through, with all that its authorisation needs: who pays, how it writes numbers."""

    peer: Peer
    ask: Ask
    party: str
    rules: DialRules | None


@dataclass(slots=True)
class Exposure:
    """Seconds granted to the calls of one peer of which none is charged yet."""

    granted: dict[str, int] = field(default_factory=dict)

    @property
    def seconds(self) -> int:
        """All of it."""
        return sum(self.granted.values())


class Risks:
    """The exposure of all peers whose policy allows it (``on_failure`` "allow")."""

    def __init__(self) -> None:
        self._exposures: dict[int, Exposure] = {}

    def grant(self, peer: Peer, call_id: str, wanted: int | None) -> int:
        """Seconds for a call on the operator's risk; 0 where the peer's limit is reached or is none."""
        if peer.on_failure != "allow":
            return 0
        exposure = self._exposures.setdefault(peer.id, Exposure())
        if call_id in exposure.granted:
            return exposure.granted[call_id]
        left = peer.risk_seconds - exposure.seconds
        seconds = max(0, min(left, RISK_GRANT_SECONDS, wanted or RISK_GRANT_SECONDS))
        if seconds:
            exposure.granted[call_id] = seconds
        return seconds

    def holds(self, peer: Peer, call_id: str) -> bool:
        """Tell whether a call was granted on risk and has not been charged since."""
        exposure = self._exposures.get(peer.id)
        return exposure is not None and call_id in exposure.granted

    def charged(self, peer: Peer, call_id: str) -> None:
        """The call is charged now, or has ended: its seconds may be granted to others."""
        exposure = self._exposures.get(peer.id)
        if exposure is not None:
            exposure.granted.pop(call_id, None)

    def seconds(self, peer: Peer) -> int:
        """Seconds of a peer that are granted and not charged."""
        exposure = self._exposures.get(peer.id)
        return exposure.seconds if exposure is not None else 0
