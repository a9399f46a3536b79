"""Lists of photos by split, and spread over classes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from fgdeploy import photos
from fgdeploy.core.errors import DataError
from fgdeploy.photos import Photo
from tests.checks import refused

# --- splits and picks


def split_photos() -> list[Photo]:
    splits = ["train", "test", None, "train"]
    return [Photo(Path(f"{n}.jpg"), "a", split) for n, split in enumerate(splits)]


def test_of_split() -> None:
    listed = split_photos()
    assert photos.of_split(listed, "train") == [listed[0], listed[3]]
    assert photos.of_split(listed, "test") == [listed[1]]


def test_of_split_takes_all_of_an_undivided_list() -> None:
    listed = [Photo(Path("a.jpg")), Photo(Path("b.jpg"), "x")]
    found = photos.of_split(listed, "test")
    assert found == listed and found is not listed
    assert photos.of_split([], "test") == []


def test_of_split_that_is_not_there() -> None:
    with refused(DataError, r"no photos of split 'val'; the list has test, train"):
        photos.of_split(split_photos(), "val")


def many(**counts: int) -> list[Photo]:
    return [
        Photo(Path(f"{label}/{number}.jpg"), label)
        for label, count in counts.items()
        for number in range(count)
    ]


def test_spread_is_even() -> None:
    picked = photos.spread(many(a=50, b=3, c=50), 13)
    assert len(picked) == len(set(picked)) == 13
    assert Counter(photo.label for photo in picked) == {"a": 5, "b": 3, "c": 5}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 30])
def test_spread_never_differs_by_more_than_one(count: int) -> None:
    counts = Counter(photo.label for photo in photos.spread(many(a=20, b=20, c=20), count))
    assert sum(counts.values()) == count
    assert max(counts.values()) - min(counts[label] for label in "abc") <= 1


def test_spread_is_the_same_for_the_same_seed() -> None:
    listed = many(a=30, b=30)
    assert photos.spread(listed, 20, seed=3) == photos.spread(listed, 20, seed=3)
    assert photos.spread(listed, 20, seed=3) != photos.spread(listed, 20, seed=4)


def test_spread_of_fewer_begins_that_of_more() -> None:
    listed = many(a=30, b=30)
    assert photos.spread(listed, 20)[:7] == photos.spread(listed, 7)


def test_spread_takes_all_when_there_are_few() -> None:
    listed = many(a=2, b=1)
    assert sorted(photos.spread(listed, 99), key=str) == sorted(listed, key=str)
    assert photos.spread(listed, 0) == [] and photos.spread([], 5) == []


def test_spread_takes_photos_without_a_class_as_one() -> None:
    listed = [Photo(Path(f"{number}.jpg")) for number in range(9)] + many(a=9)
    picked = photos.spread(listed, 6)
    assert Counter(photo.label for photo in picked) == {None: 3, "a": 3}


def test_spread_leaves_the_list_as_it_was() -> None:
    listed = many(a=9, b=9)
    photos.spread(listed, 5)
    assert listed == many(a=9, b=9)
