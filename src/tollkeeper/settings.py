"""Everything that can be set, read once at the start and never changed after.

A setting comes, the first found wins, from the environment (``TOLLKEEPER_PORT=8080``), from the
TOML file that TOLLKEEPER_CONFIG names, else from ``tollkeeper.toml`` in the working directory
(``port = 8080``), else from the default below. ``python -m tollkeeper.settings`` prints the
reference page docs/reference/settings.md.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_core import PydanticUndefined
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from tollkeeper.errors import SetupError

PREFIX = "TOLLKEEPER_"
CONFIG_VARIABLE = "TOLLKEEPER_CONFIG"
CONFIG_FILE = "tollkeeper.toml"
# Variables that tests and tools read, which are no settings of the program.
FOREIGN_PREFIXES = ("TOLLKEEPER_TEST_", "TOLLKEEPER_SHARED_", CONFIG_VARIABLE)


def default_data_dir() -> Path:
    """Where the private database lives: TOLLKEEPER_DATA_DIR, else the user's data folder.

    For root that is /var/lib/tollkeeper: PostgreSQL runs as another user then, who may not enter
    root's home.
    """
    if given := os.environ.get("TOLLKEEPER_DATA_DIR"):
        return Path(given).expanduser().resolve()
    if home := os.environ.get("XDG_DATA_HOME"):
        return Path(home).expanduser().resolve() / "tollkeeper"
    if os.geteuid() == 0:
        return Path("/var/lib/tollkeeper")
    return Path.home() / ".local/share/tollkeeper"


class Settings(BaseSettings):
    """The settings of one process, frozen."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

    database_url: SecretStr | None = Field(
        default=None,
        description="PostgreSQL 15 or newer to use, as a URL such as "
        "`postgresql://user:password@host/database`. Without it a private PostgreSQL is started "
        "in `data_dir` and stopped with the program.",
    )
    data_dir: Path = Field(
        default_factory=default_data_dir,
        description="Folder of the private PostgreSQL. Default: `$XDG_DATA_HOME/tollkeeper` or "
        "`~/.local/share/tollkeeper`; for root `/var/lib/tollkeeper`.",
    )
    host: str = Field(default="127.0.0.1", description="Address that the HTTP server listens on.")
    port: int = Field(
        default=8080, ge=0, le=65535, description="Port of the HTTP server; 0 takes a free one."
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes that serve HTTP, each with a lane of its own.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe messages that are logged."
    )
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto", description="`auto` is text on a terminal and JSON elsewhere."
    )
    pool_min: int = Field(
        default=2,
        ge=1,
        le=100,
        description="Database connections that each process keeps open; never more than `pool_max`.",
    )
    pool_max: int = Field(
        default=8,
        ge=1,
        le=100,
        description="Database connections that each process may open; over all processes the sum "
        "must stay below PostgreSQL's `max_connections`.",
    )
    lane_queue_max: int = Field(
        default=4096,
        ge=1,
        le=1_000_000,
        description="Charging requests that may wait in one process; above it the answer is "
        "`busy` at once.",
    )
    lane_batch_max: int = Field(
        default=512,
        ge=1,
        le=10_000,
        description="Charging requests decided in one database transaction at most.",
    )
    answer_window_seconds: int = Field(
        default=120,
        ge=1,
        le=3600,
        description="Seconds that a call may ring: without a word from the switch its hold is "
        "released that long after the authorisation, and the grace later.",
    )
    grace_seconds: int = Field(
        default=60,
        ge=0,
        le=3600,
        description="Seconds after the end of a grant before a session of which nothing is heard "
        "is closed.",
    )
    silent_tail: Literal["last_usage", "grant_end"] = Field(
        default="last_usage",
        description="What a session that is closed so pays for: up to the usage last reported, or "
        "(`grant_end`) all that was granted.",
    )

    spool_dir: Path | None = Field(
        default=None,
        description="Folder in which collected CDR files rest until they are loaded; not shared "
        "by machines. Default: `spool` in `data_dir`.",
    )
    cdr_file_max_bytes: int = Field(
        default=8 * 2**30,
        ge=1,
        le=2**50,
        description="Bytes that one CDR file may have.",
    )

    cdr_match_tolerance_ms: int = Field(
        default=2_000,
        ge=0,
        le=3_600_000,
        description="Milliseconds by which a CDR and the live session of its call may differ in "
        "duration before the difference is reported.",
    )
    cdr_on_difference: Literal["report", "correct"] = Field(
        default="report",
        description="What is done when they differ by more: `report` lists it, `correct` also "
        "charges the duration of the CDR.",
    )
    cdr_long_call_seconds: int = Field(
        default=14_400,
        ge=1,
        le=10_000_000,
        description="Seconds of an answered call above which its CDR is reported as a long call.",
    )

    archive_after_days: int = Field(
        default=45,
        ge=2,
        le=36_500,
        description="Days after which a day of usage records moves out of the database into "
        "Parquet files, where it is still found.",
    )
    archive_url: str = Field(
        default="",
        description="Where those files go: a folder, or `s3://bucket/folder` (`?region=` and "
        "`?endpoint_override=` are understood; credentials come from the environment, such as "
        "`AWS_ACCESS_KEY_ID`). Default: `archive` in `data_dir`.",
    )
    usage_keep_days: int = Field(
        default=400,
        ge=0,
        le=36_500,
        description="Days that usage records, archived or not, are kept, at least 366; 0 keeps "
        "them for ever. Hourly sums and the journal are never deleted.",
    )

    radius_auth_listen: str = Field(
        default="",
        description="Where RADIUS authentication is listened for: `address:port`, usually port "
        "1812 (UDP). Empty: not at all, as for all listeners below.",
    )
    radius_acct_listen: str = Field(
        default="", description="Where RADIUS accounting is listened for, usually port 1813 (UDP)."
    )
    diameter_listen: str = Field(
        default="", description="Where Diameter peers connect, usually port 3868 (TCP)."
    )
    diameter_tls_listen: str = Field(
        default="", description="Where Diameter peers connect with TLS, usually port 5868."
    )
    diameter_host: str = Field(
        default="",
        description="Our Origin-Host; by default the name of this machine.",
    )
    diameter_realm: str = Field(
        default="", description="Our Origin-Realm; by default what follows the first dot of it."
    )
    smpp_listen: str = Field(
        default="", description="Where ESMEs bind by SMPP, usually port 2775 (TCP)."
    )
    smpp_tls_listen: str = Field(
        default="", description="Where ESMEs bind by SMPP with TLS, usually port 3550."
    )
    sip_listen: str = Field(
        default="",
        description="Where the SIP redirect server listens, usually port 5060 (UDP and TCP).",
    )
    sip_unknown: Literal["drop", "refuse"] = Field(
        default="drop",
        description="What SIP requests from addresses of no peer get: `drop` is silence, `refuse` "
        "is 403.",
    )
    agi_listen: str = Field(
        default="", description="Where Asterisk connects by FastAGI, usually port 4573 (TCP)."
    )
    tls_certificate: Path | None = Field(
        default=None, description="PEM file with the certificate chain of the TLS listeners."
    )
    tls_key: Path | None = Field(default=None, description="PEM file with its private key.")
    tls_client_ca: Path | None = Field(
        default=None,
        description="PEM file with the authorities whose client certificates are demanded by the "
        "TLS listeners; without it none are.",
    )
    network_queue_max: int = Field(
        default=2048,
        ge=1,
        le=1_000_000,
        description="Requests of one protocol that may be under way in a process. New calls above "
        "it are turned away; messages of calls that are up may be a quarter more, ends half more.",
    )

    @property
    def spool_path(self) -> Path:
        """The spool folder, set or by default."""
        return self.spool_dir or self.data_dir / "spool"

    @field_validator("data_dir", "spool_dir")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().resolve()

    @field_validator(
        "radius_auth_listen",
        "radius_acct_listen",
        "diameter_listen",
        "diameter_tls_listen",
        "smpp_listen",
        "smpp_tls_listen",
        "sip_listen",
        "agi_listen",
    )
    @classmethod
    def _address(cls, value: str) -> str:
        if value:
            listen_address(value)
        return value

    @field_validator("usage_keep_days")
    @classmethod
    def _a_year(cls, value: int) -> int:
        if 0 < value < 366:
            raise ValueError("must be 366 or more, or 0 to keep records for ever")
        return value

    @field_validator("database_url")
    @classmethod
    def _postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        text = "" if value is None else value.get_secret_value()
        # A key=value string is libpq's other way to name a database.
        if text and "=" not in text and not text.startswith(("postgresql://", "postgres://")):
            raise ValueError("must begin with postgresql://")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (called by name)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (called by name)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment, then the TOML file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, _config_file())


def listen_address(text: str) -> tuple[str, int]:
    """Split ``address:port`` (``[::1]:1812`` for IPv6).

    Raises:
        ValueError: it is not of that form.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("must be address:port, such as 127.0.0.1:1812")
    return host, int(port)


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; ``overrides`` come from the command line and win.

    Raises:
        SetupError: a setting is unknown or has a value that it cannot have; names each.
    """
    given = os.environ.get(CONFIG_VARIABLE)
    if given and not Path(given).is_file():
        raise SetupError(f"{CONFIG_VARIABLE} names {given}, which is not a file.")
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    unknown = sorted(
        name
        for name in os.environ
        if name.startswith(PREFIX) and not name.startswith(FOREIGN_PREFIXES) and name not in known
    )
    if unknown:
        raise SetupError(f"No such setting: {', '.join(unknown)}. See docs/reference/settings.md.")
    try:
        return Settings(**overrides)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise SetupError(f"The settings are wrong: {faults}.") from error
    except ValueError as error:  # the TOML file does not parse
        raise SetupError(f"{_config_file()} is not valid TOML: {error}.") from error


def reference() -> str:
    """The page docs/reference/settings.md."""
    lines = [
        "# Settings",
        "",
        "Each setting is an environment variable, or a line of `tollkeeper.toml` in the working",
        "directory (or of the file that `TOLLKEEPER_CONFIG` names). The environment wins.",
        "This page is printed by `python -m tollkeeper.settings`.",
        "",
        "| environment | in the TOML file | default | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for name, field in Settings.model_fields.items():
        shown = "" if field.default in {None, PydanticUndefined} else f"`{field.default}`"
        lines.append(f"| `{PREFIX}{name.upper()}` | `{name}` | {shown} | {field.description} |")
    lines += [
        "",
        f"`{CONFIG_VARIABLE}` names the TOML file. A setting that does not exist is an error, not ignored.",
    ]
    return "\n".join(lines) + "\n"


def _config_file() -> Path:
    return Path(os.environ.get(CONFIG_VARIABLE) or CONFIG_FILE)


if __name__ == "__main__":
    sys.stdout.write(reference())
