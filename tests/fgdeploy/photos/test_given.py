"""What a program may hand over as an image, and what is refused in words."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from fgdeploy.core.errors import ImageError, UsageError
from fgdeploy.photos.given import several
from fgdeploy.photos.images import decode
from fgdeploy.photos.pixels import Reading
from tests.checks import refused
from tests.fgdeploy.pictures import RED, WHITE, only_colour, pixels, smooth

GREY = np.full((5, 7), 9, np.uint8)
BLUE = RED[::-1]


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (GREY, (9, 9, 9)),
        (GREY[:, :, None], (9, 9, 9)),
        (np.full((5, 7, 3), RED, np.uint8), RED),
        (np.full((5, 7, 4), (*RED, 255), np.uint8), RED),
        (np.full((5, 7, 4), (*RED, 0), np.uint8), WHITE),
        (np.full((10, 14, 3), RED, np.uint8)[::2, ::-2], RED),
        (np.asfortranarray(np.full((5, 7, 3), RED, np.uint8)), RED),
    ],
)
def test_arrays(array: npt.NDArray[np.uint8], expected: tuple[int, ...]) -> None:
    for given in (array, memoryview(array)):
        image = decode(given)
        assert image.size == (7, 5)
        assert only_colour(image) == expected


@pytest.mark.parametrize("alpha", [(), (255,)])
def test_bgr_by_saying_so(alpha: tuple[int, ...]) -> None:
    array = np.full((5, 7, 3 + len(alpha)), (*RED, *alpha), np.uint8)
    assert only_colour(decode(array, reading=Reading("bgr"))) == BLUE
    assert only_colour(decode(GREY, reading=Reading("bgr"))) == (9, 9, 9)
    image = Image.new("RGB", (4, 4), RED)  # which says itself what it is
    assert only_colour(decode(image, reading=Reading("bgr"))) == RED


@pytest.mark.parametrize("kind", ["<u2", ">u2"])
@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_sixteen_bit_arrays_with_their_depth(kind: str, channels: tuple[int, ...]) -> None:
    array = np.full((5, 7, *channels), 0xABC, kind)
    assert only_colour(decode(array, reading=Reading(bit_depth=12))) == (0xAB, 0xAB, 0xAB)
    with refused(
        ImageError, r"got (uint16|>u2) \(.*\); say how many bits count, such as bit_depth=12"
    ):
        decode(array)


@pytest.mark.parametrize(
    ("array", "hint"),
    [
        (np.zeros((5, 7, 3), np.float32), "scale it to 0..255 without NaN and convert it"),
        (np.full((5, 7), np.nan), "scale it to 0..255 without NaN and convert it"),
        (np.zeros((5, 7, 3), np.int64), "convert it first"),
        (np.zeros((5, 7, 3), bool), "convert it first"),
        (np.zeros((5, 7, 2), np.uint8), "convert it first"),
        (np.zeros((3, 5, 7), np.uint8), r"put the channels last: array.transpose\(1, 2, 0\)"),
        (np.zeros((1, 5, 7), np.uint8), r"put the channels last: array.transpose\(1, 2, 0\)"),
        (np.zeros((2, 5, 7, 3), np.uint8), "convert it first"),
        (np.zeros(7, np.uint8), r"for encoded bytes give array.tobytes\(\)"),
        (np.zeros((), np.uint8), "convert it first"),
        (np.array([[None]]), "give a list of images instead"),
        (np.array([["a.jpg"]]), "give a list of paths instead"),
    ],
    ids=lambda value: f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray) else "",
)
def test_other_arrays_are_refused(array: npt.NDArray[Any], hint: str) -> None:
    got = rf"got {array.dtype} \({', '.join(map(str, array.shape))},?\)"
    with refused(ImageError, rf"expected a uint8 array .*{got}; {hint}"):
        decode(array)


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (0, 0)])
def test_array_without_pixels_is_refused(shape: tuple[int, ...]) -> None:
    with refused(ImageError, r"expected an image with pixels, got an array of shape \("):
        decode(np.zeros(shape, np.uint8))


# --- encoded images


@pytest.fixture
def jpeg() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(smooth(40, 30)).save(stream, "JPEG")
    return stream.getvalue()


def _pipe(content: bytes) -> io.BufferedReader:
    into, out = os.pipe()
    os.write(out, content)
    os.close(out)
    return os.fdopen(into, "rb")


@pytest.mark.parametrize(
    "hold",
    [bytes, bytearray, memoryview, lambda content: memoryview(content + b"")[:], io.BytesIO, _pipe],
)
def test_encoded_bytes_and_open_files(jpeg: bytes, hold: Callable[[bytes], Any]) -> None:
    given = hold(jpeg)
    np.testing.assert_array_equal(
        pixels(decode(given)), pixels(decode(Image.open(io.BytesIO(jpeg))))
    )
    if hasattr(given, "close"):
        given.close()


def test_a_file_is_read_from_where_it_stands(tmp_path: Path, jpeg: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(b"head" + jpeg)
    with open(tmp_path / "a.jpg", "rb") as stream:
        stream.seek(4)
        assert decode(stream).size == (40, 30)
        with refused(ImageError, r"^the image in memory is damaged or unreadable: it is empty"):
            decode(stream)
    with refused(ImageError, r"^the open file cannot be read: .* closed file; open it again$"):
        decode(stream)
    with (
        open(tmp_path / "a.jpg", encoding="latin-1") as text,
        refused(ImageError, r"^the open file gives str, expected bytes; open it with 'rb'$"),
    ):
        decode(text)  # type: ignore[arg-type]


def test_bytes_that_are_no_image() -> None:
    with refused(ImageError, r"^the image in memory is not an image that can be read"):
        decode(b"a.jpg")


# --- one or several


def test_one_image_or_several(tmp_path: Path, jpeg: bytes) -> None:
    frame = np.zeros((4, 5, 3), np.uint8)
    with io.BytesIO(jpeg) as stream:
        for one in (
            "a.jpg",
            tmp_path,
            frame,
            Image.new("L", (2, 2)),
            jpeg,
            memoryview(jpeg),
            stream,
        ):
            assert list(several(one)) == [one] or one is frame
    assert len(list(several(frame))) == 1
    assert len(list(several(np.zeros((2, 4, 5, 3), np.uint8)))) == 2
    assert len(list(several(np.zeros((0, 4, 5, 3), np.uint8)))) == 0
    assert list(several(path for path in ("a", "b"))) == ["a", "b"]
    with refused(UsageError, r"^expected a path, encoded bytes, .* or several of them, got int$"):
        several(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [{"color": "grb"}, {"color": "BGR"}, {"bit_depth": 7}, {"bit_depth": 17}]
)
def test_readings_that_can_never_be_right(wrong: dict[str, Any]) -> None:
    with refused(UsageError, r"expected (rgb or bgr|8 to 16 \(--bit-depth\))$"):
        Reading(**wrong)
