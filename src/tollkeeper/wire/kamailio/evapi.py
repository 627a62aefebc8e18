"""What Kamailio's evapi module and Tollkeeper say to each other: JSON messages in netstrings.

A netstring is ``<length in digits>:<that many bytes>,``; inside is one JSON object whose ``op`` names it.
The messages are those of the configuration that ``tollkeeper connect kamailio`` makes:

=========== ============ ===============================================================
op          from         meaning
=========== ============ ===============================================================
authorise   Kamailio     a new call waits in the suspended transaction ``index``/``label``
start       Kamailio     answered
stop        Kamailio     an answered call has ended
failed      Kamailio     a call ended without an answer: cancelled, refused, rung out
bye         Kamailio     Kamailio itself has sent a BYE: all that is left of a lost stop
done        Kamailio     whether a ``limit`` or an ``end`` found its call; the answer to a ``ping``
answer      Tollkeeper   what becomes of the waiting call
heard       Tollkeeper   a report is safe and need not be repeated
limit       Tollkeeper   how long a call may still last, in seconds from now
end         Tollkeeper   end a call now
ping        Tollkeeper   we are here, with the ``secret`` that lets us be heard
=========== ============ ===============================================================

Decoding is total: any bytes give messages or :class:`MalformedEvapi`. Source of the framing: the netstrings of
D. J. Bernstein (1997), as in the ``netstring_format`` of Kamailio's evapi module.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import msgspec

from tollkeeper.errors import InvalidInput

FRAME_MAX = 65_536
"""Bytes in one message; ours stay far below, and so does all that Kamailio can send."""
_DIGITS_MAX = len(str(FRAME_MAX))
_INSTANT_MAX = 32
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

T = TypeVar("T")
Text = Annotated[str, msgspec.Meta(max_length=4096)]
Number = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]


class MalformedEvapi(InvalidInput):
    """Bytes that are no netstring, or no message that we know."""

    code = "malformed_evapi"


class Call(msgspec.Struct, frozen=True):
    """A new call: what Kamailio knows of it when it asks.

    ``at`` is the switch's clock as seconds since 1970 with a fraction; ``account`` is empty where the call is
    known by its ``source`` address alone. ``h_entry`` and ``h_id`` name the dialog inside Kamailio.
    """

    call_id: Text
    from_tag: Text = ""
    caller: Text = ""
    called: Text = ""
    source: Text = ""
    account: Text = ""
    at: Text = ""
    h_entry: Number = 0
    h_id: Number = 0


class Authorise(msgspec.Struct, frozen=True, tag_field="op", tag="authorise"):
    """Question: may this call proceed? The transaction waits for an :class:`Answer`."""

    index: Number
    label: Number
    call: Call


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to a call; repeated until it is :class:`Heard`.

    ``answered`` is the moment of the answer (as ``at``), empty if there was none; ``session`` our own id of the
    call; ``open`` 1 where the call was let through unasked, with the :class:`Call` as JSON text in ``call``.
    """

    id: Text
    at: Text
    call_id: Text
    from_tag: Text = ""
    to_tag: Text = ""
    session: Text = ""
    answered: Text = ""
    h_entry: Number = 0
    h_id: Number = 0
    method: Text = ""
    code: Number = 0
    open: Number = 0
    call: Text = ""


class Started(Report, frozen=True, kw_only=True, tag_field="op", tag="start"):
    """The call was answered."""


class Stopped(Report, frozen=True, kw_only=True, tag_field="op", tag="stop"):
    """An answered call has ended."""


class Failed(Report, frozen=True, kw_only=True, tag_field="op", tag="failed"):
    """The call ended before an answer."""


class ByeSent(Report, frozen=True, kw_only=True, tag_field="op", tag="bye"):
    """Kamailio sent a BYE of its own: at the limit, or because we asked for the end."""


class Done(msgspec.Struct, frozen=True, tag_field="op", tag="done"):
    """A :class:`Limit` or an :class:`End` was carried out (``ok`` 1), or its call was not found (0).

    To a :class:`Ping`: whether its secret was the right one.
    """

    id: Text
    ok: Number
    at: Text = ""


FromKamailio = Authorise | Started | Stopped | Failed | ByeSent | Done


class Answer(msgspec.Struct, frozen=True, tag_field="op", tag="answer", omit_defaults=True):
    """Let a waiting call pass for ``seconds`` (``allow`` 1), or refuse it with a SIP ``code`` and ``reason``."""

    index: Number
    label: Number
    allow: Number
    seconds: Number = 0
    session: Text = ""
    account: Text = ""
    code: Number = 0
    reason: Text = ""


class Heard(msgspec.Struct, frozen=True, tag_field="op", tag="heard"):
    """The report of this id is safe."""

    id: Text


class Limit(msgspec.Struct, frozen=True, tag_field="op", tag="limit"):
    """The call may last so many ``seconds`` from now on; answered by :class:`Done`."""

    id: Text
    h_entry: Number
    h_id: Number
    seconds: Number


class End(msgspec.Struct, frozen=True, tag_field="op", tag="end"):
    """End the call with a BYE to both ends; answered by :class:`Done`."""

    id: Text
    h_entry: Number
    h_id: Number


class Ping(msgspec.Struct, frozen=True, tag_field="op", tag="ping"):
    """We are here. What else is said on a connection counts only after the right secret."""

    id: Text
    secret: Text


ToKamailio = Answer | Heard | Limit | End | Ping

_from_kamailio: msgspec.json.Decoder[FromKamailio] = msgspec.json.Decoder(FromKamailio)
_to_kamailio: msgspec.json.Decoder[ToKamailio] = msgspec.json.Decoder(ToKamailio)
_call = msgspec.json.Decoder(Call)
_encode = msgspec.json.Encoder().encode


class Framer:
    """Cuts a stream of bytes into the contents of its netstrings; holds at most one unfinished one."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take what was read; return the frames that are complete now.

        Raises:
            MalformedEvapi: the stream is out of step, or a frame is over ``FRAME_MAX``; nothing of it can be
                used any more.
        """
        held = self._held
        held += data
        frames: list[bytes] = []
        begin = 0
        while (colon := held.find(b":", begin, begin + _DIGITS_MAX + 1)) >= 0:
            length = _length(bytes(held[begin:colon]))
            end = colon + 1 + length
            if len(held) <= end:
                break
            if held[end] != ord(","):
                raise MalformedEvapi(f"a netstring of {length} bytes does not end with a comma")
            frames.append(bytes(held[colon + 1 : end]))
            begin = end + 1
        else:
            if len(held) - begin > _DIGITS_MAX or not _digits(bytes(held[begin:])):
                raise MalformedEvapi("the stream is not made of netstrings: no length stands here")
        del held[:begin]
        return frames


def _digits(text: bytes) -> bool:
    return not text or text.isdigit()


def _length(text: bytes) -> int:
    if not text.isdigit() or (text[:1] == b"0" and len(text) > 1):
        raise MalformedEvapi(f"{text!r} is not the length of a netstring")
    length = int(text)
    if length > FRAME_MAX:
        raise MalformedEvapi(f"a netstring of {length} bytes is over the {FRAME_MAX} allowed")
    return length


def decode(frame: bytes) -> FromKamailio:
    """Read one message of Kamailio's.

    Raises:
        MalformedEvapi: it is not one of the messages above.
    """
    return _read(_from_kamailio, frame)


def decode_ours(frame: bytes) -> ToKamailio:
    """Read one of our own messages, as Kamailio does.

    Raises:
        MalformedEvapi: it is not one of the messages above.
    """
    return _read(_to_kamailio, frame)


def call_of(report: Report) -> Call | None:
    """The call that a report of an unasked call tells of; None where there is none.

    Raises:
        MalformedEvapi: what stands there is not a call.
    """
    return _read(_call, report.call.encode()) if report.call else None


def _read(decoder: msgspec.json.Decoder[T], frame: bytes) -> T:
    try:
        return decoder.decode(frame)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise MalformedEvapi(f"a message of {len(frame)} bytes cannot be read: {error}") from error


def encode(message: ToKamailio | FromKamailio) -> bytes:
    """One message as a netstring, ready to be sent."""
    body = _encode(message)
    return b"%d:%b," % (len(body), body)


def instant(text: str) -> datetime | None:
    """A switch's "seconds.microseconds" since 1970 as a moment; None where it is empty or makes no sense."""
    whole, _, fraction = text.partition(".")
    if len(text) > _INSTANT_MAX or not (whole.isascii() and whole.isdigit()):
        return None
    if fraction and not (fraction.isascii() and fraction.isdigit()):
        return None
    micros = int(fraction[:6].ljust(6, "0"))
    try:
        return _EPOCH + timedelta(seconds=int(whole), microseconds=micros)
    except OverflowError:
        return None
