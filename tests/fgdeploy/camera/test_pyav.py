from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.camera.capture_source import StreamBroken, StreamEnded
from fgdeploy.camera.sources import open_source
from tests.checks import refused
from tests.fgdeploy.camera.mjpeg_server import jpeg_of
from tests.fgdeploy.camera.videos import moving, number_of, read_all, write_video

av = pytest.importorskip("av")

from fgdeploy.camera.pyav import VideoPlace, VideoSource  # noqa: E402


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts", "v.avi"])
def test_no_frame_of_a_file_is_lost(tmp_path: Path, name: str) -> None:
    video = write_video(tmp_path / name, moving(40), options={"bf": "2"} if name != "v.avi" else {})
    source = open_source(video)
    assert not source.live and not source.lasts
    frames, broken, end = read_all(source)
    assert [number_of(frame) for frame in frames] == list(range(40))
    assert not broken and type(end) is StreamEnded
    assert all(frame.color == "rgb" and frame.taken >= 0 for frame in frames)
    assert [frame.at for frame in frames] == sorted(frame.at for frame in frames)


def test_a_file_can_be_opened_again_from_its_start(tmp_path: Path) -> None:
    source = open_source(write_video(tmp_path / "v.mp4", moving(3)))
    assert len(read_all(source)[0]) == len(read_all(source)[0]) == 3
    with refused(StreamEnded, "not open"):
        source.read()


def test_a_live_file_runs_at_its_own_rate(tmp_path: Path) -> None:
    source = open_source(write_video(tmp_path / "v.mp4", moving(20), rate=40), live=True)
    assert source.live
    frames, _, _ = read_all(source)
    assert [number_of(frame) for frame in frames] == list(range(20))
    assert frames[-1].at - frames[0].at > 0.35  # 19 frames of 1/40 s, less the decoding of one


def test_closing_ends_the_wait_of_a_live_file(tmp_path: Path) -> None:
    source = open_source(
        write_video(tmp_path / "v.mkv", moving(2), "ffv1", "bgr0", rate=1), live=True
    )
    source.open()
    source.read()
    timer = threading.Timer(0.1, source.interrupt)
    timer.start()
    start = time.monotonic()
    source.read()
    assert time.monotonic() - start < 0.9
    timer.join()


@pytest.mark.parametrize("content", [b"", b"no video at all" * 99])
def test_what_is_no_video_is_refused(tmp_path: Path, content: bytes) -> None:
    place = tmp_path / "v.mp4"
    place.write_bytes(content)
    with refused(StreamBroken, "v.mp4 (cannot be opened|holds no video)"):
        open_source(place).open()


def test_half_a_photo_under_a_videos_name_gives_no_frame(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(jpeg_of(moving(1)[0])[:-700])
    frames, broken, _ = read_all(open_source(tmp_path / "v.mp4"))
    assert not frames and len(broken) == 1


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "v.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.sample_rate = 8000
        for packet in [*stream.encode(sound), *stream.encode(None)]:
            container.mux(packet)
    with refused(StreamBroken, "holds no video"):
        open_source(tmp_path / "v.wav").open()


def test_a_file_that_is_cut_gives_what_it_has(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.ts", moving(60), options={"g": "5", "bf": "0"})
    content = video.read_bytes()
    video.write_bytes(content[: len(content) // 2])
    frames, broken, _ = read_all(open_source(video))
    numbers = [number_of(frame) for frame in frames]
    assert numbers == list(range(len(numbers))) and 10 < len(numbers) < 50
    assert len(broken) <= 2


@pytest.mark.parametrize("live", [False, True])
def test_damaged_pictures_are_never_given_out(tmp_path: Path, live: bool) -> None:
    """Concealed by FFmpeg, or drawn from one that was: all up to the next key frame."""
    video = write_video(
        tmp_path / "v.mp4",
        moving(40),
        options={"g": "10", "bf": "0", "sc_threshold": "0"},
        rate=400,
    )
    whole, _, _ = read_all(open_source(video))
    with av.open(str(video)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    content = bytearray(video.read_bytes())
    hit = packets[12]
    middle = hit.pos + hit.size // 2
    for place in range(middle, hit.pos + hit.size):
        content[place] ^= 0x5A
    video.write_bytes(content)

    frames, broken, _ = read_all(open_source(video, live=live))
    assert len(frames) + len(broken) in (39, 40)
    assert 7 <= len(broken) <= 8  # the 13th to the 20th; one that was refused outright gives none
    shown = [frame.pixels for frame in whole[:12] + whole[20:]]
    assert len(frames) == len(shown)
    for frame, expected in zip(frames, shown, strict=True):
        np.testing.assert_array_equal(frame.pixels, expected)


def test_a_packet_that_cannot_be_decoded_is_one_broken_frame(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), np.uint8)
    video = write_video(tmp_path / "v.mov", list(noise), "png", "rgb24", rate=400)
    content = bytearray(video.read_bytes())
    with av.open(str(video)) as container:
        place = [packet.pos for packet in container.demux(video=0)][1] + 100
    content[place : place + 200] = bytes(200)
    video.write_bytes(content)
    frames, broken, _ = read_all(open_source(video, live=True))
    assert len(broken) == 1 and len(frames) == 4
    for frame, expected in zip(frames, noise[[0, 2, 3, 4]], strict=True):
        np.testing.assert_array_equal(frame.pixels, expected)


def test_the_size_may_change_in_the_middle(tmp_path: Path) -> None:
    parts = [
        write_video(tmp_path / f"{width}.h264", moving(5, width, height), options={"bf": "0"})
        for width, height in ((160, 120), (320, 240), (96, 64))
    ]
    video = tmp_path / "v.h264"
    video.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames, _, _ = read_all(open_source(video))
    shapes = [frame.pixels.shape[:2] for frame in frames]
    assert shapes == [(120, 160)] * 5 + [(240, 320)] * 5 + [(64, 96)] * 5
    assert [number_of(frame) for frame in frames] == [*range(5)] * 3


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(("lost", "kept"), [(0, range(10, 30)), (13, [*range(6), *range(10, 30)])])
def test_a_slice_that_was_lost_spoils_all_up_to_the_next_key_frame(
    tmp_path: Path, live: bool, lost: int, kept: Sequence[int]
) -> None:
    """Of the first picture: as where a stream is joined in its middle."""
    options = {"g": "10", "bf": "0", "sc_threshold": "0", "slices": "2", "threads": "1"}
    video = write_video(tmp_path / "v.h264", moving(30), options=options)
    units = re.split(b"(?=\0\0\1)", video.read_bytes())
    slices = [place for place, unit in enumerate(units) if unit[3:] and unit[3] & 31 in (1, 5)]
    assert len(slices) == 60
    del units[slices[lost]]
    video.write_bytes(b"".join(units))
    source = VideoSource(VideoPlace(str(video)), live, lasts=live)  # what lasts is not paced
    frames, broken, _ = read_all(source)
    assert [number_of(frame) for frame in frames] == list(kept)
    assert len(broken) == 30 - len(kept)


@pytest.mark.parametrize("held", [b"", b"a letter, no video\n" * 99])
def test_a_file_that_is_no_video_is_called_so(tmp_path: Path, held: bytes) -> None:
    (tmp_path / "v.mp4").write_bytes(held)
    with refused(StreamBroken, "v.mp4 cannot be opened: it is no video, or a damaged one$"):
        open_source(tmp_path / "v.mp4").open()
