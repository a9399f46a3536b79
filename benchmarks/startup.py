"""How long a user waits for a fresh `fgdeploy` process: help, version and a whole search.

    .venv/bin/python benchmarks/startup.py [--runs 15] [--drop-caches]

Makes a random ViT-S EET bundle and an index of generated photos, then times each command in
processes of its own, in turn. --drop-caches empties the page cache before each run (root only).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fgdeploy.demo.moths import write_moths


def main() -> None:
    """Prepare, time, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--drop-caches", action="store_true")
    options = parser.parse_args()
    script = str(Path(sys.executable).with_name("fgdeploy"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_moths(folder / "photos", 10, 20)
        bundle, index = folder / "eet.fgd", folder / "g.fgi"
        for setup in (
            ["export", "--no-time", "--weights", "random", "--head", "lsh", "-o", str(bundle)],
            ["index", "add", str(index), str(folder / "photos"), "-b", str(bundle)],
        ):
            subprocess.run([script, *setup], check=True, capture_output=True)
        photo = str(next((folder / "photos").rglob("*.jpg")))
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "fgdeploy --version": [script, "--version"],
            "fgdeploy --help": [script, "--help"],
            "fgdeploy doctor": [script, "doctor"],
            "fgdeploy search (ViT-S, 200 photos)": [
                *(script, "search", photo, "-i", str(index), "-b", str(bundle))
            ],
        }
        times: dict[str, list[float]] = {label: [] for label in commands}
        for run in range(options.runs + 1):
            for label, command in commands.items():
                if options.drop_caches:
                    Path("/proc/sys/vm/drop_caches").write_text("3")
                start = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                if run:  # the first round warms the disk cache
                    times[label].append(time.perf_counter() - start)
    print(f"| command ({options.runs} runs) | median s | min | max |\n|---|---|---|---|")
    for label, values in times.items():
        print(
            f"| {label} | {statistics.median(values):.3f} | {min(values):.3f} | {max(values):.3f} |"
        )


if __name__ == "__main__":
    main()
