"""Memory of `fgdeploy hash` by the number of photos: list, pipeline, part file and result.

    .venv/bin/python benchmarks/hashing_memory.py [--counts 10000,100000,1000000] [--folder DIR]

The photos are empty files, a thousand a folder, and a stand-in gives their codes of 64 bits, so
that a million take minutes; decoding and engine hold the same memory for any number. Each count
runs in a process of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from fgdeploy.core import machine
from fgdeploy.hash_to_file import hash_to_file
from fgdeploy.hasher import Hashed, Hasher
from fgdeploy.photos import decode_batches, read

_PER_FOLDER, _BYTES = 1000, 8


class _StandIn:
    """Gives a code for each path where a hasher would decode and run an engine."""

    bits, fingerprint, bit_depth = 8 * _BYTES, "stand-in", None
    manifest: Any
    engine: Any

    def __init__(self) -> None:
        self.manifest = self.engine = self
        self.code_bytes = _BYTES

    def describe(self) -> str:
        return "stand-in"

    def stream(self, images: Iterator[Path], on_error: object = None) -> Iterator[Hashed]:
        from fgdeploy.engines import Outputs

        for batch in decode_batches(images, _code, 8):
            hashes = np.zeros((len(batch.frames), self.bits), np.float32)
            yield Hashed(batch.positions, Outputs(batch.frames, hashes))


def _code(path: Path) -> Any:
    return np.frombuffer(hashlib.blake2b(os.fsencode(path), digest_size=_BYTES).digest(), np.uint8)


def make(folder: Path, count: int) -> None:
    """Make empty files with names as a camera trap gives them."""
    for start in range(0, count, _PER_FOLDER):
        inside = folder / f"station-{start // _PER_FOLDER:04}"
        inside.mkdir(parents=True)
        for number in range(start, min(start + _PER_FOLDER, count)):
            (inside / f"IMG_20260401_{number:07}.jpg").touch()


def measure(folder: Path, target: Path) -> None:
    """Print photos, seconds, and MiB: before the list, after it, and the peak."""
    before, start = machine.peak_memory_mib(), time.perf_counter()
    photos = read(folder)
    listed = machine.peak_memory_mib()
    hash_to_file(cast(Hasher, _StandIn()), photos, target, folder)
    seconds = time.perf_counter() - start
    print(f"{seconds:.0f} {before:.0f} {listed:.0f} {machine.peak_memory_mib():.0f}")


def main() -> None:
    """Run every count in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", default="10000,100000,1000000")
    parser.add_argument("--folder", type=Path, help="Where the files are made. Default: a new one.")
    parser.add_argument("--one", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measure(*options.one)
        return
    print("| photos | s | MiB at start | peak after listing | peak of all |\n|---|---|---|---|---|")
    for count in map(int, options.counts.split(",")):
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            make(Path(name) / "photos", count)
            command = [sys.executable, __file__, "--one", f"{name}/photos", f"{name}/codes.npz"]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        print(f"| {count:,} | {' | '.join(out.split())} |", flush=True)


if __name__ == "__main__":
    main()
