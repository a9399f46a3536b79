"""What `index migrate` leaves to a camera beside it: milliseconds from frame to code, by throttle.

    .venv/bin/python benchmarks/retrieval/migrating.py PHOTOS OLD.fgd NEW.fgd [--seconds 12]

A camera process hashes one frame 30 times a second with OLD.fgd on all cores; meanwhile a second
process migrates an index of PHOTOS to NEW.fgd, again and again, at a share of the time and with
some threads. "late": frames that took longer than their 33 ms.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fgdeploy.gallery import add_photos
from fgdeploy.hasher import Hasher, load
from fgdeploy.photos import read, spread
from fgdeploy.retrieval import Index

RUNS = ((None, 0), (1.0, 0), (1.0, 1), (0.5, 1), (0.25, 1), (0.1, 1))
_RATE, _PHOTOS = 30, 200

_MIGRATES = """
import shutil, sys
from pathlib import Path
from fgdeploy.gallery import Throttle, migrate
from fgdeploy.gallery.migrating import AT_ONCE
from fgdeploy.hasher import load

start, work, bundle, share, threads = sys.argv[1:]
with load(bundle, threads=int(threads) or None) as hasher:
    while True:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(start, work)
        told = lambda done, total: print(done % AT_ONCE or AT_ONCE, flush=True)
        throttle = Throttle(float(share))
        migrate(Path(work), hasher, throttle=throttle, keep_old=False, progress=told)
"""


def frames(hasher: Hasher, path: Path, seconds: float) -> list[float]:
    """Return the milliseconds that each frame took, at a steady rate."""
    frame = hasher.manifest.preprocess.frame(path)
    found: list[float] = []
    begin = time.perf_counter()
    for number in itertools.count():
        due = begin + number / _RATE
        if due > begin + seconds:
            return found
        time.sleep(max(0.0, due - time.perf_counter()))
        hasher.engine.run(frame[None])
        found.append(1e3 * (time.perf_counter() - max(due, begin)))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--seconds", type=float, default=12)
    given = parser.parse_args()
    listed = spread(read(given.photos), _PHOTOS)
    print("| throttle | threads | frame p50 | p95 | late | photos/s |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name, load(given.old) as hasher:
        start = Path(name, "start.fgi")
        with Index.create(start, hasher.fingerprint, hasher.bits) as index:
            add_photos(index, hasher, listed)
        for share, threads in RUNS:
            command = [sys.executable, "-c", _MIGRATES, start, Path(name, "g.fgi"), given.new]
            log = Path(name, "log")
            with open(log, "wb") as stream:
                worker = None
                if share is not None:
                    words = [*map(str, command), str(share), str(threads)]
                    worker = subprocess.Popen(words, stdout=stream)
                    time.sleep(5)  # it loads its bundle
                found = frames(hasher, listed[0].path, given.seconds)
                if worker is not None:
                    worker.kill()
                    worker.wait()
            done = sum(map(int, log.read_bytes().split())) / (given.seconds + 5)
            p50, p95 = np.percentile(found, [50, 95])
            late = np.mean(np.array(found) > 1e3 / _RATE)
            shown = "none" if share is None else f"{share:g}"
            count = threads or os.cpu_count()
            print(
                f"| {shown} | {count} | {p50:.1f} | {p95:.1f} | {late:.0%} | {done:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
