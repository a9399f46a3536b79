from __future__ import annotations

import builtins
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgdeploy.camera.array_source import ArraySource
from fgdeploy.camera.photo_source import PhotoSource
from fgdeploy.camera.sources import open_source
from fgdeploy.core.errors import ImageError, MissingDependency, UsageError
from tests.checks import refused
from tests.fgdeploy.camera.mjpeg_server import plain_jpeg


def test_arrays_and_photos_need_no_package(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(plain_jpeg(50))
    code = (
        "import sys, numpy\n"
        "from fgdeploy.camera.sources import open_source\n"
        "for given, color in ((iter([numpy.zeros((4, 4, 3), numpy.uint8)]), 'rgb'),"
        f" ({str(tmp_path)!r}, None)):\n"
        "    with open_source(given, color) as source:\n"
        "        source.open(); source.read()\n"
        "assert not {'av', 'cv2', 'torch', 'onnx'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_one_array_is_one_frame_and_a_batch_is_many() -> None:
    frame = np.zeros((4, 5, 3), np.uint8)
    for given, count in ((frame, 1), (frame[:, :, 0], 1), (np.stack([frame] * 3), 3)):
        source = open_source(given, "rgb")
        assert isinstance(source, ArraySource) and not source.live and not source.lasts
        source.open()
        for _ in range(count):
            source.read()
        with pytest.raises(ImageError, match=f"ended after frame {count}"):
            source.read()
    assert open_source(iter([frame]), "bgr", live=True).live


def test_a_source_stays_what_it_is(tmp_path: Path) -> None:
    source = PhotoSource(tmp_path)
    assert open_source(source) is source


def test_empty_text_is_not_the_current_folder() -> None:
    with refused(UsageError, "the source is empty text; give a device number"):
        open_source("")


@pytest.mark.parametrize("given", [None, True, 1.5, b"frames", object()])
def test_other_things_are_refused(given: Any) -> None:
    with refused(UsageError, "expected a device number, a URL"):
        open_source(given, "rgb")


def test_the_colour_order_is_said_for_arrays_and_only_for_them(tmp_path: Path) -> None:
    with refused(UsageError, "say the order of their channels.*was not said"):
        open_source([np.zeros((4, 4, 3), np.uint8)])
    with refused(UsageError, r"color=bgr is for arrays only; rtsp://\*\*\*@cam knows its own"):
        open_source("rtsp://a:hunter2@cam", color="bgr")
    with refused(UsageError, "for arrays only"):
        open_source(tmp_path, color="rgb")


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_times_are_bounded(seconds: float) -> None:
    with refused(UsageError, "a time to open above 0 s"):
        open_source("rtsp://cam", open_s=seconds)
    with refused(UsageError, "a time to read above 0 s"):
        open_source("rtsp://cam", read_s=seconds)


@pytest.mark.parametrize("name", ["a.jpg", "list.csv", "folder"])
def test_photos_are_never_live(tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    place.mkdir()
    assert isinstance(open_source(place), PhotoSource)
    with refused(UsageError, "never live"):
        open_source(place, live=True)


def test_a_path_where_nothing_is() -> None:
    with refused(ImageError, "no such file or folder"):
        open_source("missing.mp4")
    with refused(ImageError, "no file, folder or video device"):
        open_source("/dev/null")


def test_unknown_schemes_are_named() -> None:
    with refused(UsageError, r"ftp://\*\*\*@host/x: expected one of rtsp, .*give its path"):
        open_source("ftp://a:hunter2@host/x")


@pytest.mark.parametrize("given", [987, "987", "/dev/video987"])
def test_a_device_that_is_not_there(given: int | str) -> None:
    with refused(ImageError, "there is no device /dev/video987; (no camera|there are)"):
        open_source(given)


def test_a_device_without_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "exists", lambda path: True)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with refused(ImageError, "/dev/video0: permission denied; .*group video"):
        open_source(0)


@pytest.mark.parametrize("given", ["rtsp://cam/h264", "http://cam/x.mjpg"])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "av" or name.startswith("av."):
            raise ModuleNotFoundError("No module named 'av'", name="av")
        return real(name, *rest)

    for module in ("av", "fgdeploy.camera.pyav", "fgdeploy.camera.upright_rgb"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with refused(MissingDependency, r'package av.*pip install "fgdeploy\[camera\]"'):
        open_source(given)


def test_what_pyav_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    from fgdeploy.camera.pyav import VideoSource

    stream = open_source("rtsp://cam/h264", open_s=3, read_s=2, options={"a": "b"})
    assert isinstance(stream, VideoSource)
    assert stream.place.options == {"rtsp_transport": "tcp", "a": "b"}
    assert (stream.live, stream.lasts, stream.longest) == (True, True, 3)
    other = open_source("rtsp://cam/h264", live=False, options={"rtsp_transport": "udp"})
    assert isinstance(other, VideoSource)
    assert other.place.options == {"rtsp_transport": "udp"} and not other.live

    monkeypatch.chdir(tmp_path)
    Path("http:x.mp4").write_bytes(b"x")
    file = open_source("http:x.mp4")
    assert isinstance(file, VideoSource) and not file.lasts
    assert file.place.address == str(tmp_path / "http:x.mp4")

    monkeypatch.setattr(os.path, "exists", lambda path: True)
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    device = open_source("02")
    assert isinstance(device, VideoSource) and device.live and device.lasts
    assert (device.place.address, device.place.format) == ("/dev/video2", "video4linux2")
