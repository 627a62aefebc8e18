"""What each kind of source must be told: where to look, and what to do with what was taken."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

import msgspec

from tollkeeper.errors import InvalidInput
from tollkeeper.gateways.sftp import is_private_key, read_host_keys, read_private_key

TEXT_MAX = 1000
PAGE_ROWS = 50_000

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_MAX)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
Seconds = Annotated[int, msgspec.Meta(ge=0, le=86_400)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a kind without settings needs: nothing."""


class FileSettings(Settings, frozen=True, kw_only=True):
    """What all folders of files have in common.

    A file is taken when its size and time have not changed for ``settle_seconds``, or, where
    ``done_marker`` is given, as soon as the marker lies beside it: ``{name}.ok``, or ``{stem}.ok``
    for the name without its last suffix; a marker older than the file does not count, and the file
    must rest. ``after`` says what becomes of a file that was loaded;
    ``move_to`` is a folder, from ``path`` on unless it begins with a slash.
    """

    path: Text
    pattern: Text = "*"
    settle_seconds: Seconds = 10
    done_marker: Annotated[str, msgspec.Meta(max_length=TEXT_MAX)] = ""
    after: Literal["keep", "move", "delete"] = "keep"
    move_to: Annotated[str, msgspec.Meta(max_length=TEXT_MAX)] = ""


class FolderSettings(FileSettings, frozen=True, kw_only=True):
    """A folder that this machine sees."""


class SftpSettings(FileSettings, frozen=True, kw_only=True):
    """A folder of an SFTP server; ``host_key`` is its public key, a line or several."""

    host: Text
    user: Text
    host_key: Annotated[str, msgspec.Meta(max_length=20_000)]
    port: Port = 22


class FtpSettings(FileSettings, frozen=True, kw_only=True):
    """A folder of an FTP server.

    With ``tls`` nothing goes in clear; ``certificate_sha256`` is the fingerprint of a certificate
    that no authority signed.
    """

    host: Text
    user: Text
    port: Port = 21
    tls: bool = False
    certificate_sha256: Annotated[str, msgspec.Meta(max_length=95)] = ""


class TableSettings(Settings, frozen=True, kw_only=True):
    """The day tables of a VOS3000 switch.

    ``since`` is the first day to read (the day of the first look if left out), ``page`` how many
    rows are loaded as one file, ``settle_seconds`` how long a row is left alone, so that slower
    ones with lower numbers are there too, and ``late_hours`` how long after its end a day's table
    is still looked at.
    """

    host: Text
    user: Text
    database: Text
    port: Port = 3306
    tls: bool = False
    since: date | None = None
    page: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = PAGE_ROWS
    settle_seconds: Seconds = 10
    late_hours: Annotated[int, msgspec.Meta(ge=0, le=240)] = 6


KINDS: dict[str, type[Settings]] = {
    "directory": FolderSettings,
    "sftp": SftpSettings,
    "ftp": FtpSettings,
    "http": Settings,
    "mysql": TableSettings,
    "manual": Settings,
}
WITH_SECRET = ("sftp", "ftp", "mysql")

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_MARKER_PARTS = ("{name}", "{stem}")


def read_settings(kind: str, given: Mapping[str, Any], secret: str) -> Settings:
    """Return the settings of a kind, complete and checked.

    Raises:
        InvalidInput: one is missing, unknown, of the wrong type or out of bounds; names it.
    """
    model = KINDS[kind]
    try:
        settings = msgspec.convert(dict(given), model)
    except msgspec.ValidationError as error:
        raise _sentence(kind, model, str(error)) from error
    if secret and kind not in WITH_SECRET:
        raise InvalidInput(f"secret: a source of the kind {kind} has none", field="secret")
    if kind in WITH_SECRET and not secret:
        what = "password or private key" if kind == "sftp" else "password"
        raise InvalidInput(f"secret: give the {what}", field="secret")
    if isinstance(settings, FileSettings):
        _check_files(settings)
    if isinstance(settings, FolderSettings) and not settings.path.startswith("/"):
        raise _wrong("path", "give the whole path of the folder, from / on")
    if isinstance(settings, SftpSettings):
        read_host_keys(settings.host_key)
        if is_private_key(secret):
            read_private_key(secret)
    if isinstance(settings, FtpSettings) and settings.certificate_sha256:
        plain = settings.certificate_sha256.lower().replace(":", "")
        if _FINGERPRINT.fullmatch(plain) is None:
            raise _wrong("certificate_sha256", "a SHA-256 fingerprint has 64 hexadecimal digits")
        if not settings.tls:
            raise _wrong("certificate_sha256", "it has a meaning only with tls = true")
    return settings


def marker_of(settings: FileSettings, name: str) -> str:
    """The name of the marker that says a file is complete; "" where there are no markers."""
    stem = name.rpartition(".")[0] or name
    return settings.done_marker.replace("{name}", name).replace("{stem}", stem)


def _check_files(settings: FileSettings) -> None:
    for name in ("path", "pattern", "done_marker", "move_to"):
        value: str = getattr(settings, name)
        if not value.isprintable():
            raise _wrong(name, "no control characters, please")
    for name in ("pattern", "done_marker"):
        if "/" in getattr(settings, name):
            raise _wrong(name, "a name without slashes; the folder is settings.path")
    marker = settings.done_marker
    if marker and (marker in _MARKER_PARTS or not any(part in marker for part in _MARKER_PARTS)):
        raise _wrong("done_marker", "give a name such as {name}.ok or {stem}.ok")
    if (settings.after == "move") != bool(settings.move_to):
        raise _wrong("move_to", 'name a folder if, and only if, settings.after is "move"')
    if settings.move_to and settings.move_to.strip("/.") == "":
        raise _wrong("move_to", "this would be the same folder again")


def _wrong(name: str, advice: str) -> InvalidInput:
    return InvalidInput(f"settings.{name}: {advice}", field=f"settings.{name}")


def _sentence(kind: str, model: type[Settings], text: str) -> InvalidInput:
    """The library's message in our words: what is wrong, where, and what there is."""
    message, _, place = text.partition(" - at `$")
    name = place.rstrip("`").lstrip(".")
    quoted = re.search(r"field `([^`]*)`", message)
    if quoted is not None:
        known = ", ".join(model.__struct_fields__) or "none"
        name = quoted[1]
        shown = "".join(c for c in name if c.isprintable())[:60]
        missing = "missing" in message
        told = "it must be given" if missing else f"a source of the kind {kind} has: {known}"
        return InvalidInput(f"settings.{shown}: {told}", field=f"settings.{shown}")
    field = f"settings.{name}" if name else "settings"
    return InvalidInput(f"{field}: {message[:1].lower()}{message[1:]}", field=field)
