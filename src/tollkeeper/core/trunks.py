"""Trunks: whose call a record is about, by what the switch says of where it came from or went to.

A trunk names what it goes by: names that the switch uses, addresses, an account code, a tech
prefix in front of the called number. All that it names must fit; of several that fit, the one that
says most wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Literal

from tollkeeper.core.numbering import DEFAULT_RULES, DialRules

Direction = Literal["in", "out"]
Score = tuple[bool, bool, int, int]


@dataclass(frozen=True, slots=True)
class Trunk:
    """How one party's traffic is recognised; ``switch`` "" is any switch.

    ``rules`` are how it writes numbers; its tech prefix is removed from them.
    """

    id: int
    code: str
    direction: Direction
    party_id: int
    switch: str = ""
    names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    account: str = ""
    tech_prefix: str = ""
    rules: DialRules = DEFAULT_RULES


@dataclass(frozen=True, slots=True)
class Trace:
    """What a record says of one side of a call; ``called`` as it was written."""

    trunk: str = ""
    address: str = ""
    account: str = ""
    called: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trunk that fits but for its tech prefix, which only the called number can tell."""

    trunk: Trunk
    score: Score

    def fits(self, called: str) -> bool:
        """Tell whether the called number begins with the trunk's tech prefix."""
        return called.removeprefix("+").startswith(self.trunk.tech_prefix)


class Trunks:
    """The trunks of one direction as one switch's records see them."""

    __slots__ = ("_known", "tech_prefix_max")

    def __init__(self, trunks: Iterable[Trunk], *, direction: Direction, switch: str) -> None:
        self._known = [
            (trunk, tuple(_network(text) for text in trunk.addresses))
            for trunk in sorted(trunks, key=lambda trunk: trunk.id)
            if trunk.direction == direction and trunk.switch in {"", switch}
        ]
        self.tech_prefix_max = max((len(t.tech_prefix) for t, _ in self._known), default=0)

    def __len__(self) -> int:
        """How many trunks there are to choose from."""
        return len(self._known)

    def candidates(self, trace: Trace) -> tuple[Candidate, ...]:
        """The trunks that fit all that a record says but the called number; the best come first."""
        address = _address(trace.address)
        found = []
        for trunk, networks in self._known:
            if trunk.names and trace.trunk not in trunk.names:
                continue
            if trunk.account and trace.account != trunk.account:
                continue
            bits = 0
            if networks:
                lengths = [
                    net.prefixlen for net in networks if address is not None and address in net
                ]
                if not lengths:
                    continue
                bits = max(lengths) + 1
            score = (bool(trunk.names), bool(trunk.account), bits, len(trunk.tech_prefix))
            if any(score):
                found.append(Candidate(trunk, score))
        return tuple(sorted(found, key=lambda one: one.score, reverse=True))

    def find(self, trace: Trace) -> tuple[Trunk, ...]:
        """The trunk that fits best; none if nobody fits, several if two parties fit equally well."""
        return choose([one for one in self.candidates(trace) if one.fits(trace.called)])


def choose(fitting: Sequence[Candidate]) -> tuple[Trunk, ...]:
    """Of trunks that fit, the best first; one alone unless two parties are equally good."""
    if not fitting:
        return ()
    best = [one.trunk for one in fitting if one.score == fitting[0].score]
    return (best[0],) if len({trunk.party_id for trunk in best}) == 1 else tuple(best)


def rules_of(trunk: Trunk, party: DialRules) -> DialRules:
    """How numbers on a trunk are written: by its own rules, else by its party's; its tech prefix goes."""
    own = party if trunk.rules == DEFAULT_RULES else trunk.rules
    if not trunk.tech_prefix:
        return own
    return replace(own, tech_prefix=trunk.tech_prefix, tech_prefix_required=False)


def check_address(text: str) -> str:
    """Return an address or network as it is kept.

    Raises:
        ValueError: it is neither.
    """
    network = _network(text)
    single = network.prefixlen == network.max_prefixlen
    return str(network.network_address) if single else str(network)


def _network(text: str) -> IPv4Network | IPv6Network:
    return ip_network(text.strip(), strict=False)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address in what a switch writes: with a port, in brackets, or nothing of the kind."""
    host = text.strip()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        return ip_address(host)
    except ValueError:
        return None
