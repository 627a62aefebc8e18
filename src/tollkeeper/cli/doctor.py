"""The command ``doctor``: what is wrong with this set-up, and how to mend it."""

from __future__ import annotations

import asyncio

from rich.text import Text

from tollkeeper.cli.common import console
from tollkeeper.errors import SetupError
from tollkeeper.services.doctor import Check, Level, check_database, check_machine
from tollkeeper.services.probe_network import check_network
from tollkeeper.settings import load_settings
from tollkeeper.telemetry import configure_logging
from tollkeeper.wiring import database_url

NEEDED = frozenset(("database", "schema", "migrations"))
"""Without these the peers cannot be read."""
STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


def doctor() -> int:
    """Look at this set-up and say what is wrong with it and how to mend it. Changes nothing.

    Ends with 1 if something does not work or is not safe.
    """
    try:
        settings = load_settings()
    except SetupError as error:
        mend = "correct the environment or tollkeeper.toml; docs/reference/settings.md lists all"
        return _print([Check(Level.FAIL, "settings", error.detail, mend)])
    configure_logging("error", settings.log_format)
    checks = check_machine(settings)
    try:
        with database_url(settings) as url:
            checks += asyncio.run(check_database(url, settings))
            if all(check.level is Level.OK for check in checks if check.what in NEEDED):
                checks += asyncio.run(check_network(url, settings))
    except SetupError as error:  # the text of the private server's errors says how to mend them
        checks.append(Check(Level.FAIL, "private database", error.detail))
    return _print(checks)


def _print(checks: list[Check]) -> int:
    out = console()
    width = max(len(check.what) for check in checks)
    for check in checks:
        line = Text.assemble(
            (f"{check.level.value:<5}", STYLES[check.level]),
            (f"{check.what:<{width}}  ", "bold"),
            check.found,
        )
        out.print(line, soft_wrap=True)
        if check.mend:
            out.print(Text(f"{'':<{width + 7}}mend: {check.mend}"), soft_wrap=True)
    failed = sum(check.level is Level.FAIL for check in checks)
    warned = sum(check.level is Level.WARN for check in checks)
    out.print(f"{failed} failed, {warned} warnings, {len(checks) - failed - warned} well")
    return 1 if failed else 0
