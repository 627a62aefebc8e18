"""What all tests share: one PostgreSQL for the run, and a fresh migrated database for each test.

TOLLKEEPER_TEST_PG_BIN names the binaries of another PostgreSQL to run on, for instance
``/usr/lib/postgresql/15/bin``. Each worker of pytest-xdist starts a server of its own.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from tollkeeper.store.embedded import (
    EmbeddedPostgres,
    create_database,
    drop_database,
    with_database,
)
from tollkeeper.store.migrate import migrate

# The machine that runs the tests may be slow or busy; a slow example is no fault of the code.
hypothesis.settings.register_profile("default", deadline=None, print_blob=True)
hypothesis.settings.register_profile("thorough", deadline=None, print_blob=True, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

MEMORY = Path("/dev/shm")
MEMORY_NEEDED_BYTES = 4 * 2**30
TEMPLATE = "template_migrated"
# The test server loses its data at the end anyway, so it need not wait for the disk.
QUICK = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "128MB",
}


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> None:
    """The developer's own settings do not reach the tests."""
    for name in list(os.environ):
        if name.startswith("TOLLKEEPER_") and not name.startswith(
            ("TOLLKEEPER_TEST_", "TOLLKEEPER_SHARED_")
        ):
            del os.environ[name]


@pytest.fixture(scope="session")
def pg_bin_dir() -> Path | None:
    """The binaries to test with; none means the packaged ones."""
    given = os.environ.get("TOLLKEEPER_TEST_PG_BIN")
    return Path(given) if given else None


@pytest.fixture(scope="session")
def make_data_dir() -> Iterator[Callable[..., Path]]:
    """Make folders for servers, removed at the end.

    pytest's own temporary folders will not do: root's are closed to the user that PostgreSQL
    runs as, and their paths are long. A folder in memory makes cloning a database ten times as
    fast as one on the disk.
    """
    made: list[Path] = []

    def make(*, in_memory: bool = False) -> Path:
        place = MEMORY if in_memory and _has_room(MEMORY) else None
        folder = Path(tempfile.mkdtemp(prefix="tollkeeper-test-", dir=place))
        folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
        made.append(folder)
        return folder

    yield make
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)


def _has_room(place: Path) -> bool:
    return place.is_dir() and shutil.disk_usage(place).free > MEMORY_NEEDED_BYTES


@pytest.fixture(scope="session")
def postgres_server(
    make_data_dir: Callable[..., Path], pg_bin_dir: Path | None
) -> Iterator[EmbeddedPostgres]:
    """The PostgreSQL of this test run, quick and not durable."""
    server = EmbeddedPostgres.start(
        make_data_dir(in_memory=True), bin_dir=pg_bin_dir, settings=QUICK
    )
    yield server
    server.stop("immediate")


@pytest.fixture
def durable_server(
    make_data_dir: Callable[..., Path], pg_bin_dir: Path | None
) -> Iterator[EmbeddedPostgres]:
    """A server of this test alone, set as in production: for tests that crash it."""
    server = EmbeddedPostgres.start(make_data_dir(), bin_dir=pg_bin_dir)
    yield server
    server.stop("immediate", force=True)


@pytest.fixture(scope="session")
def migrated_template(postgres_server: EmbeddedPostgres) -> str:
    """The name of a migrated database that nobody is connected to."""
    migrate(create_database(postgres_server.url, TEMPLATE))
    return TEMPLATE


@pytest.fixture(scope="session")
def _names() -> Iterator[str]:
    return (f"test_{number}" for number in itertools.count(1))


@pytest.fixture
def empty_database_url(postgres_server: EmbeddedPostgres, _names: Iterator[str]) -> Iterator[str]:
    """A database of this test alone, with nothing in it."""
    name = next(_names)
    yield create_database(postgres_server.url, name)
    drop_database(postgres_server.url, name)


@pytest.fixture
def database_url(
    postgres_server: EmbeddedPostgres, migrated_template: str, _names: Iterator[str]
) -> Iterator[str]:
    """A migrated database of this test alone."""
    name = next(_names)
    create_database(postgres_server.url, name, template=migrated_template)
    yield with_database(postgres_server.url, name)
    drop_database(postgres_server.url, name)
