"""The program ``tollkeeper``: its commands, and the one place where errors become sentences."""

from __future__ import annotations

import os
import sys
import traceback
from importlib.metadata import version

from cyclopts import App, Parameter

from tollkeeper.cli.common import console
from tollkeeper.errors import SetupError, TollkeeperError

EXIT_ERROR = 1
EXIT_SETUP = 2
EXIT_INTERRUPTED = 130

# Named, not imported: a command loads only what it needs, so that each starts at once, and the list
# of commands is shown without loading any.
COMMANDS = {
    "serve": ("tollkeeper.cli.serve:serve", "Run the server."),
    "demo": ("tollkeeper.cli.demo:demo", "Watch simulated calls being charged, and the proof."),
    "doctor": ("tollkeeper.cli.doctor:doctor", "Say what is wrong with this set-up."),
    "migrate": ("tollkeeper.cli.serve:migrate", "Bring the database to this release."),
    "rates": ("tollkeeper.cli.rates:app", "Rate cards: import, compare, activate, look up."),
    "price": ("tollkeeper.cli.price:price", "Price a call, with the arithmetic."),
    "charge": ("tollkeeper.cli.price:charge", "Charge a message, a lookup or a fee by hand."),
    "cdr": ("tollkeeper.cli.cdr:app", "Call records: rate files, mend, re-rate, search."),
    "peer": ("tollkeeper.cli.peers:peer_app", "Switches and other peers: add, list, change."),
    "credential": (
        "tollkeeper.cli.peers:credential_app",
        "User names that may call, and who pays.",
    ),
    "trunk": ("tollkeeper.cli.trunks:app", "By what a record's customer or vendor is known."),
    "reconcile": (
        "tollkeeper.cli.reconcile:reconcile",
        "Compare a partner's file with our records.",
    ),
    "party": ("tollkeeper.cli.parties:party_app", "Customers, resellers, vendors."),
    "plan": ("tollkeeper.cli.parties:plan_app", "Rate plans: what customers are sold by."),
    "zone": ("tollkeeper.cli.plan_terms:zone_app", "Zones: destinations under one name."),
    "time-profile": ("tollkeeper.cli.plan_terms:profile_app", "Hours of the week, for plans."),
    "fx": ("tollkeeper.cli.fx:app", "Exchange rates: set, import, show."),
    "nanp": ("tollkeeper.cli.fx:nanp_app", "Where North American office codes lie."),
    "package": ("tollkeeper.cli.packages:app", "Packages: buy, list, let end."),
    "wallet": ("tollkeeper.cli.wallet:app", "A party's money: show, top up, bound, statement."),
    "vouchers": ("tollkeeper.cli.vouchers:app", "Vouchers: make, list, redeem, block."),
    "cards": ("tollkeeper.cli.cards:app", "Calling cards: make, list, block, access."),
    "commissions": (
        "tollkeeper.cli.commissions:app",
        "What parties earn by what is sold through them.",
    ),
    "key": ("tollkeeper.cli.keys:key_app", "API keys: create, list, revoke."),
    "webhook": ("tollkeeper.cli.webhooks:app", "Webhooks: add, try, list deliveries."),
    "switch": ("tollkeeper.cli.keys:switch_app", "Where switches take the request to end a call."),
    "connect": ("tollkeeper.cli.connect:app", "Make the files that connect a switch."),
    "suppliers": ("tollkeeper.cli.suppliers:app", "Outside suppliers: add, list, change, try."),
    "purchases": ("tollkeeper.cli.purchases:app", "Orders at suppliers: list, show, resolve."),
    "esims": ("tollkeeper.cli.esims:app", "eSIM profiles: order, activate, list, give back."),
    "numbers": ("tollkeeper.cli.dids:app", "Telephone numbers: import, search, order, release."),
    "fees": ("tollkeeper.cli.fees:app", "Fees: once, or every day, week or month."),
    "explain": ("tollkeeper.cli.books:explain", "Explain a call's charge."),
    "verify": ("tollkeeper.cli.books:verify", "Prove the books."),
    "bench": ("tollkeeper.cli.bench.run:app", "Measure, and write bench.json."),
}


def make_app(arguments: list[str]) -> App:
    """The program's commands; the one that is asked for speaks for itself, at full length."""
    app = App(
        name="tollkeeper",
        help="Billing and real-time charging for wholesale telecom carriers.",
        version=lambda: version("tollkeeper"),
        default_parameter=Parameter(negative_iterable=()),
        suppress_keyboard_interrupt=False,
    )
    for name, (place, summary) in COMMANDS.items():
        if arguments[:1] == [name]:
            app.command(place, name=name)
        else:
            app.command(place, name=name, help=summary)
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run one command and end the program: 0 done, 1 an error, 2 a wrong set-up, 130 interrupted."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run one command; whatever goes wrong is one sentence on standard error."""
    try:
        result = make_app(arguments)(arguments, result_action="return_value")
        sys.stdout.flush()
    except TollkeeperError as error:
        _tell(error.detail)
        return EXIT_SETUP if isinstance(error, SetupError) else EXIT_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has had enough; Python must not complain about it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except Exception as error:  # noqa: BLE001 - a user gets a sentence, never a traceback
        if os.environ.get("TOLLKEEPER_LOG_LEVEL") == "debug":
            traceback.print_exc()
        _tell(
            f"something went wrong inside ({type(error).__name__}: {error}); "
            "TOLLKEEPER_LOG_LEVEL=debug shows where"
        )
        return EXIT_ERROR
    return result if isinstance(result, int) else 0


def _tell(text: str) -> None:
    console(stderr=True).print(f"tollkeeper: {text}", style="red", markup=False, soft_wrap=True)
