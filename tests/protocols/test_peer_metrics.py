"""The numbers of a peer, as a running server shows them at /metrics, under the names in the reference."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.protocols.test_bad_input import say
from tests.protocols.town import Town, town
from tests.support import UNSOLD, until
from tollkeeper.telemetry import REGISTRY
from tollkeeper.wire.radius.attributes import Type, text
from tollkeeper.wire.radius.packet import Code

PAGE = Path(__file__).parents[2] / "docs/reference/metrics.md"


@pytest.fixture
async def place(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Town]:
    async with town(database_url, monkeypatch) as made:

        async def key_is_known() -> bool:
            return (await asked(made)).status_code == 200

        await until(key_is_known, what="the server has heard of the key")
        yield made


async def asked(place: Town) -> httpx.Response:
    """What /metrics answers."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{place.http}") as web:
        return await web.get("/metrics", headers={"Authorization": f"Bearer {place.token}"})


async def scrape(place: Town) -> dict[str, float]:
    """The series of /metrics."""
    answer = await asked(place)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def test_each_peer_has_its_requests_refusals_latencies_and_faults(place: Town) -> None:
    """One granted call, one refused, one sent twice, one malformed: each moves its own number by one."""
    before = await scrape(place)
    await place.radius()
    refused = [text(Type.USER_NAME, "gw"), text(Type.CALLED_STATION_ID, UNSOLD)]
    answer = await place.nas.ask([*refused, text(Type.ACCT_SESSION_ID, "unsold")])
    assert answer.packet.code == Code.ACCESS_REJECT
    await place.nas.again()
    await say(place.doors["radius_auth"], b"\x01\x02")

    async def grew() -> dict[str, float]:
        after = await scrape(place)
        return {name: after[name] - before.get(name, 0) for name in after}

    malformed = 'tollkeeper_peer_faults_total{fault="malformed",peer="nas",protocol="radius"}'

    async def counted() -> bool:
        return (await grew()).get(malformed) == 1

    await until(counted, what="the malformed packet is counted")
    found = await grew()

    def requests(action: str, outcome: str) -> float:
        labels = f'action="{action}",outcome="{outcome}",peer="nas",protocol="radius"'
        return found.get(f"tollkeeper_peer_requests_total{{{labels}}}", 0)

    assert requests("authorise", "granted") == 1
    assert requests("authorise", "refused") == 1
    assert requests("start", "active") == 1
    assert requests("stop", "closed") == 1
    assert found['tollkeeper_peer_refusals_total{peer="nas",reason="no_rate"}'] == 1
    duplicate = 'tollkeeper_peer_faults_total{fault="duplicate",peer="nas",protocol="radius"}'
    assert found[duplicate] == 1
    series = 'peer="nas",protocol="radius"'
    assert found[f"tollkeeper_peer_seconds_count{{{series}}}"] == 4
    assert found[f"tollkeeper_peer_seconds_sum{{{series}}}"] > 0
    assert found[f'tollkeeper_peer_seconds_bucket{{le="+Inf",{series}}}'] == 4
    for peer, protocol in (("fs", "freeswitch"), ("ast", "asterisk"), ("kam", "kamailio")):
        up = f'tollkeeper_peer_connections{{peer="{peer}",protocol="{protocol}"}}'
        assert (await scrape(place))[up] == 1


def test_the_reference_names_each_metric_and_no_other() -> None:
    import tollkeeper.jobs.webhooks
    import tollkeeper.services.streams  # noqa: F401 - they have metrics of their own

    made = {
        f"{metric.name}_total" if metric.type == "counter" else metric.name
        for metric in REGISTRY.collect()
    }
    told = set(re.findall(r"tollkeeper_[a-z_]+", PAGE.read_text("utf-8")))
    told = {re.sub(r"_(bucket|count|sum)$", "", name) for name in told}
    assert told == {name for name in made if name.startswith("tollkeeper_")}
