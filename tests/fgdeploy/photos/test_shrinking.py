"""A photo as a thumbnail."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgdeploy.core.errors import ImageError
from fgdeploy.photos import thumbnail
from fgdeploy.photos.pixels import Reading
from fgdeploy.photos.shrinking import MOST_BYTES
from tests.checks import refused


def opened(jpeg: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(jpeg))
    assert (image.format, image.mode) == ("JPEG", "RGB")
    return image


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((800, 600), (341, 256)),
        ((600, 800), (256, 341)),
        ((100, 60), (100, 60)),  # never made larger
        ((5000, 300), (1024, 61)),
        ((4000, 2), (1024, 1)),
    ],
)
def test_its_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert opened(thumbnail(Image.new("RGB", size, "green"))).size == expected


def test_it_is_upright_and_in_rgb(tmp_path: Path) -> None:
    image = Image.new("RGB", (400, 300), "blue")
    image.paste("red", (0, 0, 400, 150))
    exif = Image.Exif()
    exif[274] = 3  # turned by 180 degrees
    image.save(tmp_path / "turned.png", exif=exif)
    found = np.asarray(opened(thumbnail(tmp_path / "turned.png")))
    assert found[10, 10].argmax() == 2 and found[-10, 10].argmax() == 0


def test_noise_is_held_to_its_size() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 1024, 3), dtype=np.uint8)
    assert len(thumbnail(noise)) <= MOST_BYTES
    assert len(thumbnail(noise[:64, :64], quality=90)) > 5000  # where it fits, the quality stays


def test_a_frame_of_a_camera_as_it_comes() -> None:
    frame = np.zeros((300, 400, 3), np.uint8)
    frame[..., 0] = 200  # blue, as OpenCV has it
    found = np.asarray(opened(thumbnail(frame, Reading("bgr"))))
    assert found[5, 5].argmax() == 2


def test_what_is_no_photo_is_refused() -> None:
    with refused(ImageError, "no"):
        thumbnail(b"nothing of the kind")


def encoded(size: tuple[int, int], **options: object) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, "green").save(stream, "JPEG", **options)
    return stream.getvalue()


def test_a_small_jpeg_is_its_own_thumbnail() -> None:
    small = encoded((300, 200))
    assert thumbnail(small) == small
    assert thumbnail(encoded((300, 300))) != encoded((300, 300))  # too large


def test_a_small_jpeg_that_tells_more_than_its_picture_is_written_anew() -> None:
    exif = Image.Exif()
    exif[270] = "taken at home"
    for telling in (encoded((30, 20), exif=exif), encoded((30, 20), comment="taken at home")):
        assert b"home" in telling
        assert b"home" not in thumbnail(telling)
    cut = encoded((300, 200))[:-200]
    with refused(ImageError, "damaged|truncated"):
        thumbnail(cut)
