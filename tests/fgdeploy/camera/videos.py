"""Videos that tests write, and what a test reads from them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fgdeploy.camera.capture_source import BrokenFrame, Captured, CaptureSource, StreamEnded

Pixels = npt.NDArray[np.uint8]
_PLAIN = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)


def moving(count: int, width: int = 160, height: int = 120) -> list[Pixels]:
    """Return smooth frames whose brightness says their number: `number_of` reads it."""
    ramp = np.linspace(0, 20, width)[None, :, None] + np.zeros((height, 1, 3))
    return [np.asarray(ramp + 20 + 4 * number, np.uint8) for number in range(count)]


def number_of(captured: Captured) -> int:
    """Return which of `moving` frames one is."""
    return round((float(captured.pixels.mean()) - 29.5) / 4)


def write_video(
    path: Path,
    frames: Sequence[Pixels],
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    full: bool = False,
    rate: int = 30,
) -> Path:
    """Write a video, or skip the test by name where the codec is not there. full: its range."""
    av = _with(codec)
    said: dict[str, Any] = {"dst_color_range": 2} if full else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        if full:
            stream.codec_context.color_range = 2
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(format=pixel_format, **said)
            if full:
                frame.color_range = 2
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


def write_planes(path: Path, planes: Pixels, matrix: int, full: bool) -> Path:
    """Write one frame of YUV planes (3, H, W) that says its matrix (ITU-T H.273) and range."""
    av = _with("ffv1")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.height, stream.width = planes.shape[1:]
        stream.pix_fmt = "yuv444p"
        frame = av.VideoFrame.from_ndarray(planes, format="yuv444p")
        for thing in (stream.codec_context, frame):
            thing.colorspace, thing.color_range = matrix, 2 if full else 1
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return path


def _with(codec: str) -> Any:
    """Return PyAV, or skip the test where it is not there or cannot write with a codec."""
    av = pytest.importorskip("av")
    try:
        av.codec.Codec(codec, "w")
    except Exception:  # PyAV's own error class moved between versions
        pytest.skip(f"this PyAV cannot write {codec}")
    return av


def turn(video: Path, a: int, b: int, c: int, d: int) -> None:
    """Write a display matrix of ones into an MP4 that has none."""
    content = bytearray(video.read_bytes())
    place = content.index(_PLAIN, content.index(b"tkhd"))
    unit = 65536
    content[place : place + 36] = struct.pack(
        ">9i", a * unit, b * unit, 0, c * unit, d * unit, 0, 0, 0, 1 << 30
    )
    video.write_bytes(content)


def read_all(source: CaptureSource) -> tuple[list[Captured], list[BrokenFrame], StreamEnded]:
    """Open a source and read it to its end: frames, damaged ones, and how it ended."""
    frames, broken = [], []
    with source:
        source.open()
        while True:
            try:
                frames.append(source.read())
            except BrokenFrame as error:
                broken.append(error)
            except StreamEnded as error:
                return frames, broken, error
