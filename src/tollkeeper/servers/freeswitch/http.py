"""FreeSWITCH over HTTP: the dialplan that mod_xml_curl asks for, the record that mod_json_cdr posts.

The dialplan is the way without a parked leg: a call of the entry context is authorised while the switch
asks how to go on. Where an agent is connected too (the peer has a secret), it reports, renews and ends
these calls as any others. Without one the first grant is the only one, and the record ends the call.

Options of the peer: ``entry_context`` (of which calls are authorised), ``routing_context``,
``refusal_context``, and ``bridge``: a dial string with {number}, in the place of the routing context.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace

from tollkeeper.core.reasons import MEANINGS, Reason
from tollkeeper.core.usage import Refused, Skipped, Usage
from tollkeeper.errors import Busy, InvalidInput, NotFound
from tollkeeper.servers.asks import Ask
from tollkeeper.servers.freeswitch.words import (
    ASKED,
    ENTRY_CONTEXT,
    GRANTED,
    MARK,
    ON_ANSWER,
    RAN_OUT,
    REASON,
    ROUTING_CONTEXT,
    SIP,
    Look,
    ask_of,
    cause_of,
    is_channel,
)
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.store.peers import Peer
from tollkeeper.telemetry import PeerMeter
from tollkeeper.wire.cdr import freeswitch_json
from tollkeeper.wire.cdr.format import ReadOptions
from tollkeeper.wire.esl import commands
from tollkeeper.wire.esl.dialplan import Actions, dialplan, not_found, parse_form

RECORD_MAX = 4 * 1024 * 1024
"""Bytes of a record as it is posted."""


def peer_of(board: Switchboard, switch: str) -> Peer:
    """The peer that a key of this switch speaks for.

    Raises:
        NotFound: there is none.
    """
    for peer in board.book.of_kind("freeswitch"):
        if peer.switch == switch:
            return peer
    raise NotFound(
        f'there is no peer of the kind freeswitch for the switch "{switch}" of this API key',
        code="unknown_peer",
    )


async def answer_dialplan(board: Switchboard, peer: Peer, body: bytes) -> bytes:
    """Answer how a call goes on: to its route with a limit, to its end, or "see your own files".

    Raises:
        MalformedEsl: the form cannot be read.
    """
    form = parse_form(body)

    def profile(name: str) -> str:
        # Hunt- is what is looked for now; Caller- what the channel was when it came.
        return form.get(f"Hunt-{name}") or form.get(f"Caller-{name}", "")

    entry = peer.text("entry_context", ENTRY_CONTEXT)
    if form.get("section") != "dialplan" or profile("Context") != entry:
        return not_found()
    uuid, called = form.get("Unique-ID", ""), profile("Destination-Number")
    if not is_channel(uuid):
        PeerMeter.of(peer.code, peer.kind).fault(
            "malformed", "a dialplan request without Unique-ID"
        )
        return dialplan(entry, _refused(peer, Reason.UNKNOWN_CUSTOMER))
    if not commands.extension(called):
        return dialplan(entry, _refused(peer, Reason.INVALID_NUMBER))
    verdict = await board.authorise(peer, _ask(peer, form, uuid, called, profile))
    if not verdict.allowed or verdict.granted < 1:
        return dialplan(entry, _refused(peer, verdict.reason))
    core = form.get("Core-UUID", "")
    board.handles.keep(f"{peer.switch}/{verdict.call_id}", {"core": core} if core else {})
    return dialplan(entry, _allowed(peer, called, verdict.granted))


async def settle_record(board: Switchboard, peer: Peer, body: bytes) -> bool:
    """End the session of a posted record at its usage; False if the record is of no call that is charged.

    Raises:
        InvalidInput: it is no record of mod_json_cdr. Busy: it could not be settled; post it again.
    """
    items = list(freeswitch_json.read(io.BytesIO(body), ReadOptions(timezone=peer.timezone)))
    if len(items) != 1:
        raise InvalidInput(
            "one call's record of mod_json_cdr is taken at a time", code="wrong_format"
        )
    item = items[0]
    if isinstance(item, Skipped):
        return False
    if isinstance(item, Refused):
        raise InvalidInput(f"{item.field}: {item.reason}", code="invalid_record")
    if not isinstance(item, Usage):
        raise InvalidInput("the record is only half of a call's", code="invalid_record")
    uuid = item.leg or item.call_id
    if not is_channel(uuid):
        return False
    verdict = await board.stop_call(peer, uuid, item.duration_ms, cause=_cause(item))
    if verdict.busy:
        raise Busy("the call could not be settled now; post its record again")
    return verdict.reason is not Reason.UNKNOWN_SESSION


def _ask(peer: Peer, form: Mapping[str, str], uuid: str, called: str, profile: Look) -> Ask:
    ask = ask_of(
        lambda name: form.get(f"variable_{name}", ""),
        call_id=uuid,
        called=called,
        caller=profile("Caller-ID-Number"),
        address=profile("Network-Addr"),
    )
    # Only an agent hears of the answer; else the usage counts from now on for all we know.
    return ask if peer.secret else replace(ask, start_expected=False)


def _allowed(peer: Peer, called: str, granted: int) -> Actions:
    actions = [
        ("set", f"{MARK}={ASKED}"),
        ("set", f"{GRANTED}={granted}"),
        ("set", f"{ON_ANSWER}={commands.on_answer(granted, RAN_OUT)}"),
    ]
    bridge = peer.text("bridge")
    if bridge:
        return [
            *actions,
            ("set", "hangup_after_bridge=true"),
            ("bridge", bridge.replace("{number}", called)),
        ]
    context = peer.text("routing_context", ROUTING_CONTEXT)
    return [*actions, ("transfer", f"{called} XML {context}")]


def _refused(peer: Peer, reason: Reason) -> Actions:
    name = reason.value or "refused"
    actions = [
        ("set", f"{MARK}={ASKED}"),
        ("set", f"{REASON}={name}"),
        ("set", f"{SIP}={MEANINGS[reason].sip}"),
    ]
    context = peer.text("refusal_context")
    if context:
        return [*actions, ("transfer", f"{name} XML {context}")]
    return [*actions, ("hangup", cause_of(reason))]


def _cause(item: Usage) -> str:
    return f"q850:{item.q850}" if item.q850 else ""
