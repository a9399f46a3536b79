"""From what a file holds to upright 8-bit RGB: orientation, depth, transparency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from fgdeploy.core.errors import ImageError, UsageError

COLORS = ("rgb", "bgr")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Turns after which width and height have changed places.
SIDEWAYS = frozenset(_TURNS[number] for number in (5, 6, 7, 8))
_TWELVE_BITS = 4095  # the largest value of 12 bits


@dataclass(frozen=True)
class Reading:
    """How pixels are meant where they do not say so themselves.

    color: order of an array's channels, `rgb` or `bgr` (OpenCV's). bit_depth: bits of 16-bit
    pixels that are used, 8 to 16; None: 16 in files, and refused in arrays, which have no format.
    """

    color: str = "rgb"
    bit_depth: int | None = None

    def __post_init__(self) -> None:
        if self.color not in COLORS:
            raise UsageError(f"color {self.color!r}: expected {' or '.join(COLORS)}")
        depth = self.bit_depth
        whole = isinstance(depth, (int, np.integer)) and not isinstance(depth, bool)
        if depth is not None and not (whole and 8 <= depth <= 16):
            raise UsageError(f"bit depth {str(depth)[:20]}: expected 8 to 16 (--bit-depth)")


AS_STORED = Reading()


def upright(image: Image.Image, name: str, reading: Reading = AS_STORED) -> Image.Image:
    """Return an image whose pixels are loaded as upright RGB. Raises ImageError."""
    image = _turned(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        values = to_eight(np.asarray(image), name, reading.bit_depth)
        return Image.fromarray(values).convert("RGB")
    if image.mode == "F":
        raise ImageError(
            f"{name}: 32-bit float pixels have no defined range; convert to 8 or 16 bit first"
        )
    if image.mode in ("LA", "PA", "La", "RGBa", "RGBA") or "transparency" in image.info:
        colour = image.convert("RGBA")
        white = Image.new("RGBA", colour.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, colour).convert("RGB")
    return image.convert("RGB")


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """Return how an image must be turned to be upright, None where it is."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF does not make a photo unreadable
        return None


def _turned(image: Image.Image) -> Image.Image:
    # ImageOps.exif_transpose would write all EXIF tags anew, which fails on odd ones
    turn = turn_of(image)
    return image if turn is None else image.transpose(turn)


def to_eight(values: npt.NDArray[Any], name: str, depth: int | None) -> npt.NDArray[np.uint8]:
    """Return the high bits of 16-bit values, of any shape, as uint8.

    Raises ImageError for values out of range, and where `depth` is not known for values that 12
    bits hold: 12-bit cameras write such files, which would turn out black.
    """
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if low < 0 or high > 65535:
        raise ImageError(
            f"{name}: pixels reach from {low} to {high}; expected 0..65535; "
            "convert to 8 or 16 bit first"
        )
    if depth is None and 0 < high <= _TWELVE_BITS:
        raise ImageError(f"{name}: 16-bit pixels reach up to {high} only; {_say_depth(high)}")
    depth = 16 if depth is None else depth
    if high >= 1 << depth:
        raise ImageError(
            f"{name}: pixels reach up to {high}, more than {depth} bits hold; give the right depth"
        )
    return (values >> (depth - 8)).astype(np.uint8)


def check_sixteen_bit_colour(image: Image.Image, name: str, reading: Reading) -> None:
    """Refuse a loaded RGB image of 16-bit channels that are not all used. Raises ImageError.

    Pillow reads the high byte of each channel, so what lies in the low byte is lost.
    """
    high = max(top for _, top in image.getextrema()[:3])  # type: ignore[misc]
    unsaid = reading.bit_depth is None and 0 < high <= _TWELVE_BITS >> 8
    if unsaid or (reading.bit_depth or 16) < 16:
        raise ImageError(
            f"{name}: 16-bit colour of fewer bits than 16 cannot be read; convert to 8 bit first"
        )


def _say_depth(high: int) -> str:
    likely = next(bits for bits in (8, 10, 12) if high < 1 << bits)
    return (
        f"say how many bits count, as with --bit-depth {likely} (bit_depth={likely}; 16 for a dark "
        "photo), or convert to 8 bit"
    )
