"""The preview's thread: the camera never waits for it, unless each frame is to be shown."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgdeploy.camera.annotating import Note
from fgdeploy.camera.capture_source import Captured
from fgdeploy.camera.preview import Preview, open_preview
from fgdeploy.camera.preview_server import PreviewServer
from fgdeploy.core.errors import DataError, FgdeployError, UsageError
from tests.checks import refused

WAIT = 10.0


class Held:
    """A sink that takes pictures when the test lets it. error: what it meets."""

    wanted, where = True, "the test"

    def __init__(self, error: Exception | None = None) -> None:
        self.go, self.began, self.error = threading.Event(), threading.Event(), error
        self.times: list[float] = []
        self.sizes: set[tuple[int, int]] = set()
        self.closed = False

    def write(self, picture: Image.Image, at: float) -> None:
        self.began.set()
        assert self.go.wait(WAIT)
        if self.error is not None:
            raise self.error
        self.times.append(at)
        self.sizes.add(picture.size)

    def close(self) -> None:
        self.closed = True


def captured(at: float, side: int = 8) -> Captured:
    return Captured(np.zeros((side, side, 3), np.uint8), "rgb", at=at)


def test_a_slow_sink_gets_the_newest_and_nobody_waits() -> None:
    sink = Held()
    with Preview(sink) as preview:
        preview.show(captured(0), Note("x"))
        assert sink.began.wait(WAIT)
        for at in range(1, 50):
            preview.show(captured(at), Note("x"))
        sink.go.set()
    assert sink.times == [0, 48, 49]
    assert sink.closed and preview.failed is None


def test_every_frame_where_that_was_asked_for() -> None:
    sink = Held()
    sink.go.set()
    with Preview(sink, every=True) as preview:
        for at in range(50):
            preview.show(captured(at), Note("x"))
    assert sink.times == list(range(50))


def test_the_whole_frame_is_shown() -> None:
    sink = Held()
    sink.go.set()
    with Preview(sink) as preview:
        part = Captured(np.zeros((4, 4, 3), np.uint8), "rgb", whole=np.zeros((40, 60, 3), np.uint8))
        preview.show(part, Note("x"))
    ((width, height),) = sink.sizes
    assert (width, height > 40) == (60, True)


@pytest.mark.parametrize("every", [False, True])
def test_a_sink_that_fails_ends_the_preview_alone(every: bool) -> None:
    sink = Held(DataError("no space"))
    sink.go.set()
    with Preview(sink, every) as preview:
        for at in range(50):
            preview.show(captured(at), Note("x"))  # never waits for what is no more
    assert isinstance(preview.failed, FgdeployError) and str(preview.failed) == "no space"
    assert sink.closed


def test_nothing_is_drawn_while_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*given: object) -> None:
        raise AssertionError("drawn")

    monkeypatch.setattr("fgdeploy.camera.preview.annotated", draw)
    with open_preview("http://127.0.0.1:0") as preview:
        assert isinstance(preview.sink, PreviewServer)
        preview.show(captured(0), Note("x"))


def test_what_a_preview_can_be(tmp_path: Path) -> None:
    pytest.importorskip("av")
    with open_preview(str(tmp_path / "out.mp4"), every=True) as preview:
        preview.show(captured(0, 64), Note("x"))
    assert (tmp_path / "out.mp4").stat().st_size > 500
    with refused(UsageError, "expected a name ending in .mp4"):
        open_preview("window")
