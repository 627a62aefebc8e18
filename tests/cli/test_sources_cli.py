"""The command "cdr source": a folder is added, tried, collected from and left, as a user does it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.support import World

LINE = (
    '"","{caller}","442071838750","default","""x"" <{caller}>","PJSIP/in-00000001","PJSIP/out-00000002",'
    '"Dial","PJSIP/442071838750@out","2026-03-01 10:00:00","2026-03-01 10:00:05",'
    '"2026-03-01 10:01:05",65,60,"ANSWERED","DOCUMENTATION","1772359200.{n}",""\n'
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "out"
    made.mkdir()
    return made


@pytest.fixture
def source(
    tollkeeper: Command,
    on_database: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    """A source on a folder, and the world behind it."""
    monkeypatch.setenv("TOLLKEEPER_SPOOL_DIR", str(tmp_path / "spool"))
    made = tollkeeper(
        "cdr", "source", "add", "pbx", "--kind", "directory", "--switch", "sw1",
        "--format", "asterisk-csv", "--set", f"path={folder}", "--set", "pattern=*.csv",
        "--set", "settle_seconds=0",
    )  # fmt: skip
    assert (made.code, made.err) == (0, "")
    assert made.out == "source pbx added; try it: tollkeeper cdr source test pbx\n"
    return World(on_database)


def test_a_folder_is_tried_and_collected_from(
    tollkeeper: Command, source: World, folder: Path
) -> None:
    with source:
        (folder / "a.csv").write_text(LINE.format(caller="390612345678", n=1))
        (folder / "b.tmp").write_text("half")
        tried = tollkeeper("cdr", "source", "test", "pbx")
        assert "source pbx answers; 1 found" in tried.out
        assert "would be taken" in tried.out
        ran = tollkeeper("cdr", "source", "run", "pbx")
        assert (ran.code, ran.err) == (0, "")
        assert "1 of 1 files loaded" in ran.out
        assert source.sql("SELECT name, status, records FROM cdr_file") == [
            {"name": "a.csv", "status": "done", "records": 1}
        ]
        again = tollkeeper("cdr", "source", "run", "pbx")
        assert "0 of 0 files loaded" in again.out


def test_what_is_wrong_with_a_file_is_told_and_it_can_be_tried_again(
    tollkeeper: Command, source: World, folder: Path
) -> None:
    with source:
        tollkeeper("cdr", "source", "set", "pbx", "--format", "broadworks-xml")
        (folder / "a.csv").write_text(LINE.format(caller="390612345678", n=1))
        ran = tollkeeper("cdr", "source", "run", "pbx")
        assert ran.code == 1
        assert "a.csv: " in ran.err
        listed = tollkeeper("cdr", "source", "list")
        assert "a.csv: " in listed.out
        tollkeeper("cdr", "source", "set", "pbx", "--format", "asterisk-csv")
        mended = tollkeeper("cdr", "source", "run", "pbx", "--retry-failed")
        assert (mended.code, mended.err) == (0, ""), mended
        assert source.one("SELECT status FROM cdr_file") == "done"


def test_a_secret_comes_from_a_file_and_is_never_shown(
    tollkeeper: Command, source: World, tmp_path: Path
) -> None:
    with source:
        (tmp_path / "pw").write_text("correct horse\n")
        made = tollkeeper(
            "cdr", "source", "add", "ftp", "--kind", "ftp", "--switch", "sw1", "--format", "vos3000",
            "--secret-file", str(tmp_path / "pw"), "--set", "host=192.0.2.1", "--set", "user=me",
            "--set", "path=out", "--set", "port=2121", "--set", "tls=true",
        )  # fmt: skip
        assert (made.code, made.err) == (0, "")
        assert source.one("SELECT secret FROM cdr_source WHERE code = 'ftp'") == "correct horse"
        shown = tollkeeper("cdr", "source", "show", "ftp")
        listed = tollkeeper("cdr", "source", "list")
        assert "192.0.2.1:out" in listed.out
        assert "correct horse" not in shown.out + listed.out + str(source.sql("TABLE audit"))
        (row,) = source.sql("SELECT settings FROM cdr_source WHERE code = 'ftp'")
        assert (row["settings"]["port"], row["settings"]["tls"]) == (2121, True)


def test_a_source_is_changed_and_left(tollkeeper: Command, source: World) -> None:
    with source:
        tollkeeper("cdr", "source", "set", "pbx", "--set", "pattern=", "--poll-seconds", "5")
        tollkeeper("cdr", "source", "remove", "pbx")
        (row,) = source.sql("SELECT settings, poll_seconds, enabled FROM cdr_source")
        assert (row["settings"]["pattern"], row["poll_seconds"], row["enabled"]) == ("*", 5, False)
        tollkeeper("cdr", "source", "set", "pbx", "--enabled")
        assert source.one("SELECT enabled FROM cdr_source") is True


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("set", "pbx"), "nothing to change"),
        (("set", "pbx", "--set", "path"), "give it as name=value"),
        (("set", "pbx", "--set", "path=relative"), "settings.path: give the whole path"),
        (("set", "pbx", "--set", "prt=1"), "settings.prt: a source of the kind directory has:"),
        (("run", "nothing"), 'there is no CDR source "nothing"'),
        (("set", "pbx", "--mapping", "/nothing.toml"), "/nothing.toml: No such file"),
    ],
)
def test_a_mistake_is_one_sentence(
    tollkeeper: Command, source: World, arguments: tuple[str, ...], sentence: str
) -> None:
    with source:
        ran = tollkeeper("cdr", "source", *arguments)
        assert ran.code == 1
        assert sentence in ran.err
        assert ran.err.count("\n") == 1
