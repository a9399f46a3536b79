"""A camera on loopback that sends MJPEG over HTTP, and misbehaves just as a test says."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

if TYPE_CHECKING:
    from typing_extensions import Self

BOUNDARY = "frame"
_LONGEST = 20.0  # seconds of any wait, so that no test hangs


class Stall:
    """Send nothing more and keep the connection until the server is closed."""


# Bytes are sent; a callable is called, and what it returns is sent, nothing for None.
Step = bytes | Stall | Callable[[], bytes | None]
Script = Iterable[Step]


def head(boundary: str = BOUNDARY, status: str = "200 OK") -> bytes:
    """Return the answer's first lines."""
    kind = f"multipart/x-mixed-replace; boundary={boundary}"
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n".encode()


def part(
    jpeg: bytes, length: int | None = -1, boundary: str = BOUNDARY, kind: str = "image/jpeg"
) -> bytes:
    """Return one frame as it is sent. length: what is said of it, -1: the truth, None: nothing."""
    said = "" if length is None else f"Content-Length: {len(jpeg) if length < 0 else length}\r\n"
    return f"--{boundary}\r\nContent-Type: {kind}\r\n{said}\r\n".encode() + jpeg + b"\r\n"


def end(boundary: str = BOUNDARY) -> bytes:
    """Return the line that ends all parts."""
    return f"--{boundary}--\r\n".encode()


def jpeg_of(pixels: npt.NDArray[np.uint8], quality: int = 90, **options: int | str) -> bytes:
    """Return pixels (H, W) or (H, W, 3) as a JPEG."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality, **options)
    return stream.getvalue()


def plain_jpeg(value: int, width: int = 640, height: int = 480) -> bytes:
    """Return a grey JPEG of one value, by which a test knows it again.

    FFmpeg finds out what a stream is from its first 2 kB: one in all that is smaller cannot be
    opened, nor one that stalls before.
    """
    return jpeg_of(np.full((height, width, 3), value, np.uint8))


class MjpegServer:
    """Gives each connection the next script, and the last one to all that follow.

    requests: the request of each connection so far, as it came.
    """

    def __init__(self, *scripts: Script) -> None:
        self._scripts: Sequence[list[Step]] = [list(script) for script in scripts]
        self.requests: list[bytes] = []
        self._closed = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.05)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/stream.mjpg"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        for thread in self._threads:
            thread.join(_LONGEST)
        self._socket.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            script = self._scripts[min(len(self.requests), len(self._scripts) - 1)]
            self.requests.append(b"")
            place = len(self.requests) - 1
            thread = threading.Thread(
                target=self._serve, args=(connection, script, place), daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, script: list[Step], place: int) -> None:
        with connection:
            connection.settimeout(_LONGEST)
            try:
                while b"\r\n\r\n" not in self.requests[place]:
                    came = connection.recv(65536)
                    if not came:
                        return
                    self.requests[place] += came
                for step in script:
                    if isinstance(step, Stall):
                        self._closed.wait(_LONGEST)
                        return
                    content = step if isinstance(step, bytes) else step()
                    if content is not None:
                        connection.sendall(content)
            except OSError:  # the reader has gone
                return
