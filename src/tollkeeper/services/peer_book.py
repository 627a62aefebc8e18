"""The peers as the call path needs them: by code, by address, and whose call a call is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from tollkeeper.core.trunks import Candidate, Trace, Trunk, Trunks, choose
from tollkeeper.store.peers import Credential, Peer

PLACES_MAX = 10_000
"""Answers that are remembered."""


class PeerBook:
    """All peers, trunks and credentials at one moment; a change makes a new book."""

    def __init__(
        self,
        peers: Iterable[Peer] = (),
        trunks: Sequence[Trunk] = (),
        credentials: Iterable[Credential] = (),
    ) -> None:
        self.peers = {peer.code: peer for peer in peers}
        self._trunks = trunks
        self._by_code = {trunk.code: trunk for trunk in trunks}
        self._of_switch: dict[str, Trunks] = {}
        self._fitting: dict[tuple[str, Trace], tuple[Candidate, ...]] = {}
        self._credentials = {(one.username, one.realm): one for one in credentials}
        self._places: dict[tuple[str, str], Peer | None] = {}
        self._networks = [
            (ip_network(address, strict=False), peer)
            for peer in self.peers.values()
            if peer.enabled
            for address in peer.addresses
            if _is_network(address)
        ]

    def of_kind(self, *kinds: str) -> list[Peer]:
        """The peers of these kinds that are not switched off."""
        return [peer for peer in self.peers.values() if peer.enabled and peer.kind in kinds]

    def at(self, kind: str, address: str) -> Peer | None:
        """The peer of a kind that an IP address belongs to; the narrowest network wins."""
        place = (kind, address)
        if place not in self._places:
            if len(self._places) >= PLACES_MAX:  # somebody tries all addresses
                self._places.clear()
            self._places[place] = self._find(kind, address)
        return self._places[place]

    def _find(self, kind: str, address: str) -> Peer | None:
        try:
            host: IPv4Address | IPv6Address = ip_address(address)
        except ValueError:
            return None
        if isinstance(host, IPv6Address) and host.ipv4_mapped is not None:
            host = host.ipv4_mapped
        fitting = [
            (network.prefixlen, peer)
            for network, peer in self._networks
            if peer.kind == kind and network.version == host.version and host in network
        ]
        return max(fitting, key=lambda one: one[0])[1] if fitting else None

    def named(self, code: str, *kinds: str) -> Peer | None:
        """The peer of this code, if it is of one of these kinds and not switched off."""
        peer = self.peers.get(code)
        return peer if peer is not None and peer.enabled and peer.kind in kinds else None

    def credential(self, username: str, realm: str) -> Credential | None:
        """A user name of a realm; one without a realm goes with every realm."""
        return self._credentials.get((username, realm)) or self._credentials.get((username, ""))

    def trunk_of(self, peer: Peer, trace: Trace) -> Trunk | None:
        """The trunk that a call came by: the peer's own, or what the call tells; None if unclear."""
        if peer.trunk:
            return self._by_code.get(peer.trunk)
        fitting = self._fitting_for(peer.switch, replace(trace, called=""))
        found = choose([one for one in fitting if one.fits(trace.called)])
        return found[0] if len(found) == 1 else None

    def _fitting_for(self, switch: str, trace: Trace) -> tuple[Candidate, ...]:
        """All that fits but for the number called: of thousands of trunks, looked through once."""
        place = (switch, trace)
        fitting = self._fitting.get(place)
        if fitting is None:
            trunks = self._of_switch.get(switch)
            if trunks is None:
                trunks = Trunks(self._trunks, direction="in", switch=switch)
                self._of_switch[switch] = trunks
            if len(self._fitting) >= PLACES_MAX:
                self._fitting.clear()
            fitting = self._fitting[place] = trunks.candidates(trace)
        return fitting


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True
