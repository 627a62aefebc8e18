"""Files on an FTP server, in clear or by explicit TLS (RFC 4217), always in passive mode.

The library blocks, so every call of it runs in a thread, one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import ftplib
import hashlib
import hmac
import posixpath
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Self, TypeVar

from tollkeeper.gateways.files import CHUNK_BYTES, FileGone, FilesFailed, RemoteFile, Write

T = TypeVar("T")

TIMEOUT_SECONDS = 30.0
"""Of each wait for the server, so that one that is dead holds no round up for long."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNKNOWN_COMMAND = ("500", "501", "502", "504")


class _Tls(ftplib.FTP_TLS):
    """As the library's, but the data connection continues the TLS session of the first one.

    Many servers demand that (require_ssl_reuse of vsftpd): it proves that both have one owner.
    """

    def __init__(self, fingerprint: str) -> None:
        context = ssl.create_default_context()
        if fingerprint:
            # The certificate is known by itself; who signed it and for what name says no more.
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        super().__init__(context=context, timeout=TIMEOUT_SECONDS, encoding="latin-1")
        self._fingerprint = fingerprint

    def auth(self) -> str:
        """Encrypt the connection, and look who is at the other end before the password is sent."""
        answer = super().auth()
        assert isinstance(self.sock, ssl.SSLSocket)
        self._check(self.sock)
        return answer

    def ntransfercmd(
        self, cmd: str, rest: int | str | None = None
    ) -> tuple[socket.socket, int | None]:
        """Open an encrypted data connection."""
        connection, size = ftplib.FTP.ntransfercmd(self, cmd, rest)  # noqa: S321 (it is wrapped below)
        assert isinstance(self.sock, ssl.SSLSocket)
        try:
            wrapped = self.context.wrap_socket(
                connection, server_hostname=self.host, session=self.sock.session
            )
            self._check(wrapped)
        except BaseException:
            connection.close()
            raise
        return wrapped, size

    def _check(self, sock: ssl.SSLSocket) -> None:
        if not self._fingerprint:
            return
        shown = hashlib.sha256(sock.getpeercert(binary_form=True) or b"").hexdigest()
        if not hmac.compare_digest(shown, self._fingerprint):
            raise ssl.SSLCertVerificationError(
                1, f"its SHA-256 is {shown}, not that of settings.certificate_sha256"
            )


class Ftp:
    """One folder of an FTP server, over one connection."""

    def __init__(self, ftp: ftplib.FTP) -> None:
        self._ftp = ftp
        self._turn = asyncio.Lock()
        self._closed = False
        self._data: socket.socket | None = None

    @classmethod
    async def connect(
        cls,
        *,
        host: str,
        port: int,
        user: str,
        secret: str,
        path: str,
        tls: bool,
        fingerprint: str = "",
    ) -> Self:
        """Connect, log in and go to the folder; ``fingerprint`` is the SHA-256 of the certificate.

        Without one, the certificate must be signed by an authority that this machine trusts.

        Raises:
            FilesFailed: the server is away, cannot prove who it is, or refuses.
        """
        # Bytes of names travel as Latin-1 and are read as UTF-8 by us: so each name survives.
        plain = ftplib.FTP(timeout=TIMEOUT_SECONDS, encoding="latin-1")  # noqa: S321 (switches know nothing better)
        ftp = _Tls(fingerprint.lower().replace(":", "")) if tls else plain

        def log_in() -> None:
            ftp.connect(host, port)
            ftp.login(user, _wire(secret))
            if isinstance(ftp, _Tls):
                ftp.prot_p()
            if path:
                ftp.cwd(_wire(path))

        made = cls(ftp)
        try:
            await made._work(host, log_in)
        except BaseException:
            await made.close()
            raise
        return made

    async def list(self, pattern: str) -> list[RemoteFile]:
        """As :meth:`FileStore.list`."""

        def read() -> list[RemoteFile]:
            found = _listed(self._ftp)
            if found is None:
                return _asked(self._ftp, pattern)
            return [file for file in found if fnmatch.fnmatchcase(file.name, pattern)]

        return sorted(await self._work("the folder", read), key=lambda file: file.name)

    async def stat(self, name: str) -> RemoteFile | None:
        """As :meth:`FileStore.stat`."""
        # Asked in the way in which files are listed: SIZE and MDTM may tell times less exactly.
        found = await self.list(_literal(name))
        return found[0] if found else None

    async def fetch(self, name: str, write: Write) -> None:
        """As :meth:`FileStore.fetch`."""

        def read() -> bytes:
            assert self._data is not None
            return self._data.recv(CHUNK_BYTES)

        def begin() -> None:
            # Listing has set the type to text, which would change line ends on the way.
            self._ftp.voidcmd("TYPE I")
            self._data = self._ftp.transfercmd(f"RETR {_wire(name)}")

        def end() -> None:
            assert self._data is not None
            if isinstance(self._data, ssl.SSLSocket):
                # Servers differ in how they say goodbye; the size is compared afterwards.
                with contextlib.suppress(OSError, ValueError):
                    self._data.unwrap()
            self._data.close()
            self._data = None
            self._ftp.voidresp()

        async with self._turn:
            await self._call(name, begin)
            try:
                while data := await self._call(name, read):
                    await asyncio.to_thread(write, data)
                await self._call(name, end)
            except BaseException:
                # In the middle of a file there is no way back to a conversation.
                await self.close()
                raise

    async def move_to(self, name: str, folder: str, new_name: str) -> None:
        """As :meth:`FileStore.move_to`."""

        def move() -> None:
            # There is one way only to ask for a folder's content that all servers know.
            try:
                names = self._ftp.nlst(_wire(folder))
            except ftplib.error_perm:
                names = []
                with contextlib.suppress(ftplib.error_perm):
                    self._ftp.mkd(_wire(folder))
            if new_name in {posixpath.basename(_unwire(each)) for each in names}:
                raise FilesFailed(f"{new_name}: there is such a file in {folder} already")
            self._ftp.rename(_wire(name), _wire(posixpath.join(folder, new_name)))

        await self._work(name, move)

    async def delete(self, name: str) -> None:
        """As :meth:`FileStore.delete`."""
        with contextlib.suppress(FileGone):
            await self._work(name, lambda: self._ftp.delete(_wire(name)))

    async def close(self) -> None:
        """Close the connection; a thread that waits for the server is woken by that."""
        self._closed = True
        for sock in (self._data, self._ftp.sock):
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()
        self._ftp.close()

    async def _work(self, place: str, work: Callable[[], T]) -> T:
        async with self._turn:
            return await self._call(place, work)

    async def _call(self, place: str, work: Callable[[], T]) -> T:
        if self._closed:
            raise FilesFailed(f"{place}: the connection was closed")

        def call() -> T:
            with _sentences(place):
                return work()

        return await asyncio.to_thread(call)


def _listed(ftp: ftplib.FTP) -> list[RemoteFile] | None:
    """The folder by MLSD (RFC 3659); None from a server that does not know it."""
    try:
        entries = list(ftp.mlsd(facts=["type", "size", "modify"]))
    except ftplib.error_perm as error:
        if str(error).startswith(_UNKNOWN_COMMAND):
            return None
        raise
    return [
        RemoteFile(_unwire(name), int(facts.get("size", 0)), _moment(facts.get("modify", "")))
        for name, facts in entries
        if facts.get("type", "").lower() == "file"
    ]


def _asked(ftp: ftplib.FTP, pattern: str) -> list[RemoteFile]:
    """The folder by NLST, SIZE and MDTM, for servers of before RFC 3659; folders have no size."""
    found = []
    names = ftp.nlst()
    ftp.voidcmd("TYPE I")
    for entry in names:
        name = posixpath.basename(_unwire(entry))
        if not fnmatch.fnmatchcase(name, pattern):
            continue
        try:
            size = ftp.size(_wire(name))
            modified = ftp.voidcmd(f"MDTM {_wire(name)}").partition(" ")[2]
        except ftplib.error_perm:
            continue
        found.append(RemoteFile(name, size or 0, _moment(modified)))
    return found


def _moment(text: str) -> int:
    """YYYYMMDDHHMMSS and perhaps a fraction, in UTC, as microseconds; 0 when it is none."""
    whole, _, fraction = text.strip().partition(".")
    try:
        moment = datetime.strptime(whole, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        return (moment - _EPOCH) // timedelta(microseconds=1) + int(fraction[:6].ljust(6, "0"))
    except ValueError:
        return 0


def _literal(name: str) -> str:
    """The pattern that matches this name alone."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _wire(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("latin-1")


def _unwire(name: str) -> str:
    return name.encode("latin-1").decode("utf-8", "surrogateescape")


@contextmanager
def _sentences(place: str) -> Iterator[None]:
    """Errors of the library become one sentence that names what it was about."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise FilesFailed(
            f"{place}: the certificate of the server is not trusted: {error.args[-1]}"
        ) from error
    except ftplib.error_perm as error:
        text = str(error)
        if text.startswith("530"):
            raise FilesFailed(f"{place}: the server refuses this user or secret") from error
        kind = FileGone if text.startswith("550") else FilesFailed
        raise kind(f"{place}: the FTP server refused: {text}") from error
    except (ftplib.Error, EOFError) as error:
        text = str(error) or "it closed the connection"
        raise FilesFailed(f"{place}: the FTP server failed: {text}") from error
    except TimeoutError as error:
        raise FilesFailed(f"{place}: the server does not answer") from error
    except OSError as error:
        raise FilesFailed(f"{place}: {error.strerror or error}") from error
    except (ValueError, UnicodeError) as error:
        raise FilesFailed(f"{place}: the FTP server cannot be understood: {error}") from error
