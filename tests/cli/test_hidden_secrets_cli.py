"""No command says a secret that it was given."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.servers.test_hidden_secrets import HA1, KEYS, MARK, hidden
from tests.support import World


@pytest.mark.usefixtures("on_database")
def test_commands_do_not_say_what_they_were_given(
    tollkeeper: Command, on_database: str, tmp_path: Path
) -> None:
    """Neither when it is set, nor when it is shown, nor when it is refused."""
    with World(on_database) as world:
        world.customer("acme")
    secret = tmp_path / "secret"
    secret.write_text(f"{MARK}-file\n")
    option = f"orders_secret={MARK}-orders"
    nas = ("nas", "--kind", "radius", "--address", "192.0.2.7", "--secret-file", str(secret))
    hook = ("hook", "https://x.example", "--event", "wallet.topup")
    works = [
        ("peer", "add", *nas, "--option", option),
        ("peer", "change", "nas", "--secret-file", str(secret), "--option", f"trunk_password={MARK}"),
        ("peer", "show", "nas"),
        ("peer", "list"),
        ("credential", "add", "bob", "--party", "acme", "--password-file", str(secret)),
        ("credential", "change", "bob", "--ha1", HA1),
        ("credential", "list"),
        ("webhook", "add", *hook, "--secret", KEYS[0]),
        ("webhook", "rotate", "hook", "--secret", KEYS[1]),
        ("webhook", "list"),
        ("webhook", "test", "hook"),
        ("webhook", "deliveries", "hook"),
    ]  # fmt: skip
    refused = [
        ("peer", "add", *nas, "--option", option),
        ("peer", "change", "nas", "--option", f"orders_secret={MARK * 99}"),
        ("credential", "add", "bob", "--party", "acme", "--ha1", HA1),
        ("credential", "add", "eve", "--party", "nobody", "--ha1", HA1),
        ("webhook", "add", *hook, "--secret", KEYS[0]),
        ("webhook", "rotate", "hook", "--secret", MARK),
    ]
    for code, commands in ((0, works), (1, refused)):
        for command in commands:
            ran = tollkeeper(*command)
            assert ran.code == code, (command, ran)
            hidden(ran.out + ran.err, " ".join(command[:2]))
