"""What the routes of parties and plans take and give, as the OpenAPI document shows it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints

from tollkeeper.core.numbering import DialRules
from tollkeeper.servers.api.plan_schemas import WhenIn, WhenOut
from tollkeeper.servers.api.schemas import (
    Code,
    In,
    Limit,
    Money,
    Name,
    NotNegative,
    Out,
    Seconds,
    Why,
)
from tollkeeper.servers.api.wallet_schemas import FundedWallet, WalletOut
from tollkeeper.services.fields import ZONE_PATTERN
from tollkeeper.services.parties import DIAL_MARKS_MAX, PLAN_CARDS_MAX, Party, Plan, PlanCard
from tollkeeper.services.tree import Move
from tollkeeper.store.wallets import WalletRow

Kind = Literal["operator", "reseller", "customer", "vendor", "user", "card"]
Status = Literal["active", "suspended", "frozen"]
Billing = Literal["prepaid", "postpaid"]
RateChange = Annotated[
    Literal["pin", "split"],
    Field(
        description="What a call that is up does when its price changes: pin keeps it, split goes on at the "
        "new price for intervals that begin after the change."
    ),
]
Overcommit = Annotated[
    NotNegative,
    Field(
        description="What all its children may have available together, as a share of what it has "
        "itself: 1 is no more than that; null is not looked at. Set by the operator."
    ),
]
LowBalance = Annotated[
    NotNegative,
    Field(
        description="While less than this is available in the wallet that it spends from, at most "
        "`low_sessions` calls may be up at once."
    ),
]
Mark = Annotated[str, StringConstraints(pattern="^[0-9*#]{1,12}$")]


# --- parties -------------------------------------------------------------------------------------


class DialRulesIn(In):
    """How the party writes numbers."""

    tech_prefix: Literal[""] | Mark = ""
    tech_prefix_required: bool = False
    international: list[Mark] = Field(default=["00", "011"], max_length=DIAL_MARKS_MAX)
    national: Literal[""] | Mark = ""
    country_code: Annotated[str, StringConstraints(pattern="^[0-9]{0,3}$")] = ""

    def rules(self) -> DialRules:
        """Return the rules as the core knows them."""
        return DialRules(
            tech_prefix=self.tech_prefix,
            tech_prefix_required=self.tech_prefix_required,
            international=tuple(self.international),
            national=self.national,
            country_code=self.country_code,
        )


class DialRulesOut(Out):
    """How the party writes numbers."""

    tech_prefix: str
    tech_prefix_required: bool
    international: list[str]
    national: str
    country_code: str


class NewParty(In):
    """A party to be made, if wanted with its plan and its funded wallets in the same step."""

    code: Code
    name: Name
    kind: Kind = "customer"
    parent: Code | None = None
    plan: Code | None = None
    status: Status = "active"
    billing: Billing = "postpaid"
    rate_change: RateChange = "pin"
    kill_on_suspend: bool = False
    timezone: Annotated[str, StringConstraints(pattern=ZONE_PATTERN)] = "UTC"
    max_sessions: Limit | None = None
    max_cps: Limit | None = None
    max_cost: NotNegative | None = None
    max_seconds: Seconds = 14_400
    dial_rules: DialRulesIn = DialRulesIn()
    overcommit: Overcommit | None = None
    low_balance: LowBalance | None = None
    low_sessions: Limit | None = None
    wallets: list[FundedWallet] = Field(default=[], max_length=20)

    def party(self) -> Party:
        """Return the party as the service takes it."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        del fields["wallets"]
        return Party(**{**fields, "dial_rules": self.dial_rules.rules()})


class PartyMove(In):
    """Where a party shall stand; a parent of null is the top."""

    parent: Code | None
    reason: Why
    plan: Code | None = Field(
        default=None, description="What it is sold by there; left out, it keeps its plan."
    )


class MoveOut(Out):
    """A place that a party had; `parent` is null at the top, and where it must not be seen."""

    id: int
    parent: str | None
    time: datetime
    reason: str
    actor: str

    @classmethod
    def of(cls, move: Move) -> Self:
        """Show a place."""
        return cls(
            id=move.id, parent=move.parent, time=move.at, reason=move.reason, actor=move.actor
        )


class MoveList(Out):
    """The places of a party in their order; `next` is null on the last page."""

    items: list[MoveOut]
    next: int | None


class PartyChange(In):
    """Fields to change; what is left out stays, and null takes a plan or a limit away."""

    name: Name = ""
    plan: Code | None = None
    status: Status = "active"
    billing: Billing = "postpaid"
    rate_change: RateChange = "pin"
    kill_on_suspend: bool = False
    timezone: Annotated[str, StringConstraints(pattern=ZONE_PATTERN)] = "UTC"
    max_sessions: Limit | None = None
    max_cps: Limit | None = None
    max_cost: NotNegative | None = None
    max_seconds: Seconds = 14_400
    dial_rules: DialRulesIn = DialRulesIn()
    overcommit: Overcommit | None = None
    low_balance: LowBalance | None = None
    low_sessions: Limit | None = None

    def changes(self) -> dict[str, object]:
        """Return only what was given."""
        given: dict[str, object] = {name: getattr(self, name) for name in self.model_fields_set}
        if "dial_rules" in given:
            given["dial_rules"] = self.dial_rules.rules()
        return given


class PartyOut(Out):
    """A party; limits are null where there is none."""

    code: str
    name: str
    kind: Kind
    parent: str | None
    plan: str | None
    status: Status
    billing: Billing
    rate_change: RateChange
    kill_on_suspend: bool
    timezone: str
    max_sessions: int | None
    max_cps: int | None
    max_cost: Money | None
    max_seconds: int
    dial_rules: DialRulesOut
    overcommit: Money | None
    low_balance: Money | None
    low_sessions: int | None
    created_at: datetime

    @staticmethod
    def fields_of(party: Party) -> dict[str, object]:
        """Return a party's fields as they are shown."""
        fields = {name: getattr(party, name) for name in PartyOut.model_fields}
        rules = {name: getattr(party.dial_rules, name) for name in DialRulesOut.model_fields}
        return {**fields, "dial_rules": rules}

    @classmethod
    def of(cls, party: Party) -> Self:
        """Show a party."""
        return cls.model_validate(cls.fields_of(party))


class PartyWithWallets(PartyOut):
    """A party and its wallets."""

    wallets: list[WalletOut]

    @classmethod
    def with_wallets(cls, party: Party, wallets: Sequence[WalletRow]) -> Self:
        """Show a party and its wallets."""
        shown = [WalletOut.of(wallet) for wallet in wallets]
        return cls.model_validate({**cls.fields_of(party), "wallets": shown})


class PartyList(Out):
    """A page of parties; `next` is null on the last one."""

    items: list[PartyOut]
    next: str | None


# --- plans ---------------------------------------------------------------------------------------


class PlanCardIn(In):
    """A rate card in a plan."""

    card: Code
    kind: Literal["customer", "promotion", "plan", "fallback"] = "plan"
    when: WhenIn = WhenIn()

    def plan_card(self) -> PlanCard:
        """Return it as the service takes it."""
        return PlanCard(self.card, self.kind, self.when.conditions())


class NewPlan(In):
    """A plan to be made."""

    code: Code
    name: Name
    cards: list[PlanCardIn] = Field(default=[], max_length=PLAN_CARDS_MAX)


class PlanChange(In):
    """The cards of a plan from now on, and its name if that changes too."""

    name: Name | None = None
    cards: list[PlanCardIn] = Field(max_length=PLAN_CARDS_MAX)


class PlanCardOut(Out):
    """A rate card in a plan."""

    card: str
    kind: str
    when: WhenOut


class PlanOut(Out):
    """A plan; its cards stand in the order in which they win among equally long prefixes."""

    code: str
    name: str
    created_at: datetime
    cards: list[PlanCardOut]

    @classmethod
    def of(cls, plan: Plan) -> Self:
        """Show a plan."""
        return cls(
            code=plan.code,
            name=plan.name,
            created_at=plan.created_at,
            cards=[
                PlanCardOut(card=card.card, kind=card.kind, when=WhenOut.of(card.when))
                for card in plan.cards
            ],
        )


class PlanList(Out):
    """A page of plans; `next` is null on the last one."""

    items: list[PlanOut]
    next: str | None
