"""Photos to frames: decoding that copes with what cameras and the web produce, and the resize.

The same code runs in training, calibration and on the device, so there is one set of pixels.
"""

from __future__ import annotations

import io
import math
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from fgdeploy.core.errors import ImageError
from fgdeploy.photos import given
from fgdeploy.photos.formats import FORMATS, open_image, silence_libtiff
from fgdeploy.photos.given import ImageLike
from fgdeploy.photos.pixels import (
    AS_STORED,
    SIDEWAYS,
    Reading,
    check_sixteen_bit_colour,
    turn_of,
    upright,
)

INTERPOLATIONS: Mapping[str, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

# A lazy Pillow image may be handed to several threads at once, and loading is not safe for that.
_LOADING = threading.Lock()

Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Preprocess:
    """How a photo becomes a frame: scale the short side to `resize`, cut the middle `size` square.

    square: scale both sides to `resize`, whatever the photo's shape (GLSim, CLCA).

    Both steps are one resampling of the centre square, with antialiasing (Pillow's filters), so
    that no intermediate image is made however long and thin the photo is. `mean` and `std` (RGB,
    in 0..1) are not applied here: the graph holds them, folded into the patch embedding.
    """

    size: int
    resize: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    square: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.size <= self.resize:
            raise ValueError(f"crop size {self.size} must lie in 1..{self.resize} (the resize)")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"interpolation {self.interpolation!r} is none of {', '.join(INTERPOLATIONS)}"
            )
        if (
            len(self.mean) != 3
            or len(self.std) != 3
            or not all(
                math.isfinite(m) and 0 < s < math.inf
                for m, s in zip(self.mean, self.std, strict=True)
            )
        ):
            raise ValueError("mean and std take three values each, and std is above zero")

    def frame(self, source: ImageLike, reading: Reading = AS_STORED) -> Frame:
        """Return the frame, uint8 (size, size, 3) RGB. Raises ImageError. reading: see `decode`."""
        image = decode(source, 2 * self.resize, reading)
        width, height = image.size
        short = min(width, height)
        sides = (width, height) if self.square else (short, short)
        across, down = (side * self.size / self.resize for side in sides)
        left, top = (width - across) / 2, (height - down) / 2
        frame = image.resize(
            (self.size, self.size),
            INTERPOLATIONS[self.interpolation],
            box=(left, top, left + across, top + down),
        )
        return np.array(frame)

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's `preprocess` entry."""
        entry = {**asdict(self), "crop": "center", "colour": "RGB", "folded_into_graph": True}
        if not self.square:  # left out, so that older bundles keep their fingerprint
            del entry["square"]
        return entry

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Preprocess:
        """Read the manifest's `preprocess` entry. Raises ValueError, KeyError or TypeError."""
        fixed = {"crop": "center", "colour": "RGB", "folded_into_graph": True}
        for key, value in fixed.items():
            if entry.get(key, value) != value:
                raise ValueError(f"{key} is {entry[key]!r}, expected {value!r}")
        for key in ("size", "resize"):
            if type(entry[key]) is not int:
                raise TypeError(f"{key} is {type(entry[key]).__name__}, not int")
        square = entry.get("square", False)
        if type(square) is not bool:
            raise TypeError(f"square is {type(square).__name__}, not bool")
        if isinstance(entry["mean"], str) or isinstance(entry["std"], str):
            raise TypeError("mean and std are lists of numbers")
        red, green, blue = (float(value) for value in entry["mean"])
        std = tuple(float(value) for value in entry["std"])
        if len(std) != 3:
            raise ValueError("std takes three values")
        return cls(
            int(entry["size"]),
            int(entry["resize"]),
            str(entry["interpolation"]),
            (red, green, blue),
            (std[0], std[1], std[2]),
            bool(square),
        )


def name_of(source: ImageLike) -> str:
    """Return what to call `source` in a message."""
    if isinstance(source, (str, os.PathLike)):
        return " ".join(os.fspath(source).splitlines())
    return given.NAME


def decode(
    source: ImageLike, shortest: int | None = None, reading: Reading = AS_STORED
) -> Image.Image:
    """Return `source` as an upright 8-bit RGB image; transparency is shown over white.

    source: a path; JPEG, PNG, ... bytes; an open binary file; a uint8 array (H, W), (H, W, 1),
    (H, W, 3) or (H, W, 4), or a uint16 one with a bit depth; or a Pillow image. shortest: JPEGs may
    be decoded at 1/2, 1/4 or 1/8 scale as long as the short side keeps at least this many pixels.
    reading: the order of an array's channels, the bits that count in 16-bit pixels. Raises
    ImageError for what is missing, damaged, no image, larger than Pillow's limit
    (`PIL.Image.MAX_IMAGE_PIXELS`), or has no defined range.
    """
    name = name_of(source)
    try:
        if isinstance(source, (str, os.PathLike)):
            return _from_file(source, name, shortest, reading)
        if isinstance(source, Image.Image):
            if source.format == "TIFF":
                silence_libtiff()
            with _LOADING:
                source.load()
            image = upright(source, name, reading)
            return image.copy() if image is source else image
        if (file := given.encoded(source)) is not None:
            return _from_file(file, name, shortest, reading)
        return upright(given.from_array(source, reading), name)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file; check the path") from None
    except IsADirectoryError:
        raise ImageError(f"{name} is a folder; expected an image file") from None
    except PermissionError:
        raise ImageError(f"{name}: not readable (permission denied); check its rights") from None
    except UnidentifiedImageError:
        raise ImageError(
            f"{name} is not an image that can be read (known: {', '.join(FORMATS)}); "
            "remove it or convert it"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name} is too large to decode safely: {error}; scale it down") from None
    except (
        Exception
    ) as error:  # a damaged file makes decoders raise anything, struct.error included
        reason = " ".join(str(error).split())
        raise ImageError(f"{name} is damaged or unreadable: {reason}; replace the file") from None


def stored_size(path: str | os.PathLike[str]) -> tuple[tuple[int, int], Image.Transpose | None]:
    """Return width and height of a photo as it is stored, and how it is turned to be upright.

    Raises ImageError.
    """
    name = name_of(path)
    try:
        with open_image(path, name) as image:
            return image.size, turn_of(image)
    except ImageError:
        raise
    except Exception as error:  # as in `decode`
        reason = " ".join(str(error).split())
        raise ImageError(f"{name} is damaged or unreadable: {reason}; replace the file") from None


def upright_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return width and height of a photo as it is shown. Raises ImageError."""
    (width, height), turn = stored_size(path)
    return (height, width) if turn in SIDEWAYS else (width, height)


def _from_file(
    file: str | os.PathLike[str] | io.BytesIO, name: str, shortest: int | None, reading: Reading
) -> Image.Image:
    with open_image(file, name) as image:
        _check_size(image, name)
        if shortest is not None:
            image.draft(image.mode, (shortest, shortest))
        wide = image.mode in ("RGB", "RGBA") and any(";16" in str(tile.args) for tile in image.tile)
        image.load()
        if wide:
            check_sixteen_bit_colour(image, name, reading)
        return upright(image, name, reading)


def _check_size(image: Image.Image, name: str) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    width, height = image.size
    if limit is not None and width * height > limit:
        raise ImageError(
            f"{name} has {width}x{height} pixels, more than Pillow's limit of {limit}; "
            "scale it down, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        )
