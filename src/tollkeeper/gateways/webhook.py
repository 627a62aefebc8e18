"""Posting an event to whoever asked for it: one signed HTTP request (Standard Webhooks 1.0.0).

The address of a party's webhook is the party's word. Its name is resolved here, all that it stands for
must be public addresses, and the connection goes to exactly those: a name that means something else a
moment later (DNS rebinding), a redirect or a proxy of ours reaches nothing inside.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Protocol
from urllib.parse import urlsplit

import httpcore
import httpx
from standardwebhooks.webhooks import Webhook

TIMEOUT_SECONDS = 15.0
"""For the whole request, from the name to the last byte; Standard Webhooks says 15 to 30."""
ANSWER_MAX_BYTES = 16 * 1024
"""Of an answer only its status counts; so much is read to use the connection again."""
CONNECTIONS_MAX = 100
RETRY_AFTER_MAX_SECONDS = 24 * 3600
_CARRIERS = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "::/96")))
"""NAT64, and the IPv4-compatible addresses of old: the last 32 bits are an IPv4 address."""
_USER_AGENT = b"Tollkeeper-Webhooks/1"

SocketOptions = (
    tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
)
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Post:
    """One attempt: ``secrets`` all sign (two of them while one is being replaced).

    ``public_only``: the address is a party's, and must not be one of ours.
    """

    url: str
    secrets: tuple[str, ...]
    message_id: str
    body: bytes
    public_only: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: ``status`` of the answer, or None and what went wrong (``error``).

    ``retry_after`` is the pause in seconds that the answer asks for; 0: it asks for none.
    """

    status: int | None
    error: str = ""
    retry_after: int = 0

    @property
    def delivered(self) -> bool:
        """Only 2xx means that the event has been taken."""
        return self.status is not None and 200 <= self.status < 300


class WebhookGateway(Protocol):
    """Sends one event to one address."""

    async def send(self, post: Post, at: datetime) -> Outcome:
        """Post it, signed at this time; whatever goes wrong is an outcome, never an exception."""

    async def close(self) -> None:
        """Give back what is held."""


class HttpWebhook:
    """The real one: no redirects, no proxies, bounded answers, TLS verified by the name."""

    def __init__(self, *, resolve: Resolver | None = None) -> None:
        context = httpx.create_ssl_context()
        self._public = _pool(context, _Backend(resolve or _resolve, public_only=True))
        self._any = _pool(context, _Backend(resolve or _resolve, public_only=False))

    async def send(self, post: Post, at: datetime) -> Outcome:
        """Post it; see :class:`WebhookGateway`."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await self._send(post, at)
        except TimeoutError:
            return Outcome(None, f"no answer within {TIMEOUT_SECONDS:.0f} s")
        except PrivateTarget as error:
            return Outcome(None, str(error))
        except (
            httpcore.NetworkError,
            httpcore.TimeoutException,
            httpcore.ProtocolError,
            httpcore.UnsupportedProtocol,
            httpx.InvalidURL,
            ssl.SSLError,
            OSError,
            ValueError,
        ) as error:
            return Outcome(None, f"{type(error).__name__}: {error}"[:300])

    async def _send(self, post: Post, at: datetime) -> Outcome:
        url = httpx.URL(post.url)
        target = httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
        )
        headers = [
            (b"host", url.netloc),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(post.body)).encode()),
            (b"user-agent", _USER_AGENT),
            (b"webhook-id", post.message_id.encode()),
            (b"webhook-timestamp", str(int(at.timestamp())).encode()),
            (b"webhook-signature", signature(post, at).encode()),
        ]
        pool = self._public if post.public_only else self._any
        async with pool.stream("POST", target, headers=headers, content=post.body) as answer:
            read = 0
            async for chunk in answer.aiter_stream():
                read += len(chunk)
                if read > ANSWER_MAX_BYTES:
                    break  # leaving the block closes the connection
            return Outcome(
                answer.status,
                "" if 200 <= answer.status < 300 else f"answered {answer.status}",
                retry_after(answer.headers, at),
            )

    async def close(self) -> None:
        """Close the connections."""
        await self._public.aclose()
        await self._any.aclose()


class NullWebhook:
    """Remembers instead of sending, for set-ups and tests without listeners; answers as it is told."""

    def __init__(self) -> None:
        self.sent: list[Post] = []
        self.answers: list[Outcome] = []

    async def send(self, post: Post, at: datetime) -> Outcome:
        """Remember the event."""
        self.sent.append(post)
        return self.answers.pop(0) if self.answers else Outcome(204)

    async def close(self) -> None:
        """Nothing is held."""


def signature(post: Post, at: datetime) -> str:
    """The header ``webhook-signature``: one signature for each secret, with a space between."""
    text = post.body.decode()
    return " ".join(Webhook(secret).sign(post.message_id, at, text) for secret in post.secrets)


def retry_after(headers: Iterable[tuple[bytes, bytes]], now: datetime) -> int:
    """The seconds that ``Retry-After`` asks for (RFC 9110 section 10.2.3), 0 to a day; 0 if unreadable."""
    for name, value in headers:
        if name.lower() != b"retry-after":
            continue
        text = value.decode("latin-1").strip()
        if text.isascii() and text.isdigit():
            # A number of a thousand digits is a day as well.
            return min(int(text[:9]), RETRY_AFTER_MAX_SECONDS)
        try:
            seconds = (parsedate_to_datetime(text) - now).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return 0
        return max(0, min(int(seconds), RETRY_AFTER_MAX_SECONDS))
    return 0


# --- where it may go -----------------------------------------------------------------------------


class PrivateTarget(Exception):
    """The name stands for an address that is not public."""


class Resolver(Protocol):
    """Turns a host's name into its addresses."""

    async def __call__(self, host: str, port: int) -> list[str]:
        """The addresses, best first; raises OSError where there are none."""


async def _resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_public(text: str) -> bool:
    """Tell whether an IP address belongs to the open Internet, also where it wraps another one.

    Not public are loopback, private, link-local (the metadata services of clouds), shared, reserved,
    multicast and unspecified addresses, and IPv6 addresses that carry such an IPv4 address (mapped,
    6to4, Teredo, NAT64, compatible).
    """
    try:
        address: Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.is_site_local:
        return False
    return all(one.is_global and not one.is_multicast for one in (address, *_carried(address)))


def _carried(address: Address) -> list[Address]:
    if isinstance(address, ipaddress.IPv4Address):
        return []
    carried: list[Address] = []
    if address.ipv4_mapped is not None:
        carried.append(address.ipv4_mapped)
    if address.sixtofour is not None:
        carried.append(address.sixtofour)
    if address.teredo is not None:
        carried.extend(address.teredo)
    if any(address in network for network in _CARRIERS):
        carried.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return carried


def is_private_literal(url: str) -> bool:
    """Tell whether an address names, as it is written, something that is not public.

    It says so early and clearly; what counts is where a name leads to when it is connected to.
    """
    host = (urlsplit(url).hostname or "").rstrip(".").lower()
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        # 127.1, 0x7f.1 and 2130706433 are addresses to a resolver.
        return host.rpartition(".")[2].removeprefix("0x").isdigit()
    return not is_public(host)


class _Backend(httpcore.AsyncNetworkBackend):
    """Connects to the addresses that it has looked at, and to no others."""

    def __init__(self, resolve: Resolver, *, public_only: bool) -> None:
        self._resolve = resolve
        self._public_only = public_only
        self._plain = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (the interface of httpcore)
        local_address: str | None = None,
        socket_options: Iterable[SocketOptions] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._resolve(host, port)
        if self._public_only and not (addresses and all(map(is_public, addresses))):
            raise PrivateTarget(f"{host} is not a public address: nothing was sent")
        error: Exception = OSError(f"{host} has no address")
        for address in addresses:
            try:
                return await self._plain.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failed:
                error = failed
        raise error

    async def sleep(self, seconds: float) -> None:
        await self._plain.sleep(seconds)


def _pool(context: ssl.SSLContext, backend: _Backend) -> httpcore.AsyncConnectionPool:
    return httpcore.AsyncConnectionPool(
        ssl_context=context,
        max_connections=CONNECTIONS_MAX,
        max_keepalive_connections=CONNECTIONS_MAX // 2,
        keepalive_expiry=5.0,
        http1=True,
        http2=False,
        network_backend=backend,
    )
