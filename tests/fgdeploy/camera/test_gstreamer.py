"""Through a stand-in for OpenCV: the wheels that tests run with have no GStreamer."""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import pytest

from fgdeploy.camera.capture_source import StreamBroken, StreamEnded
from fgdeploy.camera.gstreamer import PipelineSource
from fgdeploy.camera.sources import open_source
from fgdeploy.core.errors import UsageError
from tests.checks import refused

_PIPELINE = "rtspsrc location=rtsp://a:hunter2@cam ! decodebin ! videoconvert ! appsink"


class _Capture:
    """Gives some frames, and keeps what it was opened with."""

    def __init__(self, frames: list[Any], opens: bool) -> None:
        self.frames, self.opens, self.released = list(frames), opens, 0

    def isOpened(self) -> bool:
        return self.opens

    def grab(self) -> bool:
        return bool(self.frames)

    def retrieve(self) -> tuple[bool, Any]:
        frame = self.frames.pop(0)
        return frame is not None, frame

    def release(self) -> None:
        self.released += 1


def _opencv(
    monkeypatch: pytest.MonkeyPatch, frames: list[Any], opens: bool = True, has: bool = True
) -> list[tuple[_Capture, tuple[Any, ...]]]:
    captures: list[tuple[_Capture, tuple[Any, ...]]] = []

    def capture(*args: Any) -> _Capture:
        captures.append((_Capture(frames, opens), args))
        return captures[-1][0]

    fake = types.SimpleNamespace(
        CAP_GSTREAMER=1800,
        __version__="4.8.0",
        VideoCapture=capture,
        videoio_registry=types.SimpleNamespace(hasBackend=lambda backend: has),
    )
    monkeypatch.setitem(sys.modules, "cv2", fake)  # type: ignore[arg-type]
    return captures


def test_without_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)  # type: ignore[arg-type]
    with refused(UsageError, "needs OpenCV built with GStreamer.*is not installed"):
        open_source(_PIPELINE)


def test_an_opencv_without_gstreamer(monkeypatch: pytest.MonkeyPatch) -> None:
    _opencv(monkeypatch, [], has=False)
    with refused(UsageError, "GSTREAMER backend, which this OpenCV 4.8.0 lacks, as all from PyPI"):
        open_source(_PIPELINE)


def test_the_wheel_from_pypi_has_no_gstreamer() -> None:
    cv2 = pytest.importorskip("cv2")
    if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        pytest.skip("this OpenCV has GStreamer")
    with refused(UsageError, "lacks"):
        open_source(_PIPELINE)


def test_frames_of_a_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    colour = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    captures = _opencv(monkeypatch, [colour, colour[:, :, 0], colour[:, :, :1]])
    source = open_source(_PIPELINE, open_s=4)
    assert isinstance(source, PipelineSource)
    assert (source.live, source.lasts, source.longest) == (True, True, 5)
    with refused(StreamEnded, "not open"):
        source.read()
    with source:
        source.open()
        assert captures[0][1] == (_PIPELINE, 1800)
        frames = [source.read() for _ in range(3)]
        with refused(StreamEnded, "ended"):
            source.read()
    assert captures[0][0].released == 1
    assert [frame.color for frame in frames] == ["bgr"] * 3
    np.testing.assert_array_equal(frames[0].pixels, colour)
    assert frames[2].pixels.shape == (4, 5)
    again = source.again()
    again.open()
    assert len(captures) == 2


def test_a_pipeline_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    captures = _opencv(monkeypatch, [], opens=False)
    with pytest.raises(StreamBroken, match="cannot be opened; try it with gst-launch") as caught:
        open_source(_PIPELINE).open()
    assert "hunter2" not in str(caught.value) and captures[0][0].released == 1


def test_other_frames_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _opencv(monkeypatch, [None, np.zeros((4, 5, 4), np.uint8), np.zeros((4, 5), np.uint16)])
    source = open_source(_PIPELINE)
    source.open()
    with refused(StreamBroken, "cannot be read"):
        source.read()
    for got in (r"uint8 \(4, 5, 4\)", "uint16"):
        with refused(UsageError, f"gives {got}.*format=BGR"):
            source.read()
