"""What the commands ``connect`` share: the peer that is meant, and files that nobody's work is lost to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tollkeeper.cli.common import run
from tollkeeper.errors import Conflict, NotFound
from tollkeeper.store.db import Database
from tollkeeper.store.peers import Peer, read_peers


def find_peer(code: str, kind: str) -> Peer:
    """The peer of a code, which must be of a kind.

    Raises:
        NotFound: there is none.
    """

    async def find(database: Database) -> Peer | None:
        async with database.read() as connection:
            peers = await read_peers(connection)
        return next((peer for peer in peers if peer.code == code and peer.kind == kind), None)

    peer = run(find)
    if peer is None:
        raise NotFound(f'there is no {kind} peer "{code}"; add it first', code="unknown_peer")
    return peer


def write_files(folder: Path, files: Mapping[str, str], *, force: bool) -> list[Path]:
    """Write files that hold secrets: for their owner alone.

    Raises:
        Conflict: one is there already and ``force`` is not given.
    """
    paths = [folder / name for name in files]
    if not force and (there := [path for path in paths if path.exists()]):
        raise Conflict(f"{there[0]} is there already; --force overwrites it", code="file_exists")
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in zip(paths, files.values(), strict=True):
        path.touch(mode=0o600)
        path.chmod(0o600)
        path.write_text(text, encoding="utf-8")
    return paths
