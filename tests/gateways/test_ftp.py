"""A real FTP server on loopback, in clear and by TLS with a pinned certificate."""

from __future__ import annotations

import hashlib
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.gateways.folders import check_store, check_writer_fault
from tests.services.collecting import collecting
from tollkeeper.gateways.files import FilesFailed
from tollkeeper.gateways.ftp import Ftp
from tollkeeper.store.db import Database

with warnings.catch_warnings():
    # The library brings modules along that a later Python has no more.
    warnings.simplefilter("ignore", DeprecationWarning)
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler
    from pyftpdlib.ioloop import IOLoop
    from pyftpdlib.servers import FTPServer

PASSWORD = "a secret"


@dataclass
class Server:
    """A running server."""

    port: int
    folder: Path
    fingerprint: str = ""

    def settings(self, **changes: Any) -> dict[str, Any]:
        """How it is connected to."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "user": "carrier",
            "secret": PASSWORD,
            "path": "out",
            "tls": bool(self.fingerprint),
            "fingerprint": self.fingerprint,
            **changes,
        }


@contextmanager
def running(handler: Any, root: Path) -> Iterator[int]:
    """Serve in a thread; stopped at the end of the block."""
    authorizer = DummyAuthorizer()
    authorizer.add_user("carrier", PASSWORD, str(root), perm="elradfmwMT")
    own = type("Handler", (handler,), {"authorizer": authorizer, "auth_failed_timeout": 0})
    own.encoding, own.unicode_errors = "utf-8", "surrogateescape"
    loop = IOLoop()
    server = FTPServer(("127.0.0.1", 0), own, ioloop=loop)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            loop.loop(timeout=0.05, blocking=False)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server.address[1]
    finally:
        stop.set()
        thread.join()
        server.close_all()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def certificate(path: Path) -> str:
    """Write a key and a certificate that it signs itself; returns its SHA-256 fingerprint."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "switch")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return hashlib.sha256(made.public_bytes(serialization.Encoding.DER)).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "root" / "out"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def plain(folder: Path) -> Iterator[Server]:
    with running(FTPHandler, folder.parent) as port:
        yield Server(port, folder)


@pytest.fixture
def tls(folder: Path, tmp_path: Path) -> Iterator[Server]:
    handlers = pytest.importorskip("pyftpdlib.handlers")
    if not hasattr(handlers, "TLS_FTPHandler"):
        pytest.skip("pyftpdlib serves TLS only where pyOpenSSL is installed")
    fingerprint = certificate(tmp_path / "server.pem")
    handler = type(
        "Tls",
        (handlers.TLS_FTPHandler,),
        {
            "certfile": str(tmp_path / "server.pem"),
            "tls_control_required": True,
            "tls_data_required": True,
        },
    )
    with running(handler, folder.parent) as port:
        yield Server(port, folder, fingerprint)


async def test_ftp_does_what_a_store_must(plain: Server) -> None:
    store = await Ftp.connect(**plain.settings())
    try:
        await check_store(store, plain.folder)
        await check_writer_fault(store, plain.folder)
    finally:
        await store.close()


async def test_ftp_by_tls_does_what_a_store_must(tls: Server) -> None:
    store = await Ftp.connect(**tls.settings())
    try:
        await check_store(store, tls.folder)
    finally:
        await store.close()


class Old(FTPHandler):
    """A server of before RFC 3659's MLSD."""

    proto_cmds: ClassVar = {
        name: facts for name, facts in FTPHandler.proto_cmds.items() if name not in {"MLSD", "MLST"}
    }


async def test_a_server_without_mlsd_is_asked_in_the_old_way(folder: Path) -> None:
    with running(Old, folder.parent) as port:
        store = await Ftp.connect(**Server(port, folder).settings())
        try:
            assert await store.list("*") == []
            await check_store(store, folder)
        finally:
            await store.close()


async def test_a_certificate_that_is_not_the_known_one_is_refused(tls: Server) -> None:
    """The sentence names the fingerprint that was shown, so that it can be compared."""
    with pytest.raises(FilesFailed, match=f"its SHA-256 is {tls.fingerprint}"):
        await Ftp.connect(**tls.settings(fingerprint="0" * 64))


async def test_a_certificate_that_nobody_signed_is_refused(tls: Server) -> None:
    with pytest.raises(FilesFailed, match="the certificate of the server is not trusted"):
        await Ftp.connect(**tls.settings(fingerprint=""))


async def test_a_server_that_has_no_tls_gets_no_password(plain: Server) -> None:
    with pytest.raises(FilesFailed):
        await Ftp.connect(**plain.settings(tls=True, fingerprint="0" * 64))


async def test_a_wrong_password_is_told(plain: Server) -> None:
    with pytest.raises(FilesFailed, match="the server refuses this user or secret"):
        await Ftp.connect(**plain.settings(secret="wrong"))


async def test_a_folder_that_is_not_there_is_told(plain: Server) -> None:
    with pytest.raises(FilesFailed, match="550"):
        await Ftp.connect(**plain.settings(path="nothing"))


async def test_a_server_that_is_away_is_told(folder: Path) -> None:
    with running(FTPHandler, folder.parent) as port:
        pass
    with pytest.raises(FilesFailed, match="Connection refused"):
        await Ftp.connect(**Server(port, folder).settings())


@pytest.mark.parametrize("kind", ["plain", "tls"])
async def test_a_source_is_collected_from(
    kind: str,
    request: pytest.FixtureRequest,
    database_url: str,
    tmp_path: Path,
) -> None:
    server: Server = request.getfixturevalue(kind)
    for name in ("a.csv", "b.csv"):
        (server.folder / name).write_bytes(name.encode())
    (server.folder / "a.csv.ok").write_bytes(b"x")
    database = Database(database_url)
    await database.open()
    try:
        settings = server.settings()
        at = await collecting(
            database,
            tmp_path / "spool",
            kind="ftp",
            secret=settings.pop("secret"),
            certificate_sha256=settings.pop("fingerprint"),
            done_marker="{name}.ok",
            after="delete",
            **settings,
        )
        report = await at.round()
    finally:
        await database.close()
    assert (report.error, at.load.loaded) == ("", [("a.csv", b"a.csv")])
    assert names(server.folder) == ["b.csv"]
