"""A camera on loopback that sends H.264 over RTSP (RFC 2326), in one connection."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from tests.fgdeploy.camera.videos import Pixels

if TYPE_CHECKING:
    from typing_extensions import Self

_LONGEST = 20.0  # seconds of any wait, so that no test hangs
_SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\n"
    "a=control:track0\r\n"
)


class _Packets:
    """What FFmpeg writes of RTP, packet by packet."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, content: bytes) -> int:
        self.written.append(bytes(content))
        return len(content)


def packets_of(frames: Sequence[Pixels]) -> list[bytes]:
    """Return frames as RTP packets of H.264, each picture to be shown as soon as it comes."""
    av: Any = pytest.importorskip("av")
    packets = _Packets()
    with av.open(packets, "w", format="rtp", options={"packetsize": "1400"}) as container:
        options = {"tune": "zerolatency", "g": "10", "repeat-headers": "1"}
        stream = container.add_stream("libx264", rate=30, options={**options, "bf": "0"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for pixels in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return [packet for packet in packets.written if packet[1] & 0x7F == 96]


class RtspServer:
    """Answers each connection and sends it the next list of packets, the last one to all others.

    stalls: keep the connection after the packets, else close it. methods: what was asked for.
    """

    def __init__(self, *streams: Sequence[bytes], stalls: bool = False) -> None:
        self._streams, self._stalls = streams, stalls
        self.methods: list[str] = []
        self.connections = 0
        self._closed = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.05)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self._socket.getsockname()[1]}/h264"

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
            packets = self._streams[min(self.connections, len(self._streams) - 1)]
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(connection, packets), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, packets: Sequence[bytes]) -> None:
        with connection:
            connection.settimeout(_LONGEST)
            try:
                for method, number in _requests(connection):
                    self.methods.append(method)
                    connection.sendall(_answer(method, number, self.url))
                    if method == "PLAY":
                        for packet in packets:
                            connection.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)
                        if self._stalls:
                            self._closed.wait(_LONGEST)
                        return
            except OSError:  # the reader has gone
                return


def _requests(connection: socket.socket) -> Iterator[tuple[str, str]]:
    """Yield method and number of each request."""
    held = b""
    while True:
        while b"\r\n\r\n" not in held:
            came = connection.recv(65536)
            if not came:
                return
            held += came
        request, _, held = held.partition(b"\r\n\r\n")
        lines = request.decode().split("\r\n")
        number = next(line for line in lines if line.lower().startswith("cseq:"))
        yield lines[0].split()[0], number.partition(":")[2].strip()


def _answer(method: str, number: str, url: str) -> bytes:
    lines, body = [f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n"], ""
    if method == "OPTIONS":
        lines.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n")
    elif method == "DESCRIBE":
        body = _SDP
        lines.append(f"Content-Base: {url}/\r\nContent-Type: application/sdp\r\n")
        lines.append(f"Content-Length: {len(body)}\r\n")
    else:
        lines.append("Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n")
    return ("".join(lines) + "\r\n" + body).encode()
