"""A short search in every codec, everything that was ever found, and proof that the search finds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz import fuzzer
from tests.fuzz.fuzzer import FOLDER, Finding, Fuzzer, Target, keep, kept
from tests.fuzz.reading import same_in_pieces
from tests.fuzz.targets import TARGETS

RUNS = 1500


@pytest.mark.parametrize("name", TARGETS)
def test_a_codec_is_total(name: str) -> None:
    """Its seeds, all that was found before, and some new inputs: records or its own refusal."""
    run = Fuzzer(name, TARGETS[name], seed=1)
    assert [*run.seeds(), *run.run(runs=RUNS, seconds=20)] == []
    assert len(run.outcomes) > 5


@pytest.mark.parametrize("name", TARGETS)
def test_the_kept_packets_are_those_that_our_encoders_write(name: str) -> None:
    """Mend it with: python -m tests.fuzz --seeds."""
    target = TARGETS[name]
    made = target.seeds(target.load())
    folder = FOLDER / "seeds" / name
    assert {title: (folder / f"{title}.bin").read_bytes() for title in made} == made


def test_the_folders_belong_to_codecs() -> None:
    """A finding in a folder that nobody reads would be tried no more."""
    folders = [*(FOLDER / "seeds").iterdir(), *(FOLDER / "findings").glob("*/")]
    assert {each.name for each in folders} == set(TARGETS)


def nothing(m: Any) -> dict[str, bytes]:
    return {}


def crashes(m: Any, data: bytes) -> Any:
    return data[len(data)] if len(data) % 7 == 1 else data


def squares(m: Any, data: bytes) -> Any:
    """What a parser does that cuts its input from the front: the time grows with its square."""
    text = data
    while text:
        text = text[1:]
    return data


def swells(m: Any, data: bytes) -> Any:
    return bytes(int.from_bytes(data[:3], "big"))[:5]


def hangs(m: Any, data: bytes) -> Any:
    while data[:1] == b"I":
        pass
    return data


def swallows(m: Any, data: bytes) -> Any:
    try:
        return hangs(m, data)
    except Exception:  # noqa: BLE001 - the bad example
        return data


@pytest.mark.parametrize(
    ("decode", "what"),
    [
        (crashes, "IndexError"),
        (squares, "ms for"),
        (swells, "bytes of memory"),
        (hangs, "no answer"),
        (swallows, "no answer"),
    ],
)
def test_a_bad_codec_is_found_out(
    decode: Callable[[Any, bytes], Any], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative controls of the search."""
    monkeypatch.setattr(fuzzer, "TIME_PER_KILOBYTE_MS", 0.2)
    monkeypatch.setattr(fuzzer, "HANG_SECONDS", 0.3 if what == "no answer" else 20)
    target = Target(("sip",), "sip.MalformedSip", decode, nothing)
    run = Fuzzer("sip", target, seed=1)
    run.corpus.append(b"Via" + b"x" * 60_000)
    found = [*run.seeds(), *run.run(runs=400, most=1)]
    assert any(what in finding.what for finding in found)


def test_a_record_that_is_read_back_as_another_is_found_out() -> None:
    target = Target(
        ("sip",),
        "sip.MalformedSip",
        lambda _, data: data,
        nothing,
        lambda _, record: record + b"!",
    )
    (finding, *_) = Fuzzer("sip", target, seed=1).seeds()
    assert finding.what.startswith("written ")


class Forgetful:
    """A decoder that loses what is in its buffer at the end of a read."""

    def feed(self, data: bytes) -> list[bytes]:
        """Split, and forget the rest."""
        return data.split(b",")[:-1]


def test_a_stream_that_reads_otherwise_when_cut_is_found_out() -> None:
    with pytest.raises(AssertionError, match="another cutting"):
        same_in_pieces(ValueError, Forgetful, b"a,b,cccccccccccccc,d,")


def test_the_same_seed_makes_the_same_inputs() -> None:
    def inputs(seed: int) -> list[bytes]:
        run = Fuzzer("sip", TARGETS["sip"], seed)
        return [run.mutated() for _ in range(50)]

    assert inputs(7) == inputs(7)
    assert inputs(7) != inputs(8)


def test_a_finding_is_kept_where_the_next_run_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzzer, "FOLDER", tmp_path)
    assert kept("sip") == []
    keep("sip", Finding(b"bad", "why"), tmp_path / "findings")
    assert kept("sip") == [b"bad"]


def test_what_is_slow_once_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is slow each time is slow: something else may have come by."""
    slow = iter([True])

    def decode(m: Any, data: bytes) -> Any:
        if next(slow, False):
            end = time.thread_time() + 0.05
            while time.thread_time() < end:
                pass
        return data

    target = Target(("sip",), "sip.MalformedSip", decode, nothing)
    assert Fuzzer("sip", target, seed=1).fault(b"x", watched=False) is None
