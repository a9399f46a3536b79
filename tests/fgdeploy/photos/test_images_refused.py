"""Arrays and files as images, and what is refused as none, in one line."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fgdeploy.core.errors import ImageError
from fgdeploy.photos.images import decode
from tests.checks import refused
from tests.fgdeploy.pictures import RED, only_colour, pixels, preprocess, smooth

# --- arrays and images that a program holds; more in test_given.py


def test_array_given_is_not_changed() -> None:
    array = smooth(20, 10)
    array.flags.writeable = False
    image = decode(array)
    image.putpixel((0, 0), (1, 2, 3))
    np.testing.assert_array_equal(array, smooth(20, 10))


def test_pillow_image_given_is_not_changed() -> None:
    image = Image.fromarray(smooth(20, 10))
    decode(image).putpixel((0, 0), (1, 2, 3))
    np.testing.assert_array_equal(pixels(image), smooth(20, 10))


# --- what is refused


def test_float_pixels_are_refused() -> None:
    with refused(ImageError, r"32-bit float pixels have no defined range; convert to 8 or 16 bit"):
        decode(Image.new("F", (4, 4)))


@pytest.mark.parametrize(("mode", "value"), [("F", 0), ("I", -5)])
def test_refused_pixels_name_their_file(tmp_path: Path, mode: str, value: int) -> None:
    source = tmp_path / "depth.tif"
    Image.new(mode, (4, 4), value).save(source)
    with refused(ImageError, r"depth\.tif.*convert to 8 or 16 bit"):
        decode(source)


def test_missing_file(tmp_path: Path) -> None:
    with refused(ImageError, r"/no\.jpg: no such file; check the path$"):
        decode(tmp_path / "no.jpg")


def test_path_may_be_text(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), RED).save(tmp_path / "a.png")
    assert only_colour(decode(str(tmp_path / "a.png"))) == RED
    with refused(ImageError, r"/no\.jpg: no such file; check the path$"):
        decode(str(tmp_path / "no.jpg"))


def test_folder_is_no_image(tmp_path: Path) -> None:
    folder = tmp_path / "folder.jpg"
    folder.mkdir()
    with refused(ImageError, r"folder\.jpg is a folder; expected an image file"):
        decode(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_read_permission(tmp_path: Path) -> None:
    source = tmp_path / "locked.jpg"
    Image.new("RGB", (4, 4)).save(source)
    source.chmod(0)
    with refused(ImageError, r"locked\.jpg: not readable \(permission denied\); check its rights"):
        decode(source)


def test_permission_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", forbid)
    with refused(ImageError, r"^a\.jpg: not readable \(permission denied\); check its rights$"):
        decode("a.jpg")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"this is no photo\n",
        b"<html><body>404 Not Found</body></html>",
        b"\xff\xd8\xff",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",  # Pillow would start Ghostscript
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    ],
    ids=["empty", "text", "html", "jpeg marker only", "postscript", "svg"],
)
def test_file_that_is_no_image(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "a.jpg"
    source.write_bytes(content)
    with refused(ImageError, r"a\.jpg is (not an image .*; remove it or convert|damaged .*; repl)"):
        decode(source)


def test_text_named_jpg(tmp_path: Path) -> None:
    source = tmp_path / "a.jpg"
    source.write_text("this is no photo\n")
    with refused(ImageError, r"a\.jpg is not an image .*known: JPEG, .*; remove it or convert it"):
        decode(source)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "gif", "bmp"])
def test_file_cut_short(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"cut.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(source)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    with refused(ImageError, rf"cut\.{suffix} is (damaged|not an image).*; (replace|remove)"):
        preprocess().frame(source)


def test_pillow_image_of_a_file_cut_short(tmp_path: Path) -> None:
    source = tmp_path / "cut.jpg"
    Image.fromarray(smooth(64, 64)).save(source)
    source.write_bytes(source.read_bytes()[:-200])
    with (
        Image.open(source) as image,
        refused(
            ImageError,
            "the image in memory is damaged or unreadable: .*; replace the file",
        ),
    ):
        decode(image)


def test_changed_bytes_raise_nothing_but_image_errors(tmp_path: Path) -> None:
    chooser = np.random.default_rng(7)
    frames = 0
    for suffix in ("jpg", "png", "gif", "tif", "bmp", "webp"):
        source = tmp_path / f"a.{suffix}"
        Image.fromarray(smooth(24, 16)).save(source)
        whole = np.frombuffer(source.read_bytes(), np.uint8)
        for _ in range(60):
            changed = whole.copy()
            changed[chooser.integers(0, len(whole), 3)] = chooser.integers(0, 256, 3)
            source.write_bytes(changed.tobytes())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    frames += preprocess().frame(source).shape == (32, 32, 3)
                except ImageError as error:
                    assert source.name in str(error) and "\n" not in str(error)
    assert frames > 0


def test_path_with_a_zero_byte_is_refused() -> None:
    with refused(ImageError, r"a\\x00b\.jpg is damaged or unreadable: .*; replace the file"):
        decode("a\0b.jpg")


@pytest.mark.parametrize("source", [None, 3, object()])
def test_what_is_no_image_at_all_is_refused(source: Any) -> None:
    with refused(ImageError, r"a uint8 array or a Pillow image, got (NoneType|int|object)"):
        decode(source)


def test_name_with_a_newline_stays_on_one_line() -> None:
    with refused(ImageError, r"no such file; check the path"):
        decode("a\nb.jpg")
