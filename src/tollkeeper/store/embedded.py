"""A private PostgreSQL that starts with the program where no database URL is given.

The server's binaries come with a pinned package (docs/adr/0001-embedded-postgresql.md); this
module drives them itself, so that every setting is ours. One data folder looks like this::

    <data_dir>/
      postgres/      the database cluster, owned by the OS user that runs PostgreSQL
      run/           the socket; there is no TCP port
      binaries/      a copy of the server, only where root runs from a folder closed to others
      start.lock     held for as long as someone starts or stops the server
      users.lock     held, shared, by each program that uses the server

Several programs may use one data folder: the first starts the server, the others join it, and
the last one out stops it. The locks are kernel locks on open files, so a program that dies, even
by ``kill -9``, leaves none behind; a server that it leaves behind is joined by the next program.

Only the OS user who owns the folder, and root, can connect: PostgreSQL asks the kernel who is at
the other end of the socket (``peer``), so there is no password to keep. A data folder belongs to
one machine, or to one container: it must not be shared over a network.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import hashlib
import os
import pwd
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tollkeeper.errors import SetupError
from tollkeeper.settings import default_data_dir
from tollkeeper.store import embedded_host as host

if TYPE_CHECKING:
    from types import TracebackType

__all__ = [
    "EmbeddedPostgres",
    "create_database",
    "default_data_dir",
    "drop_database",
    "with_database",
]

ROLE = "tollkeeper"
DATABASE = "tollkeeper"
PORT = 5432  # names the socket file; nothing listens on TCP
# The kernel limits a socket's path to 108 bytes on Linux and 104 on macOS.
SOCKET_PATH_MAX = 100
# Enough to recover from a crash with max_wal_size of log to replay.
START_SECONDS = 120
ORPHAN_SECONDS = 5

StopMode = Literal["fast", "immediate"]

SETTINGS: dict[str, str] = {
    "listen_addresses": "''",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    # Commits waited up to 60 ms whenever a new log segment was filled with zeros first. Segments
    # are kept and used again, and a new one is only given its size; commits are as durable.
    "min_wal_size": "1GB",
    "wal_init_zero": "off",
    "checkpoint_timeout": "15min",
    # An answer is given after the commit, and a commit is on the disk.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # Short statements only: compiling them costs more than running them.
    "jit": "off",
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
    # One file for each weekday, begun anew each week, so that the log cannot fill the disk.
    "logging_collector": "on",
    "log_directory": "'log'",
    "log_filename": "'postgresql-%a.log'",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
}


class EmbeddedPostgres:
    """One program's use of the private server; made by :meth:`start`, ended by :meth:`stop`."""

    def __init__(
        self,
        data_dir: Path,
        *,
        bin_dir: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir.expanduser().resolve()
        self.pgdata = self.data_dir / "postgres"
        self.socket_dir = _socket_dir(self.data_dir)
        self.url = _url(self.socket_dir, DATABASE)
        self._bin_dir = bin_dir
        self._settings = {**SETTINGS, **(settings or {})}
        self._users_fd: int | None = None
        self._process = os.getpid()

    @classmethod
    def start(
        cls,
        data_dir: Path,
        *,
        bin_dir: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> Self:
        """Start the server of ``data_dir``, or join the one that runs; return once it answers.

        It is stopped by :meth:`stop`, when the program ends, and on SIGTERM or SIGHUP where the
        program handles neither itself. ``bin_dir`` names other binaries than the packaged ones,
        ``settings`` adds to postgresql.conf.

        Raises:
            SetupError: it cannot run here; the text says why and how to mend it.
        """
        server = cls(data_dir, bin_dir=bin_dir, settings=settings)
        server._make_data_dir()
        host.exit_on_signals()
        with server._alone():
            server._users_fd = server._join()
            try:
                server._ensure_running()
            except BaseException:  # also SystemExit, by a signal while it starts
                if server._leave():
                    with contextlib.suppress(SetupError):  # the first error is the one to tell
                        server._shut_down("fast")
                raise
        atexit.register(server.stop)
        return server

    def ensure_running(self) -> None:
        """Start the server again if it is gone, for instance after it was killed.

        Raises:
            SetupError: it does not start.
        """
        with self._alone():
            self._ensure_running()

    def stop(self, mode: StopMode = "fast", *, force: bool = False) -> None:
        """Leave the server; the last program to leave stops it, ``force`` stops it in any case.

        ``fast`` ends all connections and writes a checkpoint; ``immediate`` is a crash, from
        which the next start recovers. Calling it twice does no harm.
        """
        if self._users_fd is None or os.getpid() != self._process:
            return  # a forked child must not stop its parent's server
        atexit.unregister(self.stop)
        with self._alone():
            if self._leave() or force:
                self._shut_down(mode)

    def __enter__(self) -> Self:
        """Enter a block that ends with :meth:`stop`."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the server."""
        self.stop()

    def postmaster_pid(self) -> int | None:
        """The process id that the cluster's lock file names, whether or not it lives."""
        return host.postmaster_pid(self.pgdata)

    # --- locks ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the start lock: nobody else starts, joins, leaves or stops meanwhile."""
        fd = self._open_lock("start.lock")
        try:
            if not _wait(lambda: _try_lock(fd, fcntl.LOCK_EX), START_SECONDS):
                raise SetupError(
                    f"Another program has been starting or stopping the database in {self.data_dir} "
                    f"for {START_SECONDS} s; end it, or choose another TOLLKEEPER_DATA_DIR."
                )
            yield
        finally:
            os.close(fd)

    def _open_lock(self, name: str) -> int:
        return os.open(self.data_dir / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _join(self) -> int:
        fd = self._open_lock("users.lock")
        # Nobody holds this one exclusively but inside the start lock, which we hold: no waiting.
        fcntl.flock(fd, fcntl.LOCK_SH)
        return fd

    def _leave(self) -> bool:
        """Give up our share of the users' lock; true if nobody else holds one."""
        if self._users_fd is not None:
            os.close(self._users_fd)
            self._users_fd = None
        fd = self._open_lock("users.lock")
        try:
            return _try_lock(fd, fcntl.LOCK_EX)
        finally:
            os.close(fd)

    # --- starting and stopping ------------------------------------------------------------------

    def _make_data_dir(self) -> None:
        root = os.geteuid() == 0
        try:
            # Root's server runs as another user, who must be able to walk through this folder.
            if not self.data_dir.exists():
                self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
                self.data_dir.chmod(0o711 if root else 0o700)
            os.close(self._open_lock("start.lock"))
        except OSError as error:
            raise SetupError(
                f"The data folder {self.data_dir} cannot be used ({error.strerror}); "
                "set TOLLKEEPER_DATA_DIR to a folder of yours."
            ) from error

    def _ensure_running(self) -> None:
        """Join a server that answers, wait for one that starts or stops, else start one."""
        deadline = time.monotonic() + START_SECONDS
        orphans_since: float | None = None
        while not self._answers():
            now = time.monotonic()
            processes = host.processes_in(self.pgdata)
            if not processes:
                self._start()
                break
            if now > deadline:
                raise SetupError(
                    f"PostgreSQL in {self.pgdata} runs (pid {min(processes)}) but does not answer; "
                    f"stop it and try again.{self._log_tail()}"
                )
            if self.postmaster_pid() not in processes:
                # The postmaster was killed. Its children end by themselves within moments; what
                # still runs after a while has nobody to commit to and only bars the restart.
                orphans_since = orphans_since or now
                if now - orphans_since > ORPHAN_SECONDS:
                    host.kill(processes)
            time.sleep(0.05)
        self._create_own_database()

    def _answers(self) -> bool:
        try:
            with psycopg.connect(_url(self.socket_dir, "postgres"), connect_timeout=2):
                return True
        except psycopg.OperationalError as error:
            # Full of connections is running, too.
            return "too many clients" in str(error)

    def _start(self) -> None:
        user = host.server_user(self.pgdata)
        bin_dir = self._bin_dir or host.packaged_binaries(self.data_dir, user)
        self._check_path_open(user)
        if not (self.pgdata / "PG_VERSION").exists():
            self._initialise(bin_dir, user)
        self._check_version(bin_dir, user)
        self._make_socket_dir(user)
        self._write_settings(user)
        self._remove_stale_locks()
        log = str(self.pgdata / "start.log")
        command = ["pg_ctl", "start", "-D", str(self.pgdata), "-s", "-w", "-t", str(START_SECONDS)]
        result = host.run(bin_dir, [*command, "-l", log], user)
        if result.returncode != 0:
            raise SetupError(
                f"PostgreSQL did not start in {self.pgdata}: {result.stderr.strip()}{self._log_tail()}"
            )

    def _remove_stale_locks(self) -> None:
        """Remove lock files whose number now belongs to some other program, or to a zombie.

        PostgreSQL would take that for a server that still runs, and refuse to start. We hold the
        start lock and found no process of PostgreSQL at work in the folder, so none does.
        """
        stale = self.postmaster_pid()
        if stale is not None and host.alive(stale):
            (self.pgdata / "postmaster.pid").unlink()
        for path in self.socket_dir.glob(".s.PGSQL.*"):
            path.unlink()

    def _initialise(self, bin_dir: Path, user: pwd.struct_passwd | None) -> None:
        """Make the cluster beside its place and move it there: half a cluster is never used."""
        new = self.data_dir / "postgres.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        if user is not None:
            os.chown(new, user.pw_uid, user.pw_gid)
        command = ["initdb", "-D", str(new), "--username", ROLE, "--encoding", "UTF8"]
        options = ["--no-locale", "--auth-local=peer", "--auth-host=reject"]
        result = host.run(bin_dir, [*command, *options], user)
        if result.returncode != 0:
            raise SetupError(
                f"PostgreSQL could not make its data folder {new}: {result.stderr.strip()}"
            )
        new.rename(self.pgdata)

    def _check_version(self, bin_dir: Path, user: pwd.struct_passwd | None) -> None:
        ours = host.run(bin_dir, ["postgres", "--version"], user).stdout
        made_by = (self.pgdata / "PG_VERSION").read_text().strip()
        if f" {made_by}." not in ours:
            raise SetupError(
                f"The data in {self.pgdata} was made by PostgreSQL {made_by}, and this is {ours.strip()}; "
                "move it over with pg_dump, or choose another TOLLKEEPER_DATA_DIR."
            )

    def _make_socket_dir(self, user: pwd.struct_passwd | None) -> None:
        owner = os.geteuid() if user is None else user.pw_uid
        self.socket_dir.mkdir(mode=0o700, exist_ok=True)
        if self.socket_dir.is_symlink():
            raise SetupError(f"{self.socket_dir} is a symbolic link; remove it.")
        if self.socket_dir.stat().st_uid not in {owner, os.geteuid()}:
            raise SetupError(f"{self.socket_dir} belongs to somebody else; remove it.")
        if user is not None:
            os.chown(self.socket_dir, user.pw_uid, user.pw_gid)
        self.socket_dir.chmod(0o700)

    def _write_settings(self, user: pwd.struct_passwd | None) -> None:
        """Write the server's three configuration files anew at each start."""
        lines = ["# Written by tollkeeper at each start. Put settings of yours into custom.conf."]
        lines += [f"{name} = {value}" for name, value in self._settings.items()]
        lines += [
            f"unix_socket_directories = '{str(self.socket_dir).replace(chr(39), chr(39) * 2)}'"
        ]
        lines += ["include_if_exists = 'custom.conf'"]
        names = {
            "root",
            pwd.getpwuid(os.geteuid()).pw_name,
            pwd.getpwuid(self.pgdata.stat().st_uid).pw_name,
        }
        files = {
            "postgresql.conf": lines,
            "pg_hba.conf": [f"local all {ROLE} peer map=tollkeeper"],
            "pg_ident.conf": [f'tollkeeper "{name}" {ROLE}' for name in sorted(names)],
        }
        for name, content in files.items():
            path = self.pgdata / name
            path.write_text("\n".join(content) + "\n")
            path.chmod(0o600)
            if user is not None:
                os.chown(path, user.pw_uid, user.pw_gid)

    def _check_path_open(self, user: pwd.struct_passwd | None) -> None:
        if user is None:
            return
        for folder in (self.data_dir, *self.data_dir.parents):
            status = folder.stat()
            if not status.st_mode & 0o001 and status.st_uid != user.pw_uid:
                raise SetupError(
                    f"PostgreSQL cannot run as root, so it runs as {user.pw_name}, who may not enter {folder}; "
                    "set TOLLKEEPER_DATA_DIR to a folder such as /var/lib/tollkeeper."
                )

    def _create_own_database(self) -> None:
        with psycopg.connect(_url(self.socket_dir, "postgres"), autocommit=True) as connection:
            found = connection.execute("select 1 from pg_database where datname = %s", [DATABASE])
            if found.fetchone() is None:
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(DATABASE)))

    def _shut_down(self, mode: StopMode) -> None:
        if not host.processes_in(self.pgdata):
            return
        user = host.server_user(self.pgdata)
        bin_dir = self._bin_dir or host.packaged_binaries(self.data_dir, user)
        command = ["pg_ctl", "stop", "-D", str(self.pgdata), "-s", "-w", "-t", str(START_SECONDS)]
        result = host.run(bin_dir, [*command, "-m", mode], user)
        if result.returncode != 0 and host.processes_in(self.pgdata):
            raise SetupError(f"PostgreSQL in {self.pgdata} did not stop: {result.stderr.strip()}")

    def _log_tail(self) -> str:
        """The last lines of the server's log, for the reader of an error; empty if there is none."""
        with contextlib.suppress(OSError):
            logs = [self.pgdata / "start.log", *(self.pgdata / "log").glob("*.log")]
            newest = max(logs, key=lambda path: path.stat().st_mtime)
            lines = newest.read_text(errors="replace").splitlines()[-8:]
            return "\n  ".join([f"\nThe end of {newest}:", *lines])
        return ""


def with_database(url: str, name: str) -> str:
    """The same server and role, another database; takes a URL or a ``key=value`` string."""
    if "://" not in url:
        return make_conninfo(url, dbname=name)
    return urlunsplit(urlsplit(url)._replace(path="/" + quote(name, safe="")))


def create_database(url: str, name: str, *, template: str | None = None) -> str:
    """Create a database on the server of ``url``, if given as a copy; return its URL.

    Raises:
        psycopg.errors.DuplicateDatabase: it exists already.
    """
    statement = sql.SQL("create database {}").format(sql.Identifier(name))
    if template is not None:
        statement += sql.SQL(" template {}").format(sql.Identifier(template))
    with psycopg.connect(with_database(url, "postgres"), autocommit=True) as connection:
        connection.execute(statement)
    return with_database(url, name)


def drop_database(url: str, name: str) -> None:
    """Drop a database if it exists, ending the connections to it."""
    statement = sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
    with psycopg.connect(with_database(url, "postgres"), autocommit=True) as connection:
        connection.execute(statement)


# --- where things are, and locks ---------------------------------------------------------------------------


def _socket_dir(data_dir: Path) -> Path:
    inside = data_dir / "run"
    if len(os.fsencode(inside / f".s.PGSQL.{PORT}")) <= SOCKET_PATH_MAX:
        return inside
    # Fixed, not TMPDIR: each program that joins must find the same folder. It is made 0700, and
    # refused where somebody else made it first.
    return Path("/tmp") / f"tollkeeper-{hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]}"  # noqa: S108


def _url(socket_dir: Path, database: str) -> str:
    return f"postgresql://{ROLE}@/{database}?host={quote(str(socket_dir), safe='')}&port={PORT}"


def _try_lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(condition: Callable[[], bool], seconds: int) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
