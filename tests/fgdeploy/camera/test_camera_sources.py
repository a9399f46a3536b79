"""A camera on the sources that users name: arrays, files, streams that come and go."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.camera.camera import Camera
from fgdeploy.camera.capture_source import StreamBroken
from fgdeploy.core.errors import UsageError
from tests.checks import refused
from tests.fgdeploy.camera.feeds import HeldEngine, hasher_on, number_in, numbered, until
from tests.fgdeploy.camera.mjpeg_server import MjpegServer, Stall, head, jpeg_of, part
from tests.fgdeploy.camera.videos import moving, write_video


def _grey(value: int) -> bytes:
    """Return a JPEG of one grey, of more than the 2 kB that FFmpeg wants to see."""
    return jpeg_of(np.full((480, 640, 3), value, np.uint8))


def _names(others: set[threading.Thread]) -> set[str]:
    return {one.name for one in set(threading.enumerate()) - others}


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_an_iterable_of_arrays(color: str) -> None:
    order = slice(None, None, 1 if color == "rgb" else -1)
    frames = (numbered(number)[:, :, order] for number in range(70_000, 70_009))
    found = [number_in(result) for result in Camera(frames, hasher_on(HeldEngine()), color=color)]
    assert found == list(range(70_000, 70_009))


def test_an_array_of_another_kind_ends_it_in_a_line() -> None:
    frames = [numbered(1), numbered(2).astype(np.float32)]
    results = iter(Camera(frames, hasher_on(HeldEngine()), color="rgb"))
    assert number_in(next(results)) == 1
    with refused(UsageError, "frame 1: expected a uint8 array"):
        next(results)
    with refused(UsageError, "say the order of their channels"):
        Camera(frames, hasher_on(HeldEngine()))


def test_every_frame_of_a_video_is_hashed(tmp_path: Path) -> None:
    pytest.importorskip("av")
    video = write_video(tmp_path / "v.mp4", moving(30))
    camera = Camera(video, hasher_on(HeldEngine()))
    assert len(list(camera)) == 30
    assert camera.counters.captured == camera.counters.processed == 30


def test_a_stream_that_comes_and_goes() -> None:
    pytest.importorskip("av")
    scripts = [
        [head(), part(_grey(10)), part(_grey(20)[:2000]), part(_grey(30)), part(_grey(40))[:900]],
        [head(), part(_grey(50)), part(_grey(60)), Stall()],
    ]
    others = set(threading.enumerate())
    with MjpegServer(*scripts) as server, Camera(server.url, hasher_on(HeldEngine())) as camera:
        last, results = 0, iter(camera)
        while last < 60:  # of a live stream some may be dropped, the newest never
            result = next(results)
            assert result.code[0] in (10, 30, 50, 60) and result.code[0] > last
            last = result.code[0]
        assert camera.counters.reconnects == 1
        assert camera.counters.broken == 2
        threading.Timer(0.2, camera.close).start()
        start = time.monotonic()
        assert list(results) == []  # though the stream stalls
        camera.close()
        assert time.monotonic() - start < 5  # a second, and a busy machine
        until(lambda: "camera capture" not in _names(others))


def test_a_stream_that_is_not_there() -> None:
    pytest.importorskip("av")
    with MjpegServer([]) as server:
        url = server.url
    with refused(StreamBroken, "cannot be opened: Connection refused"):
        list(Camera(url, hasher_on(HeldEngine())))
