"""The day tables of a VOS3000 switch on a real MariaDB: any columns, pages, faults, and no writing.

The server comes from Debian's package mariadb-server; without it these tests are skipped.
"""

from __future__ import annotations

import asyncio
import csv
import io
import os
import shutil
import signal
import socket as sockets
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pymysql
import pytest

from tests.services.collecting import collecting
from tests.support import free_port, until
from tollkeeper.core.usage import Usage
from tollkeeper.gateways.files import FilesFailed
from tollkeeper.gateways.vos3000_db import Vos3000Tables, day_of
from tollkeeper.services.probe import probe
from tollkeeper.store.db import Database
from tollkeeper.wire.cdr import vos3000
from tollkeeper.wire.cdr.format import ReadOptions

START_SECONDS = 60
COLUMNS = """
    callere164 varchar(64), calleraccesse164 varchar(64), calleee164 varchar(64),
    calleeaccesse164 varchar(64), callerip varchar(64), callergatewayid varchar(64),
    calleeip varchar(64), calleegatewayid varchar(64), starttime bigint, stoptime bigint,
    calleepdd int, holdtime int, fee decimal(20,8), customeraccount varchar(64),
    customername varchar(128), callercallid varchar(255), endreason int
"""


@dataclass(frozen=True)
class Switch:
    """A database with day tables, and an account that may only read."""

    port: int
    socket: str

    def connect(self) -> Any:
        """A connection as the one who owns it."""
        return pymysql.connect(unix_socket=self.socket, user="root", autocommit=True)

    def sql(self, *statements: str) -> None:
        """Run statements in the switch's database."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE IF NOT EXISTS vos3000")
            cursor.execute("USE vos3000")
            for statement in statements:
                cursor.execute(statement)

    def table(self, name: str, *, extra: str = "", engine: str = "InnoDB") -> None:
        """A day table as some release makes it."""
        self.sql(
            f"CREATE TABLE `{name}` ({COLUMNS}{extra}, flowno bigint PRIMARY KEY) ENGINE={engine}"
        )

    def rows(self, table: str, first: int, last: int) -> None:
        """Calls of a minute, one a second."""
        self.sql(
            *(
                f"INSERT INTO `{table}` (callere164, calleee164, calleeaccesse164, callerip,"
                " callergatewayid, calleegatewayid, starttime, stoptime, holdtime, fee,"
                " customername, callercallid, endreason, flowno) VALUES"
                f" ('39061234', '442071838750', '0044442071838750', '192.0.2.1', 'in', 'out',"
                f" {1_772_366_400_000 + 1000 * n}, {1_772_366_460_000 + 1000 * n}, 60, 0.06,"
                f" 'Café, \"x\"', 'call-{table}-{n}', 0, {n})"
                for n in range(first, last + 1)
            )
        )

    def settings(self, **changes: Any) -> dict[str, Any]:
        """How it is connected to."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "user": "reader",
            "secret": "a secret",
            "database": "vos3000",
            **changes,
        }


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switch]:
    server, install = shutil.which("mariadbd"), shutil.which("mariadb-install-db")
    for name in ("/usr/sbin/mariadbd",):
        server = server or (name if Path(name).exists() else None)
    if server is None or install is None:
        pytest.skip("there is no mariadbd; install the package mariadb-server")
    folder = tmp_path_factory.mktemp("mariadb")
    socket, port = f"{folder}/s", free_port()
    user = ["--user=root"] if os.geteuid() == 0 else []
    subprocess.run(
        [install, "--no-defaults", f"--datadir={folder}/data", "--auth-root-authentication-method=normal",
         "--skip-test-db", *user],
        check=True, capture_output=True, timeout=START_SECONDS,
    )  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [server, "--no-defaults", f"--datadir={folder}/data", f"--socket={socket}", f"--port={port}",
             "--bind-address=127.0.0.1", f"--pid-file={folder}/pid", "--skip-name-resolve",
             "--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=0", *user],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        switch = Switch(port, socket)
        _wait_for(switch, process, folder / "log")
        switch.sql(
            "CREATE USER reader@'127.0.0.1' IDENTIFIED BY 'a secret'",
            "GRANT SELECT ON vos3000.* TO reader@'127.0.0.1'",
        )
        yield switch
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=START_SECONDS)


def _wait_for(switch: Switch, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, log.read_text()[-3000:]
        with sockets.socket() as probe:
            if probe.connect_ex(("127.0.0.1", switch.port)) == 0:
                return
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.05)


@pytest.fixture
def switch(mariadb: Switch) -> Switch:
    """The server with nothing in it."""
    mariadb.sql("DROP DATABASE vos3000", "CREATE DATABASE vos3000")
    return mariadb


async def test_tables_are_listed_by_day_and_nothing_else(switch: Switch) -> None:
    for name in ("e_cdr_20260302", "e_cdr_20260301"):
        switch.table(name)
    for name in ("e_cdr_20261399", "e_cdr", "e_customer", "exCdr_20260301"):
        switch.sql(f"CREATE TABLE `{name}` (a int)")
    tables = await Vos3000Tables.connect(**switch.settings())
    assert await tables.tables() == ["e_cdr_20260301", "e_cdr_20260302"]
    await tables.close()


@pytest.mark.parametrize("engine", ["InnoDB", "MyISAM"])
async def test_rows_are_read_in_pages_with_whatever_columns_there_are(
    switch: Switch, engine: str
) -> None:
    switch.table("e_cdr_20260301", engine=engine)
    switch.table(
        "e_cdr_20260302",
        engine=engine,
        extra=", sipReasonHeader text, blobby blob, stamp datetime",
    )
    switch.rows("e_cdr_20260301", 1, 5)
    switch.rows("e_cdr_20260302", 7, 7)
    switch.sql("UPDATE e_cdr_20260302 SET blobby = x'ff41', stamp = '2026-03-02 00:00:01'")
    tables = await Vos3000Tables.connect(**switch.settings())
    assert await tables.last("e_cdr_20260301") == 5
    assert await tables.last("e_cdr_20260309") == 0
    pages = [
        [row["flowno"] for row in await tables.rows("e_cdr_20260301", after=n, upto=4, limit=2)]
        for n in (0, 2, 4)
    ]
    assert pages == [[1, 2], [3, 4], []]
    (row,) = await tables.rows("e_cdr_20260302", after=0, upto=9, limit=9)
    assert (row["sipreasonheader"], row["blobby"]) == (None, "\ufffdA")
    assert (row["stamp"], row["fee"]) == ("2026-03-02 00:00:01", "0.06000000")
    assert (row["customername"], row["starttime"]) == ('Café, "x"', 1_772_366_407_000)
    await tables.close()


async def test_the_clock_is_that_of_the_server(switch: Switch) -> None:
    tables = await Vos3000Tables.connect(**switch.settings())
    tables._connection.cursor().execute("SET time_zone = '+13:00', timestamp = 1772366400")
    clock = await tables.clock()
    assert clock.at == datetime.fromisoformat("2026-03-02T01:00")
    assert clock.day == day_of("e_cdr_20260302")
    await tables.close()


async def test_a_table_that_has_no_running_number_is_refused(switch: Switch) -> None:
    switch.sql("CREATE TABLE e_cdr_20260301 (callere164 varchar(64))")
    tables = await Vos3000Tables.connect(**switch.settings())
    with pytest.raises(FilesFailed, match="no column flowno"):
        await tables.rows("e_cdr_20260301", after=0, upto=9, limit=9)
    await tables.close()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"secret": "wrong"}, "refuses this user or secret"),
        ({"database": "other"}, "refuses this user or secret"),
        ({"port": 1}, "127.0.0.1: the database failed"),
    ],
)
async def test_what_is_wrong_is_told(switch: Switch, change: dict[str, Any], text: str) -> None:
    with pytest.raises(FilesFailed, match=text):
        await Vos3000Tables.connect(**switch.settings(**change))


async def test_a_connection_that_is_lost_is_told(switch: Switch) -> None:
    tables = await Vos3000Tables.connect(**switch.settings())
    switch.sql(f"KILL {tables._connection.thread_id()}")
    with pytest.raises(FilesFailed):
        await tables.tables()
    await tables.close()
    with pytest.raises(FilesFailed):
        await tables.tables()


async def test_closing_wakes_who_waits_for_an_answer(switch: Switch) -> None:
    switch.table("e_cdr_20260301")
    tables = await Vos3000Tables.connect(**switch.settings())
    with switch.connect() as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLES vos3000.e_cdr_20260301 WRITE")
        waiting = asyncio.create_task(tables.last("e_cdr_20260301"))
        query = "SELECT count(*) FROM information_schema.processlist WHERE state LIKE '%lock%'"

        def waits() -> bool:
            cursor.execute(query)
            return bool(cursor.fetchone()[0])

        await until(waits)
        await tables.close()
        with pytest.raises(FilesFailed):
            await asyncio.wait_for(waiting, 10)


async def test_a_switch_is_collected_from_until_all_is_loaded(
    switch: Switch, database_url: str, tmp_path: Path
) -> None:
    """Two days, in pages, while rows are written; every row is loaded once and read by the codec."""
    today = datetime.now().astimezone().date()
    day1, day2 = (f"e_cdr_{today - timedelta(days=n):%Y%m%d}" for n in (1, 0))
    switch.table(day1)
    switch.table(day2, extra=", transactionid varchar(64)")
    switch.rows(day1, 1, 25)
    database = Database(database_url)
    await database.open()
    try:
        settings = switch.settings()
        at = await collecting(
            database,
            tmp_path / "spool",
            kind="mysql",
            format_="vos3000",
            secret=settings.pop("secret"),
            since=(today - timedelta(days=1)).isoformat(),
            page=10,
            settle_seconds=0,
            late_hours=240,
            **settings,
        )
        shown = await probe(database, at.source, at.clock())
        errors = [(await at.round()).error]
        switch.rows(day1, 26, 27)
        switch.rows(day2, 1, 12)
        errors += [(await at.round()).error for _ in range(2)]
    finally:
        await database.close()
    assert shown == [(day1, 25, "not read"), (day2, 0, "not read")]
    assert errors == ["", "", ""]
    calls = [
        row["callercallid"]
        for _, data in at.load.loaded
        for row in csv.DictReader(io.StringIO(data.decode()))
    ]
    assert calls == [f"call-{day1}-{n}" for n in range(1, 28)] + [
        f"call-{day2}-{n}" for n in range(1, 13)
    ]
    first = [
        item
        for item in vos3000.read(io.BytesIO(at.load.loaded[0][1]), ReadOptions())
        if isinstance(item, Usage)
    ]
    assert [(r.leg, r.call_id, r.duration_ms, r.trunk_in) for r in first][:2] == [
        ("1", f"call-{day1}-1", 60_000, "in"),
        ("2", f"call-{day1}-2", 60_000, "in"),
    ]
