"""Routes of switches: where each takes the request to end a call."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field

from tollkeeper.servers.api.auth import DOCUMENTED, ManageKey, actor_of
from tollkeeper.servers.api.context import Context
from tollkeeper.servers.api.schemas import Code, In, Out
from tollkeeper.services import switches

router = APIRouter(prefix="/v1/switches", dependencies=DOCUMENTED, tags=["switches"])

SwitchPath = Annotated[Code, Path(alias="code", description="The switch, as API keys name it.")]


class SwitchIn(In):
    """Where a switch takes kill requests; replaces what was set before, the secret too."""

    kill_url: str = Field(
        max_length=2000,
        description="Address, http or https, to which the signed request is posted.",
        json_schema_extra={"format": "uri"},
    )
    secret: str | None = Field(
        default=None,
        max_length=200,
        description="`whsec_` and 24 to 64 bytes in base64; left out, a new one is made.",
    )


class SwitchOut(Out):
    """A switch. Its secret is never shown again."""

    code: str
    kill_url: str


class SwitchSetOut(SwitchOut):
    """The switch as it is set now. `secret` is the one just made: null if you gave your own."""

    secret: str | None


@router.get("/{code}")
async def get_switch(code: SwitchPath, context: Context, _: ManageKey) -> SwitchOut:
    """Show where a switch takes kill requests, without the secret."""
    return SwitchOut(code=code, kill_url=await switches.get_kill_url(context.database, code))


@router.put("/{code}")
async def set_switch(
    code: SwitchPath, body: SwitchIn, context: Context, key: ManageKey
) -> SwitchSetOut:
    """Say where a switch takes kill requests. A secret made here is in this answer and nowhere else."""
    made = switches.new_secret() if body.secret is None else None
    await switches.set_switch(
        context.database,
        code=code,
        kill_url=body.kill_url,
        secret=made or body.secret or "",
        actor=actor_of(key),
    )
    return SwitchSetOut(code=code, kill_url=body.kill_url, secret=made)


@router.delete("/{code}", status_code=204)
async def delete_switch(code: SwitchPath, context: Context, key: ManageKey) -> None:
    """Forget a switch's address and secret: it is not asked to end calls any more."""
    await switches.delete_switch(context.database, code=code, actor=actor_of(key))
