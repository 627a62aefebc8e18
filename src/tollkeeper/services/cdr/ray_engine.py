"""Re-rating on a Ray cluster: the pieces are tasks, the rates an object that each machine gets once.

A task whose worker or machine dies is done again elsewhere. That is safe, because a piece has no
effect but its own partial sum and its own file, and both are the same each time.

The machines need the same release of this program with the extra ``ray``.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from tollkeeper import __version__
from tollkeeper.bulk.rerate import Beside, Partial
from tollkeeper.errors import SetupError, TollkeeperError
from tollkeeper.services.cdr.engine import Piece, Shared, rerate_piece

try:
    import ray
    from ray.exceptions import RayError, RayTaskError
except ModuleNotFoundError as error:  # pragma: no cover - told by what is installed
    raise SetupError(
        'The engine ray needs the extra "ray"; install it with: pip install "tollkeeper[ray]".'
    ) from error

__all__ = ["RayEngine"]

RETRIES = 5
"""Times that a task is tried again whose worker died, or that could not read its part."""
PATIENCE_SECONDS = 10
AHEAD = 4
"""Tasks that wait for each core: enough to keep it busy, few enough to hold on to little."""


class RayEngine:
    """Works out pieces on a cluster.

    ``address`` is what Ray calls so: ``host:6379``, ``auto`` for the cluster that this machine is
    part of (the default), or ``local`` for one that is started here and ends with this.
    """

    def __init__(self, address: str | None = None) -> None:
        self._address = "auto" if address is None else address
        self._shared: Any = None
        self._waiting: list[Any] = []
        self._most = AHEAD

    def start(self, shared: Shared) -> None:
        """Find the cluster and send it the rates."""
        try:
            _knock(self._address)
            ray.init(address=self._address, log_to_driver=False, logging_level="ERROR")
            self._shared = ray.put(shared)
            self._most = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        except (OSError, ValueError, RuntimeError, RayError) as error:
            raise SetupError(
                f"No Ray cluster answers at {self._address} ({_first_line(error)}); start one with "
                '"ray start --head", or give its address with --address.'
            ) from error

    def submit(self, beside: Beside, pieces: Sequence[Piece]) -> list[Partial]:
        """Hand the pieces of a day out; waits while the cluster has enough to do."""
        held = ray.put(beside)
        task = ray.remote(_work).options(
            num_cpus=1,
            max_retries=RETRIES,
            retry_exceptions=[OSError],
            scheduling_strategy="SPREAD",
        )
        done = []
        for piece in pieces:
            # In a list, so that they are opened by the task, after it has looked at the release.
            self._waiting.append(task.remote(__version__, [self._shared, held], piece))
            if len(self._waiting) >= self._most:
                done += self._take(1)
        return done

    def finish(self) -> list[Partial]:
        """Wait for the rest."""
        return self._take(len(self._waiting))

    def _take(self, count: int) -> list[Partial]:
        if not count:
            return []
        ready, self._waiting = ray.wait(self._waiting, num_returns=count)
        try:
            found: list[Partial] = ray.get(ready)
        except RayTaskError as error:
            if isinstance(error.cause, OSError | TollkeeperError):
                raise error.cause from error
            raise SetupError(
                f"A worker cannot price records: {_first_line(error.cause)}"
            ) from error
        except RayError as error:
            raise SetupError(f"The cluster lost a piece for good: {_first_line(error)}") from error
        return found

    def close(self) -> None:
        """Leave the cluster; what it still does for us is given up."""
        self._waiting, self._shared = [], None
        ray.shutdown()


def _work(release: str, held: list[Any], piece: Piece) -> Partial:
    """Work out a piece, on a machine of the cluster."""
    if release != __version__:
        raise SetupError(
            f"The cluster has release {__version__} of this program, and {release} asks; install "
            "the same on both."
        )
    shared, beside = ray.get(held)
    return rerate_piece(shared, beside, piece)


def _knock(address: str) -> None:
    """Fail at once where nobody listens: Ray itself would go on trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE_SECONDS).close()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).partition("\n")[0]
