from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fgdeploy.camera.sources import open_source
from tests.fgdeploy.camera.videos import Pixels, read_all, turn, write_video

pytest.importorskip("av")

_LEFT, _RIGHT = (220, 40, 60), (30, 180, 90)


def _halves(width: int = 64, height: int = 48) -> Pixels:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2] = _LEFT
    pixels[:, width // 2 :] = _RIGHT
    return pixels


def _first(video: Path) -> Pixels:
    return read_all(open_source(video))[0][0].pixels


@pytest.mark.parametrize(
    ("codec", "pixel_format", "matrix", "full"),
    [
        ("libx264", "yuv420p", None, False),
        ("libx264", "yuv420p", None, True),
        ("libx264", "yuv420p", 1, False),  # BT.709
        ("libx264", "yuv420p", 1, True),
        ("libx264", "yuv420p", 5, False),  # BT.601
        ("libx264", "yuv420p", 9, False),  # BT.2020
        ("libx264", "yuvj420p", None, True),
        ("libx264", "yuv444p", None, False),
        ("libx264", "yuv420p10le", None, False),
        ("libx264rgb", "rgb24", None, False),
        ("ffv1", "yuv422p", 1, False),
        ("ffv1", "bgr0", None, False),
    ],
)
def test_colours_are_right(
    tmp_path: Path, codec: str, pixel_format: str, matrix: int | None, full: bool
) -> None:
    options = {"crf": "1"} if codec.startswith("libx264") else {}
    video = write_video(
        tmp_path / "v.mkv", [_halves()] * 2, codec, pixel_format, options, matrix, full
    )
    pixels = _first(video).astype(int)
    assert abs(pixels[24, 16] - _LEFT).max() <= 3
    assert abs(pixels[24, 48] - _RIGHT).max() <= 3


def test_grey_is_grey(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], (48, 1, 3))
    video = write_video(tmp_path / "v.mkv", [ramp], "ffv1", "gray", full=True)
    assert abs(_first(video).astype(int) - ramp).max() <= 1


@pytest.mark.parametrize(("width", "height"), [(64, 48), (63, 47), (50, 37), (3, 5)])
def test_odd_sizes_keep_every_pixel(tmp_path: Path, width: int, height: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    video = write_video(tmp_path / "v.mkv", [pixels], "ffv1", "bgr0")
    np.testing.assert_array_equal(_first(video), pixels)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((1, 0, 0, 1), lambda shown: shown),
        ((0, 1, -1, 0), lambda shown: np.rot90(shown, -1)),  # a quarter turn clockwise
        ((-1, 0, 0, -1), lambda shown: np.rot90(shown, 2)),
        ((0, -1, 1, 0), np.rot90),
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((0, 1, 1, 0), lambda shown: shown.transpose(1, 0, 2)),
        ((0, -1, -1, 0), lambda shown: np.rot90(shown, 2).transpose(1, 0, 2)),
    ],
)
def test_turned_video_is_upright(tmp_path: Path, matrix: tuple[int, ...], expected: object) -> None:
    pixels = _halves()
    pixels[:20, :10] = 255
    video = write_video(tmp_path / "v.mp4", [pixels], options={"crf": "1"})
    plain = _first(video)
    if matrix != (1, 0, 0, 1):
        turn(video, *matrix)
    shown = _first(video)
    assert shown.flags.c_contiguous
    np.testing.assert_array_equal(shown, expected(plain))  # type: ignore[operator]
