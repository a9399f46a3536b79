"""A client for the service: within the process, or over a socket as any program would."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

WAIT = 60.0
JPEG = {"Content-Type": "image/jpeg"}


def photo(seed: int, side: int = 48) -> bytes:
    """Return a JPEG of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side + 9, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


@dataclass
class Inside:
    """Asks an application in this process. headers: of every request."""

    app: Any
    base: str = "http://127.0.0.1:8000"
    headers: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """Send one request; headers by name, such as content_type."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url=self.base) as client:
                return await client.request(
                    method, path, content=body, headers={**self.headers, **named}
                )

        return asyncio.run(ask())

    def image(self, path: str, body: bytes, method: str = "POST") -> httpx.Response:
        """Send a JPEG."""
        return self(method, path, body, content_type="image/jpeg")


def told(answer: httpx.Response, status: int, kind: str, words: str = "") -> None:
    """Expect a refusal in the one shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    assert set(found) == {"error", "kind"}
    assert found["kind"] == kind, found
    assert re.search(words, found["error"]), found
    assert "\n" not in found["error"]


@dataclass
class Running:
    """A service in a process of its own. said: its lines on stderr so far."""

    process: subprocess.Popen[str]
    port: int
    said: list[str]
    reader: threading.Thread

    def url(self, path: str) -> str:
        """Return the address of a route."""
        return f"http://127.0.0.1:{self.port}{path}"

    def connect(self) -> socket.socket:
        """Open a connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=WAIT)

    def ended(self) -> int:
        """Wait for its end and return its exit code."""
        code = self.process.wait(WAIT)
        self.reader.join(WAIT)
        return code


@contextmanager
def serving(*words: object, **environment: str) -> Iterator[Running]:
    """Run `fgdeploy serve` at a free port until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fgdeploy", "serve", "--port", "0", *map(str, words)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stderr is not None
    said: list[str] = []
    listening = threading.Event()

    def read() -> None:
        for line in process.stderr or ():
            said.append(line.rstrip())
            if "serving" in line:
                listening.set()
        listening.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert listening.wait(WAIT), said
        (line,) = [line for line in said if "serving" in line] or ["\n".join(said)]
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found, said
        yield Running(process, int(found[1]), said, reader)
    finally:
        process.kill()
        process.wait(WAIT)
        reader.join(WAIT)
        process.stderr.close()


def exchange(running: Running, head: str, body: bytes = b"") -> tuple[int, dict[str, Any]]:
    """Send raw bytes and return the status and JSON of what comes back."""
    with running.connect() as line:
        line.sendall(head.replace("\n", "\r\n").encode() + body)
        return received(line)


def received(line: socket.socket) -> tuple[int, dict[str, Any]]:
    """Read one answer from a connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = line.recv(65_536)
        assert part, data
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head.lower())[1])  # type: ignore[index]
    while len(body) < length:
        body += line.recv(65_536)
    return int(head.split()[1]), json.loads(body)


def place(folder: Path) -> Path:
    """Return where a test's index lies."""
    return folder / "gallery.fgi"
