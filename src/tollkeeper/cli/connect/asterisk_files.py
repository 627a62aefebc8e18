"""The dialplan and the manager's login that put Tollkeeper into the call path of an Asterisk."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from ipaddress import ip_address

from tollkeeper.errors import InvalidInput

EXTENSIONS, MANAGER = "tollkeeper-extensions.conf", "tollkeeper-manager.conf"
_LEFT = re.compile(r"@[A-Z_]+@")
_ENDPOINT = re.compile(r"(?:[0-9A-Za-z_.-]+|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?")
_NAME = re.compile(r"[0-9A-Za-z_.-]{1,80}")
_SECRET = re.compile(r"[!-~]{1,80}")


@dataclass(frozen=True, slots=True)
class Site:
    """What differs from one Asterisk to the next.

    ``agi`` are the addresses of our FastAGI listeners, asked one after another. Calls go to the PJSIP
    endpoint ``gateway``, or by the peer's ``routes``. ``open_calls`` calls of ``open_seconds`` are let
    through while nobody answers. Without ``secret`` there is no login for an agent.
    """

    peer: str
    agi: tuple[str, ...]
    gateway: str = ""
    routes: bool = False
    clients: tuple[str, ...] = ("127.0.0.1",)
    username: str = "tollkeeper"
    secret: str = ""
    open_seconds: int = 0
    open_calls: int = 0


def configuration(site: Site) -> dict[str, str]:
    """The files by name.

    Raises:
        InvalidInput: a value that cannot stand in a configuration, with its field.
    """
    _check(site)
    made = {
        EXTENSIONS: _fill(
            "asterisk-extensions.conf",
            {
                "PEER": site.peer,
                "FILE": EXTENSIONS,
                "AUTHORISE": _authorise(site.agi),
                "NOBODY": _nobody(site),
                "DIAL": _dial(site),
                "HANGUP": _hangup(site.agi),
            },
        )
    }
    if site.secret:
        made[MANAGER] = _fill(
            "asterisk-manager.conf",
            {
                "PEER": site.peer,
                "FILE": MANAGER,
                "USERNAME": site.username,
                # A semicolon begins a comment there.
                "SECRET": site.secret.replace(";", "\\;"),
                "PERMIT": "\n".join(f"permit = {_host(client)}" for client in site.clients),
            },
        )
    return made


def _authorise(addresses: tuple[str, ...]) -> str:
    lines = []
    for place, address in enumerate(addresses):
        # The next server is asked where this one said nothing.
        call = f"AGI(agi://{address}/authorise,address=${{CHANNEL(pjsip,remote_addr)}})"
        lines.append(_where('"${TK_RESULT}" = ""', call) if place else f" same => n,{call}")
    return "\n".join(lines)


def _hangup(addresses: tuple[str, ...]) -> str:
    given = (
        "session=${TK_SESSION},status=${DIALSTATUS},answered_ms=${ANSWEREDTIME_MS},"
        "answered_s=${ANSWEREDTIME},cause=${HANGUPCAUSE}"
    )
    return "\n".join(
        _where('"${TK_SETTLED}" != "yes"', f"AGI(agi://{address}/hangup,{given})")
        for address in addresses
    )


def _where(condition: str, call: str) -> str:
    # ExecIf would cut the arguments at their commas: GotoIf over the line is plain.
    return f" same => n,GotoIf($[{condition}]?:$[${{PRIORITY}} + 2])\n same => n,{call}"


def _nobody(site: Site) -> str:
    if not site.open_calls:
        return " same => n,Set(TK_CAUSE=42)"
    return "\n".join(
        (
            " same => n,Set(TK_CAUSE=42)",
            " same => n,Set(GROUP(tollkeeper)=open)",
            f" same => n,GotoIf($[${{GROUP_COUNT(open@tollkeeper)}} > {site.open_calls}]?refused)",
            " same => n,Set(TK_CALLED=${FILTER(0-9,${EXTEN})})",
            " same => n,Set(TK_RING=120)",
            f" same => n,Set(TK_DIAL_LIMIT=L({site.open_seconds * 1000}))",
            *((" same => n,Set(TK_ROUTES=0)",) if site.routes else ()),
            " same => n,Goto(dial)",
        )
    )


def _dial(site: Site) -> str:
    own = f"Dial(PJSIP/${{TK_CALLED}}@{site.gateway},${{TK_RING}},${{TK_DIAL_LIMIT}})"
    if not site.routes:
        return f" same => n(dial),{own}\n same => n,Hangup(${{HANGUPCAUSE}})"
    lines = [
        " same => n(dial),Set(TK_N=1)",
        " same => n(try),GotoIf($[${TK_N} > ${TK_ROUTES}]?last)",
        " same => n,Dial(${TK_ROUTE_${TK_N}},${TK_RING},${TK_DIAL_LIMIT})",
        ' same => n,GotoIf($["${DIALSTATUS}" = "ANSWER" | "${DIALSTATUS}" = "BUSY"]?end)',
        " same => n,Set(TK_N=$[${TK_N} + 1])",
        " same => n,Goto(try)",
        f" same => n(last),{own if site.gateway else 'NoOp()'}",
        " same => n(end),Hangup(${HANGUPCAUSE})",
    ]
    return "\n".join(lines)


def _host(client: str) -> str:
    return f"{client}/32" if ip_address(client).version == 4 else f"{client}/128"


def _fill(name: str, values: dict[str, str]) -> str:
    text = files("tollkeeper.cli.connect").joinpath("templates", name).read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    left = _LEFT.search(text)
    assert left is None, f"{name}: {left} is not filled in"
    return text


def _check(site: Site) -> None:
    if not site.agi or not all(_ENDPOINT.fullmatch(one) for one in site.agi):
        raise InvalidInput(
            "--agi must be the address of a FastAGI listener, such as 192.0.2.7:4573", field="agi"
        )
    if not site.gateway and not site.routes:
        raise InvalidInput(
            "calls have nowhere to go: give --gateway, or the peer its option routes",
            field="gateway",
        )
    if site.gateway and _NAME.fullmatch(site.gateway) is None:
        raise InvalidInput("--gateway must be the name of a PJSIP endpoint", field="gateway")
    if _NAME.fullmatch(site.username) is None:
        raise InvalidInput(
            "the option username must be letters, digits and . _ -", field="username"
        )
    if site.secret and (_SECRET.fullmatch(site.secret) is None or "@" in site.secret):
        raise InvalidInput(
            "the secret must be at most 80 visible characters without @, as it stands in a file of Asterisk",
            field="secret",
        )
    for client in site.clients:
        try:
            ip_address(client)
        except ValueError:
            raise InvalidInput(f'--client "{client}" is no IP address', field="client") from None
