"""Derived files: written, merged, cleared, and not written on a full disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.core.codes import UInt8Array
from fgdeploy.core.errors import IndexStoreError
from fgdeploy.retrieval import Index, Item
from fgdeploy.retrieval.store import derived, segment, writing
from fgdeploy.retrieval.store.making import DATABASE
from fgdeploy.retrieval.store.segment import Header, path_of
from tests.fgdeploy.retrieval.many_segments import (
    BLOCK,
    TAIL,
    fatal,
    files,
    right,
    segments,
    some,
)
from tests.fgdeploy.retrieval.samples import BITS, photo, raw

pytestmark = pytest.mark.usefixtures("small_files")


# Growing


def test_the_tail_becomes_a_segment_when_it_has_grown(index: Index) -> None:
    index.add(some(TAIL - 1))
    assert (segments(index), index.stats().tail, files(index.path)) == ([], TAIL - 1, [])
    index.add(some(1, 100))
    assert (segments(index), index.stats().tail) == ([TAIL], 0)
    assert files(index.path) == ["segment-1.codes"]
    right(index)
    assert fatal(index) == []


def test_small_segments_are_put_together(index: Index) -> None:
    sizes = []
    for turn in range(12):
        index.add(some(TAIL, 1000 * turn))
        sizes.append(segments(index))
        assert sum(sizes[-1]) == TAIL * (turn + 1)
        assert len(files(index.path)) == len(sizes[-1])
        right(index)
    assert max(map(len, sizes)) <= 4
    assert any(len(each) > 1 for each in sizes)


def test_large_segments_are_left_alone(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derived, "MERGE_ROWS", 2 * TAIL)
    for turn in range(8):
        index.add(some(TAIL, 1000 * turn))
    assert len(segments(index)) > 2
    right(index)


def test_codes_in_bulk_go_into_a_segment_at_once(index: Index) -> None:
    codes = np.random.default_rng(0).integers(0, 256, (3 * TAIL, 4), np.uint8)
    assert index.add_codes(codes).new == 3 * TAIL
    assert (segments(index), index.stats().tail) == ([3 * TAIL], 0)
    index.add_codes(codes[:5])
    index.add_codes(codes[:3], ids=[500, 200, 300])
    assert index.stats().tail == 8
    right(index)
    assert fatal(index) == []


def test_removed_and_replaced_rows_are_dead(index: Index) -> None:
    index.add(some(3 * TAIL))
    index.remove([1, 20, 21, 22, 60])
    index.add([photo("new"), Item("/photos/30", b"\1\1\1\1")])  # 30 is item 31
    index.add([Item(None, b"\2\2\2\2", id=21)])  # one that was removed, by its owner
    stats = index.stats()
    assert (stats.dead, stats.tail) == (6, 3)
    right(index)
    with Index.open(index.path) as again:
        right(again)
    assert fatal(index) == []
    index.compact()
    assert (segments(index), index.stats().dead, index.stats().tail) == ([57], 0, 0)
    right(index)


def test_the_dead_are_forgotten_with_their_segment(index: Index) -> None:
    index.add(some(TAIL))
    index.remove([1, 2])
    index.add(some(TAIL, 100))
    assert (segments(index), index.stats().dead) == ([2 * TAIL - 2], 0)
    right(index)


def test_all_may_be_removed(index: Index) -> None:
    index.add(some(2 * TAIL))
    index.remove(range(1, 2 * TAIL + 1))
    right(index)
    index.compact()
    assert (segments(index), files(index.path)) == ([], [])
    right(index)
    index.add(some(2))
    assert [item.id for item in index.items()] == [2 * TAIL + 1, 2 * TAIL + 2]


def test_compacting_tells_how_far_it_is(index: Index) -> None:
    index.add(some(3 * TAIL))
    calls: list[tuple[int, int]] = []
    index.compact(lambda done, total: calls.append((done, total)))
    assert calls[-1] == (3 * TAIL, 3 * TAIL)
    assert calls == sorted(calls)
    assert len(calls) > 3


def test_an_interrupted_compact_changes_nothing(index: Index) -> None:
    index.add(some(3 * TAIL))
    index.remove([5])
    before = (index.stats().segments, files(index.path))

    def stop(done: int, total: int) -> None:
        if done > TAIL:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.compact(stop)
    assert (index.stats().segments, files(index.path)) == before
    right(index)


def test_files_that_nobody_names_are_cleared(index: Index) -> None:
    index.add(some(TAIL))
    left = [path_of(index.path, 99), index.path / ".segment-7.codes.0a1b2c3d.tmp"]
    for path in left:
        path.write_bytes(b"left over by a writer that was killed")
    foreign = index.path / "notes.txt"
    foreign.write_text("mine")
    right(index)
    assert [problem.what for problem in index.verify() if "left over" in problem.what] == [
        "2 files left over (.segment-7.codes.0a1b2c3d.tmp, segment-99.codes)"
    ]
    assert not any(path.exists() for path in left)
    for path in left:
        path.write_bytes(b"left over by a writer that was killed")
    index.compact()
    assert not any(path.exists() for path in left)
    assert foreign.read_text() == "mine"
    assert segments(index) == [TAIL]


def test_ranges_of_the_tail_and_the_next_segment(index: Index) -> None:
    index.add([Item(None, bytes(4), id=number) for number in (9, 3, 4, 5, 100, 101, 7)])
    with raw(index.path) as connection:
        assert connection.execute("SELECT * FROM tail ORDER BY first").fetchall() == [
            (3, 5),
            (7, 7),
            (9, 9),
            (100, 101),
        ]
    right(index)


# Full disks


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_while_a_segment_is_written_loses_nothing(
    index: Index, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add(some(TAIL))
    monkeypatch.setattr(segment, "write", full)
    assert index.add(some(TAIL, 100)).new == TAIL
    assert told == [
        f"{index.path}: no segment could be written (No space left on device); all items are "
        "safe, searching is slower until: fgdeploy index compact"
    ]
    assert (segments(index), index.stats().tail) == ([TAIL], TAIL)
    right(index)
    codes = np.ones((2 * TAIL, 4), np.uint8)
    assert index.add_codes(codes).new == 2 * TAIL
    assert len(index) == 4 * TAIL
    right(index)
    with pytest.raises((OSError, IndexStoreError)):
        index.compact()
    right(index)
    monkeypatch.undo()
    index.compact()
    assert (segments(index), index.stats().tail) == ([4 * TAIL], 0)
    right(index)
    assert fatal(index) == []


@pytest.mark.parametrize("at", range(6))
def test_a_disk_that_fills_up_halfway_leaves_no_half_file(
    at: int, index: Index, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, count = segment.write, 0

    def halfway(folder: Path, header: Header, blocks: Iterator[tuple[object, object]]) -> int:
        def some_of_them() -> Iterator[tuple[object, object]]:
            for number, block in enumerate(blocks):
                if number == at:
                    full()
                yield block

        return write(folder, header, some_of_them())  # type: ignore[arg-type]

    monkeypatch.setattr(segment, "write", halfway)
    count = index.add(some(5 * BLOCK)).new
    assert count == 5 * BLOCK
    assert all(name.startswith("segment-") for name in files(index.path))
    assert [entry.name for entry in index.path.iterdir() if entry.name.endswith(".tmp")] == []
    right(index)
    assert bool(told) == (at < 5)  # of 5 blocks in the end


def codes_of(index: Index) -> UInt8Array:
    return np.stack([np.frombuffer(item.code, np.uint8) for item in index.items()])


def test_the_file_of_a_compacted_index_holds_its_codes_in_order(index: Index) -> None:
    index.add(some(3 * TAIL))
    index.compact()
    whole = (index.path / files(index.path)[0]).read_bytes()
    codes = codes_of(index)
    assert whole[4096 : 4096 + codes.size] == codes.tobytes()
    assert (index.path / DATABASE).exists()


def test_adding_in_bulk_leaves_no_replaced_segment_behind(
    index: Index, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_BULK", 16)
    monkeypatch.setattr(derived, "TAIL_ROWS", 8)
    codes = np.random.default_rng(0).integers(0, 256, (160, BITS // 8), dtype=np.uint8)
    index.add_codes(codes)
    named = {f"segment-{number}.codes" for number, *_ in index.stats().segments}
    assert {entry.name for entry in path.glob("segment-*")} == named
    assert len(named) <= 5
    assert index.verify() == []
    assert index.search_ids(codes, 1)[1].max() == 0
