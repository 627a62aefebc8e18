"""The generated page of what can be set at a peer of each kind."""

from __future__ import annotations

import json

from tollkeeper.services.peer_option import EXAMPLES, ROUTES, ROWS_MAX, TEXT_MAX, Option
from tollkeeper.services.peer_options import COMMON, KINDS, options_of
from tools.pages import page, table

NAMES = {
    "radius": ("RADIUS", "connect-radius.md"),
    "freeswitch": ("FreeSWITCH", "connect-freeswitch.md"),
    "kamailio": ("Kamailio", "connect-kamailio.md"),
    "asterisk": ("Asterisk", "connect-asterisk.md"),
    "vos3000": ("VOS3000", "connect-vos3000.md"),
    "diameter": ("Diameter", "connect-diameter.md"),
    "esme": ("SMPP: an ESME that binds to us", "connect-smpp.md"),
    "smsc": ("SMPP: an SMSC that we bind to", "connect-smpp.md"),
    "sip": ("SIP redirect", "sip-redirect.md"),
}
INTRO = f"""\
What can be set at a [peer](../how-to/peers.md) by `tollkeeper peer add` and `peer change`, as
`--option NAME=VALUE`, and over HTTP in `options`. `tollkeeper peer options KIND` lists the same. An option that
the kind does not have is refused, as is a value out of its bounds. `NAME=` takes an option away.

| type | on the command line | in JSON |
| --- | --- | --- |
| text | as it is, at most {TEXT_MAX:,} characters | a string |
| whole | a whole number | a number |
| flag | `on` or `off` (also `yes`, `no`, `true`, `false`) | `true` or `false` |
| rows | JSON, or `@FILE` with it; at most {ROWS_MAX:,} records | a list of objects, their values strings |"""


def peer_options() -> str:
    """One table for each kind of peer."""
    parts: list[str | list[str]] = []
    for kind in KINDS:
        name, guide = NAMES[kind]
        parts += [
            f"## `{kind}`",
            f"{name}: [how to](../how-to/{guide}).",
            table(["option", "type", "default", "bounds", "meaning"], _rows(kind)),
        ]
    return page("Options of peers", INTRO, *parts)


def _rows(kind: str) -> list[list[str]]:
    own = [option for option in options_of(kind) if option not in COMMON]
    return [_row(option) for option in (*own, *(o for o in options_of(kind) if o in COMMON))]


def _row(option: Option) -> list[str]:
    hidden = " Never shown again." if option.secret else ""
    return [
        f"`{option.name}`",
        option.type,
        _default(option),
        _bounds(option),
        option.meaning + hidden,
    ]


def _default(option: Option) -> str:
    if option.type == "flag":
        return "`on`" if option.default else "`off`"
    if option.type == "text":
        return f"`{option.default}`" if option.default else "empty"
    return f"`{json.dumps(option.default)}`" if option.default != [] else "none"


def _bounds(option: Option) -> str:
    if option.type == "whole":
        least = f"{option.least or 0:,}"
        return f"{least} to {option.most:,}" if option.most is not None else f"from {least}"
    if option.choices:
        return ", ".join(f"`{choice}`" if choice else "empty" for choice in option.choices)
    if option.columns:
        needed, *others = (f"`{column}`" for column in option.columns)
        checked = "; destinations are checked" if option is ROUTES else ""
        return f"fields {', '.join([needed, *others])}; {needed} in every record{checked}"
    return f"such as `{EXAMPLES[option.pattern].strip(chr(34))}`" if option.pattern else ""
