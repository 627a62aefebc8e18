"""Routes of trunks: by what the customer or vendor of a record is recognised."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, Self

from fastapi import APIRouter, Path
from pydantic import Field, StringConstraints

from tollkeeper.core.numbering import DialRules
from tollkeeper.servers.api.auth import DOCUMENTED, ManageKey, ReadKey, actor_of
from tollkeeper.servers.api.context import Context
from tollkeeper.servers.api.party_schemas import DialRulesIn, DialRulesOut
from tollkeeper.servers.api.schemas import AfterCode, Code, In, Name, Out, PageLimit
from tollkeeper.services import trunks
from tollkeeper.services.trunks import NAMES_MAX, TrunkEntry

router = APIRouter(prefix="/v1/trunks", dependencies=DOCUMENTED, tags=["trunks"])

TrunkPath = Annotated[Code, Path(alias="code", description="Code of the trunk.")]
Mark = Annotated[str, StringConstraints(pattern="^[0-9*#]{0,12}$")]
Address = Annotated[
    str,
    StringConstraints(min_length=1, max_length=60),
    Field(description="An IP address, or a network.", examples=["192.0.2.10", "2001:db8::/48"]),
]
Optional = Annotated[str, StringConstraints(max_length=200)]


class TrunkTerms(In):
    """By what a trunk is recognised: all that is given must fit."""

    party: Code = Field(description="The customer (in) or the vendor (out) whose traffic it is.")
    switch: Literal[""] | Code = Field(
        default="", description="Only on this switch; empty: on any."
    )
    names: list[Name] = Field(
        default=[], max_length=NAMES_MAX, description="What switches call it."
    )
    addresses: list[Address] = Field(default=[], max_length=NAMES_MAX)
    account: Optional = Field(default="", description="The account code in the records.")
    tech_prefix: Mark = Field(default="", description="In front of called numbers; it is removed.")
    dial_rules: DialRulesIn | None = Field(
        default=None, description="How numbers are written; left out, as the party writes them."
    )


class NewTrunk(TrunkTerms):
    """A trunk to be made."""

    code: Code
    direction: Literal["in", "out"] = Field(description="in: a customer's; out: a vendor's.")

    def entry(self) -> TrunkEntry:
        """Return the trunk as the services know it."""
        return _with_terms(TrunkEntry(self.code, self.direction, self.party), self)


class TrunkOut(Out):
    """A trunk."""

    code: str
    direction: Literal["in", "out"]
    party: str
    switch: str
    names: list[str]
    addresses: list[str]
    account: str
    tech_prefix: str
    dial_rules: DialRulesOut

    @classmethod
    def of(cls, trunk: TrunkEntry) -> Self:
        """Show a trunk."""
        rules = trunk.dial_rules
        return cls(
            code=trunk.code,
            direction=trunk.direction,
            party=trunk.party,
            switch=trunk.switch,
            names=list(trunk.names),
            addresses=list(trunk.addresses),
            account=trunk.account,
            tech_prefix=trunk.tech_prefix,
            dial_rules=DialRulesOut(
                tech_prefix=rules.tech_prefix,
                tech_prefix_required=rules.tech_prefix_required,
                international=list(rules.international),
                national=rules.national,
                country_code=rules.country_code,
            ),
        )


class TrunkList(Out):
    """A page of trunks; `next` is null on the last one."""

    items: list[TrunkOut]
    next: str | None


def _with_terms(entry: TrunkEntry, terms: TrunkTerms) -> TrunkEntry:
    rules = DialRules() if terms.dial_rules is None else terms.dial_rules.rules()
    return replace(
        entry,
        party=terms.party,
        switch=terms.switch,
        names=tuple(terms.names),
        addresses=tuple(terms.addresses),
        account=terms.account,
        tech_prefix=terms.tech_prefix,
        dial_rules=rules,
    )


@router.post("", status_code=201)
async def create_trunk(body: NewTrunk, context: Context, key: ManageKey) -> TrunkOut:
    """Create a trunk."""
    made = await trunks.create_trunk(context.database, body.entry(), actor=actor_of(key))
    return TrunkOut.of(made)


@router.get("")
async def list_trunks(
    context: Context, _: ReadKey, limit: PageLimit = 100, after: AfterCode = ""
) -> TrunkList:
    """List trunks in the order of their codes."""
    found = await trunks.list_trunks(context.database, after=after, limit=limit + 1)
    items = [TrunkOut.of(trunk) for trunk in found[:limit]]
    return TrunkList(items=items, next=items[-1].code if len(found) > limit else None)


@router.get("/{code}")
async def get_trunk(code: TrunkPath, context: Context, _: ReadKey) -> TrunkOut:
    """Show a trunk."""
    return TrunkOut.of(await trunks.get_trunk(context.database, code))


@router.put("/{code}")
async def change_trunk(
    code: TrunkPath, body: TrunkTerms, context: Context, key: ManageKey
) -> TrunkOut:
    """Replace what a trunk is recognised by; counts for records mediated from now on."""
    terms = _with_terms(TrunkEntry(code, "in", body.party), body)
    changes = {name: getattr(terms, name) for name in trunks.CHANGEABLE}
    return TrunkOut.of(
        await trunks.change_trunk(context.database, code, changes, actor=actor_of(key))
    )


@router.delete("/{code}", status_code=204)
async def delete_trunk(code: TrunkPath, context: Context, key: ManageKey) -> None:
    """Delete a trunk; what was mediated by it stays as it is."""
    await trunks.delete_trunk(context.database, code, actor=actor_of(key))
