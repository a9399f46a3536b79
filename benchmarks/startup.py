"""How long a user waits for a fresh process: help, version, a search, a camera's first answer.

    .venv/bin/python benchmarks/startup.py [--runs 15] [--drop-caches] [--bundle eet.fgd]

Makes a random ViT-S EET bundle and an index of generated photos, then times each command in
processes of its own, in turn. With --bundle instead, what a camera does until its first answer,
step by step: that bundle on its best engine, one 720p frame, an index of a million codes.
--drop-caches empties the page cache before each run (root only).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fgdeploy.bundle import open_bundle
from fgdeploy.demo.moths import write_moths
from fgdeploy.retrieval import Index

# What a fresh process does, and the seconds of each step as JSON.
FIRST_ANSWER = """
import sys, time
at, steps = time.perf_counter(), {}
def step(name):
    global at
    steps[name], at = time.perf_counter() - at, time.perf_counter()
import fgdeploy, numpy
fgdeploy.Index, fgdeploy.Hasher
frame = numpy.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=numpy.uint8)
step("imports")
hasher = fgdeploy.load(sys.argv[1])
step("load")
code = hasher.encode(frame)
step("first frame")
index = fgdeploy.Index.open(sys.argv[2])
step("index")
assert len(index.search(code, k=5)[0]) == 5
step("first search")
steps["CPU time until here"] = time.process_time()
import json
print(json.dumps({"engine": hasher.engine.describe(), "steps": steps}))
"""


def main() -> None:
    """Prepare, time, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--drop-caches", action="store_true")
    parser.add_argument("--bundle", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.bundle:
            times = first_answer(options.bundle, Path(name), options)
        else:
            times = commands(Path(name), options)
    print(f"| ({options.runs} runs) | median s | min | max |\n|---|---|---|---|")
    for label, values in times.items():
        print(
            f"| {label} | {statistics.median(values):.3f} | {min(values):.3f} | {max(values):.3f} |"
        )


def commands(folder: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the seconds of commands."""
    script = str(Path(sys.executable).with_name("fgdeploy"))
    write_moths(folder / "photos", 10, 20)
    bundle, index = folder / "eet.fgd", folder / "g.fgi"
    for setup in (
        ["export", "--no-time", "--weights", "random", "--head", "lsh", "-o", str(bundle)],
        ["index", "add", str(index), str(folder / "photos"), "-b", str(bundle)],
    ):
        subprocess.run([script, *setup], check=True, capture_output=True)
    photo = str(next((folder / "photos").rglob("*.jpg")))
    named = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "fgdeploy --version": [script, "--version"],
        "fgdeploy --help": [script, "--help"],
        "fgdeploy doctor": [script, "doctor"],
        "fgdeploy search (ViT-S, 200 photos)": [
            *(script, "search", photo, "-i", str(index), "-b", str(bundle))
        ],
    }
    times: dict[str, list[float]] = {label: [] for label in named}
    for run in range(options.runs + 1):
        for label, command in named.items():
            taken, _ = timed(command, options.drop_caches)
            if run:  # the first round warms the disk cache
                times[label].append(taken)
    return times


def first_answer(bundle: Path, folder: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the seconds of a camera's steps until its first answer."""
    manifest = open_bundle(bundle).manifest
    codes = np.random.default_rng(0).integers(
        0, 256, (1_000_000, manifest.code_bytes), dtype=np.uint8
    )
    with Index.create(folder / "g.fgi", manifest.fingerprint, manifest.bits) as index:
        index.add_codes(codes)
        index.compact()
    times: dict[str, list[float]] = {}
    for run in range(options.runs + 1):
        command = [sys.executable, "-c", FIRST_ANSWER, str(bundle), str(folder / "g.fgi")]
        taken, said = timed(command, options.drop_caches)
        found = json.loads(said)
        if not run:
            print(f"{bundle} on {found['engine']}\n")
            continue
        for label, seconds in {**found["steps"], "start to end of the process": taken}.items():
            times.setdefault(label, []).append(seconds)
    return times


def timed(command: Sequence[str], drop_caches: bool) -> tuple[float, str]:
    """Run a command; return its seconds and what it printed."""
    if drop_caches:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    start = time.perf_counter()
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start, said.stdout.decode()


if __name__ == "__main__":
    main()
