"""The doctor: each fault of a set-up is found, and each finding says how to mend it."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.cli.conftest import Command
from tollkeeper.cli.serve import bind
from tollkeeper.services.doctor import Check, Level, check_database, check_machine
from tollkeeper.settings import Settings, load_settings
from tollkeeper.store import doctor as store
from tollkeeper.store.embedded import drop_database, with_database


def level_of(checks: list[Check], what: str) -> Level:
    """The level of the one check of this name."""
    (found,) = [check for check in checks if check.what == what]
    return found.level


@pytest.fixture
def settings(on_database: str, tmp_path: Path) -> Settings:
    """The settings on the test's database, with a folder of their own and a free port."""
    return load_settings(data_dir=tmp_path, port=0)


def execute(url: str, *statements: str) -> None:
    """Change the database behind the program's back."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


async def test_a_good_set_up_has_no_failure_but_durability_of_the_test_server(
    settings: Settings, on_database: str
) -> None:
    """The test server runs without fsync, which is exactly what a doctor must not let pass."""
    checks = [*check_machine(settings), *await check_database(on_database, settings)]
    failed = [check for check in checks if check.level is Level.FAIL]
    assert [check.what for check in failed] == ["durability"]
    assert "fsync off" in failed[0].found
    assert "switch fsync" in failed[0].mend
    assert all(check.mend for check in checks if check.level is not Level.OK)
    assert not any(check.mend for check in checks if check.level is Level.OK)
    assert level_of(checks, "partitions") is Level.OK
    assert level_of(checks, "clocks") is Level.OK
    assert level_of(checks, "schema") is Level.OK


async def test_missing_parties_plans_wallets_and_keys_are_named(
    settings: Settings, on_database: str, tollkeeper: Command
) -> None:
    """What would make every call fail is said before the first call."""
    empty = await check_database(on_database, settings)
    assert level_of(empty, "API keys") is Level.WARN
    execute(
        on_database,
        "INSERT INTO party (code, name, kind) VALUES ('acme', 'Acme', 'customer'), ('op', 'Op', 'operator')",
        "INSERT INTO rate_card (code, name, currency, active_version, last_version) VALUES ('SOLD', 'S', 'USD', 1, 1)",
        "INSERT INTO rate_card (code, name, currency) VALUES ('EMPTY', 'E', 'USD')",
        "INSERT INTO rate_plan (code, name) VALUES ('gold', 'Gold')",
        "INSERT INTO rate_plan_card (plan_id, position, card_id) "
        "SELECT p.id, 1, c.id FROM rate_plan p, rate_card c WHERE c.code = 'EMPTY'",
        "INSERT INTO api_key (name, hash, scopes) VALUES ('k', 'x', '{manage}')",
    )
    found = {check.what: check for check in await check_database(on_database, settings)}
    assert found["API keys"].level is Level.OK
    assert found["parties without a plan"].found == "acme"
    assert found["parties without a wallet"].found == "acme"
    assert found["rate cards in no plan"].found == "SOLD"
    assert found["plans' cards without prices"].found == "EMPTY"


async def test_a_database_without_the_schema_is_to_be_migrated(
    settings: Settings, empty_database_url: str
) -> None:
    """Nothing behind the schema is looked at until it is there."""
    checks = await check_database(empty_database_url, settings)
    assert level_of(checks, "migrations") is Level.WARN
    assert "partitions" not in {check.what for check in checks}


async def test_a_changed_migration_is_drift(settings: Settings, on_database: str) -> None:
    """The database was made by something else than this release."""
    execute(on_database, "UPDATE schema_migration SET sha256 = 'other' WHERE version = 1")
    assert level_of(await check_database(on_database, settings), "schema") is Level.FAIL


async def test_partitions_that_run_out_fail(settings: Settings, on_database: str) -> None:
    """Tomorrow's charges would have nowhere to go."""
    execute(
        on_database,
        """DO $$ DECLARE name text; BEGIN
           FOR name IN SELECT child.relname FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
                       WHERE child.relname ~ '^entry_[0-9]{8}$'
                         AND to_date(right(child.relname, 8), 'YYYYMMDD') > (now() AT TIME ZONE 'UTC')::date
           LOOP EXECUTE format('DROP TABLE %I', name); END LOOP; END $$""",
    )
    assert level_of(await check_database(on_database, settings), "partitions") is Level.FAIL


async def test_a_database_that_is_not_utf8_fails(settings: Settings, on_database: str) -> None:
    """Names of destinations would not fit in."""
    name = "doctor_latin1"
    execute(
        on_database,
        f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'",
    )
    url = with_database(on_database, name)
    try:
        assert level_of(await check_database(url, settings), "database encoding") is Level.FAIL
    finally:
        drop_database(on_database, name)


async def test_an_unreachable_database_is_one_failure_with_a_mend(settings: Settings) -> None:
    """And no exception."""
    (check,) = await check_database("postgresql://nobody@127.0.0.1:1/none", settings)
    assert check.level is Level.FAIL
    assert "TOLLKEEPER_DATABASE_URL" in check.mend


async def test_clocks_that_differ_are_found(
    settings: Settings, on_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half an hour apart, sessions would expire at once or never."""
    read = store.read_clock

    async def late(connection: store.Connection) -> object:
        moment = await read(connection)
        return moment.replace(year=moment.year - 1)

    monkeypatch.setattr(store, "read_clock", late)
    assert level_of(await check_database(on_database, settings), "clocks") is Level.FAIL


def test_the_disk_is_looked_at_only_where_the_private_database_lives(settings: Settings) -> None:
    """The disk of a given database is elsewhere."""
    private = settings.model_copy(update={"database_url": None})
    assert [c for c in check_machine(settings) if c.what == "free disk"] == []
    (disk,) = [c for c in check_machine(private) if c.what == "free disk"]
    assert disk.found.endswith(f"GiB in {settings.data_dir}")


def test_a_taken_port_is_a_warning(settings: Settings) -> None:
    """It may be Tollkeeper itself that serves there."""
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        checks = check_machine(settings.model_copy(update={"port": port}))
    assert level_of(checks, "port") is Level.WARN


async def test_too_few_connections_for_all_workers_are_a_warning(
    settings: Settings, on_database: str
) -> None:
    """Each worker opens a pool and a lane."""
    many = settings.model_copy(update={"workers": 64, "pool_max": 100})
    assert level_of(await check_database(on_database, many), "connections") is Level.WARN


def test_the_command_ends_with_1_on_a_failure_and_shows_every_line(
    tollkeeper: Command, on_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each line begins with its level."""
    ran = tollkeeper("doctor")
    assert ran.code == 1
    lines = ran.out.splitlines()
    assert any(line.startswith("FAIL durability") for line in lines)
    assert any(line.strip().startswith("mend: switch fsync") for line in lines)
    assert lines[-1].startswith("1 failed, ")
    monkeypatch.setenv("TOLLKEEPER_PORT", "http")
    wrong = tollkeeper("doctor")
    assert wrong.code == 1
    assert "FAIL settings" in wrong.out


def test_the_private_database_that_cannot_run_is_a_failure(
    tollkeeper: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its folder is a file here."""
    place = tmp_path / "data"
    place.write_text("not a folder")
    monkeypatch.setenv("TOLLKEEPER_DATA_DIR", str(place))
    ran = tollkeeper("doctor")
    assert ran.code == 1
    assert "FAIL private database" in ran.out
    assert "Traceback" not in ran.err
