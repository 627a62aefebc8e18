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
    switch: Code = Field(default="http", description="The switch that its sessions belong to.")


class KeyOut(Out):
    """An API key; `revoked_at` is null while it is valid."""

    id: int
    name: str
    scopes: list[str]
    switch: str
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
