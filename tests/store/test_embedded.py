"""The private PostgreSQL starts, is shared, survives what happens to it, and stops."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tollkeeper.errors import SetupError
from tollkeeper.store import embedded_host
from tollkeeper.store.embedded import EmbeddedPostgres, create_database, drop_database

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root's server runs as another user")

PROGRAM = """
    import sys
    from pathlib import Path
    from tollkeeper.store.embedded import EmbeddedPostgres
    bin_dir = Path(sys.argv[2]) if sys.argv[2] else None
    server = EmbeddedPostgres.start(Path(sys.argv[1]), bin_dir=bin_dir)
    print(server.postmaster_pid(), flush=True)
    sys.stdin.read()
"""


class Program:
    """Another program that uses the server of ``data_dir`` until told to end."""

    def __init__(self, data_dir: Path, bin_dir: Path | None) -> None:
        command = [
            sys.executable,
            "-c",
            textwrap.dedent(PROGRAM),
            str(data_dir),
            str(bin_dir or ""),
        ]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def postmaster_pid(self) -> int:
        """The server's process id, as soon as the program has joined it."""
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def end(self, number: int | None = None) -> int:
        """End it in good order, or by a signal; return its exit code."""
        if number is not None:
            self.process.send_signal(number)
            self.process.wait(60)
        if not self.process.stdout.closed:
            self.process.communicate(timeout=60)
        return self.process.returncode


@pytest.fixture
def data_dir(make_data_dir: Callable[[], Path]) -> Path:
    return make_data_dir()


@pytest.fixture
def start(data_dir: Path, pg_bin_dir: Path | None) -> Iterator[Callable[[], EmbeddedPostgres]]:
    servers: list[EmbeddedPostgres] = []

    def start() -> EmbeddedPostgres:
        servers.append(EmbeddedPostgres.start(data_dir, bin_dir=pg_bin_dir))
        return servers[-1]

    yield start
    for server in servers:
        server.stop("immediate", force=True)


@pytest.fixture
def start_program(data_dir: Path, pg_bin_dir: Path | None) -> Iterator[Callable[[], Program]]:
    programs: list[Program] = []

    def start() -> Program:
        programs.append(Program(data_dir, pg_bin_dir))
        return programs[-1]

    yield start
    for program in programs:
        program.end()


def write_row(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("create table if not exists kept (n int)")
        connection.execute("insert into kept values (1)")


def rows(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("select count(*) from kept").fetchone()
        assert row is not None
        return row[0]


def runs(server: EmbeddedPostgres) -> bool:
    return bool(embedded_host.processes_in(server.pgdata))


def wait_until(condition: Callable[[], bool], seconds: int = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_a_started_server_is_durable_and_has_no_tcp_port(
    start: Callable[[], EmbeddedPostgres],
) -> None:
    with psycopg.connect(start().url) as connection:
        for name, expected in {
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "listen_addresses": "",
            "max_connections": "100",
            "shared_buffers": "256MB",
            "TimeZone": "UTC",
        }.items():
            row = connection.execute("select current_setting(%s)", [name]).fetchone()
            assert row == (expected,), name


def test_a_stopped_server_is_gone_and_its_data_is_there_after_the_next_start(
    start: Callable[[], EmbeddedPostgres],
) -> None:
    server = start()
    write_row(server.url)
    server.stop()
    assert not runs(server)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.url)
    assert rows(start().url) == 1


def test_stopping_twice_does_no_harm(start: Callable[[], EmbeddedPostgres]) -> None:
    first, second = start(), start()
    first.stop()
    first.stop()
    assert runs(second)
    second.stop()
    assert not runs(second)


def test_committed_data_survives_the_kill_of_the_postmaster(
    start: Callable[[], EmbeddedPostgres],
) -> None:
    server = start()
    write_row(server.url)
    killed = server.postmaster_pid()
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    server.ensure_running()
    assert server.postmaster_pid() != killed
    assert rows(server.url) == 1


def test_committed_data_survives_an_immediate_stop(start: Callable[[], EmbeddedPostgres]) -> None:
    server = start()
    write_row(server.url)
    server.stop("immediate")
    assert rows(start().url) == 1


def test_a_lock_file_that_names_a_strange_process_does_not_bar_the_start(
    start: Callable[[], EmbeddedPostgres],
) -> None:
    """After a reboot the old number may belong to anything; here it is this very test's."""
    server = start()
    write_row(server.url)
    lock_file = server.pgdata / "postmaster.pid"
    _, _, rest = lock_file.read_text().partition("\n")
    server.stop()
    lock_file.write_text(f"{os.getpid()}\n{rest}")
    assert rows(start().url) == 1


def test_a_second_program_joins_the_server_and_the_last_one_out_stops_it(
    start: Callable[[], EmbeddedPostgres], start_program: Callable[[], Program]
) -> None:
    server = start()
    program = start_program()
    assert program.postmaster_pid() == server.postmaster_pid()
    server.stop()
    assert runs(server)
    assert program.end() == 0
    assert not runs(server)


def test_programs_that_start_at_once_share_one_server(
    start_program: Callable[[], Program],
) -> None:
    programs = [start_program() for _ in range(3)]
    assert len({program.postmaster_pid() for program in programs}) == 1


def test_a_terminated_program_stops_its_server(
    start: Callable[[], EmbeddedPostgres], start_program: Callable[[], Program], data_dir: Path
) -> None:
    program = start_program()
    assert program.postmaster_pid() > 0
    assert program.end(signal.SIGTERM) == 128 + signal.SIGTERM
    assert not embedded_host.processes_in(data_dir / "postgres")


def test_the_server_of_a_killed_program_is_joined_and_then_stopped(
    start: Callable[[], EmbeddedPostgres], start_program: Callable[[], Program]
) -> None:
    program = start_program()
    orphan = program.postmaster_pid()
    program.end(signal.SIGKILL)
    server = start()
    assert server.postmaster_pid() == orphan
    server.stop()
    assert not runs(server)


def test_program_and_postmaster_killed_at_once_leave_a_folder_that_starts(
    start: Callable[[], EmbeddedPostgres], start_program: Callable[[], Program]
) -> None:
    program = start_program()
    killed = program.postmaster_pid()
    program.process.send_signal(signal.SIGKILL)
    os.kill(killed, signal.SIGKILL)
    server = start()
    assert server.postmaster_pid() != killed
    with psycopg.connect(server.url) as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_half_a_cluster_is_thrown_away(
    start: Callable[[], EmbeddedPostgres], data_dir: Path
) -> None:
    """A program that dies while it makes the cluster leaves ``postgres.new``."""
    (data_dir / "postgres.new").mkdir()
    (data_dir / "postgres.new" / "PG_VERSION").write_text("18\n")
    with psycopg.connect(start().url) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    assert not (data_dir / "postgres.new").exists()


def test_a_data_folder_with_a_long_path_has_its_socket_elsewhere(
    data_dir: Path, pg_bin_dir: Path | None
) -> None:
    long = data_dir / ("x" * 60) / ("y" * 60)
    long.mkdir(parents=True)
    with EmbeddedPostgres.start(long, bin_dir=pg_bin_dir) as server:
        assert not server.socket_dir.is_relative_to(data_dir)
        with psycopg.connect(server.url) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
    shutil.rmtree(server.socket_dir)


def test_settings_of_the_user_in_custom_conf_hold(
    start: Callable[[], EmbeddedPostgres],
) -> None:
    server = start()
    server.stop()
    (server.pgdata / "custom.conf").write_text("work_mem = '7MB'\n")
    (server.pgdata / "custom.conf").chmod(0o644)
    with psycopg.connect(start().url) as connection:
        assert connection.execute("show work_mem").fetchone() == ("7MB",)


def test_data_of_another_release_is_refused_with_a_clear_sentence(
    start: Callable[[], EmbeddedPostgres],
) -> None:
    server = start()
    server.stop()
    (server.pgdata / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(SetupError, match=r"made by PostgreSQL 9\.6"):
        start()


def test_a_data_folder_that_is_a_file_is_refused_with_a_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="TOLLKEEPER_DATA_DIR"):
        EmbeddedPostgres.start(tmp_path / "file")


def test_a_server_that_does_not_start_says_why(
    start: Callable[[], EmbeddedPostgres],
) -> None:
    server = start()
    server.stop()
    (server.pgdata / "custom.conf").write_text("nonsense = 1\n")
    with pytest.raises(SetupError, match="nonsense"):
        start()


def test_databases_are_made_from_a_template_and_dropped_while_in_use(
    start: Callable[[], EmbeddedPostgres],
) -> None:
    url = start().url
    write_row(create_database(url, "original"))
    copy = create_database(url, "a copy", template="original")
    assert rows(copy) == 1
    with psycopg.connect(copy) as connection:
        drop_database(url, "a copy")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
    drop_database(url, "a copy")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(copy)


@as_root
def test_other_users_of_the_machine_cannot_connect(
    start: Callable[[], EmbeddedPostgres], data_dir: Path, pg_bin_dir: Path | None
) -> None:
    server = start()
    nobody = pwd.getpwnam("nobody")
    bin_dir = pg_bin_dir or embedded_host.packaged_binaries(data_dir, nobody)
    result = embedded_host.run(bin_dir, ["psql", server.url, "-c", "select 1"], nobody)
    assert result.returncode != 0
    assert "Permission denied" in result.stderr
    # Not even where the socket's folder is open: the server asks the kernel who is there.
    server.socket_dir.chmod(0o777)
    for socket in server.socket_dir.glob(".s.PGSQL.*"):
        socket.chmod(0o777)
    result = embedded_host.run(bin_dir, ["psql", server.url, "-c", "select 1"], nobody)
    assert result.returncode != 0
    assert "Peer authentication failed" in result.stderr


@as_root
def test_a_folder_closed_to_the_database_user_is_refused_with_a_clear_sentence(
    data_dir: Path, pg_bin_dir: Path | None
) -> None:
    data_dir.chmod(0o700)
    with pytest.raises(SetupError, match="may not enter"):
        EmbeddedPostgres.start(data_dir / "inner", bin_dir=pg_bin_dir)


@as_root
def test_binaries_in_a_folder_closed_to_the_database_user_are_copied(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root often works in /root, which no other user may enter."""
    real_run = embedded_host.run
    original = embedded_host.packaged_binaries(data_dir, None)

    def closed(bin_dir, command, user):  # type: ignore[no-untyped-def]
        if bin_dir == original:
            raise PermissionError(bin_dir)
        return real_run(bin_dir, command, user)

    monkeypatch.setattr(embedded_host, "run", closed)
    with EmbeddedPostgres.start(data_dir) as server:
        with psycopg.connect(server.url) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
        assert list((data_dir / "binaries").iterdir())
