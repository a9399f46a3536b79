"""The preview for a browser: loopback alone, the newest picture to each viewer, slow or not."""

from __future__ import annotations

import http.client
import io
import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from PIL import Image

from fgdeploy.camera.preview_server import PreviewServer
from fgdeploy.core.errors import DataError, UsageError
from tests.checks import refused

WAIT = 10.0


def picture(level: int, side: int = 32) -> Image.Image:
    return Image.new("RGB", (side, side), (level, level, level))


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Viewer:
    """One that looks, as a browser does."""

    def __init__(self, url: str, host: str | None = None) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=WAIT)
        self.connection.request("GET", parts.path or "/", headers={"Host": host} if host else {})
        self.answer = self.connection.getresponse()

    def level(self) -> int:
        """Return how bright the next picture is."""
        lines = iter(self.answer.readline, b"\r\n")
        length = next(int(line.split()[1]) for line in lines if line.startswith(b"Content-Length"))
        self.answer.readline()
        jpeg = self.answer.read(length)
        self.answer.readline()
        return int(Image.open(io.BytesIO(jpeg)).convert("L").getpixel((0, 0)))  # type: ignore[arg-type]


def test_each_viewer_gets_the_newest_and_all_end_with_it() -> None:
    with PreviewServer("http://127.0.0.1:0") as server:
        assert not server.wanted
        first = Viewer(server.where)
        until(lambda: server.wanted)
        assert first.answer.getheader("Content-Type", "").startswith("multipart/x-mixed-replace")
        server.write(picture(50), 0)
        assert first.level() == 50
        second = Viewer(server.where)
        assert second.level() == 50
        server.write(picture(200), 0)
        assert (first.level(), second.level()) == (200, 200)
    assert first.answer.read() == second.answer.read() == b""
    with pytest.raises(OSError):
        Viewer(server.where)


def test_a_slow_viewer_misses_pictures_and_slows_nobody() -> None:
    with PreviewServer("http://localhost:0") as server:
        slow, quick = Viewer(server.where), Viewer(server.where)
        noise = Image.effect_noise((900, 900), 90)  # of which few fit into the socket
        for _ in range(60):
            server.write(noise, 0)  # comes back at once, whoever reads
        server.write(picture(17), 0)
        while quick.level() != 17:
            pass
        read = 1
        while slow.level() != 17:
            read += 1
        assert read < 60


def test_who_went_is_forgotten() -> None:
    with PreviewServer("http://127.0.0.1:0") as server:
        viewer = Viewer(server.where)
        until(lambda: server.wanted)
        viewer.answer.close()
        viewer.connection.close()

        def left() -> bool:
            server.write(picture(1), 0)
            return not server.wanted

        until(left)


def test_nobody_else_is_answered() -> None:
    with PreviewServer("http://127.0.0.1:0") as server:
        assert Viewer(server.where, host="evil.example:80").answer.status == 403
        assert Viewer(f"{server.where}/other").answer.status == 404
        until(lambda: not server.wanted)
        crowd = [Viewer(server.where) for _ in range(8)]
        until(lambda: server._viewers == 8)
        assert Viewer(server.where).answer.status == 503
        assert {one.answer.status for one in crowd} == {200}


@pytest.mark.parametrize(
    "url",
    ["http://0.0.0.0:80", "http://192.168.1.5:8090", "http://example.org:80", "http://[::]:1",
     "http://127.0.0.1.evil.example:80"],
)  # fmt: skip
def test_addresses_that_others_reach_are_refused(url: str) -> None:
    with refused(UsageError, "can be reached by others"):
        PreviewServer(url)


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1:80", "http://127.0.0.1", "http://127.0.0.1:x", "rtsp://127.0.0.1:80",
            "http://127.0.0.1:80/video", "http://127.0.0.1:99999", "http://[::1"],
)  # fmt: skip
def test_other_addresses_are_refused(url: str) -> None:
    with refused(UsageError, "expected an address as http://127.0.0.1:8090"):
        PreviewServer(url)


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with refused(DataError, "Address already in use; choose another port"):
            PreviewServer(url)
