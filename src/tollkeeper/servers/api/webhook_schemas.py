"""What the routes of webhooks take and give, as OpenAPI shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from fastapi import Path, Query
from pydantic import Field, StringConstraints

from tollkeeper.servers.api.schemas import ID_MAX, Code, In, Out
from tollkeeper.services.feed import message_id
from tollkeeper.services.webhooks import KEEP_HOURS, KEEP_HOURS_MAX, URL_MAX, Delivery, Webhook

WebhookPath = Annotated[Code, Path(alias="code", description="Code of the webhook.")]
DeliveryPath = Annotated[int, Path(ge=1, le=ID_MAX, description="Id of the delivery.")]
DeliveryState = Annotated[
    Literal["", "waiting", "delivered", "failed"], Query(description="Only those in this state.")
]
BeforeNumber = Annotated[
    int, Query(alias="after", ge=0, le=ID_MAX, description="`next` of the page before.")
]
Kind = Literal[
    "session.ended",
    "session.kill",
    "session.expired",
    "session.overrun",
    "session.late",
    "wallet.alert",
    "wallet.topup",
]
Kinds = Annotated[
    list[Kind], Field(min_length=1, max_length=20, description="The kinds of events it is told of.")
]
Url = Annotated[
    str,
    StringConstraints(min_length=8, max_length=URL_MAX),
    Field(
        description="Where events are posted, https or http; https on the open Internet if it is a "
        "party's. No redirects are followed.",
        examples=["https://billing.example/tollkeeper"],
    ),
]
Secret = Annotated[
    str | None,
    Field(
        max_length=200,
        description="`whsec_` and 24 to 64 bytes in base64; left out, one is made and shown once.",
    ),
]


class NewWebhook(In):
    """A webhook to be added. Without `party` it is the operator's, or of the key's own party."""

    code: Code
    url: Url
    events: Kinds
    party: Code | None = None
    enabled: bool = True
    secret: Secret = None

    def webhook(self) -> Webhook:
        """As the use case takes it."""
        return Webhook(
            code=self.code,
            url=self.url,
            events=tuple(self.events),
            party=self.party,
            enabled=self.enabled,
        )


class WebhookChange(In):
    """What is to change; what is left out stays. Enabling it is a fresh start."""

    url: Url | None = None
    events: Kinds | None = None
    enabled: bool | None = None

    def changes(self) -> dict[str, Any]:
        """Only what was given."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        found = {name: value for name, value in given.items() if value is not None}
        if "events" in found:
            found["events"] = tuple(found["events"])
        return found


class Rotation(In):
    """A new secret; the one before goes on signing for `keep_hours`."""

    secret: Secret = None
    keep_hours: int = Field(default=KEEP_HOURS, ge=0, le=KEEP_HOURS_MAX)


class WebhookOut(Out):
    """A webhook. `failing_since` is the time of the first failure since the last success; `disabled_why`
    says why it was disabled by itself; until `old_secret_until` the secret before signs too."""  # noqa: D205, D209

    code: str
    party: str | None
    url: str
    events: list[str]
    enabled: bool
    failing_since: datetime | None
    disabled_why: str
    old_secret_until: datetime | None
    created_at: datetime | None

    @classmethod
    def of(cls, webhook: Webhook) -> Self:
        """Show a webhook, without its secret."""
        return cls(**_shown(webhook))


class WebhookSecretOut(WebhookOut):
    """The webhook as it is now. `secret` is the one just made: null if you gave your own."""

    secret: str | None

    @classmethod
    def made(cls, webhook: Webhook, secret: str | None) -> Self:
        """Show a webhook with what was made for it."""
        return cls(**_shown(webhook), secret=secret)


def _shown(webhook: Webhook) -> dict[str, Any]:
    return {
        "code": webhook.code,
        "party": webhook.party,
        "url": webhook.url,
        "events": list(webhook.events),
        "enabled": webhook.enabled,
        "failing_since": webhook.failing_since,
        "disabled_why": webhook.disabled_why,
        "old_secret_until": webhook.old_until,
        "created_at": webhook.created_at,
    }


class WebhookList(Out):
    """A page of webhooks."""

    items: list[WebhookOut]
    next: str | None


class DeliveryOut(Out):
    """An event for a webhook. `event_id` is the `webhook-id` it is sent with, `body` what is sent; `status` is
    that of the last answer, if there was one. While it waits, `next_at` is the time of the next attempt."""  # noqa: D205, D209

    id: int
    event_id: str
    type: str
    at: datetime
    state: str
    attempts: int
    next_at: datetime | None
    done_at: datetime | None
    status: int | None
    error: str
    body: str

    @classmethod
    def of(cls, delivery: Delivery) -> Self:
        """Show a delivery."""
        taken = delivery.status is not None and 200 <= delivery.status < 300
        state = "waiting" if delivery.done_at is None else "delivered" if taken else "failed"
        return cls(
            id=delivery.id,
            event_id=message_id(delivery.feed_id),
            type=delivery.kind,
            at=delivery.at,
            state=state,
            attempts=delivery.attempts,
            next_at=delivery.next_at if delivery.done_at is None else None,
            done_at=delivery.done_at,
            status=delivery.status,
            error=delivery.last_error,
            body=delivery.body,
        )


class DeliveryList(Out):
    """A page of deliveries, the newest first."""

    items: list[DeliveryOut]
    next: int | None
