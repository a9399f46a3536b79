from __future__ import annotations

from pathlib import Path

import numpy as np

from fgdeploy.camera.capture_source import BrokenFrame, StreamEnded
from fgdeploy.camera.photo_source import PhotoSource
from fgdeploy.core.errors import DataError
from fgdeploy.photos.images import decode
from tests.checks import refused
from tests.fgdeploy.camera.mjpeg_server import jpeg_of

_PIXELS = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)


def test_photos_come_in_order_and_bad_ones_are_broken_frames(tmp_path: Path) -> None:
    jpeg = jpeg_of(_PIXELS)
    (tmp_path / "a.jpg").write_bytes(jpeg)
    (tmp_path / "b.jpg").write_bytes(jpeg[:-700])
    (tmp_path / "c.nef").write_bytes(b"raw")
    (tmp_path / "d.jpg").write_bytes(jpeg)
    source = PhotoSource(tmp_path)
    assert not source.live and not source.lasts
    source.open()
    with refused(BrokenFrame, "raw camera data"):  # what the listing left out comes first
        source.read()
    first = source.read()
    np.testing.assert_array_equal(first.pixels, np.asarray(decode(jpeg)))
    assert first.color == "rgb"
    with refused(BrokenFrame, "b.jpg is damaged"):
        source.read()
    source.read()
    with refused(StreamEnded, "all photos"):
        source.read()
    assert source.describe() == f"photos of {tmp_path}"


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with refused(DataError, "no images"):
        PhotoSource(tmp_path).open()


def test_closing_forgets_what_was_left(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg_of(_PIXELS))
    with PhotoSource(tmp_path) as source:
        source.open()
    with refused(StreamEnded, "all photos"):
        source.read()
