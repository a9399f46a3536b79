"""Which photos calibrate and which check."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from fgdeploy.calibration import sample
from fgdeploy.core.errors import DataError, UsageError
from fgdeploy.photos import Photo
from tests.checks import refused


def _photos(count: int, classes: int = 4, split: str | None = None, start: int = 0) -> list[Photo]:
    return [
        Photo(Path(f"{number}.jpg"), f"c{number % classes}", split)
        for number in range(start, start + count)
    ]


def test_the_same_seed_draws_the_same() -> None:
    photos = _photos(200)
    one = sample.draw(photos, 64, seed=5)
    assert sample.draw(photos, 64, seed=5) == one
    other = sample.draw(photos, 64, seed=6)
    assert set(other.calibration) != set(one.calibration)


@pytest.mark.parametrize("count", [8, 31, 32, 40, 63, 64, 100, 700])
@pytest.mark.parametrize("images", [8, 32, 256])
def test_no_photo_is_in_both(count: int, images: int) -> None:
    chosen = sample.draw(_photos(count), images)
    calibration, checks = set(chosen.calibration), set(chosen.checks)
    assert len(calibration) == len(chosen.calibration)
    assert not calibration & checks
    spared = 16 if count >= 32 else 0
    assert len(calibration) == min(images, max(count // 2, min(count - spared, 32)))
    assert len(checks) == min(count - len(calibration), 1024)


def test_a_photo_that_is_listed_twice() -> None:
    photos = _photos(20)
    chosen = sample.draw(photos * 2, 8)
    assert len(chosen.calibration) == 8
    assert len({photo.path for photo in [*chosen.calibration, *chosen.checks]}) == 20
    with refused(DataError, "4 photos to calibrate on"):
        sample.draw(photos[:4] * 2)


@pytest.fixture
def files(tmp_path: Path) -> list[Photo]:
    """Sixty photos of two classes, of which every third has the contents of the first."""
    found = []
    for number in range(60):
        path = tmp_path / f"{number}.jpg"
        grey = number if number % 3 else 0
        Image.new("L", (4, 4), grey).save(path)
        found.append(Photo(path, "ab"[number % 2]))
    return found


def test_copies_are_one_photo(files: list[Photo]) -> None:
    chosen = sample.draw(files)
    both = [*chosen.calibration, *chosen.checks]
    assert len({photo.path.read_bytes() for photo in both}) == len(both) == 41
    assert (chosen.copies, len(chosen.calibration), len(chosen.checks)) == (19, 25, 16)
    assert chosen.warnings[0] == (
        "left out as copies of others: 19 photos; with contents of their own: 41"
    )
    words = (
        r"^1 photo to calibrate on \(20 listed, 19 of them copies of others\), expected at least"
    )
    with refused(DataError, words):
        sample.draw(files[::3])


def test_files_that_are_no_images_are_no_copies(files: list[Photo]) -> None:
    """Reading names each of them."""
    for photo in files[::3]:
        photo.path.write_text("text")
    chosen = sample.draw(files)
    assert (chosen.copies, len(chosen.calibration) + len(chosen.checks)) == (0, 60)


def test_no_more_photos_are_read_than_are_needed(
    files: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "CHECKS", 4)
    monkeypatch.setattr(sample, "_MOST_CHECK_BYTES", 0)
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return str(path)

    monkeypatch.setattr(sample, "sha256", counted)
    chosen = sample.draw(files, 8)
    assert len(read) == 16 and len(chosen.calibration) == 8 and len(chosen.checks) == 4


def test_spread_over_the_classes() -> None:
    uneven = _photos(300, 1) + [
        Photo(Path(f"rare{number}.jpg"), f"rare{number % 3}") for number in range(12)
    ]
    chosen = sample.draw(uneven, 16)
    assert Counter(photo.label for photo in chosen.calibration) == dict.fromkeys(
        ("c0", "rare0", "rare1", "rare2"), 4
    )
    checks = sample.draw(_photos(80, 8), 32).checks
    assert len({photo.label for photo in checks}) == 8


def test_checks_fit_into_memory() -> None:
    photos = _photos(3000)
    assert len(sample.draw(photos, 8, image_size=224).checks) == 1024
    few = len(sample.draw(photos, 8, image_size=512).checks)
    assert few * 3 * 512**2 <= 256 << 20 < (few + 1) * 3 * 512**2
    assert len(sample.draw(photos, 8, image_size=4096).checks) == 64


@pytest.mark.parametrize("other", ["test", "val", "gallery", "unlabelled", None])
def test_only_the_train_split(other: str | None) -> None:
    photos = _photos(40, split=other) + _photos(40, split="train", start=40)
    chosen = sample.draw(photos, 16)
    assert {photo.split for photo in [*chosen.calibration, *chosen.checks]} == {"train"}


def test_a_split_of_another_name_that_nothing_is_measured_on() -> None:
    photos = _photos(40, split="test") + _photos(40, split="unlabelled", start=40)
    photos += _photos(40, start=80)
    chosen = sample.draw(photos, 16)
    assert {photo.split for photo in [*chosen.calibration, *chosen.checks]} == {"unlabelled"}


@pytest.mark.parametrize("split", ["test", "val", "validation", "eval", "query", "gallery"])
def test_photos_that_accuracy_is_measured_on(split: str) -> None:
    with refused(DataError, f"all of split {split}, .*; calibrate on training photos"):
        sample.draw(_photos(40, split=split))


def test_too_few() -> None:
    with refused(DataError, "7 photos to calibrate on, expected at least 8, better 256; give"):
        sample.draw(_photos(7))
    mixed = _photos(100, split="test") + _photos(5, split="train", start=100)
    with refused(DataError, "5 photos to calibrate on"):
        sample.draw(mixed)
    for images in (7, 0, -1):
        with refused(UsageError, f"--images {images}: .* fewer than 8 photos are chance; give 256"):
            sample.draw(_photos(100), images)


def test_warnings() -> None:
    assert sample.draw(_photos(100), 32).warnings == []
    assert sample.draw(_photos(48)).warnings == []
    (few,) = sample.draw(_photos(47), 256).warnings
    assert few.startswith("only 31 photos calibrate")
    same, few = sample.draw(_photos(31), 256).warnings
    assert same.startswith(
        "INT8 is checked on photos that calibrated it, as 0 other photos would be"
    )
    assert few.startswith("only 31 photos calibrate")
    (asked,) = sample.draw(_photos(100), 8).warnings
    assert asked.startswith("only 8 photos calibrate")
    (single,) = sample.draw(_photos(100, 1)).warnings
    assert "of one class (c0)" in single
    both = sample.draw(_photos(10, 1)).warnings
    assert len(both) == 3
    assert not any("\n" in line for line in (few, asked, single, *both))
    unlabelled = [Photo(Path(f"{number}.jpg")) for number in range(100)]
    assert sample.draw(unlabelled).warnings == []


def test_the_digest_is_of_contents(tmp_path: Path) -> None:
    photos = [Photo(tmp_path / name) for name in ("a", "b", "c")]
    for number, photo in enumerate(photos):
        photo.path.write_bytes(bytes([number]))
    one = sample.digest(photos)
    assert sample.digest(photos[::-1]) == one
    photos[0].path.rename(tmp_path / "z")
    assert sample.digest([Photo(tmp_path / "z"), *photos[1:]]) == one
    assert sample.digest(photos[1:]) != one
    photos[1].path.write_bytes(b"other")
    assert sample.digest([Photo(tmp_path / "z"), *photos[1:]]) != one


def test_the_digest_knows_how_deep_pixels_are(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"pixels of 16 bits")
    depths = (None, 12, 16)
    found = {sample.digest([Photo(tmp_path / "a.png", bit_depth=depth)]) for depth in depths}
    assert len(found) == len(depths)
