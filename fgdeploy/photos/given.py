"""Images that a program holds: arrays, encoded bytes, open files; one or several of them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from typing import Any, Protocol, Union, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from fgdeploy.core.errors import ImageError, UsageError
from fgdeploy.photos.pixels import Reading, to_eight


class Readable(Protocol):
    """An open binary file, pipe or socket."""

    def read(self) -> bytes: ...


ImageLike = Union[
    str,
    "os.PathLike[str]",
    npt.NDArray[np.uint8],
    npt.NDArray[np.uint16],
    Image.Image,
    bytes,
    bytearray,
    memoryview,
    Readable,
]
NAME = "the image in memory"
KINDS = "a path, encoded bytes, an open file, a uint8 array or a Pillow image"


def several(images: ImageLike | Iterable[ImageLike]) -> Iterable[ImageLike]:
    """Return one image, or many, as many; an array (N, H, W, C) is N images. Raises UsageError."""
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else [images]
    single = (str, os.PathLike, Image.Image, bytes, bytearray, memoryview)
    if isinstance(images, single) or hasattr(images, "read"):
        return [cast(ImageLike, images)]
    if not isinstance(images, Iterable):
        raise UsageError(f"expected {KINDS}, or several of them, got {type(images).__name__}")
    return images


def encoded(source: object) -> io.BytesIO | None:
    """Return the image file that bytes or an open file hold, None for anything else.

    A file is read from where it stands to its end; it need not be seekable. Raises ImageError.
    """
    if isinstance(source, memoryview) and source.ndim != 1:
        return None
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(bytes(source))
    if not hasattr(source, "read"):
        return None
    try:
        content = source.read()
    except (OSError, ValueError) as error:
        raise ImageError(f"the open file cannot be read: {error}; open it again") from None
    if not isinstance(content, bytes):
        raise ImageError(
            f"the open file gives {type(content).__name__}, expected bytes; open it with 'rb'"
        )
    return io.BytesIO(content)


def from_array(source: object, reading: Reading) -> Image.Image:
    """Return an array (H, W), or (H, W, C) of 1, 3 or 4 channels, as an image.

    uint8, or uint16 where the bit depth is said. Raises ImageError for all else, in words.
    """
    if not isinstance(source, (np.ndarray, memoryview)):
        raise ImageError(f"expected {KINDS}, got {type(source).__name__}")
    array: npt.NDArray[Any] = np.asarray(source)
    shape = array.shape
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
        raise ImageError(_wrong(array, _shape_hint(shape)))
    wide = array.dtype.kind == "u" and array.dtype.itemsize == 2
    if not wide and array.dtype != np.uint8:
        raise ImageError(_wrong(array, _KIND_HINTS.get(array.dtype.kind, "convert it first")))
    if 0 in shape:
        raise ImageError(
            f"expected an image with pixels, got an array of shape {shape}; leave it out"
        )
    if wide:
        if reading.bit_depth is None:
            raise ImageError(_wrong(array, "say how many bits count, such as bit_depth=12"))
        array = to_eight(array, NAME, reading.bit_depth)
    if len(shape) == 3 and shape[2] == 1:
        array = array[:, :, 0]
    order = _ORDERS.get((reading.color, *array.shape[2:]))
    return Image.fromarray(np.ascontiguousarray(array)) if order is None else _in(order, array)


# What Pillow unpacks, by its name for the order of channels, which it turns meanwhile. It would
# share the memory of all others.
_ORDERS = {("rgb", 3): "RGB", ("bgr", 3): "BGR", ("bgr", 4): "BGRA"}


def _in(order: str, array: npt.NDArray[np.uint8]) -> Image.Image:
    """Return an array (H, W, 3 or 4) as an image; rows are read where they lie, also of a part."""
    height, width, channels = array.shape
    across = width * channels
    if array.strides[1:] != (channels, 1) or array.strides[0] < across:
        array = np.ascontiguousarray(array)
    step = array.strides[0] if height > 1 else across
    pixels = np.lib.stride_tricks.as_strided(array, ((height - 1) * step + across,), (1,))
    mode = "RGB" if channels == 3 else "RGBA"
    return Image.frombuffer(mode, (width, height), pixels, "raw", order, step, 1)


_KIND_HINTS = {
    "f": "scale it to 0..255 without NaN and convert it: array.astype(numpy.uint8)",
    "O": "give a list of images instead",
    "U": "give a list of paths instead",
    "b": "convert it first: array.astype(numpy.uint8) * 255",
}


def _shape_hint(shape: tuple[int, ...]) -> str:
    if len(shape) == 3 and shape[0] in (1, 3, 4):
        return "put the channels last: array.transpose(1, 2, 0)"
    if len(shape) == 1:
        return "for encoded bytes give array.tobytes()"
    return "convert it first"


def _wrong(array: npt.NDArray[Any], hint: str) -> str:
    return (
        "expected a uint8 array (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA, "
        f"got {array.dtype} {array.shape}; {hint}"
    )
