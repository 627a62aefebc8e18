"""FastAGI: what Asterisk's ``AGI(agi://host/script)`` sends over TCP, and what may be answered.

A connection begins with lines ``agi_name: value`` and an empty line. Then we send commands, one a line,
each answered by ``200 result=...`` or by 510 (unknown), 511 (not on a dead channel) or 520 (syntax, in
several lines). ``HANGUP`` may stand between two answers: the channel is gone, commands marked "runs dead"
(SET VARIABLE, GET VARIABLE, VERBOSE) still work. Source: Asterisk's ``res/res_agi.c``.

Everything is bounded, and nothing that is put into a command can end it or begin another one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

LINE_MAX: Final = 8192
"""Bytes of one line that Asterisk sends: a variable's value is the longest thing in it."""
ENVIRONMENT_LINES_MAX: Final = 256
"""Asterisk sends some 20, and ``agi_arg_1`` to at most ``agi_arg_127``."""
USAGE_LINES_MAX: Final = 200
COMMAND_MAX: Final = 2000
"""Bytes of a command: ``AGI_BUF_LEN`` of Asterisk is 2048, and what is longer is taken for two."""
WORDS_MAX: Final = 120
"""``MAX_ARGS`` of Asterisk is 128."""

_NAME = re.compile(r"agi_[a-z0-9_]{1,40}")
_REPLY = re.compile(
    r"(?P<code>[0-9]{3})(?: result=(?P<result>[^ ]*)(?: \((?P<text>.*)\))?(?P<more>(?: [^()]*)?))?"
)
_REFUSAL = re.compile(r"(?P<code>5[0-9]{2})(?P<mark>[ -])(?P<text>.*)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,79}(?:\([A-Za-z0-9_,]{0,80}\))?")
_UNSENDABLE = ("\0", "\r", "\n")

OK: Final = 200
UNKNOWN_COMMAND: Final = 510
DEAD_CHANNEL: Final = 511
BAD_SYNTAX: Final = 520


class MalformedAgi(ValueError):
    """What was received is no FastAGI; the connection cannot be used any more."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What a connection begins with; ``values`` by their names without ``agi_``."""

    values: dict[str, str]

    def __getitem__(self, name: str) -> str:
        """The value of a name, empty where Asterisk said nothing or "unknown"."""
        value = self.values.get(name, "")
        return "" if value == "unknown" else value

    @property
    def script(self) -> str:
        """The path of the address without its query: ``authorise`` of ``agi://host/authorise?a=1``."""
        return self["network_script"].partition("?")[0].strip("/")

    @property
    def arguments(self) -> tuple[str, ...]:
        """The further arguments of ``AGI()`` in order; the first gap ends them."""
        found: list[str] = []
        while (name := f"arg_{len(found) + 1}") in self.values:
            found.append(self.values[name])
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a command: ``text`` stood in brackets, ``more`` behind them (``endpos=0``)."""

    code: int
    result: str = ""
    text: str = ""
    more: str = ""

    @property
    def ok(self) -> bool:
        """Whether the command was carried out (code 200 and no result -1)."""
        return self.code == OK and self.result != "-1"

    @property
    def value(self) -> str | None:
        """What GET VARIABLE found; None where the variable is not set."""
        return self.text if self.code == OK and self.result == "1" else None


@dataclass(frozen=True, slots=True)
class Hungup:
    """``HANGUP``: the channel ended while the script runs."""


Received = Environment | Reply | Hungup


@dataclass(slots=True)
class Decoder:
    """Bytes from Asterisk, as they come, to records. After MalformedAgi it takes nothing more."""

    _buffer: bytearray = field(default_factory=bytearray)
    _values: dict[str, str] | None = field(default_factory=dict)
    _usage: list[str] | None = None
    _broken: bool = False

    def feed(self, data: bytes) -> list[Received]:
        """Return what is complete.

        Raises:
            MalformedAgi: a line too long, too many of them, or one that is no FastAGI.
        """
        if self._broken:
            raise MalformedAgi("the connection was malformed before")
        found: list[Received] = []
        # By parts, so that what is kept stays within one line however much comes at once.
        view = memoryview(data)
        try:
            for start in range(0, len(view), LINE_MAX):
                self._buffer += view[start : start + LINE_MAX]
                self._lines(found)
        except MalformedAgi:
            self._broken = True
            self._buffer.clear()
            raise
        return found

    def _lines(self, found: list[Received]) -> None:
        start = 0
        while (end := self._buffer.find(b"\n", start)) >= 0:
            if end - start > LINE_MAX:
                raise MalformedAgi(f"a line is longer than {LINE_MAX} bytes")
            text = self._buffer[start:end].decode("utf-8", "replace").removesuffix("\r")
            start = end + 1
            record = self._line(text)
            if record is not None:
                found.append(record)
        del self._buffer[:start]
        if len(self._buffer) > LINE_MAX:
            raise MalformedAgi(f"a line is longer than {LINE_MAX} bytes")

    def _line(self, text: str) -> Received | None:
        if self._values is not None:
            return self._environment_line(self._values, text)
        if self._usage is not None:
            return self._usage_line(self._usage, text)
        if text == "HANGUP":
            return Hungup()
        refusal = _REFUSAL.fullmatch(text)
        if refusal is not None:
            if refusal["mark"] == "-":
                self._usage = [refusal["text"]]
                return None
            return Reply(int(refusal["code"]), text=refusal["text"])
        match = _REPLY.fullmatch(text)
        if match is None:
            raise MalformedAgi(f"{text[:60]!r} is no answer to a command")
        return Reply(
            int(match["code"]),
            match["result"] or "",
            match["text"] or "",
            (match["more"] or "").strip(),
        )

    def _environment_line(self, values: dict[str, str], text: str) -> Environment | None:
        if not text:
            if not values:
                raise MalformedAgi("the connection begins with an empty line")
            self._values = None
            return Environment(values)
        name, colon, value = text.partition(":")
        if not colon or _NAME.fullmatch(name) is None:
            raise MalformedAgi(f"{text[:60]!r} is no line of a FastAGI environment")
        # A caller's name with a line end in it could write lines of its own: the second
        # of a name is never taken for the switch's word, nor the first preferred to it.
        if name[4:] in values:
            raise MalformedAgi(f"{name} stands there twice")
        # For the same reason arguments are the last lines, in their order, as Asterisk writes them.
        last = next(reversed(values), "")
        follows = last.startswith("arg_")
        if follows or name.startswith("agi_arg_"):
            number = int(last.removeprefix("arg_")) + 1 if follows else 1
            if name != f"agi_arg_{number}":
                raise MalformedAgi(f"{name} does not stand where Asterisk writes it")
        if len(values) >= ENVIRONMENT_LINES_MAX:
            raise MalformedAgi(f"more than {ENVIRONMENT_LINES_MAX} lines of environment")
        values[name[4:]] = value.removeprefix(" ")
        return None

    def _usage_line(self, usage: list[str], text: str) -> Reply | None:
        if text.startswith("520 "):
            self._usage = None
            return Reply(BAD_SYNTAX, text=usage[0])
        usage.append("")
        if len(usage) > USAGE_LINES_MAX:
            raise MalformedAgi("a syntax error explains itself without end")
        return None


# --- commands ------------------------------------------------------------------------------------


def command(*words: str) -> bytes:
    """A command as one line: its words are quoted as Asterisk's ``parse_args`` takes them apart.

    Raises:
        ValueError: a word holds a line end or NUL (no quoting carries them), or all is too long.
    """
    if not words or len(words) > WORDS_MAX:
        raise ValueError(f"a command has from 1 to {WORDS_MAX} words")
    line = " ".join(_quoted(word) for word in words).encode("utf-8") + b"\n"
    if len(line) > COMMAND_MAX:
        raise ValueError(f"a command has at most {COMMAND_MAX} bytes")
    return line


def _quoted(word: str) -> str:
    if any(mark in word for mark in _UNSENDABLE):
        raise ValueError("no line end can be sent inside a command")
    if word.isascii() and word.replace("_", "").isalnum():
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def set_variable(name: str, value: str) -> bytes:
    """``SET VARIABLE``: a variable of the channel, or a function such as ``TIMEOUT(absolute)``.

    Raises:
        ValueError: no name of a variable, or a value that cannot be sent.
    """
    return command("SET", "VARIABLE", _checked(name), value)


def get_variable(name: str) -> bytes:
    """``GET VARIABLE``: a variable of the channel, or a function such as ``CDR(billsec)``.

    Raises:
        ValueError: no name of a variable.
    """
    return command("GET", "VARIABLE", _checked(name))


def verbose(text: str, level: int = 3) -> bytes:
    """``VERBOSE``: a line for the switch's own log; what cannot be sent becomes a blank."""
    shown = "".join(c if c.isprintable() else " " for c in text)[:300]
    return command("VERBOSE", shown, str(level))


def _checked(name: str) -> str:
    if _VARIABLE.fullmatch(name) is None:
        raise ValueError(f"{name[:40]!r} is no name of a variable")
    return name


def words_of(line: str) -> list[str]:
    """Take a command apart as Asterisk does: quotes group, a backslash takes the next as it is."""
    words: list[list[str]] = []
    quoted = escaped = False
    between = True
    for sign in line:
        if sign == "\\" and not escaped:
            escaped = True
            continue
        if sign == '"' and not escaped:
            quoted = not quoted
            if quoted and between:
                words.append([])
                between = False
            continue
        if sign in " \t" and not quoted and not escaped:
            between = True
            continue
        if between:
            words.append([])
            between = False
        words[-1].append(sign)
        escaped = False
    return ["".join(word) for word in words]


def environment_bytes(values: Sequence[tuple[str, str]]) -> bytes:
    """The beginning of a connection as Asterisk writes it; names without ``agi_``."""
    return "".join(f"agi_{name}: {value}\n" for name, value in values).encode() + b"\n"
