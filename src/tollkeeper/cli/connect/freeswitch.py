"""The command ``connect freeswitch``: dialplan and configuration of a FreeSWITCH."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tollkeeper.cli.common import console
from tollkeeper.cli.connect.common import find_peer, write_files
from tollkeeper.cli.connect.freeswitch_files import (
    KEY,
    PASSWORD,
    PLACES,
    Mode,
    Site,
    configuration,
)
from tollkeeper.errors import InvalidInput
from tollkeeper.servers.freeswitch.agent import address_of
from tollkeeper.servers.freeswitch.words import ENTRY_CONTEXT, ROUTING_CONTEXT
from tollkeeper.store.peers import Peer

ANY = "0.0.0.0"  # noqa: S104 - the list of addresses says who may connect


def freeswitch(
    peer: str,
    /,
    *,
    out: Path = Path(),
    mode: Mode = "park",
    client: Annotated[list[str] | None, Parameter(negative=())] = None,
    api: str = "http://127.0.0.1:8080",
    source: str = "",
    key: str = "",
    bridge: str = "sofia/gateway/YOUR-CARRIER/$1",
    park_seconds: int = 10,
    with_password: Annotated[bool, Parameter(negative=())] = False,
    force: bool = False,
) -> None:
    """Write the dialplan and the configuration of a FreeSWITCH, and say where each goes.

    Args:
        peer: Code of the peer (kind freeswitch) that these files are for.
        out: Folder for the files.
        mode: park, where Tollkeeper decides on parked calls; or curl, where the switch asks over HTTP.
        client: IP address or network that Tollkeeper connects from; may be given several times.
        api: Tollkeeper's HTTP interface, as the switch reaches it.
        source: Code of a source of the kind http, by whose files the records are loaded too.
        key: API key with the scope charge, of the peer's switch; left out, a placeholder stands for it.
        bridge: Dial string of the example route; $1 is the number.
        park_seconds: How long a parked call waits for a decision before it is ended.
        with_password: Write the peer's password into the file in the place of a placeholder.
        force: Overwrite files that are there.
    """
    site = site_of(
        find_peer(peer, "freeswitch"),
        mode=mode,
        clients=tuple(client or ("127.0.0.1/32",)),
        api=api,
        source=source,
        key=key,
        bridge=bridge,
        park_seconds=park_seconds,
        with_password=with_password,
    )
    paths = write_files(out.resolve(), configuration(site), force=force)
    say = console()
    for path in paths:
        say.print(f"written: {path}", markup=False, soft_wrap=True)
    for line in _steps(site, [path.name for path in paths]):
        say.print(line, markup=False, soft_wrap=True)


def site_of(
    peer: Peer,
    *,
    mode: Mode,
    clients: tuple[str, ...],
    api: str,
    source: str,
    key: str,
    bridge: str,
    park_seconds: int,
    with_password: bool,
) -> Site:
    """What the files say, of a peer and the command line.

    Raises:
        InvalidInput: an address that is none, a password that is missing, or times that make no sense.
    """
    if with_password and not peer.secret:
        raise InvalidInput(f'the peer "{peer.code}" has no secret to write', field="secret")
    if not 2 <= park_seconds <= 60:
        raise InvalidInput("--park-seconds: give 2 to 60", field="park_seconds")
    try:
        host, port = address_of(peer)
    except ConnectionError as error:
        raise InvalidInput(str(error), field="connect") from error
    return Site(
        mode=mode,
        clients=tuple(_network(client) for client in clients),
        listen_ip=host if _is_address(host) else ANY,
        listen_port=port,
        password=peer.secret if with_password else PASSWORD,
        key=key or KEY,
        api=api,
        source=source,
        entry_context=peer.text("entry_context", ENTRY_CONTEXT),
        routing_context=peer.text("routing_context", ROUTING_CONTEXT),
        bridge=bridge,
        park_seconds=park_seconds,
    )


def _network(text: str) -> str:
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        raise InvalidInput(
            f'--client: "{text}" is no IP address or network such as 192.0.2.7 or 192.0.2.0/28',
            field="client",
        ) from None


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _steps(site: Site, names: list[str]) -> list[str]:
    """What is to be done with the files."""
    steps = ["", "On the switch:"]
    steps += [f"  {name}: {PLACES[name]}" for name in names]
    modules = ["mod_event_socket", "mod_json_cdr"] + ["mod_xml_curl"] * (site.mode == "curl")
    steps += [
        f"  load {', '.join(modules)} in conf/autoload_configs/modules.conf.xml",
        f'  let your customers\' SIP profile have the context "{site.entry_context}"',
        f'  write your routes into the context "{site.routing_context}"',
    ]
    if site.password == PASSWORD:
        steps.append(
            f"  {PASSWORD} stands for the password: it must be the peer's secret (--with-password writes it)"
        )
    if site.key == KEY:
        steps.append(
            f"  {KEY} stands for an API key: make one with the scope charge for the switch (--key writes it)"
        )
    steps.append(
        "Then: fs_cli -x reloadxml; fs_cli -x reloadacl; fs_cli -x 'reload mod_event_socket'"
    )
    return steps
