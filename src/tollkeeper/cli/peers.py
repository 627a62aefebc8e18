"""The commands ``peer`` and ``credential``: who speaks a protocol with us, and who calls through them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from tollkeeper.cli.common import FileOrInput, actor, console, given, run, table
from tollkeeper.errors import InvalidInput
from tollkeeper.services import credentials, peers
from tollkeeper.services.credentials import CredentialEntry
from tollkeeper.services.peer_options import options_of, shown_options
from tollkeeper.services.peers import Peer
from tollkeeper.store.db import Database

peer_app = App(name="peer", help="Switches and other peers: add, list, show, change, delete.")
credential_app = App(name="credential", help="User names that may call, and who pays for them.")

Kind = Literal[
    "radius", "freeswitch", "kamailio", "asterisk", "vos3000", "diameter", "esme", "smsc", "sip"
]
OnFailure = Literal["refuse", "allow"]
Several = Annotated[list[str] | None, Parameter(negative=())]
YES, NO = ("on", "yes", "true"), ("off", "no", "false")


@peer_app.command
def add(
    code: str,
    *,
    kind: Kind,
    address: Several = None,
    switch: str = "",
    trunk: str = "",
    secret_file: FileOrInput | None = None,
    dialect: str = "",
    timezone: str = "UTC",
    on_failure: OnFailure = "refuse",
    risk_seconds: int = 0,
    option: Several = None,
    disabled: bool = False,
) -> None:
    """Add a peer. Of kind radius, kamailio and esme a secret is made, and shown once, if none is given.

    Args:
        code: Its short name, used everywhere.
        kind: What it speaks.
        address: IP address or network that it comes from; may be given several times.
        switch: Name under which its calls are kept; its code if left out.
        trunk: The trunk that all its calls are of; without one each call tells.
        secret_file: File with its secret or password; "-" reads standard input.
        dialect: Of the protocol, where the kind has some.
        timezone: Of its clock.
        on_failure: What new calls get while nothing can be charged.
        risk_seconds: How many seconds are let through unpaid then, in all.
        option: "name=value", or "name=@file" with JSON; "peer options KIND" lists them.
        disabled: Take nothing from it yet.
    """
    peer = Peer(
        id=0,
        code=code,
        kind=kind,
        switch=switch,
        addresses=tuple(address or ()),
        secret=_secret(secret_file) or "",
        dialect=dialect,
        trunk=trunk,
        timezone=timezone,
        on_failure=on_failure,
        risk_seconds=risk_seconds,
        options=read_options(kind, option or []),
        enabled=not disabled,
    )
    _, secret = run(lambda database: peers.create_peer(database, peer, actor=actor()))
    console().print(f"peer {code} added", markup=False)
    if secret:
        console().print(f"secret (shown only now): {secret}", markup=False, soft_wrap=True)


@peer_app.command(name="list")
def list_peers(*, kind: Kind | None = None, after: str = "", limit: int = 1000) -> None:
    """List peers in the order of their codes.

    Args:
        kind: Only these.
        after: Begin after this code.
        limit: How many at most.
    """
    found = run(
        lambda database: peers.list_peers(database, kind=kind or "", after=after, limit=limit)
    )
    rows = [
        (
            p.code,
            p.kind,
            p.switch,
            ", ".join(p.addresses),
            p.trunk or "each call tells",
            p.on_failure,
            "enabled" if p.enabled else "disabled",
        )
        for p in found
    ]
    columns = ["code", "kind", "switch", "addresses", "trunk", "on failure", "state"]
    console().print(table(f"{len(found)} peers", columns, rows), markup=False)


@peer_app.command
def show(code: str) -> None:
    """Show all of a peer but its secrets, the options as JSON.

    Args:
        code: The peer.
    """
    found = run(lambda database: peers.get_peer(database, code))
    rows = [
        ("kind", found.kind),
        ("switch", found.switch),
        ("addresses", ", ".join(found.addresses)),
        ("secret", "set" if found.secret else "none"),
        ("trunk", found.trunk or "each call tells"),
        ("dialect", found.dialect),
        ("time zone", found.timezone),
        ("on failure", f"{found.on_failure}, {found.risk_seconds} s at risk"),
        ("state", "enabled" if found.enabled else "disabled"),
    ]
    console().print(table(f"peer {code}", ["what", "value"], rows), markup=False)
    console().print(json.dumps(shown_options(found.kind, found.options), indent=2), markup=False)


@peer_app.command
def change(
    code: str,
    *,
    address: Several = None,
    trunk: str | None = None,
    secret_file: FileOrInput | None = None,
    dialect: str | None = None,
    timezone: str | None = None,
    on_failure: OnFailure | None = None,
    risk_seconds: int | None = None,
    option: Several = None,
    enabled: bool | None = None,
) -> None:
    """Change a peer; what is not given stays. It is in force a moment later, without a restart.

    Args:
        code: The peer.
        address: IP address or network; replaces all addresses.
        trunk: The trunk that all its calls are of; "" for none.
        secret_file: File with its new secret or password; "-" reads standard input.
        dialect: Of the protocol.
        timezone: Of its clock.
        on_failure: What new calls get while nothing can be charged.
        risk_seconds: How many seconds are let through unpaid then, in all.
        option: "name=value"; "name=" takes an option away, so that its default holds.
        enabled: Whether anything is taken from it.
    """

    async def work(database: Database) -> None:
        kind = (await peers.get_peer(database, code)).kind
        changes = given(
            addresses=None if address is None else tuple(address),
            trunk=trunk,
            secret=_secret(secret_file),
            dialect=dialect,
            timezone=timezone,
            on_failure=on_failure,
            risk_seconds=risk_seconds,
            options=None if option is None else read_options(kind, option),
            enabled=enabled,
        )
        await peers.change_peer(database, code, changes, actor=actor())

    run(work)
    console().print(f"peer {code} changed", markup=False)


@peer_app.command
def delete(code: str) -> None:
    """Delete a peer: nothing that it sends is taken any more.

    Args:
        code: The peer.
    """
    run(lambda database: peers.delete_peer(database, code, actor=actor()))
    console().print(f"peer {code} deleted", markup=False)


@peer_app.command
def options(kind: Kind) -> None:
    """List the options of a kind of peer, with their defaults.

    Args:
        kind: What the peer speaks.
    """
    rows = [
        (each.name, each.type, json.dumps(each.default), each.meaning) for each in options_of(kind)
    ]
    columns = ["option", "type", "default", "meaning"]
    console().print(table(f"options of {kind}", columns, rows), markup=False)


def read_options(kind: str, texts: list[str]) -> dict[str, object]:
    """Options out of ``name=value``; None for an empty value.

    Raises:
        InvalidInput: no such option, or a value that is not of its type.
    """
    known = {option.name: option.type for option in options_of(kind)}
    found: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            raise InvalidInput(
                f'option: "{text[:60]}" is not NAME=VALUE with an option of {kind}; '
                f'"tollkeeper peer options {kind}" lists them',
                field="option",
            )
        found[name] = _value(name, known[name], value)
    return found


def _value(name: str, kind: str, text: str) -> object:
    if not text:
        return None
    if text.startswith("@") and kind == "rows":
        try:
            text = Path(text[1:]).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"option {name}: {error}", field="option") from error
    if kind == "flag" and text.lower() in YES + NO:
        return text.lower() in YES
    if kind == "whole" and text.isascii() and text.isdigit() and len(text) < 20:
        return int(text)
    if kind == "rows":
        try:
            return json.loads(text)
        except ValueError:
            raise InvalidInput(
                f'option {name}: give JSON such as [{{"name": "value"}}], or @FILE', field="option"
            ) from None
    return text


def _secret(file: Path | None) -> str | None:
    """A secret from a file: on the command line every user of the machine could read it."""
    if file is None:
        return None
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"secret: {error}", field="secret_file") from error
    return text.strip("\r\n")


# --- credentials ---------------------------------------------------------------------------------


@credential_app.command(name="add")
def add_credential(
    username: str,
    *,
    party: str,
    realm: str = "",
    password_file: FileOrInput | None = None,
    ha1: str = "",
    disabled: bool = False,
) -> None:
    """Add a user name that may call, with its password or its HA1.

    Args:
        username: The name in the digest or the User-Name.
        party: Who pays.
        realm: Realm of the digest; without one, any, for passwords that are sent.
        password_file: File with the password; "-" reads standard input.
        ha1: MD5(username:realm:password) in hexadecimal, in place of the password.
        disabled: May not call yet.
    """
    entry = CredentialEntry(username, realm, party, enabled=not disabled)
    password = _secret(password_file) or ""
    run(
        lambda database: credentials.create_credential(
            database, entry, password=password, ha1=ha1, actor=actor()
        )
    )
    console().print(f"credential {username} of {party} added", markup=False)


@credential_app.command(name="list")
def list_credentials(*, party: str = "", after: int = 0, limit: int = 1000) -> None:
    """List user names in the order in which they were added.

    Args:
        party: Only this party's.
        after: Begin after this number.
        limit: How many at most.
    """
    found = run(
        lambda database: credentials.list_credentials(
            database, party=party, after=after, limit=limit
        )
    )
    rows = [
        (c.id, c.username, c.realm or "any", c.party, "enabled" if c.enabled else "disabled")
        for c in found
    ]
    columns = ["id", "user name", "realm", "party", "state"]
    console().print(table(f"{len(found)} credentials", columns, rows), markup=False)


@credential_app.command(name="change")
def change_credential(
    username: str,
    *,
    realm: str = "",
    party: str | None = None,
    password_file: FileOrInput | None = None,
    ha1: str | None = None,
    enabled: bool | None = None,
) -> None:
    """Change a user name; what is not given stays.

    Args:
        username: The name.
        realm: Its realm.
        party: Who pays from now on.
        password_file: File with the new password; "-" reads standard input.
        ha1: The new HA1, in place of the password.
        enabled: Whether it may call.
    """
    changes = given(party=party, password=_secret(password_file), ha1=ha1, enabled=enabled)

    async def work(database: Database) -> None:
        found = await credentials.find_credential(database, username, realm)
        await credentials.change_credential(database, found.id, changes, actor=actor())

    run(work)
    console().print(f"credential {username} changed", markup=False)


@credential_app.command(name="delete")
def delete_credential(username: str, *, realm: str = "") -> None:
    """Delete a user name; calls that are up go on.

    Args:
        username: The name.
        realm: Its realm.
    """

    async def work(database: Database) -> None:
        found = await credentials.find_credential(database, username, realm)
        await credentials.delete_credential(database, found.id, actor=actor())

    run(work)
    console().print(f"credential {username} deleted", markup=False)
