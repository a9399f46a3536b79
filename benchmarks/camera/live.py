"""The camera: frames/s, latency from capture to hits, a large gallery, the start, memory.

    .venv/bin/python benchmarks/camera/live.py [--keep FOLDER] [--rounds 3] [--frames 600]
    .venv/bin/python benchmarks/camera/live.py --keep FOLDER --only memory --memory-frames 100000

Makes an EET bundle with random weights (speed does not depend on them) of 64 bits, calibrates it on
drawn moths (or --photos FOLDER), builds OpenVINO's INT8 engine (--precision fp32 where the CPU has
no VNNI), galleries of 1,000 and 1,000,000 codes and a video of 1280 x 720. Each part runs in a
process of its own, one after the other, in rounds. FOLDER keeps what was made, and is taken as it
is. About 8 minutes to prepare, 2 a round; 100,000 frames take 20.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from fgdeploy.bundle import open_bundle
from fgdeploy.core.machine import cores, cpu
from fgdeploy.demo.tour import draw
from fgdeploy.retrieval import Index

_PARTS = Path(__file__).with_name("live_parts.py")
_GALLERIES = {"small": 1_000, "million": 1_000_000}
# (name, part, gallery)
LINES = (
    ("generated, 250 frames/s", "unpaced", "small"),
    ("generated, 30 frames/s", "paced", "small"),
    ("generated, 30 frames/s, 1M codes", "paced", "million"),
    ("file, as fast as it goes", "file", "small"),
    ("file, at its 30 frames/s", "file_live", "small"),
)
_COLUMNS = ("frames/s", "total p50", "total p95", "total p99", "search p50", "most waiting")


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _fgdeploy(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "fgdeploy", *map(str, words)], check=True)


def prepare(folder: Path, backbone: str, precision: str, photos: Path | None) -> None:
    """Make what the folder lacks."""
    bundle = folder / "eet.fgd"
    if not bundle.exists():
        words = ["--no-time", "--weights", "random", "--backbone", backbone, "--head", "lsh"]
        _fgdeploy("export", *words, "--bits", 64, "-o", bundle)
    if not list(bundle.glob("engines/*")):
        # Random weights: there is no accuracy to limit
        words = ["--no-time", "--min-bit-agreement", "0", "--batch", "1", "--backend", "openvino"]
        if precision == "int8":
            given = photos or draw(folder / "photos", 8, 16, 0)
            words += ["--data", str(given), "--images", "16"]
        _fgdeploy("build-engine", bundle, f"--{precision}", *words)
    manifest = open_bundle(bundle).manifest
    for name, count in _GALLERIES.items():
        if not (folder / f"{name}.fgi").exists():
            codes = np.random.default_rng(0).integers(0, 256, (count, 8), np.uint8)
            with Index.create(folder / f"{name}.fgi", manifest.fingerprint, 64) as index:
                index.add_codes(codes)
                index.compact()
                index.search(codes[:1], 5)
    if not (folder / "720p.mp4").exists():
        write_video(folder / "720p.mp4", 600)


def write_video(path: Path, count: int) -> None:
    """Write an H.264 video of 1280 x 720 at 30 frames/s, a place that moves past."""
    import av

    chooser = np.random.default_rng(0)
    place = chooser.integers(0, 256, (90, 400, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        for number in range(count):
            left = 3 * number % (place.shape[1] - 1280)
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(place[:, left : left + 1280]), format="rgb24"
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def run(part: str, folder: Path, gallery: str, frames: int) -> dict[str, Any]:
    """Run a part in a process of its own; `to first` is when its first line came, in seconds."""
    command = [sys.executable, str(_PARTS), part, str(folder), str(folder / f"{gallery}.fgi")]
    start = time.monotonic()
    with subprocess.Popen(
        [*command, "--frames", str(frames)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        first = time.monotonic() - start
        rest = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{part} failed")
    found: dict[str, Any] = json.loads((line + rest).splitlines()[-1])
    return {**found, "to first": first}


def median(found: list[dict[str, Any]], column: str) -> float:
    """Return the median over rounds."""
    return statistics.median(one[column] for one in found)


def measure(folder: Path, rounds: int, frames: int) -> None:
    """Print the table of rates and latencies, and the start."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name, _, _ in LINES}
    starts = []
    for number in range(rounds):
        for name, part, gallery in LINES:
            found[name].append(run(part, folder, gallery, frames))
            _note(f"round {number + 1}: {name}: {json.dumps(found[name][-1])}")
        starts.append(run("first", folder, "small", 30))
    print(f"| {found[LINES[0][0]][0]['engine']} | {' | '.join(_COLUMNS)} |")
    print("|---" * (len(_COLUMNS) + 1) + "|")
    for name, ones in found.items():
        cells = [f"{median(ones, column):.1f}" for column in _COLUMNS[:-1]]
        most = max(one[_COLUMNS[-1]] for one in ones)
        print(f"| {name} | {' | '.join(cells)} | {most} |")
    print()
    small, million = (found[LINES[place][0]] for place in (1, 2))
    for column in ("search p50", "total p50", "total p95"):
        pairs = zip(small, million, strict=True)
        added = statistics.median(two[column] - one[column] for one, two in pairs)
        print(f"1M codes add {added:.2f} ms to {column}")
    loads = median(starts, "load")
    print(f"start to first result {median(starts, 'to first'):.2f} s, of it load {loads:.2f} s")


def main() -> None:
    """Prepare, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--backbone", default="deit_small_patch16_224")
    parser.add_argument("--precision", default="int8", choices=("int8", "bf16", "fp32"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--memory-frames", type=int, default=10_000)
    parser.add_argument("--only", choices=("rates", "memory"))
    options = parser.parse_args()
    print(f"{cpu().name}, {cores()} cores; {' '.join(sys.argv[1:])}\n")
    with tempfile.TemporaryDirectory() as name:
        folder = options.keep or Path(name)
        folder.mkdir(exist_ok=True)
        prepare(folder, options.backbone, options.precision, options.photos)
        if options.only != "memory":
            measure(folder, options.rounds, options.frames)
        if options.only != "rates":
            print(json.dumps(run("memory", folder, "small", options.memory_frames)))


if __name__ == "__main__":
    main()
