"""What the routes work with: built once by wiring, handed to the app's factory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from tollkeeper.errors import Busy

if TYPE_CHECKING:
    from tollkeeper.servers.switchboard import Switchboard
    from tollkeeper.services.cdr.brought import Bringing
    from tollkeeper.services.cdr.worker import Worker
    from tollkeeper.services.charging import Charging
    from tollkeeper.services.directory import Directory
    from tollkeeper.services.spool import Spool
    from tollkeeper.services.supplies import Supplies
    from tollkeeper.store.db import Database


@dataclass(frozen=True, slots=True)
class Services:
    """The use cases' dependencies in one process; ``clock`` gives the time in UTC.

    Without a ``spool`` no files are taken, and without ``worker`` and ``bringing`` none are loaded;
    without ``supplies`` nothing is bought from suppliers, without ``board`` no switch speaks with us.
    """

    database: Database
    directory: Directory
    charging: Charging
    clock: Callable[[], datetime]
    spool: Spool | None = None
    worker: Worker | None = None
    bringing: Bringing | None = None
    supplies: Supplies | None = None
    board: Switchboard | None = None


def services_of(request: Request) -> Services:
    """Return what the app was made with."""
    services: Services = request.app.state.services
    return services


Context = Annotated[Services, Depends(services_of)]
"""The type of a route's argument that receives the services."""


def supplies_of(context: Services) -> Supplies:
    """Return what buys from suppliers.

    Raises:
        Busy: this process buys nothing.
    """
    if context.supplies is None:
        raise Busy("this process asks no suppliers; ask another one", code="no_suppliers")
    return context.supplies
