"""An explanation as a page for people: what happened, and how each amount came about."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tollkeeper.cli.common import table
from tollkeeper.core.money import plain
from tollkeeper.core.rating import Tariff, seconds_of
from tollkeeper.core.reasons import MEANINGS, Reason
from tollkeeper.core.records import Outcome, Reply, Unit
from tollkeeper.core.services import takes_number
from tollkeeper.core.words import Words
from tollkeeper.services.explain import Explanation, LegLine, MessageLine, units_of
from tollkeeper.services.explain_parts import exact

_NOT_SAID = frozenset({"type", "party", "called", "caller", "service", "text_digest"})


def render(found: Explanation, *, messages: bool = True) -> RenderableType:
    """An explanation as a page for people: what happened, and how the amounts came about."""
    parts: list[RenderableType] = [_head(found), "", Text(found.story, style="bold")]
    parts += [Text(f"Note: {mark}.", style="yellow") for mark in found.marks]
    if messages:
        parts += ["", _messages(found)]
    for leg in found.legs:
        parts += ["", *_leg(found, leg)]
    return Group(*parts)


def _head(found: Explanation) -> RenderableType:
    session = found.session
    head = Table.grid(padding=(0, 2))
    dialled = str(found.messages[0].request.get("called", "")) if found.messages else ""
    as_sent = f" (sent as {dialled})" if dialled not in {"", session.called} else ""
    used = f"{session.called}{as_sent}, {session.service}"
    if session.caller or takes_number(session.service):
        used = f"{session.caller or 'unknown'} to {used}"
    times: list[tuple[str, Any]] = [("at", session.opened_at)]
    if not found.at_once:
        times = [("opened", session.opened_at)]
        if session.unit is Unit.SECOND:
            times.append(("answered", session.answered_at))
        times.append(("closed", session.closed_at))
    rows = [
        ("session", f"{found.session_id} of switch {found.switch}  ({session.id})"),
        ("party", found.party),
        ("call" if session.unit is Unit.SECOND else "use", used),
        *((name, _time(moment)) for name, moment in times),
    ]
    if session.cause:
        rows[-1] = (rows[-1][0], f"{rows[-1][1]}, cause {session.cause}")
    for name, value in rows:
        head.add_row(Text(name, style="dim"), Text(value))
    return head


def _time(moment: Any) -> str:
    return "-" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC"


# --- messages ------------------------------------------------------------------------------------


def _messages(found: Explanation) -> RenderableType:
    rows = [
        (m.version, _time(m.at), m.request.get("type", ""), _asked(found, m), _answered(found, m))
        for m in found.messages
    ]
    return table("Messages that changed it", (">", "at", "message", "said", "answer"), rows)


def _asked(found: Explanation, message: MessageLine) -> str:
    said = {name: value for name, value in message.request.items() if name not in _NOT_SAID}
    session = found.session
    if "used_ms" in said:
        used = int(said.pop("used_ms"))
        said["used"] = f"{Decimal(used) / 1000} s"
        if session.unit is not Unit.SECOND:
            said["used"] = units_of(session, -(-used // 1000))
    if session.unit is not Unit.SECOND and "requested_seconds" in said:
        said["requested"] = units_of(session, int(said.pop("requested_seconds")))
    if "units" in said:
        units = said.pop("units")
        said["for"] = "everything" if units is None else units_of(session, int(units))
    return ", ".join(f"{name} {value}" for name, value in said.items() if value not in ("", None))


def _answered(found: Explanation, message: MessageLine) -> str:
    reply: Reply = message.reply
    words = [reply.outcome.value]
    if reply.outcome in {Outcome.GRANTED, Outcome.ACTIVE}:
        granted = units_of(found.session, reply.granted_seconds)
        words.append(f"{granted} in all" + (", final" if reply.final else ""))
    if reply.terminate:
        words.append("end it now")
    if reply.reason is not Reason.NONE:
        # One part of a sentence among others.
        text = MEANINGS[reply.reason].text.rstrip(".")
        level = f" (at {message.refused_by})" if message.refused_by else ""
        words.append(text[:1].lower() + text[1:] + level)
    if reply.charge is not None:
        words.append(f"charge {plain(reply.charge)} {reply.currency}")
    return ", ".join(words)


# --- legs ----------------------------------------------------------------------------------------


def _leg(found: Explanation, leg: LegLine) -> Iterator[RenderableType]:
    money = leg.currency
    yield Text(f"Leg {leg.number}: {leg.role} {leg.party}, wallet in {money}", style="bold")
    yield from render_rate(leg)
    yield from _arithmetic(found, leg)
    yield from _hold(found, leg)
    for spend in leg.spending:
        bound = f" of at most {plain(spend.cap)}" if spend.cap is not None else ""
        yield (
            f"Spent: in the {spend.name} ({spend.period}) {plain(spend.used)} {money}{bound}, "
            f"{plain(spend.held)} held, as it stands now"
        )
    if leg.entries:
        rows = [
            (
                e.id,
                _time(e.at),
                e.code,
                plain(e.amount),
                f"{e.debit} -> {e.credit}",
                plain(e.balance_after),
            )
            for e in leg.entries
        ]
        columns = ("entry>", "at", "code", f"{money}>", "from -> to", "balance after>")
        yield table("Entries", columns, rows)


def render_rate(leg: LegLine) -> Iterator[str]:
    """The row as it stands on the card, each step that was done to it, and the price that came of it."""
    rate, words = leg.rate, leg.words
    row = rate.on_card
    if rate.row:
        on = f" of the cost card {row.cost_card}" if row is not None and row.cost_card else ""
        yield (
            f'Rate: card {rate.card} version {rate.version}, row {rate.row}{on}: prefix "{rate.prefix}" = '
            f"{rate.destination}"
        )
    else:
        where = f'prefix "{rate.prefix}" = ' if rate.prefix else ""
        yield f"Rate: {where}{rate.destination}"
    if rate.steps and row is not None:
        yield f"      on the card: {describe(row.tariff, row.currency, words)}"
    for step in rate.steps:
        yield f"      {step.kind} {step.name}: {step.detail}"
    end = "pinned at " if rate.steps else ""
    yield f"      {end}{describe(rate.tariff, leg.currency, words)}"


def _arithmetic(found: Explanation, leg: LegLine) -> Iterator[RenderableType]:
    worked = leg.price
    what = "It would cost so far" if found.session.open else "Charge"
    yield from _usage(found, leg)
    if leg.parts:
        for n, part in enumerate(leg.parts):
            yield f"{'Sum:  ' if n == 0 else '      + '}{part.text}"
            if part.place:
                yield f"        ({part.place})"
        for fee in leg.fees:
            yield f"      + {fee}"
    else:
        ends = f" = {exact(worked.exact)}" if found.session.unit is not Unit.SECOND else ""
        yield f"Sum:  {worked.note}{ends}"
    if worked.exact != worked.amount:
        yield f"      = {exact(worked.exact)} exactly, rounded once {leg.rounding}"
    yield Text(f"{what}: {plain(worked.amount)} {leg.currency}", style="bold")
    if not leg.agrees:
        yield Text(f"But {plain(leg.charged)} was charged: run verify.", style="bold red")


def _usage(found: Explanation, leg: LegLine) -> Iterator[str]:
    """What was used and what of it is billed; nothing where the sum says it all."""
    worked, session, words = leg.price, found.session, leg.words
    if session.unit is Unit.SECOND:
        if worked.billed_seconds:
            used = found.billed_from_ms
            whole = f"{Decimal(used) / 1000} s used"
            if used % 1000:
                whole += f", {seconds_of(used)} s counted (any second begun)"
            yield f"Time: {whole}, {worked.billed_seconds} s billed ({_intervals(leg.rate.tariff, words)})"
        return
    highest = max(session.used_ms, session.assumed_ms) // 1000
    said = [f"{words.count(highest)} used"]
    if session.refunded_ms:
        said.append(f"{words.count(session.refunded_ms // 1000)} given back")
    tariff = leg.rate.tariff
    if (tariff.first_interval, tariff.next_interval) != (1, 1) and worked.billed_seconds:
        steps = f"{tariff.first_interval} {words.many}, then steps of {tariff.next_interval}"
        said.append(f"{words.count(worked.billed_seconds)} billed (first {steps})")
    if len(said) > 1:
        yield f"Used: {', '.join(said)}"


def _hold(found: Explanation, leg: LegLine) -> Iterator[RenderableType]:
    hold = leg.hold
    if not found.at_once:
        if hold.taken:
            ends = [f"{plain(hold.settled)} settled", f"{plain(hold.released)} released"]
            if hold.still_held:
                ends = [f"{plain(hold.still_held)} still held"]
            yield f"Hold: {plain(hold.taken)} {leg.currency} was set aside; {', '.join(ends)}"
        for code, units in hold.reserved:
            yield f"Hold: {leg.words.count(units)} of the package {code} are set aside"
    for amount, text in (
        (hold.overrun, "was used above the hold (overrun)"),
        (hold.late, "was reported after the end (late)"),
        (hold.corrected, "was given back after the end (correction)"),
        (hold.refunded, "was given back for what was not delivered (refund)"),
        (hold.rebated, "was given back by the volume (rebate)"),
    ):
        if amount:
            yield Text(f"      {plain(amount)} {leg.currency} {text}", style="yellow")


# --- tariffs -------------------------------------------------------------------------------------


def _intervals(tariff: Tariff, words: Words) -> str:
    return (
        f"first {words.count(tariff.first_interval)}, "
        f"then steps of {words.count(tariff.next_interval)}"
    )


def describe(tariff: Tariff, currency: str, words: Words) -> str:
    """A tariff in words."""
    first, rest = plain(tariff.first_price), plain(tariff.next_price)
    each = words.each
    prices = f"{first} {currency}{each}"
    if first != rest:
        prices = f"{first}, then {rest} {currency}{each}"
    said = [prices]
    if tariff.per == 60:
        said.append(f"{tariff.first_interval}/{tariff.next_interval} s")
    elif (tariff.first_interval, tariff.next_interval) != (1, 1):
        said.append(f"{tariff.first_interval}/{tariff.next_interval} {words.many}")
    minute = "per minute" if tariff.per == 60 else each.replace("/", "per ").strip()
    for amount, text in (
        (tariff.connect_fee, "connect fee"),
        (tariff.attempt_fee, "attempt fee"),
        (tariff.minimum, "minimum charge"),
        (tariff.surcharge, f"surcharge {minute}"),
        (tariff.cap, "at most"),
    ):
        if amount:
            said.append(f"{text} {plain(amount)}")
    if tariff.free_below:
        said.append(f"free below {words.count(tariff.free_below)}")
    return ", ".join(said)
