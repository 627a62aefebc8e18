"""Trunks are kept, changed and refused with one sentence."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.services.cdr_world import Call, CdrWorld, load, write_file
from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services import trunks
from tollkeeper.services.trunks import TrunkEntry
from tollkeeper.store.db import Database


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database with the customer acme."""
    with CdrWorld(database_url):
        made = Database(database_url, size=2)
        await made.open()
        try:
            yield made
        finally:
            await made.close()


NEW = TrunkEntry(
    "main", "in", "acme", names=("A", "B"), addresses=("192.0.2.9/24",), tech_prefix="77"
)


async def test_a_trunk_is_kept_as_it_was_given_and_can_be_changed(database: Database) -> None:
    """Addresses in one form, everything else as it is."""
    made = await trunks.create_trunk(database, NEW, actor="test")
    assert made == replace(NEW, addresses=("192.0.2.0/24",), id=made.id)
    assert await trunks.get_trunk(database, "main") == made
    changed = await trunks.change_trunk(
        database, "main", {"names": (), "account": "acc"}, actor="test"
    )
    assert (changed.names, changed.account, changed.tech_prefix) == ((), "acc", "77")
    assert [one.code for one in await trunks.list_trunks(database, after="b")] == [
        "main",
        "vendor-out",
    ]
    await trunks.delete_trunk(database, "main", actor="test")
    with pytest.raises(NotFound):
        await trunks.get_trunk(database, "main")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"names": (), "addresses": (), "tech_prefix": ""}, "names"),
        ({"addresses": ("acme.example",)}, "addresses"),
        ({"tech_prefix": "7a"}, "tech_prefix"),
        ({"party": "nobody"}, "party"),
        ({"direction": "up"}, "direction"),
        ({"switch": "a b"}, "switch"),
        ({"names": ("x\n",)}, "names"),
    ],
)
async def test_what_is_wrong_is_said(
    database: Database, wrong: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await trunks.create_trunk(database, replace(NEW, **wrong), actor="test")  # type: ignore[arg-type]
    assert refused.value.field == field


async def test_a_code_is_given_once_and_unknown_fields_are_refused(database: Database) -> None:
    await trunks.create_trunk(database, NEW, actor="test")
    with pytest.raises(Conflict):
        await trunks.create_trunk(database, NEW, actor="test")
    with pytest.raises(InvalidInput, match="cannot be changed"):
        await trunks.change_trunk(database, "main", {"direction": "out"}, actor="test")
    with pytest.raises(NotFound):
        await trunks.change_trunk(database, "none", {"account": "x"}, actor="test")


async def test_a_tech_prefix_tells_customers_behind_one_address_apart(
    database_url: str, tmp_path: Path
) -> None:
    """And is removed from the number that is priced."""
    with CdrWorld(database_url) as world:
        other = world.customer("other")
        world.sql("UPDATE trunk SET names = '{shared}', tech_prefix = '11' WHERE code = 'acme-in'")
        world.trunk("other-in", other, names=["shared"], tech_prefix="1199")
        calls = [
            Call("c1", trunk="shared", called="11442071838750"),
            Call("c2", trunk="shared", called="1199442071838750"),
            Call("c3", trunk="shared", called="442071838750"),
        ]
        report = await load(database_url, write_file(tmp_path / "a.csv", calls))
        assert (report.file.rated, report.file.quarantined) == (2, 1)
        rows = world.sql("SELECT call_id, customer_id, called FROM usage ORDER BY call_id")
        assert [(row["call_id"], row["customer_id"]) for row in rows] == [
            ("c1", world.acme.id), ("c2", other.id),
        ]  # fmt: skip
        assert rows[1]["called"] == "442071838750"
        assert world.one("SELECT reason FROM cdr_quarantine") == "unknown_customer"
