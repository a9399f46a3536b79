"""Adding what is there already: by id, by path, by content."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from fgdeploy.core.errors import IndexStoreError
from fgdeploy.retrieval import Added, Index, Item
from fgdeploy.retrieval.store import writing
from tests.checks import refused
from tests.fgdeploy.retrieval.samples import ZERO

A, B, C = b"\0\0\0\1", b"\0\0\0\2", b"\0\0\0\3"
TIME = "2026-01-31T12:00:00+00:00"


def held(index: Index) -> list[tuple[int, str | None, bytes, str | None, str]]:
    """Return what is there, after comparing it with what a search sees."""
    found = list(index.items())
    nearest = sorted((i.code[-1].bit_count(), i.id, i.path, i.label) for i in found)
    hits = index.search(ZERO, 1000)[0]
    assert [(hit.distance, hit.id, hit.path, hit.label) for hit in hits] == nearest
    assert len(index) == len(found)
    return [(i.id, i.path, i.code, i.label, i.sha256) for i in found]


@pytest.fixture(params=[1, 2, 1000])
def batch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many items a transaction takes: what was added must not depend on it."""
    monkeypatch.setattr(writing, "BATCH", request.param)
    return int(request.param)


@pytest.mark.parametrize(
    "items",
    [
        [Item("/a", A, "x", "s1"), Item("/b", B), Item(None, C, None, "s3")],
        [Item(None, A, id=7), Item("/b", B, id=3), Item("/c", A, "y", "s", 1, TIME, "[]")],
        [
            Item("/a", A, json='{"k": [1]}', time=TIME),
            Item("/b", A, json="null"),
            Item(None, A, "z", "s"),
        ],
    ],
)
def test_adding_again_changes_nothing(items: Sequence[Item], batch: int, index: Index) -> None:
    assert index.add(items) == Added(new=3)
    before = list(index.items())
    for _ in range(2):
        assert index.add(items) == Added(known=3)
        assert list(index.items()) == before
    assert index.add(before) == Added(known=3)  # as they are told, with id and time
    assert list(index.items()) == before


def test_by_id(batch: int, index: Index) -> None:
    index.add([Item("/a", A, "x", id=5)])
    assert index.add([Item("/a", B, "y", "s", 5)]) == Added(changed=1)
    assert held(index) == [(5, "/a", B, "y", "s")]
    assert index.add([Item("/z", B, "y", "s", 5)]) == Added(changed=1)  # another path
    assert held(index) == [(5, "/z", B, "y", "s")]
    assert index.add([Item(None, B, "y", "s", 5)]) == Added(known=1)  # a path is not taken away
    assert index.add([Item("/a", A, id=2)]) == Added(new=1)
    assert held(index) == [(2, "/a", A, None, ""), (5, "/z", B, "y", "s")]


def test_ids_after_one_that_was_given(batch: int, index: Index) -> None:
    index.add([Item(None, A), Item(None, A, id=100), Item(None, B), Item(None, C, id=50)])
    assert [row[0] for row in held(index)] == [1, 50, 100, 101]
    index.remove([101])
    index.add([Item(None, A)])
    assert [row[0] for row in held(index)] == [1, 50, 100, 102]


def test_an_id_that_was_removed_may_be_given_again_by_its_owner(batch: int, index: Index) -> None:
    index.add([Item("/a", A, id=4)])
    index.remove([4])
    assert index.add([Item("/b", B, id=4)]) == Added(new=1)
    assert held(index) == [(4, "/b", B, None, "")]


def test_by_path(batch: int, index: Index) -> None:
    index.add([Item("/a", A, "x", "s1"), Item("/b", A)])
    assert index.add([Item("/a", B, None, "s2")]) == Added(changed=1)
    assert held(index) == [(1, "/a", B, None, "s2"), (2, "/b", A, None, "")]
    assert index.add([Item("/a", B, None, "s2", json="7")]) == Added(changed=1)
    assert index.add([Item("/a", B, None, "s2")]) == Added(changed=1)


def test_a_path_twice_in_one_go(batch: int, index: Index) -> None:
    added = index.add([Item("/a", A), Item("/a", B), Item("/a", B), Item("/b", C)])
    assert added == Added(new=2, changed=1, known=1)
    assert held(index) == [(1, "/a", B, None, ""), (2, "/b", C, None, "")]


def test_by_content(batch: int, index: Index) -> None:
    index.add([Item("/a", A, "x", "s1")])
    # A copy of a photo, at another path: what is there stays as it is.
    assert index.add([Item("/copy", A, "y", "s1"), Item(None, A, None, "s1")]) == Added(known=2)
    assert held(index) == [(1, "/a", A, "x", "s1")]
    # No content is not the same content, and an id of its own makes an item of its own.
    assert index.add([Item("/b", A), Item("/c", A)]) == Added(new=2)
    assert index.add([Item("/d", A, None, "s1", 9)]) == Added(new=1)
    assert index.by_content(["s1"])["s1"].id == 1


def test_a_content_twice_in_one_go(batch: int, index: Index) -> None:
    items = [Item("/a", A, None, "s"), Item("/b", A, None, "s"), Item(None, A, None, "s")]
    assert index.add(items) == Added(new=1, known=2)
    assert held(index) == [(1, "/a", A, None, "s")]


def test_a_path_whose_photo_was_replaced_by_a_copy_of_another(batch: int, index: Index) -> None:
    index.add([Item("/a", A, None, "s1"), Item("/b", B, None, "s2")])
    assert index.add([Item("/b", A, None, "s1")]) == Added(changed=1)
    assert held(index) == [(1, "/a", A, None, "s1"), (2, "/b", A, None, "s1")]


def test_a_content_that_was_replaced_in_the_same_go_is_new(batch: int, index: Index) -> None:
    index.add([Item("/a", A, None, "s1")])
    assert index.add([Item("/a", B, None, "s2"), Item("/b", A, None, "s1")]) == Added(1, 1)
    assert held(index) == [(1, "/a", B, None, "s2"), (2, "/b", A, None, "s1")]


def test_a_path_of_another_item_is_told(batch: int, index: Index) -> None:
    index.add([Item("/a", A), Item("/b", B)])
    before = held(index)
    for number in (2, 77):
        words = f"^/a is the path of item 1, so item {number} cannot have it; remove that item fi"
        with refused(IndexStoreError, words):
            index.add([Item("/a", C, id=number)])
        assert held(index) == before


def test_paths_that_move_on(batch: int, index: Index) -> None:
    index.add([Item("/a", A), Item("/b", B), Item("/c", C)])
    assert index.add(
        [Item("/d", C, id=3), Item("/c", B, id=2), Item("/b", A, id=1), Item("/a", A)]
    ) == Added(new=1, changed=3)
    assert held(index) == [
        (1, "/b", A, None, ""),
        (2, "/c", B, None, ""),
        (3, "/d", C, None, ""),
        (4, "/a", A, None, ""),
    ]


def test_paths_that_change_places_by_way_of_another(batch: int, index: Index) -> None:
    index.add([Item("/a", A), Item("/b", B)])
    way = [Item("/free", A, id=1), Item("/a", B, id=2), Item("/b", A, id=1)]
    assert index.add(way) == Added(changed=3)
    assert held(index) == [(1, "/b", A, None, ""), (2, "/a", B, None, "")]


def test_times(batch: int, index: Index) -> None:
    index.add([Item("/a", A, time="2026-01-31T14:00:00+02:00")])
    assert next(index.items()).time == TIME
    assert index.add([Item("/a", A, time="2026-01-31T12:00:00Z")]) == Added(known=1)
    assert index.add([Item("/a", A)]) == Added(known=1)  # no time given is no change
    assert index.add([Item("/a", A, time="2026-01-31T12:00:01Z")]) == Added(changed=1)
    assert index.add([Item("/a", B)]) == Added(changed=1)
    assert next(index.items()).time > "2026-02"  # of the change


def test_a_bad_time_adds_nothing(batch: int, index: Index) -> None:
    with pytest.raises(Exception, match="is not a time"):
        index.add([Item("/a", A, time="soon")])
    assert held(index) == []


def test_relabelling(index: Index) -> None:
    index.add([Item("/a", A, "x"), Item("/b", B), Item("/c", C, "z")])
    assert index.relabel({"/a": "x", "/b": "y", "/c": None, "/nowhere": "q"}) == 2
    assert [row[3] for row in held(index)] == ["x", "y", None]
    assert index.relabel({}) == 0


@pytest.mark.parametrize("seed", range(6))
def test_the_size_of_a_batch_does_not_matter(
    seed: int, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    chooser = random.Random(seed)
    items = [
        Item(
            chooser.choice([None, *"abcdef"]),
            chooser.choice([A, B, C]),
            None,
            chooser.choice(["", "", "s1", "s2", "s3"]),
            chooser.choice([0, 0, 0, 3, 5]),
            TIME,
        )
        for _ in range(60)
    ]
    outcomes = []
    for size in (1, 7, 1000):
        monkeypatch.setattr(writing, "BATCH", size)
        path = index.path.with_name(f"{size}.fgi")
        with Index.create(path, index.fingerprint, index.bits) as fresh:
            done = []
            for item in items:
                try:
                    done.append(fresh.add([item]))
                except IndexStoreError as error:
                    done.append(str(error).replace(str(path), ""))
            good = [item for item, what in zip(items, done, strict=True) if isinstance(what, Added)]
        with Index.create(path.with_suffix(".all.fgi"), index.fingerprint, index.bits) as whole:
            added = whole.add(good)
            outcomes.append((held(whole), added))
    assert outcomes[0] == outcomes[1] == outcomes[2]
