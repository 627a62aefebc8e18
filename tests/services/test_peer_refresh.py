"""Peers in memory: read again when something changed, and found quickly among thousands of trunks."""

from __future__ import annotations

import time

from tests.protocols.house import add_peer
from tests.support import World, runtime
from tollkeeper.core.trunks import Trace, Trunk
from tollkeeper.services.peer_book import PeerBook
from tollkeeper.store.peers import Peer


async def test_what_did_not_change_is_not_read_again(database_url: str) -> None:
    """Nobody is told, and the book with all it remembers stays; a change that was not announced is found."""
    told: list[int] = []
    with World(database_url) as world:
        acme = world.customer("acme")
        add_peer(world, "nas", "radius", secret="s3cret", addresses=["192.0.2.7"])
        async with runtime(database_url) as parts:
            parts.directory.on_peers = lambda: told.append(1)
            before = parts.directory.peers
            await parts.directory.load(small=True)
            assert parts.directory.peers is before
            changes = (
                "UPDATE peer SET secret = 'other' RETURNING id",
                "INSERT INTO trunk (code, direction, party_id, addresses) VALUES ('t', 'in', %s, '{}') RETURNING id",
                "UPDATE trunk SET account = '7' RETURNING id",
                f"INSERT INTO credential (username, ha1, party_id) VALUES ('bob', '{'0' * 32}', %s) RETURNING id",
                "DELETE FROM credential RETURNING id",
            )
            for change in changes:
                before = parts.directory.peers
                world.sql(change, *([acme.id] if "%s" in change else []))
                await parts.directory.load(small=True)
                assert parts.directory.peers is not before, change
    # Once for the peer: those who listen for peers do not look at trunks and user names.
    assert len(told) == 1


def test_a_trunk_among_ten_thousand_is_looked_for_once() -> None:
    """The next call from the same place costs next to nothing, whatever number it calls."""
    trunks = [
        Trunk(
            n,
            f"t{n}",
            "in",
            n,
            addresses=(f"10.{n >> 8}.{n & 255}.0/24",),
            tech_prefix="77" * (n % 2),
        )
        for n in range(10_000)
    ]
    book = PeerBook([], trunks)
    peer = Peer(1, "sbc", "sip", "sbc")
    first = book.trunk_of(peer, Trace(address="10.0.7.9", called="7744"))
    assert first is not None
    assert first.code == "t7"
    begin = time.process_time()
    for number in range(1000):
        assert book.trunk_of(peer, Trace(address="10.0.7.9", called=f"77{number}")) is first
        assert book.trunk_of(peer, Trace(address="10.0.7.9", called=f"44{number}")) is None
    assert time.process_time() - begin < 1.0
