"""Photos as frames: a folder, an image file or a list of photos, in order, each once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fgdeploy.camera.capture_source import BrokenFrame, Captured, CaptureSource, StreamEnded
from fgdeploy.core.errors import ImageError
from fgdeploy.photos.images import decode
from fgdeploy.photos.listing import read
from fgdeploy.photos.photo import Photo


class PhotoSource(CaptureSource):
    """Gives the photos of a place as `photos.listing.read` lists them.

    One that cannot be read is a BrokenFrame, as is what a folder's listing leaves out. shortest:
    see `decode`.
    """

    live = lasts = False

    def __init__(self, place: Path, shortest: int | None = None) -> None:
        self.place, self.shortest = place, shortest
        self._photos: Iterator[Photo | str] = iter(())

    def open(self) -> None:
        """List the photos. Raises DataError."""
        listing = read(self.place)
        self._photos = iter([*listing.skipped, *listing])

    def read(self) -> Captured:
        """Return the next photo, upright."""
        photo = next(self._photos, None)
        if photo is None:
            raise StreamEnded(f"all photos of {self.place} have been read")
        if isinstance(photo, str):
            raise BrokenFrame(photo)
        start = time.monotonic()
        try:
            pixels = np.asarray(decode(photo.path, self.shortest, photo.reading))
        except ImageError as error:
            raise BrokenFrame(str(error)) from error
        return Captured(pixels, "rgb", at=start, taken=time.monotonic() - start)

    def close(self) -> None:
        """Forget the listing."""
        self._photos = iter(())

    def describe(self) -> str:
        """Return the place."""
        return f"photos of {self.place}"
