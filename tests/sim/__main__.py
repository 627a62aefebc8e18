"""``python -m tests.sim --seconds 60``: seed after seed; the first that breaks is printed."""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback

from tests.sim.simulation import Simulation


def main() -> int:
    """Run seeds for a while, or the one that is named; 1 when one of them breaks."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to run new seeds")
    parser.add_argument("--seed", type=int, help="run this one only")
    options = parser.parse_args()
    first = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    end = time.monotonic() + options.seconds
    facts: dict[str, int] = {}
    seed, runs = first, 0
    while True:
        simulation = Simulation(seed)
        try:
            print_of_run = simulation.run()
        except Exception:  # noqa: BLE001 - whatever broke, its seed is told
            traceback.print_exc()
            print(f"\nseed {seed} broke; its plan: {simulation.plan}")
            print(f"replay it with: python -m tests.sim --seed {seed}")
            return 1
        runs += 1
        for fact, count in simulation.facts.items():
            facts[fact] = facts.get(fact, 0) + count
        if options.seed is not None:
            print(f"seed {seed}: {print_of_run}")
            break
        seed += 1
        if time.monotonic() >= end:
            break
    for fact in sorted(facts):
        print(f"{facts[fact]:9,}  {fact}")
    print(f"{runs} runs from seed {first} on: all guarantees held, every call was closed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
