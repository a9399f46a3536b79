"""Photos to frames: decoding that copes with what cameras and the web produce, and the resize.

The same code runs in training, calibration and on the device, so there is one set of pixels.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from fgdeploy.core.errors import ImageError

# Formats whose decoders run in process; PostScript and friends, which start programs, stay out.
# Pillow's JPEG opener takes MPO, the cameras' JPEG with several pictures, along.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .jp2 .avif .mpo".split()  # noqa: SIM905
)
INTERPOLATIONS: Mapping[str, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# A lazy Pillow image may be handed to several threads at once, and loading is not safe for that.
_LOADING = threading.Lock()

ImageLike = Union[str, "os.PathLike[str]", npt.NDArray[np.uint8], Image.Image]
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

    def frame(self, source: ImageLike) -> Frame:
        """Return the frame, uint8 (size, size, 3) RGB. Raises ImageError."""
        image = decode(source, shortest=2 * self.resize)
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
    return "the image in memory"


def decode(source: ImageLike, shortest: int | None = None) -> Image.Image:
    """Return `source` as an upright 8-bit RGB image; transparency is shown over white.

    source: a path; a uint8 array (H, W), (H, W, 3) RGB or (H, W, 4) RGBA; or a Pillow image.
    shortest: JPEGs may be decoded at 1/2, 1/4 or 1/8 scale as long as the short side keeps at
    least this many pixels. Raises ImageError for what is missing, damaged, no image, larger than
    Pillow's limit (`PIL.Image.MAX_IMAGE_PIXELS`), or has no defined range (32-bit pixels).
    """
    name = name_of(source)
    try:
        if isinstance(source, np.ndarray):
            return _upright(_from_array(source), name)
        if isinstance(source, Image.Image):
            with _LOADING:
                source.load()
            upright = _upright(source, name)
            return upright.copy() if upright is source else upright
        if not isinstance(source, (str, os.PathLike)):
            raise ImageError(
                f"expected a path, a uint8 array or a Pillow image, got {type(source).__name__}"
            )
        with Image.open(source, formats=FORMATS) as image:
            _check_size(image, name)
            if shortest is not None:
                image.draft(image.mode, (shortest, shortest))
            image.load()
            return _upright(image, name)
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
        raise ImageError(f"{name} is damaged or unreadable: {error}; replace the file") from None


def _check_size(image: Image.Image, name: str) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    width, height = image.size
    if limit is not None and width * height > limit:
        raise ImageError(
            f"{name} has {width}x{height} pixels, more than Pillow's limit of {limit}; "
            "scale it down, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        )


def _from_array(array: npt.NDArray[np.uint8]) -> Image.Image:
    shape = array.shape
    if array.dtype != np.uint8 or not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))):
        raise ImageError(
            f"expected a uint8 array (H, W), (H, W, 3) RGB or (H, W, 4) RGBA, "
            f"got {array.dtype} {shape}; convert it first"
        )
    if 0 in shape:
        raise ImageError(
            f"expected an image with pixels, got an array of shape {shape}; leave it out"
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _upright(image: Image.Image, name: str) -> Image.Image:
    image = _turned(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # 16-bit greyscale: keep the high byte
        return _sixteen_bit(image, name)
    if image.mode == "F":
        raise ImageError(
            f"{name}: 32-bit float pixels have no defined range; convert to 8 or 16 bit first"
        )
    if image.mode in ("LA", "PA", "La", "RGBa", "RGBA") or "transparency" in image.info:
        colour = image.convert("RGBA")
        white = Image.new("RGBA", colour.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, colour).convert("RGB")
    return image.convert("RGB")


def _turned(image: Image.Image) -> Image.Image:
    # ImageOps.exif_transpose would write all EXIF tags anew, which fails on odd ones
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF does not make a photo unreadable
        turn = None
    return image if turn is None else image.transpose(turn)


def _sixteen_bit(image: Image.Image, name: str) -> Image.Image:
    values = np.asarray(image)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise ImageError(
            f"{name}: pixels reach from {values.min()} to {values.max()}; expected 0..65535; "
            "convert to 8 or 16 bit first"
        )
    return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")


def find(folder: Path) -> list[Path]:
    """Return the image files below `folder`, sorted, without hidden files and other suffixes."""
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for root, folders, files in os.walk(folder, followlinks=True):  # class folders may be links
        here = os.stat(root)
        if (here.st_dev, here.st_ino) in seen:  # a link to a folder above: once is enough
            folders.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found.extend(
            Path(root, name)
            for name in files
            if not name.startswith(".")
            and Path(name).suffix.lower() in SUFFIXES
            and Path(root, name).is_file()  # opening a pipe would wait for ever
        )
    return sorted(found)
