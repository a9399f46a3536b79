"""Annotated frames: the picture stays as it is, any text is safe, sides are even."""

from __future__ import annotations

import numpy as np
import pytest

from fgdeploy.camera.annotating import LARGEST, Note, annotated

ORANGE = (230, 159, 0)


def frame(height: int = 120, width: int = 160) -> np.ndarray:
    pixels = np.full((height, width, 3), 90, np.uint8)
    pixels[..., 2] = 200
    return pixels


def test_the_frame_stands_above_its_note() -> None:
    found = annotated(frame(), "rgb", Note("owl", ["distance 3"]))
    assert found.size[0] == 160 and found.size[1] > 120
    pixels = np.asarray(found)
    np.testing.assert_array_equal(pixels[:120], frame())
    red, _, blue = pixels[120:].transpose(2, 0, 1).astype(int)
    assert (red - blue > 100).any()  # the title
    assert (blue > 150).any()  # the fact
    empty = np.asarray(annotated(frame(), "rgb", Note("", [""])))
    assert empty.shape == pixels.shape  # a video's pictures have one size
    assert len(np.unique(empty[120:].reshape(-1, 3), axis=0)) == 1


def test_bgr_and_grey_look_as_they_are() -> None:
    shown = annotated(frame()[..., ::-1], "bgr", Note("x"))
    np.testing.assert_array_equal(np.asarray(shown)[:120], frame())
    grey = annotated(np.full((8, 8), 7, np.uint8), "rgb", Note("x"))
    assert np.asarray(grey)[0, 0].tolist() == [7, 7, 7]


def test_the_region_is_framed_where_it_lies() -> None:
    pixels = np.asarray(annotated(frame(), "rgb", Note("x", box=(40, 30, 80, 90))))
    assert tuple(pixels[30, 60]) == tuple(pixels[89, 60]) == ORANGE
    assert tuple(pixels[60, 40]) == tuple(pixels[60, 79]) == ORANGE
    assert tuple(pixels[60, 60]) == (90, 90, 200)
    assert tuple(pixels[20, 20]) == (90, 90, 200)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (719, 1279), (2000, 3001)])
def test_both_sides_are_even_and_bounded(height: int, width: int) -> None:
    found = annotated(np.zeros((height, width, 3), np.uint8), "rgb", Note("x", box=(0, 0, 1, 1)))
    assert found.width % 2 == found.height % 2 == 0
    assert 2 <= found.width <= LARGEST


@pytest.mark.parametrize(
    "text",
    ["", "x" * 10_000, "\u9ce5 \u0416\u0443\u043a \u05e2\u05d1", "\ud800", "\x1b[31m\n\0", 
     "\U0001f98b",
     "\u202eabc", "e\u0301" * 300],
)  # fmt: skip
def test_any_text_is_safe_and_stays_within(text: str) -> None:
    size = annotated(frame(), "rgb", Note("owl")).size
    assert annotated(frame(), "rgb", Note(text)).size == size
    annotated(frame(), "rgb", Note("owl", [text, text]))


def test_letters_that_the_font_lacks_are_told_apart() -> None:
    one, other = (np.asarray(annotated(frame(), "rgb", Note(text))) for text in "\u9ce5\u9b5a")
    assert (one != other).any()
