"""Files on an SFTP server. The server must show a host key that was noted before."""

from __future__ import annotations

import asyncio
import fnmatch
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self, cast

import asyncssh

from tollkeeper.errors import InvalidInput
from tollkeeper.gateways.files import CHUNK_BYTES, FileGone, FilesFailed, RemoteFile, Write

CONNECT_SECONDS = 15
KEEPALIVE_SECONDS = 15
"""Asked three times without an answer, a connection is given up: a dead server holds no round up."""

_READ_BYTES = 4 * CHUNK_BYTES
"""One read is split into many requests that are under way at once, so a far server is no slow one."""


def read_host_keys(text: str) -> list[asyncssh.SSHKey]:
    """Return the public keys of some lines, each as in a .pub file, known_hosts or of ssh-keyscan.

    Raises:
        InvalidInput: no key in it, or a line that is none.
    """
    keys = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        words = line.split()
        # Before the type stand the names of hosts, in known_hosts.
        first = next((n for n, word in enumerate(words) if word.startswith(("ssh-", "ecdsa-"))), 0)
        try:
            keys.append(asyncssh.import_public_key(" ".join(words[first : first + 2])))
        except (asyncssh.KeyImportError, ValueError) as error:
            raise _no_key() from error
    if not keys:
        raise _no_key()
    return keys


def _no_key() -> InvalidInput:
    return InvalidInput(
        'settings.host_key: give the public key of the server, a line such as "ssh-ed25519 AAAA..." '
        "that ssh-keyscan prints; compare it with what the owner of the server says",
        field="settings.host_key",
    )


def read_private_key(text: str) -> asyncssh.SSHKey:
    """Return the private key of a PEM or OpenSSH text.

    Raises:
        InvalidInput: it is none, or it is locked by a passphrase.
    """
    try:
        return asyncssh.import_private_key(text)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, ValueError) as error:
        raise InvalidInput(
            "secret: this private key cannot be read; give one in PEM or OpenSSH form without a "
            "passphrase",
            field="secret",
        ) from error


def is_private_key(secret: str) -> bool:
    """Tell a private key from a password."""
    return secret.lstrip().startswith("-----BEGIN ")


class Sftp:
    """One folder of an SFTP server, over one connection."""

    def __init__(
        self, connection: asyncssh.SSHClientConnection, client: asyncssh.SFTPClient, path: str
    ) -> None:
        self._connection = connection
        self._client = client
        self._path = path

    @classmethod
    async def connect(
        cls, *, host: str, port: int, user: str, secret: str, host_key: str, path: str
    ) -> Self:
        """Connect and log in; ``secret`` is a password or a private key.

        Raises:
            FilesFailed: the server is away, is not the one whose key is known, or refuses.
        """
        keys = read_host_keys(host_key)
        private = [read_private_key(secret)] if is_private_key(secret) else None
        with _sentences(host):
            connection = await asyncssh.connect(
                host,
                port,
                username=user,
                password=None if private else secret,
                client_keys=private,
                # Nothing of the user who runs us counts: no ~/.ssh, no agent.
                config=None,
                agent_path=None,
                known_hosts=(keys, [], []),
                connect_timeout=CONNECT_SECONDS,
                login_timeout=CONNECT_SECONDS,
                keepalive_interval=KEEPALIVE_SECONDS,
            )
            try:
                client = await connection.start_sftp_client(path_errors="surrogateescape")
            except BaseException:
                connection.abort()
                raise
        return cls(connection, client, path)

    async def list(self, pattern: str) -> list[RemoteFile]:
        """As :meth:`FileStore.list`."""
        found = []
        with _sentences(self._path):
            async for entry in self._client.scandir(self._path):
                name = str(entry.filename)
                if not fnmatch.fnmatchcase(name, pattern):
                    continue
                attrs = entry.attrs
                if attrs.type == asyncssh.FILEXFER_TYPE_SYMLINK:
                    file = await self.stat(name)
                else:
                    file = _file(name, attrs)
                found += [file] if file is not None else []
        return sorted(found, key=lambda file: file.name)

    async def stat(self, name: str) -> RemoteFile | None:
        """As :meth:`FileStore.stat`."""
        with _sentences(name):
            try:
                return _file(name, await self._client.stat(self._at(name)))
            except asyncssh.SFTPNoSuchFile:
                return None

    async def fetch(self, name: str, write: Write) -> None:
        """As :meth:`FileStore.fetch`."""
        with _sentences(name):
            stream = await self._client.open(self._at(name), "rb", encoding=None)
        try:
            while True:
                with _sentences(name):
                    data = cast(bytes, await stream.read(_READ_BYTES))
                if not data:
                    return
                await asyncio.to_thread(write, data)
        finally:
            with _sentences(name):
                await stream.close()

    async def move_to(self, name: str, folder: str, new_name: str) -> None:
        """As :meth:`FileStore.move_to`."""
        target = posixpath.join(self._path, folder)
        with _sentences(name):
            await self._client.makedirs(target, exist_ok=True)
            if await self._client.exists(posixpath.join(target, new_name)):
                raise FilesFailed(f"{new_name}: there is such a file in {target} already")
            await self._client.rename(self._at(name), posixpath.join(target, new_name))

    async def delete(self, name: str) -> None:
        """As :meth:`FileStore.delete`."""
        with _sentences(name):
            try:
                await self._client.remove(self._at(name))
            except asyncssh.SFTPNoSuchFile:
                return

    async def close(self) -> None:
        """Close the connection without waiting for the server."""
        self._client.exit()
        self._connection.abort()
        await self._connection.wait_closed()

    def _at(self, name: str) -> str:
        return posixpath.join(self._path, name)


def _file(name: str, attrs: asyncssh.SFTPAttrs) -> RemoteFile | None:
    if attrs.type != asyncssh.FILEXFER_TYPE_REGULAR:
        return None
    nanoseconds = attrs.mtime_ns or 0
    return RemoteFile(name, attrs.size or 0, (attrs.mtime or 0) * 1_000_000 + nanoseconds // 1000)


@contextmanager
def _sentences(place: str) -> Iterator[None]:
    """Errors of the library become one sentence that names what it was about."""
    try:
        yield
    except FilesFailed:
        raise
    except asyncssh.SFTPNoSuchFile as error:
        raise FileGone(f"{place}: the SFTP server has no such file or folder") from error
    except asyncssh.SFTPError as error:
        raise FilesFailed(f"{place}: the SFTP server refused: {error.reason}") from error
    except asyncssh.HostKeyNotVerifiable as error:
        raise FilesFailed(
            f"{place}: the server shows another host key than settings.host_key; ask its owner "
            "whether it was changed, and change the setting only then"
        ) from error
    except asyncssh.KeyExchangeFailed as error:
        raise FilesFailed(
            f"{place}: no common way to encrypt, or the server has no host key of the type that "
            f"settings.host_key names: {error.reason}"
        ) from error
    except asyncssh.PermissionDenied as error:
        raise FilesFailed(f"{place}: the server refuses this user or secret") from error
    except asyncssh.Error as error:
        raise FilesFailed(f"{place}: {error.reason or type(error).__name__}") from error
    except TimeoutError as error:
        raise FilesFailed(f"{place}: the server does not answer") from error
    except OSError as error:
        raise FilesFailed(f"{place}: {error.strerror or error}") from error
