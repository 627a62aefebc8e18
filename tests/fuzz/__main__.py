"""``python -m tests.fuzz radius sip --seconds 600 --seed 1``: fuzz codecs, keep what is found.

Without names, all of them share the time. A finding is written to ``findings/<codec>/``, from where
the tests take it for ever after; the end is 1 then.
"""

from __future__ import annotations

import argparse
import sys

from tests.fuzz.fuzzer import FOLDER, Fuzzer, keep
from tests.fuzz.targets import TARGETS

FINDINGS_MAX = 20


def main() -> int:
    """Fuzz the named codecs one after another."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("codec", nargs="*", help=f"any of: {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long in all")
    parser.add_argument("--seed", type=int, default=1, help="another seed, another search")
    parser.add_argument("--seeds", action="store_true", help="only write the first packets anew")
    options = parser.parse_args()
    names = options.codec or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        parser.error(f"no such codec: {', '.join(sorted(unknown))}")
    if options.seeds:
        return write_seeds(names)
    return max(fuzz(name, options.seconds / len(names), options.seed) for name in names)


def write_seeds(names: list[str]) -> int:
    """Write what our own encoders make."""
    for name in names:
        target = TARGETS[name]
        folder = FOLDER / "seeds" / name
        folder.mkdir(parents=True, exist_ok=True)
        for title, data in target.seeds(target.load()).items():
            (folder / f"{title}.bin").write_bytes(data)
    return 0


def fuzz(name: str, seconds: float, seed: int) -> int:
    """Fuzz one codec; 1 when something was found."""
    fuzzer = Fuzzer(name, TARGETS[name], seed)
    kinds: set[str] = set()
    for finding in (*fuzzer.seeds(), *fuzzer.run(seconds=seconds, most=FINDINGS_MAX)):
        kind = finding.what.split(":")[0]
        if kind not in kinds:
            kinds.add(kind)
            print(f"{name}: {finding.what}\n  {keep(name, finding)}", flush=True)
    print(
        f"{name}: {fuzzer.runs:,} inputs, {len(fuzzer.outcomes)} kinds of outcome, "
        f"{len(kinds)} kinds of finding (seed {seed})",
        flush=True,
    )
    return 1 if kinds else 0


if __name__ == "__main__":
    sys.exit(main())
