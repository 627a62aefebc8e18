"""What the routes of CDR sources take and give, as the OpenAPI document shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from fastapi import Path, Query
from pydantic import Field, StringConstraints

from tollkeeper.servers.api.schemas import Code, In, Out
from tollkeeper.services.cdr_sources import SECRET_MAX, CdrSource
from tollkeeper.services.collect import Pushed
from tollkeeper.services.fields import ZONE_PATTERN

SourcePath = Annotated[Code, Path(alias="code", description="Code of the source.")]
FileName = Annotated[
    str,
    Query(
        min_length=1,
        max_length=255,
        pattern=r"^[^/\x00-\x1f\x7f-\x9f]+$",
        description="Name of the file, for people and logs; its content is what identifies it.",
        examples=["cdr-20260301.csv"],
    ),
]
Kind = Literal["sftp", "ftp", "http", "mysql", "manual"]
Setting = Annotated[str, StringConstraints(max_length=20_000)] | int | bool | None
Settings = Annotated[
    dict[Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,40}$")], Setting],
    Field(
        max_length=30,
        description="What the kind needs; see the reference page of CDR sources. Folders: host, "
        "port, user, path, pattern, settle_seconds, done_marker, after, move_to, and host_key "
        "(sftp) or tls and certificate_sha256 (ftp). mysql: host, port, user, database, tls, "
        "since, page, settle_seconds, late_hours.",
    ),
]
Secret = Annotated[
    str,
    StringConstraints(max_length=SECRET_MAX),
    Field(description="Password, or for sftp a private key. Never shown again."),
]
Format = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,40}$"), Field(examples=["csv"])]
Zone = Annotated[
    str,
    StringConstraints(pattern=ZONE_PATTERN),
    Field(description="Zone of times that carry none."),
]
Poll = Annotated[int, Field(ge=1, le=86_400, description="Seconds from one look to the next.")]
Mapping = Annotated[
    dict[str, Any],
    Field(description="Which column is what, for the formats csv and jsonl."),
]


class NewSource(In):
    """A source of call records. One of the kind directory is made on the command line only."""

    code: Code
    kind: Kind
    switch: Code
    format: Format
    mapping: Mapping | None = None
    timezone: Zone = "UTC"
    settings: Settings = Field(default_factory=dict)
    secret: Secret = ""
    enabled: bool = True
    poll_seconds: Poll = 60

    def source(self) -> CdrSource:
        """Return what is to be made."""
        return CdrSource(**{name: getattr(self, name) for name in NewSource.model_fields})


class SourceChange(In):
    """Fields to change; what is left out stays. A setting that is null goes back to its default."""

    switch: Code = ""
    format: Format = ""
    mapping: Mapping | None = None
    timezone: Zone = "UTC"
    settings: Settings = Field(default_factory=dict)
    secret: Secret = ""
    enabled: bool = True
    poll_seconds: Poll = 60

    def changes(self) -> dict[str, Any]:
        """Return only what was given."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class SourceOut(Out):
    """A source. `has_secret` tells whether it has one; the secret itself is never shown."""

    code: str
    kind: str
    switch: str
    format: str
    mapping: dict[str, Any] | None
    timezone: str
    settings: dict[str, Any]
    has_secret: bool
    enabled: bool
    poll_seconds: int
    last_run_at: datetime | None
    last_error: str
    created_at: datetime

    @classmethod
    def of(cls, source: CdrSource) -> Self:
        """Show a source."""
        names = [name for name in cls.model_fields if name != "has_secret"]
        fields = {name: getattr(source, name) for name in names}
        return cls(**fields, has_secret=bool(source.secret))


class SourceList(Out):
    """A page of sources; `next` is null on the last one."""

    items: list[SourceOut]
    next: str | None


class PushedOut(Out):
    """A file that was taken. `status` is loading until all of it is in the books, then done."""

    id: int
    status: str
    name: str
    sha256: str
    bytes: int

    @classmethod
    def of(cls, file: Pushed) -> Self:
        """Show a file."""
        return cls(**{name: getattr(file, name) for name in cls.model_fields})
