"""Frames that a program makes: any iterable of arrays."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fgdeploy.camera.capture_source import Captured, CaptureSource, StreamBroken, StreamEnded
from fgdeploy.core.errors import UsageError
from fgdeploy.core.text import one_line
from fgdeploy.photos.pixels import COLORS


class ArraySource(CaptureSource):
    """Gives the arrays of an iterable, each copied, so that it may reuse its buffer.

    They are uint8 (H, W, 3) in the order `color`, or (H, W) or (H, W, 1) grey. None or the end of
    the iterable is the end, an exception of it a StreamBroken, another array a UsageError.
    """

    lasts = False

    def __init__(self, frames: Iterable[Any], color: str | None, live: bool = False) -> None:
        if color not in COLORS:
            got = "it was not said" if color is None else f"got {color!r}"
            raise UsageError(
                f'frames are arrays, so say the order of their channels: color="rgb" or "bgr" '
                f"(OpenCV's); {got}"
            )
        self.live = live
        self.color = color
        self._frames = frames
        self._iterator: Iterator[Any] | None = None
        self._number = 0

    def open(self) -> None:
        """Ask the iterable for its iterator, once."""
        if self._iterator is None:
            try:
                self._iterator = iter(self._frames)
            except Exception as error:  # whatever the program raises
                raise self._broken(error) from error

    def read(self) -> Captured:
        """Return the next array; waits as long as the iterable does."""
        if self._iterator is None:
            raise StreamEnded("the frames are not open, or closed; open them first")
        try:
            array = next(self._iterator)
        except StopIteration:
            raise StreamEnded(f"the iterable ended after frame {self._number}") from None
        except Exception as error:  # as in `open`
            raise self._broken(error) from error
        if array is None:
            raise StreamEnded(
                f"the iterable gave None after frame {self._number}: taken as its end"
            )
        start = time.monotonic()
        pixels = _checked(array, self._number).copy()
        self._number += 1
        return Captured(pixels, self.color, at=start, taken=time.monotonic() - start)

    def close(self) -> None:
        """Let a generator end; what it raises then is its own affair."""
        iterator, self._iterator = self._iterator, None
        ending = getattr(iterator, "close", None)
        if callable(ending):
            try:
                ending()
            except Exception as error:
                raise self._broken(error) from error

    def describe(self) -> str:
        """Return its type."""
        return f"frames of a {type(self._frames).__name__}"

    def _broken(self, error: Exception) -> StreamBroken:
        return StreamBroken(
            f"the iterable raised {type(error).__name__} after frame {self._number}: "
            f"{one_line(str(error)) or 'it does not say why'}"
        )


def _checked(array: object, number: int) -> npt.NDArray[np.uint8]:
    """Return an array as a frame (H, W, 3) or (H, W). Raises UsageError."""
    expected = f"frame {number}: expected a uint8 array (H, W, 3) or (H, W)"
    if not isinstance(array, np.ndarray):
        raise UsageError(f"{expected}, got {type(array).__name__}; give NumPy arrays")
    got = f"{expected}, got {array.dtype} {array.shape}"
    if array.dtype != np.uint8:
        raise UsageError(f"{got}; scale it to 0..255 and convert it: array.astype(numpy.uint8)")
    shape = array.shape
    if len(shape) == 3 and shape[2] == 1:
        return array[:, :, 0]
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] != 3):
        raise UsageError(f"{got}; {_hint(shape)}")
    if 0 in shape:
        raise UsageError(f"{got}; leave a frame without pixels out")
    return array


def _hint(shape: tuple[int, ...]) -> str:
    if len(shape) == 3 and shape[2] == 4:
        return "leave the fourth channel out: array[:, :, :3]"
    if len(shape) == 3 and shape[0] in (1, 3):
        return "put the channels last: array.transpose(1, 2, 0)"
    return "give one frame at a time" if len(shape) == 4 else "give whole frames"
