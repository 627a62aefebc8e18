"""The files of ``connect freeswitch``: FreeSWITCH's own XML, filled in for one peer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal
from xml.sax.saxutils import escape

Mode = Literal["park", "curl"]
PASSWORD = "CHANGE-ME"  # noqa: S105 (what stands in its place)
KEY = "API-KEY"
EVENT_SOCKET = "event_socket.conf.xml"
ACL = "tollkeeper.acl.xml"
RECORDS = "json_cdr.conf.xml"
CURL = "xml_curl.conf.xml"
DIALPLAN = "tollkeeper.xml"
PLACES = {
    EVENT_SOCKET: "conf/autoload_configs/event_socket.conf.xml",
    ACL: "into <network-lists> of conf/autoload_configs/acl.conf.xml",
    RECORDS: "conf/autoload_configs/json_cdr.conf.xml",
    CURL: "conf/autoload_configs/xml_curl.conf.xml",
    DIALPLAN: "conf/dialplan/tollkeeper.xml",
}
"""Where each file goes on the switch."""


@dataclass(frozen=True, slots=True)
class Site:
    """What the files say. ``clients`` are the addresses or networks that Tollkeeper connects from."""

    mode: Mode
    clients: tuple[str, ...]
    listen_ip: str
    listen_port: int
    password: str
    key: str
    api: str
    source: str
    entry_context: str
    routing_context: str
    bridge: str
    park_seconds: int


def configuration(site: Site) -> dict[str, str]:
    """The files by their names, ready to be written."""
    base = site.api.rstrip("/")
    values: dict[str, object] = {
        "listen_ip": site.listen_ip,
        "listen_port": site.listen_port,
        "password": site.password,
        "key": site.key,
        "cdr_url": f"{base}/v1/freeswitch/cdr" + (f"/{site.source}" if site.source else ""),
        "dialplan_url": f"{base}/v1/freeswitch/dialplan",
        "entry_context": site.entry_context,
        "routing_context": site.routing_context,
        "bridge": site.bridge,
        "park_seconds": site.park_seconds,
    }
    nodes = "\n".join(
        f'  <node type="allow" cidr="{_escaped(client)}"/>' for client in site.clients
    )
    routing = _filled("routing.xml", values).rstrip("\n")
    made = {
        EVENT_SOCKET: _filled(EVENT_SOCKET, values),
        ACL: _filled(ACL, values, nodes=nodes),
        RECORDS: _filled(RECORDS, values),
        DIALPLAN: _filled(f"dialplan-{site.mode}.xml", values, routing=routing),
    }
    if site.mode == "curl":
        made[CURL] = _filled(CURL, values)
    return made


def _filled(template: str, values: Mapping[str, object], **written: str) -> str:
    """A template with values in its places; ``written`` are XML already."""
    folder = files("tollkeeper.cli.connect").joinpath("templates").joinpath("freeswitch")
    text = folder.joinpath(template).read_text("utf-8")
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", _escaped(str(value)))
    for name, xml in written.items():
        text = text.replace("{{" + name + "}}", xml)
    return text


def _escaped(text: str) -> str:
    # Comments hold values too, and "--" would end them.
    return escape(text, {'"': "&quot;", "--": "-&#45;"})
