"""The part of each frame that counts, as a view of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from fgdeploy.core.errors import UsageError
from fgdeploy.core.text import shown

_FORM = "expected X,Y,W,H in pixels (400,200,640,640) or all in per cent (10%,10%,80%,80%)"
_PIXEL = re.compile(r"[0-9]{1,6}", re.ASCII)
_SHARE = re.compile(r"([0-9]{1,3}(\.[0-9]{1,6})?)%", re.ASCII)


@dataclass(frozen=True)
class Region:
    """A rectangle: left and upper edge, width and height, in whole pixels, or shares in 0..1.

    Raises UsageError for one without area, or beyond the frame as far as shares tell that.
    """

    x: float
    y: float
    width: float
    height: float
    shares: bool = False

    def __post_init__(self) -> None:
        if self.x < 0 or self.y < 0 or self.width <= 0 or self.height <= 0:
            raise UsageError(f"region {self}: expected an area of at least one pixel")
        beyond = max(self.x + self.width, self.y + self.height) > 1 + 1e-9
        if self.shares and beyond:
            raise UsageError(f"region {self}: goes beyond 100% of the frame; make it smaller")

    @classmethod
    def parse(cls, text: str) -> Region:
        """Return the region that a text means, such as `400,200,640,640` or `10%,10%,80%,80%`."""
        parts = text.replace(" ", "").split(",")
        if len(parts) == 4 and all(map(_PIXEL.fullmatch, parts)):
            x, y, width, height = map(int, parts)
            return cls(x, y, width, height)
        if len(parts) == 4 and all(map(_SHARE.fullmatch, parts)):
            left, top, across, down = (float(part[:-1]) / 100 for part in parts)
            return cls(left, top, across, down, shares=True)
        raise UsageError(f"region {shown(text)}: {_FORM}")

    def __str__(self) -> str:
        sides = (self.x, self.y, self.width, self.height)
        return ",".join(f"{100 * side:g}%" if self.shares else f"{side:g}" for side in sides)

    def within(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return left, top, right, bottom in pixels of a frame, right and bottom outside.

        Raises UsageError where it does not lie within the frame.
        """
        if not self.shares:
            found = (self.x, self.y, self.x + self.width, self.y + self.height)
            left, top, right, bottom = map(int, found)
        else:
            left, right = (round(side * width) for side in (self.x, self.x + self.width))
            top, bottom = (round(side * height) for side in (self.y, self.y + self.height))
        if right > width or bottom > height or right <= left or bottom <= top:
            raise UsageError(
                f"region {self} does not lie within frames of {width}x{height} pixels; "
                f"give one such as {_middle(width, height)}"
            )
        return left, top, right, bottom

    def of(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the region of pixels (H, W, ...), a view. Raises UsageError as `within` does."""
        height, width = pixels.shape[:2]
        left, top, right, bottom = self.within(width, height)
        return pixels[top:bottom, left:right]


def _middle(width: int, height: int) -> str:
    """Return the square in the middle of a frame, as an example."""
    side = min(width, height)
    return ",".join(map(str, ((width - side) // 2, (height - side) // 2, side, side)))
