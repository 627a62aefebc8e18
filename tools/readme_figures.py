"""Put the figures of bench.json into the table of README.md.

    python tools/readme_figures.py            write the table
    python tools/readme_figures.py --check    change nothing; end with 1 if the table differs

The mark before the table names the run that it shows, so that another run of the benchmarks on
another machine is not mistaken for a wrong table.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BENCH = ROOT / "bench.json"
BLOCK = re.compile(r"<!-- figures: (\w+) -->\n.*?<!-- /figures -->", re.DOTALL)

RUNS = {
    "engine_hot_1": "engine in process, one wallet, 1 in flight",
    "engine_hot_16": "the same, 16 in flight",
    "engine_hot_64": "the same, 64 in flight",
    "engine_hot_256": "the same, 256 in flight",
    "engine_1000_16": "engine in process, 1,000 wallets, 16 in flight",
    "engine_1000_256": "the same, 256 in flight",
    "engine_hot_256_locked_rows": "one wallet, 256 in flight, always decided on locked rows",
    "engine_open_loop_half": "1,000 wallets, random arrivals at half of the maximum",
    "engine_hot_256_commit_4ms_slower": "one wallet, 256 in flight, commits 4 ms slower",
    "baseline_hot_16": "baseline, one wallet, 16 in flight",
    "baseline_hot_256": "baseline, one wallet, 256 in flight",
    "world_single": "one wallet, 256 in flight, beside the next three in one run",
    "world_tree3": "a tree of three levels, three wallets",
    "world_tier": "with a volume tier",
    "world_sms": "messages, one event each",
    "http_16": "over HTTP, 1,000 wallets, 16 connections",
    "http_64": "the same, 64 connections",
    "http_128": "the same, 128 connections",
}
NUMBERS = {
    "engine_vs_baseline_hot": ("engine against baseline, one wallet, 256 in flight", "times"),
    "lookup_us": ("prefix lookup with price among 300,000 prefixes", "microseconds"),
    "import_200k_s": ("200,000 deck rows imported and active", "s"),
    "compile_200k_s": ("the same, read and compiled by a process", "s"),
    "compiled_200k_mib": ("their memory in each process", "MiB"),
    "tree3_vs_single": ("calls with three legs against calls with one", "times"),
    "tier_overhead": ("what a volume tier costs of the rate without one", "of 1"),
    "sms_events_per_s": ("messages on one wallet, in process", "events/s"),
    "radius_rps": ("RADIUS, authentication and accounting mixed, a real server", "requests/s"),
    "radius_p99_ms": ("of it, the 99th percentile", "ms"),
    "radius_codec_us": ("a RADIUS packet read and another written", "microseconds"),
    "radius_codec_library_us": ("the same by pyrad", "microseconds"),
    "diameter_rps": ("Diameter CCR of sessions, a real server", "requests/s"),
    "diameter_p99_ms": ("of it, the 99th percentile", "ms"),
    "diameter_codec_us": ("a CCR read and a CCA written", "microseconds"),
    "diameter_codec_library_us": ("the same by python-diameter", "microseconds"),
    "smpp_mps": ("SMPP, messages charged and passed on to an SMSC", "messages/s"),
    "smpp_p99_ms": ("of it, the 99th percentile", "ms"),
    "smpp_codec_us": ("a submit_sm read and written", "microseconds"),
    "smpp_codec_library_us": ("the same by smpplib", "microseconds"),
    "kamailio_setup_added_ms": ("Kamailio, set-up of a call at 50 calls/s: added by asking", "ms"),
    "cdr_file_to_db_rows_per_s": (
        "a file of 10,000,000 records, read, priced on both sides, in the books",
        "records/s",
    ),
    "cdr_peak_mib": ("memory of the loading process at most", "MiB"),
    "bulk_kernel_rows_per_s": (
        "the bulk kernel, two versions of 300,000 prefixes, two threads",
        "records/s",
    ),
    "bulk_lookup_rows_per_s": ("of it, finding the rate", "records/s"),
    "bulk_price_rows_per_s": ("of it, pricing", "records/s"),
    "cdr_core_one_by_one_rows_per_s": ("the same, record by record in the core", "records/s"),
    "cdr_read_file_rows_per_s": ("reading that file and nothing else", "records/s"),
    "archive_search_s": ("one number in the archive, the slowest kind of search", "s"),
}


def digest(text: str) -> str:
    """The name of a run."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def shown_run(readme: str) -> str:
    """The run that the table shows, or "none"."""
    found = BLOCK.search(readme)
    assert found is not None, "README.md has lost the marks of its table"
    return found[1]


def table(text: str) -> str:
    """The block of README.md for the text of a bench.json."""
    figures: Mapping[str, Any] = json.loads(text)
    lines = [f"<!-- figures: {digest(text)} -->", *_lines(figures), "<!-- /figures -->"]
    return "\n".join(lines)


def _lines(figures: Mapping[str, Any]) -> Iterator[str]:
    machine = figures.get("machine", {})
    yield "On " + ", ".join(f"{name} {value}" for name, value in machine.items()) + ":"
    yield ""
    yield "| what | operations/s | p50 ms | p99 ms |"
    yield "| --- | --- | --- | --- |"
    for name, what in RUNS.items():
        run = figures.get(name)
        if isinstance(run, dict):
            yield f"| {what} | {run['ops_per_s']:,} | {run['p50_ms']} | {run['p99_ms']} |"
    yield ""
    yield "| what | |"
    yield "| --- | --- |"
    for name, (what, unit) in NUMBERS.items():
        if name in figures:
            value = figures[name]
            shown = f"{value:,.0f}" if value >= 1000 else str(value)
            yield f"| {what} | {shown} {unit} |"


def main(arguments: list[str]) -> int:
    """Write or check the table."""
    if not BENCH.is_file():
        sys.stderr.write("there is no bench.json; run: make bench\n")
        return 1
    readme = README.read_text("utf-8")
    wanted = BLOCK.sub(lambda _: table(BENCH.read_text("utf-8")), readme)
    if "--check" in arguments:
        return int(wanted != readme)
    README.write_text(wanted, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
