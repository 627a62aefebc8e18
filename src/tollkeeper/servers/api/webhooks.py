"""Routes of webhooks: who is told of events by HTTP, and what became of each event."""

from __future__ import annotations

from fastapi import APIRouter

from tollkeeper.servers.api import webhook_schemas as schemas
from tollkeeper.servers.api.auth import DOCUMENTED, ManageKey, actor_of, scope_of
from tollkeeper.servers.api.context import Context
from tollkeeper.servers.api.schemas import AfterCode, PageLimit
from tollkeeper.servers.api.supply_schemas import PartyFilter
from tollkeeper.services import webhooks

router = APIRouter(prefix="/v1/webhooks", dependencies=DOCUMENTED, tags=["events"])


@router.post("", status_code=201)
async def create_webhook(
    body: schemas.NewWebhook, context: Context, key: ManageKey
) -> schemas.WebhookSecretOut:
    """Add a webhook. A secret made here is in this answer and nowhere else."""
    made, secret = await webhooks.create_webhook(
        context.database,
        body.webhook(),
        secret=body.secret,
        actor=actor_of(key),
        scope=scope_of(key),
    )
    return schemas.WebhookSecretOut.made(made, secret)


@router.get("")
async def list_webhooks(
    context: Context,
    key: ManageKey,
    limit: PageLimit = 100,
    after: AfterCode = "",
    party: PartyFilter = "",
) -> schemas.WebhookList:
    """List webhooks in the order of their codes."""
    found = await webhooks.list_webhooks(
        context.database, party=party, after=after, limit=limit + 1, scope=scope_of(key)
    )
    items = [schemas.WebhookOut.of(webhook) for webhook in found[:limit]]
    return schemas.WebhookList(items=items, next=items[-1].code if len(found) > limit else None)


@router.get("/{code}")
async def get_webhook(
    code: schemas.WebhookPath, context: Context, key: ManageKey
) -> schemas.WebhookOut:
    """Show a webhook, without its secret."""
    found = await webhooks.get_webhook(context.database, code, scope=scope_of(key))
    return schemas.WebhookOut.of(found)


@router.patch("/{code}")
async def change_webhook(
    code: schemas.WebhookPath, body: schemas.WebhookChange, context: Context, key: ManageKey
) -> schemas.WebhookOut:
    """Change a webhook, or enable it again; what waits for it is sent then."""
    changed = await webhooks.change_webhook(
        context.database, code, body.changes(), actor=actor_of(key), scope=scope_of(key)
    )
    return schemas.WebhookOut.of(changed)


@router.delete("/{code}", status_code=204)
async def delete_webhook(code: schemas.WebhookPath, context: Context, key: ManageKey) -> None:
    """Delete a webhook with all that waits for it."""
    await webhooks.delete_webhook(context.database, code, actor=actor_of(key), scope=scope_of(key))


@router.post("/{code}/secret")
async def rotate_webhook_secret(
    code: schemas.WebhookPath, body: schemas.Rotation, context: Context, key: ManageKey
) -> schemas.WebhookSecretOut:
    """Replace the secret. For a while both sign, so that nothing is refused meanwhile."""
    changed, secret = await webhooks.rotate_secret(
        context.database,
        code,
        secret=body.secret,
        keep_hours=body.keep_hours,
        now=context.clock(),
        actor=actor_of(key),
        scope=scope_of(key),
    )
    return schemas.WebhookSecretOut.made(changed, secret)


@router.post("/{code}/test", status_code=202)
async def try_webhook(
    code: schemas.WebhookPath, context: Context, key: ManageKey
) -> schemas.DeliveryOut:
    """Send an event of the kind `webhook.test`; the deliveries tell what became of it."""
    made = await webhooks.try_webhook(
        context.database, code, now=context.clock(), scope=scope_of(key)
    )
    return schemas.DeliveryOut.of(made)


@router.get("/{code}/deliveries")
async def list_deliveries(
    code: schemas.WebhookPath,
    context: Context,
    key: ManageKey,
    limit: PageLimit = 100,
    before: schemas.BeforeNumber = 0,
    state: schemas.DeliveryState = "",
) -> schemas.DeliveryList:
    """List what was sent to a webhook in the last 30 days or is to be, the newest first."""
    found = await webhooks.list_deliveries(
        context.database,
        code,
        state=state,
        before=before,
        limit=limit + 1,
        scope=scope_of(key),
    )
    items = [schemas.DeliveryOut.of(delivery) for delivery in found[:limit]]
    return schemas.DeliveryList(items=items, next=items[-1].id if len(found) > limit else None)


@router.post("/{code}/deliveries/{delivery_id}/redeliver", status_code=202)
async def redeliver(
    code: schemas.WebhookPath, delivery_id: schemas.DeliveryPath, context: Context, key: ManageKey
) -> schemas.DeliveryOut:
    """Send an event once more, with the same id."""
    again = await webhooks.redeliver(
        context.database,
        code,
        delivery_id,
        now=context.clock(),
        actor=actor_of(key),
        scope=scope_of(key),
    )
    return schemas.DeliveryOut.of(again)
