"""A camera that sends H.264 over RTSP."""

from __future__ import annotations

import pytest

from fgdeploy.camera.back_off import BackOff
from fgdeploy.camera.capture_source import BrokenFrame, CaptureSource, StreamBroken
from fgdeploy.camera.reconnecting import Patience, Reconnecting
from fgdeploy.camera.sources import open_source
from tests.checks import refused
from tests.fgdeploy.camera.mjpeg_server import MjpegServer, Stall
from tests.fgdeploy.camera.rtsp_server import RtspServer, packets_of
from tests.fgdeploy.camera.videos import moving, number_of, read_all

pytest.importorskip("av")


def _read_whole(source: CaptureSource, count: int) -> list[int]:
    numbers: list[int] = []
    while len(numbers) < count:
        try:
            numbers.append(number_of(source.read()))
        except BrokenFrame:
            continue
    return numbers


def test_frames_come_over_tcp() -> None:
    with RtspServer(packets_of(moving(30))) as server:
        frames, broken, _ = read_all(open_source(server.url, open_s=5, read_s=2))
        assert server.methods[:4] == ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"]
    assert [number_of(frame) for frame in frames] == list(range(30))
    assert not broken
    assert frames[0].pixels.shape == (120, 160, 3)


def test_a_stream_that_stalls_breaks_off() -> None:
    with RtspServer(packets_of(moving(30)), stalls=True) as server:
        source = open_source(server.url, open_s=5, read_s=0.5)
        with source:
            source.open()
            with refused(StreamBroken, "broke off: nothing came for 0.5 s"):
                _read_whole(source, 31)


def test_a_server_that_never_answers_is_given_up() -> None:
    with MjpegServer([Stall()]) as server:
        source = open_source(server.url.replace("http", "rtsp"), open_s=0.5)
        with refused(StreamBroken, "cannot be opened: nothing came for 0.5 s"):
            source.open()


def test_a_camera_that_comes_back() -> None:
    packets = packets_of(moving(20))
    with RtspServer(packets, packets[:1], packets) as server:
        stream = open_source(server.url, open_s=2, read_s=0.5)
        with Reconnecting(stream, Patience(BackOff(0.01, 0.02))) as source:
            source.open()
            assert _read_whole(source, 41) == [*range(20), 0, *range(20)]
            assert source.reconnects == 2 and server.connections == 3
