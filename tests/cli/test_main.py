"""The command line as a user meets it: what it does, and what it says when it cannot."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import Command
from tollkeeper.cli import main
from tollkeeper.cli.serve import bind
from tollkeeper.errors import InvalidInput, SetupError

DEADLINE_SECONDS = 60


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InvalidInput("amount: it must be more than zero"), 1, "amount: it must be more than zero"),
        (SetupError("The data folder is closed."), 2, "The data folder is closed."),
        (ZeroDivisionError("by zero"), 1, "ZeroDivisionError: by zero"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_whatever_goes_wrong_is_one_sentence_and_an_exit_code(
    tollkeeper: Command,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    said: str,
) -> None:
    """No traceback is ever shown; an interrupt says nothing at all."""

    def fail(_database: object) -> None:
        raise error

    monkeypatch.setattr("tollkeeper.cli.wallet.run", fail)
    ran = tollkeeper("wallet", "show", "acme")
    assert ran.code == code
    assert ran.out == ""
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert len(ran.err.strip().splitlines()) == (1 if said else 0)


def test_a_wrong_setting_ends_with_2_and_names_it(
    tollkeeper: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The installation is wrong, not the command."""
    monkeypatch.setenv("TOLLKEEPER_PROT", "8080")
    ran = tollkeeper("party", "list")
    assert ran.code == 2
    assert "TOLLKEEPER_PROT" in ran.err


def test_a_database_that_is_not_there_ends_with_2(
    tollkeeper: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing listens on port 1."""
    monkeypatch.setenv("TOLLKEEPER_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    ran = tollkeeper("party", "list")
    assert ran.code == 2
    assert "cannot be reached" in ran.err


def test_an_unknown_option_is_named_without_a_traceback(tollkeeper: Command) -> None:
    """The parser's own errors are for people, too."""
    ran = tollkeeper("party", "list", "--limitt", "3")
    assert ran.code != 0
    assert "--limitt" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("name", sorted(main.COMMANDS))
def test_every_command_is_listed_and_explains_itself(tollkeeper: Command, name: str) -> None:
    """``tollkeeper --help`` names it, and its own help says more."""
    listed = tollkeeper("--help")
    assert listed.code == 0
    assert re.search(rf"│ {name} +\w", listed.out)
    ran = tollkeeper(name, "--help")
    assert ran.code == 0
    assert f"Usage: tollkeeper {name}" in ran.out


# --- parties, wallets, keys ----------------------------------------------------------------------


def test_a_customer_is_created_with_its_wallet_and_shown(
    tollkeeper: Command, on_database: str
) -> None:
    """One command makes party, wallet and first payment; others show and change them."""
    assert tollkeeper("plan", "create", "gold", "--name", "Gold").code == 0
    made = tollkeeper(
        "party", "create", "acme", "--plan", "gold", "--currency", "USD", "--top-up", "12.5"
    )
    assert made.code == 0, made.err
    assert "gold" in tollkeeper("party", "list").out
    assert re.search(
        r"USD\s+12\.50\s+0\.00\s+0\.00\s+0\.00\s+12\.50", tollkeeper("wallet", "show", "acme").out
    )

    assert tollkeeper("wallet", "topup", "acme", "USD", "7.25", "--reason", "bank").code == 0
    limited = tollkeeper("wallet", "limit", "acme", "USD", "100")
    assert re.search(r"USD\s+19\.75\s+100\.00\s+100\.00\s+0\.00\s+119\.75", limited.out)
    told = tollkeeper("wallet", "statement", "acme", "USD").out
    assert "first top-up" in told
    assert "bank" in told
    assert "opening 0.00, closing 19.75" in told


def test_a_wallet_is_parked_and_unparked_with_a_reason(
    tollkeeper: Command, on_database: str
) -> None:
    """Without a reason nothing happens; doctor names what is parked and the way out."""
    tollkeeper("party", "create", "acme", "--currency", "USD")
    assert tollkeeper("wallet", "park", "acme", "USD").code != 0
    assert "parked" not in tollkeeper("wallet", "show", "acme").out
    parked = tollkeeper("wallet", "park", "acme", "USD", "--reason", "case 812")
    assert parked.code == 0, parked.err
    assert "parked" in parked.out
    assert "wallet unpark" in tollkeeper("doctor").out
    assert tollkeeper("wallet", "unpark", "acme", "USD", "--reason", "checked").code == 0
    assert "parked" not in tollkeeper("wallet", "show", "acme").out
    assert tollkeeper("wallet", "park", "acme", "EUR", "--reason", "x").code == 1


def test_a_party_that_cannot_have_its_wallet_is_not_created(
    tollkeeper: Command, on_database: str
) -> None:
    """A wrong currency leaves nothing behind."""
    ran = tollkeeper("party", "create", "acme", "--currency", "dollars")
    assert ran.code == 1
    assert "currency" in ran.err
    assert tollkeeper("wallet", "show", "acme").code == 1


@pytest.mark.parametrize("amount", ["-5", "NaN", "1e400", "0", "0.000000001", "five"])
def test_money_that_is_no_money_is_refused(
    tollkeeper: Command, on_database: str, amount: str
) -> None:
    """Nothing is posted, and the sentence says which field is wrong."""
    tollkeeper("party", "create", "acme", "--currency", "USD")
    ran = tollkeeper("wallet", "topup", "acme", "USD", f"--amount={amount}")
    assert ran.code == 1
    assert "amount" in ran.err
    assert "closing 0.00" in tollkeeper("wallet", "statement", "acme", "USD").out


def test_a_party_is_changed_field_by_field(tollkeeper: Command, on_database: str) -> None:
    """What is not named stays; a limit can be taken away; nothing named is an error."""
    tollkeeper("party", "create", "acme", "--max-sessions", "5", "--max-cps", "3")
    assert "suspended" in tollkeeper("party", "set", "acme", "--status", "suspended").out
    changed = tollkeeper(
        "party", "set", "acme", "--unlimited", "max_sessions", "--tech-prefix", "77#"
    )
    assert changed.code == 0, changed.err
    assert re.search(
        r"acme\s+acme\s+customer\s+suspended\s+3\s+14400", tollkeeper("party", "list").out
    )
    nothing = tollkeeper("party", "set", "acme")
    assert nothing.code == 1
    assert "nothing to change" in nothing.err


def test_a_plan_takes_its_cards_in_order(tollkeeper: Command, on_database: str) -> None:
    """Kinds are written behind a colon; an unknown card is refused."""
    for card in ("BASE", "OFFER"):
        assert tollkeeper("rates", "create", card, "--currency", "USD").code == 0
    made = tollkeeper("plan", "create", "gold", "--card", "BASE", "--card", "OFFER:promotion")
    assert made.code == 0, made.err
    assert "OFFER (promotion), BASE (plan)" in tollkeeper("plan", "list").out
    assert "BASE (plan)" in tollkeeper("plan", "set", "gold", "--card", "BASE").out
    assert tollkeeper("plan", "set", "gold", "--card", "NONE").code == 1


def test_the_secret_of_a_key_is_alone_on_standard_output(
    tollkeeper: Command, on_database: str
) -> None:
    """So that it can be piped to where it belongs; it is never shown again."""
    made = tollkeeper("key", "create", "pbx", "--scope", "charge", "--scope", "read")
    secret = made.out.strip()
    assert re.fullmatch(r"tk_[A-Za-z0-9_-]{43}", secret)
    listed = tollkeeper("key", "list")
    assert "charge, read" in listed.out
    assert secret not in listed.out
    assert tollkeeper("key", "revoke", "1").code == 0
    assert "revoked" in tollkeeper("key", "list").out


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("ftp://switch.example/kill", None),
        ("nowhere", None),
        ("https://switch.example/kill", "short"),
        ("https://switch.example/kill", "whsec_AAAA"),
    ],
)
def test_a_switch_with_a_wrong_address_or_secret_is_refused(
    tollkeeper: Command, on_database: str, url: str, secret: str | None
) -> None:
    """The address must be one that can be posted to, the secret one that signs."""
    extra = ["--secret", secret] if secret else []
    ran = tollkeeper("switch", "set", "sw1", "--kill-url", url, *extra)
    assert ran.code == 1
    assert "kill_url" in ran.err or "secret" in ran.err


def test_a_switch_gets_a_secret_of_its_own(tollkeeper: Command, on_database: str) -> None:
    """It is shown once, in the form of Standard Webhooks."""
    ran = tollkeeper("switch", "set", "sw1", "--kill-url", "https://switch.example/kill")
    assert ran.code == 0
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", ran.out.strip())


# --- price ---------------------------------------------------------------------------------------


def test_a_price_comes_with_its_arithmetic(
    tollkeeper: Command, on_database: str, tmp_path: Path
) -> None:
    """By card and by party; a number that nobody sells is an error, never a price of 0."""
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("Code,Destination,Rate,Increments\n4915,Germany Mobile,0.0190,60/1\n")
    tollkeeper("rates", "create", "SELL", "--currency", "USD")
    imported = tollkeeper("rates", "import", str(sheet), "--card", "SELL")
    assert imported.code == 0, imported.err
    assert tollkeeper("rates", "activate", "SELL", "1").code == 0
    tollkeeper("plan", "create", "gold", "--card", "SELL")
    tollkeeper("party", "create", "acme", "--plan", "gold")
    for whose in (("--card", "SELL"), ("--party", "acme")):
        ran = tollkeeper("price", "+49 151 2345678", *whose, "--seconds", "61")
        assert ran.code == 0, ran.err
        assert "prefix 4915" in ran.out
        assert "60 s x 0.019/min + 1 x 1 s x 0.019/min" in ran.out
        assert "0.019317 USD" in ran.out
    assert tollkeeper("price", "33123456789", "--card", "SELL").code == 1
    assert tollkeeper("price", "49151", "--seconds", "-1", "--card", "SELL").code == 1


# --- migrate and serve ---------------------------------------------------------------------------


def test_a_given_database_is_migrated_only_when_asked(
    tollkeeper: Command, monkeypatch: pytest.MonkeyPatch, empty_database_url: str
) -> None:
    """Commands refuse an old schema and say what to do; migrating twice does nothing more."""
    monkeypatch.setenv("TOLLKEEPER_DATABASE_URL", empty_database_url)
    refused = tollkeeper("party", "list")
    assert refused.code == 2
    assert "tollkeeper migrate" in refused.err
    assert "migrations applied" in tollkeeper("migrate").out
    assert "nothing to do" in tollkeeper("migrate").out
    assert tollkeeper("party", "list").code == 0


def test_a_taken_port_is_said_before_anything_is_started(
    tollkeeper: Command, on_database: str
) -> None:
    """Another program listens there already."""
    with bind("127.0.0.1", 0) as taken:
        before = signal.getsignal(signal.SIGTERM)
        ran = tollkeeper("serve", "--port", str(taken.getsockname()[1]))
        signal.signal(signal.SIGTERM, before)
    assert ran.code == 2
    assert "Cannot listen" in ran.err


Server = Callable[..., tuple[subprocess.Popen[str], str]]


@pytest.fixture
def start_server(on_database: str, tmp_path: Path) -> Iterator[Server]:
    """Start ``tollkeeper serve`` on a free port; gives the process and its address."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> tuple[subprocess.Popen[str], str]:
        log = tmp_path / f"serve{len(started)}.log"
        with log.open("w") as sink:
            command = [sys.executable, "-m", "tollkeeper", "serve", "--port", "0", *arguments]
            process = subprocess.Popen(command, stdout=sink, stderr=sink, text=True)
        started.append(process)
        address = _wait(process, lambda: re.search(r"http://[0-9.:]+", log.read_text()), log)
        url = address[0]

        def healthy() -> bool:
            try:
                return httpx.get(f"{url}/healthz").status_code == 200
            except httpx.TransportError:
                return False

        _wait(process, healthy, log)
        return process, log.read_text()

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def _wait(process: subprocess.Popen[str], condition: Callable[[], object], log: Path) -> object:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        if (found := condition()) or process.poll() is not None:
            assert found, log.read_text()
            return found
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def test_the_server_says_how_to_begin_and_stops_in_good_order(
    start_server: Server, tollkeeper: Command
) -> None:
    """On an empty database it says how a key is made; SIGTERM is an ordinary end."""
    process, said = start_server()
    assert "tollkeeper key create" in said
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_SECONDS) == 0
    tollkeeper("key", "create", "pbx", "--scope", "charge")
    process, said = start_server()
    assert "tollkeeper key create" not in said
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE_SECONDS) == 0


def test_several_workers_answer_with_one_set_of_metrics(
    start_server: Server, tollkeeper: Command
) -> None:
    """Whichever process is asked counts for all of them."""
    token = tollkeeper("key", "create", "admin", "--scope", "manage").out.strip()
    process, said = start_server("--workers", "2")
    url = re.search(r"http://[0-9.:]+", said)[0]  # type: ignore[index]
    headers = {"authorization": f"Bearer {token}"}
    question = {"party": "nobody", "called": "491512345678"}
    for _ in range(24):  # a new connection each time, so that both processes are asked
        assert httpx.post(f"{url}/v1/quote", json=question, headers=headers).status_code == 404
    for _ in range(6):
        page = httpx.get(f"{url}/metrics", headers=headers).text
        assert 'tollkeeper_charging_answers_total{action="quote",status="404"} 24.0' in page
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_SECONDS) == 0


def test_the_program_can_be_run_as_a_module() -> None:
    """``python -m tollkeeper`` is the same program."""
    ran = subprocess.run(
        [sys.executable, "-m", "tollkeeper", "--version"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+", ran.stdout.strip())
