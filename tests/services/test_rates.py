"""Rate cards: what an import stores, what it changes, and what a lookup finds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tests.services.rate_cards import (
    FIRST,
    LATER,
    NOW,
    activate,
    everything,
    load,
    load_active,
    price_of,
    rows_in,
    with_card,
)
from tollkeeper.core.money import Rounding
from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services import rates
from tollkeeper.store.db import Database
from tollkeeper.store.rates import active_versions, load_card
from tollkeeper.wire.ratesheet import SheetOptions


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with with_card(database_url) as opened:
        yield opened


# --- cards ---------------------------------------------------------------------------------------


async def test_a_card_is_created_once(database: Database) -> None:
    with pytest.raises(Conflict) as caught:
        await rates.create_card(database, code="retail", currency="EUR", actor="test")
    assert caught.value.code == "card_exists"
    (card,) = await rates.list_cards(database)
    assert (card.code, card.name, card.currency, card.active_version) == (
        "retail",
        "retail",
        "USD",
        None,
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("code", "no spaces"),
        ("code", ""),
        ("currency", "usd"),
        ("side", "both"),
        ("service", "Voice!"),
        ("decimals", 9),
        ("decimals", -1),
        ("rounding", "bankers"),
        ("name", "a\x00b"),
    ],
)
async def test_a_card_with_a_wrong_field_is_refused_by_name(
    database: Database, field: str, value: object
) -> None:
    given = {"code": "x", "currency": "USD", "actor": "test", field: value}
    with pytest.raises(InvalidInput) as caught:
        await rates.create_card(database, **given)  # type: ignore[arg-type]
    assert caught.value.field == field
    assert len(await rates.list_cards(database)) == 1


async def test_what_does_not_exist_is_not_found(database: Database) -> None:
    with pytest.raises(NotFound, match='no rate card "nosuch"'):
        await load(database, FIRST, card="nosuch")
    with pytest.raises(NotFound, match="has no version 7"):
        await activate(database, 7)
    with pytest.raises(NotFound):
        await rates.refusals(database, "retail", 7)
    with pytest.raises(NotFound):
        await rates.versions(database, "nosuch")


# --- import --------------------------------------------------------------------------------------


async def test_an_import_is_a_draft_and_prices_nothing(database: Database) -> None:
    report = await load(database, FIRST, file_name="first.csv")
    assert (report.version, report.base_version, report.row_count) == (1, None, 3)
    assert report.counts["new"] == 3
    (version,) = await rates.versions(database, "retail")
    assert (version.status, version.file_name, version.created_by) == ("draft", "first.csv", "test")
    with pytest.raises(NotFound) as caught:
        await price_of(database, "442071838750")
    assert caught.value.code == "unknown_prefix"


async def test_an_active_version_prices_by_the_longest_prefix(database: Database) -> None:
    await load_active(database, FIRST)
    assert await price_of(database, "442071838750") == Decimal("0.02")
    found = await rates.lookup(database, "+44 7700 900123", card="retail", now=NOW)
    assert (found.chosen.row.prefix, found.number) == ("447", "447700900123")
    assert found.prices == (Decimal("0.05"), Decimal("0.15"))
    with pytest.raises(NotFound):
        await price_of(database, "9991234567")


async def test_every_row_in_is_stored_refused_repeated_or_closing(
    database: Database, database_url: str
) -> None:
    sheet = b"""prefix,destination,rate,effective
44,United Kingdom,0.02,
44,United Kingdom,0.02,
49,Germany,cheap,
49;50,Two codes,0.03,
33,France,0.01,2026-13-40
39,Italy,-1,
390,"Italy, ""fixed"" \\N\ttab",0.5,
abc,Nowhere,0.1,
44,United Kingdom,0.99,
"""
    report = await load(database, sheet)
    assert (report.rows_in, report.rows_stored, report.rows_refused, report.rows_repeated) == (
        10,
        4,
        5,
        1,
    )
    assert [refusal.line for refusal in report.refusals] == [4, 6, 7, 9, 10]
    assert report.refusals[0].value == "cheap"
    stored = rows_in(database_url, "SELECT count(*) FROM rate_row")
    refused = rows_in(database_url, "SELECT count(*) FROM rate_refusal")
    assert (stored, refused) == ([(4,)], [(5,)])
    assert list(report.refusals) == await rates.refusals(database, "retail", 1)
    await activate(database, 1)
    found = await rates.lookup(database, "39055555555", card="retail", now=NOW)
    assert found.chosen.row.destination == 'Italy, "fixed" \\N tab'


async def test_a_dry_run_says_the_same_and_stores_nothing(
    database: Database, database_url: str
) -> None:
    before = everything(database_url)
    dry = await load(database, FIRST, dry_run=True)
    assert everything(database_url) == before
    real = await load(database, FIRST)
    assert dry.version is None
    assert (dry.counts, dry.rows_in, dry.row_count) == (real.counts, real.rows_in, real.row_count)


async def test_a_sheet_of_which_every_row_is_refused_makes_no_version(
    database: Database, database_url: str
) -> None:
    await load_active(database, FIRST)
    before = everything(database_url)
    sheet = b"prefix,destination,rate\n44,United Kingdom,free\n49,Germany,?\n"
    with pytest.raises(InvalidInput, match="every one of the 2") as caught:
        await load(database, sheet)
    assert caught.value.code == "all_rows_refused"
    assert "line 2" in caught.value.detail
    assert everything(database_url) == before
    dry = await load(database, sheet, dry_run=True)
    assert (dry.rows_refused, dry.rows_stored, dry.counts["closed"]) == (2, 0, 0)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_file"),
        (b"\n\n", "empty_file"),
        (b"\x7fELF\x02\x01\x01" + b"\x00\x01\x02" * 400, "not_a_rate_sheet"),
        (b"name,colour\nred,blue\n", "unknown_columns"),
    ],
)
async def test_a_file_that_is_no_sheet_is_refused_with_a_reason(
    database: Database, database_url: str, data: bytes, code: str
) -> None:
    before = everything(database_url)
    with pytest.raises(InvalidInput) as caught:
        await load(database, data)
    assert caught.value.code == code
    assert everything(database_url) == before


async def test_a_file_beyond_the_bound_is_refused_before_it_is_read(database: Database) -> None:
    with pytest.raises(InvalidInput) as caught:
        await load(database, bytes(65 * 2**20))
    assert caught.value.code == "file_too_large"


async def test_prices_in_another_currency_are_refused(database: Database) -> None:
    with pytest.raises(InvalidInput) as caught:
        await load(database, FIRST, options=SheetOptions(currency="EUR"))
    assert caught.value.code == "wrong_currency"
    with pytest.raises(InvalidInput) as caught:
        await load(database, "prefix,rate\n44,€0.02\n49,€0.01\n".encode())
    assert caught.value.code == "all_rows_refused"


async def test_a_full_sheet_closes_what_it_does_not_name_and_a_partial_one_keeps_it(
    database: Database,
) -> None:
    await load_active(database, FIRST)
    sheet = b"prefix,destination,rate,increments\n44,United Kingdom,0.03,1/1\n33,France,0.01,1/1\n"
    partial = await load(database, sheet, mode="partial")
    full = await load(database, sheet, mode="full")
    assert (partial.row_count, full.row_count) == (4, 2)
    assert partial.counts | {"closed": 2} == full.counts
    assert (full.counts["increased"], full.counts["new"], full.counts["closed"]) == (1, 1, 2)
    await activate(database, partial.version)
    assert await price_of(database, "491234567") == Decimal("0.01")
    assert await price_of(database, "442071838750") == Decimal("0.03")


async def test_the_old_price_holds_until_the_new_one_begins(database: Database) -> None:
    await load_active(database, FIRST)
    sheet = b"prefix,destination,rate,increments,effective\n44,United Kingdom,0.04,1/1,2026-03-15\n"
    await load_active(database, sheet, mode="partial")
    assert await price_of(database, "442071838750") == Decimal("0.02")
    begin = datetime(2026, 3, 15, tzinfo=UTC)
    assert await price_of(database, "442071838750", begin - timedelta(seconds=1)) == Decimal("0.02")
    assert await price_of(database, "442071838750", begin) == Decimal("0.04")


async def test_changes_are_listed_as_they_are_counted(database: Database) -> None:
    await load_active(database, FIRST)
    sheet = b"""prefix,destination,rate,increments
44,United Kingdom,0.5,1/1
447,United Kingdom Mobile,0.04,60/60
33,France,blocked,1/1
1,United States,0.01,6/6
"""
    report = await load(database, sheet)
    listed = await rates.changes(database, "retail", 2)
    assert report.counts == {
        "new": 1, "increased": 1, "decreased": 1, "unchanged": 0, "changed": 0, "closed": 1, "blocked": 1,
        "unblocked": 0,
    }  # fmt: skip
    assert sorted((c.status, c.prefix) for c in listed) == [
        ("blocked", "33"),
        ("closed", "49"),
        ("decreased", "447"),
        ("increased", "44"),
        ("new", "1"),
    ]
    # From 0.02 to 0.5 is 25 times: that is what a person must see first.
    assert (listed[0].prefix, listed[0].suspicious) == ("44", True)
    assert (listed[0].old_price, listed[0].new_price) == (Decimal("0.02"), Decimal("0.5"))
    assert [move.prefix for move in report.moves] == ["44", "447"]
    assert report.suspicious_rows == (listed[0],)
    only = await rates.changes(database, "retail", 2, status="closed")
    assert [change.prefix for change in only] == ["49"]
    page = await rates.changes(database, "retail", 2, after=listed[1].seq, limit=2)
    assert page == listed[2:4]
    with pytest.raises(InvalidInput):
        await rates.changes(database, "retail", 2, status="odd")


async def test_the_same_file_again_is_noted_and_changes_nothing(database: Database) -> None:
    await load_active(database, FIRST)
    again = await load(database, FIRST)
    assert again.counts["unchanged"] == 3
    assert "Version 1 was made from this very file." in again.notes
    assert await rates.changes(database, "retail", 2) == []


async def test_refused_rows_come_back_as_a_sheet_to_mend(database: Database) -> None:
    sheet = b"""prefix;destination;rate
44;United Kingdom;0,02
49;"Germany; all";cheap
33;France
"""
    report = await load(database, sheet)
    assert report.rows_refused == 2
    refused = await rates.refused_sheet(database, "retail", 1)
    lines = refused.splitlines()
    assert lines[0] == "prefix;destination;rate;refused line;refused because"
    assert lines[1].startswith('49;"Germany; all";cheap;3;')
    assert lines[2].startswith("33;France;;4;")
    assert "(empty): " in lines[2]
    assert '""' not in lines[2]
    await activate(database, 1)
    mended = refused.replace("cheap", "0,01").replace("France;;", "France;0,03;")
    second = await load(database, mended.encode(), mode="partial")
    assert (second.rows_refused, second.counts["new"], second.row_count) == (0, 2, 3)
    assert "Not read: refused line, refused because." in second.notes


# --- compiled ------------------------------------------------------------------------------------


async def test_a_compiled_card_is_the_stored_version_row_for_row(
    database: Database, database_url: str
) -> None:
    await rates.create_card(
        database, code="fine", currency="EUR", decimals=4, rounding="up", actor="test"
    )
    sheet = b"""prefix;destination;rate;first_rate;increments;connect_fee;minimum charge;cap;effective;end;blocked
44;United Kingdom;0.02;0.03;30/6;0.01;0.05;9;;;0
44;United Kingdom;0.04;0.05;30/6;0.01;0.05;9;2026-04-01;;0
49;Germany;0.02;0.03;30/6;0.01;0.05;9;;2026-12-31;0
33;France;0.1;0.1;1/1;0;0;;;;1
"""
    report = await load(database, sheet, card="fine")
    assert report.rows_stored == 4
    await activate(database, 1, card="fine")
    async with database.read() as connection:
        versions = await active_versions(connection)
        (card_id,) = versions
        card = await load_card(connection, card_id)
    assert card is not None
    assert versions == {card_id: 1}
    assert (card.code, card.version, card.currency, card.table.size) == ("fine", 1, "EUR", 4)
    stored = rows_in(
        database_url, "SELECT row_no, prefix, valid_from, valid_to FROM rate_row ORDER BY 1"
    )
    assert [number for number, *_ in stored] == [1, 2, 3, 4]
    uk, germany = card.table.find("442071838750", NOW), card.table.find("491234567", NOW)
    france, planned = (
        card.table.find("331234567", NOW),
        card.table.find("441", LATER + timedelta(5)),
    )
    assert uk is not None
    assert germany is not None
    assert france is not None
    assert planned is not None
    assert [
        (r.row_id, r.prefix, r.valid_from, r.valid_to) for r in (france, uk, planned, germany)
    ] == stored
    assert (france.blocked, uk.blocked, france.tariff.cap, uk.tariff.cap) == (True, False, None, 9)
    assert uk.tariff is germany.tariff, "equal tariffs are kept once"
    assert (uk.tariff.decimals, uk.tariff.rounding) == (4, Rounding.UP)
    assert (uk.tariff.first_price, uk.tariff.next_price, planned.tariff.next_price) == (
        Decimal("0.03"),
        Decimal("0.02"),
        Decimal("0.04"),
    )
    assert (uk.tariff.connect_fee, uk.tariff.minimum) == (Decimal("0.01"), Decimal("0.05"))


async def test_a_card_without_an_active_version_is_not_compiled(database: Database) -> None:
    await load(database, FIRST)
    async with database.read() as connection:
        assert await active_versions(connection) == {}
        assert await load_card(connection, 1) is None
        assert await load_card(connection, 12345) is None


# --- lookup --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["", "abc", "1" * 16, "４４", "44\x007"])
async def test_what_is_no_number_is_refused(database: Database, number: str) -> None:
    with pytest.raises(InvalidInput):
        await rates.lookup(database, number, card="retail", now=NOW)
