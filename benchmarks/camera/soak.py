"""A camera for long: what a month brings, as fast as it goes, with memory, threads and files held.

    .venv/bin/python benchmarks/camera/soak.py [--frames 100000]

A small random model hashes a generated stream of 640 x 360. Every 97th frame is broken, the stream
breaks off every 2,000 frames and comes back, every 50th result is enrolled, and every 10,000
results the camera is closed and another one opened on the same worker. Prints a line for each
camera; ends with an error where frames are missing from the counters, items from the gallery, or
where memory, threads or open files grew. 100,000 frames take about 5 minutes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

import fgdeploy
from fgdeploy.camera.back_off import BackOff
from fgdeploy.camera.capture_source import BrokenFrame, Captured, CaptureSource, StreamBroken
from fgdeploy.camera.reconnecting import Patience, Reconnecting
from fgdeploy.live.hash_worker import HashWorker
from fgdeploy.retrieval import Index, Item

_BROKEN, _BREAKS, _ENROLLED, _CLOSED = 97, 2_000, 50, 10_000
_FRAMES = np.random.default_rng(0).integers(0, 256, (8, 360, 640, 3), np.uint8)
_GROWTH = 1.05  # of memory, from the first look on


class Rough(CaptureSource):
    """Frames as fast as they are read; `again` goes on where the last one broke off."""

    live, lasts, longest = False, True, 5.0

    def __init__(self, given: int = 0) -> None:
        self._given = given

    def again(self) -> CaptureSource:
        return Rough(self._given)

    def open(self) -> None:
        pass

    def read(self) -> Captured:
        self._given += 1
        if self._given % _BREAKS == 0:
            raise StreamBroken("the cable")
        if self._given % _BROKEN == 0:
            raise BrokenFrame("cut short")
        return Captured(_FRAMES[self._given % len(_FRAMES)], "bgr")

    def close(self) -> None:
        pass

    def describe(self) -> str:
        return "a rough stream"


def held() -> dict[str, float]:
    """Return what this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "MiB": round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1),
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),
    }


def one_camera(worker: HashWorker, index: Index, results: int, seen: int) -> int:
    """Take so many results, enrol some, close; return how many were enrolled."""
    source = Reconnecting(Rough(), Patience(BackOff(0.001, 0.01)))
    enrolled = 0
    with fgdeploy.Camera(source, worker, index, k=5) as camera:
        for count, result in enumerate(camera, start=1):
            if count % _ENROLLED == 0:
                index.add([Item(f"camera://soak/{seen + count}", result.code)])
                enrolled += 1
            if count == results:
                break
    counters = camera.counters
    if counters.under_way or counters.processed != results:
        raise SystemExit(f"frames are missing: {counters}")
    return enrolled


def soak(folder: Path, frames: int) -> None:
    """Run cameras until so many frames came out. Raises SystemExit where something grew."""
    start, first, seen, enrolled = time.monotonic(), {}, 0, 0
    with (
        HashWorker(fgdeploy.load(folder / "small.fgd", threads=1), waiting=2) as worker,
        Index.create(folder / "g.fgi", worker.hasher.fingerprint, worker.hasher.bits) as index,
    ):
        while seen < frames:
            part = min(_CLOSED, frames - seen)
            enrolled += one_camera(worker, index, part, seen)
            seen += part
            now = held()
            first = first or now
            print(f"{seen:,} frames, {time.monotonic() - start:.0f} s, {now}", flush=True)
        if len(index) != enrolled or index.verify():
            raise SystemExit(f"{enrolled:,} were enrolled, {len(index):,} are there")
    if now["MiB"] > _GROWTH * first["MiB"] or now["threads"] > first["threads"] + 1:
        raise SystemExit(f"it grew from {first} to {now}")
    if now["files"] > first["files"] + 8:
        raise SystemExit(f"files stayed open: from {first} to {now}")


def main() -> None:
    """Make the small model and soak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        words = ["--no-time", "--weights", "random", "--backbone", "test_vit", "--head", "lsh"]
        words += ["--bits", "64", "--image-size", "64", "-o", f"{name}/small.fgd"]
        subprocess.run([sys.executable, "-m", "fgdeploy", "export", *words], check=True)
        soak(Path(name), options.frames)


if __name__ == "__main__":
    main()
