"""The program ``tollkeeper``: its commands, and the one place where errors become sentences."""

from __future__ import annotations

import os
import sys
import traceback
from importlib.metadata import version
from importlib.util import find_spec

from cyclopts import App, Parameter

from tollkeeper.cli.common import console
from tollkeeper.errors import SetupError, TollkeeperError

EXIT_ERROR = 1
EXIT_SETUP = 2
EXIT_INTERRUPTED = 130

app = App(
    name="tollkeeper",
    help="Billing and real-time charging for wholesale telecom carriers.",
    version=lambda: version("tollkeeper"),
    default_parameter=Parameter(negative_iterable=()),
    suppress_keyboard_interrupt=False,
)

# Named, not imported: a command loads only what it needs, so that each starts at once.
_COMMANDS = {
    "serve": "tollkeeper.cli.serve:serve",
    "demo": "tollkeeper.cli.demo:demo",
    "doctor": "tollkeeper.cli.doctor:doctor",
    "migrate": "tollkeeper.cli.serve:migrate",
    "rates": "tollkeeper.cli.rates:app",
    "price": "tollkeeper.cli.price:price",
    "party": "tollkeeper.cli.parties:party_app",
    "plan": "tollkeeper.cli.parties:plan_app",
    "wallet": "tollkeeper.cli.wallet:app",
    "key": "tollkeeper.cli.keys:key_app",
    "switch": "tollkeeper.cli.keys:switch_app",
    "explain": "tollkeeper.cli.books:explain",
    "verify": "tollkeeper.cli.books:verify",
    "bench": "tollkeeper.cli.bench:app",
}
for _name, _place in _COMMANDS.items():
    if find_spec(_place.partition(":")[0]) is not None:
        app.command(_place, name=_name)


def main(arguments: list[str] | None = None) -> None:
    """Run one command and end the program: 0 done, 1 an error, 2 a wrong set-up, 130 interrupted."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run one command; whatever goes wrong is one sentence on standard error."""
    try:
        result = app(arguments, result_action="return_value")
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
