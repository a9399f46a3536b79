"""Decoded video to RGB as it is meant to be seen: its matrix, its range, its turn."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

# From what a frame says of itself (ITU-T H.273, matrix coefficients) to swscale's constants.
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_BT709, _BT601 = 1, 5  # the latter for frames that do not say: as FFmpeg and OpenCV take them
_LIMITED, _FULL = 1, 2
# Without a range these are full; YUV is limited.
_FULL_FORMATS = ("yuvj", "gray", "rgb", "bgr", "gbr", "argb", "abgr", "0rgb", "0bgr", "pal", "mono")


class UprightRgb:
    """Converts frames of PyAV, of any format and size, keeping what it needs between two."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._degrees: object = self  # of the frame before, as PyAV tells them; none yet
        self._turn: bytes | None = None

    def of(self, frame: Any) -> npt.NDArray[np.uint8]:
        """Return a frame as uint8 (H, W, 3). Raises what FFmpeg does for formats it cannot read."""
        says = int(frame.color_range)
        full = says == _FULL or (says != _LIMITED and frame.format.name.startswith(_FULL_FORMATS))
        matrix = _MATRICES.get(int(frame.colorspace), _BT601)
        # Said explicitly, as PyAV 14 takes every frame for BT.601, whatever it says; and with
        # another matrix for RGB, which has none, as it leaves the range alone where both are one.
        converted = self._reformatter.reformat(
            frame,
            format="rgb24",
            src_colorspace=matrix,
            dst_colorspace=_BT709 if matrix == _BT601 else _BT601,
            src_color_range=_FULL if full else _LIMITED,
            dst_color_range=_FULL,
        )
        pixels = np.asarray(converted.to_ndarray(), np.uint8)
        turn = self._turn_of(frame)
        return pixels if turn is None else _turned(pixels, turn)

    def _turn_of(self, frame: Any) -> bytes | None:
        """Return the display matrix of a frame, looked up again where its angle changes.

        A frame whose side data was asked for lives until Python's garbage collector runs, as both
        hold each other (PyAV 18.1): hundreds of MiB, if it were asked of each.
        """
        degrees = getattr(frame, "rotation", None)
        if degrees != self._degrees:
            self._degrees = degrees
            matrix = frame.side_data.get("DISPLAYMATRIX")
            self._turn = None if matrix is None else bytes(matrix)
        return self._turn


def _turned(pixels: npt.NDArray[np.uint8], matrix: bytes) -> npt.NDArray[np.uint8]:
    """Turn and mirror by a display matrix (ISO/IEC 14496-12, 8.3.2); other turns are left alone.

    It maps (x, y), y down, to (a x + c y, b x + d y).
    """
    if len(matrix) != 36:
        return pixels
    a, b, _, c, d = struct.unpack("=9i", matrix)[:5]
    if (b, c) == (0, 0) and a and d:
        return np.ascontiguousarray(pixels[:: 1 if d > 0 else -1, :: 1 if a > 0 else -1])
    if (a, d) == (0, 0) and b and c:
        turned = pixels.transpose(1, 0, 2)
        return np.ascontiguousarray(turned[:: 1 if b > 0 else -1, :: 1 if c > 0 else -1])
    return pixels
