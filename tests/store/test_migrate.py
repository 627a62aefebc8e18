"""Migrations run in order, once, by one process at a time, and never over a changed past."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tollkeeper.errors import SetupError
from tollkeeper.store.migrate import drift, migrate, pending


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "0001_one.sql").write_text("create table one (n int); insert into one values (1);")
    (tmp_path / "0002_two.sql").write_text("create table two (n int);")
    return tmp_path


def tables(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("select relname from pg_class where relkind in ('r', 'p')")
        return {name for (name,) in rows if name in {"one", "two", "three", "schema_migration"}}


def test_what_is_pending_is_applied_in_order_and_only_once(
    empty_database_url: str, source: Path
) -> None:
    url = empty_database_url
    assert pending(url, source=source) == ["0001_one", "0002_two"]
    assert migrate(url, source=source) == ["0001_one", "0002_two"]
    assert pending(url, source=source) == []
    assert migrate(url, source=source) == []
    assert tables(url) == {"one", "two", "schema_migration"}


def test_looking_changes_nothing(empty_database_url: str, source: Path) -> None:
    pending(empty_database_url, source=source)
    drift(empty_database_url, source=source)
    assert tables(empty_database_url) == set()


def test_a_file_changed_after_it_was_applied_is_drift(
    empty_database_url: str, source: Path
) -> None:
    migrate(empty_database_url, source=source)
    assert drift(empty_database_url, source=source) == []
    (source / "0001_one.sql").write_text("create table one (n bigint);")
    (source / "0003_three.sql").write_text("create table three (n int);")
    (problem,) = drift(empty_database_url, source=source)
    assert "0001_one was changed after it was applied" in problem
    with pytest.raises(SetupError, match="0001_one was changed"):
        migrate(empty_database_url, source=source)
    assert "three" not in tables(empty_database_url)


def test_a_database_of_a_newer_release_is_refused(empty_database_url: str, source: Path) -> None:
    migrate(empty_database_url, source=source)
    (source / "0002_two.sql").unlink()
    with pytest.raises(SetupError, match=r"0002_two.*newer release"):
        migrate(empty_database_url, source=source)


def test_a_migration_that_fails_leaves_nothing_of_itself_and_all_before_it(
    empty_database_url: str, source: Path
) -> None:
    broken = source / "0003_three.sql"
    broken.write_text("create table three (n int); select 1 / 0;")
    with pytest.raises(SetupError, match=r"0003_three failed: division by zero"):
        migrate(empty_database_url, source=source)
    assert tables(empty_database_url) == {"one", "two", "schema_migration"}
    broken.write_text("create table three (n int);")
    assert migrate(empty_database_url, source=source) == ["0003_three"]


def test_a_migration_gives_up_soon_on_a_locked_table(
    empty_database_url: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(empty_database_url, source=source)
    (source / "0003_three.sql").write_text("alter table one add column m int;")
    monkeypatch.setattr("tollkeeper.store.migrate.LOCK_TIMEOUT", "50ms")
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("lock table one")
        with pytest.raises(SetupError, match="lock timeout"):
            migrate(empty_database_url, source=source)
    assert migrate(empty_database_url, source=source) == ["0003_three"]


def test_two_processes_at_once_apply_each_migration_once(
    empty_database_url: str, source: Path
) -> None:
    # Slow enough that the second process arrives while the first works.
    (source / "0003_three.sql").write_text("select pg_sleep(0.5); create table three (n int);")
    code = (
        "import json, sys; from pathlib import Path; from tollkeeper.store.migrate import migrate;"
        "print(json.dumps(migrate(sys.argv[1], source=Path(sys.argv[2]))))"
    )
    command = [sys.executable, "-c", code, empty_database_url, str(source)]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    applied = []
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        applied += json.loads(output)
    assert sorted(applied) == ["0001_one", "0002_two", "0003_three"]


def test_two_files_of_one_number_are_refused(empty_database_url: str, source: Path) -> None:
    (source / "0002_again.sql").write_text("select 1;")
    with pytest.raises(SetupError, match="same number"):
        pending(empty_database_url, source=source)


def test_a_file_with_a_wrong_name_is_refused(empty_database_url: str, source: Path) -> None:
    (source / "3-three.sql").write_text("select 1;")
    with pytest.raises(SetupError, match=r"3-three\.sql is not named like a migration"):
        pending(empty_database_url, source=source)


def test_a_database_that_cannot_be_reached_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be reached") as caught:
        migrate(f"postgresql://someone:secret@/x?host={tmp_path}")
    assert "secret" not in str(caught.value)


def test_the_day_partitions_are_made_ahead_at_each_run(
    empty_database_url: str, source: Path
) -> None:
    (source / "0003_three.sql").write_text(
        "create table asked (from_day date, days int);"
        "create function ensure_partitions(from_day date, days int) returns void language sql"
        " as 'insert into asked values (from_day, days)';"
    )
    migrate(empty_database_url, source=source)
    migrate(empty_database_url, source=source)
    with psycopg.connect(empty_database_url) as connection:
        rows = connection.execute(
            "select (now() at time zone 'UTC')::date - from_day, days from asked"
        ).fetchall()
    assert len(rows) == 2
    # The clock may have passed midnight since.
    assert set(rows) <= {(1, 14), (2, 14)}


def test_the_migrations_of_this_release_apply_and_have_not_drifted(
    empty_database_url: str,
) -> None:
    todo = pending(empty_database_url)
    assert todo
    assert migrate(empty_database_url) == todo
    assert drift(empty_database_url) == []
    assert migrate(empty_database_url) == []
