"""Annotated frames for a browser on this machine: MJPEG over HTTP on loopback.

Each viewer gets the newest picture when it has taken the one before; a slow one misses some and
slows nobody. Nothing is encoded while nobody looks.
"""

from __future__ import annotations

import io
import ipaddress
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from PIL import Image

from fgdeploy.core.closing import Closing
from fgdeploy.core.errors import DataError, UsageError
from fgdeploy.core.text import shown

_VIEWERS = 8
_PATIENCE = 5.0  # seconds that a viewer may take for one picture
_QUALITY = 80
_BOUNDARY = "fgdeploy-frame"
_HEAD = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"


class PreviewServer(Closing):
    """Serves pictures at an address such as `http://127.0.0.1:8090`; port 0 chooses a free one.

    where: the address. Raises UsageError for another kind of address, or one that others could
    reach, DataError where the port is taken.
    """

    def __init__(self, url: str) -> None:
        host, port = _loopback(url)
        try:
            self._server = _Server((host, port), self._handler())
        except OSError as error:
            raise DataError(f"preview {url}: {error.strerror}; choose another port") from None
        self.where = f"http://{f'[{host}]' if ':' in host else host}:{self._server.server_port}"
        self._changed = threading.Condition()
        self._newest: tuple[int, bytes] = (0, b"")
        self._viewers = 0
        self._closed = False
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="preview server", daemon=True
        )
        self._thread.start()

    @property
    def wanted(self) -> bool:
        """Whether somebody looks."""
        return self._viewers > 0

    def write(self, picture: Image.Image, at: float) -> None:
        """Make a picture the newest one. at: plays no part."""
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=_QUALITY)
        with self._changed:
            self._newest = (self._newest[0] + 1, stream.getvalue())
            self._changed.notify_all()

    def close(self) -> None:
        """Send all viewers home and stop listening."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _next(self, last: int) -> tuple[int, bytes] | None:
        """Wait for a picture after number `last`; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._newest[0] > last)
            return None if self._closed else self._newest

    def _enter(self) -> bool:
        with self._changed:
            self._viewers += 1
            return self._viewers <= _VIEWERS

    def _leave(self) -> None:
        with self._changed:
            self._viewers -= 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        preview = self

        class Handler(_Viewer):
            owner = preview

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        import socket

        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def server_bind(self) -> None:
        import socketserver

        socketserver.TCPServer.server_bind(self)  # HTTPServer's asks for the host's full name
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of viewers that went away."""


class _Viewer(BaseHTTPRequestHandler):
    owner: PreviewServer
    timeout = _PATIENCE

    def do_GET(self) -> None:
        """Answer with pictures until the viewer or the camera ends."""
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        if not _is_loopback(host):  # a name of somebody's page that leads to this machine
            self.send_error(403, "only for this machine")
            return
        if self.path != "/":
            self.send_error(404)
            return
        try:
            if self.owner._enter():
                self._stream()
            else:
                self.send_error(503, "too many viewers")
        finally:
            self.owner._leave()

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.end_headers()
        last = 0
        while (found := self.owner._next(last)) is not None:
            last, jpeg = found
            self.wfile.write((_HEAD % len(jpeg)).encode() + jpeg + b"\r\n")

    def log_message(self, format: str, *values: object) -> None:
        """Say nothing."""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _loopback(url: str) -> tuple[str, int]:
    """Return host and port of an address. Raises UsageError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if not url.startswith("http://") or port is None or parts.path not in ("", "/"):
        raise UsageError(f"preview {shown(url)}: expected an address as http://127.0.0.1:8090")
    if not _is_loopback(host):
        raise UsageError(
            f"preview {shown(url)}: {host} can be reached by others, and the preview asks nobody "
            "who they are; give http://127.0.0.1:8090"
        )
    return ("127.0.0.1" if host == "localhost" else host), port
