"""Annotated frames as a video file, MP4, with H.264 where PyAV's FFmpeg has it, else MPEG-4.

Frames come when they come: each is shown from its own time on, to the millisecond, so that the
video runs as long as the camera did; a pause of more than PAUSE seconds is cut to that. It is
written to NAME.part, in fragments, and gets its name when it is closed: until then the file of
before stays, and what a power cut leaves in NAME.part can be played.
"""

from __future__ import annotations

import contextlib
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from fgdeploy.core.closing import Closing
from fgdeploy.core.errors import DataError, MissingDependency, UsageError

PAUSE = 2.0  # seconds
_CODECS: dict[str, dict[str, str]] = {
    "libx264": {"preset": "ultrafast", "tune": "zerolatency", "crf": "26"},
    "mpeg4": {"qscale": "5"},
}
_FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
_KEY_FRAME = 30  # frames from one that needs no other to the next
_TICK = Fraction(1, 1000)


class PreviewVideo(Closing):
    """Writes pictures of any size, as the first, to an MP4 file. wanted: always.

    Raises UsageError for another kind of file or folder, MissingDependency without PyAV.
    """

    wanted = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != ".mp4" or not self.path.parent.is_dir():
            raise UsageError(f"preview {path}: expected a name ending in .mp4 in a folder there is")
        self.part = self.path.with_name(f"{self.path.name}.part")
        try:
            import av
        except ImportError:
            raise MissingDependency("av", "camera", "a preview as video") from None
        self._av = av
        self.where = str(self.path)
        self._container: Any = None
        self._stream: Any = None
        self._start = self._last_at = 0.0
        self._cut = 0.0  # seconds of pauses left out
        self._last = -1  # ticks

    def write(self, picture: Image.Image, at: float) -> None:
        """Add a picture that is shown from `at` on, in seconds. Raises DataError."""
        with self._errors():
            if self._container is None:
                self._open(picture, at)
            if picture.size != (size := (self._stream.width, self._stream.height)):
                picture = ImageOps.pad(picture, size)
            self._cut += max(0.0, at - self._last_at - PAUSE)
            self._last_at = max(at, self._last_at)
            self._last = max(self._last + 1, round((at - self._start - self._cut) / _TICK))
            frame = self._av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
            frame = frame.reformat(format="yuv420p")
            frame.pts, frame.time_base = self._last, _TICK
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """End the video and give it its name; without any picture there is none."""
        container, self._container = self._container, None
        if container is None:
            return
        with self._errors():
            try:
                container.mux(self._stream.encode(None))
            finally:
                container.close()
            with open(self.part, "rb") as stream:
                os.fsync(stream.fileno())
            os.replace(self.part, self.path)

    def _open(self, picture: Image.Image, at: float) -> None:
        self._container = self._av.open(str(self.part), "w", format="mp4", options=_FRAGMENTS)
        name = next(name for name in _CODECS if self._knows(name))
        stream = self._container.add_stream(name, rate=30, options=_CODECS[name])
        stream.width, stream.height, stream.pix_fmt = *picture.size, "yuv420p"
        stream.codec_context.time_base = _TICK
        stream.codec_context.gop_size = _KEY_FRAME
        stream.codec_context.max_b_frames = 0
        self._stream = stream
        self._start = self._last_at = at

    def _knows(self, name: str) -> bool:
        with contextlib.suppress(ValueError):  # UnknownCodecError is one
            return self._av.codec.Codec(name, "w") is not None
        return False

    @contextlib.contextmanager
    def _errors(self) -> Any:
        try:
            yield
        except (OSError, self._av.error.FFmpegError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(
                f"{self.part}: {reason}; what was written so far can be played"
            ) from None
