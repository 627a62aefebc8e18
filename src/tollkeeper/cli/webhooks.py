"""The commands ``webhook``: who is told of events by HTTP, and what became of each event."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from tollkeeper.cli.common import actor, console, given, run, table
from tollkeeper.services import webhooks
from tollkeeper.services.feed import KINDS, message_id
from tollkeeper.services.webhooks import Delivery, Webhook
from tollkeeper.wiring import system_clock

app = App(name="webhook", help="Webhooks: add, try, list deliveries.")


@app.command
def add(
    code: str,
    url: str,
    *,
    event: Annotated[list[str] | None, Parameter(negative=())] = None,
    party: str | None = None,
    secret: str | None = None,
) -> None:
    """Add a webhook. Its secret is shown once, now.

    Args:
        code: Its name.
        url: Where events are posted.
        event: Kind of events it is told of; may be given several times. Left out: all.
        party: Bounds it to this party and those below it; left out, it is told of everybody.
        secret: whsec_ and 24 to 64 bytes in base64; left out, one is made.
    """
    wanted = Webhook(code=code, url=url, events=tuple(event or KINDS), party=party)
    made, shown = run(
        lambda database: webhooks.create_webhook(database, wanted, secret=secret, actor=actor())
    )
    console(stderr=True).print(f"webhook {made.code} is told of {', '.join(made.events)}")
    if shown is not None:
        # The secret alone on standard output: it can be piped into where it belongs.
        print(shown)


@app.command(name="list")
def list_webhooks(*, party: str = "", after: str = "", limit: int = 1000) -> None:
    """List webhooks.

    Args:
        party: Only this party's.
        after: Begin after this code.
        limit: How many at most.
    """
    found = run(
        lambda database: webhooks.list_webhooks(database, party=party, after=after, limit=limit)
    )
    rows = [(one.code, one.party, one.url, ", ".join(one.events), _state(one)) for one in found]
    columns = ["code", "party", "url", "events", "state"]
    console().print(table(f"{len(found)} webhooks", columns, rows))


@app.command(name="set")
def set_webhook(
    code: str,
    *,
    url: str | None = None,
    event: Annotated[list[str] | None, Parameter(negative=())] = None,
    enabled: bool | None = None,
) -> None:
    """Change a webhook, or enable it again.

    Args:
        code: Its name.
        url: Where events are posted from now on.
        event: Kind of events it is told of from now on; may be given several times.
        enabled: Whether it is told of anything.
    """
    events = tuple(event) if event else None
    changes = given(url=url, event=events, enabled=enabled)
    if "event" in changes:
        changes["events"] = changes.pop("event")
    changed = run(lambda database: webhooks.change_webhook(database, code, changes, actor=actor()))
    console().print(f"webhook {changed.code}: {_state(changed)}, {changed.url}")


@app.command
def delete(code: str) -> None:
    """Delete a webhook with all that waits for it.

    Args:
        code: Its name.
    """
    run(lambda database: webhooks.delete_webhook(database, code, actor=actor()))
    console().print(f"webhook {code} is deleted")


@app.command
def rotate(code: str, *, keep_hours: int = webhooks.KEEP_HOURS, secret: str | None = None) -> None:
    """Replace the secret; the one before goes on signing for a while.

    Args:
        code: Its name.
        keep_hours: So long both sign.
        secret: whsec_ and 24 to 64 bytes in base64; left out, one is made and shown once.
    """
    now = system_clock()
    _, shown = run(
        lambda database: webhooks.rotate_secret(
            database, code, secret=secret, keep_hours=keep_hours, now=now, actor=actor()
        )
    )
    console(stderr=True).print(f"webhook {code} has a new secret; both sign for {keep_hours} hours")
    if shown is not None:
        print(shown)


@app.command(name="test")
def try_webhook(code: str) -> None:
    """Let the server send a webhook an event that means nothing.

    Args:
        code: Its name.
    """
    now = system_clock()
    made = run(lambda database: webhooks.try_webhook(database, code, now=now))
    console().print(
        f'delivery {made.id} waits for the server; "webhook deliveries {code}" shows what became of it'
    )


@app.command
def deliveries(code: str, *, state: str = "", limit: int = 50) -> None:
    """List what was sent to a webhook or is to be, the newest first.

    Args:
        code: Its name.
        state: Only those that are waiting, delivered or failed.
        limit: How many at most.
    """
    found = run(lambda database: webhooks.list_deliveries(database, code, state=state, limit=limit))
    rows = [_row(one) for one in found]
    columns = ["id>", "event", "type", "at", "attempts>", "state", "answer>", "error"]
    console().print(table(f"{len(found)} deliveries", columns, rows))


@app.command
def redeliver(code: str, delivery_id: int) -> None:
    """Send an event once more.

    Args:
        code: Name of the webhook.
        delivery_id: The delivery, as "deliveries" shows it.
    """
    now = system_clock()
    run(lambda database: webhooks.redeliver(database, code, delivery_id, now=now, actor=actor()))
    console().print(f"delivery {delivery_id} is sent again")


def _row(one: Delivery) -> tuple[object, ...]:
    state = "done" if one.done_at is not None else f"next {one.next_at:%Y-%m-%d %H:%M:%S}"
    at = f"{one.at:%Y-%m-%d %H:%M:%S}"
    event = message_id(one.feed_id)
    return (one.id, event, one.kind, at, one.attempts, state, one.status, one.last_error)


def _state(webhook: Webhook) -> str:
    if not webhook.enabled:
        return f"disabled: {webhook.disabled_why}" if webhook.disabled_why else "disabled"
    if webhook.failing_since is not None:
        return f"failing since {webhook.failing_since:%Y-%m-%d %H:%M}"
    return "enabled"
