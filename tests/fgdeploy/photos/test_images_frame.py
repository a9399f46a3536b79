from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from fgdeploy.core.errors import ImageError
from fgdeploy.photos.images import Preprocess, decode
from tests.checks import refused
from tests.fgdeploy.pictures import HALF, WHITE, preprocess, smooth

# --- size


def bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int) -> Path:
    source = tmp_path / "bomb.png"
    Image.new("L", (side, side)).save(source)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    return source


@pytest.mark.parametrize(("warn", "side"), [("error", 11), ("error", 15), ("ignore", 15)])
def test_more_pixels_than_pillow_allows(
    tmp_path: Path, warn: Any, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = bomb(tmp_path, monkeypatch, side)
    with warnings.catch_warnings():
        warnings.simplefilter(warn)
        with refused(ImageError, r"bomb\.png is too large to decode safely: .*limit of \d+ pixels"):
            decode(source)


def test_pillow_only_warns_and_we_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = bomb(tmp_path, monkeypatch, 11)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with refused(ImageError, r"bomb\.png has 11x11 pixels, more than .*limit of 100; scale it"):
            decode(source)


def test_image_at_the_limit_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert decode(bomb(tmp_path, monkeypatch, 10)).size == (10, 10)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decode(bomb(tmp_path, monkeypatch, 10)).size == (10, 10)


def test_bomb_limit_can_be_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = bomb(tmp_path, monkeypatch, 40)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decode(source).size == (40, 40)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 3), (33, 31)])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("resize", [32, 37])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int], suffix: str, resize: int) -> None:
    source = tmp_path / f"a.{suffix}"
    Image.new("RGB", size, (120, 120, 120)).save(source)
    frame = preprocess(32, resize).frame(source)
    assert frame.shape == (32, 32, 3) and frame.dtype == np.uint8
    assert np.abs(frame.astype(int) - 120).max() <= 1


def test_fifty_megapixels_are_decoded_at_a_smaller_scale(tmp_path: Path) -> None:
    """Draft mode gives nearly the frame of a full decode."""
    ramp = Image.linear_gradient("L")
    size = (8192, 6144)
    across, down = (turned.resize(size) for turned in (ramp.rotate(90), ramp))
    source = tmp_path / "large.jpg"
    Image.merge("RGB", (across, down, across)).save(source, quality=90)
    assert decode(source, shortest=80).size == (1024, 768)
    frame = preprocess().frame(source)
    with Image.open(source) as image:
        full = preprocess().frame(image)
    assert np.abs(frame.astype(int) - full).max() <= 2
    assert int(frame.max()) - int(frame.min()) > 150


def test_draft_never_goes_below_what_was_asked(tmp_path: Path) -> None:
    source = tmp_path / "a.jpg"
    Image.fromarray(smooth(640, 480)).save(source)
    for shortest in (1, 60, 61, 120, 121, 240, 241, 480, 2000):
        assert min(decode(source, shortest).size) >= min(shortest, 480)


# --- the frame, against a slow resize written out from its definition

KERNELS: dict[str, tuple[float, Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]]] = {
    "bilinear": (1, lambda x: np.maximum(1 - x, 0)),
    "bicubic": (
        2,
        lambda x: np.where(
            x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        ),
    ),
    "lanczos": (3, lambda x: np.sinc(x) * np.sinc(x / 3)),
}


def resize_matrix(old: int, new: int, interpolation: str) -> npt.NDArray[np.float64]:
    """Return the matrix (new, old) of one antialiased resize."""
    radius, kernel = KERNELS[interpolation]
    scale = old / new
    stretch = max(scale, 1)
    centres = (np.arange(new) + 0.5) * scale
    distance = np.abs(np.arange(old) + 0.5 - centres[:, None]) / stretch
    weights = np.where(distance < radius, kernel(distance), 0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def slow_frame(image: npt.NDArray[np.uint8], how: Preprocess) -> npt.NDArray[np.float64]:
    """Resize all of the image so that its short side is `resize`, then cut out the middle."""
    height, width = image.shape[:2]
    short = min(width, height)
    assert width * how.resize % short == 0 and height * how.resize % short == 0
    high, wide = height * how.resize // short, width * how.resize // short
    rows = resize_matrix(height, high, how.interpolation)
    columns = resize_matrix(width, wide, how.interpolation)
    resized = np.einsum("ih,jw,hwc->ijc", rows, columns, image, optimize=True)
    top, left = (high - how.size) // 2, (wide - how.size) // 2
    assert (high - how.size) % 2 == 0 and (wide - how.size) % 2 == 0
    return np.asarray(np.clip(resized[top : top + how.size, left : left + how.size], 0, 255))


@pytest.mark.parametrize("interpolation", KERNELS)
@pytest.mark.parametrize("size", [(300, 200), (200, 300), (160, 160), (60, 40), (20, 20)])
def test_frame_equals_a_slow_reference(size: tuple[int, int], interpolation: str) -> None:
    image, how = smooth(*size), preprocess(32, 40, interpolation)
    frame = how.frame(image)
    assert frame.shape == (32, 32, 3) and frame.dtype == np.uint8
    assert np.abs(frame - slow_frame(image, how)).max() <= 2


def test_frame_of_the_right_size_already_is_the_image() -> None:
    np.testing.assert_array_equal(preprocess(32, 32).frame(smooth(32, 32)), smooth(32, 32))


def test_frame_is_cut_from_the_middle() -> None:
    image = np.zeros((40, 80, 3), np.uint8)
    image[4:36, 24:56] = WHITE
    np.testing.assert_array_equal(preprocess(32, 40).frame(image), np.full((32, 32, 3), 255))


def test_frame_is_the_same_from_path_array_and_pillow(tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    array = smooth(90, 70)
    Image.fromarray(array).save(source)
    with Image.open(source) as image:
        frames = [preprocess().frame(kind) for kind in (source, str(source), array, image)]
    for frame in frames[1:]:
        np.testing.assert_array_equal(frame, frames[0])


# --- Preprocess in the manifest


def test_preprocess_survives_json() -> None:
    how = Preprocess(224, 256, "lanczos", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert Preprocess.from_json(json.loads(json.dumps(how.to_json()))) == how


def test_preprocess_json_says_what_the_graph_does() -> None:
    entry = preprocess().to_json()
    assert (entry["crop"], entry["colour"], entry["folded_into_graph"]) == ("center", "RGB", True)


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"size": 0}, r"crop size 0 must lie in 1\.\.40"),
        ({"size": -3}, r"crop size -3 must lie in 1\.\.40"),
        ({"size": 41}, r"crop size 41 must lie in 1\.\.40"),
        ({"interpolation": "nearest"}, r"'nearest' is none of bilinear, bicubic, lanczos"),
        ({"std": (0.5, 0.0, 0.5)}, r"std is above zero"),
        ({"std": (0.5, -1.0, 0.5)}, r"std is above zero"),
        ({"mean": (0.5, 0.5)}, r"mean and std take three values each"),
        ({"std": (0.5,) * 4}, r"mean and std take three values each"),
    ],
)
def test_preprocess_refuses(changes: dict[str, Any], pattern: str) -> None:
    values: dict[str, Any] = {
        "size": 32,
        "resize": 40,
        "interpolation": "bicubic",
        "mean": HALF,
        "std": HALF,
    }
    with refused(ValueError, pattern):
        Preprocess(**(values | changes))


@pytest.mark.parametrize("entry", ["size", "resize", "interpolation", "mean", "std"])
def test_preprocess_json_without_an_entry(entry: str) -> None:
    values = preprocess().to_json()
    del values[entry]
    with pytest.raises(KeyError, match=entry):
        Preprocess.from_json(values)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": "large"},
        {"size": None},
        {"size": []},
        {"size": 64},
        {"interpolation": None},
        {"mean": None},
        {"mean": [0.5, 0.5]},
        {"mean": [0.5] * 4},
        {"mean": ["a", "b", "c"]},
        {"std": [0.5, 0.5, 0]},
        {"std": [0.5] * 4},
        {"std": 0.5},
    ],
    ids=str,
)
def test_preprocess_json_of_wrong_values(changes: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=r"."):
        Preprocess.from_json(preprocess().to_json() | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": float("inf")},
        {"size": 32.9},
        {"mean": [float("nan")] * 3},
        {"std": [float("nan")] * 3},
        {"mean": "123"},
        {"colour": "BGR"},
        {"crop": "none"},
        {"folded_into_graph": False},
    ],
    ids=str,
)
def test_preprocess_json_that_would_give_other_pixels(changes: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=r"."):
        Preprocess.from_json(preprocess().to_json() | changes)
