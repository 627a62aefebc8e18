"""What can be set at a peer of each kind, beside the columns that all of them have.

One table, read by whoever writes a peer (what is not in it is refused), and by the documentation. An
option is added here by the author of the protocol that reads it.
"""

from __future__ import annotations

from collections.abc import Mapping

from tollkeeper.errors import InvalidInput
from tollkeeper.services.peer_option import CONNECT, HEADER, ROUTES, Option, check_value
from tollkeeper.services.peer_options_smpp import ESME, SMSC

KINDS = (
    "radius",
    "freeswitch",
    "kamailio",
    "asterisk",
    "vos3000",
    "diameter",
    "esme",
    "smsc",
    "sip",
)
"""Every kind of peer, in the order in which people are shown them."""
HIDDEN = "(not shown)"

COMMON: tuple[Option, ...] = (
    Option(
        "slice",
        "whole",
        300,
        "Units (seconds of a call) that one grant is for; a longer call asks again.",
        least=1,
        most=86_400,
    ),
    Option(
        "accounts_are_parties",
        "flag",
        False,
        "The account that a call names is the code of the party that pays, where no trunk says so.",
    ),
)
"""What every kind has."""

_DIAMETER = (
    Option("origin_host", "text", "", "Its Origin-Host; by default the code of the peer."),
    Option(
        "realm",
        "text",
        "",
        "Realm of its clients, where their host names do not tell it by what follows the first dot.",
    ),
    Option(
        "relay",
        "flag",
        False,
        "It is a relay or proxy: requests of other hosts are taken from it, and it answers for them.",
    ),
    Option("tls", "flag", False, "It must come by the TLS listener."),
    Option(
        "watchdog_seconds",
        "whole",
        30,
        "Silence after which it is asked whether it is there; twice that, and it is cut off.",
        least=6,
        most=600,
    ),
    Option(
        "check_realm",
        "flag",
        False,
        "Requests for another Destination-Realm than diameter_realm are refused.",
    ),
    Option(
        "free_uncontrolled",
        "flag",
        False,
        "What costs nothing is answered 4011: it is then used without asking again, and not counted.",
    ),
    Option(
        "services",
        "rows",
        [],
        "Which service a request is about where its Service-Context-Id does not tell: the service, a part "
        "of the context, the rating group, and what it is used towards. The first row that fits counts.",
        columns=("service", "context", "rating_group", "called"),
    ),
)

_RADIUS = (
    ROUTES,
    Option(
        "message_authenticator",
        "flag",
        True,
        "Every Access-Request must carry a Message-Authenticator. Off only for a switch that cannot "
        "send it: then whoever is on the path can forge answers (BlastRADIUS).",
    ),
    Option("service", "text", "voice", "What is charged.", choices=("voice", "data")),
    Option(
        "extend",
        "text",
        "none",
        "How a call that is up gets more time: none (all of it is asked for at the beginning), coa (we "
        "send CoA-Request with Session-Timeout), reauthorise (the switch asks again by itself), interim "
        "(the switch has no limit of its own; each report extends, and we disconnect).",
        choices=("none", "coa", "reauthorise", "interim"),
    ),
    Option(
        "whole_call",
        "whole",
        7200,
        "Seconds that are asked for at once where a call cannot be extended.",
        least=60,
        most=86_400,
    ),
    Option(
        "interim",
        "whole",
        60,
        "Acct-Interim-Interval in seconds that the switch is told; 0: it is told none.",
        most=86_400,
    ),
    Option(
        "orders_port",
        "whole",
        3799,
        "UDP port where the switch takes Disconnect-Request and CoA-Request; 0: it takes none.",
        most=65_535,
    ),
    Option(
        "orders_secret",
        "text",
        "",
        "Secret of those orders, where it is another one.",
        secret=True,
    ),
    Option(
        "charged_leg",
        "text",
        "first",
        "Which leg of a call counts where both are reported: first, answer or originate.",
        choices=("first", "answer", "originate"),
    ),
    Option(
        "accounting_opens",
        "flag",
        True,
        "A call that was not asked for before it began is opened, and charged, by its accounting.",
    ),
    Option(
        "proxied",
        "flag",
        False,
        "The peer is a proxy in front of several switches: their ids are kept apart.",
    ),
    Option("realm", "text", "", "Realm of the users who call with a password (PAP)."),
    Option(
        "trunk_password",
        "text",
        "",
        "The one password that the switch sends for calls of trunks; empty: it is not looked at.",
        secret=True,
    ),
    Option(
        "passwords_only",
        "flag",
        False,
        "Every call must prove a user's password (PAP or digest).",
    ),
    Option(
        "vsa_names",
        "flag",
        True,
        'Vendor attributes repeat their name in the value, as Cisco has it: "h323-credit-time=360".',
    ),
)

_TLS = Option(
    "tls",
    "flag",
    False,
    "It is connected to with TLS, and its certificate must be trusted.",
)

_ASTERISK = (
    _TLS,
    Option("username", "text", "tollkeeper", "Name that we log in to its manager interface with."),
    Option(
        "ring_seconds",
        "whole",
        120,
        "Seconds that a call may ring before its limit counts against it.",
        least=1,
        most=3600,
    ),
    Option(
        "whole_call",
        "whole",
        7200,
        "Seconds asked for at once where the peer has no secret, so that nobody can extend its calls.",
        least=1,
        most=86_400,
    ),
    Option(
        "reconcile_seconds",
        "whole",
        60,
        "How often its channels are compared with our open sessions.",
        least=1,
        most=3600,
    ),
)

_VOS3000 = (
    _TLS,
    Option("path", "text", "/external/server/", "Path of its web interface."),
    Option(
        "disconnect",
        "text",
        "DisconnectCurrentCall",
        "Name of the operation that ends calls, should a release call it otherwise.",
    ),
    Option(
        "push",
        "text",
        "",
        "What accounts there follow: what our wallets have available, their balance, or nothing.",
        choices=("", "available", "balance"),
    ),
    Option(
        "accounts", "rows", [], "Which account there is which party.", columns=("account", "party")
    ),
    Option("currency", "text", "", "Currency of the wallets that are followed, such as USD."),
    Option(
        "push_seconds",
        "whole",
        300,
        "How often accounts are compared; they are also 2 seconds after money changed.",
        least=1,
        most=86_400,
    ),
    Option("push_least", "text", "0.01", "The smallest difference that is paid."),
    Option("decimals", "whole", 4, "Decimals of its money.", least=0, most=8),
)

_FREESWITCH = (
    Option(
        "entry_context",
        "text",
        "tollkeeper",
        "Dialplan context whose calls are authorised when the switch asks for a dialplan over HTTP.",
    ),
    Option(
        "routing_context", "text", "tollkeeper-route", "Dialplan context where allowed calls go on."
    ),
    Option(
        "refusal_context",
        "text",
        "",
        "Dialplan context where refused calls go, to the extension named as the reason; empty ends them.",
    ),
    Option(
        "bridge",
        "text",
        "",
        "Dial string with {number}, for calls allowed over HTTP in the place of the routing context.",
    ),
    Option(
        "interim",
        "whole",
        60,
        "Seconds between reports of the usage of calls that are up.",
        least=1,
        most=3600,
    ),
    Option(
        "reconcile",
        "whole",
        30,
        "Seconds between comparisons of the switch's channels with the open sessions.",
        least=1,
        most=3600,
    ),
)

OPTIONS: dict[str, tuple[Option, ...]] = {
    "radius": _RADIUS,
    "freeswitch": (CONNECT, *_FREESWITCH),
    "kamailio": (
        CONNECT,
        Option(
            "rpc",
            "text",
            "",
            "URL of its JSON-RPC, by which calls that are up are compared; http://HOST:5060/RPC if empty.",
        ),
        Option(
            "reconcile_seconds",
            "whole",
            30,
            "How often calls here and calls there are compared.",
            least=1,
            most=3600,
        ),
    ),
    "asterisk": (CONNECT, ROUTES, *_ASTERISK),
    "vos3000": (CONNECT, *_VOS3000),
    "diameter": _DIAMETER,
    "esme": ESME,
    "smsc": SMSC,
    "sip": (
        ROUTES,
        Option(
            "slice",
            "whole",
            7200,
            "Seconds that a redirected call may last at most; nobody extends it later.",
            least=1,
            most=86_400,
        ),
        Option(
            "hold_until_limit",
            "flag",
            False,
            "The money of a redirected call is held until its limit has passed, not only while it may ring.",
        ),
        Option(
            "limit_header",
            "text",
            "X-Tollkeeper-Limit",
            "Header of the redirect with the seconds that the call may last.",
            pattern=HEADER,
        ),
        Option(
            "session_header",
            "text",
            "X-Tollkeeper-Session",
            "Header of the redirect with the id of the session, for the switch's records.",
            pattern=HEADER,
        ),
        Option(
            "account_header",
            "text",
            "",
            "Header of the INVITE that names the account, where one address sends for several.",
            pattern=HEADER,
        ),
    ),
}
"""What each kind has beside ``COMMON``."""


def options_of(kind: str) -> tuple[Option, ...]:
    """All options of a kind.

    Raises:
        InvalidInput: there is no such kind.
    """
    if kind not in OPTIONS:
        raise InvalidInput(f"kind: choose one of {', '.join(KINDS)}", field="kind")
    own = {option.name: option for option in OPTIONS[kind]}
    common = (own.pop(option.name, option) for option in COMMON)
    return (*common, *own.values())


def checked_options(kind: str, given: Mapping[str, object]) -> dict[str, object]:
    """The options of a peer, each of its type and within its bounds.

    Raises:
        InvalidInput: an option that the kind does not have, or a value that it cannot take.
    """
    known = {option.name: option for option in options_of(kind)}
    for name in given:
        if name not in known:
            raise InvalidInput(
                f'options: a peer of kind {kind} has no "{name[:60]}", only {", ".join(known)}',
                code="unknown_option",
                field="options",
            )
    for name, value in given.items():
        check_value(known[name], value)
    return dict(given)


def shown_options(kind: str, options: Mapping[str, object]) -> dict[str, object]:
    """The options as people are shown them: a secret is only told to be there."""
    hidden = {option.name for option in OPTIONS.get(kind, ()) if option.secret}
    return {name: HIDDEN if name in hidden else value for name, value in options.items()}
