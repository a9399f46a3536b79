"""Images a second of `fgdeploy serve` at 8 clients against `hasher.encode` of the same bytes.

    .venv/bin/python benchmarks/camera/serving.py BUNDLE [PHOTOS] [--rounds 5] [--seconds 4]

The service and the library run in processes of their own, in turn, so that both meet the same
machine. PHOTOS: a folder of JPEGs that are sent as they are; by default frames of 1280 x 720 that
are drawn. Clients are plain sockets that stay open, in one process whose CPU time is given too,
since it comes off the same cores. Targets: >= 0.9 times the library, p99 <= 3 x p50.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from fgdeploy.core import machine
from fgdeploy.hasher import load
from fgdeploy.photos import read

_DRAWN = 32
_WARM_S = 1.0


def drawn() -> list[bytes]:
    """Return frames of 1280 x 720 as a camera's JPEGs, about 150 kB each."""
    found = []
    for seed in range(_DRAWN):
        noise = np.random.default_rng(seed).integers(0, 256, (90, 160, 3), np.uint8)
        frame = Image.fromarray(noise).resize((1280, 720), Image.Resampling.BICUBIC)
        stream = io.BytesIO()
        frame.filter(ImageFilter.GaussianBlur(1)).save(stream, "JPEG", quality=90)
        found.append(stream.getvalue())
    return found


def bodies(folder: str, most: int) -> list[bytes]:
    """Return what is sent."""
    if not folder:
        return drawn()
    return [Path(photo.path).read_bytes() for photo in read(Path(folder))[:most]]


def encode_when_told(bundle: str, backend: str, photos: Sequence[bytes]) -> None:
    """Encode for as many seconds as each line of stdin says; print photos and seconds."""
    with load(bundle, backend) as hasher:
        hasher.encode(photos)
        print(hasher.engine.describe(), flush=True)
        for line in sys.stdin:
            start, end, done = time.perf_counter(), time.perf_counter() + float(line), 0
            while time.perf_counter() < end:
                done += len(hasher.encode(photos))
            print(json.dumps([done, time.perf_counter() - start]), flush=True)


@dataclass
class Round:
    """Of the service: images, seconds, latencies of all, CPU seconds of clients and service."""

    images: int
    seconds: float
    latencies: list[float]
    client_cpu: float
    server_cpu: float


async def _client(port: int, photos: Sequence[bytes], first: int, end: float) -> list[float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    took, turn = [], first
    while (start := time.perf_counter()) < end:
        body = photos[turn % len(photos)]
        head = "POST /hash HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", answer)
        assert answer.startswith(b"HTTP/1.1 200") and length, answer
        await reader.readexactly(int(length[1]))
        took.append(time.perf_counter() - start)
        turn += 1
    writer.close()
    return took


async def _clients(port: int, photos: Sequence[bytes], count: int, seconds: float) -> list[float]:
    end = time.perf_counter() + seconds
    step = max(1, len(photos) // count)
    found = await asyncio.gather(*(_client(port, photos, n * step, end) for n in range(count)))
    return [one for some in found for one in some]


def _cpu_of(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ask(port: int, server: int, photos: Sequence[bytes], count: int, seconds: float) -> Round:
    """Let the clients ask for some seconds."""
    own, other, start = time.process_time(), _cpu_of(server), time.perf_counter()
    took = asyncio.run(_clients(port, photos, count, seconds))
    wall = time.perf_counter() - start
    return Round(len(took), wall, took, time.process_time() - own, _cpu_of(server) - other)


def _serve(bundle: str, backend: str) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-m", "fgdeploy", "serve", "-b", bundle, "--port", "0"]
    server = subprocess.Popen([*command, "--backend", backend], stderr=subprocess.PIPE, text=True)
    for line in server.stderr or ():
        if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
            return server, int(found[1])
    raise SystemExit("the service did not start")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("photos", nargs="?", default="")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--most", type=int, default=200, help="photos of the folder")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--library", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    photos = bodies(given.photos, given.most)
    if given.library:
        encode_when_told(given.bundle, given.backend, photos)
        return
    command = [sys.executable, __file__, given.bundle, given.photos, "--library"]
    command += ["--backend", given.backend, "--most", str(given.most)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    library = subprocess.Popen(command, **pipes)  # type: ignore[call-overload]
    engine = library.stdout.readline().strip()
    server, port = _serve(given.bundle, given.backend)
    ask(port, server.pid, photos, given.clients, _WARM_S)
    rates, rounds = [], []
    for _ in range(given.rounds):
        cpu = _cpu_of(library.pid)
        library.stdin.write(f"{given.seconds}\n")
        library.stdin.flush()
        done, seconds = json.loads(library.stdout.readline())
        rates.append((done / seconds, (_cpu_of(library.pid) - cpu) / done))
        rounds.append(ask(port, server.pid, photos, given.clients, given.seconds))
    library.stdin.close()
    library.wait(30)
    server.terminate()
    server.wait(30)
    _print(engine, photos, given.clients, rates, rounds)


def _print(
    engine: str,
    photos: Sequence[bytes],
    clients: int,
    rates: Sequence[tuple[float, float]],
    rounds: Sequence[Round],
) -> None:
    served = [one.images / one.seconds for one in rounds]
    ratios = [mine / own for mine, (own, _) in zip(served, rates, strict=True)]
    took = np.array([one for some in rounds for one in some.latencies]) * 1e3
    p50, p95, p99 = np.percentile(took, (50, 95, 99))
    images = sum(one.images for one in rounds)
    clients_ms = sum(one.client_cpu for one in rounds) / images * 1e3
    server_ms = sum(one.server_cpu for one in rounds) / images * 1e3
    library_ms = statistics.median(cpu for _, cpu in rates) * 1e3
    size = statistics.mean(map(len, photos)) / 1e3
    print(f"{machine.cpu().name}, {machine.cores()} cores; {engine}; {size:.0f} kB an image")
    print(f"library: {statistics.median(own for own, _ in rates):.1f} images/s")
    print(f"service, {clients} clients: {statistics.median(served):.1f} images/s")
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(f"ratio: {statistics.median(ratios):.3f} ({spread}, {len(ratios)} rounds)")
    print(f"latency: p50 {p50:.1f} ms, p95 {p95:.1f}, p99 {p99:.1f} = {p99 / p50:.2f} x p50")
    print(
        f"CPU ms an image: service {server_ms:.2f}, clients {clients_ms:.2f}, "
        f"library {library_ms:.2f}"
    )


if __name__ == "__main__":
    main()
