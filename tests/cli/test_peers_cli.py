"""The commands of peers and credentials."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.support import World


@pytest.fixture(autouse=True)
def acme(on_database: str) -> None:
    """A customer."""
    with World(on_database) as world:
        world.customer("acme")


def test_a_peer_is_added_shown_changed_and_deleted(tollkeeper: Command, tmp_path: Path) -> None:
    routes = tmp_path / "routes.json"
    routes.write_text(json.dumps([{"prefix": "44", "to": "sip:{number}@203.0.113.5"}]))
    added = tollkeeper(
        "peer", "add", "gw", "--kind", "sip", "--address", "192.0.2.7", "--address", "192.0.2.8",
        "--option", f"routes=@{routes}", "--option", "slice=600",
        "--option", "accounts_are_parties=on",
    )  # fmt: skip
    assert (added.code, added.out, added.err) == (0, "peer gw added\n", "")
    shown = tollkeeper("peer", "show", "gw")
    options = json.loads(shown.out[shown.out.index("{") :])
    assert options == {
        "slice": 600,
        "accounts_are_parties": True,
        "routes": [{"prefix": "44", "to": "sip:{number}@203.0.113.5"}],
    }
    assert "192.0.2.7, 192.0.2.8" in shown.out
    changed = tollkeeper(
        "peer", "change", "gw", "--option", "slice=", "--option", "limit_header=X-Max",
        "--no-enabled", "--address", "192.0.2.9",
    )  # fmt: skip
    assert (changed.code, changed.err) == (0, "")
    again = tollkeeper("peer", "show", "gw").out
    assert sorted(json.loads(again[again.index("{") :])) == [
        "accounts_are_parties",
        "limit_header",
        "routes",
    ]
    listed = tollkeeper("peer", "list", "--kind", "sip").out
    assert re.search(r"gw\W+sip\W+gw\W+192\.0\.2\.9\W+each call tells\W+refuse\W+disabled", listed)
    assert tollkeeper("peer", "delete", "gw").code == 0
    gone = tollkeeper("peer", "show", "gw")
    assert (gone.code, gone.err) == (1, 'tollkeeper: there is no peer "gw"\n')


def test_a_made_secret_is_shown_once_and_a_given_one_never(
    tollkeeper: Command, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("hush-hush\n")
    made = tollkeeper("peer", "add", "nas", "--kind", "radius", "--address", "192.0.2.7")
    (secret,) = re.findall(r"secret \(shown only now\): (\S{32})\n", made.out)
    assert secret not in tollkeeper("peer", "show", "nas").out
    given = tollkeeper(
        "peer", "change", "nas", "--secret-file", str(tmp_path / "secret"),
        "--option", "orders_secret=hush-too",
    )  # fmt: skip
    assert (given.code, given.err) == (0, "")
    shown = tollkeeper("peer", "show", "nas").out
    assert "hush" not in shown
    assert re.search(r"secret\W+set", shown)


WRONG = [
    (("--option", "colour=red"), "NAME=VALUE"),
    (("--option", "slice"), "NAME=VALUE"),
    (("--option", "slice=many"), "slice must be a whole number"),
    (("--option", "routes={"), "give JSON"),
    (("--option", "routes=@/no/such/file"), "No such file"),
    (("--option", "accounts_are_parties=perhaps"), "true or false"),
    (("--secret-file", "/no/such/file"), "secret: "),
    (("--on-failure", "allow"), "risk_seconds"),
]


def test_what_is_wrong_is_one_sentence(tollkeeper: Command) -> None:
    for arguments, sentence in WRONG:
        ran = tollkeeper("peer", "add", "gw", "--kind", "sip", "--address", "192.0.2.7", *arguments)
        assert (ran.code, ran.err.count("\n")) == (1, 1), ran
        assert sentence in ran.err


def test_the_options_of_a_kind_are_listed(tollkeeper: Command) -> None:
    out = tollkeeper("peer", "options", "sip").out
    assert "limit_header" in out
    assert "7200" in out


def test_a_credential_is_added_listed_changed_and_deleted(
    tollkeeper: Command, tmp_path: Path
) -> None:
    (tmp_path / "pw").write_text("hush-hush\n")
    added = tollkeeper(
        "credential", "add", "bob", "--party", "acme", "--realm", "example.net",
        "--password-file", str(tmp_path / "pw"),
    )  # fmt: skip
    assert (added.code, added.out) == (0, "credential bob of acme added\n")
    listed = tollkeeper("credential", "list", "--party", "acme").out
    assert re.search(r"bob\W+example\.net\W+acme\W+enabled", listed)
    assert "hush" not in listed
    name = ("bob", "--realm", "example.net")
    assert tollkeeper("credential", "change", *name, "--no-enabled").code == 0
    assert "disabled" in tollkeeper("credential", "list").out
    assert tollkeeper("credential", "delete", *name).code == 0
    gone = tollkeeper("credential", "delete", *name)
    assert gone.err == 'tollkeeper: there is no user name "bob" in the realm "example.net"\n'
