"""Frames into an index under a label, while the camera runs: no photo needs to be kept.

Each is an item with a URI for its path, `camera://NAME/2026-11-28T01:14:00.123456Z`, in a
transaction of its own: once `enrol` has returned, it is on the disk.
"""

from __future__ import annotations

import re
from datetime import timedelta, timezone
from urllib.parse import urlsplit

from fgdeploy.camera.camera_result import CameraResult
from fgdeploy.camera.capture_source import Captured
from fgdeploy.core.errors import IndexStoreError, UsageError
from fgdeploy.core.text import is_utf8, shown
from fgdeploy.live.pair import Pair
from fgdeploy.photos import Reading, thumbnail
from fgdeploy.retrieval import Index, Item

_LONGEST = 64  # characters of a camera's name
_SAFE = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_STEP = timedelta(microseconds=1)


def name_of(source: str) -> str:
    """Return what to call a source in URIs: a file's name, a stream's host and path, a number.

    Of passwords, queries and characters with a meaning in URIs it has none.
    """
    if "://" in source:
        parts = urlsplit(source)
        source = f"{parts.netloc.rpartition('@')[2]}{parts.path}"
    elif "!" not in source:  # no pipeline
        source = source.rstrip("/").rpartition("/")[2]
    return "-".join(_SAFE.findall(source))[:_LONGEST].strip("-.") or "camera"


def check_label(label: str) -> None:
    """Raise UsageError for a label that names nothing."""
    if not label.strip() or not is_utf8(label):
        raise UsageError(f"label {shown(repr(label))}: expected a name for what is enrolled")


def check_name(name: str) -> None:
    """Raise UsageError for a camera's name that cannot stand in URIs as it is."""
    if not _SAFE.fullmatch(name) or len(name) > _LONGEST:
        raise UsageError(
            f"name {shown(repr(name))}: expected at most {_LONGEST} letters, digits and ._-"
        )


class Enroller:
    """Adds frames of one camera to an index, all under one label.

    name: of the camera, in the items' URIs: letters, digits and `._-`. Where the index keeps
    thumbnails, what was hashed of the frame goes in as one. index: or a pair, of which frames go
    into the index of now. enrolled: how many were added; repeated: how many were not, as their code
    is that of the one before; missed: how many as their index was replaced that moment. Raises
    UsageError.
    """

    def __init__(self, index: Index | Pair, label: str, name: str = "camera") -> None:
        check_label(label)
        check_name(name)
        self.index, self.label, self.name = index, label, name
        self.enrolled = self.repeated = self.missed = 0
        self._last: bytes | None = None

    def enrol(self, result: CameraResult) -> Item | None:
        """Add a frame and return its item, on the disk by now; None for one that was left out.

        Raises IndexStoreError, and the frame is not in.
        """
        if isinstance(self.index, Index):
            return self._enrol(self.index, result)
        with self.index.using() as both:
            try:
                return self._enrol(both.index, result)
            except IndexStoreError:
                if both.index.is_current():
                    raise
        self.missed += 1  # its code is of the old model; the next frame's is of the new one
        return None

    def _enrol(self, index: Index, result: CameraResult) -> Item | None:
        if result.code == self._last:
            self.repeated += 1
            return None
        time = result.time.astimezone(timezone.utc)
        item = Item(self._free_path(index, result), result.code, self.label, time=time.isoformat())
        pictures = [_picture(result.captured)] if index.thumbnails.kept else None
        index.add([item], thumbnails=pictures)
        self._last = result.code
        self.enrolled += 1
        return item

    def _free_path(self, index: Index, result: CameraResult) -> str:
        """Return a URI that no item has, also where the clock was set back to a time of before."""
        time = result.time.astimezone(timezone.utc)
        while True:
            text = time.replace(tzinfo=None).isoformat(timespec="microseconds")
            path = f"camera://{self.name}/{text}Z"
            if not index.by_path([path], checked=False):
                return path
            time += _STEP


def _picture(captured: Captured) -> bytes:
    return thumbnail(captured.pixels, Reading(captured.color))
