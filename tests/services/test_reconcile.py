"""A partner's file against our records: the right legs, at their present value, and nobody else's money."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.services.reconcile_world import MAPPING, NOON, Books, call, file_of, later
from tollkeeper.core.numbering import DialRules
from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services.reconcile import Question, Report, reconcile
from tollkeeper.services.reconcile_report import csv_of
from tollkeeper.store.db import Database
from tollkeeper.wire.cdr.mapping import load_mapping


@pytest.fixture
def books(database_url: str) -> Iterator[Books]:
    with Books(database_url) as made:
        yield made


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, size=2)
    await made.open()
    yield made
    await made.close()


async def ask(database: Database, file: io.BytesIO, **question: Any) -> Report:
    """Compare a file with what we have of acme, unless something else is asked."""
    if not {"vendor", "switch", "customer"} & question.keys():
        question["customer"] = "acme"
    return await reconcile(
        database, file, Question(**{"mapping": load_mapping(MAPPING), **question})
    )


def findings(report: Report) -> list[tuple[str, str | None]]:
    """Kind and call id of all findings."""
    rows = report.findings.select("kind", "their_call_id", "our_call_id").iter_rows()
    return [(kind, theirs or ours) for kind, theirs, ours in rows]


def table(report: Report) -> list[dict[str, str]]:
    """The CSV as its reader sees it."""
    return list(csv.DictReader(io.StringIO("".join(csv_of(report)))))


# --- whose records ---------------------------------------------------------------------------------


async def test_a_customer_is_compared_with_what_it_was_charged(
    books: Books, database: Database
) -> None:
    books.record("a")
    books.record("other", customer_id=books.carrier.id)
    report = await ask(database, file_of(call("a", price="0.6", currency="USD")))
    assert (findings(report), report.their_total, report.our_total) == (
        [],
        Decimal("0.6"),
        Decimal("0.6"),
    )
    assert report.verdict == "acme counts 0.60 USD and we charged 0.60 USD: no difference."


async def test_a_vendor_is_compared_with_what_it_costs_us(books: Books, database: Database) -> None:
    books.record("a")
    report = await ask(database, file_of(call("a", price="0.3")), vendor="carrier")
    assert (findings(report), report.our_total) == ([], Decimal("0.3"))


async def test_a_switch_is_compared_with_all_records_of_it(
    books: Books, database: Database
) -> None:
    books.record("a")
    books.record("b", customer_id=books.carrier.id, start=later(60))
    books.record("elsewhere", batch_id=books.batch("sw2"))
    file = file_of(call("a"), call("c", start=later(120)))
    report = await ask(database, file, switch="sw1")
    assert findings(report) == [("missing_there", "b"), ("missing_here", "c")]


async def test_a_reseller_is_compared_with_its_own_legs(books: Books, database: Database) -> None:
    line = books.record("a")
    books.record("not through it", start=later(60))
    books.reseller(line, "middle", "0.45")
    report = await ask(database, file_of(call("a", price="0.45")), customer="middle")
    assert (findings(report), report.our_total) == ([], Decimal("0.45"))


async def test_what_was_taken_back_does_not_count(books: Books, database: Database) -> None:
    books.record("kept")
    undone = books.batch()
    books.record("gone", batch_id=undone)
    books.undo(undone)
    report = await ask(database, file_of(call("kept"), call("gone", called="33")))
    assert findings(report) == [("missing_here", "gone")]


@pytest.mark.parametrize(("leg", "side"), [(0, "customer"), (1, "vendor")])
async def test_the_last_re_rating_that_was_not_taken_back_counts(
    books: Books, database: Database, leg: int, side: str
) -> None:
    line = books.record("a")
    books.revise(line, "0.7", leg=leg)
    books.revise(line, "0.8", leg=leg)
    books.undo(books.revise(line, "0.9", leg=leg))
    party = "acme" if leg == 0 else "carrier"
    report = await ask(database, file_of(call("a", price="0.8")), **{side: party})
    assert (findings(report), report.our_total) == ([], Decimal("0.8"))


async def test_records_of_several_days_are_found(books: Books, database: Database) -> None:
    midnight = datetime(2026, 3, 2, tzinfo=UTC)
    starts = [midnight - timedelta(milliseconds=1), midnight, midnight + timedelta(hours=23)]
    lines = []
    for n, start in enumerate(starts):
        books.record(f"c{n}", start=start)
        lines.append(call(f"c{n}", start=start))
    report = await ask(database, file_of(*lines))
    assert (report.compared.agreed, [line.our_records for line in report.days]) == (3, [1, 2])


# --- money -----------------------------------------------------------------------------------------


async def test_the_verdict_says_what_makes_up_the_difference(
    books: Books, database: Database
) -> None:
    books.record("a")
    books.record("b", start=later(60), cost=Decimal("0.25"))
    report = await ask(
        database,
        file_of(
            call("a", price="0.35"), call("x", called="33", price="1"), call("a", price="0.35")
        ),
        vendor="carrier",
        until=later(600),
    )
    assert report.difference == Decimal("1.15")
    assert report.verdict == (
        "carrier claims 1.70 USD and our records say 0.55 USD: 1.15 USD (209.09 %) more: "
        "+1.00 for 1 calls that we do not have, -0.25 for 1 calls that the file does not have, "
        "+0.05 for 1 other prices, +0.35 for 1 calls that the file has twice."
    )


async def test_prices_within_the_tolerance_agree(books: Books, database: Database) -> None:
    books.record("a")
    lines = file_of(call("a", price="0.603"))
    assert findings(await ask(database, lines, money="0.003")) == []
    assert findings(await ask(database, lines, money="0.5%")) == []
    assert findings(await ask(database, lines, money="0.4%")) == [("price", "a")]


async def test_prices_in_another_currency_are_not_compared(
    books: Books, database: Database
) -> None:
    books.record("a")
    report = await ask(database, file_of(call("a", price="99", currency="EUR")))
    assert (findings(report), report.priced) == ([], False)
    assert "1 prices are not in USD and are not compared." in report.notes


async def test_a_file_without_prices_still_tells_what_is_missing(
    books: Books, database: Database
) -> None:
    books.record("a")
    books.record("b", start=later(2), called="33")
    report = await ask(database, file_of(call("a")), until=later(60))
    assert report.verdict == (
        "Without prices: 0 calls of acme are missing here, 1 of ours are missing there, which come "
        "to 0.60 USD in our records, 0 have another duration, and 0 are in the file twice."
    )


async def test_a_party_with_several_wallets_must_say_which(
    books: Books, database: Database
) -> None:
    account = books.one(
        "INSERT INTO account (kind, currency, name) VALUES ('wallet', 'EUR', 'acme') RETURNING id"
    )
    books.sql(
        "INSERT INTO wallet (id, party_id, currency) VALUES (%s, %s, 'EUR')", account, books.acme.id
    )
    books.record("usd")
    books.record("eur", sell_wallet=account, start=later(60))
    file = file_of(call("usd", price="0.6"), call("eur", price="5", start=later(60)))
    with pytest.raises(InvalidInput, match="EUR, USD"):
        await ask(database, file)
    report = await ask(database, file, currency="USD")
    assert (findings(report), report.compared.unpriced) == ([], 1)


async def test_a_customer_never_sees_what_a_call_costs_us(books: Books, database: Database) -> None:
    books.record("a", charge=Decimal("7.77"), cost=Decimal("3.33"))
    ours = "".join(csv_of(await ask(database, file_of(call("x", called="33")), until=later(9))))
    theirs = "".join(
        csv_of(
            await ask(database, file_of(call("x", called="33")), vendor="carrier", until=later(9))
        )
    )
    assert ("7.77" in ours, "3.33" in ours) == (True, False)
    assert ("7.77" in theirs, "3.33" in theirs) == (False, True)


# --- the file --------------------------------------------------------------------------------------


async def test_numbers_are_compared_in_e164_by_the_rules_of_the_trunk(
    books: Books, database: Database
) -> None:
    books.sql(
        "INSERT INTO trunk (code, direction, party_id, tech_prefix, dial_rules)"
        " VALUES ('acme-in', 'in', %s, '777', %s)",
        books.acme.id,
        Jsonb({"national": "0", "country_code": "39"}),
    )
    books.record("ours", called="39699", caller="390612345678")
    line = call("theirs", called="7770699", caller="00390612345678")
    report = await ask(database, file_of(line))
    assert (findings(report), report.compared.by_number) == ([], 1)
    other = await ask(database, file_of(line), rules=DialRules())
    assert len(findings(other)) == 2


async def test_the_result_for_the_partner_has_their_reference_first(
    books: Books, database: Database
) -> None:
    books.record("a", duration_ms=45_500)
    report = await ask(database, file_of(call("a", seconds="60.25", price="0.6")), basis="raw")
    (row,) = table(report)
    assert row == {
        "finding": "duration differs", "your_line": "2", "your_call_id": "a",
        "your_start": "2026-03-01T12:00:00.000Z", "your_caller": "390612345678",
        "your_called": "442071838750", "your_seconds": "60.25", "your_amount": "0.6",
        "our_call_id": "a", "our_start": "2026-03-01T12:00:00.000Z", "our_caller": "390612345678",
        "our_called": "442071838750", "our_seconds": "45.5", "our_billed_seconds": "46",
        "our_amount": "0.6", "difference_seconds": "14.75", "difference_amount": "0",
        "currency": "USD",
    }  # fmt: skip


async def test_no_text_of_the_file_is_a_formula_in_the_result(
    books: Books, database: Database
) -> None:
    report = await ask(database, file_of(call("=1+1", called="33")))
    assert [row["your_call_id"] for row in table(report)] == ["'=1+1"]


async def test_strange_texts_come_back_as_they_were(books: Books, database: Database) -> None:
    strange = 'a"b\\c\nd,e'
    books.record(strange, called="33")
    report = await ask(database, file_of(call("x")), until=later(9))
    assert ("missing_there", strange) in findings(report)


async def test_a_compressed_file_is_read_and_one_cut_short_is_refused(
    books: Books, database: Database
) -> None:
    books.record("a")
    packed = gzip.compress(file_of(call("a")).getvalue())
    assert (await ask(database, io.BytesIO(packed))).compared.agreed == 1
    with pytest.raises(InvalidInput, match="cut short"):
        await ask(database, io.BytesIO(packed[:-12]))


async def test_lines_that_cannot_be_read_are_listed(books: Books, database: Database) -> None:
    books.record("a")
    report = await ask(
        database, file_of(call("a"), call("b", seconds="soon"), call("c", seconds="99999999999"))
    )
    assert report.refused_count == 2
    assert sorted(one.line for one in report.refused) == [3, 4]
    assert any("2 lines of the file could not be read" in note for note in report.notes)


async def test_missing_running_numbers_are_listed(books: Books, database: Database) -> None:
    lines = [call(f"c{n}", no=n, start=later(n)) for n in (1, 2, 5, 9)]
    report = await ask(database, file_of(*lines))
    assert [(gap.first, gap.last) for gap in report.gaps] == [(3, 4), (6, 8)]
    assert (report.gap_count, report.gap_records) == (2, 5)


async def test_a_clock_that_is_off_is_told_and_set_right_on_request(
    books: Books, database: Database
) -> None:
    off = timedelta(hours=2)
    lines = []
    for n in range(6):
        books.record(f"c{n}" if n < 4 else f"ours{n}", start=later(60 * n), called=f"44{n}")
        lines.append(call(f"c{n}", start=later(60 * n) + off, called=f"44{n}"))
    fixed = await ask(database, file_of(*lines), fix_clock=True)
    assert (findings(fixed), fixed.compared.by_number) == ([], 2)
    note = "Their clock is 7200.000 s ahead of ours (4 of 4 pairs agree)"
    assert any(one.startswith(note) for one in fixed.notes)


# --- what makes no sense ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "error", "text"),
    [
        ({"customer": "acme", "vendor": "carrier"}, InvalidInput, "one of customer, vendor"),
        ({"customer": "nobody"}, NotFound, 'no party "nobody"'),
        ({"switch": "nowhere"}, NotFound, '"nowhere"'),
        ({"trunk": "none"}, NotFound, 'no trunk "none"'),
        ({"source": "none"}, NotFound, 'no CDR source "none"'),
        ({"currency": "EUR"}, InvalidInput, "no wallet in EUR"),
        ({"money": "-1"}, InvalidInput, "share up to 100%"),
        ({"money": "101%"}, InvalidInput, "share up to 100%"),
        ({"money": "much"}, InvalidInput, "money"),
        ({"seconds": -1}, InvalidInput, "seconds"),
        ({"since": NOON, "until": NOON}, InvalidInput, "ends before it begins"),
        ({"mapping": None, "format": "morse"}, InvalidInput, 'no format "morse"'),
        ({"mapping": None}, InvalidInput, "not recognised"),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused_with_the_reason(
    books: Books, database: Database, question: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        await ask(database, file_of(call("a")), **question)


async def test_days_in_the_archive_are_not_taken_for_missing(
    books: Books, database: Database
) -> None:
    books.sql(
        "INSERT INTO archive_day VALUES ('2026-03-01', 'file:///x', 1, 1, 0, 0, '', now(), NULL)"
    )
    with pytest.raises(Conflict, match="2026-03-01 are in the archive"):
        await ask(database, file_of(call("a")))


async def test_a_file_without_records_is_compared_in_a_period_only(
    books: Books, database: Database
) -> None:
    books.record("a")
    with pytest.raises(InvalidInput, match="names no period"):
        await ask(database, file_of())
    report = await ask(database, file_of(), since=NOON, until=later(60))
    assert findings(report) == [("missing_there", "a")]


async def test_a_file_of_which_nothing_can_be_read_is_refused(
    books: Books, database: Database
) -> None:
    with pytest.raises(InvalidInput, match="no record of the file could be read; line 2"):
        await ask(database, file_of(call("a", seconds="soon")))


async def test_a_file_of_years_must_be_bounded(books: Books, database: Database) -> None:
    books.record("a")
    file = file_of(call("old", start=NOON - timedelta(days=400)), call("a"))
    with pytest.raises(InvalidInput, match="name a period"):
        await ask(database, file)
    report = await ask(database, file, since=NOON - timedelta(hours=1))
    assert (findings(report), report.compared.outside) == ([], 1)
