from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fgdeploy.camera.array_source import ArraySource
from fgdeploy.camera.capture_source import StreamBroken, StreamEnded
from fgdeploy.core.errors import UsageError
from tests.checks import refused

_FRAME = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


def _opened(frames: Any, color: str | None = "rgb") -> ArraySource:
    source = ArraySource(frames, color)
    source.open()
    return source


def test_frames_come_in_order_with_their_colour() -> None:
    source = _opened([_FRAME, _FRAME[:, :, 0], _FRAME[:, :, :1]], "bgr")
    captured = [source.read() for _ in range(3)]
    assert [one.color for one in captured] == ["bgr"] * 3
    np.testing.assert_array_equal(captured[0].pixels, _FRAME)
    np.testing.assert_array_equal(captured[1].pixels, _FRAME[:, :, 0])
    np.testing.assert_array_equal(captured[2].pixels, _FRAME[:, :, 0])
    with refused(StreamEnded, "ended after frame 3"):
        source.read()


def test_a_generator_may_reuse_its_buffer() -> None:
    def frames() -> Iterator[npt.NDArray[np.uint8]]:
        buffer = np.zeros((2, 2, 3), np.uint8)
        for value in (1, 2):
            buffer[...] = value
            yield buffer

    source = _opened(frames())
    assert [int(source.read().pixels[0, 0, 0]) for _ in range(2)] == [1, 2]
    first, second = (lambda s: (s.read(), s.read()))(_opened(frames()))
    assert (first.pixels == 1).all() and (second.pixels == 2).all()


@pytest.mark.parametrize("color", [None, "RGB", "hsv"])
def test_the_colour_order_must_be_said(color: str | None) -> None:
    with refused(UsageError, "say the order of their channels"):
        ArraySource([_FRAME], color)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (_FRAME.astype(np.float32), "got float32 .*scale it to 0..255"),
        (_FRAME.astype(np.uint16), "got uint16"),
        (_FRAME.transpose(2, 0, 1), "channels last"),
        (np.zeros((4, 5, 4), np.uint8), "fourth channel"),
        (np.zeros((2, 4, 5, 3), np.uint8), "one frame at a time"),
        (np.zeros(60, np.uint8), "whole frames"),
        (np.zeros((0, 5, 3), np.uint8), "without pixels"),
        ([[1, 2], [3, 4]], "got list"),
        ("photo.jpg", "got str"),
    ],
)
def test_other_arrays_are_refused_in_a_line(array: object, words: str) -> None:
    source = _opened([_FRAME, array])
    source.read()
    with refused(UsageError, f"frame 1: expected a uint8 array.*{words}"):
        source.read()


def test_none_is_the_end() -> None:
    source = _opened([None, _FRAME])
    with refused(StreamEnded, "gave None after frame 0"):
        source.read()


def test_an_exception_is_told() -> None:
    def frames() -> Iterator[npt.NDArray[np.uint8]]:
        yield _FRAME
        raise ValueError("the cable\nis out")

    source = _opened(frames())
    source.read()
    with refused(StreamBroken, "raised ValueError after frame 1: the cable is out"):
        source.read()
    with refused(StreamEnded, "ended"):
        source.read()


def test_something_whose_iterator_fails_is_broken() -> None:
    class Broken:
        def __iter__(self) -> Iterator[Any]:
            raise OSError("no device")

    with refused(StreamBroken, "OSError after frame 0: no device"):
        _opened(Broken())


def test_closing_ends_the_generator() -> None:
    ended = []

    def frames() -> Iterator[npt.NDArray[np.uint8]]:
        try:
            yield _FRAME
        finally:
            ended.append(True)

    source = _opened(frames())
    source.read()
    source.close()
    source.close()
    assert ended == [True]
    with refused(StreamEnded, "not open"):
        source.read()
    assert source.describe() == "frames of a generator"
