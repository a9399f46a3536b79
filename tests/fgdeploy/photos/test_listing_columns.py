"""A listing makes its photos when they are asked for; it must be the list that it stands for."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fgdeploy.photos import Listing, Photo, find_repeats, read

PHOTOS = [
    Photo(Path("a/1.jpg"), "a", "train"),
    Photo(Path("b/1.jpg"), "b", "test", 12),
    Photo(Path("b/2.jpg")),
    Photo(Path("/\udcff.jpg"), "a", "train"),
]


def test_it_is_the_list_that_it_was_made_of() -> None:
    listing = Listing(iter(PHOTOS), ["c.nef: why"])
    assert list(listing) == PHOTOS and len(listing) == 4
    assert [listing[place] for place in range(-4, 4)] == PHOTOS * 2
    assert listing[1:3] == PHOTOS[1:3] and listing[::-1] == PHOTOS[::-1]
    assert PHOTOS[2] in listing and Photo(Path("b/2.jpg"), "x") not in listing
    assert listing.skipped == ("c.nef: why",)
    with pytest.raises(IndexError):
        listing[4]


def test_equal_and_unequal() -> None:
    listing = Listing(PHOTOS)
    assert listing == PHOTOS and listing == Listing(PHOTOS)
    assert listing != PHOTOS[:3] and listing != [*PHOTOS[:3], Photo(Path("x"))]
    assert listing != tuple(PHOTOS) and not Listing()


def test_photos_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    """Part by part: a folder's photos stand together whatever its name goes on with."""
    letters = " !-./0aB_\u00fc"
    chooser = random.Random(0)
    for _ in range(60):
        parts = ["".join(chooser.choices(letters, k=chooser.randint(1, 3))) for _ in range(3)]
        folder = tmp_path.joinpath(*(f"p{part.replace('/', '').strip('.')}" for part in parts))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "1.jpg").touch()
        (folder.parent / f"{folder.name}.jpg").touch()
    paths = [photo.path for photo in read(tmp_path)]
    assert len(paths) > 60 and paths == sorted(paths)


def test_repeats_by_path_are_seen_at_any_distance() -> None:
    many = [Photo(Path(f"{number}.jpg"), "a") for number in range(50)]
    assert find_repeats(Listing(many), contents=False).labels == []
    twice = Photo(Path("x/../7.jpg"), "b")
    assert find_repeats(Listing([*many, twice]), contents=False).labels == [[many[7], twice]]
