"""A use of a service as somebody asks for it: what is to be priced, and what is kept of the asking."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import msgspec

from tollkeeper.core.messages import segments as segments_of
from tollkeeper.core.numbering import DialRules, normalise
from tollkeeper.core.plans import Question
from tollkeeper.core.rating import UNITS_MAX
from tollkeeper.core.records import Unit
from tollkeeper.core.services import Service, takes_number
from tollkeeper.errors import InvalidInput
from tollkeeper.services.offers import Fixed
from tollkeeper.store.directory import PartyEntry

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Use:
    """What is to be used, as it came from outside: numbers in the caller's own writing."""

    party: str
    called: str
    service: str = "voice"
    caller: str = ""
    lrn: str = ""
    network: str = ""


def question_of(
    entry: PartyEntry, use: Use, fixed: Fixed | None = None, *, rules: DialRules | None = None
) -> Question:
    """What is to be priced, with numbers as E.164 digits; ``rules`` in the place of the party's own.

    A caller's number that is none counts as no number: it must not keep a call from being made.

    Raises:
        InvalidInput: a number that cannot be called.
    """
    if fixed is not None or not takes_number(use.service):
        return Question(use.service, use.called.strip(), network=use.network)
    rules = entry.dial_rules if rules is None else rules
    number = normalise(use.called, rules)
    caller = ""
    if use.caller:
        if rules.tech_prefix:
            # It stands in front of the called number only.
            rules = replace(rules, tech_prefix="", tech_prefix_required=False)
        try:
            caller = normalise(use.caller, rules)
        except InvalidInput:
            caller = ""
    return Question(use.service, number, caller, use.network, use.lrn.removeprefix("+"))


def event_request(
    use: Use, units: int, text: str | None, fixed: Fixed | None, share: tuple[int, int] | None
) -> bytes:
    """What an event asks for, as it is kept: without its text."""
    request: dict[str, object] = {
        "type": "charge",
        "party": use.party,
        "called": use.called,
        "caller": use.caller,
        "service": use.service,
        "units": units,
    }
    if text is not None:
        # Another text under the same id is another message, even if it is as long.
        request["text_digest"] = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
    if use.lrn:
        request["lrn"] = use.lrn
    if use.network:
        request["network"] = use.network
    if fixed is not None:
        request["price"] = f"{fixed.amount:f} {fixed.currency}"
    if share is not None:
        request["share"] = "{}/{}".format(*share)
    return _encode(request)


def units_of(sold: Service, units: int | None, segments: int | None, text: str | None) -> int:
    """How many units an event is, from the one thing that says so; 1 if nothing does.

    Raises:
        InvalidInput: two of them, words for messages only, or a number out of range.
    """
    given = [value for value in (units, segments, text) if value is not None]
    if len(given) > 1:
        raise InvalidInput("give text, segments or units, one of them", field="units")
    if sold.unit is not Unit.MESSAGE and (segments is not None or text is not None):
        raise InvalidInput("text and segments are for messages; give units", field="units")
    number = segments_of(text).segments if text is not None else segments or units or 1
    if not 1 <= number <= UNITS_MAX:
        raise InvalidInput(f"units must be from 1 to {UNITS_MAX}", field="units")
    return number
