"""Pictures for the tests of images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from fgdeploy.photos.images import Preprocess

HALF = (0.5, 0.5, 0.5)
WHITE, RED = (255, 255, 255), (200, 10, 30)


def preprocess(size: int = 32, resize: int = 40, interpolation: str = "bicubic") -> Preprocess:
    return Preprocess(size, resize, interpolation, HALF, HALF)


def smooth(width: int, height: int) -> npt.NDArray[np.uint8]:
    """Return an RGB image (H, W, 3) of slow waves, different in each channel."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    waves = [np.sin(5 * x + 2 * y), np.cos(4 * y - x), np.sin(3 * (x + y) + 1)]
    return np.asarray(np.round(127.5 + 100 * np.stack(waves, axis=-1)), np.uint8)


def pixels(image: Image.Image) -> npt.NDArray[np.int32]:
    assert image.mode == "RGB"
    return np.asarray(image, np.int32)


def only_colour(image: Image.Image) -> tuple[int, ...]:
    """Return the colour of an image that has but one."""
    found = np.unique(pixels(image).reshape(-1, 3), axis=0)
    assert len(found) == 1, f"{len(found)} colours"
    return tuple(int(value) for value in found[0])
