"""Thumbnails: in with their items, out with them, found again whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fgdeploy.core.errors import IndexStoreError, UsageError
from fgdeploy.photos import shrinking
from fgdeploy.retrieval import Index, Item
from fgdeploy.retrieval.store import thumbnails as store
from tests.checks import refused
from tests.fgdeploy.retrieval.samples import ZERO, database, photo, raw


def jpeg(name: str) -> bytes:
    return b"\xff\xd8\xff" + name.encode()


@pytest.fixture
def kept(index: Index) -> Index:
    """An index with three items, of which `c` has no thumbnail."""
    index.thumbnails.keep()
    index.add([photo("a"), photo("b", 1), photo("c", 2)], thumbnails=[jpeg("a"), jpeg("b"), None])
    return index


def test_an_index_keeps_none_until_it_is_told(three: Index) -> None:
    assert not three.thumbnails.kept
    assert three.stats().thumbnails is None
    assert three.thumbnails.read([1]) == {} and three.thumbnails.has([1]) == set()
    with refused(IndexStoreError, "keeps no thumbnails; begin with: .* --keep-thumbnails$"):
        three.add([photo("d")], thumbnails=[jpeg("d")])
    assert len(three) == 3  # nothing of that transaction


def test_they_come_back_and_are_counted(kept: Index, path: Path) -> None:
    assert kept.thumbnails.read([1, 2, 3, 99]) == {1: jpeg("a"), 2: jpeg("b")}
    assert kept.thumbnails.has([1, 2, 3]) == {1, 2}
    assert kept.stats().thumbnails == store.ThumbnailStats(2, 8)
    kept.thumbnails.keep()  # once more changes nothing
    with Index.open(path) as again:
        assert again.thumbnails.kept
        assert again.thumbnails.read([2]) == {2: jpeg("b")}
        assert again.verify() == [problem for problem in again.verify() if "photo" in problem.what]


def test_removing_an_item_removes_its_thumbnail(kept: Index) -> None:
    kept.remove([1])
    assert kept.thumbnails.read([1, 2]) == {2: jpeg("b")}


def test_nothing_of_a_removed_thumbnail_stays_in_the_database(kept: Index, path: Path) -> None:
    picture = jpeg("somebody" * 2000)  # on pages of its own
    kept.add([photo("d", 3, "her name")], thumbnails=[picture])
    assert b"somebody" in database(path).read_bytes()
    kept.remove([4])
    left = database(path).read_bytes()
    assert b"somebody" not in left and b"her name" not in left


def test_an_fgdeploy_of_before_removes_it_too(kept: Index, path: Path) -> None:
    with raw(path) as connection:
        connection.execute("DELETE FROM items WHERE id = 1")
    assert kept.thumbnails.has([1, 2]) == {2}


def test_another_photo_at_a_path_takes_the_old_thumbnail_away(kept: Index) -> None:
    kept.add([replace(photo("a", 7), sha256="another")])
    assert kept.thumbnails.has([1, 2]) == {2}
    kept.add([replace(photo("b", 9), sha256="other")], thumbnails=[jpeg("new")])
    assert kept.thumbnails.read([2]) == {2: jpeg("new")}


def test_a_label_or_a_path_leaves_the_thumbnail(kept: Index) -> None:
    kept.relabel({"/photos/a": "owl"})
    kept.add([replace(photo("b", 1), path="/moved", id=2)])
    assert kept.thumbnails.has([1, 2]) == {1, 2}


def test_a_copy_that_is_left_out_brings_none(kept: Index) -> None:
    copy = replace(photo("a"), path="/copy")
    assert kept.add([copy], thumbnails=[jpeg("copy")]).copies == 1
    assert kept.thumbnails.read([1]) == {1: jpeg("a")}


def test_an_item_that_is_known_gets_what_it_lacked(kept: Index) -> None:
    assert kept.add([photo("c", 2)], thumbnails=[jpeg("c")]).known == 1
    assert kept.thumbnails.read([3]) == {3: jpeg("c")}


def test_putting_them_to_items_that_are_there(kept: Index) -> None:
    (item,) = kept.get([3])
    changed = replace(item, sha256="another photo")
    gone = replace(item, id=99)
    given = [jpeg("c"), jpeg("x"), jpeg("y")]
    assert kept.thumbnails.put([item, changed, gone], given) == 1
    assert kept.thumbnails.has([3, 99]) == {3}
    assert kept.thumbnails.read([3]) == {3: jpeg("c")}


def test_dropping_them_all(kept: Index, path: Path) -> None:
    assert kept.thumbnails.drop() == 2
    assert not kept.thumbnails.kept
    kept.remove([1])  # no trigger is left that would look for the table
    assert kept.thumbnails.drop() == 0
    kept.thumbnails.keep()
    assert kept.stats().thumbnails == store.ThumbnailStats(0, 0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (b"GIF89a", "/photos/d: its thumbnail is no JPEG in bytes"),
        ("text", "/photos/d: its thumbnail is no JPEG in bytes"),
        (b"\xff\xd8\xff" + bytes(1 << 16), r"its thumbnail has 65,539 bytes, expected at most 65,"),
    ],
)
def test_what_is_no_thumbnail_is_refused_with_its_item(
    kept: Index, wrong: bytes, words: str
) -> None:
    with refused(UsageError, words):
        kept.add([photo("d")], thumbnails=[wrong])
    assert len(kept) == 3


def test_lists_must_be_as_long_as_each_other(kept: Index) -> None:
    with refused(UsageError, "for each of 1 item, got 2"):
        kept.add([photo("d")], thumbnails=[jpeg("d"), jpeg("e")])
    with refused(UsageError, "come in lists"):
        kept.add(iter([photo("d")]), thumbnails=[jpeg("d")])


def test_many_go_in_several_transactions(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    from fgdeploy.retrieval.store import writing

    monkeypatch.setattr(writing, "AT_ONCE", 3)
    index.thumbnails.keep()
    told: list[int] = []
    items = [photo(str(n), n) for n in range(8)]
    index.add(items, told.append, thumbnails=[jpeg(str(n)) for n in range(8)])
    assert told == [3, 6, 8]
    assert index.thumbnails.read(range(1, 9)) == {n + 1: jpeg(str(n)) for n in range(8)}


def test_a_damaged_one_is_named_and_counts_as_none(kept: Index, path: Path) -> None:
    with raw(path) as connection:
        connection.execute("UPDATE thumbnails SET jpeg = X'ffd8ff00' WHERE id = 2")
    assert kept.thumbnails.read([1, 2]) == {1: jpeg("a")}
    (problem,) = [one for one in kept.verify() if "thumbnail" in one.what]
    assert (problem.what, problem.fatal) == (
        "thumbnails: 1 changed (CRC), the first of item 2",
        False,
    )
    assert len(kept.search(ZERO, where="id > 0")[0]) == 3


def test_verify_names_strays_and_lost_triggers(kept: Index, path: Path) -> None:
    with raw(path) as connection:
        connection.execute("DROP TRIGGER thumbnails_removed")
        connection.execute("INSERT INTO thumbnails SELECT 77, jpeg, crc FROM thumbnails LIMIT 1")
    found = [one.what for one in kept.verify() if "thumbnail" in one.what]
    assert found[0].startswith("thumbnails: thumbnails_removed is not what it was")
    assert found[-1] == "thumbnails: 1 of no item"


def test_filters_cannot_reach_them(kept: Index) -> None:
    with refused(UsageError, "thumbnails"):
        kept.search(ZERO, where="id IN (SELECT id FROM thumbnails)")


def test_both_rooms_bound_a_thumbnail_alike() -> None:
    assert shrinking.MOST_BYTES == store.MOST_BYTES


CHILD = """
import sys
from fgdeploy.retrieval import Index, Item

with Index.open(sys.argv[1]) as index:
    for turn in range(100_000):
        items = [Item(f"{turn}/{n}", bytes(4), None, f"{turn} {n}") for n in range(20)]
        index.add(items, thumbnails=[b"\\xff\\xd8\\xff" + bytes(3000)] * 20)
        print(turn, flush=True)
"""


def test_a_killed_writer_leaves_items_with_their_thumbnails(index: Index, path: Path) -> None:
    index.thumbnails.keep()
    command = [sys.executable, "-c", CHILD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        told = [int(child.stdout.readline()) for _ in range(5)]
        os.kill(child.pid, signal.SIGKILL)
        told += [int(line) for line in child.stdout]
    with Index.open(path) as again:
        assert len(again) >= 20 * len(told)
        ids = [item.id for item in again.items() if item.id is not None]
        assert again.thumbnails.has(ids) == set(ids)
        assert not [problem for problem in again.verify() if problem.fatal]


def test_an_item_by_uri_keeps_only_its_thumbnail(kept: Index) -> None:
    uri = "camera://door/2026-11-28T01:14:00.123456Z"
    kept.add([Item(uri, bytes(4), "owl")], thumbnails=[jpeg("frame")])
    (item,) = kept.by_path([uri]).values()
    assert item.id is not None
    assert kept.thumbnails.read([item.id]) == {item.id: jpeg("frame")}
