"""What one service of a request gets, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tollkeeper.core.reasons import MEANINGS
from tollkeeper.core.records import Unit
from tollkeeper.servers.asks import Verdict
from tollkeeper.servers.diameter.use import Use, units_of
from tollkeeper.store.peers import Peer
from tollkeeper.wire.diameter.codes import FailureHandling, Result
from tollkeeper.wire.diameter.credit import Control

VALIDITY_MARGIN_SECONDS = 60
"""So long before its session is given up here, a client must have reported (Validity-Time)."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one service of a request gets; ``busy``: nothing is known to be done."""

    line: Control
    busy: bool = False

    @property
    def failed(self) -> bool:
        """Whether it was refused."""
        return self.line.result != Result.SUCCESS

    @property
    def refused(self) -> bool:
        """Whether it was never let begin; one whose use was noted may have reached its end, too."""
        return self.failed and not self.busy and not self.line.final


BUSY = Part(Control(result=Result.TOO_BUSY), busy=True)


def granted(use: Use, verdict: Verdict, used: int, now: datetime) -> Part:
    """So much more may be used, and so long."""
    left = max(0, verdict.granted - used)
    expires = verdict.reply.expires_at if verdict.reply is not None else None
    return Part(
        line_of(
            use.line,
            granted=units_of(left, use.unit),
            validity=_validity(use.unit, left, expires, now),
            result=Result.SUCCESS,
            final=verdict.final,
        )
    )


def done(use: Use) -> Part:
    """It is noted, and nothing more is granted."""
    return Part(line_of(use.line, result=Result.SUCCESS))


def error_text(result: int) -> str:
    """What a result means, for whoever reads a trace."""
    for meaning in MEANINGS.values():
        if meaning.diameter == result:
            return meaning.text
    return ""


def handling(peer: Peer) -> FailureHandling:
    """What the client does while it gets no answer of us: as the peer's policy says."""
    if peer.on_failure == "allow":
        return FailureHandling.CONTINUE
    return FailureHandling.TERMINATE


def line_of(line: Control, **answered: Any) -> Control:
    """The answer about a service, with its names."""
    return Control(rating_group=line.rating_group, services=line.services, **answered)


def refusal(line: Control, result: int, *, final: bool = False) -> Part:
    """It gets nothing more."""
    return Part(line_of(line, result=result, final=final))


def _validity(unit: Unit, left: int, expires: datetime | None, now: datetime) -> int | None:
    """Seconds until the client must report: a call's when its grant is over, others' before we give up."""
    if unit is Unit.SECOND:
        return max(1, left)
    if expires is None:
        return None
    seconds = int((expires - now).total_seconds())
    return max(1, seconds - min(VALIDITY_MARGIN_SECONDS, seconds // 2))
