"""The commands ``key`` and ``switch``: who may call the API, and where calls are ended."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter

from tollkeeper.cli.common import actor, console, run, table
from tollkeeper.services import keys, switches

Scope = Literal["charge", "read", "manage"]

key_app = App(name="key", help="API keys: create, list, revoke.")
switch_app = App(name="switch", help="Switches: where each takes the request to end a call.")


@key_app.command
def create(
    name: str,
    *,
    scope: Annotated[list[Scope], Parameter(negative=())],
    switch: str = "http",
    party: str | None = None,
) -> None:
    """Create an API key. Its secret is shown once, now, and stored nowhere.

    Args:
        name: Who or what will use it.
        scope: charge (sessions, quotes), read (look at everything), manage (everything); may be
            given several times.
        switch: Sessions opened with the key belong to this switch; keys of one switch share them.
        party: Bounds the key to this party and those below it; left out, it is the operator's.
    """
    made = run(
        lambda database: keys.create_key(
            database, name=name, scopes=list(scope), switch=switch, party=party, actor=actor()
        )
    )
    # The secret alone on standard output: it can be piped into where it belongs.
    bound = f", bounded to {party}" if party else ""
    told = (
        f"key {made.key.id} ({', '.join(made.key.scopes)}) for switch {switch}{bound}; "
        "its secret, shown once:"
    )
    console(stderr=True).print(told)
    print(made.secret)


@key_app.command(name="list")
def list_keys(*, after: int = 0, limit: int = 1000) -> None:
    """List API keys, revoked ones too.

    Args:
        after: Begin after this id.
        limit: How many at most.
    """
    found = run(lambda database: keys.list_keys(database, after=after, limit=limit))
    rows = [
        (
            key.id,
            key.name,
            ", ".join(key.scopes),
            key.switch,
            key.party,
            f"{key.created_at:%Y-%m-%d %H:%M}",
            f"revoked {key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else "valid",
        )
        for key in found
    ]
    columns = ["id>", "name", "scopes", "switch", "party", "created", "state"]
    console().print(table(f"{len(found)} keys", columns, rows))


@key_app.command
def revoke(key_id: int) -> None:
    """End an API key at once and for ever.

    Args:
        key_id: Its id, as "key list" shows it.
    """
    run(lambda database: keys.revoke_key(database, key_id, actor=actor()))
    console().print(f"key {key_id} is revoked")


@switch_app.command(name="set")
def set_switch(code: str, *, kill_url: str, secret: str | None = None) -> None:
    """Say where a switch takes the request to end a call, and the secret that signs it.

    Args:
        code: The switch, as API keys name it.
        kill_url: Address to which the signed request (Standard Webhooks) is posted.
        secret: whsec_ and 24 to 64 bytes in base64; left out, one is made and shown once.
    """
    used = secret or switches.new_secret()
    run(
        lambda database: switches.set_switch(
            database, code=code, kill_url=kill_url, secret=used, actor=actor()
        )
    )
    console(stderr=True).print(f"switch {code} takes kill requests at {kill_url}")
    if secret is None:
        print(used)
