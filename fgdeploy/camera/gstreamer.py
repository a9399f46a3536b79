"""Frames from a GStreamer pipeline, through an OpenCV that was built with it."""

from __future__ import annotations

import importlib
import time
from typing import Any

import numpy as np

from fgdeploy.camera.addresses import shown_address
from fgdeploy.camera.capture_source import Captured, CaptureSource, StreamBroken, StreamEnded
from fgdeploy.core.errors import UsageError


class PipelineSource(CaptureSource):
    """Gives what arrives at a pipeline's `appsink`, BGR or grey.

    OpenCV bounds neither opening nor reading in every version: `Reconnecting` does, by open_s and
    read_s. Raises UsageError where there is no OpenCV with GStreamer.
    """

    lasts = True

    def __init__(
        self, pipeline: str, live: bool = True, open_s: float = 10.0, read_s: float = 5.0
    ) -> None:
        self.pipeline, self.live = pipeline, live
        self.open_s, self.read_s = open_s, read_s
        self.longest = max(open_s, read_s)
        self._cv2 = _opencv()
        self._capture: Any = None

    def again(self) -> PipelineSource:
        """Return another one of the same pipeline, to be opened."""
        return PipelineSource(self.pipeline, self.live, self.open_s, self.read_s)

    def open(self) -> None:
        """Start the pipeline. Raises StreamBroken."""
        self.close()
        capture = self._cv2.VideoCapture(self.pipeline, self._cv2.CAP_GSTREAMER)
        if not capture.isOpened():
            capture.release()
            raise StreamBroken(
                f"{self.describe()} cannot be opened; try it with gst-launch-1.0, and end it with "
                "videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1"
            )
        self._capture = capture

    def read(self) -> Captured:
        """Return the next frame."""
        if self._capture is None:
            raise StreamEnded(f"{self.describe()} is not open, or closed; open it first")
        if not self._capture.grab():
            raise StreamEnded(f"{self.describe()} ended")
        start = time.monotonic()
        whole, pixels = self._capture.retrieve()
        if not whole or pixels is None:
            raise StreamBroken(f"{self.describe()} gave a frame that cannot be read")
        if (
            pixels.dtype != np.uint8
            or pixels.ndim not in (2, 3)
            or pixels.shape[2:]
            not in (
                (),
                (1,),
                (3,),
            )
        ):
            raise UsageError(
                f"{self.describe()} gives {pixels.dtype} {pixels.shape}, expected BGR; put "
                "videoconvert ! video/x-raw,format=BGR before appsink"
            )
        frame = pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels
        return Captured(frame, "bgr", at=start, taken=time.monotonic() - start)

    def close(self) -> None:
        """Stop the pipeline."""
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()

    def describe(self) -> str:
        """Return the pipeline without its secrets."""
        return f"pipeline {shown_address(self.pipeline)}"


def _opencv() -> Any:
    """Return cv2 if it has GStreamer. Raises UsageError."""
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError as error:
        raise UsageError(
            "a GStreamer pipeline needs OpenCV built with GStreamer, and OpenCV (cv2) is not "
            f"installed ({error}); install your system's, or open the camera by number or URL"
        ) from None
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise UsageError(
            f"a GStreamer pipeline needs OpenCV's GSTREAMER backend, which this OpenCV "
            f"{cv2.__version__} lacks, as all from PyPI do; use one built with WITH_GSTREAMER=ON "
            "(JetPack's), or open the camera by number or URL"
        )
    return cv2
