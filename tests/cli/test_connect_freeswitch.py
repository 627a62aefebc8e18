"""``connect freeswitch``: files for a peer, each with its place; secrets only where asked for."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from defusedxml.ElementTree import fromstring

from tests.cli.conftest import Command

SECRET = 'a "long" & <odd> password'


@pytest.fixture
def peer(tollkeeper: Command, on_database: str, tmp_path: Path) -> str:
    """A peer that was added on the command line."""
    assert on_database
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    made = tollkeeper(
        "peer", "add", "fs1", "--kind", "freeswitch", "--secret-file", str(secret),
        "--option", "connect=192.0.2.5:8022", "--option", "reconcile=5",
    )  # fmt: skip
    assert made.code == 0, made.err
    return "fs1"


def test_the_files_are_written_once_and_told_where_they_go(
    tollkeeper: Command, peer: str, tmp_path: Path
) -> None:
    """Every file parses; a second run does not overwrite; --force does, with the password if asked."""
    out = tmp_path / "files"
    first = tollkeeper("connect", "freeswitch", peer, "--out", str(out), "--client", "192.0.2.7")
    assert first.code == 0, first.err
    assert "conf/dialplan/tollkeeper.xml" in first.out
    assert "CHANGE-ME stands for the password" in first.out
    names = {path.name for path in out.iterdir()}
    assert names == {
        "event_socket.conf.xml", "tollkeeper.acl.xml", "json_cdr.conf.xml", "tollkeeper.xml",
    }  # fmt: skip
    for path in out.iterdir():
        fromstring(path.read_text())
        assert SECRET not in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    second = tollkeeper("connect", "freeswitch", peer, "--out", str(out))
    assert second.code != 0
    assert "--force" in second.err
    third = tollkeeper(
        "connect", "freeswitch", peer, "--out", str(out), "--force", "--with-password",
        "--mode", "curl", "--key", "tk_x",
    )  # fmt: skip
    assert third.code == 0, third.err
    socket = fromstring((out / "event_socket.conf.xml").read_text())
    assert SECRET in [one.get("value") for one in socket.iter("param")]
    assert (out / "xml_curl.conf.xml").exists()
    assert "stands for" not in third.out


def test_a_peer_that_is_none_is_told_so(tollkeeper: Command, peer: str, tmp_path: Path) -> None:
    """With what to do."""
    found = tollkeeper("connect", "freeswitch", f"{peer}x", "--out", str(tmp_path))
    assert found.code != 0
    assert "add it first" in found.err
