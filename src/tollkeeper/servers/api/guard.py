"""What every request must pass before a route sees it: a key, a bounded body, sound JSON.

An ASGI middleware, so that the same holds for every route, whoever wrote it. NUL characters and
halves of surrogate pairs end here: no text with them can be stored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from tollkeeper.errors import InvalidInput, TollkeeperError
from tollkeeper.servers.api.auth import SCOPE_KEY, KeyBook, authenticate
from tollkeeper.servers.api.problems import response_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

JSON_MAX_BYTES = 1024 * 1024
"""No JSON request needs a megabyte; a plan of 100 cards has 10 kB."""

SHEET_MAX_BYTES = 64 * 1024 * 1024 + 64 * 1024
"""A rate sheet of 64 MiB, and what a multipart form puts around it."""

SHEET_PATH_END = "/imports"

PUSH_PATH = re.compile(
    r"/v1/cdr/sources/[^/]+/files|/v1/cdr/(files|sniff)|/v1/reconcile"
    r"|/v1/freeswitch/(dialplan|cdr(/[^/]+)?)"
)
"""Files of records go straight to the disk, and FreeSWITCH posts forms; they are bounded there."""

_WITH_BODY = frozenset(("POST", "PUT", "PATCH"))
_OPEN_PATHS = frozenset(("/healthz", "/openapi.json"))
_ALWAYS = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]


class TooLarge(TollkeeperError):
    """The body is larger than this route takes."""

    code = "body_too_large"
    http_status = 413


class WrongType(TollkeeperError):
    """The body is of a type that this route does not take."""

    code = "wrong_content_type"
    http_status = 415


class BadJson(TollkeeperError):
    """The body is no JSON document."""

    code = "invalid_json"
    http_status = 400


class Guard:
    """Authenticates, bounds and checks requests; answers with a problem what it does not let pass."""

    def __init__(self, app: ASGIApp, book: KeyBook) -> None:
        self._app = app
        self._book = book

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_ALWAYS]}
            await send(message)

        try:
            receive = await self._admit(scope, receive)
        except TollkeeperError as error:
            await response_of(error)(scope, receive, send_safely)
            return
        await self._app(scope, receive, send_safely)

    async def _admit(self, scope: Scope, receive: Receive) -> Receive:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        path: str = scope["path"]
        if path not in _OPEN_PATHS:
            scope[SCOPE_KEY] = authenticate(self._book, headers.get(b"authorization"))
        if "\x00" in path or b"%00" in scope["query_string"] or b"\x00" in scope["query_string"]:
            raise InvalidInput("the address has a NUL character in it")
        if scope["method"] not in _WITH_BODY:
            return receive
        if PUSH_PATH.fullmatch(path) is not None:
            return receive
        if path.endswith(SHEET_PATH_END):
            _check_length(headers, SHEET_MAX_BYTES)
            return bounded(receive, SHEET_MAX_BYTES)
        _check_length(headers, JSON_MAX_BYTES)
        body = await _read_all(bounded(receive, JSON_MAX_BYTES))
        if body:
            kind = headers.get(b"content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise WrongType("the body must be application/json, and say so in Content-Type")
            check_json(body)
        return _replay(body, receive)


# --- size ----------------------------------------------------------------------------------------


def _check_length(headers: dict[bytes, str], most: int) -> None:
    """Refuse by the length announced, before a byte is read."""
    length = headers.get(b"content-length", "")
    if length.isdigit() and len(length) < 20 and int(length) > most:
        raise _too_large(most)


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"the body is larger than {most // 1024} KiB")


def bounded(receive: Receive, most: int) -> Receive:
    """Count what really comes, whatever was announced."""
    left = most

    async def count() -> Message:
        nonlocal left
        message = await receive()
        if message["type"] == "http.request":
            left -= len(message.get("body", b""))
            if left < 0:
                raise _too_large(most)
        return message

    return count


async def _read_all(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b""
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give the body to the route as if it had just come; after it, what comes from the client."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


# --- JSON ----------------------------------------------------------------------------------------


def check_json(body: bytes) -> None:
    """Refuse what lenient readers let pass: NaN, repeated names, halves of characters, NUL.

    Raises:
        BadJson: not JSON by RFC 8259, a name twice in one object, or nested too deeply.
        InvalidInput: a text that cannot be stored, or a number of thousands of digits.
    """
    try:
        # What begins with a byte order mark would be read here and refused by the next reader.
        value = json.loads(
            body.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_repeats
        )
    except json.JSONDecodeError as error:
        raise BadJson(
            f"the body is not valid JSON: {error.msg} at character {error.pos}"
        ) from error
    except UnicodeDecodeError as error:
        raise BadJson("the body is not valid JSON: it must be UTF-8") from error
    except RecursionError as error:
        raise BadJson("the body is nested too deeply") from error
    except ValueError as error:
        raise InvalidInput("a number in the body has too many digits") from error
    for name, text in _texts(value):
        if "\x00" in text or any("\ud800" <= c <= "\udfff" for c in text):
            shown = "".join(c for c in name if c.isprintable())[:60] or "the body"
            raise InvalidInput(
                f"{shown}: a text has a character that cannot be stored (NUL or half of a pair)",
                field=shown,
            )


def _no_constant(name: str) -> NoReturn:
    raise BadJson(f"the body is not valid JSON: {name} is not a JSON number")


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadJson("the body has a name twice in one object; which one is meant?")
    return found


def _texts(value: object) -> Iterator[tuple[str, str]]:
    """All texts of a document, names too, each with the place where it stands."""
    waiting: list[tuple[str, object]] = [("", value)]
    while waiting:
        place, item = waiting.pop()
        if isinstance(item, str):
            yield place, item
        elif isinstance(item, dict):
            for name, inner in item.items():
                yield place, name
                waiting.append((f"{place}.{name}" if place else name, inner))
        elif isinstance(item, list):
            waiting.extend((place, inner) for inner in item)
