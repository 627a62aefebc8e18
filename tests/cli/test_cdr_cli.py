"""The command ``cdr``: what a person types, what is answered, and how the program ends."""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.cli.conftest import Command, Ran
from tests.services.cdr_world import MAPPING, Call, CdrWorld, write_file
from tests.support import UNSOLD, Row, tariff
from tollkeeper.cli import main
from tollkeeper.cli.cdr_show import mapping_toml
from tollkeeper.wire.cdr.mapping import load_mapping

NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=10)
TOML = mapping_toml(load_mapping(MAPPING))


@pytest.fixture
def world(on_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CdrWorld]:
    monkeypatch.setenv("TOLLKEEPER_SPOOL_DIR", str(tmp_path / "spool"))
    with CdrWorld(on_database) as made:
        yield made


@pytest.fixture
def mapping(tmp_path: Path) -> str:
    path = tmp_path / "mapping.toml"
    path.write_text(TOML)
    return str(path)


def calls(path: Path, *more: Call) -> str:
    return str(write_file(path, [replace(call, start=NOW) for call in more]))


def lines(ran: Ran) -> dict[str, str]:
    """A table of two columns, by the first."""
    pairs = [re.split(r"\s{2,}", line.strip()) for line in ran.out.splitlines()]
    return {pair[0]: pair[1] for pair in pairs if len(pair) > 1}


# --- rate ----------------------------------------------------------------------------------------


def test_a_file_is_rated_and_told_in_a_short_table(
    tollkeeper: Command, world: CdrWorld, mapping: str, tmp_path: Path
) -> None:
    path = calls(tmp_path / "a.csv", Call("a"), Call("b"), Call("b"), Call("c", called=UNSOLD))
    ran = tollkeeper("cdr", "rate", path, "--mapping", mapping)
    assert (ran.code, ran.err) == (0, "")
    assert "a.csv: file 1 done" in ran.out
    assert "records/s" in ran.out
    told = lines(ran)
    assert [told[name] for name in ("records", "rated", "duplicate", "quarantined", "no_rate")] == [
        "4", "2", "1", "1", "1",
    ]  # fmt: skip
    assert (told["charged"], told["cost"]) == ("1.20", "0.60")
    assert "next: tollkeeper cdr quarantine list --file 1" in ran.out
    assert world.balance(world.acme) == Decimal("98.8")
    again = tollkeeper("cdr", "rate", path, "--mapping", mapping)
    assert again.code == 0
    assert "was loaded on" in again.out
    assert world.counts()["rated"] == 2


def test_several_files_packed_or_from_a_pipe_are_rated_in_a_row(
    tollkeeper: Command, world: CdrWorld, mapping: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    first = calls(tmp_path / "a.csv", Call("a"))
    packed = tmp_path / "b.csv.gz"
    packed.write_bytes(gzip.compress(Path(calls(tmp_path / "b.csv", Call("b"))).read_bytes()))
    piped = Path(calls(tmp_path / "c.csv", Call("c"))).read_bytes()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(piped)))
    ran = tollkeeper("cdr", "rate", first, str(packed), "-", "--mapping", mapping)
    assert (ran.code, ran.err) == (0, "")
    names = [row["name"] for row in world.sql("SELECT name FROM cdr_file ORDER BY id")]
    assert names == ["a.csv", "b.csv.gz", "stdin"]
    assert world.counts()["rated"] == 3
    assert [path for path in (tmp_path / "spool").rglob("*") if path.is_file()] == []


def test_a_dry_run_shows_money_and_problems_and_writes_nothing(
    tollkeeper: Command, world: CdrWorld, mapping: str, tmp_path: Path
) -> None:
    path = calls(tmp_path / "a.csv", Call("a"), Call("c", called=UNSOLD))
    ran = tollkeeper("cdr", "rate", path, "--mapping", mapping, "--dry-run")
    assert ran.code == 0
    assert "dry run, nothing is written" in ran.out
    assert lines(ran)["charged"] == "0.60"
    assert re.search(r"3\s+no_rate\s+called\s", ran.out)
    assert world.one("SELECT count(*) FROM cdr_file") == 0
    assert world.one("SELECT count(*) FROM cdr_quarantine") == 0


def test_a_known_format_is_recognised_and_named(
    tollkeeper: Command, world: CdrWorld, tmp_path: Path
) -> None:
    moment = NOW.strftime("%Y-%m-%d %H:%M:%S")
    row = ["", "390612345678", "442071838750", "default", "390612345678", "SIP/acme-in-1",
           "SIP/vendor-out-2", "Dial", "x", moment, moment, moment, "63", "60", "ANSWERED",
           "DOCUMENTATION", "1700000000.1", ""]  # fmt: skip
    path = tmp_path / "Master.csv"
    path.write_text(",".join(f'"{cell}"' for cell in row) + "\n")
    ran = tollkeeper("cdr", "rate", str(path), "--dry-run")
    assert ran.code == 0, ran.err
    assert "asterisk-csv" in ran.err
    assert lines(ran)["records"] == "1"


def test_a_file_that_cannot_be_read_ends_with_1_and_says_why(
    tollkeeper: Command, world: CdrWorld, mapping: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("these,are,other,columns\n1,2,3,4\n")
    ran = tollkeeper("cdr", "rate", str(path), "--mapping", mapping)
    assert ran.code == 1
    assert "a.csv" in ran.err
    assert "Traceback" not in ran.err
    for arguments, sentence in (
        ((str(tmp_path / "none"),), "there is no file"),
        ((str(path),), "was not recognised"),
        ((str(path), "--format", "punched-cards"), "punched-cards"),
        ((str(path), "--mapping", str(tmp_path / "none")), "none"),
        ((str(tmp_path), "--mapping", mapping), "directory"),
    ):
        ran = tollkeeper("cdr", "rate", *arguments)
        assert ran.code == 1, arguments
        assert sentence in ran.err, arguments
        assert "Traceback" not in ran.err


# --- looking -------------------------------------------------------------------------------------


def test_a_table_is_sniffed_into_a_mapping_that_can_be_used(
    tollkeeper: Command, world: CdrWorld, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    moment = NOW.strftime("%Y-%m-%d %H:%M:%S")
    path.write_text(
        "call_id,start_time,answer_time,duration,caller,callee\n"
        + "".join(f"c{n},{moment},{moment},6{n},390612345678,442071838750\n" for n in range(9))
    )
    ran = tollkeeper("cdr", "sniff", str(path))
    assert ran.code == 0
    toml = ran.out[ran.out.index("# a mapping") : ran.out.index("first records")]
    mapping = load_mapping(toml)
    assert mapping.format == "csv"
    assert {"call_id", "start", "caller", "called"} <= {rule.field for rule in mapping.fields}
    assert "442071838750" in ran.out[ran.out.index("first records") :]
    assert tollkeeper("cdr", "sniff", str(tmp_path / "none")).code == 1
    (tmp_path / "noise").write_bytes(bytes(range(256)) * 10)
    assert tollkeeper("cdr", "sniff", str(tmp_path / "noise")).code == 1


def test_a_mapping_is_written_as_it_is_read() -> None:
    tricky = {
        **MAPPING,
        "delimiter": "\t",
        "encoding": "cp1252",
        "fields": {
            "call_id": {"columns": ["a", "b"], "join": "\\"},
            "start": {"column": 'say "when"', "time": "%d/%m/%Y %H:%M:%S", "zone": "Europe/Rome"},
            "duration": {"column": "Dauer €", "unit": "ms"},
            "sip": {"column": "c", "values": {"no answer": "480", "b=c": "486"}},
            "trunk_in": {"constant": ""},
        },
        "filters": [{"column": "type", "in": ["a", "b"]}, {"column": "x", "matches": "^\\d+$"}],
    }
    mapping = load_mapping(tricky)
    assert load_mapping(mapping_toml(mapping)) == mapping


def test_files_batches_formats_and_mismatches_are_listed(
    tollkeeper: Command, world: CdrWorld, mapping: str, tmp_path: Path
) -> None:
    path = calls(tmp_path / "a.csv", Call("a", seconds="20000"))
    tollkeeper("cdr", "rate", path, "--mapping", mapping, "--switch", "sw7")
    assert re.search(r"1\s+\S+ \S+\s+sw7\s+csv\s+a\.csv\s+done", tollkeeper("cdr", "files").out)
    assert "0 files" in tollkeeper("cdr", "files", "--status", "failed").out
    shown = tollkeeper("cdr", "file", "1")
    assert shown.code == 0
    assert lines(shown)["switch"] == "sw7"
    assert "1 batches" in shown.out
    assert "1 batches" in tollkeeper("cdr", "batches", "--kind", "load").out
    told = tollkeeper("cdr", "mismatches").out
    assert re.search(r"long_call\s+1", told)
    assert "a.csv:2" in told
    assert "0 mismatches" in tollkeeper("cdr", "mismatches", "--kind", "no_buy_rate").out
    assert "tap3" in tollkeeper("cdr", "formats").out
    missing = tollkeeper("cdr", "file", "99")
    assert (missing.code, missing.out) == (1, "")
    assert "there is no file 99" in missing.err


# --- quarantine ----------------------------------------------------------------------------------


def test_a_record_is_mended_and_played_again(
    tollkeeper: Command, world: CdrWorld, mapping: str, tmp_path: Path
) -> None:
    path = calls(tmp_path / "a.csv", Call("a", called="12345banana"), Call("b", called=UNSOLD))
    tollkeeper("cdr", "rate", path, "--mapping", mapping)
    listed = tollkeeper("cdr", "quarantine", "list", "--reason", "bad_number")
    assert "1 records" in listed.out
    assert "12345banana" in listed.out
    number = str(world.one("SELECT id FROM cdr_quarantine WHERE reason = 'bad_number'"))
    shown = tollkeeper("cdr", "quarantine", "show", number)
    assert "a.csv, line 2" in shown.out
    fixed = tollkeeper(
        "cdr", "quarantine", "fix", number, "--set", "called=442071838750", "--set", "duration_ms=30000",
        "--set", f"start={NOW:%Y-%m-%dT%H:%M:%S}",
    )  # fmt: skip
    assert fixed.code == 0, fixed.err
    assert "442071838750" in fixed.out
    again = tollkeeper("cdr", "quarantine", "replay", "--id", number)
    assert lines(again)["rated"] == "1"
    assert world.balance(world.acme) == Decimal("99.7")
    assert lines(tollkeeper("cdr", "quarantine", "replay"))["still"] == "1"
    rest = str(world.one("SELECT id FROM cdr_quarantine WHERE status = 'open'"))
    assert "1 of 2 records dropped" in tollkeeper("cdr", "quarantine", "drop", rest, number, "--why", "a test call").out  # fmt: skip
    assert "0 records" in tollkeeper("cdr", "quarantine", "list").out
    assert "1 records" in tollkeeper("cdr", "quarantine", "list", "--status", "dropped").out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("show", "99"), "no record 99"),
        (("fix", "99", "--set", "called=1"), "no record 99"),
        (("fix", "99", "--set", "called"), "name=value"),
        (("fix", "99", "--set", "sip=none"), "whole number"),
        (("fix", "99", "--set", "start=noon"), "a time such as"),
        (("fix", "99", "--set", "colour=red"), "no such field"),
        (("replay", "--reason", "boredom"), "boredom"),
        (("drop", "1", "--why", " "), "say why"),
    ],
)
def test_what_is_wrong_with_the_quarantine_is_one_sentence(
    tollkeeper: Command, world: CdrWorld, arguments: tuple[str, ...], sentence: str
) -> None:
    ran = tollkeeper("cdr", "quarantine", *arguments)
    assert ran.code == 1
    assert sentence in ran.err
    assert "Traceback" not in ran.err


# --- other prices, and back ----------------------------------------------------------------------


def test_records_are_priced_anew_and_taken_back(
    tollkeeper: Command, world: CdrWorld, mapping: str, tmp_path: Path
) -> None:
    path = calls(tmp_path / "a.csv", Call("a"), Call("b"))
    tollkeeper("cdr", "rate", path, "--mapping", mapping)
    card = world.card("dearer", [Row("44", "UK", tariff("1.2"))])
    world.sql("UPDATE rate_plan_card SET card_id = %s WHERE card_id = (SELECT id FROM rate_card WHERE code = 'retail-usd')", card)  # fmt: skip
    span = ("--from", f"{NOW:%Y-%m-%d}", "--to", f"{NOW + timedelta(days=1):%Y-%m-%d}")
    dry = tollkeeper("cdr", "rerate", *span, "--customer", "acme")
    assert dry.code == 0, dry.err
    assert "dry run, nothing is written: 2 records looked at, 2 change" in dry.out
    assert re.search(r"customers\s+acme\s+UK\s+2\s+1\.20\s+2\.40\s+\+1\.20\s+USD", dry.out)
    assert world.balance(world.acme) == Decimal("98.8")
    looked = tollkeeper(
        "cdr", "rerate", *span, "--engine", "local", "--output", str(tmp_path / "out")
    )
    assert "dry run, nothing is written: 2 records looked at, 2 change" in looked.out
    assert ("--apply" in dry.out, "--apply" in looked.out) == (True, False)
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 1
    without = tollkeeper("cdr", "rerate", *span, "--apply")
    assert (without.code, "reason" in without.err) == (1, True)
    done = tollkeeper("cdr", "rerate", *span, "--apply", "--reason", "new deck")
    assert world.balance(world.acme) == Decimal("97.6")
    found = re.search(r"cdr rollback rerate (\d+)", done.out)
    assert found is not None
    back = tollkeeper("cdr", "rollback", "rerate", found[1], "--reason", "wrong deck")
    assert back.code == 0, back.err
    assert world.balance(world.acme) == Decimal("98.8")
    gone = tollkeeper("cdr", "rollback", "file", "1", "--reason", "sent twice")
    assert "file 1 is taken back" in gone.out
    assert world.balance(world.acme) == Decimal(100)
    assert tollkeeper("cdr", "rollback", "file", "1", "--reason", "again").code == 1
    for wrong in (("--card", "retail"), ("--customer", "nobody"), ("--called", "+44"), ("--file", "9"), ("--engine", "abacus"), ("--output", "x"), ("--engine", "local", "--apply")):  # fmt: skip
        assert tollkeeper("cdr", "rerate", *span, *wrong).code == 1


# --- the tree of commands ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["rate", "sniff", "formats", "files", "file", "batches", "quarantine", "mismatches", "rerate",
     "rollback", "source", "search", "export", "report", "archive", "purge", "assurance"],
)  # fmt: skip
def test_every_sub_command_is_listed_and_explains_itself(tollkeeper: Command, name: str) -> None:
    assert re.search(rf"│ {name} +\w", tollkeeper("cdr", "--help").out)
    ran = tollkeeper("cdr", name, "--help")
    assert ran.code == 0
    assert f"Usage: tollkeeper cdr {name}" in ran.out


def test_trunks_and_comparisons_are_commands_of_their_own() -> None:
    assert {"cdr", "trunk", "reconcile"} <= main.COMMANDS.keys()
