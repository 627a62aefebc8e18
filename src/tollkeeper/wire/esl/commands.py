"""What is sent over FreeSWITCH's event socket: commands, so built that no value can begin another one.

Each function returns the bytes of one command. Line ends, NUL and what FreeSWITCH itself would
take apart or expand (quotes, backslashes, ``${...}``) are refused in values that callers choose.

Sources: FreeSWITCH's documentation of mod_event_socket and mod_commands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tollkeeper.errors import InvalidInput

COMMAND_MAX = 8192
"""Bytes of one command."""
_UUID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._@:-]{0,127}")
_WORD = re.compile(r"[0-9A-Za-z_+#*@.:=/~!][0-9A-Za-z_+#*@.:=/~!-]{0,254}")
_NAME = re.compile(r"[A-Za-z][0-9A-Za-z_-]{0,127}")
_VALUE = re.compile(r"[^\x00-\x1f\x7f'\"\\$;\ud800-\udfff]{0,512}")
_SECRET = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,255}")
_CAUSE = re.compile(r"[A-Z][A-Z0-9_]{1,63}")
SECONDS_MAX = 10**8


class UnsafeCommand(InvalidInput):
    """A value that must not go into a command: it could be read as something else."""

    code = "unsafe_command"


def auth(password: str) -> bytes:
    """Log on.

    Raises:
        UnsafeCommand: an empty password, or one with control characters.
    """
    return _line("auth", _checked(_SECRET, password, "The password of the event socket"))


def subscribe(events: Sequence[str], form: str = "plain") -> bytes:
    """Ask for events of these names, as "plain" or "json"."""
    names = [_checked(_NAME, name, "The name of an event") for name in events]
    return _line("event", _checked(_NAME, form, "The form of events"), *names)


def api(*words: str) -> bytes:
    """Make a command of words that is carried out at once; the connection waits for it."""
    return _line("api", *[_checked(_WORD, word, "A word of a command") for word in words])


def background(job: str, command: bytes) -> bytes:
    """Have an ``api`` command carried out beside the connection; its end comes as BACKGROUND_JOB.

    ``job`` is an id of our own choice.
    """
    if not command.startswith(b"api ") or not command.endswith(b"\n\n"):
        raise UnsafeCommand("Only a command made by this module can be sent to the background.")
    name = _checked(_UUID, job, "The id of a job")
    return b"bg" + command[:-1] + f"Job-UUID: {name}\n\n".encode()


def set_variables(uuid: str, values: Mapping[str, str]) -> bytes:
    """Set variables of a channel, all at once; an empty value takes the variable away."""
    pairs = [
        f"{_checked(_NAME, name, 'The name of a variable')}="
        f"{_checked(_VALUE, value, f'The value of {name[:60]}')}"
        for name, value in values.items()
    ]
    return _line("api", "uuid_setvar_multi", channel(uuid), ";".join(pairs))


def transfer(uuid: str, extension: str, context: str) -> bytes:
    """Send a call to an extension of the XML dialplan.

    Raises:
        UnsafeCommand: an extension that is no plain number or name.
    """
    return _line(
        "api",
        "uuid_transfer",
        channel(uuid),
        _checked(_WORD, extension, "The extension"),
        "XML",
        _checked(_WORD, context, "The context"),
    )


def schedule_hangup(uuid: str, seconds: int, cause: str) -> bytes:
    """End a call so many seconds from now."""
    # 0 would be "at once" on some versions and "never mind" on others.
    if not 1 <= seconds <= SECONDS_MAX:
        raise UnsafeCommand(f"A call cannot be ended {seconds} seconds from now.")
    return _line("api", "sched_hangup", f"+{seconds}", channel(uuid), _cause(cause))


def on_answer(seconds: int, cause: str) -> str:
    """What a channel does when it is answered, as a variable: end itself so many seconds later."""
    if not 1 <= seconds <= SECONDS_MAX:
        raise UnsafeCommand(f"A call cannot be ended {seconds} seconds from now.")
    return f"sched_hangup +{seconds} {_cause(cause)}"


def unschedule(task_id: int) -> bytes:
    """Take one scheduled task back."""
    if not 0 < task_id < 2**32:
        raise UnsafeCommand(f"{task_id} is no id of a task.")
    return _line("api", "sched_del", str(task_id))


def kill(uuid: str, cause: str) -> bytes:
    """End a call now."""
    return _line("api", "uuid_kill", channel(uuid), _cause(cause))


def dump(uuid: str) -> bytes:
    """Ask for all that the switch knows of a channel, as an event."""
    return _line("api", "uuid_dump", channel(uuid))


def exists(uuid: str) -> bytes:
    """Ask whether there is such a channel."""
    return _line("api", "uuid_exists", channel(uuid))


def get_variable(uuid: str, name: str) -> bytes:
    """Ask for one variable of a channel."""
    return _line(
        "api", "uuid_getvar", channel(uuid), _checked(_NAME, name, "The name of a variable")
    )


def show(what: str) -> bytes:
    """Ask for a table, such as the channels, as JSON."""
    return _line("api", "show", _checked(_NAME, what, "The name of a table"), "as", "json")


def channel(uuid: str) -> str:
    """Return the id of a channel if it is one.

    Raises:
        UnsafeCommand: it is not.
    """
    return _checked(_UUID, uuid, "The id of a channel")


def extension(text: str) -> bool:
    """Tell whether a call may be sent to this extension: a plain number or name."""
    return _WORD.fullmatch(text) is not None


def _cause(text: str) -> str:
    return _checked(_CAUSE, text, "The cause of a hangup")


def _checked(pattern: re.Pattern[str], text: str, what: str) -> str:
    if pattern.fullmatch(text) is None:
        raise UnsafeCommand(f"{what} is not one that can be sent to FreeSWITCH.")
    return text


def _line(*words: str) -> bytes:
    line = " ".join(words).encode() + b"\n\n"
    if len(line) > COMMAND_MAX:
        raise UnsafeCommand(f"A command for FreeSWITCH is over {COMMAND_MAX} bytes.")
    return line
