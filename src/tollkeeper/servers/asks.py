"""What a protocol asks of the switchboard, and what it is answered."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from tollkeeper.core.reasons import MEANINGS, Meaning, Reason
from tollkeeper.core.records import Outcome, Reply

_ID = re.compile(r"[!-~]{1,160}")
_MARKED = re.compile(r"(.+)~[0-9]{1,3}", re.DOTALL)
"""An id with the mark of one that was used before."""


def call_id_of(text: str) -> str:
    """A switch's id of a call as it is kept: itself, or its hash.

    Its hash where it is too long or no plain text, or looks like the id of a session whose id was used
    before: callers choose their Call-IDs, and one who chose another's could end that one's call.
    """
    text = text.strip()
    if _ID.fullmatch(text) is not None and _MARKED.fullmatch(text) is None:
        return text
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=20)
    return f"h-{digest.hexdigest()}"


def switch_id_of(session_id: str) -> str:
    """What the switch calls the call of a session: the session's id without a mark."""
    found = _MARKED.fullmatch(session_id)
    return session_id if found is None else found[1]


@dataclass(frozen=True, slots=True)
class Ask:
    """May this call (data session) proceed? Numbers as the switch writes them.

    Whose it is: ``party`` names it where that was proven by a password; else ``trunk`` (the switch's
    name of it), ``address`` (the IP address the call came from) and ``account`` are looked for among
    the trunks. ``requested``: units of the slice, by the peer's option ``slice`` if None. ``fresh``: the
    protocol itself tells repeated messages apart, so that an id whose call has ended names a new one.
    ``unique``: its ids are never used for another call, so that one that comes again is a repeated message.
    """

    call_id: str
    called: str
    caller: str = ""
    service: str = "voice"
    party: str = ""
    trunk: str = ""
    address: str = ""
    account: str = ""
    requested: int | None = None
    start_expected: bool | None = None
    lrn: str = ""
    network: str = ""
    fresh: bool = False
    unique: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the switch is to be told.

    ``granted`` units in all since the answer are paid for; ``final``: no more will come;
    ``terminate``: end the call now. ``call_id`` is the session's id at this switch: what the switch
    called it, or that with a mark where it used the id before. ``on_risk``: nothing was charged yet.
    """

    call_id: str
    outcome: Outcome
    reason: Reason = Reason.NONE
    granted: int = 0
    final: bool = False
    terminate: bool = False
    repeated: bool = False
    on_risk: bool = False
    party: str = ""
    called: str = ""
    reply: Reply | None = field(default=None, repr=False)

    @property
    def allowed(self) -> bool:
        """The call may proceed, or go on."""
        return self.outcome in {Outcome.GRANTED, Outcome.ACTIVE, Outcome.CHARGED} and (
            not self.terminate
        )

    @property
    def busy(self) -> bool:
        """Nothing was done, and nothing is known to be: the switch should ask again."""
        return self.reason is Reason.BUSY

    @property
    def meaning(self) -> Meaning:
        """What the reason says to people and to each protocol."""
        return MEANINGS[self.reason]


def verdict_of(call_id: str, reply: Reply, *, repeated: bool) -> Verdict:
    """What the core answered, as a verdict."""
    return Verdict(
        call_id,
        reply.outcome,
        reply.reason,
        reply.granted_seconds,
        reply.final,
        reply.terminate,
        repeated,
        reply=reply,
    )


def refused(call_id: str, reason: Reason) -> Verdict:
    """The verdict of a call that is refused."""
    return Verdict(call_id_of(call_id), Outcome.REFUSED, reason)
