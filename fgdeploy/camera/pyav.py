"""Frames from cameras, streams and video files through PyAV, which brings FFmpeg."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from fgdeploy.camera.addresses import shown_address
from fgdeploy.camera.capture_source import (
    BrokenFrame,
    Captured,
    CaptureSource,
    StreamBroken,
    StreamEnded,
)
from fgdeploy.camera.jpeg_check import damage
from fgdeploy.camera.upright_rgb import UprightRgb
from fgdeploy.core.errors import ImageError
from fgdeploy.photos.images import decode

_LATE = 1.0  # seconds behind its rate after which a paced file counts anew


@dataclass(frozen=True)
class VideoPlace:
    """What PyAV opens. address: a URL, a device's or a file's path; format: None to find out.

    options: FFmpeg's, by name; open_s, read_s: seconds that opening and one frame may take.
    shortest: JPEG frames may be decoded smaller, see `photos.images.decode`.
    """

    address: str
    format: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    open_s: float = 10.0
    read_s: float = 5.0
    shortest: int | None = None


class VideoSource(CaptureSource):
    """Gives the frames of a video, upright RGB.

    A file that is live is paced by its own time stamps. JPEG frames are decoded by the photos'
    code, so they get the codes that the same photos get. Frames that FFmpeg had to mend, and those
    after them up to the next that stands alone, are BrokenFrames.
    """

    def __init__(self, place: VideoPlace, live: bool, lasts: bool) -> None:
        self.place, self.live, self.lasts = place, live, lasts
        self.longest = max(place.open_s, place.read_s)
        self._container: Any = None
        self._frames: Iterator[Captured | BrokenFrame] = iter(())
        self._pace: _Pace | None = None
        self._closed = threading.Event()

    def again(self) -> VideoSource:
        """Return another one of the same place, to be opened."""
        return VideoSource(self.place, self.live, self.lasts)

    def open(self) -> None:
        """Connect and find the video. Raises StreamBroken."""
        self.close()
        self._closed.clear()
        place, start = self.place, time.monotonic()
        try:
            container = av.open(
                place.address,
                format=place.format,
                options=dict(place.options),
                timeout=(place.open_s, place.read_s),
                metadata_errors="replace",
            )
        except Exception as error:  # FFmpeg's, and Python's for what it was given
            raise self._fault("cannot be opened", error, start, place.open_s) from None
        self._container = container
        if not container.streams.video:
            self.close()
            raise StreamBroken(f"{self.describe()} holds no video; check the address")
        self._frames = _Reading(container, self.live, place.shortest, self._fault).frames()
        self._pace = _Pace(self._closed) if self.live and not self.lasts else None

    def read(self) -> Captured:
        """Return the next frame."""
        if self._container is None:
            raise StreamEnded(f"{self.describe()} is not open, or closed; open it first")
        frame = next(self._frames, None)
        if frame is None:
            raise StreamEnded(f"{self.describe()} ended")
        if isinstance(frame, BrokenFrame):
            raise frame
        if self._pace is not None:
            return self._pace.wait(frame)
        return frame

    def close(self) -> None:
        """Let the connection go. Not while another thread reads."""
        self._closed.set()
        container, self._container = self._container, None
        self._frames = iter(())
        if container is not None:
            container.close()

    def interrupt(self) -> None:
        """End the wait for the time of a frame; a read of FFmpeg's ends by its own limit."""
        self._closed.set()

    def describe(self) -> str:
        """Return the address without its secrets."""
        return shown_address(self.place.address)

    def _fault(self, what: str, error: Exception, start: float, limit: float) -> StreamBroken:
        """Return an error of PyAV in words. Its own text may hold the password.

        start: when the call began that had `limit` seconds.
        """
        if _ran_out(error, start, limit):
            return StreamBroken(
                f"{self.describe()} {what}: nothing came for {limit:g} s; check the camera and "
                "the network"
            )
        if isinstance(error, av.InvalidDataError) and not self.lasts:
            return StreamBroken(f"{self.describe()} {what}: it is no video, or a damaged one")
        reason = getattr(error, "strerror", None) or type(error).__name__
        return StreamBroken(f"{self.describe()} {what}: {shown_address(str(reason))}")


@dataclass(frozen=True)
class _Timed(Captured):
    """A frame with its place in the video, in seconds; None where the video does not say."""

    moment: float | None = None


class _Reading:
    """Packets to frames, from one opening of a video to its end."""

    def __init__(
        self,
        container: Any,
        live: bool,
        shortest: int | None,
        fault: Callable[[str, Exception, float, float], StreamBroken],
    ) -> None:
        self._container, self._shortest, self._fault = container, shortest, fault
        self._stream = container.streams.video[0]
        self._name = self._stream.codec_context.name
        # Slices in threads (PyAV's default) turn off FFmpeg's search for damage: H.264 frames with
        # broken pixels then come without a flag. Frames in threads come late, so not live.
        self._stream.thread_type = "NONE" if live else "FRAME"
        self._rgb = UprightRgb()
        self._spoiled = False
        self._spoiled_at: int | None = None  # time stamp of the packet that was damaged

    def frames(self) -> Iterator[Captured | BrokenFrame]:
        """Yield frames, damaged ones as errors. Raises StreamBroken, StreamEnded for MJPEG."""
        decode = self._jpeg if self._name == "mjpeg" else self._decoded
        packets = self._container.demux(self._stream)
        while True:
            start = time.monotonic()
            try:
                packet = next(packets, None)
            except Exception as error:  # FFmpeg's, of many kinds
                if decode == self._decoded:
                    yield from self._flushed()
                raise self._end(error, start) from None
            if packet is None:
                return
            yield from decode(packet, time.monotonic())

    def _end(self, error: Exception, start: float) -> StreamBroken:
        """Tell the end of a stream from a fault; for MJPEG over HTTP both are an error."""
        limit = self._container.read_timeout
        if self._container.format.name == "mpjpeg" and not _ran_out(error, start, limit):
            return StreamEnded(str(self._fault("ended", error, start, limit)))
        return self._fault("broke off", error, start, limit)

    def _jpeg(self, packet: Any, start: float) -> Iterator[Captured | BrokenFrame]:
        if not packet.size:
            return
        jpeg = bytes(packet)
        wrong = damage(jpeg)
        if wrong is not None:
            yield BrokenFrame(f"a JPEG frame is damaged: {wrong}")
            return
        try:
            pixels = np.asarray(decode(jpeg, self._shortest))
        except ImageError as error:
            yield BrokenFrame(str(error))
            return
        yield _captured(pixels, start, _moment(packet))

    def _decoded(self, packet: Any, start: float) -> Iterator[Captured | BrokenFrame]:
        if packet.is_corrupt and packet.size:
            self._spoil(packet.pts)
        try:
            frames = packet.decode()
        except Exception as error:  # as in `frames`
            self._spoil(packet.pts)
            yield BrokenFrame(f"a frame of {self._name} cannot be decoded: {_reason(error)}")
            return
        for frame in frames:
            yield self._whole(frame, start)
            start = time.monotonic()

    def _flushed(self) -> Iterator[Captured | BrokenFrame]:
        """Yield what the decoder holds back, where the stream broke off."""
        try:
            frames = self._stream.codec_context.decode(None)
        except Exception:  # it held nothing that can be shown
            return
        for frame in frames:
            yield self._whole(frame, time.monotonic())

    def _spoil(self, stamp: int | None) -> None:
        self._spoiled, self._spoiled_at = True, stamp

    def _whole(self, frame: Any, start: float) -> Captured | BrokenFrame:
        if self._is_damaged(frame):
            return BrokenFrame(f"a frame of {self._name} is damaged, or drawn from one that is")
        try:
            pixels = self._rgb.of(frame)
        except Exception as error:  # FFmpeg's, for pixels that it cannot convert
            return BrokenFrame(f"a frame of {self._name} cannot be shown: {_reason(error)}")
        return _captured(pixels, start, _moment(frame))

    def _is_damaged(self, frame: Any) -> bool:
        """Tell whether a frame may show less than it should, in the order of decoding.

        Frames that threads hold back may be taken for damaged with the one that is.
        """
        at, stamp = self._spoiled_at, frame.pts
        if frame.is_corrupt:
            self._spoil(stamp)
        elif self._spoiled and frame.key_frame:
            self._spoiled = at is not None and stamp is not None and stamp <= at
        return self._spoiled


class _Pace:
    """Holds frames back until their time comes, counted from the first."""

    def __init__(self, closed: threading.Event) -> None:
        self._closed = closed
        self._ahead: float | None = None  # clock minus moment

    def wait(self, frame: Captured) -> Captured:
        moment = frame.moment if isinstance(frame, _Timed) else None
        if moment is None:
            return frame
        now = time.monotonic()
        if self._ahead is None or now - (moment + self._ahead) > _LATE:
            self._ahead = now - moment
        if (left := moment + self._ahead - now) > 0:
            self._closed.wait(left)
        return _captured(frame.pixels, time.monotonic() - frame.taken, moment)


def _captured(pixels: npt.NDArray[np.uint8], start: float, moment: float | None) -> _Timed:
    return _Timed(pixels, "rgb", at=start, taken=time.monotonic() - start, moment=moment)


def _moment(thing: Any) -> float | None:
    return None if thing.pts is None else float(thing.pts * thing.time_base)


def _ran_out(error: Exception, start: float, limit: float) -> bool:
    """Tell whether a call that failed had come to its time limit; RTSP says another reason."""
    return isinstance(error, av.error.ExitError) or time.monotonic() - start >= limit


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
