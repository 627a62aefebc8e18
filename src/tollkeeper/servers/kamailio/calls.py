"""The calls of one Kamailio as its agent knows them: by session, by dialog, by Call-ID."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from tollkeeper.servers.live_calls import LiveCall

KNOWN_MAX = 100_000
"""Calls that ended, and dialogs that asked, that are remembered; beyond, the oldest are forgotten."""

DialogId = tuple[int, int]


@dataclass(slots=True)
class Line:
    """By what a call is reached at Kamailio, and what is known of it beside its money.

    ``answered`` is the moment of the answer by Kamailio's clock. ``seen_ms`` is the usage at which the call was
    last known to be up. ``cut`` ends it on time, ``bye`` settles it should the report of its end be lost.
    """

    dialog: DialogId
    call_id: str
    from_tag: str = ""
    answered: str = ""
    seen_ms: int = 0
    ended: str = ""
    cut: asyncio.TimerHandle | None = field(default=None, repr=False)
    bye: asyncio.TimerHandle | None = field(default=None, repr=False)

    def quiet(self) -> None:
        """Set off no timer any more."""
        for timer in (self.cut, self.bye):
            if timer is not None:
                timer.cancel()
        self.cut = self.bye = None

    def kept(self) -> dict[str, object]:
        """What is written down, so that another process can go on."""
        return {
            "h_entry": self.dialog[0],
            "h_id": self.dialog[1],
            "call_id": self.call_id,
            "from_tag": self.from_tag,
            "answered": self.answered,
        }

    @classmethod
    def read(cls, kept: Mapping[str, object]) -> Line | None:
        """What was written down; None where it is not of this kind."""
        h_entry, h_id = kept.get("h_entry"), kept.get("h_id")
        if not isinstance(h_entry, int) or not isinstance(h_id, int):
            return None
        call_id, from_tag, answered = (
            str(kept.get(name, "")) for name in ("call_id", "from_tag", "answered")
        )
        return cls((h_entry, h_id), call_id, from_tag, answered)


class Lines:
    """Where the calls of an agent are found; ended ones are remembered for a while."""

    def __init__(self) -> None:
        self.by_session: dict[str, Line] = {}
        self._by_dialog: dict[DialogId, str] = {}
        self._by_call: dict[str, list[str]] = {}
        self._over: dict[str, None] = {}
        self._asked: dict[str, DialogId] = {}

    def session_id(self, call_id: str, dialog: DialogId) -> str:
        """The id under which a call is kept: its Call-ID, unless another dialog has used that.

        A Call-ID is the caller's choice. If a second call by an id were taken for the first one asking again, it
        would get the first one's grant, and go on unpaid.
        """
        first = self._asked.get(call_id)
        if first is None:
            while len(self._asked) >= KNOWN_MAX:
                self._asked.pop(next(iter(self._asked)))
            self._asked[call_id] = dialog
        if first in {None, dialog}:
            return call_id
        return f"{call_id}#{dialog[0]:x}.{dialog[1]:x}"

    def add(self, session_id: str, line: Line) -> Line:
        """A call that was authorised."""
        self.by_session[session_id] = line
        self._by_dialog[line.dialog] = session_id
        known = self._by_call.setdefault(line.call_id, [])
        if session_id not in known:
            known.append(session_id)
        self._asked.setdefault(line.call_id, line.dialog)
        return line

    def of_dialog(self, dialog: DialogId) -> str:
        """The session of a dialog; "" if none is known."""
        return self._by_dialog.get(dialog, "")

    def of_call(self, call_id: str, *tags: str) -> str:
        """The session of a Call-ID and the tags of both ends, in either order; "" if none is known."""
        return next(
            (
                id_
                for id_ in self._by_call.get(call_id, ())
                if self.by_session[id_].from_tag in tags
            ),
            "",
        )

    def drop(self, session_id: str) -> None:
        """The call is over."""
        while len(self._over) >= KNOWN_MAX:
            self._over.pop(next(iter(self._over)))
        self._over[session_id] = None
        line = self.by_session.pop(session_id, None)
        if line is None:
            return
        line.quiet()
        if self._by_dialog.get(line.dialog) == session_id:
            del self._by_dialog[line.dialog]
        known = self._by_call.get(line.call_id, [])
        if session_id in known:
            known.remove(session_id)
        if not known:
            self._by_call.pop(line.call_id, None)

    def is_over(self, session_id: str) -> bool:
        """Tell whether the end of a call was dealt with."""
        return session_id in self._over


def line_of(call: LiveCall) -> Line:
    """By what a live call is reached; its agent put it there."""
    assert isinstance(call.handle, Line)
    return call.handle
