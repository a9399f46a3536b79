"""Frames of photos that are scaled to a square, whatever their shape, against plain Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fgdeploy.photos.images import INTERPOLATIONS, Preprocess

MIDDLE = (0.5, 0.5, 0.5)


def _preprocess(
    size: int, resize: int, interpolation: str = "bilinear", square: bool = True
) -> Preprocess:
    return Preprocess(size, resize, interpolation, MIDDLE, MIDDLE, square)


def _saved(folder: Path, width: int, height: int) -> tuple[Path, Image.Image]:
    chooser = np.random.default_rng(width + height)
    pixels = chooser.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    image.save(folder / "photo.png")
    return folder / "photo.png", image


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(("width", "height"), [(96, 96), (160, 96), (64, 200)])
def test_without_a_crop_it_is_one_resize(
    tmp_path: Path, width: int, height: int, interpolation: str
) -> None:
    path, image = _saved(tmp_path, width, height)
    expected = np.asarray(image.resize((48, 48), INTERPOLATIONS[interpolation]))
    np.testing.assert_array_equal(_preprocess(48, 48, interpolation).frame(path), expected)


@pytest.mark.parametrize(("width", "height"), [(120, 120), (240, 120), (96, 192)])
def test_the_crop_is_the_middle_of_the_scaled_square(
    tmp_path: Path, width: int, height: int
) -> None:
    """As torchvision does it: Resize((60, 60)), then CenterCrop(48); two steps here, one there."""
    path, image = _saved(tmp_path, width, height)
    scaled = image.resize((60, 60), Image.Resampling.BILINEAR)
    expected = np.asarray(scaled.crop((6, 6, 54, 54))).astype(int)
    found = _preprocess(48, 60).frame(path).astype(int)
    # Filters reach over the edge of the crop in two steps, and not in one.
    assert np.abs(found - expected)[2:-2, 2:-2].max() <= 1
    assert np.abs(found - expected).mean() < 0.5


def test_a_square_photo_is_framed_alike_both_ways(tmp_path: Path) -> None:
    path, _ = _saved(tmp_path, 128, 128)
    both = [_preprocess(48, 60, square=square).frame(path) for square in (True, False)]
    np.testing.assert_array_equal(*both)


def test_other_photos_keep_both_ends_when_scaled_to_a_square(tmp_path: Path) -> None:
    pixels = np.zeros((40, 120, 3), np.uint8)
    pixels[:, :12], pixels[:, -12:] = (255, 0, 0), (0, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    whole = _preprocess(40, 40).frame(tmp_path / "wide.png")
    assert whole[:, 0].tolist() == [[255, 0, 0]] * 40
    assert whole[:, -1].tolist() == [[0, 0, 255]] * 40
    cut = _preprocess(40, 40, square=False).frame(tmp_path / "wide.png")
    assert not cut.any()


def test_square_survives_json_and_its_absence_leaves_no_trace() -> None:
    square, plain = _preprocess(48, 60), _preprocess(48, 60, square=False)
    assert Preprocess.from_json(square.to_json()) == square
    assert square.to_json()["square"] is True
    assert "square" not in plain.to_json()
    assert Preprocess.from_json(plain.to_json()) == plain


@pytest.mark.parametrize("value", [1, "true", None, []])
def test_a_square_that_is_no_truth_value(value: Any) -> None:
    entry = {**_preprocess(48, 60).to_json(), "square": value}
    with pytest.raises(TypeError, match=rf"^square is {type(value).__name__}, not bool$"):
        Preprocess.from_json(entry)
