"""What a user calls a source, to the CaptureSource that gives its frames."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fgdeploy.camera.addresses import shown_address
from fgdeploy.camera.array_source import ArraySource
from fgdeploy.camera.capture_source import CaptureSource
from fgdeploy.camera.photo_source import PhotoSource
from fgdeploy.core.errors import ImageError, MissingDependency, UsageError
from fgdeploy.core.text import shown
from fgdeploy.photos.formats import SUFFIXES
from fgdeploy.photos.listing import is_list

SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "srt", "udp", "tcp")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_DEVICE = re.compile(r"\d{1,3}|/dev/video\d+")


def open_source(
    source: str | os.PathLike[str] | int | Iterable[Any] | CaptureSource,
    color: str | None = None,
    live: bool | None = None,
    open_s: float = 10.0,
    read_s: float = 5.0,
    options: Mapping[str, str] | None = None,
    shortest: int | None = None,
) -> CaptureSource:
    """Return what gives the frames of a source, not opened yet.

    source: a device number (0 is /dev/video0), an RTSP, HTTP or other URL (`SCHEMES`), a GStreamer
    pipeline (text with ` ! `), a video file, a folder or file of photos, or an iterable of arrays.
    color: the order of an iterable's arrays, `rgb` or `bgr`, which must be said and is refused for
    all else. live: frames that nobody is ready for may be dropped; by default for devices, streams
    and pipelines. A video file that is live runs at its own rate. open_s, read_s: seconds that
    opening and one frame of a device, stream or file may take. options: FFmpeg's, by name, such as
    {"video_size": "1280x720"}. shortest: see `photos.images.decode`. Raises UsageError, ImageError
    for a path where nothing is, MissingDependency.
    """
    for name, value in (("open", open_s), ("read", read_s)):
        if not (math.isfinite(value) and value > 0):
            raise UsageError(f"expected a time to {name} above 0 s, got {shown(value)}; give 5")
    if isinstance(source, CaptureSource):
        return source
    whole = isinstance(source, int) and not isinstance(source, bool)
    if not (whole or isinstance(source, (str, os.PathLike))):
        return _iterable(source, color, live)
    name = str(source) if whole else os.fspath(source)  # type: ignore[arg-type]
    if color is not None:
        raise UsageError(
            f"color={shown(color)} is for arrays only; {shown_address(name)} knows its own: "
            "leave color out"
        )
    if not name:  # Path("") would be the current folder
        raise UsageError("the source is empty text; give a device number, address, video or folder")
    if " ! " in name:
        from fgdeploy.camera.gstreamer import PipelineSource

        return PipelineSource(name, live is not False, open_s, read_s)
    settings: dict[str, Any] = {"open_s": open_s, "read_s": read_s, "shortest": shortest}
    given = dict(options or {})
    if _DEVICE.fullmatch(name):
        return _device(name, live, given, settings)
    if found := _SCHEME.match(name):
        return _stream(name, found[1].lower(), live, given, settings)
    return _path(Path(name), live, given, settings)


def _iterable(source: Any, color: str | None, live: bool | None) -> CaptureSource:
    import numpy as np

    if isinstance(source, np.ndarray) and source.ndim in (2, 3):
        source = [source]
    if isinstance(source, (bytes, bytearray, bool)) or not isinstance(source, Iterable):
        raise UsageError(
            "expected a device number, a URL, a GStreamer pipeline, a path or an iterable of "
            f"arrays, got {type(source).__name__}"
        )
    return ArraySource(source, color, bool(live))


def _device(
    name: str, live: bool | None, options: dict[str, str], settings: dict[str, Any]
) -> CaptureSource:
    path = f"/dev/video{int(name)}" if name.isdigit() else name
    if not os.path.exists(path):
        others = sorted(str(one) for one in Path("/dev").glob("video*"))
        known = f"there are {', '.join(others)}" if others else "no camera is connected"
        raise ImageError(f"there is no device {path}; {known}")
    if not os.access(path, os.R_OK | os.W_OK):
        raise ImageError(
            f"{path}: permission denied; add the user to the group video: "
            "sudo usermod -aG video $USER, and log in again"
        )
    return _video(path, "video4linux2", live is not False, True, options, settings)


def _stream(
    url: str, scheme: str, live: bool | None, options: dict[str, str], settings: dict[str, Any]
) -> CaptureSource:
    if scheme not in SCHEMES:
        raise UsageError(
            f"{shown_address(url)}: expected one of {', '.join(SCHEMES)}; for a file give its path"
        )
    if scheme in ("rtsp", "rtsps"):  # UDP loses packets, and most firewalls stop it
        options.setdefault("rtsp_transport", "tcp")
    return _video(url, None, live is not False, True, options, settings)


def _path(
    path: Path, live: bool | None, options: dict[str, str], settings: dict[str, Any]
) -> CaptureSource:
    if not os.path.exists(path):
        raise ImageError(f"{path}: no such file or folder; check the path")
    if os.path.isdir(path) or path.suffix.lower() in SUFFIXES or is_list(path):
        if live:
            raise UsageError(f"{path}: photos come as fast as they are read, never live")
        return PhotoSource(path, settings["shortest"])
    if not os.path.isfile(path):
        raise ImageError(f"{path} is no file, folder or video device; check the path")
    # An absolute path, as FFmpeg reads `a:b` as protocol and name.
    return _video(os.path.abspath(path), None, bool(live), False, options, settings)


def _video(
    address: str,
    format: str | None,
    live: bool,
    lasts: bool,
    options: dict[str, str],
    settings: dict[str, Any],
) -> CaptureSource:
    try:
        from fgdeploy.camera.pyav import VideoPlace, VideoSource
    except ModuleNotFoundError as error:
        if error.name != "av":
            raise
        raise MissingDependency("av", "camera", "reading a camera, stream or video") from None
    return VideoSource(VideoPlace(address, format, options, **settings), live, lasts)
