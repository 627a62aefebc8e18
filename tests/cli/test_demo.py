"""A short run of the demonstration, as a newcomer starts it: without a terminal, on the real server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from decimal import Decimal

import httpx
import psycopg
import pytest

from tests.cli.conftest import Command
from tollkeeper.cli.demo.run import DATABASE
from tollkeeper.store.embedded import EmbeddedPostgres, drop_database, with_database


@pytest.mark.slow
def test_a_short_run_drains_a_wallet_and_proves_the_books(
    tollkeeper: Command, postgres_server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with 0, everything was seen, and the database that was kept says the same."""
    monkeypatch.setenv("TOLLKEEPER_DATABASE_URL", postgres_server.url)
    ran = tollkeeper(
        "demo",
        "--seconds",
        "4",
        "--speed",
        "40",
        "--calls-per-second",
        "40",
        "--seed",
        "7",
        "--keep",
    )
    try:
        assert ran.code == 0, ran.out + ran.err
        assert "Traceback" not in ran.out + ran.err
        # The deck went in by the ordinary import, and every row is accounted for.
        rows = re.search(r"world\.csv: (\d+) rows in = (\d+) stored \+ (\d+) refused", ran.out)
        assert rows is not None
        assert int(rows[2]) >= 20_000
        assert int(rows[1]) == int(rows[2]) + int(rows[3])
        assert "increased" in ran.out
        # One wallet ran dry, and the next call was refused for it.
        assert "balance 0.00 USD, held 0.00" in ran.out
        assert '"reason": "insufficient_funds"' in ran.out
        assert "mirage is suspended: its calls end" in ran.out
        # The reseller's customers bought every service, by what was answered.
        assert "quayside pays by its volume of the month: 95 % from minute 1" in ran.out
        assert "larkspur sends 12 messages of 18 segments for 0.81 USD" in ran.out
        assert "message-2 of 2 segments is not delivered: 0.09 USD refunded" in ran.out
        assert "answered by the supplier, network 00101, 0.01 USD" in ran.out
        assert "answered from the cache, network 00101, free" in ran.out
        assert re.search(r"orders the number 44\d+: done, set-up 2.00 USD, the month paid", ran.out)
        # Its margin is what the journal says: 16 segments of 18 - 2 at 0.045 and at 0.03.
        margin = dict(
            re.findall(r"^(\w+) +([\d.]+ +[\d.]+ +[\d.]+) +[\d.]+ %$", ran.out, re.MULTILINE)
        )
        assert margin["sms"].split() == ["0.72", "0.48", "0.24"]
        assert margin["lookup"].split() == ["0.01", "0.006", "0.004"]
        paid, own, left = (Decimal(each) for each in margin["voice"].split())
        assert paid > own > 0
        assert left == paid - own
        # The call that is explained crossed a step of the tier, and two levels paid for it.
        assert "One call, explained: 2 levels pay for it" in ran.out
        assert re.search(r"\(tier volume .*; the step from \d+ s is reached\)", ran.out)
        assert "markup NG-WORLD: cost + 25.00 %" in ran.out
        assert "Leg 1: reseller northgate, wallet in USD" in ran.out
        # All calls were settled, the books hold, one call is explained.
        assert "all is settled" in ran.out
        assert "The books hold" in ran.out
        assert re.search(r"Charge: \d+\.\d+ USD", ran.out)
        assert "tollkeeper serve" in ran.out
        with psycopg.connect(with_database(postgres_server.url, DATABASE)) as connection:
            state = connection.execute(
                "SELECT w.credited - w.debited, w.held, w.live, (SELECT count(*) FROM live_session) "
                "FROM wallet w JOIN party p ON p.id = w.party_id WHERE p.code = 'harbour'"
            ).fetchone()
            assert state == (0, 0, 0, 0)
    finally:
        drop_database(postgres_server.url, DATABASE)


@pytest.mark.slow
def test_an_interrupt_ends_it_quietly_and_leaves_nothing_behind(
    postgres_server: EmbeddedPostgres,
) -> None:
    """Ctrl+C while calls are up: the server of its own is stopped, its database is removed."""
    environment = {**os.environ, "TOLLKEEPER_DATABASE_URL": postgres_server.url}
    with subprocess.Popen(
        [sys.executable, "-m", "tollkeeper", "demo", "--seconds", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        address = None
        for line in process.stdout:
            if found := re.search(r"Calls at .* by (http://[0-9.:]+)", line):
                address = found[1]
                break
        assert address is not None
        assert httpx.get(f"{address}/healthz").status_code == 200
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == ""
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/healthz")
    with psycopg.connect(postgres_server.url) as connection:
        left = connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE])
        assert left.fetchone() is None


def test_options_that_make_no_sense_are_refused_at_once(tollkeeper: Command) -> None:
    """Before anything is loaded or started."""
    for wrong in (("--seconds", "1"), ("--speed", "1000"), ("--calls-per-second", "0")):
        ran = tollkeeper("demo", *wrong)
        assert ran.code != 0
        assert "Traceback" not in ran.err
