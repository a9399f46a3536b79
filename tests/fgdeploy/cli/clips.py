"""Videos and streams of photos for the command line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.fgdeploy.camera.mjpeg_server import Script, head, jpeg_of, part

WIDTH, HEIGHT = 192, 128


def frame_of(photo: Path) -> npt.NDArray[np.uint8]:
    """Return a frame (HEIGHT, WIDTH, 3) with a photo in its middle, as high as the frame."""
    frame = Image.new("RGB", (WIDTH, HEIGHT), (90, 110, 90))
    frame.paste(Image.open(photo).resize((HEIGHT, HEIGHT)), ((WIDTH - HEIGHT) // 2, 0))
    return np.asarray(frame)


def write_video(target: Path, photos: list[Path], times: int) -> Path:
    """Write a video that shows each photo for so many frames, 25 a second."""
    import av

    with av.open(str(target), "w") as container:
        stream = container.add_stream("mpeg4", rate=25, options={"qscale": "2"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for photo in photos:
            pixels = frame_of(photo)
            for _ in range(times):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return target


def endless(photos: list[Path], pause: float = 0.03, most: int = 1500) -> Script:
    """Return what a camera sends that shows the photos again and again, slowly."""
    jpegs = [jpeg_of(frame_of(photo)) for photo in photos]

    def steps() -> Iterator[bytes]:
        while True:
            for jpeg in jpegs:
                yield part(jpeg)

    parts = steps()

    def paced() -> bytes:
        time.sleep(pause)
        return next(parts)

    return [head(), *(paced for _ in range(most))]
