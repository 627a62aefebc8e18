"""What the routes of API keys take and give, as the OpenAPI document shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from pydantic import Field

from tollkeeper.servers.api.schemas import Code, In, Name, Out
from tollkeeper.services.keys import KeyRow

Scope = Literal["charge", "read", "manage"]


class NewKeyIn(In):
    """An API key to be made."""

    name: Name
    scopes: list[Scope] = Field(min_length=1, max_length=3)
    switch: Code | None = Field(
        default=None,
        description="The switch that its sessions belong to; `http` if left out, or that of the "
        "party's key that asks.",
    )
    party: Code | None = Field(
        default=None,
        description="Bounds the key to this party and those below it. Left out, it is the operator's, "
        "or bounded as the key that asks.",
    )


class KeyOut(Out):
    """An API key; `revoked_at` is null while it is valid, `party` where it is the operator's."""

    id: int
    name: str
    scopes: list[str]
    switch: str
    party: str | None
    created_at: datetime
    revoked_at: datetime | None

    @staticmethod
    def fields_of(key: KeyRow) -> dict[str, object]:
        """Return a key's fields as they are shown."""
        fields = {name: getattr(key, name) for name in KeyOut.model_fields}
        return {**fields, "scopes": list(key.scopes)}

    @classmethod
    def of(cls, key: KeyRow) -> Self:
        """Show a key."""
        return cls.model_validate(cls.fields_of(key))


class NewKeyOut(KeyOut):
    """The key just made, with its secret: shown this once, stored nowhere."""

    secret: str


class KeyList(Out):
    """A page of keys; `next` is null on the last one."""

    items: list[KeyOut]
    next: int | None
