"""A real Kamailio of our own on loopback: for the demonstration, the benchmark and the tests."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from tollkeeper.cli.connect.kamailio_files import MODULES, PROXY, Site, configuration
from tollkeeper.errors import SetupError

PACKAGES = "kamailio kamailio-extra-modules kamailio-json-modules kamailio-utils-modules kamailio-sqlite-modules sip-tester"
"""Debian's packages that hold what is used here."""
MODULES_USED = (
    "evapi.so",
    "dialog.so",
    "db_sqlite.so",
    "jansson.so",
    "mqueue.so",
    "rtimer.so",
    "http_client.so",
)
SCHEMA = Path("/usr/share/kamailio/db_sqlite")
START_SECONDS = 15.0
STOP_SECONDS = 5.0
LOG_TAIL = 12
LOOK_SECONDS = 0.01
_ASK = "    route(TK_AUTHORISE);\n"
_ON = "    t_newtran();\n    dlg_manage();\n    route(TK_GRANTED);\n"


def program(name: str) -> str | None:
    """Where a program is, also in the folders of administrators, which are not on everybody's path."""
    return shutil.which(
        name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    )


def missing() -> str:
    """What is not installed here of all that a call through Kamailio needs; empty if nothing is."""
    lacking = [name for name in ("kamailio", "sipp") if program(name) is None]
    if not lacking:
        lacking = [name for name in MODULES_USED if not Path(MODULES, name).exists()]
    if not lacking and not SCHEMA.is_dir():
        lacking = [str(SCHEMA)]
    return ", ".join(lacking)


def check() -> None:
    """Make sure that real SIP calls can be made here.

    Raises:
        SetupError: with what is missing, and the packages that have it.
    """
    if lacking := missing():
        raise SetupError(
            f"The demonstration with real SIP calls needs what is not installed here: {lacking}. On Debian: "
            f"apt-get install {PACKAGES}. Without --sip the calls are simulated."
        )


def free_port() -> int:
    """A port of loopback that nobody has, neither by TCP nor by UDP."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            port: int = tcp.getsockname()[1]
            try:
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Kamailio:
    """One Kamailio in a folder of its own; it can be stopped or killed and started again where it was.

    ``site`` overrides what a generated configuration has by default; addresses and ports are chosen here.
    With ``asks`` False it passes every call on without a question: what is to be compared with.
    ``by_user``: the user of the From header is the account that pays.
    """

    def __init__(
        self,
        folder: Path,
        *,
        gateway_port: int,
        site: Site | None = None,
        asks: bool = True,
        by_user: bool = False,
    ) -> None:
        self.folder = folder
        self.sip_port, self.evapi_port = free_port(), free_port()
        database = folder / "dialog.sqlite"
        sip = f"127.0.0.1:{self.sip_port}"
        self.site = replace(
            site or Site(),
            sip=sip,
            rpc=sip,
            evapi=f"127.0.0.1:{self.evapi_port}",
            gateway=f"127.0.0.1:{gateway_port}",
            dialog_db=f"sqlite:///{database}",
        )
        self.rpc_url = f"http://{sip}/RPC"
        self.log = folder / "kamailio.log"
        self._process: subprocess.Popen[bytes] | None = None
        for name, text in configuration(self.site, folder).items():
            new_call = "    $avp(tk_account) = $fU;\n" * by_user + (_ASK if asks else _ON)
            (folder / name).write_text(text.replace(_ASK, new_call))
        _make_database(database)

    def start(self) -> None:
        """Start it and wait until it takes connections.

        Raises:
            SetupError: it did not start; the text has the end of its log.
        """
        command = [
            program("kamailio") or "kamailio", "-DD", "-E", "-f", str(self.folder / PROXY), "-m", "64", "-M", "8",
            "-Y", str(self.folder), "-P", str(self.folder / "kamailio.pid"),
        ]  # fmt: skip
        with self.log.open("ab") as log:
            # A group of its own, so that all of its processes end together.
            self._process = subprocess.Popen(  # noqa: S603 - our own arguments
                command, stdout=log, stderr=log, start_new_session=True
            )
        ports = (
            [self.sip_port] if self.site.transport == "http" else [self.sip_port, self.evapi_port]
        )
        deadline = time.monotonic() + START_SECONDS
        while not all(_listens(port) for port in ports):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                tail = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL:]
                raise SetupError("\n  ".join(["Kamailio did not start:", *tail]))
            time.sleep(LOOK_SECONDS)

    def stop(self) -> None:
        """End it in good order."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
            self.kill()

    def kill(self) -> None:
        """End all of its processes at once, without any order."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextmanager
def running_kamailio(
    folder: Path, *, gateway_port: int, site: Site | None = None, by_user: bool = False
) -> Iterator[Kamailio]:
    """A Kamailio that runs while the block lasts."""
    kamailio = Kamailio(folder, gateway_port=gateway_port, site=site, by_user=by_user)
    kamailio.start()
    try:
        yield kamailio
    finally:
        kamailio.stop()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _make_database(path: Path) -> None:
    """Make the tables of the dialogs, once."""
    if path.exists():
        return
    with closing(sqlite3.connect(path)) as database:
        for name in ("standard", "dialog"):
            database.executescript((SCHEMA / f"{name}-create.sql").read_text())
        # Several processes of Kamailio write here.
        database.execute("PRAGMA journal_mode=WAL")
