"""What the routes of peers and credentials take and give, as OpenAPI shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from fastapi import Path, Query
from pydantic import Field, StringConstraints

from tollkeeper.servers.api.schemas import ID_MAX, Code, In, Out
from tollkeeper.services.credentials import PASSWORD_MAX, USERNAME_MAX, CredentialEntry
from tollkeeper.services.fields import TEXT_PATTERN, ZONE_PATTERN
from tollkeeper.services.peer_options import shown_options
from tollkeeper.services.peers import ADDRESSES_MAX, RISK_SECONDS_MAX, SECRET_MAX, Peer

Kind = Literal[
    "radius", "freeswitch", "kamailio", "asterisk", "vos3000", "diameter", "esme", "smsc", "sip"
]
KindFilter = Annotated[
    Literal[
        "", "radius", "freeswitch", "kamailio", "asterisk", "vos3000", "diameter", "esme", "smsc", "sip"
    ],
    Query(description="Only peers of this kind."),
]  # fmt: skip
PeerPath = Annotated[Code, Path(alias="code", description="Code of the peer.")]
CredentialPath = Annotated[int, Path(ge=1, le=ID_MAX, description="Number of the credential.")]
Address = Annotated[
    str,
    StringConstraints(min_length=1, max_length=60),
    Field(description="IP address or network.", examples=["192.0.2.7", "192.0.2.0/24"]),
]
Addresses = Annotated[
    list[Address],
    Field(
        max_length=ADDRESSES_MAX,
        description="Where it comes from; the first one is where it is reached.",
    ),
]
Secret = Annotated[
    str,
    StringConstraints(max_length=SECRET_MAX, pattern=f"^$|{TEXT_PATTERN}"),
    Field(description="What the protocol proves it by. Never shown again."),
]
Dialect = Annotated[str, StringConstraints(max_length=40, pattern=f"^$|{TEXT_PATTERN}")]
Trunk = Annotated[
    str,
    StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,62})?$"),
    Field(description="Code of the trunk that all its calls are of; empty: each call tells."),
]
Zone = Annotated[
    str, StringConstraints(pattern=ZONE_PATTERN), Field(description="Time zone of its clock.")
]
OnFailure = Annotated[
    Literal["refuse", "allow"],
    Field(description="What new calls get while nothing can be charged."),
]
Risk = Annotated[
    int,
    Field(
        ge=0, le=RISK_SECONDS_MAX, description="Seconds that are let through unpaid then, in all."
    ),
]
Options = Annotated[
    dict[str, Any],
    Field(description="Options of its kind: see the reference of peers. null takes one away."),
]
Username = Annotated[
    str, StringConstraints(pattern=TEXT_PATTERN, min_length=1, max_length=USERNAME_MAX)
]
Realm = Annotated[str, StringConstraints(pattern=f"^$|{TEXT_PATTERN}", max_length=USERNAME_MAX)]
Password = Annotated[
    str, StringConstraints(pattern=TEXT_PATTERN, min_length=1, max_length=PASSWORD_MAX)
]
Ha1 = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-f]{32}$"),
    Field(description="MD5(username:realm:password) in hexadecimal, in place of the password."),
]


class NewPeer(In):
    """A peer to be added. Of kind radius and esme a secret is made where none is given."""

    code: Code
    kind: Kind
    switch: Trunk = Field(
        default="", description="Name under which its calls are kept; its code if left out."
    )
    addresses: Addresses = Field(default_factory=list)
    secret: Secret = ""
    dialect: Dialect = ""
    trunk: Trunk = ""
    timezone: Zone = "UTC"
    on_failure: OnFailure = "refuse"
    risk_seconds: Risk = 0
    options: Options = Field(default_factory=dict)
    enabled: bool = True

    def peer(self) -> Peer:
        """Return what is to be added."""
        fields = {name: getattr(self, name) for name in NewPeer.model_fields}
        options = {name: value for name, value in self.options.items() if value is not None}
        return Peer(**{**fields, "id": 0, "addresses": tuple(self.addresses), "options": options})


class PeerChange(In):
    """Fields to change; what is left out stays, and so do the options that are not named."""

    addresses: Addresses = Field(default_factory=list)
    secret: Secret = ""
    dialect: Dialect = ""
    trunk: Trunk = ""
    timezone: Zone = "UTC"
    on_failure: OnFailure = "refuse"
    risk_seconds: Risk = 0
    options: Options = Field(default_factory=dict)
    enabled: bool = True

    def changes(self) -> dict[str, Any]:
        """Return only what was given."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        if "addresses" in given:
            given["addresses"] = tuple(self.addresses)
        return given


class PeerOut(Out):
    """A peer. `has_secret` tells whether it has one; secrets are never shown, also among options."""

    code: str
    kind: str
    switch: str
    addresses: list[str]
    has_secret: bool
    dialect: str
    trunk: str
    timezone: str
    on_failure: str
    risk_seconds: int
    options: dict[str, Any]
    enabled: bool

    @classmethod
    def of(cls, peer: Peer) -> Self:
        """Show a peer."""
        return cls(**cls.shown(peer))

    @staticmethod
    def shown(peer: Peer) -> dict[str, Any]:
        """The fields of a peer as they are shown."""
        names = set(PeerOut.model_fields) - {"has_secret", "options", "addresses"}
        return {
            **{name: getattr(peer, name) for name in names},
            "addresses": list(peer.addresses),
            "has_secret": bool(peer.secret),
            "options": shown_options(peer.kind, peer.options),
        }


class PeerMade(PeerOut):
    """A peer that was added; `secret` is the one that was made for it, else empty."""

    secret: str

    @classmethod
    def made(cls, peer: Peer, secret: str) -> Self:
        """Show a peer with its new secret, this once."""
        return cls(**cls.shown(peer), secret=secret)


class PeerList(Out):
    """A page of peers; `next` is null on the last one."""

    items: list[PeerOut]
    next: str | None


class NewCredential(In):
    """A user name to be added, with its password or its HA1."""

    username: Username
    realm: Realm = Field(
        default="", description="Realm of the digest; empty: any, for passwords that are sent."
    )
    party: Code = Field(description="Code of the party that pays.")
    password: Password = ""
    ha1: Ha1 = ""
    enabled: bool = True

    def entry(self) -> CredentialEntry:
        """Return what is to be added."""
        return CredentialEntry(self.username, self.realm, self.party, self.enabled)


class CredentialChange(In):
    """Fields to change; what is left out stays."""

    party: Code = ""
    password: Password = ""
    ha1: Ha1 = ""
    enabled: bool = True

    def changes(self) -> dict[str, Any]:
        """Return only what was given."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class CredentialOut(Out):
    """A user name. Its password is never shown."""

    id: int
    username: str
    realm: str
    party: str
    enabled: bool
    created_at: datetime

    @classmethod
    def of(cls, entry: CredentialEntry) -> Self:
        """Show a user name."""
        return cls(**{name: getattr(entry, name) for name in cls.model_fields})


class CredentialList(Out):
    """A page of user names; `next` is null on the last one."""

    items: list[CredentialOut]
    next: int | None
