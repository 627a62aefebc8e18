"""SIP messages as a redirect server needs them (RFC 3261, RFC 3581, RFC 3326), bytes <-> records.

:func:`decode` is total: any bytes give a :class:`Request`, a :class:`Response` or
:class:`MalformedSip`. Texts are Latin-1, so that every byte that came in can go out again as it was
(a Via, a tag and a Call-ID must be copied exactly, RFC 3261 section 8.2.6.2). What is copied into an
answer is never interpreted further than the answer needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

MESSAGE_BYTES_MAX = 65_535
HEADERS_MAX = 256
VIAS_MAX = 70
"""More hops than any Max-Forwards allows: the request runs in a circle."""
LINE_CHARS_MAX = 8_192
CSEQ_MAX = 2**31 - 1
MAGIC = "z9hG4bK"
"""How a branch begins that is unique for its transaction (RFC 3261 section 8.1.1.7)."""

COMPACT = {
    "a": "Accept-Contact",
    "b": "Referred-By",
    "c": "Content-Type",
    "d": "Request-Disposition",
    "e": "Content-Encoding",
    "f": "From",
    "i": "Call-ID",
    "j": "Reject-Contact",
    "k": "Supported",
    "l": "Content-Length",
    "m": "Contact",
    "o": "Event",
    "r": "Refer-To",
    "s": "Subject",
    "t": "To",
    "u": "Allow-Events",
    "v": "Via",
    "x": "Session-Expires",
    "y": "Identity",
}
"""The short names of headers, as IANA lists them."""
KNOWN = {
    name.lower(): name
    for name in (
        *COMPACT.values(),
        "Allow",
        "CSeq",
        "Max-Forwards",
        "P-Asserted-Identity",
        "Reason",
        "Record-Route",
        "Require",
        "Retry-After",
        "Route",
        "User-Agent",
    )
}
ONCE = ("From", "To", "Call-ID", "CSeq", "Max-Forwards", "Content-Length")

PHRASES = {
    100: "Trying",
    200: "OK",
    300: "Multiple Choices",
    302: "Moved Temporarily",
    400: "Bad Request",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    410: "Gone",
    420: "Bad Extension",
    480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist",
    482: "Loop Detected",
    483: "Too Many Hops",
    484: "Address Incomplete",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    500: "Server Internal Error",
    503: "Service Unavailable",
    600: "Busy Everywhere",
    603: "Decline",
}

_WORD = r"[A-Za-z0-9\-.!%*_+`'~]+"
_REQUEST_LINE = re.compile(rf"({_WORD}) ([^ \t]+) SIP/2\.0", re.IGNORECASE)
_STATUS_LINE = re.compile(r"SIP/2\.0 ([1-6][0-9]{2}) ?(.*)", re.IGNORECASE)
_NAME = re.compile(_WORD)
_CSEQ = re.compile(rf"([0-9]{{1,10}})[ \t]+({_WORD})")
_VIA = re.compile(
    rf"SIP[ \t]*/[ \t]*2\.0[ \t]*/[ \t]*({_WORD})[ \t]+"
    r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.\-_]+)(?:[ \t]*:[ \t]*([0-9]{1,5}))?[ \t]*(;.*)?",
    re.IGNORECASE,
)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_LENGTH = re.compile(
    rb"^(?:content-length|l)[ \t]*:[ \t]*([0-9]{1,9})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE
)
_URI = re.compile(r"(sips?|tel):(?:([^@<>\"\s]*)@)?([^@<>\"\s]*)", re.IGNORECASE)
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")


class MalformedSip(ValueError):
    """The bytes are no SIP message, or one beyond the bounds of this module. The text says why."""


class Via(msgspec.Struct, frozen=True):
    """One Via: who sent it over what, and its parameters (names in lower case)."""

    transport: str
    host: str
    port: int
    params: tuple[tuple[str, str | None], ...] = ()

    def param(self, name: str) -> str | None:
        """The value of a parameter: empty where it has none, None where it is missing."""
        for key, value in self.params:
            if key == name:
                return value or ""
        return None

    @property
    def branch(self) -> str:
        """The transaction's branch; empty from a client of RFC 2543."""
        return self.param("branch") or ""


class Address(msgspec.Struct, frozen=True):
    """A From, To or Contact: the URI as it stands there, and the header's own parameters."""

    uri: str
    params: tuple[tuple[str, str | None], ...] = ()

    @property
    def tag(self) -> str:
        """The tag; empty where there is none."""
        return next((value or "" for key, value in self.params if key == "tag"), "")


class Request(msgspec.Struct, frozen=True):
    """A request. ``headers`` have their full usual names, in the order in which they came.

    ``max_forwards`` is None where the header is missing, ``via`` the topmost Via.
    """

    method: str
    uri: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    via: Via
    sender: Address
    target: Address
    call_id: str
    cseq: int
    max_forwards: int | None = None

    def header(self, name: str) -> str:
        """The first value of a header; empty where it is missing."""
        return next((value for key, value in self.headers if key == name), "")


class Response(msgspec.Struct, frozen=True):
    """An answer."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def header(self, name: str) -> str:
        """The first value of a header; empty where it is missing."""
        return next((value for key, value in self.headers if key == name), "")


def decode(data: bytes) -> Request | Response:
    """Read one datagram, or one whole message of a stream.

    Raises:
        MalformedSip: it is none, lacks a header that every message has (Via, From, To, Call-ID,
            CSeq), says one twice that may be there once, or is too large.
    """
    if len(data) > MESSAGE_BYTES_MAX:
        raise MalformedSip(f"{len(data)} bytes are more than a datagram can have")
    head, body = _halves(data)
    first, *lines = _unfolded(head)
    headers = tuple(_header(line) for line in lines)
    names = [name for name, _ in headers]
    for name in ONCE:
        if names.count(name) > 1:
            raise MalformedSip(f"{name} is there more than once")
    body = _body(headers, body)
    status = _STATUS_LINE.fullmatch(first)
    if status:
        return Response(int(status[1]), status[2], headers, body)
    request = _REQUEST_LINE.fullmatch(first)
    if not request:
        raise MalformedSip("the first line is neither a request's nor an answer's")
    return _request(request[1], request[2], headers, body)


def _halves(data: bytes) -> tuple[str, bytes]:
    """The lines of the head, ended by LF alone, and the body. Empty lines may come first."""
    start = len(data) - len(data.lstrip(b"\r\n"))
    ends = [
        (at, len(mark)) for mark in (b"\r\n\r\n", b"\n\n") if (at := data.find(mark, start)) > 0
    ]
    if not ends:
        raise MalformedSip("the empty line after the headers is missing")
    at, length = min(ends)
    return data[start:at].decode("latin-1").replace("\r\n", "\n"), data[at + length :]


def _unfolded(head: str) -> list[str]:
    """The lines, those that begin with white space appended to the one before (section 7.3.1)."""
    folded: list[list[str]] = []
    for line in head.split("\n"):
        if _CONTROL.search(line):
            raise MalformedSip("a control character stands in a header")
        if line[:1] in {" ", "\t"} and folded:
            folded[-1].append(line.strip(" \t"))
        else:
            folded.append([line.rstrip(" \t")])
        if len(folded) > HEADERS_MAX + 1:
            raise MalformedSip(f"more than {HEADERS_MAX} headers")
    lines = [" ".join(part for part in parts if part) for parts in folded]
    if max(map(len, lines)) > LINE_CHARS_MAX:
        raise MalformedSip(f"a header has more than {LINE_CHARS_MAX} characters")
    return lines


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    name = name.rstrip(" \t")
    if not colon or not _NAME.fullmatch(name):
        raise MalformedSip("a line is no header")
    lower = name.lower()
    return COMPACT.get(lower) or KNOWN.get(lower) or name, value.strip(" \t")


def _body(headers: Sequence[tuple[str, str]], body: bytes) -> bytes:
    """The body that Content-Length promises; what follows it is dropped (section 18.3)."""
    said = dict(headers).get("Content-Length")
    if said is None:
        return body
    length = _number(said, "Content-Length", MESSAGE_BYTES_MAX)
    if length > len(body):
        raise MalformedSip("Content-Length promises more than there is")
    return body[:length]


def _number(text: str, name: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10) or int(text) > most:
        raise MalformedSip(f"{name} is no number up to {most}")
    return int(text)


def _request(method: str, uri: str, headers: tuple[tuple[str, str], ...], body: bytes) -> Request:
    values = dict(reversed(headers))
    missing = [n for n in ("Via", "From", "To", "Call-ID", "CSeq") if not values.get(n)]
    if missing:
        raise MalformedSip(f"{missing[0]} is missing")
    vias = [each for name, value in headers if name == "Via" for each in split(value)]
    if len(vias) > VIAS_MAX:
        raise MalformedSip(f"more than {VIAS_MAX} Vias: the request runs in a circle")
    cseq = _CSEQ.fullmatch(values["CSeq"])
    if not cseq or int(cseq[1]) > CSEQ_MAX or cseq[2] != method:
        raise MalformedSip("CSeq does not fit the request")
    hops = values.get("Max-Forwards")
    return Request(
        method=method,
        uri=uri,
        headers=headers,
        body=body,
        via=via(vias[0]),
        sender=address(values["From"]),
        target=address(values["To"]),
        call_id=values["Call-ID"],
        cseq=int(cseq[1]),
        max_forwards=None if hops is None else _number(hops, "Max-Forwards", 255),
    )


def split(value: str, mark: str = ",") -> list[str]:
    """Split a header's value where the mark stands outside of quotes and angle brackets."""
    parts: list[str] = []
    begin, quoted, inside, escaped = 0, False, False, False
    for at, char in enumerate(value):
        if escaped:
            escaped = False
        elif quoted:
            escaped = char == "\\"
            quoted = char != '"'
        elif char == '"':
            quoted = True
        elif char == "<":
            inside = True
        elif char == ">":
            inside = False
        elif char == mark and not inside:
            parts.append(value[begin:at].strip(" \t"))
            begin = at + 1
    return [*parts, value[begin:].strip(" \t")]


def via(text: str) -> Via:
    """Read one Via. Raises MalformedSip."""
    found = _VIA.fullmatch(text)
    if not found:
        raise MalformedSip("a Via is not one of SIP/2.0")
    port = int(found[3] or 0)
    if port > 65_535:
        raise MalformedSip("a Via names a port above 65535")
    return Via(found[1].upper(), found[2], port, _params((found[4] or "")[1:]))


def address(text: str) -> Address:
    """Read a name-addr or an addr-spec with parameters. Raises MalformedSip."""
    begin = _bracket(text)
    if begin is None:
        uri, _, rest = text.partition(";")
        uri = uri.strip(" \t")
    else:
        end = text.find(">", begin)
        if end < 0:
            raise MalformedSip("an address opens a bracket and does not close it")
        uri, rest = text[begin + 1 : end], text[end + 1 :].strip(" \t")
        if rest[:1] not in {"", ";"}:
            raise MalformedSip("something stands after an address")
        rest = rest[1:]
    if not uri:
        raise MalformedSip("an address has no URI")
    return Address(uri, _params(rest))


def _bracket(text: str) -> int | None:
    """Where the address's bracket opens: the first one that is not within a quoted name."""
    quoted = escaped = False
    for at, char in enumerate(text):
        if escaped:
            escaped = False
        elif quoted:
            escaped = char == "\\"
            quoted = char != '"'
        elif char == '"':
            quoted = True
        elif char == "<":
            return at
    return None


def _params(text: str) -> tuple[tuple[str, str | None], ...]:
    found: list[tuple[str, str | None]] = []
    for part in split(text, ";") if text else ():
        name, equals, value = part.partition("=")
        if name:
            found.append((name.strip(" \t").lower(), value.strip(" \t") if equals else None))
    return tuple(found)


def user_of(uri: str) -> str:
    """The user of a SIP URI or the number of a tel URI, without parameters and escapes.

    Empty where there is none, or where it holds what is not printable ASCII.
    """
    found = _URI.fullmatch(uri)
    if not found:
        return ""
    user = found[3] if found[1].lower() == "tel" else (found[2] or "").partition(":")[0]
    user = _ESCAPE.sub(lambda hit: chr(int(hit[1], 16)), user.partition(";")[0])
    return user if user.isascii() and user.isprintable() else ""


def transaction(request: Request) -> tuple[str, ...]:
    """What makes two requests the same transaction (RFC 3261 section 17.2.3).

    ACK and CANCEL are those of the INVITE that they are about. Method aside, so that the caller
    says which of the three it means. The second half is for clients without the magic branch.
    """
    sent_by = f"{request.via.host.lower()}:{request.via.port}"
    if request.via.branch.startswith(MAGIC):
        return request.via.branch, sent_by
    return "", sent_by, request.sender.tag, request.call_id, str(request.cseq), request.uri


def merged(request: Request) -> tuple[str, ...]:
    """What two requests share that are one which came by two ways (RFC 3261 section 8.2.2.2)."""
    return request.sender.tag, request.call_id, str(request.cseq), request.method


def respond(
    request: Request,
    status: int,
    *,
    source: tuple[str, int],
    tag: str = "",
    headers: Iterable[tuple[str, str]] = (),
    reason: str = "",
) -> Response:
    """The answer to a request, its headers copied as RFC 3261 section 8.2.6.2 says.

    ``source`` is the address that the request came from: it is noted in the topmost Via
    (``received``, and ``rport`` where asked, RFC 3581). ``tag`` is appended to a To without one.
    """
    copied = []
    top = True
    for name, value in request.headers:
        if name == "Via" and top:
            top = False
            others = [each for each in split(value)[1:] if each]
            copied.append((name, ", ".join([_noted(request.via, source), *others])))
        elif name == "To" and tag and not request.target.tag:
            copied.append((name, f"{value};tag={tag}"))
        elif name in {"Via", "From", "To", "Call-ID", "CSeq"}:
            copied.append((name, value))
    every = (*copied, *headers, ("Content-Length", "0"))
    return Response(status, reason or PHRASES.get(status, "Unknown"), every)


def _noted(top: Via, source: tuple[str, int]) -> str:
    """The Via with what was seen of its sender; what the sender itself put there is not believed."""
    host, port = source
    asked = top.param("rport") is not None
    params = [each for each in top.params if each[0] not in {"received", "rport"}]
    if asked or top.host.strip("[]").lower() != host.lower():
        params.append(("received", host))
    if asked:
        params.append(("rport", str(port)))
    return via_text(Via(top.transport, top.host, top.port, tuple(params)))


def via_text(one: Via) -> str:
    """A Via as text."""
    port = f":{one.port}" if one.port else ""
    params = "".join(f";{k}" if v is None else f";{k}={v}" for k, v in one.params)
    return f"SIP/2.0/{one.transport} {one.host}{port}{params}"


def answer_to(request: Request, source: tuple[str, int]) -> tuple[str, int]:
    """Where the answer to a datagram goes (RFC 3261 section 18.2.2, RFC 3581 section 4).

    Always to the host that the request came from, so that nobody can aim our answers at another.
    """
    if request.via.param("rport") is not None:
        return source
    return source[0], request.via.port or 5060


def encode(message: Request | Response) -> bytes:
    """Write a message.

    Raises:
        ValueError: a header holds a control character or a letter beyond Latin-1.
    """
    if isinstance(message, Request):
        first = f"{message.method} {message.uri} SIP/2.0"
    else:
        first = f"SIP/2.0 {message.status} {message.reason}"
    lines = [first, *(f"{name}: {value}".rstrip(" ") for name, value in message.headers)]
    if any(_CONTROL.search(line) for line in lines):
        raise ValueError("a header with a control character cannot be sent")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + message.body


def take(buffer: bytearray) -> bytes | None:
    """Take the first whole message off what a stream has brought; None while more must come.

    Empty lines between messages keep a connection alive (RFC 5626) and are dropped.

    Raises:
        MalformedSip: the stream cannot be cut into messages: close it.
    """
    del buffer[: len(buffer) - len(buffer.lstrip(b"\r\n"))]
    end = buffer.find(b"\r\n\r\n", 0, MESSAGE_BYTES_MAX)
    if end < 0:
        if len(buffer) >= MESSAGE_BYTES_MAX:
            raise MalformedSip("the headers do not end")
        return None
    length = _LENGTH.search(buffer, 0, end + 2)
    if length is None:
        raise MalformedSip("a message of a stream has no Content-Length")
    whole = end + 4 + int(length[1])
    if whole > MESSAGE_BYTES_MAX:
        raise MalformedSip(f"a message of {whole} bytes is too large")
    if len(buffer) < whole:
        return None
    message = bytes(buffer[:whole])
    del buffer[:whole]
    return message
