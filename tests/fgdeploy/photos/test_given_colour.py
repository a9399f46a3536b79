"""Arrays become images without a copy of their own, with the pixels of a plain copy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given as examples_of
from hypothesis import strategies
from PIL import Image

from fgdeploy.photos import given
from fgdeploy.photos.images import Preprocess
from fgdeploy.photos.pixels import Reading
from tests.checks import examples

Pixels = npt.NDArray[np.uint8]


def plainly(array: Pixels, color: str) -> Image.Image:
    """Return an array as an image, by two copies."""
    if color == "bgr":
        array = array[:, :, [2, 1, 0, 3][: array.shape[2]]]
    return Image.fromarray(np.ascontiguousarray(array))


def noise(height: int, width: int, channels: int, seed: int = 0) -> Pixels:
    shape = (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


# Parts and turns of an array, whose rows lie apart, backwards or across
VIEWS = {
    "whole": lambda array: array,
    "rows": lambda array: array[1:-1],
    "columns": lambda array: array[:, 1:-1],
    "middle": lambda array: array[2:-1, 1:-2],
    "every second": lambda array: array[::2, ::2],
    "rows backwards": lambda array: array[::-1],
    "mirrored": lambda array: array[:, ::-1],
    "turned": lambda array: array.transpose(1, 0, 2),
    "channels backwards": lambda array: array[:, :, ::-1],
    "one row": lambda array: array[1:2, 1:],
    "one row for all": lambda array: np.broadcast_to(array[:1], array.shape),
    "not writable": lambda array: np.frombuffer(array.tobytes(), np.uint8).reshape(array.shape),
}


@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("view", VIEWS)
def test_images_are_those_of_plain_copies(view: str, channels: int, color: str) -> None:
    array = VIEWS[view](noise(9, 7, channels))
    image = given.from_array(array, Reading(color))
    expected = plainly(array, color)
    assert (image.mode, image.size) == (expected.mode, expected.size)
    assert np.array_equal(np.array(image), np.array(expected))


@examples(60)
@examples_of(
    strategies.integers(1, 400),
    strategies.integers(1, 400),
    strategies.sampled_from([3, 4]),
    strategies.booleans(),
    strategies.sampled_from(["bilinear", "bicubic", "lanczos"]),
    strategies.sampled_from(["rgb", "bgr"]),
)
def test_frames_are_those_of_plain_copies(
    height: int, width: int, channels: int, square: bool, filtered: str, color: str
) -> None:
    zero, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    preprocess = Preprocess(32, 37, filtered, zero, one, square)
    array = noise(height + 2, width + 3, channels, height)[1:-1, 2:-1]
    expected = preprocess.frame(plainly(array, color))
    assert np.array_equal(preprocess.frame(array, Reading(color)), expected)


def test_the_array_keeps_its_pixels() -> None:
    array = noise(8, 8, 3)
    before = array.copy()
    image = given.from_array(array, Reading("bgr"))
    image.putpixel((0, 0), (1, 2, 3))
    assert np.array_equal(array, before)
