"""What a second look costs: GLSim against the dense ViT, in one engine and precision.

    .venv/bin/python benchmarks/looks.py [--folder looks-latency] [--sizes 224] [--rounds 3]
        [--backbone deit_small_patch16_224] [--runs onnxruntime:fp32,openvino:fp32]

On random weights, as speed does not depend on them. Each contender runs in a process of its own, in
turn, several rounds; the figure is the median over rounds of the medians of calls, its ratio the
time over the dense ViT's, and beside it the ratio of multiply-accumulates and of the file. The
table goes to stdout and to --folder/table.md; bundles stay there.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from fgdeploy.bundle import open_bundle
from fgdeploy.proof import bench

BATCHES = (1, 8)
DENSE, GLSIM, PUBLISHED = "dense", "glsim", "glsim as published"
CONTENDERS: dict[str, tuple[str, ...]] = {
    DENSE: ("--method", "eet", "--set", "stages=none"),
    GLSIM: ("--method", "glsim"),
    PUBLISHED: ("--method", "glsim", "--without", "cls-last,first-row"),
}


def prepare(name: str, size: int, options: argparse.Namespace) -> Path:
    """Export a contender unless it is there; return its bundle."""
    bundle: Path = options.folder / f"{name.replace(' ', '-')}-{size}.fgd"
    if not bundle.exists():
        print(f"exporting {name} at {size}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "fgdeploy", "export", *CONTENDERS[name]]
        command += ["--backbone", options.backbone, "--image-size", str(size), "--head", "lsh"]
        command += ["--weights", "random", "--no-time", "-o", str(bundle)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
    return bundle


def measure(
    bundles: dict[str, Path], runs: list[str], rounds: int
) -> dict[tuple[str, str, int], float]:
    """Return medians in ms by contender, engine with precision, and batch."""
    taken: dict[tuple[str, str, int], list[float]] = {}
    for number in range(1, rounds + 1):
        for run in runs:
            for name, bundle in bundles.items():
                (speed,) = bench.compare(bundle, [run], BATCHES, rounds=1)
                for batch in BATCHES:
                    taken.setdefault((name, run, batch), []).append(speed.at(batch).p50_ms)
                print(f"round {number}: {name} {run}", file=sys.stderr, flush=True)
    return {key: statistics.median(values) for key, values in taken.items()}


def table(
    size: int, bundles: dict[str, Path], runs: list[str], taken: dict[tuple[str, str, int], float]
) -> str:
    """Return the markdown table; each ratio is over the dense ViT, above 1 costs more."""
    columns = [(run, batch) for run in runs for batch in BATCHES]
    titles = [f"{run.replace(':', ' ')}, batch {batch}, ms" for run, batch in columns]
    lines = [f"| at {size} pixels | GMACs | file, MB | {' | '.join(titles)} |"]
    lines.append("|---" * (len(titles) + 3) + "|")
    macs = {name: open_bundle(one).manifest.macs["exported"] / 1e9 for name, one in bundles.items()}
    held = {name: one.joinpath("model.onnx").stat().st_size / 1e6 for name, one in bundles.items()}
    for name in bundles:
        cells = [f"{one[name]:.2f} ({one[name] / one[DENSE]:.2f}x)" for one in (macs, held)]
        for run, batch in columns:
            mine, dense = taken[name, run, batch], taken[DENSE, run, batch]
            cells.append(f"{mine:.1f} ({mine / dense:.2f}x)")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Prepare the bundles, measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("looks-latency"))
    parser.add_argument("--backbone", default="deit_small_patch16_224")
    parser.add_argument("--sizes", default="224")
    parser.add_argument("--runs", default="onnxruntime:fp32,openvino:fp32")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    texts, runs = [], options.runs.split(",")
    for size in map(int, options.sizes.split(",")):
        bundles = {name: prepare(name, size, options) for name in CONTENDERS}
        texts.append(table(size, bundles, runs, measure(bundles, runs, options.rounds)))
    (options.folder / "table.md").write_text("\n".join(texts), encoding="utf-8")
    print("\n".join(texts), end="")


if __name__ == "__main__":
    main()
