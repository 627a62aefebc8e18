"""The commands "connect asterisk" and "connect vos3000": files and steps as an engineer gets them."""

from __future__ import annotations

import asyncio
import re
import stat
import threading
from decimal import Decimal
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.protocols.house import add_peer
from tests.protocols.vos3000_fake import FakeVos, Money
from tests.support import World
from tollkeeper.cli.connect.asterisk_files import Site, configuration
from tollkeeper.errors import InvalidInput


@pytest.fixture
def world(on_database: str) -> World:
    """The database that the commands work on."""
    return World(on_database)


def extensions(**values: object) -> str:
    """A dialplan."""
    site = Site(**{"peer": "ast", "agi": ("192.0.2.7:4573",), "gateway": "vendor", **values})  # type: ignore[arg-type]
    return configuration(site)["tollkeeper-extensions.conf"]


def test_the_files_are_written_for_their_owner_alone(
    tollkeeper: Command, world: World, tmp_path: Path
) -> None:
    """The login has the peer's secret; nothing is overwritten without being told to."""
    with world:
        add_peer(
            world, "ast", "asterisk", addresses=["192.0.2.1"], secret="s3;cret",
            options={"connect": "192.0.2.1:5038"},
        )  # fmt: skip
        command = (
            "connect", "asterisk", "ast", "--out", str(tmp_path), "--agi", "192.0.2.7:4573",
            "--gateway", "vendor", "--client", "192.0.2.7",
        )  # fmt: skip
        made = tollkeeper(*command)
        assert made.code == 0, made.err
        assert "192.0.2.1:5038" in made.out
        manager = tmp_path / "tollkeeper-manager.conf"
        assert "secret = s3\\;cret\n" in manager.read_text()
        assert "permit = 192.0.2.7/32\n" in manager.read_text()
        assert stat.S_IMODE(manager.stat().st_mode) == 0o600
        again = tollkeeper(*command)
        assert again.code != 0
        assert "--force" in again.err
        assert tollkeeper(*command, "--force").code == 0


def test_without_a_secret_there_is_no_login(
    tollkeeper: Command, world: World, tmp_path: Path
) -> None:
    """And the engineer is told what that means."""
    with world:
        add_peer(world, "ast", "asterisk", addresses=["192.0.2.1"])
        made = tollkeeper(
            "connect", "asterisk", "ast", "--out", str(tmp_path), "--agi", "192.0.2.7:4573",
            "--gateway", "vendor",
        )  # fmt: skip
    assert made.code == 0, made.err
    assert "nobody can end it" in made.out
    assert [path.name for path in tmp_path.iterdir()] == ["tollkeeper-extensions.conf"]


def test_a_peer_that_is_not_there_is_named(tollkeeper: Command, world: World) -> None:
    """One sentence."""
    with world:
        made = tollkeeper("connect", "asterisk", "nobody", "--agi", "192.0.2.7:4573")
    assert made.code != 0
    assert 'no asterisk peer "nobody"' in made.err


def test_every_jump_of_the_dialplan_has_its_label() -> None:
    """In each of its forms; and what a customer dials is in no argument."""
    for values in (
        {}, {"routes": True}, {"routes": True, "gateway": ""}, {"open_calls": 3, "open_seconds": 60},
        {"open_calls": 3, "open_seconds": 60, "routes": True}, {"agi": ("a.example:4573", "b.example")},
    ):  # fmt: skip
        text = extensions(**values)
        labels = set(re.findall(r"n\((\w+)\)", text))
        jumps = set(re.findall(r"\?(\w+)\)", text)) | set(re.findall(r"Goto\((\w+)\)", text))
        assert jumps <= labels, values
        assert "${EXTEN}" not in re.sub(
            r"FILTER\(0-9,\$\{EXTEN\}\)|^;.*$", "", text, flags=re.MULTILINE
        )
        assert "CALLERID" not in text


def test_a_second_server_is_asked_where_the_first_said_nothing() -> None:
    """Before the call and at its end."""
    text = extensions(agi=("a.example:4573", "b.example:4573"))
    first, second = text.index("a.example:4573/authorise"), text.index("b.example:4573/authorise")
    assert '"${TK_RESULT}" = ""' in text[first:second]
    assert '"${TK_SETTLED}" != "yes"' in text[text.index("a.example:4573/hangup") :]


def test_calls_are_let_through_only_where_the_policy_says_so() -> None:
    """So many at once, each for so long."""
    assert "open@tollkeeper" not in extensions()
    text = extensions(open_calls=5, open_seconds=60)
    assert "GROUP_COUNT(open@tollkeeper)} > 5]" in text
    assert "L(60000)" in text


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"agi": ("a\nb",)}, "agi"),
        ({"agi": ("192.0.2.7/x,y",)}, "agi"),
        ({"gateway": "a,b"}, "gateway"),
        ({"gateway": ""}, "gateway"),
        ({"secret": "a\nb"}, "secret"),
        ({"username": "a]b"}, "username"),
        ({"clients": ("here",)}, "client"),
    ],
)
def test_a_value_that_would_break_the_files_is_refused(
    values: dict[str, object], field: str
) -> None:
    """By its name."""
    with pytest.raises(InvalidInput) as caught:
        extensions(**values)
    assert caught.value.field == field


class _Served:
    """A fake platform in a thread: the command has a loop of its own."""

    def __init__(self, fake: FakeVos) -> None:
        self._fake = fake
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> FakeVos:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._fake.__aenter__(), self._loop).result(5)
        return self._fake

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._fake.__aexit__(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


def test_accounts_are_shown_beside_wallets(tollkeeper: Command, world: World) -> None:
    """Before anything is pushed: which account is which party, and what both have."""
    fake = FakeVos()
    fake.accounts = {"1001": Money(Decimal("7.5"), Decimal(1))}
    with world, _Served(fake):
        world.customer("acme", balance="25")
        rows = [{"account": "1001", "party": "acme"}, {"account": "1002", "party": "nobody"}]
        options = {"connect": f"127.0.0.1:{fake.port}", "currency": "USD", "accounts": rows}
        add_peer(world, "vos", "vos3000", options=options)
        made = tollkeeper("connect", "vos3000", "vos", "--check")
    assert made.code == 0, made.err
    assert "/external/server/DisconnectCurrentCall" in made.out
    assert re.search(r"1001 +acme +8\.5 +25\.0+", made.out)
    assert re.search(r"1002 +nobody +no such account +no such wallet", made.out)
    assert {name for name, _ in fake.asked} == {"GetCustomer"}


def test_a_platform_that_is_away_is_said_to_be(tollkeeper: Command, world: World) -> None:
    """One sentence, no traceback."""
    with world:
        rows = [{"account": "1001", "party": "acme"}]
        add_peer(world, "vos", "vos3000", options={"connect": "127.0.0.1:1", "accounts": rows})
        made = tollkeeper("connect", "vos3000", "vos", "--check")
    assert made.code != 0
    assert "does not answer as it should" in made.err
    assert "Traceback" not in made.err
