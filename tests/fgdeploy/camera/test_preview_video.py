"""The preview as a video: valid, in time, and with its name only when it is whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from fgdeploy.camera.preview_video import PAUSE, PreviewVideo
from fgdeploy.core.errors import DataError, UsageError
from tests.checks import refused

av = pytest.importorskip("av")


def picture(level: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    return Image.new("RGB", size, (level, level, level))


def frames(path: Path) -> list[tuple[float, int]]:
    """Return time and brightness of each frame of a video."""
    with av.open(str(path)) as container:
        return [
            (float(frame.time), int(frame.to_ndarray(format="gray").mean()))
            for frame in container.decode(video=0)
        ]


def test_frames_have_their_times_and_long_pauses_are_cut(tmp_path: Path) -> None:
    times = [100.0, 100.04, 100.5, 100.51, 160.51, 160.6]
    with PreviewVideo(tmp_path / "out.mp4") as video:
        for number, at in enumerate(times):
            video.write(picture(40 * number), at)
        assert not (tmp_path / "out.mp4").exists()
    found = frames(tmp_path / "out.mp4")
    expected = [0, 0.04, 0.5, 0.51, 0.51 + PAUSE, 0.6 + PAUSE]
    assert [time for time, _ in found] == pytest.approx(expected, abs=0.002)
    assert [level for _, level in found] == pytest.approx(range(0, 240, 40), abs=8)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_times_that_stand_or_go_back_still_give_each_frame(tmp_path: Path) -> None:
    with PreviewVideo(tmp_path / "out.mp4") as video:
        for at in (5.0, 5.0, 5.0001, 4.0, 5.1):
            video.write(picture(80), at)
    found = [time for time, _ in frames(tmp_path / "out.mp4")]
    assert len(found) == 5 and found == sorted(set(found))


def test_frames_of_another_size_are_fitted_in(tmp_path: Path) -> None:
    with PreviewVideo(tmp_path / "out.mp4") as video:
        video.write(picture(100), 0)
        video.write(picture(100, (96, 20)), 1)
    with av.open(str(tmp_path / "out.mp4")) as container:
        sizes = {(frame.width, frame.height) for frame in container.decode(video=0)}
    assert sizes == {(64, 48)}


def test_what_a_power_cut_leaves_can_be_played(tmp_path: Path) -> None:
    video = PreviewVideo(tmp_path / "out.mp4")
    for number in range(70):
        video.write(picture(number), number / 30)
    shutil.copy(tmp_path / "out.mp4.part", tmp_path / "left.mp4")
    assert len(frames(tmp_path / "left.mp4")) >= 30
    video.close()
    assert len(frames(tmp_path / "out.mp4")) == 70


def test_the_video_of_before_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_bytes(b"before")
    PreviewVideo(tmp_path / "out.mp4").close()  # without a frame
    assert (tmp_path / "out.mp4").read_bytes() == b"before"
    with PreviewVideo(tmp_path / "out.mp4") as video:
        video.write(picture(1), 0)
        assert (tmp_path / "out.mp4").read_bytes() == b"before"
    assert len(frames(tmp_path / "out.mp4")) == 1


def test_names_that_are_none(tmp_path: Path) -> None:
    for name in ("out.avi", "out", "no/out.mp4"):
        with refused(UsageError, "expected a name ending in .mp4 in a folder there is"):
            PreviewVideo(tmp_path / name)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "out.mp4.part").mkdir()
    video = PreviewVideo(tmp_path / "out.mp4")
    with refused(DataError, r"out.mp4.part: .*directory"):
        video.write(picture(1), 0)


def test_mpeg4_where_h264_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    knows = PreviewVideo._knows
    monkeypatch.setattr(PreviewVideo, "_knows", lambda self, name: name != "libx264" and
                        knows(self, name))  # fmt: skip
    with PreviewVideo(tmp_path / "out.mp4") as video:
        video.write(picture(99), 0)
        video.write(picture(9), 0.5)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
        assert [float(frame.time) for frame in container.decode(video=0)] == [0, 0.5]
