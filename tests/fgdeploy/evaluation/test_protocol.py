from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgdeploy.errors import DataError, ImageError
from fgdeploy.evaluation.metrics import evaluate
from fgdeploy.evaluation.protocol import evaluate_photos
from fgdeploy.hasher import Hasher
from fgdeploy.photos import Photo
from tests.checks import ColourEngine, colour_bundle, refused

SIZE = 8


@pytest.fixture
def hasher() -> Iterator[Hasher]:
    bundle = colour_bundle()
    with Hasher(bundle, ColourEngine(bundle.manifest), batch=4) as made:
        yield made


COLOURS = np.random.default_rng(0).integers(0, 256, (14, 3), dtype=np.uint8)
CLASSES = [f"class {n % 3}" for n in range(14)]


@pytest.fixture
def undivided(tmp_path: Path) -> list[Photo]:
    photos = []
    for number, (colour, name) in enumerate(zip(COLOURS, CLASSES, strict=True)):
        path = tmp_path / f"{number:02d}.png"
        Image.new("RGB", (SIZE, SIZE), tuple(colour.tolist())).save(path)
        photos.append(Photo(path, name))
    return photos


def of(photos: list[Photo], *splits: str | None) -> list[Photo]:
    """Deal the photos out to splits, in turn."""
    return [
        Photo(photo.path, photo.label, splits[number % len(splits)])
        for number, photo in enumerate(photos)
    ]


def test_undivided_photos_ask_all_others(hasher: Hasher, undivided: list[Photo]) -> None:
    result = evaluate_photos(hasher, undivided, precision_at=(1, 5))
    names = np.array(CLASSES)
    assert result.scores == evaluate(COLOURS, names, COLOURS, names, True, (1, 5))
    assert (result.scores.queries, result.scores.gallery) == (14, 13)
    assert result.protocol == "each of 14 photos against all others"
    assert result.skipped == []


def test_one_split_asks_the_other(hasher: Hasher, undivided: list[Photo]) -> None:
    photos = of(undivided, "train", "test", "test", "val")
    result = evaluate_photos(hasher, photos, precision_at=(2,))
    asking = [n for n in range(14) if n % 4 in (1, 2)]
    asked = [n for n in range(14) if n % 4 == 0]
    names = np.array(CLASSES)
    expected = evaluate(
        COLOURS[asking], names[asking], COLOURS[asked], names[asked], precision_at=(2,)
    )
    assert result.scores == expected
    assert result.protocol == "7 test photos against 4 train photos"


def test_splits_by_other_names(hasher: Hasher, undivided: list[Photo]) -> None:
    photos = of(undivided, "gallery", "probe")
    result = evaluate_photos(hasher, photos, "probe", "gallery")
    assert result.protocol == "7 probe photos against 7 gallery photos"
    turned = evaluate_photos(hasher, photos, "gallery", "probe")
    assert turned.protocol == "7 gallery photos against 7 probe photos"
    assert turned.scores != result.scores


def test_photos_without_split_stay_out_where_others_have_one(
    hasher: Hasher, undivided: list[Photo]
) -> None:
    result = evaluate_photos(hasher, of(undivided, "train", None, "test", None, None))
    assert result.protocol == "3 test photos against 3 train photos"


def test_unreadable_photos_are_left_out_and_named(hasher: Hasher, undivided: list[Photo]) -> None:
    photos = of(undivided, "train", "test")
    for number in (0, 3, 13):
        photos[number].path.write_text("no image")
    result = evaluate_photos(hasher, photos)
    assert result.protocol == "5 test photos against 6 train photos"
    # In the order of reading: the queries first.
    for name, reason in zip(("03.png", "13.png", "00.png"), result.skipped, strict=True):
        assert name in reason
    asking, asked = [1, 5, 7, 9, 11], [2, 4, 6, 8, 10, 12]
    names = np.array(CLASSES)
    expected = evaluate(COLOURS[asking], names[asking], COLOURS[asked], names[asked])
    assert result.scores == expected


def test_unreadable_photos_among_undivided(hasher: Hasher, undivided: list[Photo]) -> None:
    undivided[5].path.unlink()
    result = evaluate_photos(hasher, undivided)
    assert result.protocol == "each of 13 photos against all others"
    assert len(result.skipped) == 1
    kept = [n for n in range(14) if n != 5]
    names = np.array(CLASSES)[kept]
    assert result.scores == evaluate(COLOURS[kept], names, COLOURS[kept], names, True)


def test_strict_stops_at_an_unreadable_photo(hasher: Hasher, undivided: list[Photo]) -> None:
    undivided[5].path.unlink()
    for photos in (undivided, of(undivided, "train", "test")):
        with refused(ImageError, r"05\.png: no such file; check the path$"):
            evaluate_photos(hasher, photos, strict=True)


def test_progress_reaches_the_number_of_photos(hasher: Hasher, undivided: list[Photo]) -> None:
    seen: list[tuple[int, int]] = []
    evaluate_photos(hasher, undivided, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 14), (8, 14), (12, 14), (14, 14)]


def test_a_photo_without_class(hasher: Hasher, undivided: list[Photo]) -> None:
    photos = [Photo(undivided[0].path), Photo(undivided[1].path), *undivided[2:]]
    with refused(DataError, "^2 photos have no class; evaluation needs one for each$"):
        evaluate_photos(hasher, photos)


def test_a_single_class(hasher: Hasher, undivided: list[Photo]) -> None:
    with refused(DataError, "^all photos are of one class; .*nothing to measure$"):
        evaluate_photos(hasher, [Photo(photo.path, "moth") for photo in undivided])


def test_a_split_that_is_not_there(hasher: Hasher, undivided: list[Photo]) -> None:
    photos = of(undivided, "train", "val")
    with refused(DataError, "^no photos of split 'test'; the list has train, val$"):
        evaluate_photos(hasher, photos)
    with refused(DataError, "^no photos of split 'base'; the list has train, val$"):
        evaluate_photos(hasher, photos, "val", "base")


def test_a_split_against_itself(hasher: Hasher, undivided: list[Photo]) -> None:
    with refused(DataError, "^queries and gallery are both 'train'; choose two splits$"):
        evaluate_photos(hasher, of(undivided, "train", "test"), "train", "train")


def test_no_photo_can_be_read(hasher: Hasher, undivided: list[Photo]) -> None:
    for photo in undivided:
        photo.path.unlink()
    words = r"^none of 14 photos can be read; the first: .*00\.png: no such file; check the path$"
    with refused(DataError, words):
        evaluate_photos(hasher, undivided)


@pytest.mark.parametrize(("split", "words"), [("test", "0 queries against 7"), ("train", "7 .* 0")])
def test_no_photo_of_one_side_can_be_read(
    split: str, words: str, hasher: Hasher, undivided: list[Photo]
) -> None:
    photos = of(undivided, "train", "test")
    for photo in photos:
        if photo.split == split:
            photo.path.unlink()
    with refused(DataError, f"^nothing to rank: {words} gallery items"):
        evaluate_photos(hasher, photos)


def test_no_photos(hasher: Hasher) -> None:
    with refused(DataError, "no photos"):
        evaluate_photos(hasher, [])
