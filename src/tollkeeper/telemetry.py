"""Logs and metrics of one process: structlog for events, Prometheus for numbers.

Logs go to standard error, one event a line: JSON where a machine reads them, coloured text on a
terminal. Metrics are read at /metrics. Names begin with ``tollkeeper_`` and end in their unit
(``_seconds``, ``_total``); labels have few values, never a number called or a session's id.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

REGISTRY = CollectorRegistry(auto_describe=True)
METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Charging is a matter of single milliseconds; above a second the exact figure is of no interest.
LATENCY_BUCKETS_SECONDS = (
    0.0005,
    0.001,
    0.002,
    0.003,
    0.005,
    0.0075,
    0.01,
    0.02,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

LogFormat = Literal["auto", "json", "text"]


def configure_logging(level: str = "info", log_format: LogFormat = "auto") -> None:
    """Send the events of structlog and of the standard library to standard error.

    ``level`` is debug, info, warning or error. May be called again; the last call holds.
    """
    text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor
    if text:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    else:
        renderer = structlog.processors.JSONRenderer()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not text:
        # Never the local variables: they hold API keys and database passwords.
        transform = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        shared.append(structlog.processors.ExceptionRenderer(transform))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # The access log of the HTTP server would be a line for each charge.
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("asyncssh").setLevel(logging.WARNING)


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose events carry ``name`` as their component."""
    bound: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(f"tollkeeper.{name}")
    return bound.bind(component=name)


def counter(name: str, meaning: str, labels: Sequence[str] = ()) -> Counter:
    """A number that only grows, shown as ``tollkeeper_<name>_total``; make each one once."""
    return Counter(name, meaning, labels, namespace="tollkeeper", registry=REGISTRY)


def gauge(name: str, meaning: str, labels: Sequence[str] = ()) -> Gauge:
    """A number that rises and falls, shown as ``tollkeeper_<name>``; make each one once."""
    return Gauge(
        name,
        meaning,
        labels,
        namespace="tollkeeper",
        registry=REGISTRY,
        multiprocess_mode="livesum",
    )


def histogram(
    name: str,
    meaning: str,
    labels: Sequence[str] = (),
    buckets: Sequence[float] = LATENCY_BUCKETS_SECONDS,
) -> Histogram:
    """How values are spread, shown as ``tollkeeper_<name>``; make each one once.

    The usual buckets are for durations in seconds: end the name in ``_seconds`` then.
    """
    return Histogram(
        name,
        meaning,
        labels,
        namespace="tollkeeper",
        registry=REGISTRY,
        buckets=buckets,
    )


def metrics_page() -> bytes:
    """The metrics in Prometheus's text format, of the type METRICS_CONTENT_TYPE.

    Where several processes serve, they keep their numbers in the files of
    PROMETHEUS_MULTIPROC_DIR, and this is the sum over all of them.
    """
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    _forget_dead_processes(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def _forget_dead_processes(folder: Path) -> None:
    """What a killed process had waiting waits no more: its gauges go, its counters stay."""
    for pid in {path.stem.rpartition("_")[2] for path in folder.glob("gauge_live*_*.db")}:
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            multiprocess.mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
        except PermissionError:  # alive, as somebody else
            continue


_CHARGING_SECONDS = histogram(
    "charging_seconds", "Time to answer a charging request, by action.", ["action"]
)
_CHARGING_ANSWERS = counter(
    "charging_answers", "Answers to charging requests.", ["action", "status"]
)


def observe_charging(action: str, status: int, seconds: float) -> None:
    """Note one answer of the charging routes: its HTTP status and the seconds it took."""
    taken, answers = _charging_children(action, status)
    taken.observe(seconds)
    answers.inc()


@cache
def _charging_children(action: str, status: int) -> tuple[Histogram, Counter]:
    """The two series of an answer: looked up once, not on every call."""
    return _CHARGING_SECONDS.labels(action), _CHARGING_ANSWERS.labels(action, str(status))


_REFUSALS = counter("refusals", "Calls refused at authorisation, by reason.", ["reason"])


def count_refusal(reason: str) -> None:
    """Note a call that was refused, by the code of the reason."""
    _REFUSALS.labels(reason).inc()


_PEER_REQUESTS = counter(
    "peer_requests",
    "Requests of peers, by what became of them.",
    ["peer", "protocol", "action", "outcome"],
)
_PEER_REFUSALS = counter(
    "peer_refusals", "Calls and messages refused, by reason.", ["peer", "reason"]
)
_PEER_SECONDS = histogram("peer_seconds", "Time to decide a peer's request.", ["peer", "protocol"])
_PEER_FAULTS = counter(
    "peer_faults",
    "What peers sent that was not taken, or sent twice: malformed, duplicate, wrong_secret ...",
    ["peer", "protocol", "fault"],
)
_PEERS_UP = gauge("peer_connections", "Connections that are up.", ["peer", "protocol"])
_PEERS_MAX = 1000
"""Peers that have numbers of their own; those beyond share one name."""
_LOG_AGAIN_SECONDS = 300.0


class PeerMeter:
    """The numbers of one peer; ``peer`` "" is whoever is not known.

    ``fault`` counts every one and logs the first of a kind, and again when five minutes have passed.
    """

    _made: ClassVar[dict[tuple[str, str], PeerMeter]] = {}

    def __init__(self, peer: str, protocol: str) -> None:
        self._labels = (peer, protocol)
        self._seconds = _PEER_SECONDS.labels(peer, protocol)
        self._outcomes: dict[tuple[str, str], Counter] = {}
        self._faults: dict[str, Counter] = {}
        self._logged: dict[str, float] = {}

    @classmethod
    def of(cls, peer: str, protocol: str) -> PeerMeter:
        """The meter of a peer for a protocol."""
        made = cls._made.get((peer, protocol))
        if made is None:
            if len(cls._made) >= _PEERS_MAX:
                peer = "others"
            made = cls._made.setdefault((peer, protocol), cls(peer, protocol))
        return made

    def request(self, action: str, outcome: str, seconds: float) -> None:
        """Note one request: authorise, start ...; granted, refused, busy ...; seconds to decide it."""
        made = self._outcomes.get((action, outcome))
        if made is None:
            made = _PEER_REQUESTS.labels(*self._labels, action, outcome)
            self._outcomes[action, outcome] = made
        made.inc()
        self._seconds.observe(seconds)

    def refusal(self, reason: str) -> None:
        """Note why something was refused."""
        _PEER_REFUSALS.labels(self._labels[0], reason).inc()

    def fault(self, fault: str, detail: str = "", *, log: bool = True) -> None:
        """Note what was wrong with a message (few words: malformed, duplicate, unknown_peer ...)."""
        made = self._faults.get(fault)
        if made is None:
            made = self._faults[fault] = _PEER_FAULTS.labels(*self._labels, fault)
        made.inc()
        now = time.monotonic()
        if log and now - self._logged.get(fault, -_LOG_AGAIN_SECONDS) >= _LOG_AGAIN_SECONDS:
            self._logged[fault] = now
            peer, protocol = self._labels
            logger("peers").warning(
                f"peer.{fault}", peer=peer or "unknown", protocol=protocol, detail=detail
            )

    def connected(self, change: int) -> None:
        """Note that a connection came (+1) or went (-1)."""
        _PEERS_UP.labels(*self._labels).inc(change)


_BATCH_SIZE = histogram("lane_batch_size", "Operations in a batch.", buckets=BATCH_BUCKETS)
_COMMIT_SECONDS = histogram(
    "lane_commit_seconds",
    "Time to write and commit a batch, and to lock its rows where that was needed.",
)


def observe_batch(operations: int, commit_seconds: float | None) -> None:
    """Note one batch: its operations and the seconds of its commit; None if it wrote nothing."""
    _BATCH_SIZE.observe(operations)
    if commit_seconds is not None:
        _COMMIT_SECONDS.observe(commit_seconds)


_WAITING = gauge("lane_waiting", "Charging requests that wait for a batch, a few times a second.")
_LANE_COUNTERS = (
    counter("lane_batches", "Batches carried out."),
    counter("lane_operations", "Charging operations carried out, repeats not among them."),
    counter("lane_stale_batches", "Batches decided again: what they rested on had changed."),
    counter("lane_shed", "Requests refused at once because too many waited."),
    counter("lane_replays", "Repeated messages answered with the stored answer."),
)


class LaneMeter:
    """Hands a lane's own counts on to the metrics, by what they grew since the last time.

    So a request costs the metrics nothing: the lane counts in plain integers.
    """

    def __init__(self) -> None:
        self._told = (0,) * len(_LANE_COUNTERS)

    def tell(
        self, waiting: int, *, batches: int, operations: int, stale: int, shed: int, replays: int
    ) -> None:
        """Note how many requests wait now, and the counts since the lane was made."""
        _WAITING.set(waiting)
        counts = (batches, operations, stale, shed, replays)
        for metric, count, told in zip(_LANE_COUNTERS, counts, self._told, strict=True):
            if count > told:
                metric.inc(count - told)
        self._told = counts
