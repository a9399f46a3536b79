from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.camera.sources import open_source
from tests.fgdeploy.camera.videos import Pixels, read_all, turn, write_planes, write_video

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
    ("codec", "pixel_format", "full"),
    [
        ("libx264", "yuv420p", False),
        ("libx264", "yuv420p", True),
        ("libx264", "yuvj420p", True),
        ("libx264", "yuv444p", False),
        ("libx264", "yuv420p10le", False),
        ("libx264rgb", "rgb24", False),
        ("ffv1", "yuv422p", False),
        ("ffv1", "bgr0", False),
    ],
)
def test_colours_are_right(tmp_path: Path, codec: str, pixel_format: str, full: bool) -> None:
    options = {"crf": "1"} if codec.startswith("libx264") else {}
    name = tmp_path / "v.mkv"
    pixels = _first(write_video(name, [_halves()] * 2, codec, pixel_format, options, full))
    assert abs(pixels[24, 16].astype(int) - _LEFT).max() <= 3
    assert abs(pixels[24, 48].astype(int) - _RIGHT).max() <= 3


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("matrix", "red", "blue"),  # the number and the weights of ITU-T H.273, table 4
    [
        (1, 0.2126, 0.0722),
        (5, 0.299, 0.114),
        (6, 0.299, 0.114),
        (7, 0.212, 0.087),
        (9, 0.2627, 0.0593),
        (2, 0.299, 0.114),  # unsaid
    ],
)
def test_each_matrix_and_range_is_read_as_the_standard_says(
    tmp_path: Path, matrix: int, red: float, blue: float, full: bool
) -> None:
    r, g, b = np.moveaxis(_halves() / 255.0, -1, 0)
    luma = red * r + (1 - red - blue) * g + blue * b
    chroma = [(b - luma) / (2 - 2 * blue), (r - luma) / (2 - 2 * red)]
    scale = (255, 0, 255) if full else (219, 16, 224)
    planes = [scale[0] * luma + scale[1], *(scale[2] * one + 128 for one in chroma)]
    video = write_planes(
        tmp_path / "v.mkv", np.stack(planes).round().astype(np.uint8), matrix, full
    )
    assert abs(_first(video).astype(int) - _halves()).max() <= 2


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


def test_frames_go_without_the_garbage_collector(tmp_path: Path) -> None:
    """Of 60 frames few are held, whenever the collector runs next."""
    from av import VideoFrame

    def held() -> int:
        return sum(type(one) is VideoFrame for one in gc.get_objects())

    source = open_source(write_video(tmp_path / "v.mp4", [_halves()] * 60))
    gc.collect()
    gc.disable()
    try:
        before = held()
        source.open()
        for _ in range(60):
            source.read()
        more = held() - before
    finally:
        gc.enable()
    assert more < 12  # one whose side data was asked for, and what threads have ahead
    source.close()
