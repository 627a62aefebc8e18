"""Items of a codec are cut into parts between lines, and a reading can go on behind each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.bulk.frames import usages_of
from tollkeeper.core.usage import Half, Item, Refused, Skipped, Usage
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.cdr.part import Part, parts_of


def _item(kind: int, line: int) -> Item:
    kinds: tuple[Item, ...] = (
        Usage(line, f"id-{line}", 1, 2),
        Refused(line, "start", "x", "It is no time.", "x"),
        Skipped(line, "The line is empty."),
        Half(line, f"key-{line}", begins=True, at=1, raw="raw"),
    )
    return kinds[kind]


@st.composite
def _files(draw: st.DrawFn) -> list[Item]:
    line = 0
    items: list[Item] = []
    for kind, step in draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=20)):
        line = max(1, line + step)
        items.append(_item(kind, line))
    return items


def _content(parts: list[Part]) -> tuple[list[Usage], list[Refused], list[Half], int]:
    return (
        [usage for part in parts for usage in usages_of(part.frame)],
        [one for part in parts for one in part.refused],
        [half for part in parts for half in part.halves],
        sum(part.skipped for part in parts),
    )


@given(_files(), st.integers(1, 4))
def test_nothing_is_lost_or_doubled_and_every_boundary_is_between_two_lines(
    items: list[Item], records: int
) -> None:
    """Reading on behind any part gives exactly the parts that followed."""
    parts = list(parts_of(iter(items), records=records))
    assert _content(parts) == (
        [item for item in items if isinstance(item, Usage)],
        [item for item in items if isinstance(item, Refused)],
        [item for item in items if isinstance(item, Half)],
        sum(isinstance(item, Skipped) for item in items),
    )
    for number, part in enumerate(parts):
        assert part.offset == 0
        rest = list(parts_of(iter(items), line=part.line, records=records))
        assert _content(rest) == _content(parts[number + 1 :])
        assert [one.line for one in rest] == [one.line for one in parts[number + 1 :]]


def test_a_part_is_full_with_the_records_it_was_asked_to_have() -> None:
    """Skipped lines do not count, for they are not held."""
    items = [_item(kind, line) for line, kind in enumerate([0, 2, 1, 0, 2, 2, 3, 0], start=1)]
    parts = list(parts_of(iter(items), records=2))
    assert [part.line for part in parts] == [3, 7, 8]
    assert [part.skipped for part in parts] == [1, 2, 0]


def test_what_was_read_before_an_error_comes_in_a_part_before_it() -> None:
    """A file that is cut short keeps its good records."""

    def broken() -> Iterator[Item]:
        yield _item(0, 1)
        yield _item(1, 2)
        raise InvalidInput("The file is cut short.")

    parts: list[Part] = []
    with pytest.raises(InvalidInput, match="cut short"):
        parts.extend(parts_of(broken(), records=10))
    assert len(parts) == 1
    assert parts[0].line == 2
    assert parts[0].frame.height == 1


def test_an_error_before_anything_new_comes_alone() -> None:
    """There is no empty part."""

    def broken() -> Iterator[Item]:
        yield _item(0, 1)
        raise InvalidInput("The file is cut short.")

    with pytest.raises(InvalidInput):
        next(parts_of(broken(), line=1))


def test_a_record_with_a_number_that_no_call_can_have_is_refused() -> None:
    """A codec that let it through must not bring the load down."""
    items: list[Item] = [
        Usage(1, "good", 1, 2, sip=200),
        Usage(2, "bad", 1, 2, sip=70_000),
        Usage(3, "worse", 2**63, 2),
    ]
    (part,) = parts_of(iter(items))
    assert part.frame["call_id"].to_list() == ["good"]
    assert [(one.line, one.field) for one in part.refused] == [(2, "sip"), (3, "start")]
    assert part.refused[0].value == "70000"
