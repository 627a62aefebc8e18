"""The generated page of the credit session: every state tried with every command."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from msgspec.structs import replace

from tollkeeper.core import records
from tollkeeper.core.rating import Tariff
from tollkeeper.core.session import TRANSITIONS, View, decide
from tollkeeper.errors import TollkeeperError
from tools.pages import page, table

_NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
_PIN = records.Pin(1, "card", 1, 1, "44", "UK", "USD", Tariff(Decimal(1), Decimal(1), 60, 60))
_WALLETS = {1: records.Wallet(1, 1, "USD", credited=Decimal(100))}
_LIMITS = {1: records.Limits()}
_AUTHORISE = records.Authorise(
    "sw/1", 1, "44", offers=(records.Offer(records.Role.CUSTOMER, 1, 1, _PIN),)
)
COMMANDS: dict[str, records.Command] = {
    "authorise": _AUTHORISE,
    "authorise, no start expected": replace(_AUTHORISE, start_expected=False),
    "charge": records.Charge("sw/1", 1, "44", 2, offers=_AUTHORISE.offers),
    "start": records.Start("sw/1"),
    "update": records.Update("sw/1", 120_000),
    "stop, used": records.Stop("sw/1", 120_000),
    "stop, nothing used": records.Stop("sw/1", 0),
    "stop, used more than held": records.Stop("sw/1", 400_000),
    "kill": records.Kill("sw/1", "operator"),
    "expire, deadline passed": records.Expire("sw/1"),
    "refund": records.Refund("sw/1"),
}


def _try(
    session: records.Session | None, command: records.Command, *, refused: bool = False
) -> records.Decision | TollkeeperError:
    wallets = {} if refused else _WALLETS
    view = View(wallets or {1: records.Wallet(1, 1, "USD")}, _LIMITS, records.Policy())
    late = timedelta(hours=1) if isinstance(command, records.Expire) else timedelta(seconds=10)
    try:
        return decide(session, command, view, _NOW + late, "id" if session is None else "")
    except TollkeeperError as error:
        return error


def _after(session: records.Session | None, name: str, *, refused: bool = False) -> records.Session:
    decision = _try(session, COMMANDS[name], refused=refused)
    assert isinstance(decision, records.Decision)
    return decision.session


def _sessions() -> dict[str, records.Session | None]:
    authorised = _after(None, "authorise")
    active = _after(authorised, "start")
    return {
        "(none)": None,
        "authorised": authorised,
        "active": active,
        "closed, settled": _after(active, "stop, used"),
        "closed, expired": _after(active, "expire, deadline passed"),
        "closed, refused": _after(None, "authorise", refused=True),
        "closed, charged at once": _after(None, "charge"),
    }


def _state(session: records.Session) -> str:
    return (
        f"{session.state.value}, {session.ending.value}" if session.ending else session.state.value
    )


def session_states() -> str:
    """The page of the credit session: each state is tried with each command, by the core itself."""
    assert {type(c) for c in COMMANDS.values()} == {command for _, command in TRANSITIONS}
    rows: list[list[str]] = []
    arrows: dict[tuple[str, str], list[str]] = {("[*]", "closed"): ["authorise, refused"]}
    for state, session in _sessions().items():
        for name, command in COMMANDS.items():
            done = _try(session, command)
            if isinstance(done, TollkeeperError):
                rows.append([state, name, "unchanged", f"{done.http_status} `{done.code}`", "", ""])
                continue
            changed = done.session is not session
            posted = ", ".join(f"`{posting.code.value}`" for posting in done.postings)
            told = ", ".join(f"`{event.kind}`" for event in done.events)
            answer = f"`{done.reply.outcome.value}`"
            rows.append(
                [
                    state,
                    name,
                    _state(done.session) if changed else "unchanged",
                    answer,
                    posted,
                    told,
                ]
            )
            old = "[*]" if session is None else session.state.value
            if changed and old != done.session.state.value:
                arrows.setdefault((old, done.session.state.value), []).append(name)
    diagram = ["```mermaid", "stateDiagram-v2"]
    diagram += [f"    {a} --> {b}: {' / '.join(names)}" for (a, b), names in arrows.items()]
    diagram += ["    closed --> [*]", "```"]
    intro = """\
The transition table of `core/session.py`, tried with each command. A closed session has an ending:
`refused`, `settled` (something was used), `released` (nothing was), `expired`. The probe is a call of
1.00 per minute at 60/60 with 300 s granted; updates and stops report 120 s unless said otherwise, so on
a session that was settled at 120 s they bring nothing new.

A message that was applied before does not come here: it gets its stored answer. With other content
under the same message id it is `409 message_id_reused`, for an authorisation `session_id_reused`."""
    titles = ["state", "command", "becomes", "answer", "posts", "tells"]
    return page(
        "Session states", intro, diagram, "## Every state, every command", table(titles, rows)
    )
