"""The client that posts events: signed, bounded, and kept out of our own network where it is a party's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from standardwebhooks.webhooks import Webhook

from tollkeeper.gateways import webhook
from tollkeeper.gateways.webhook import HttpWebhook, Outcome, Post, is_private_literal, is_public

SECRETS = ("whsec_" + "A" * 32, "whsec_" + "B" * 32)
BODY = b'{"type":"session.ended"}'
NOW = datetime.now(UTC).replace(microsecond=0)


def post(url: str, *, public_only: bool = False) -> Post:
    """An event for an address."""
    return Post(url, SECRETS, "evt_1", BODY, public_only)


@asynccontextmanager
async def answering(answer: bytes, *, hang: bool = False) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers so, and the requests that it got."""
    seen: list[bytes] = []
    tasks: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task: asyncio.Task[None] | None = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(head + await reader.readexactly(len(BODY)))
        writer.write(answer)
        try:
            await writer.drain()
            if hang:
                await reader.read()
            writer.close()
            await writer.wait_closed()
        except ConnectionError:
            pass

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen
        await asyncio.wait_for(asyncio.gather(*tasks), 10)


async def sent(wanted: Post, **options: object) -> Outcome:
    """What came of one post."""
    gateway = HttpWebhook(**options)  # type: ignore[arg-type]
    try:
        return await gateway.send(wanted, NOW)
    finally:
        await gateway.close()


async def test_each_secret_signs_and_the_name_and_path_are_sent_as_they_are() -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    async with answering(answer) as (url, seen):
        port = url.rpartition(":")[2]

        async def loopback(host: str, _port: int) -> list[str]:
            assert host == "billing.example"
            return ["127.0.0.1"]

        outcome = await sent(post(f"http://billing.example:{port}/a?b=c"), resolve=loopback)
    assert (outcome.delivered, outcome.status, outcome.error) == (True, 200, "")
    head, _, body = seen[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /a?b=c HTTP/1.1"
    headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines[1:])}
    assert headers["host"] == f"billing.example:{port}"
    for secret in SECRETS:
        assert Webhook(secret).verify(body, headers) == {"type": "session.ended"}


@pytest.mark.parametrize(
    ("answer", "status", "pause"),
    [
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n", 302, 0),
        (b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n", 410, 0),
        (b"HTTP/1.1 503 No\r\nretry-after: 77\r\ncontent-length: 0\r\n\r\n", 503, 77),
        (b"HTTP/1.1 429 No\r\nretry-after: " + b"9" * 400 + b"\r\ncontent-length: 0\r\n\r\n", 429, 86_400),
        (b"HTTP/1.1 429 No\r\nretry-after: -5\r\ncontent-length: 0\r\n\r\n", 429, 0),
        (b"HTTP/1.1 429 No\r\nretry-after: \xff soon\r\ncontent-length: 0\r\n\r\n", 429, 0),
    ],
)  # fmt: skip
async def test_all_but_2xx_is_a_failure_and_nothing_is_followed(
    answer: bytes, status: int, pause: int
) -> None:
    async with answering(answer) as (url, seen):
        outcome = await sent(post(url))
    assert (outcome.delivered, outcome.status, outcome.retry_after) == (False, status, pause)
    assert outcome.error == f"answered {status}"
    assert len(seen) == 1


def test_retry_after_may_be_a_date() -> None:
    later = format_datetime(NOW + timedelta(seconds=90), usegmt=True).encode()
    assert webhook.retry_after([(b"Retry-After", later)], NOW) == 90
    earlier = format_datetime(NOW - timedelta(days=9), usegmt=True).encode()
    assert webhook.retry_after([(b"Retry-After", earlier)], NOW) == 0


@pytest.mark.parametrize(
    "answer",
    [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 999999 X\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx",
     b"\x00" * 200_000],
)  # fmt: skip
async def test_what_is_no_answer_is_a_failure(answer: bytes) -> None:
    async with answering(answer) as (url, _):
        outcome = await sent(post(url))
    assert (outcome.status, outcome.delivered) == (None, False)
    assert outcome.error


async def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    """64 MB are offered; the status is enough."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 67108864\r\n\r\n"
    async with answering(head + b"x" * 1_000_000, hang=True) as (url, _):
        outcome = await sent(post(url))
    assert outcome.delivered


async def test_who_does_not_answer_in_time_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "TIMEOUT_SECONDS", 0.2)
    async with answering(b"HTTP/1.1 2", hang=True) as (url, seen):
        outcome = await sent(post(url))
    assert outcome == Outcome(None, "no answer within 0 s")
    assert len(seen) == 1


@pytest.mark.parametrize(
    "url",
    ["https://localhost:1/", "http://no-such-name.invalid/", "http://[", "http://x:99999/", "ftp://127.0.0.1/",
     "https://127.0.0.1:1/"],
)  # fmt: skip
async def test_an_address_that_leads_nowhere_is_an_outcome(url: str) -> None:
    outcome = await sent(post(url))
    assert outcome.status is None
    assert outcome.error


# --- our own network -----------------------------------------------------------------------------

INSIDE = [
    "127.0.0.1",
    "127.9.9.9",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fec0::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2001:db8::1",
    "name",
]
OUTSIDE = ("8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808")


def test_which_addresses_are_public() -> None:
    assert [address for address in INSIDE if is_public(address)] == []
    assert [address for address in OUTSIDE if not is_public(address)] == []


@pytest.mark.parametrize("address", [*INSIDE[:8], "::1", "::ffff:127.0.0.1"])
async def test_a_name_that_stands_for_something_inside_is_not_connected_to(address: str) -> None:
    """Also where one of its addresses is public: the other could be tried instead."""
    async with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n") as (url, seen):

        async def resolve(_host: str, _port: int) -> list[str]:
            return ["8.8.8.8", address]

        there = url.replace("127.0.0.1", "rebind.example")
        outcome = await sent(post(there, public_only=True), resolve=resolve)
        assert outcome.error == "rebind.example is not a public address: nothing was sent"
        assert seen == []


async def test_what_was_looked_at_is_what_is_connected_to() -> None:
    """A name that is public when it is looked at and ours when it is connected to leads to the first."""
    asked: list[str] = []

    async def resolve(host: str, _port: int) -> list[str]:
        asked.append(host)
        return ["203.0.113.1"] if len(asked) > 1 else ["127.0.0.1"]

    async with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n") as (url, _):
        outcome = await sent(post(url.replace("127.0.0.1", "once.example")), resolve=resolve)
    assert outcome.delivered
    assert asked == ["once.example"]


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("https://127.0.0.1/", True),
        ("https://127.1/", True),
        ("https://2130706433/", True),
        ("https://[::1]:8443/", True),
        ("https://LOCALHOST./", True),
        ("https://db.internal/", True),
        ("https://billing.example/", False),
        ("https://8.8.8.8/", False),
    ],
)
def test_what_is_inside_as_it_is_written_is_said_at_once(url: str, private: bool) -> None:
    assert is_private_literal(url) is private
