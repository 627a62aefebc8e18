"""What the management routes take and give, as the OpenAPI document shows it.

Money is a string in both directions. What comes in is read strictly: no unknown fields, no number
where a text is meant. Limits of size and form are those of the services, repeated here so that
they are documented; the services check them again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Literal, Self
from uuid import UUID

from fastapi import Path, Query
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from tollkeeper.core.money import parse_amount, plain
from tollkeeper.core.numbering import DialRules
from tollkeeper.core.records import Wallet
from tollkeeper.errors import InvalidInput
from tollkeeper.servers.api.problems import OWN_ERROR
from tollkeeper.services.fields import (
    CODE_PATTERN,
    INTEGER_MAX,
    NAME_MAX,
    REASON_MAX,
    TEXT_PATTERN,
    ZONE_PATTERN,
)
from tollkeeper.services.keys import KeyRow
from tollkeeper.services.parties import DIAL_MARKS_MAX, PLAN_CARDS_MAX, Party, Plan, PlanCard
from tollkeeper.services.wallets import Posted, Statement
from tollkeeper.store.wallets import Entry

PAGE_MAX = 1000
ID_MAX = 2**63 - 1


def _own_error(error: InvalidInput) -> PydanticCustomError:
    # Braces would be read as a template.
    return PydanticCustomError(OWN_ERROR, "{sentence}", {"sentence": error.detail})


def _read_money(value: object, info: ValidationInfo) -> Decimal:
    # A default is a Decimal already; JSON has none.
    if isinstance(value, Decimal):
        return value
    try:
        return parse_amount(value, field=info.field_name or "amount")
    except InvalidInput as error:
        raise _own_error(error) from error


def _money(*, pattern: str, description: str) -> WithJsonSchema:
    return WithJsonSchema(
        {
            "type": "string",
            "pattern": pattern,
            "description": description,
            "examples": ["12.50"],
        }
    )


_DIGITS = r"[0-9]{1,15}(\.[0-9]{1,8})?"
Positive = Annotated[
    Decimal,
    BeforeValidator(_read_money),
    Field(gt=0),
    _money(pattern=rf"^(?=.*[1-9]){_DIGITS}$", description="Money above zero, at most 8 decimals."),
]
NotNegative = Annotated[
    Decimal,
    BeforeValidator(_read_money),
    Field(ge=0),
    _money(pattern=rf"^{_DIGITS}$", description="Money, zero or more, at most 8 decimals."),
]
Money = Annotated[
    Decimal,
    PlainSerializer(plain, return_type=str),
    WithJsonSchema(
        {"type": "string", "pattern": r"^-?[0-9]+\.[0-9]{2,8}$", "examples": ["12.50"]},
        mode="serialization",
    ),
]
Code = Annotated[str, StringConstraints(pattern=CODE_PATTERN)]
Name = Annotated[str, StringConstraints(pattern=TEXT_PATTERN, min_length=1, max_length=NAME_MAX)]
Why = Annotated[
    str,
    StringConstraints(pattern=TEXT_PATTERN, min_length=1, max_length=REASON_MAX),
    Field(description="Why, for the audit trail."),
]
Currency = Annotated[str, StringConstraints(pattern="^[A-Z]{3}$"), Field(examples=["USD"])]
Limit = Annotated[int, Field(ge=0, le=INTEGER_MAX)]
Seconds = Annotated[int, Field(ge=1, le=86_400)]
Kind = Literal["operator", "reseller", "customer", "vendor"]
Status = Literal["active", "suspended"]
Scope = Literal["charge", "read", "manage"]
Mark = Annotated[str, StringConstraints(pattern="^[0-9*#]{1,12}$")]

CodePath = Annotated[Code, Path(description="Code of the party or plan.")]
CurrencyPath = Annotated[Currency, Path()]
PageLimit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="Items at most.")]
AfterCode = Annotated[
    str,
    Query(
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,62})?$", description="`next` of the page before."
    ),
]
AfterNumber = Annotated[int, Query(ge=0, le=ID_MAX, description="`next` of the page before.")]


def _read_moment(value: object) -> datetime | None:
    """RFC 3339, or a day, which is its beginning in UTC."""
    if value is None or isinstance(value, datetime):
        return value
    try:
        moment = datetime.fromisoformat(str(value).strip().replace(" ", "+"))
    except ValueError as error:
        raise PydanticCustomError(
            "moment", "give a time such as 2026-03-01T00:00:00Z, or a day such as 2026-03-01"
        ) from error
    is_day = len(str(value).strip()) == 10
    return moment.replace(tzinfo=UTC) if is_day else moment


Moment = Annotated[
    datetime | None,
    BeforeValidator(_read_moment),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


class In(BaseModel):
    """What comes in is read to the letter."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Out(BaseModel):
    """What goes out is complete: every field is always there."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)


class Problem(BaseModel):
    """An error by RFC 9457. `code` is stable and for programs, `detail` one sentence for people."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    field: str | None = None


# --- wallets -------------------------------------------------------------------------------------


class NewWallet(In):
    """A wallet to be made; a credit limit of 0 is prepaid."""

    currency: Currency
    credit_limit: NotNegative = Decimal(0)


class FundedWallet(NewWallet):
    """A wallet made together with its party, and the money it begins with."""

    top_up: Positive | None = None
    reason: Why = "opening balance"


class WalletTerms(In):
    """New terms of a wallet; what is left out stays as it is."""

    credit_limit: NotNegative | None = None
    parked: bool | None = Field(
        default=None, description="True stops new sessions and payments out of it."
    )
    reason: Why


class TopUp(In):
    """An entry made by hand; the kind gives the direction, the amount is always positive."""

    amount: Positive
    reason: Why
    kind: Literal["topup", "withdrawal", "adjust_up", "adjust_down"] = "topup"


class WalletOut(Out):
    """A wallet: available = balance + credit_limit - held."""

    currency: str
    balance: Money
    held: Money
    available: Money
    credit_limit: Money
    live_sessions: int
    parked: bool

    @classmethod
    def of(cls, wallet: Wallet) -> Self:
        """Show a wallet."""
        return cls(
            currency=wallet.currency,
            balance=wallet.balance,
            held=wallet.held,
            available=wallet.available,
            credit_limit=wallet.credit_limit,
            live_sessions=wallet.live,
            parked=wallet.parked,
        )


class WalletList(Out):
    """All wallets of a party."""

    items: list[WalletOut]


class EntryOut(Out):
    """One entry: `amount` is signed, positive is the customer's money."""

    id: int
    version: int = Field(description="Number of the entry on this wallet, without a gap.")
    time: datetime
    code: str
    amount: Money
    balance_after: Money
    session: UUID | None
    reason: str
    actor: str

    @classmethod
    def of(cls, entry: Entry) -> Self:
        """Show an entry."""
        return cls(
            id=entry.id,
            version=entry.version,
            time=entry.at,
            code=entry.code.value,
            amount=entry.effect,
            balance_after=entry.balance_after,
            session=entry.session_id,
            reason=entry.reason,
            actor=entry.actor,
        )


class PostedOut(Out):
    """The entry made, and the wallet after it."""

    entry: EntryOut
    wallet: WalletOut

    @classmethod
    def of(cls, posted: Posted) -> Self:
        """Show what was posted."""
        return cls(entry=EntryOut.of(posted.entry), wallet=WalletOut.of(posted.wallet))


class StatementOut(Out):
    """What happened from `from` (inclusive) to `to` (exclusive).

    The balances are those of the whole period, `entries` is one page of it.
    """

    party: str
    currency: str
    begin: datetime = Field(serialization_alias="from")
    end: datetime = Field(serialization_alias="to")
    opening_balance: Money
    entries: list[EntryOut]
    closing_balance: Money
    next: int | None

    @classmethod
    def of(cls, statement: Statement) -> Self:
        """Show a statement."""
        return cls(
            party=statement.party,
            currency=statement.currency,
            begin=statement.begin,
            end=statement.end,
            opening_balance=statement.opening_balance,
            entries=[EntryOut.of(entry) for entry in statement.entries],
            closing_balance=statement.closing_balance,
            next=statement.cursor,
        )


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
    kill_on_suspend: bool = False
    timezone: Annotated[str, StringConstraints(pattern=ZONE_PATTERN)] = "UTC"
    max_sessions: Limit | None = None
    max_cps: Limit | None = None
    max_cost: NotNegative | None = None
    max_seconds: Seconds = 14_400
    dial_rules: DialRulesIn = DialRulesIn()
    wallets: list[FundedWallet] = Field(default=[], max_length=20)

    def party(self) -> Party:
        """Return the party as the service takes it."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        del fields["wallets"]
        return Party(**{**fields, "dial_rules": self.dial_rules.rules()})


class PartyChange(In):
    """Fields to change; what is left out stays, and null takes a plan or a limit away."""

    name: Name = ""
    plan: Code | None = None
    status: Status = "active"
    kill_on_suspend: bool = False
    timezone: Annotated[str, StringConstraints(pattern=ZONE_PATTERN)] = "UTC"
    max_sessions: Limit | None = None
    max_cps: Limit | None = None
    max_cost: NotNegative | None = None
    max_seconds: Seconds = 14_400
    dial_rules: DialRulesIn = DialRulesIn()

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
    kill_on_suspend: bool
    timezone: str
    max_sessions: int | None
    max_cps: int | None
    max_cost: Money | None
    max_seconds: int
    dial_rules: DialRulesOut
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
    def with_wallets(cls, party: Party, wallets: list[Wallet]) -> Self:
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

    def plan_card(self) -> PlanCard:
        """Return it as the service takes it."""
        return PlanCard(self.card, self.kind)


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
            cards=[PlanCardOut(card=card.card, kind=card.kind) for card in plan.cards],
        )


class PlanList(Out):
    """A page of plans; `next` is null on the last one."""

    items: list[PlanOut]
    next: str | None


# --- keys ----------------------------------------------------------------------------------------


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
