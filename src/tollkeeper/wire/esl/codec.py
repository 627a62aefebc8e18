"""The event socket of FreeSWITCH (mod_event_socket): what it sends, as records.

The switch sends frames: "Name: value" lines, an empty line, and as many bytes as Content-Length
says. An event is such a frame whose body is again lines (percent-coded) or a JSON object. What we
send is in ``esl_commands``, tables that the switch answers with in ``esl_tables``.

Sources: FreeSWITCH's documentation of mod_event_socket and of the event list, its
``switch_event_serialize`` and ``switch_event_serialize_json``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from urllib.parse import unquote

from tollkeeper.errors import InvalidInput

HEAD_MAX = 64 * 1024
"""Bytes of a frame's own lines; the switch needs some hundred."""
BODY_MAX = 16 * 1024 * 1024
"""Bytes of a body: a list of 20,000 channels fits into it."""
LINES_MAX = 8192
"""Lines of a frame or an event; one with very many variables has a thousand."""

AUTH_REQUEST = "auth/request"
COMMAND_REPLY = "command/reply"
API_RESPONSE = "api/response"
EVENT_PLAIN = "text/event-plain"
EVENT_JSON = "text/event-json"
DISCONNECT = "text/disconnect-notice"
REJECTION = "text/rude-rejection"

Headers = tuple[tuple[str, str], ...]
"""Names and values in the order of their coming; a name may be there several times."""
_LENGTH = re.compile(r"[0-9]{1,10}")
_NUMBER = re.compile(r"[0-9]{1,18}")


class MalformedEsl(InvalidInput):
    """These bytes are not of an event socket; nothing that follows on the connection can be read."""

    code = "malformed_esl"


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: ``kind`` is its Content-Type, ``body`` is empty where it has none."""

    kind: str
    headers: Headers = ()
    body: bytes = b""

    def get(self, name: str) -> str:
        """The first value of this name; "" where there is none."""
        return _first(self.headers, name)

    @property
    def text(self) -> str:
        """The body as text; bytes that are no UTF-8 come as U+FFFD."""
        return self.body.decode("utf-8", errors="replace")

    @property
    def reply(self) -> str:
        """What a command was answered: "+OK ..." or "-ERR ..."."""
        return self.get("Reply-Text") if self.kind == COMMAND_REPLY else self.text.strip()


class Event:
    """One event with its headers; values are decoded."""

    __slots__ = ("_first", "body", "headers")

    def __init__(self, headers: Headers, body: str = "") -> None:
        self.headers = headers
        self.body = body
        self._first: dict[str, str] = {}
        for name, value in headers:
            self._first.setdefault(name, value)

    @property
    def name(self) -> str:
        """What happened, such as CHANNEL_PARK."""
        return self.get("Event-Name")

    @property
    def uuid(self) -> str:
        """The channel that it happened to; "" where it is of none."""
        return self.get("Unique-ID")

    def get(self, name: str) -> str:
        """The first value of this name; "" where there is none."""
        return self._first.get(name, "")

    def all(self, name: str) -> list[str]:
        """All values of this name, also those that FreeSWITCH writes into one as ARRAY::a|:b."""
        return [item for key, value in self.headers if key == name for item in _items(value)]

    def variable(self, name: str) -> str:
        """A variable of the channel; "" where it is not set."""
        return self._first.get(f"variable_{name}", "")

    def number(self, name: str) -> int:
        """A header as a whole number; 0 where it is missing or none, as FreeSWITCH's "never" is."""
        text = self._first.get(name, "")
        return int(text) if _NUMBER.fullmatch(text) else 0

    def __eq__(self, other: object) -> bool:
        """Two events are the same when all their headers and their bodies are."""
        if not isinstance(other, Event):
            return NotImplemented
        return self.headers == other.headers and self.body == other.body

    def __hash__(self) -> int:
        """As :meth:`__eq__`."""
        return hash((self.headers, self.body))

    def __repr__(self) -> str:
        """Enough to recognise it by: an event has hundreds of headers, some of them secrets."""
        return f"Event({self.name!r}, uuid={self.uuid!r}, headers={len(self.headers)})"


class Decoder:
    """Takes bytes as they come and gives the frames that are whole.

    It keeps no more than it was given, and of that at most one frame's head and body.
    """

    def __init__(self, *, body_max: int = BODY_MAX) -> None:
        self._buffer = bytearray()
        self._looked = 0
        self._head: tuple[str, Headers] | None = None
        self._need = 0
        self._body_max = body_max
        self._broken = ""

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that these bytes complete.

        Raises:
            MalformedEsl: too long, or no frames; from then on every call raises it.
        """
        if self._broken:
            raise MalformedEsl(self._broken)
        self._buffer += data
        frames: list[Frame] = []
        try:
            while (frame := self._take()) is not None:
                frames.append(frame)
        except MalformedEsl as error:
            self._broken = error.detail
            self._buffer.clear()
            raise
        return frames

    def _take(self) -> Frame | None:
        if self._head is None and not self._take_head():
            return None
        if self._head is None or len(self._buffer) < self._need:
            return None
        kind, headers = self._head
        body = bytes(memoryview(self._buffer)[: self._need])
        del self._buffer[: self._need]
        self._head, self._need = None, 0
        return Frame(kind, headers, body)

    def _take_head(self) -> bool:
        buffer = self._buffer
        blank = len(buffer) - len(buffer.lstrip(b"\r\n"))
        if blank:
            # Some versions end a body with an empty line that they do not count.
            del buffer[:blank]
            self._looked = 0
        end = buffer.find(b"\n\n", self._looked, HEAD_MAX)
        if end < 0:
            if len(buffer) >= HEAD_MAX:
                raise MalformedEsl(
                    f"A frame of the event socket has a head of over {HEAD_MAX // 1024} KiB."
                )
            self._looked = max(len(buffer) - 1, 0)
            return False
        headers = _lines(bytes(memoryview(buffer)[:end]), coded=False)
        kind = _first(headers, "Content-Type").partition(";")[0].strip().lower()
        if not kind:
            raise MalformedEsl("A frame of the event socket has no Content-Type.")
        self._need = _length(headers, self._body_max)
        del buffer[: end + 2]
        self._looked = 0
        self._head = kind, headers
        return True


def parse_event(frame: Frame) -> Event:
    """Read the event in a frame of text/event-plain or text/event-json.

    Raises:
        MalformedEsl: a frame of another kind, or a body that is no event.
    """
    if frame.kind == EVENT_PLAIN:
        return parse_plain(frame.body)
    if frame.kind == EVENT_JSON:
        return _parse_json(frame.body)
    raise MalformedEsl(f'A frame of "{frame.kind[:60]}" holds no event.')


def parse_plain(body: bytes) -> Event:
    """Read an event written as lines: the body of text/event-plain, or what ``uuid_dump`` answers.

    Raises:
        MalformedEsl: it is none.
    """
    head, _, rest = body.partition(b"\n\n")
    headers = _lines(head, coded=True)
    if not headers:
        raise MalformedEsl("An event has no headers.")
    inner = _length(headers, len(rest)) if _first(headers, "Content-Length") else 0
    return Event(headers, rest[:inner].decode("utf-8", errors="replace"))


def _parse_json(body: bytes) -> Event:
    try:
        found = json.loads(body.decode("utf-8", errors="replace"), parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        raise MalformedEsl("An event is not JSON, or was cut off.") from None
    if not isinstance(found, dict) or not found:
        raise MalformedEsl("An event is no JSON object.")
    headers: list[tuple[str, str]] = []
    for name, value in found.items():
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, str):
                raise MalformedEsl("An event has a value that is no text.")
            if name != "_body":
                headers.append((_whole(name), _whole(item)))
    if len(headers) > LINES_MAX:
        raise _too_many()
    inner = found.get("_body", "")
    return Event(tuple(headers), _whole(inner) if isinstance(inner, str) else "")


def _whole(text: str) -> str:
    """A text without halves of characters, which JSON can write and nothing can store."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _lines(head: bytes, *, coded: bool) -> Headers:
    if head.count(b"\n") >= LINES_MAX:
        raise _too_many()
    found: list[tuple[str, str]] = []
    for line in head.decode("utf-8", errors="replace").split("\n"):
        name, colon, value = line.partition(":")
        if not colon:
            if line.strip():
                raise MalformedEsl('A line of the event socket is not "Name: value".')
            continue
        value = value.strip()
        if coded and "%" in value:
            value = unquote(value, errors="replace")
        found.append((name.strip(), value))
    return tuple(found)


def _too_many() -> MalformedEsl:
    return MalformedEsl(f"A frame or event has over {LINES_MAX} lines.")


def _first(headers: Headers, name: str) -> str:
    return next((value for key, value in headers if key == name), "")


def _length(headers: Headers, most: int) -> int:
    text = _first(headers, "Content-Length")
    if not text:
        return 0
    if not _LENGTH.fullmatch(text) or int(text) > most:
        raise MalformedEsl(
            f'The Content-Length "{text[:40]}" of a frame or event is not from 0 to {most}.'
        )
    return int(text)


def _items(value: str) -> list[str]:
    return value[7:].split("|:") if value.startswith("ARRAY::") else [value]
