"""The files of real switches become records of a carrier's books."""

from __future__ import annotations

import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests.services.cdr_world import CdrWorld, load
from tests.services.test_cdr_load import proven
from tests.support import Row, tariff

DATA = (
    Path(os.environ.get("TOLLKEEPER_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
    / "cdr"
)
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no call records at {DATA}")

ROWS = (Row("", "Anywhere", tariff("0.6")), Row("4915", "Germany mobile", tariff("1.2", 60, 1)))


@pytest.fixture
def world(database_url: str) -> Iterator[CdrWorld]:
    """A carrier that sells every number at a cent a second."""
    with CdrWorld(database_url, ROWS) as made:
        yield made


@needs_data
@pytest.mark.parametrize(
    ("path", "format_", "trunk", "records", "charge"),
    [
        ("freeswitch/json_cdr_full.json", "freeswitch-json", {"addresses": ["10.10.10.0/24"]}, 1, "0.68"),
        ("freeswitch/esl_01_hangupEv.txt", "freeswitch-event", {"account": "1001"}, 1, "0.66"),
        ("broadworks/cdrXmlBroadsoft.xml", "broadworks-xml", {"account": "MBC"}, 2, "1.2"),
        ("radius_detail/h323_gnugk_detail.txt", "radius-detail", {"addresses": ["192.168.0.0/16"]}, 1, "0.09"),
    ],
)  # fmt: skip
async def test_a_real_record_is_charged_by_its_most_precise_duration(
    world: CdrWorld, path: str, format_: str, trunk: dict[str, object], records: int, charge: str
) -> None:
    """67.540 s are 68 s, 65.040 s are 66 s; a mobile of 13.483 s in 60/1 is a minute."""
    if not (DATA / path).is_file():
        pytest.skip(f"no {path}")
    world.trunk("theirs", world.acme, **{"names": [], **trunk})
    report = await load(world.url, DATA / path, format=format_, mapping=None)
    assert report.file.status == "done"
    assert report.file.records == records
    highest = world.one("SELECT max(charge) FROM usage")
    assert highest == Decimal(charge)
    await proven(world.url)


@needs_data
async def test_calls_of_kamailio_are_joined_also_over_files_and_backwards(
    world: CdrWorld, tmp_path: Path
) -> None:
    """The end of a call may come in an earlier file than its begin."""
    lines = (DATA / "opensips_kamailio" / "fullSuccessfull.csv").read_text().splitlines()
    world.trunk("theirs", world.acme, names=[], account="1001")
    world.trunk("others", world.acme, names=[], account="1002")
    begins = tmp_path / "begins.csv"
    begins.write_text("\n".join(line for line in lines if line.startswith("INVITE")) + "\n")
    ends = tmp_path / "ends.csv"
    ends.write_text("\n".join(line for line in lines if line.startswith("BYE")) + "\n")
    first = await load(world.url, ends, format="kamailio-acc", mapping=None)
    assert (first.file.records, first.waiting) == (0, 4)
    second = await load(world.url, begins, format="kamailio-acc", mapping=None, records_per_part=1)
    assert (second.file.records, second.file.rated, second.waiting) == (4, 4, 0)
    # Two seconds, four, four and two, a cent each.
    assert world.one("SELECT sum(charge) FROM usage") == Decimal("0.12")
    whole = await load(
        world.url,
        DATA / "opensips_kamailio" / "fullSuccessfull.csv",
        format="kamailio-acc",
        mapping=None,
    )
    assert (whole.file.duplicate, whole.file.rated, whole.waiting) == (4, 0, 0)
    await proven(world.url)


@needs_data
async def test_asterisks_file_is_read_with_its_unanswered_calls(world: CdrWorld) -> None:
    """14 records, of which only the answered ones cost something."""
    world.trunk("client1", world.acme)
    world.trunk("client2", world.acme)
    report = await load(
        world.url, DATA / "asterisk" / "Master_lab_pjsip.csv", format="asterisk-csv", mapping=None,
        timezone="Europe/Rome",
    )  # fmt: skip
    assert report.file.records == 14
    (row,) = world.sql(
        "SELECT count(*) FILTER (WHERE charge > 0) AS paid, count(*) FILTER (WHERE duration_ms > 0) AS spoken FROM usage"
    )
    assert row["paid"] == row["spoken"]
    assert 0 < row["paid"] < 14
    await proven(world.url)


async def test_a_record_that_is_put_aside_shows_the_line_it_stood_on(
    world: CdrWorld, tmp_path: Path
) -> None:
    """Also in formats that are read record by record."""
    times = '"2026-03-01 12:00:00","2026-03-01 12:00:02","2026-03-01 12:00:12"'
    row = f'"","100","4915111","from","x","SIP/a-1","SIP/b-1","Dial","",{times},12,10,"ANSWERED","DOC"'

    def line(number: int) -> str:
        return f'{row},"1.{number}",""'

    path = tmp_path / "Master.csv"
    path.write_text("".join(line(n) + "\n" for n in range(3)))
    report = await load(world.url, path, format="asterisk-csv", mapping=None, records_per_part=1)
    assert report.file.quarantined == 3
    held = world.sql("SELECT line, raw FROM cdr_quarantine ORDER BY line")
    assert [(each["line"], each["raw"]) for each in held] == [(n + 1, line(n)) for n in range(3)]
