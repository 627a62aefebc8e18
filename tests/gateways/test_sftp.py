"""A real SFTP server on loopback: its key is pinned, passwords and keys open it, faults are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.gateways.folders import check_store, check_writer_fault
from tests.services.collecting import collecting
from tollkeeper.errors import InvalidInput
from tollkeeper.gateways.files import FilesFailed
from tollkeeper.gateways.sftp import Sftp, read_host_keys, read_private_key
from tollkeeper.services.probe import probe
from tollkeeper.store.db import Database

PASSWORD = "a secret"


@dataclass
class Server:
    """A running server and what opens it."""

    port: int
    folder: Path
    host_key: str
    client_key: str
    acceptor: asyncssh.SSHAcceptor

    def settings(self, **changes: Any) -> dict[str, Any]:
        """How it is connected to."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "user": "carrier",
            "secret": PASSWORD,
            "host_key": self.host_key,
            "path": "/out",
            **changes,
        }


class _Login(asyncssh.SSHServer):
    def __init__(self, client_key: asyncssh.SSHKey) -> None:
        self._key = client_key.public_data

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == ("carrier", PASSWORD)

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return username == "carrier" and key.public_data == self._key


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    client_key = asyncssh.generate_private_key("ssh-ed25519")
    folder = tmp_path / "root" / "out"
    folder.mkdir(parents=True)

    def sftp(channel: Any) -> asyncssh.SFTPServer:
        return asyncssh.SFTPServer(channel, chroot=str(tmp_path / "root").encode())

    acceptor = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=lambda: _Login(client_key),
        server_host_keys=[host_key],
        sftp_factory=sftp,
    )
    yield Server(
        acceptor.get_port(),
        folder,
        host_key.export_public_key().decode(),
        client_key.export_private_key().decode(),
        acceptor,
    )
    acceptor.close()
    await acceptor.wait_closed()


async def test_sftp_does_what_a_store_must(server: Server) -> None:
    store = await Sftp.connect(**server.settings())
    try:
        await check_store(store, server.folder)
        await check_writer_fault(store, server.folder)
        assert [file.name for file in await store.list("w*")] == ["w.csv"]
    finally:
        await store.close()


async def test_a_private_key_opens_it(server: Server) -> None:
    store = await Sftp.connect(**server.settings(secret=server.client_key))
    assert await store.list("*") == []
    await store.close()


async def test_a_server_with_another_key_is_not_spoken_to(server: Server) -> None:
    """Neither the password nor anything else goes to it."""
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    with pytest.raises(FilesFailed, match="shows another host key"):
        await Sftp.connect(**server.settings(host_key=other))


async def test_a_known_key_of_a_type_that_the_server_lacks_is_refused(server: Server) -> None:
    other = asyncssh.generate_private_key("ecdsa-sha2-nistp256").export_public_key().decode()
    with pytest.raises(FilesFailed, match="host key"):
        await Sftp.connect(**server.settings(host_key=other))


@pytest.mark.parametrize("change", [{"secret": "wrong"}, {"user": "nobody"}])
async def test_a_wrong_user_or_secret_is_told(server: Server, change: dict[str, str]) -> None:
    with pytest.raises(FilesFailed, match="the server refuses this user or secret"):
        await Sftp.connect(**server.settings(**change))


async def test_a_server_that_is_away_is_told(server: Server) -> None:
    server.acceptor.close()
    await server.acceptor.wait_closed()
    with pytest.raises(FilesFailed, match=r"^127\.0\.0\.1: "):
        await Sftp.connect(**server.settings())


async def test_a_folder_that_is_not_there_is_named(server: Server) -> None:
    store = await Sftp.connect(**server.settings(path="/nothing"))
    with pytest.raises(FilesFailed, match=r"/nothing: the SFTP server has no such file or folder"):
        await store.list("*")
    await store.close()


async def test_a_server_that_goes_away_in_the_middle_is_told(server: Server) -> None:
    (server.folder / "a.csv").write_bytes(b"x" * 50_000_000)
    store = await Sftp.connect(**server.settings())
    got = []

    def write(data: bytes) -> None:
        got.append(len(data))
        loop.call_soon_threadsafe(store._connection.abort)

    loop = asyncio.get_running_loop()
    with pytest.raises(FilesFailed):
        await store.fetch("a.csv", write)
    assert 0 < sum(got) < 50_000_000
    await store.close()


@pytest.mark.parametrize("text", ["", "# only a comment", "ssh-ed25519 AAAA", "no key at all"])
def test_what_is_no_host_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="ssh-keyscan"):
        read_host_keys(text)


def test_host_keys_are_read_from_all_places_where_they_are_written(server: Server) -> None:
    text = f"# a comment\n[127.0.0.1]:22 {server.host_key}\n{server.host_key}"
    assert len(read_host_keys(text)) == 2


@pytest.mark.parametrize("passphrase", [None, "locked"])
def test_what_is_no_open_private_key_is_refused(passphrase: str | None) -> None:
    text = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
    if passphrase is not None:
        key = asyncssh.generate_private_key("ssh-ed25519")
        text = key.export_private_key("pkcs8-pem", passphrase=passphrase).decode()
    with pytest.raises(InvalidInput, match="without a passphrase"):
        read_private_key(text)


async def test_a_source_is_tried_and_collected_from(
    server: Server, database_url: str, tmp_path: Path
) -> None:
    (server.folder / "a.csv").write_bytes(b"one\n")
    database = Database(database_url)
    await database.open()
    try:
        settings = server.settings()
        secret = settings.pop("secret")
        at = await collecting(
            database,
            tmp_path / "spool",
            kind="sftp",
            secret=secret,
            settle_seconds=0,
            after="move",
            move_to="/done",
            **settings,
        )
        shown = await probe(database, at.source, at.clock())
        report = await at.round()
    finally:
        await database.close()
    assert shown == [("a.csv", 4, "would be taken")]
    assert (report.error, at.load.loaded) == ("", [("a.csv", b"one\n")])
    assert (server.folder.parent / "done" / "a.csv").read_bytes() == b"one\n"
