"""What is measured of the camera, each in a process of its own: `live.py` starts them.

    python live_parts.py PART FOLDER [INDEX] [--frames N]

Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

import fgdeploy
from fgdeploy.camera.capture_source import Captured, CaptureSource, StreamEnded
from fgdeploy.core.machine import peak_memory_mib
from fgdeploy.retrieval.scan.ahead import ahead

HEIGHT, WIDTH = 720, 1280
_WARM = 30  # results that are not counted


class Generated(CaptureSource):
    """Frames of 1280 x 720 at a rate, drawn beforehand; each moment has one, ready or not."""

    live, lasts = True, False

    def __init__(self, count: int, rate: float | None) -> None:
        chooser = np.random.default_rng(0)
        place = chooser.integers(0, 256, (HEIGHT // 16, WIDTH // 16 + 16, 3), np.uint8)
        place = place.repeat(16, axis=0).repeat(16, axis=1)
        self._frames = [
            np.ascontiguousarray(place[:, 16 * shift : 16 * shift + WIDTH]) for shift in range(16)
        ]
        self._count, self._rate = count, rate
        self._given, self._start = 0, 0.0

    def open(self) -> None:
        self._start = time.monotonic()

    def read(self) -> Captured:
        if self._given == self._count:
            raise StreamEnded("all are given")
        if self._rate is not None:
            due = self._start + self._given / self._rate
            time.sleep(max(0.0, due - time.monotonic()))
        self._given += 1
        frame = self._frames[self._given % len(self._frames)]
        return Captured(frame, "bgr", datetime.now(timezone.utc))

    def close(self) -> None:
        pass

    def describe(self) -> str:
        return "a generated stream"


def resident_mib() -> float:
    """Return what of this process lies in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def opened_index(path: Path | None) -> fgdeploy.Index | None:
    """Return an index whose scan is compiled; for a second or two NumPy would answer."""
    if path is None:
        return None
    index = fgdeploy.Index.open(path)
    ahead.ready(1)
    ahead.wait(120)
    return index


def watch(folder: Path, index: Path | None, source: Any, **settings: Any) -> dict[str, Any]:
    """Take all results of a camera; return rates, percentiles in ms and counts."""
    totals, searches, numbers = [], [], []
    most, start = 0, 0.0
    with fgdeploy.load(folder / "eet.fgd") as hasher:
        opened = opened_index(index)
        camera = fgdeploy.Camera(source, hasher, opened, **settings)
        for result in camera:
            numbers.append(result.number)
            if len(numbers) == _WARM:
                start = time.monotonic()
            elif len(numbers) > _WARM:
                totals.append(result.latency["total"])
                searches.append(result.latency.get("search", 0.0))
                most = max(most, camera.counters.waiting)
        taken = time.monotonic() - start
        engine = hasher.engine.describe()
        if opened:
            opened.close()
    counters = camera.counters
    assert counters.captured == counters.processed + counters.dropped + counters.broken
    return {
        "engine": engine,
        "frames/s": len(totals) / taken,
        "captured": counters.captured,
        "processed": counters.processed,
        "dropped": counters.dropped,
        "most waiting": most,
        **{f"total p{p}": 1e3 * float(np.percentile(totals, p)) for p in (50, 95, 99)},
        "search p50": 1e3 * float(np.median(searches)),
        "stages p50": {
            stage: round(1e3 * times.p50, 2) for stage, times in camera.times.summary().items()
        },
        "peak MiB": peak_memory_mib(),
    }


def unpaced(folder: Path, index: Path | None, frames: int) -> dict[str, Any]:
    """Frames come at 250/s, more than the engine takes: the newest win."""
    return watch(folder, index, Generated(8 * frames, 250.0))


def paced(folder: Path, index: Path | None, frames: int) -> dict[str, Any]:
    """Frames come at 30/s."""
    return watch(folder, index, Generated(frames, 30.0))


def file(folder: Path, index: Path | None, frames: int) -> dict[str, Any]:
    """A video file as fast as it goes, no frame lost."""
    return watch(folder, index, str(folder / "720p.mp4"))


def file_live(folder: Path, index: Path | None, frames: int) -> dict[str, Any]:
    """A video file at its own rate, 30/s."""
    return watch(folder, index, str(folder / "720p.mp4"), live=True)


def first(folder: Path, index: Path | None, frames: int) -> dict[str, Any]:
    """The first result of a fresh process; `live.py` adds what came before Python ran this."""
    start = time.monotonic()
    with fgdeploy.load(folder / "eet.fgd", self_test=10.0) as hasher:
        loaded = time.monotonic() - start
        opened = fgdeploy.Index.open(index) if index else None
        for result in fgdeploy.Camera(Generated(30, 30.0), hasher, opened):
            print(json.dumps({"number": result.number}), flush=True)
            break
    return {"load": loaded, "camera": time.monotonic() - start - loaded}


def memory(folder: Path, index: Path | None, frames: int) -> dict[str, Any]:
    """Memory after 1,000 results and at the end, frames coming as fast as the engine takes them."""
    taken: dict[int, float] = {}
    with fgdeploy.load(folder / "eet.fgd") as hasher:
        opened = fgdeploy.Index.open(index) if index else None
        camera = fgdeploy.Camera(Generated(frames, None), hasher, opened, live=False)
        for count, _ in enumerate(camera, start=1):
            if count in (1000, frames):
                taken[count] = resident_mib()
    return {f"MiB after {count}": mib for count, mib in taken.items()}


PARTS: dict[str, Callable[[Path, Path | None, int], dict[str, Any]]] = {
    part.__name__: part for part in (unpaced, paced, file, file_live, first, memory)
}


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("index", type=Path, nargs="?")
    parser.add_argument("--frames", type=int, default=600)
    options = parser.parse_args()
    print(json.dumps(PARTS[options.part](options.folder, options.index, options.frames)))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
