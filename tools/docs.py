"""Write the generated pages of docs/reference, or with --check say which are not current.

    python tools/docs.py            write them
    python tools/docs.py --check    change nothing; end with 1 if a page differs

Every page is made from what the program itself uses: the OpenAPI document, the command line, the
tables of reasons and errors, the transition table. So a page cannot say what the code does not do.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

from tollkeeper import errors, settings
from tollkeeper.cli.main import COMMANDS, make_app
from tollkeeper.core.reasons import MEANINGS
from tollkeeper.errors import TollkeeperError
from tollkeeper.servers.api import charging, guard, problems

ROOT = Path(__file__).parents[1]
if not __package__:
    sys.path.insert(0, str(ROOT))  # run as a script

from tools import docs_api, docs_peers, docs_records, docs_states  # noqa: E402 (only now can they be found)
from tools.pages import page, table  # noqa: E402

REFERENCE = ROOT / "docs" / "reference"
SOURCE = ROOT / "src" / "tollkeeper"
# --- cli.md --------------------------------------------------------------------------------------


def cli() -> str:
    """The page of all commands, from the command line itself."""
    app = make_app([])
    for name, (place, _) in COMMANDS.items():
        # Here every command speaks for itself, at full length.
        del app[name]
        app.command(place, name=name)
    text = app.generate_docs(output_format="markdown", recursive=True, heading_level=1)
    body = text.partition("\n")[2].strip().replace("```console", "```text")
    # The usage lines name the module that Python was started with, if it was started with one.
    body = re.sub(r"^(tollkeeper(?: [a-z]+)*) -m [\w.]+", r"\1", body, flags=re.MULTILINE)
    outro = """\
Settings come from the environment or `tollkeeper.toml`; see [settings](settings.md). Every command but
`serve` works on the database directly, so the server need not run. A command ends with 0 when it is
done, 1 on an error, 2 on a wrong set-up, 3 when `verify` found something, 130 when interrupted."""
    return page("Command line", outro, body)


# --- reasons.md ----------------------------------------------------------------------------------


def reasons() -> str:
    """The page of reasons, from core/reasons.py."""
    rows = [
        [
            f"`{reason.value}`" if reason.value else "(empty)",
            about.text,
            str(about.sip),
            str(about.q850),
            str(about.diameter),
            "yes" if about.stop_hunting else "no",
        ]
        for reason, about in MEANINGS.items()
    ]
    intro = """\
Why a session is refused or ended: `reason` in an answer. SIP codes follow RFC 3261, causes ITU-T
Q.850, result codes RFC 8506 section 9. "Stop hunting" means that another route would not help."""
    return page(
        "Reasons",
        intro,
        table(["reason", "says", "SIP", "Q.850", "Diameter", "stop hunting"], rows),
    )


# --- errors.md -----------------------------------------------------------------------------------


def error_page() -> str:
    """The page of error codes, from every place in the source that raises one."""
    found: dict[tuple[int, str], str] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for status, code, text in _raised(ast.parse(path.read_text(encoding="utf-8"))):
            found.setdefault((status, code), text)
    for status, code in problems._CODES.items():  # noqa: SLF001 - the page shows all codes
        found.setdefault((status, code), problems._SENTENCES.get(status, "the body cannot be read"))  # noqa: SLF001
    rows = [
        [str(status), f"`{code}`", text or _PLAIN.get(code, "")]
        for (status, code), text in sorted(found.items())
    ]
    intro = """\
An error is an `application/problem+json` document (RFC 9457):

```json
{"type": "urn:tollkeeper:problem:unknown_party", "title": "Not Found", "status": 404,
 "detail": "there is no party \\"nobody\\"", "code": "unknown_party", "field": "party"}
```

`code` is stable and for programs; `detail` is one sentence for people and may change; `field` names
the field at fault where there is one. A refusal of credit is not an error: it is an answer with status
200 and a [reason](reasons.md). A quote without a price is 404 with the reason as its code.

What to do: 4xx, change the request; 503, send the same request again after `Retry-After` or route the
call elsewhere; 500, something is wrong inside and the log says what. The sentences below are shown as
the code has them, with `...` for what is filled in."""
    return page("Errors", intro, table(["status", "code", "says"], rows))


_OWN = {"TooLarge": charging.TooLarge, "BadJson": charging.BadJson, "WrongType": guard.WrongType}
_INTERNAL = {"SetupError"}
_PLAIN = {"header_missing": "a header that must be given is missing"}


def _error_class(name: str) -> type[TollkeeperError] | None:
    made = _OWN.get(name) or getattr(errors, name, None)
    known = isinstance(made, type) and issubclass(made, TollkeeperError) and name not in _INTERNAL
    return cast("type[TollkeeperError]", made) if known else None


def _raised(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Status, code and sentence of each error that is made, and of each problem that is written."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            code = next((c for c in map(_code_of_class, node.body) if c), None)
            if node.name in _OWN and code:
                yield _OWN[node.name].http_status, code, ast.get_docstring(node) or ""
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = ast.unparse(node.func).rpartition(".")[2]
        given = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
        made = _error_class(name)
        if made is not None and name not in _OWN:
            code = given.get(
                "code", made.code if "code" not in {k.arg for k in node.keywords} else None
            )
            if isinstance(code, str):
                shown = _sentence(node.args[0])
                yield made.http_status, code, shown if "code" in given else (made.__doc__ or "")
        elif name == "problem" and len(node.args) >= 2:
            status, code_node = node.args[0], node.args[1]
            if isinstance(status, ast.Constant) and isinstance(code_node, ast.Constant):
                shown = _sentence(node.args[2]) if len(node.args) > 2 else ""
                yield cast("int", status.value), str(code_node.value), shown


def _code_of_class(node: ast.stmt) -> str | None:
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "code":
        return str(ast.literal_eval(node.value))
    return None


def _sentence(node: ast.expr) -> str:
    """The text of a message, with ... where something is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        parts = [str(v.value) if isinstance(v, ast.Constant) else "..." for v in node.values]
        return re.sub(r"(\.\.\.){2,}", "...", "".join(parts))
    if isinstance(node, ast.BinOp):
        return _sentence(node.left) + _sentence(node.right)
    return ""


# --- writing -------------------------------------------------------------------------------------


PAGES: dict[str, Callable[[], str]] = {
    "http-api.md": docs_api.http_api,
    "cli.md": cli,
    "settings.md": settings.reference,
    "reasons.md": reasons,
    "errors.md": error_page,
    "session-states.md": docs_states.session_states,
    "cdr-formats.md": docs_records.cdr_formats,
    "peer-options.md": docs_peers.peer_options,
}


def outdated() -> list[str]:
    """Names of the pages that are not what would be written now."""
    return [
        name
        for name, make in PAGES.items()
        if not (REFERENCE / name).is_file() or (REFERENCE / name).read_text("utf-8") != make()
    ]


def main(arguments: list[str]) -> int:
    """Write the pages, or check them."""
    names = outdated()
    if "--check" in arguments:
        sys.stdout.write("".join(f"docs/reference/{name} is not current\n" for name in names))
        return 1 if names else 0
    for name in names:
        (REFERENCE / name).write_text(PAGES[name](), "utf-8")
        sys.stdout.write(f"wrote docs/reference/{name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
