"""What a protocol asks of the switchboard, and what it is answered."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from tollkeeper.core.reasons import MEANINGS, Meaning, Reason
from tollkeeper.core.records import Outcome, Reply

_ID = re.compile(r"[!-~]{1,160}")


def call_id_of(text: str) -> str:
    """A switch's id of a call as it is kept: itself, or its hash where it is too long or no plain text."""
    text = text.strip()
    if _ID.fullmatch(text) is not None:
        return text
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=20)
    return f"h-{digest.hexdigest()}"


@dataclass(frozen=True, slots=True)
class Ask:
    """May this call (data session) proceed? Numbers as the switch writes them.

    Whose it is: ``party`` names it where that was proven by a password; else ``trunk`` (the switch's
    name of it), ``address`` (the IP address the call came from) and ``account`` are looked for among
    the trunks. ``requested``: units of the slice, by the peer's option ``slice`` if None. ``fresh``: the
    protocol itself tells repeated messages apart, so that an id whose call has ended names a new one.
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
