"""The command ``connect asterisk``: a dialplan that asks before each call, and the agent's login."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tollkeeper.cli.common import console
from tollkeeper.cli.connect.asterisk_files import EXTENSIONS, MANAGER, Site, configuration
from tollkeeper.cli.connect.common import find_peer, write_files
from tollkeeper.servers.risk import RISK_GRANT_SECONDS
from tollkeeper.store.peers import Peer


def asterisk(
    peer: str,
    /,
    *,
    out: Path = Path(),
    agi: Annotated[list[str], Parameter(negative=())],
    gateway: str = "",
    client: Annotated[list[str] | None, Parameter(negative=())] = None,
    force: bool = False,
) -> None:
    """Write tollkeeper-extensions.conf, a context that asks before each call, and tollkeeper-manager.conf.

    Args:
        peer: Code of the peer (kind asterisk) that these files are for.
        out: Folder for the files.
        agi: Where Asterisk reaches Tollkeeper's FastAGI, such as 192.0.2.7:4573; a second one is asked when the first says nothing.
        gateway: PJSIP endpoint that calls go to, where the peer has no routes.
        client: IP address that Tollkeeper connects from; may be given several times.
        force: Overwrite files that are there.
    """
    found = find_peer(peer, "asterisk")
    site = site_of(found, agi=tuple(agi), gateway=gateway, clients=tuple(client or ("127.0.0.1",)))
    paths = write_files(out.resolve(), configuration(site), force=force)
    say = console()
    for path in paths:
        say.print(f"written: {path}", markup=False, soft_wrap=True)
    for line in _steps(found, site):
        say.print(line, markup=False, soft_wrap=True)


def site_of(peer: Peer, *, agi: tuple[str, ...], gateway: str, clients: tuple[str, ...]) -> Site:
    """What the files say, of a peer and the command line."""
    risk = peer.risk_seconds if peer.on_failure == "allow" else 0
    seconds = min(RISK_GRANT_SECONDS, risk)
    return Site(
        peer=peer.code,
        agi=agi,
        gateway=gateway,
        routes=bool(peer.rows("routes")),
        clients=clients,
        username=peer.text("username") or "tollkeeper",
        secret=peer.secret,
        open_seconds=seconds,
        open_calls=risk // seconds if seconds else 0,
    )


def _steps(peer: Peer, site: Site) -> list[str]:
    steps = [
        "",
        f'1. in extensions.conf:  #include "{EXTENSIONS}"  and give endpoints of customers  context = tollkeeper',
    ]
    if site.secret:
        place = peer.text("connect") or "(set the option connect)"
        steps += [
            f'2. in manager.conf:  #include "{MANAGER}"  and in [general]  enabled = yes, bindaddr, port',
            "3. asterisk -rx 'dialplan reload' and asterisk -rx 'manager reload'",
            f"Tollkeeper connects to {place} by itself, extends calls while there is money, and ends them.",
        ]
    else:
        steps += [
            "2. asterisk -rx 'dialplan reload'",
            "The peer has no secret, so no agent: each call gets its whole time at once, and nobody can end it.",
        ]
    return steps
