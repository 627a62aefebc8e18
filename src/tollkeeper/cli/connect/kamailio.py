"""The command ``connect kamailio``: the configuration of a Kamailio that asks before each call."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tollkeeper.cli.common import console
from tollkeeper.cli.connect.common import find_peer, write_files
from tollkeeper.cli.connect.kamailio_files import (
    CHARGING,
    DIALOG_DB,
    HTTP_URL,
    MODULES,
    PROXY,
    Site,
    Transport,
    configuration,
)
from tollkeeper.errors import InvalidInput
from tollkeeper.servers.risk import RISK_GRANT_SECONDS
from tollkeeper.store.peers import Peer


def kamailio(
    peer: str,
    /,
    *,
    out: Path = Path(),
    gateway: str,
    sip: str = "0.0.0.0:5060",
    client: Annotated[list[str] | None, Parameter(negative=())] = None,
    transport: Transport = "evapi",
    answer_ms: int = 800,
    dialog_db: str = DIALOG_DB,
    modules: str = MODULES,
    http_url: str = HTTP_URL,
    key: str = "",
    party: str = "",
    force: bool = False,
) -> None:
    """Write kamailio.cfg, a proxy that serves as it is, and tollkeeper.cfg, to be included in one of your own.

    Args:
        peer: Code of the peer (kind kamailio) that these files are for.
        out: Folder for the files, which is also where Kamailio will read them.
        gateway: Where calls that are paid for go, such as 203.0.113.5:5060.
        sip: Address and port that Kamailio listens on for SIP, and for JSON-RPC by TCP.
        client: IP address that Tollkeeper connects from; may be given several times.
        transport: evapi, by which calls are extended and ended while they are up; or http, the simple one.
        answer_ms: How long a call waits for an answer before the peer's policy on failure decides.
        dialog_db: Database of the calls that are up: sqlite:, mysql: or postgres: as in Kamailio's dialog module.
        modules: Folder of Kamailio's modules.
        http_url: Tollkeeper's HTTP interface, for the transport http.
        key: API key with the scope charge, for the transport http.
        party: Who pays where your routes set no account, for the transport http.
        force: Overwrite files that are there.
    """
    found = find_peer(peer, "kamailio")
    site = site_of(
        found,
        gateway=gateway,
        sip=sip,
        clients=tuple(client or ("127.0.0.1",)),
        transport=transport,
        answer_ms=answer_ms,
        dialog_db=dialog_db,
        modules=modules,
        http_url=http_url,
        key=key,
        party=party,
    )
    folder = out.resolve()
    paths = write_files(folder, configuration(site, folder), force=force)
    say = console()
    for path in paths:
        say.print(f"written: {path}", markup=False, soft_wrap=True)
    for line in _steps(site, folder):
        say.print(line, markup=False, soft_wrap=True)


def site_of(
    peer: Peer,
    *,
    gateway: str,
    sip: str,
    clients: tuple[str, ...],
    transport: Transport,
    answer_ms: int,
    dialog_db: str,
    modules: str,
    http_url: str,
    key: str,
    party: str,
) -> Site:
    """What the files say, of a peer and the command line.

    Raises:
        InvalidInput: a secret or a key is missing.
    """
    if transport == "evapi" and not peer.secret:
        raise InvalidInput(
            f'the peer "{peer.code}" has no secret, and whoever reaches the evapi port of its Kamailio could allow '
            "calls; give it one",
            field="secret",
        )
    if transport == "evapi" and not peer.text("connect"):
        raise InvalidInput(
            f'the peer "{peer.code}" has no option connect: the address and port on which its Kamailio is to wait for '
            "Tollkeeper, such as 10.0.0.5:8448",
            field="connect",
        )
    if transport == "http" and not key:
        raise InvalidInput(
            "the transport http needs --key, an API key with the scope charge", field="key"
        )
    risk = peer.risk_seconds if peer.on_failure == "allow" else 0
    seconds = min(RISK_GRANT_SECONDS, risk)
    return Site(
        sip=sip,
        rpc=sip,
        evapi=peer.text("connect") or Site().evapi,
        gateway=gateway,
        clients=clients,
        transport=transport,
        answer_ms=answer_ms,
        open_seconds=seconds,
        open_calls=risk // seconds if seconds else 0,
        secret=peer.secret,
        dialog_db=dialog_db,
        modules=modules.rstrip("/") + "/",
        http_url=http_url,
        key=key,
        http_party=party,
    )


def _steps(site: Site, folder: Path) -> list[str]:
    """What is to be done with the files."""
    own = f"For one of your own, include {CHARGING} before request_route and call its routes as is done there."
    steps = ["", f"{PROXY} is a proxy that serves as it is. {own}"]
    if site.dialog_db.startswith("sqlite:"):
        path = re.sub("^/+", "/", site.dialog_db.removeprefix("sqlite://"))
        steps.append(
            f"1. make the database of calls:  cat /usr/share/kamailio/db_sqlite/standard-create.sql "
            f"/usr/share/kamailio/db_sqlite/dialog-create.sql | sqlite3 {path}"
        )
    else:
        steps.append("1. make the database of calls with kamdbctl, if it is not there")
    steps += [
        f"2. check:  kamailio -c -f {folder / PROXY}",
        f"3. start:  kamailio -DD -E -f {folder / PROXY} -m 256 -M 16",
    ]
    if site.transport == "evapi":
        steps.append(
            f"Tollkeeper connects to {site.evapi} by itself; let nobody else reach that port, nor the TCP port of "
            f"{site.rpc}."
        )
    return steps
