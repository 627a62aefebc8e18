"""The Asterisk Manager Interface: lines ``Name: value``, messages that an empty line ends.

The switch greets with one line (``Asterisk Call Manager/7.0.3``). An action is answered by a message
``Response: Success`` or ``Error`` with the same ActionID; events come between at any time. Lists come as
events with the ActionID, closed by one with ``EventList: Complete`` and their number in ``ListItems``.
Source: Asterisk's ``main/manager.c`` and its documentation of actions and events.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

LINE_MAX: Final = 64 * 1024
HEADERS_MAX: Final = 1024
MESSAGE_MAX: Final = 256 * 1024
"""Bounds of what is received: a channel has some tens of headers of less than 2 kB."""
ACTION_LINE_MAX: Final = 1000
"""Asterisk throws an action away when a line of it is longer than 1024 bytes."""
ACTION_HEADERS_MAX: Final = 120
CHANNELS_MAX: Final = 200_000

_BANNER = re.compile(r"Asterisk Call Manager/(?P<version>[0-9][0-9.]{0,20})")
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_CLOCK = re.compile(r"(?P<hours>[0-9]{1,6}):(?P<minutes>[0-5][0-9]):(?P<seconds>[0-5][0-9])")
UP: Final = 6
"""ChannelState of a channel that was answered."""


class MalformedAmi(ValueError):
    """What was received is no manager interface; the connection cannot be used any more."""


@dataclass(frozen=True, slots=True)
class Banner:
    """The greeting."""

    version: str


@dataclass(frozen=True, slots=True)
class Message:
    """Names and values in their order; a line that has no name has the empty one."""

    headers: tuple[tuple[str, str], ...]

    def get(self, name: str, default: str = "") -> str:
        """The first value of a name; case does not matter (``UniqueID`` was ``Uniqueid`` later)."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), default)

    def all(self, name: str) -> tuple[str, ...]:
        """All values of a name that is repeated, such as ``ChanVariable``."""
        wanted = name.lower()
        return tuple(value for key, value in self.headers if key.lower() == wanted)

    def variable(self, name: str) -> str:
        """The value of a channel's variable in an event: ``ChanVariable: NAME=value``."""
        mark = f"{name}="
        found = (one for one in self.all("ChanVariable") if one.startswith(mark))
        return next(found, mark).removeprefix(mark)

    @property
    def event(self) -> str:
        """The name of the event; empty for the answer to an action."""
        return self.get("Event")

    @property
    def action_id(self) -> str:
        """What the action was called by; empty for an event that nobody asked for."""
        return self.get("ActionID")

    @property
    def success(self) -> bool:
        """Whether an action was carried out."""
        return self.get("Response").lower() in ("success", "goodbye", "follows")


@dataclass(slots=True)
class Decoder:
    """Bytes from Asterisk, as they come, to records. After MalformedAmi it takes nothing more."""

    _buffer: bytearray = field(default_factory=bytearray)
    _greeted: bool = False
    _headers: list[tuple[str, str]] = field(default_factory=list)
    _size: int = 0
    _broken: bool = False

    def feed(self, data: bytes) -> list[Banner | Message]:
        """Return what is complete.

        Raises:
            MalformedAmi: no greeting, or a line or message beyond all bounds.
        """
        if self._broken:
            raise MalformedAmi("the connection was malformed before")
        found: list[Banner | Message] = []
        view = memoryview(data)
        try:
            for start in range(0, len(view), LINE_MAX):
                self._buffer += view[start : start + LINE_MAX]
                self._lines(found)
        except MalformedAmi:
            self._broken = True
            self._buffer.clear()
            self._headers.clear()
            raise
        return found

    def _lines(self, found: list[Banner | Message]) -> None:
        start = 0
        while (end := self._buffer.find(b"\n", start)) >= 0:
            if end - start > LINE_MAX:
                raise MalformedAmi(f"a line is longer than {LINE_MAX} bytes")
            text = self._buffer[start:end].decode("utf-8", "replace").removesuffix("\r")
            start = end + 1
            record = self._line(text)
            if record is not None:
                found.append(record)
        del self._buffer[:start]
        if len(self._buffer) > LINE_MAX or (not self._greeted and len(self._buffer) > 256):
            raise MalformedAmi("a line without an end")

    def _line(self, text: str) -> Banner | Message | None:
        if not self._greeted:
            match = _BANNER.fullmatch(text)
            if match is None:
                raise MalformedAmi(f"{text[:60]!r} is no greeting of Asterisk's manager interface")
            self._greeted = True
            return Banner(match["version"])
        if not text:
            if not self._headers:
                return None
            message = Message(tuple(self._headers))
            self._headers.clear()
            self._size = 0
            return message
        self._size += len(text)
        if self._size > MESSAGE_MAX or len(self._headers) >= HEADERS_MAX:
            raise MalformedAmi(
                f"a message has more than {MESSAGE_MAX} bytes or {HEADERS_MAX} lines"
            )
        name, colon, value = text.partition(":")
        if colon and _HEADER.fullmatch(name) is not None:
            self._headers.append((name, value.removeprefix(" ")))
        else:
            self._headers.append(("", text))
        return None


# --- actions -------------------------------------------------------------------------------------


def action(name: str, action_id: str, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """An action as it is sent.

    Raises:
        ValueError: a line end in a value (it would begin another header or action), a name that is
            none, or a line longer than Asterisk reads.
    """
    lines = [("Action", name), ("ActionID", action_id), *headers]
    if len(lines) > ACTION_HEADERS_MAX:
        raise ValueError(f"an action has at most {ACTION_HEADERS_MAX} lines")
    return b"".join(_line_of(key, value) for key, value in lines) + b"\r\n"


def _line_of(name: str, value: str) -> bytes:
    if _HEADER.fullmatch(name) is None:
        raise ValueError(f"{name[:40]!r} is no name of a line")
    if any(mark in value for mark in ("\r", "\n", "\0")):
        raise ValueError(f"the value of {name} holds a line end")
    line = f"{name}: {value}\r\n".encode()
    if len(line) > ACTION_LINE_MAX:
        raise ValueError(f"the line {name} is longer than {ACTION_LINE_MAX} bytes")
    return line


def login(action_id: str, username: str, secret: str) -> bytes:
    """Log in; ``Events: on`` so that the classes of ``manager.conf`` come.

    Raises:
        ValueError: a name or secret that cannot be sent.
    """
    lines = (("Username", username), ("Secret", secret), ("Events", "on"))
    return action("Login", action_id, lines)


def set_timeout(action_id: str, channel: str, milliseconds: int) -> bytes:
    """End the channel this long from now: ``TIMEOUT(absolute)`` takes thousandths of a second.

    The action ``AbsoluteTimeout`` does the same in whole seconds only. 0 would lift the limit: refused.

    Raises:
        ValueError: no time, or a channel that cannot be sent.
    """
    if milliseconds <= 0:
        raise ValueError("a limit is at least one millisecond: none would lift it")
    value = f"{milliseconds // 1000}.{milliseconds % 1000:03d}"
    lines = (("Channel", channel), ("Variable", "TIMEOUT(absolute)"), ("Value", value))
    return action("Setvar", action_id, lines)


def hangup(action_id: str, channel: str, cause: int) -> bytes:
    """End exactly this channel: a name between slashes would be a pattern for many.

    Raises:
        ValueError: a channel that is empty or a pattern, or no cause of Q.850.
    """
    if not channel or channel.startswith("/"):
        raise ValueError("a channel is ended by its own name, never by a pattern")
    if not 1 <= cause <= 127:
        raise ValueError(f"{cause} is no cause of Q.850")
    return action("Hangup", action_id, (("Channel", channel), ("Cause", str(cause))))


def message_bytes(headers: Iterable[tuple[str, str]]) -> bytes:
    """A message as Asterisk writes it."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode() + b"\r\n"


# --- what the agent reads from messages ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Channel:
    """One line of CoreShowChannels. ``seconds`` since the channel exists, ringing counted."""

    name: str
    uniqueid: str
    linkedid: str
    state: int
    bridged: bool
    seconds: int

    @property
    def answered(self) -> bool:
        """Whether it was answered."""
        return self.state == UP


def clock_seconds(text: str) -> int | None:
    """The seconds of ``00:01:05``, as Duration is written; None where it is no such time."""
    match = _CLOCK.fullmatch(text)
    if match is None:
        return None
    return int(match["hours"]) * 3600 + int(match["minutes"]) * 60 + int(match["seconds"])


def channel_of(message: Message) -> Channel | None:
    """The channel that an event tells of; None where it names none or says no state."""
    name, uniqueid = message.get("Channel"), message.get("Uniqueid")
    state = message.get("ChannelState")
    if not name or not uniqueid or not (state.isascii() and state.isdigit() and len(state) < 4):
        return None
    return Channel(
        name=name,
        uniqueid=uniqueid,
        linkedid=message.get("Linkedid") or uniqueid,
        state=int(state),
        bridged=bool(message.get("BridgeId")),
        seconds=clock_seconds(message.get("Duration")) or 0,
    )


@dataclass(slots=True)
class ChannelList:
    """The answer to CoreShowChannels while it comes.

    Whatever is missing makes all of it unknown: a call may only be taken for gone when a complete list
    does not name it.
    """

    action_id: str
    channels: list[Channel] = field(default_factory=list)
    failed: str = ""
    complete: bool = False
    _seen: int = 0

    def take(self, message: Message) -> bool:
        """Take a message; True when it belonged to this list."""
        if message.action_id != self.action_id:
            return False
        if message.event == "CoreShowChannel":
            self._seen += 1
            channel = channel_of(message)
            if channel is None:
                self.failed = "a channel of the list cannot be read"
            elif len(self.channels) < CHANNELS_MAX:
                self.channels.append(channel)
            else:
                self.failed = f"more than {CHANNELS_MAX} channels"
        elif message.event == "CoreShowChannelsComplete":
            self.complete = True
            if message.get("EventList").lower() != "complete":
                self.failed = "the list was cut off"
            elif message.get("ListItems") != str(self._seen):
                self.failed = (
                    f"{self._seen} channel(s) came, {message.get('ListItems') or 'none'} were meant"
                )
        elif not message.event and not message.success:
            self.complete = True
            self.failed = message.get("Message") or "the switch refuses the list"
        return True
