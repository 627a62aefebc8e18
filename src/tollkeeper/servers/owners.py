"""Whose calls come in by which peer, and who wants to hear of changes of money and of peers."""

from __future__ import annotations

from collections.abc import Callable

from tollkeeper.core.numbering import DialRules, normalise
from tollkeeper.core.trunks import Trace, rules_of
from tollkeeper.errors import InvalidInput, NotFound
from tollkeeper.servers.asks import Ask
from tollkeeper.services.directory import Directory
from tollkeeper.services.peer_book import PeerBook
from tollkeeper.store.peers import Peer


class Owners:
    """What the switchboard knows from the directory."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._money: list[Callable[[int], None]] = []
        self._peers: list[Callable[[], None]] = []
        directory.on_party = self._party_changed
        directory.on_peers = self._peers_changed

    @property
    def book(self) -> PeerBook:
        """The peers as they are set now."""
        return self._directory.peers

    def whose(self, peer: Peer, ask: Ask) -> tuple[str, DialRules | None]:
        """The party whose call it is, and how it writes numbers (None: the party's way); "" nobody's."""
        if ask.party:
            return ask.party, None
        trace = Trace(ask.trunk, ask.address, ask.account, ask.called)
        trunk = self.book.trunk_of(peer, trace)
        if trunk is not None:
            entry = self._directory.entry(trunk.party_id)
            if entry is not None:
                return entry.code, rules_of(trunk, entry.dial_rules)
        if ask.account and peer.flag("accounts_are_parties"):
            return ask.account, None
        return "", None

    def payers(self, party: str) -> frozenset[int]:
        """The ids of all who pay for a party's calls; a change of their money matters to them."""
        try:
            entry = self._directory.party(party)
        except NotFound:
            return frozenset()
        return frozenset(one.id for one in self._directory.chain_of(entry.id)) | {entry.id}

    def party_code(self, party_id: int) -> str:
        """The code of a party; "" if there is none."""
        entry = self._directory.entry(party_id)
        return entry.code if entry is not None else ""

    def on_money(self, heard: Callable[[int], None]) -> Callable[[], None]:
        """Be called with a party's id when its money or limits change; returns how to end that."""
        self._money.append(heard)
        return lambda: self._money.remove(heard)

    def on_peers(self, heard: Callable[[], None]) -> None:
        """Be called when a peer is changed."""
        self._peers.append(heard)

    def _peers_changed(self) -> None:
        for heard in self._peers:
            heard()

    def _party_changed(self, party_id: int) -> None:
        for heard in list(self._money):
            heard(party_id)

    def _plain_number(self, ask: Ask, party: str, rules: DialRules | None) -> str:
        """The number called as it is priced, for routes; "" where it is none."""
        try:
            return normalise(
                ask.called, self._directory.party(party).dial_rules if rules is None else rules
            )
        except (InvalidInput, NotFound):
            return ""
