"""Peers and credentials are kept, changed at once for every process, and refused with one sentence."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.protocols.house import add_trunk
from tests.support import World, runtime, until
from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services import credentials, peers
from tollkeeper.services.credentials import CredentialEntry
from tollkeeper.services.peer_options import (
    COMMON,
    HIDDEN,
    KINDS,
    OPTIONS,
    checked_options,
    options_of,
)
from tollkeeper.services.peers import Peer

SIP = Peer(
    0,
    "gw",
    "sip",
    "",
    addresses=("192.0.2.9/24", "2001:DB8::1"),
    options={"routes": [{"to": "sip:{number}@203.0.113.5", "q": "1.0"}]},
)


@dataclass
class Desk:
    """A running process and its database."""

    world: World
    parts: Any

    @property
    def database(self) -> Any:
        """The database."""
        return self.parts.database

    @property
    def book(self) -> Any:
        """The peers as the process knows them."""
        return self.parts.board.book

    async def create(self, peer: Peer) -> tuple[Peer, str]:
        """Create."""
        return await peers.create_peer(self.database, peer, actor="test")

    async def change(self, code: str, /, **changes: Any) -> Peer:
        """Change."""
        return await peers.change_peer(self.database, code, changes, actor="test")


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    """The customer acme with the trunk acme-in."""
    with World(database_url) as world:
        add_trunk(world, "acme-in", world.customer("acme"))
        async with runtime(database_url) as parts:
            yield Desk(world, parts)


async def test_a_peer_is_kept_as_it_was_given_and_known_at_once(desk: Desk) -> None:
    """Addresses in one form, the switch named as the peer, and no restart of the process."""
    made, secret = await desk.create(SIP)
    assert made == replace(SIP, id=made.id, switch="gw", addresses=("192.0.2.0/24", "2001:db8::1"))
    assert secret == ""
    await until(lambda: desk.book.at("sip", "192.0.2.77") == made)
    assert await peers.get_peer(desk.database, "gw") == made


async def test_a_change_is_in_force_everywhere_and_options_are_changed_one_by_one(
    desk: Desk,
) -> None:
    await desk.create(SIP)
    changed = await desk.change(
        "gw", trunk="acme-in", options={"slice": 60}, on_failure="allow", risk_seconds=600
    )
    assert (changed.trunk, changed.whole("slice"), len(changed.rows("routes"))) == (
        "acme-in",
        60,
        1,
    )
    await until(lambda: desk.book.peers.get("gw") == changed)
    less = await desk.change("gw", options={"routes": None}, enabled=False)
    assert dict(less.options) == {"slice": 60}
    await until(lambda: desk.book.at("sip", "192.0.2.77") is None)
    await peers.delete_peer(desk.database, "gw", actor="test")
    await until(lambda: "gw" not in desk.book.peers)
    with pytest.raises(NotFound, match="gw"):
        await desk.change("gw", enabled=True)


async def test_a_secret_is_made_where_we_choose_it_and_is_in_no_audit_trail(desk: Desk) -> None:
    radius = Peer(0, "nas", "radius", "", ("192.0.2.1",), options={"orders_secret": "hush-2"})
    made, secret = await desk.create(radius)
    assert made.secret == secret
    assert len(secret) == 32
    _, password = await desk.create(Peer(0, "esme", "esme", ""))
    assert len(password) == 8
    await desk.change("nas", secret="hush-1")
    trail = str(desk.world.sql("SELECT subject, detail FROM audit ORDER BY id"))
    assert "hush" not in trail
    assert secret not in trail
    assert HIDDEN in trail
    assert "hush-1" not in repr(await peers.get_peer(desk.database, "nas"))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"kind": "pigeon"}, "kind"),
    ({"code": "a b"}, "code"),
    ({"switch": "a/b"}, "switch"),
    ({"addresses": ()}, "addresses"),
    ({"addresses": ("gw.example.net",)}, "addresses"),
    ({"addresses": ("192.0.2.1",) * 201}, "addresses"),
    ({"timezone": "Mars/Base"}, "timezone"),
    ({"on_failure": "maybe"}, "on_failure"),
    ({"on_failure": "allow"}, "risk_seconds"),
    ({"risk_seconds": 86_401}, "risk_seconds"),
    ({"trunk": "none"}, "trunk"),
    ({"dialect": "a\nb"}, "dialect"),
    ({"secret": "a\nb"}, "secret"),
    ({"kind": "smsc"}, "secret"),
    ({"options": {"colour": "red"}}, "options"),
    ({"options": {"slice": "60"}}, "options"),
    ({"options": {"slice": True}}, "options"),
    ({"options": {"slice": 0}}, "options"),
    ({"options": {"accounts_are_parties": 1}}, "options"),
    ({"options": {"limit_header": "X: y"}}, "options"),
    ({"options": {"limit_header": "X" * 2000}}, "options"),
    ({"options": {"routes": [{"to": "a b"}]}}, "routes.1"),
]


async def test_what_is_wrong_is_refused_and_the_field_named(desk: Desk) -> None:
    for changes, field in WRONG:
        with pytest.raises(InvalidInput) as refused:
            await desk.create(replace(SIP, **changes))
        assert refused.value.field == field, changes
    assert await peers.list_peers(desk.database) == []


async def test_two_peers_of_a_kind_never_share_an_address(desk: Desk) -> None:
    """It would be left to chance whose calls they are; another kind may come from there."""
    await desk.create(SIP)
    with pytest.raises(Conflict, match='"gw"'):
        await desk.create(replace(SIP, code="gw2"))
    with pytest.raises(Conflict, match="taken"):
        await desk.create(replace(SIP, addresses=("192.0.2.200",)))
    await desk.create(replace(SIP, code="ast", kind="asterisk", options={}))
    await desk.create(replace(SIP, code="gw3", addresses=("192.0.2.5",)))
    with pytest.raises(Conflict):
        await desk.change("gw3", addresses=("2001:db8::1",))
    found = await peers.list_peers(desk.database, kind="sip", after="gw")
    assert [peer.code for peer in found] == ["gw3"]


FIXED = ["code", "kind", "switch", "id", "created_at"]


async def test_what_a_peer_is_cannot_be_changed(desk: Desk) -> None:
    await desk.create(SIP)
    for field in FIXED:
        with pytest.raises(InvalidInput, match=field):
            await desk.change("gw", **{field: "x"})


# --- options -------------------------------------------------------------------------------------


def test_the_table_of_options_is_sound() -> None:
    """Every kind has its row, no name is there twice, and each default may be written down."""
    assert tuple(OPTIONS) == KINDS
    for kind in KINDS:
        names = [option.name for option in options_of(kind)]
        assert len(names) == len(set(names))
        assert {option.name for option in COMMON} <= set(names)
        for option in options_of(kind):
            assert option.type in {"text", "whole", "flag", "rows"}
            assert option.meaning.endswith("."), option.name
            checked_options(kind, {option.name: option.default})


# --- credentials ---------------------------------------------------------------------------------


async def add(desk: Desk, username: str = "bob", realm: str = "r", **more: Any) -> CredentialEntry:
    """A credential of acme with the password "secret"."""
    entry = CredentialEntry(username, realm, more.pop("party", "acme"))
    proof = more or {"password": "secret"}
    return await credentials.create_credential(desk.database, entry, **proof, actor="test")


async def test_a_user_name_is_known_at_once_by_its_ha1(desk: Desk) -> None:
    made = await add(desk)
    ha1 = hashlib.md5(b"bob:r:secret").hexdigest()
    await until(lambda: getattr(desk.book.credential("bob", "r"), "ha1", "") == ha1)
    assert await credentials.find_credential(desk.database, "bob", "r") == made
    other = "0" * 32
    await credentials.change_credential(desk.database, made.id, {"ha1": other}, actor="test")
    await until(lambda: desk.book.credential("bob", "r").ha1 == other)
    await credentials.change_credential(desk.database, made.id, {"enabled": False}, actor="test")
    await until(lambda: desk.book.credential("bob", "r") is None)
    assert other not in str(desk.world.sql("SELECT * FROM audit"))
    await credentials.delete_credential(desk.database, made.id, actor="test")
    assert await credentials.list_credentials(desk.database) == []


async def test_user_names_are_listed_by_party_and_page(desk: Desk) -> None:
    desk.world.customer("beta")
    for name, party in (("a", "acme"), ("b", "beta"), ("c", "acme")):
        await add(desk, name, party=party, password="x")
    listed = await credentials.list_credentials(desk.database, party="acme", limit=1)
    assert [one.username for one in listed] == ["a"]
    rest = await credentials.list_credentials(desk.database, party="acme", after=listed[0].id)
    assert [one.username for one in rest] == ["c"]


WRONG_CREDENTIALS: list[tuple[dict[str, Any], str]] = [
    ({"username": "a:b"}, "username"),
    ({"username": ""}, "username"),
    ({"realm": 'a"b'}, "realm"),
    ({"party": "nobody"}, "party"),
    ({"password": ""}, "password"),
    ({"password": "x" * 200}, "password"),
    ({"ha1": "A" * 32}, "ha1"),
    ({"ha1": "a" * 32, "password": "x"}, "ha1"),
]


async def test_a_wrong_credential_is_refused(desk: Desk) -> None:
    for values, field in WRONG_CREDENTIALS:
        with pytest.raises(InvalidInput) as refused:
            await add(desk, **values)
        assert refused.value.field == field, values


async def test_a_realm_has_a_user_name_once(desk: Desk) -> None:
    await add(desk)
    await add(desk, realm="other")
    with pytest.raises(Conflict):
        await add(desk)
    with pytest.raises(NotFound, match="carol"):
        await credentials.find_credential(desk.database, "carol", "r")
    with pytest.raises(NotFound):
        await credentials.get_credential(desk.database, 99)
