"""The configuration files that put Tollkeeper into the call path of a Kamailio."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from tollkeeper.errors import InvalidInput

DIALOG_DB = "sqlite:////var/lib/kamailio/dialog.sqlite"
HTTP_URL = "http://127.0.0.1:8080"
MODULES = f"/usr/lib/{platform.machine()}-linux-gnu/kamailio/modules/"
"""Where Debian has them."""
PROXY, CHARGING = "kamailio.cfg", "tollkeeper.cfg"
Transport = Literal["evapi", "http"]

_AT_ONCE = 'modparam("dialog", "db_mode", 1)'
_SQLITE = """\
# SQLite takes one writer at a time, and Kamailio does not wait for its turn: so one process writes for all, every
# second. A crash can lose the calls of its last second; MySQL and PostgreSQL are written to at once.
modparam("dialog", "db_mode", 2)
modparam("dialog", "db_update_period", 1)"""
_LEFT = re.compile(r"@[A-Z_]+@")
_ENDPOINT = re.compile(r"[0-9A-Za-z_.:\[\]-]+:[0-9]{1,5}")
_QUOTED = re.compile(r'[^"\\\n\r]*')


@dataclass(frozen=True, slots=True)
class Site:
    """What differs from one Kamailio to the next.

    ``answer_ms``: how long a caller waits for our decision. Where none comes the call is refused, or let pass for
    ``open_seconds`` at the carrier's risk, up to ``open_calls`` at once. ``secret`` is the peer's. ``clients`` are the addresses that Tollkeeper connects from.
    ``http_url``, ``key`` (an API key with the scope ``charge``) and ``http_party`` (who pays where no account is set)
    serve the transport ``http`` alone, which holds money for ``http_seconds`` at once.
    """

    sip: str = "127.0.0.1:5060"
    rpc: str = "127.0.0.1:5060"
    evapi: str = "127.0.0.1:8448"
    gateway: str = "127.0.0.1:5070"
    clients: tuple[str, ...] = ("127.0.0.1",)
    transport: Transport = "evapi"
    answer_ms: int = 800
    open_seconds: int = 0
    open_calls: int = 0
    secret: str = ""
    ring_seconds: int = 120
    dialog_db: str = DIALOG_DB
    queue: int = 100_000
    again_seconds: int = 3
    children: int = 4
    modules: str = MODULES
    http_url: str = HTTP_URL
    key: str = ""
    http_party: str = ""
    http_seconds: int = 3600


def configuration(site: Site, folder: Path) -> dict[str, str]:
    """The files by name: the proxy, and what it includes from ``folder``.

    Raises:
        InvalidInput: a value that cannot stand in a configuration, with its field.
    """
    _check(site)
    transport = "kamailio-http.cfg" if site.transport == "http" else "kamailio-evapi.cfg"
    values = {
        "SIP_LISTEN": site.sip,
        "RPC_LISTEN": site.rpc,
        "EVAPI_LISTEN": site.evapi,
        "GATEWAY": site.gateway,
        "CLIENTS": "^(" + "|".join(_pattern(client) for client in site.clients) + ")$",
        "ANSWER_MS": str(site.answer_ms),
        "OPEN": _open(site),
        "SECRET": site.secret,
        "RING_MS": str(site.ring_seconds * 1000),
        "DIALOG_DB": site.dialog_db,
        "DIALOG_DB_MODULE": _database_module(site.dialog_db),
        "DIALOG_DB_MODE": _SQLITE if site.dialog_db.startswith("sqlite:") else _AT_ONCE,
        "QUEUE": str(site.queue),
        "AGAIN_SECONDS": str(site.again_seconds),
        "CHILDREN": str(site.children),
        "MODULES": site.modules,
        "INCLUDE": str(folder / CHARGING),
        "HTTP_URL": site.http_url.rstrip("/"),
        "HTTP_KEY": site.key,
        "HTTP_PARTY": site.http_party,
        "HTTP_SECONDS": str(site.http_seconds),
    }
    return {
        PROXY: _filled("kamailio.cfg", values),
        CHARGING: _filled("kamailio-charging.cfg", values) + _filled(transport, values),
    }


def _filled(template: str, values: dict[str, str]) -> str:
    text = (
        files("tollkeeper.cli.connect").joinpath("templates").joinpath(template).read_text("utf-8")
    )
    return _LEFT.sub(lambda match: values[match[0].strip("@")], text)


def _open(site: Site) -> str:
    if not site.open_seconds or not site.open_calls:
        return ""
    return f"#!define TK_OPEN_SECONDS {site.open_seconds}\n#!define TK_OPEN_CALLS {site.open_calls}"


def _pattern(address: str) -> str:
    """An address as a regular expression of Kamailio's, which takes a dot in brackets for a dot."""
    return address.replace(".", "[.]")


def _database_module(url: str) -> str:
    scheme = url.partition(":")[0]
    modules = {"sqlite": "db_sqlite.so", "mysql": "db_mysql.so", "postgres": "db_postgres.so"}
    if scheme not in modules:
        raise InvalidInput(
            f'dialog database "{url}" begins with none of sqlite:, mysql: and postgres:',
            field="dialog_db",
        )
    return modules[scheme]


def _check(site: Site) -> None:
    for name in ("sip", "rpc", "evapi", "gateway"):
        value = str(getattr(site, name))
        if not _ENDPOINT.fullmatch(value):
            raise InvalidInput(
                f'"{value}" is not an address and port, such as 10.0.0.5:5060', field=name
            )
    for client in site.clients:
        if not re.fullmatch(r"[0-9a-fA-F.:]+", client):
            raise InvalidInput(f'"{client}" is not an IP address', field="clients")
    for name in ("dialog_db", "modules", "http_url", "key", "secret", "http_party"):
        if not _QUOTED.fullmatch(str(getattr(site, name))):
            raise InvalidInput("a quote, a backslash or a line's end cannot stand here", field=name)
    if not 50 <= site.answer_ms <= 10_000:
        raise InvalidInput(
            f"an answer is awaited for 50 to 10000 ms, not {site.answer_ms}", field="answer_ms"
        )
    if not 0 <= site.open_seconds <= 86_400:
        raise InvalidInput(
            f"{site.open_seconds} is not within 0 and 86400 seconds", field="open_seconds"
        )
