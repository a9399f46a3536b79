"""Latency of every token reduction against the dense ViT, in the same engine and precision.

    .venv/bin/python benchmarks/reductions.py PHOTOS [--folder reductions-latency]

Methods x keep rates x {ONNX Runtime, OpenVINO} x {fp32, INT8} x batch {1, 8}, on random weights, as
speed does not depend on them; PHOTOS calibrate INT8. Each contender runs in a process of its own,
in turn, several rounds; the figure is the median over rounds of the medians of calls, and its ratio
to the dense ViT's. Bundles and results stay in --folder, so a run that was broken off goes on, and
another with more rates or rounds adds to it. The table goes to stdout and to --folder/table.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgdeploy.bundle import GRAPHS, open_bundle
from fgdeploy.core import machine
from fgdeploy.core.errors import FgdeployError
from fgdeploy.models.reduce.reductions import REDUCTIONS
from fgdeploy.proof import bench

BATCHES = (1, 8)
ENGINES = ("onnxruntime", "openvino")
DENSE = "dense"


@dataclass(frozen=True)
class Contender:
    """A bundle to export: its name, and what `export` is told."""

    name: str
    flags: tuple[str, ...]


def contenders(methods: list[str], rates: list[str]) -> list[Contender]:
    """Return the dense ViT, then every method at every rate; `clca` is CLCA on EViT."""
    found = [Contender(DENSE, ("--method", "eet", "--set", "stages=none"))]
    for method in methods:
        if method == "eet":
            found.append(Contender("eet", ("--method", "eet")))
            continue
        for rate in rates:
            flags = ("--method", method, "--set", f"keep_rate={rate}")
            found.append(Contender(f"{method} {rate}", flags))
    return found


class Results:
    """Medians in ms by contender, engine, precision and batch; one a round; kept in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.held: dict[str, list[float]] = {}
        self.failed: dict[str, str] = {}
        if path.is_file():
            entry = json.loads(path.read_text(encoding="utf-8"))
            self.held, self.failed = entry["ms"], entry["failed"]

    def rounds(self, name: str, run: str) -> int:
        """Return how many rounds a contender has in all batch sizes."""
        return min(len(self.held.get(f"{name}|{run}|{batch}", [])) for batch in BATCHES)

    def add(self, name: str, run: str, batch: int, median_ms: float) -> None:
        """Add a round's median."""
        self.held.setdefault(f"{name}|{run}|{batch}", []).append(median_ms)

    def median(self, name: str, run: str, batch: int) -> float | None:
        """Return the median over rounds, None where nothing was measured."""
        values = self.held.get(f"{name}|{run}|{batch}")
        return statistics.median(values) if values else None

    def save(self, **more: Any) -> None:
        """Write the file."""
        entry = {"cpu": machine.cpu().name, "threads": machine.cores(), **more}
        entry |= {"ms": self.held, "failed": self.failed}
        self.path.write_text(json.dumps(entry, indent=1), encoding="utf-8")


def prepare(one: Contender, options: argparse.Namespace) -> Path:
    """Export and calibrate a bundle unless it is there; return it."""
    bundle = options.folder / f"{one.name.replace(' ', '-')}.fgd"
    shared = ("--backbone", options.backbone, "--image-size", options.size, "--weights", "random")
    if not bundle.exists():
        print(f"exporting {one.name}", file=sys.stderr, flush=True)
        _fgdeploy("export", *one.flags, *shared, "--head", "lsh", "--no-time", "-o", bundle)
    if "int8" in options.precisions and GRAPHS["int8"] not in open_bundle(bundle).manifest.files:
        print(f"calibrating {one.name}", file=sys.stderr, flush=True)
        loose = ("--min-bit-agreement", 0)  # random weights: how good INT8 is, is not asked
        _fgdeploy("calibrate", bundle, "--data", options.photos, "--images", options.images, *loose)
    return Path(bundle)


def _fgdeploy(*words: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fgdeploy", *map(str, words)], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}: {done.stderr.strip()[-500:]}")


def measure(bundles: dict[str, Path], runs: list[str], rounds: int, results: Results) -> None:
    """Measure what lacks rounds, in turn, and write the results after each process."""
    for number in range(1, rounds + 1):
        for run in runs:
            for name, bundle in bundles.items():
                if results.rounds(name, run) >= number or f"{name}|{run}" in results.failed:
                    continue
                try:
                    (speed,) = bench.compare(bundle, [run], BATCHES, rounds=1)
                except FgdeployError as error:
                    results.failed[f"{name}|{run}"] = str(error)
                    print(f"{name} {run}: {error}", file=sys.stderr, flush=True)
                    continue
                for batch in BATCHES:
                    results.add(name, run, batch, speed.at(batch).p50_ms)
                results.save()
                print(f"round {number}: {name} {run}", file=sys.stderr, flush=True)


SCORES = ("ITQ: mAP", "R@1", "after fast: mAP", "R@1")


def quality(path: Path | None) -> dict[str, list[str]]:
    """Return what `reductions_quality.py` found by label: mAP and R@1, untrained and trained."""
    found: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path else ():
        run = json.loads(line)
        if "error" not in run:
            parts = (run[name]["asym_sign"] for name in ("untrained", "trained"))
            scores = [f"{part[key]:.3f}" for part in parts for key in ("map", "r1")]
            found[run["label"].replace("eet 98/49/12", "eet").replace("clca(evit)", "clca")] = (
                scores
            )
    return found


def table(
    bundles: dict[str, Path], runs: list[str], results: Results, scores: dict[str, list[str]]
) -> str:
    """Return the markdown table; a ratio below 1 is slower than the dense ViT."""
    columns = [(run, batch) for run in runs for batch in BATCHES]
    titles = [f"{run.replace(':', ' ')}, batch {batch}, ms" for run, batch in columns]
    titles += SCORES if scores else ()
    lines = [f"| method, keep rate | GMACs | {' | '.join(titles)} |"]
    lines.append("|---" * (len(titles) + 2) + "|")
    for name, bundle in bundles.items():
        macs = open_bundle(bundle).manifest.macs["exported"] / 1e9
        cells = []
        for run, batch in columns:
            mine, dense = (results.median(one, run, batch) for one in (name, DENSE))
            if mine is None or dense is None:
                cells.append("-")
            else:
                cells.append(f"{mine:.1f} ({dense / mine:.2f}x)")
        cells += scores.get(name, ["-"] * len(SCORES)) if scores else []
        lines.append(f"| {name} | {macs:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Prepare the bundles, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("reductions-latency"))
    parser.add_argument("--backbone", default="deit_small_patch16_224")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--methods", default=",".join(["eet", "clca", *REDUCTIONS]))
    parser.add_argument("--rates", default="0.5,0.25")
    parser.add_argument("--precisions", default="fp32,int8")
    parser.add_argument("--images", type=int, default=16, help="photos that calibrate")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quality", type=Path, help="runs of reductions_quality.py, to add scores")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    options.precisions = options.precisions.split(",")
    chosen = contenders(options.methods.split(","), options.rates.split(","))
    bundles = {one.name: prepare(one, options) for one in chosen}
    runs = [f"{engine}:{precision}" for precision in options.precisions for engine in ENGINES]
    results = Results(options.folder / "results.json")
    measure(bundles, runs, options.rounds, results)
    results.save()
    text = table(bundles, runs, results, quality(options.quality))
    (options.folder / "table.md").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
