"""What frames come from, as the camera sees it: opened, read one by one, closed, opened again."""

from __future__ import annotations

import time
from abc import abstractmethod
from dataclasses import dataclass, field
from datetime import datetime, timezone

import numpy as np
import numpy.typing as npt

from fgdeploy.core.closing import Closing
from fgdeploy.core.errors import ImageError


class StreamBroken(ImageError):
    """A stream that cannot be opened, stalls, or breaks off; opening it again may help."""


class StreamEnded(StreamBroken):
    """The end of what there is: of a file for good, of a live stream until it is opened again."""


class BrokenFrame(ImageError):
    """One frame that is damaged; the next may be whole."""


@dataclass(frozen=True)
class Captured:
    """One frame. pixels: uint8 (H, W, 3), or (H, W) grey; color: `rgb` or `bgr`.

    when: it was captured, UTC, by a clock that may be set; at: its data had come, by a clock that
    never goes back (time.monotonic). taken: seconds from then until it was decoded. whole: the
    frame that pixels are a region of, if they are one.
    """

    pixels: npt.NDArray[np.uint8]
    color: str
    when: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    at: float = field(default_factory=time.monotonic)
    taken: float = 0.0
    whole: npt.NDArray[np.uint8] | None = None


class CaptureSource(Closing):
    """Gives frames. live: they come whether or not anyone is ready, so the newest count.

    lasts: whether it can be opened again after its end or a fault (a camera, a stream), or is used
    up then (a file, a folder, an iterable). longest: seconds that it lets opening or one frame
    take; None where it waits as long as whatever gives the frames.
    """

    live: bool
    lasts: bool
    longest: float | None = None

    def again(self) -> CaptureSource:
        """Return another one of the same thing, to be opened, where it lasts. Raises StreamEnded.

        The old one may be in use still, by a thread that hangs in it.
        """
        raise StreamEnded(f"{self.describe()} is used up; open it anew")

    @abstractmethod
    def open(self) -> None:
        """Start giving frames, within a bounded time. Raises StreamBroken."""

    @abstractmethod
    def read(self) -> Captured:
        """Return the next frame, within a bounded time.

        Raises StreamEnded, StreamBroken, or BrokenFrame for one that is to be skipped.
        """

    def interrupt(self) -> None:
        """End a read or a wait that runs in another thread, where that can be done; else nothing.

        Only `close` of the reading thread must follow. Any thread may call it.
        """
        return None

    @abstractmethod
    def describe(self) -> str:
        """Return what it is, in one line, without passwords."""
