"""Latency of one call: what people use today against fgdeploy's engines, on this CPU.

    .venv/bin/python benchmarks/latency.py [--backbone deit_small_patch16_224] [--batch 1,8]

Makes a dense and an EET bundle with random weights (speed does not depend on them), calibrates them
on drawn moths, builds every CPU engine, and times all as `fgdeploy bench` does, beside timm in
eager PyTorch and timm's plain export in ONNX Runtime. `--keep FOLDER` keeps the bundles there, and
takes those that it finds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fgdeploy.core.errors import FgdeployError
from fgdeploy.demo.tour import draw
from fgdeploy.engines import BACKENDS, available
from fgdeploy.engines.backends import engine_type
from fgdeploy.proof.scoreboard import BenchSettings, Scoreboard, run_benchmark

STAGES = {"dense": ["--set", "stages=none"], "eet": []}
PRECISIONS = ("fp32", "bf16", "int8")
EAGER, DENSE = "timm", "dense onnxruntime:fp32"


def _fgdeploy(*words: object) -> str:
    """Run a command and return why it failed, or nothing."""
    command = [sys.executable, "-m", "fgdeploy", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""


def prepare(backbone: str, batches: str, folder: Path) -> None:
    """Make what `folder` lacks: two bundles with all engines of this CPU."""
    photos = draw(folder / "photos", 8, 16, 0)
    for name, stages in STAGES.items():
        bundle = folder / f"{name}.fgd"
        if bundle.exists():
            continue
        _note(f"exporting {bundle.name}")
        words = ["--no-time", "--weights", "random", "--backbone", backbone, "--head", "lsh"]
        if failed := _fgdeploy("export", *words, *stages, "-o", bundle):
            raise SystemExit(failed)
        for backend in (one for one in available() if not BACKENDS[one].gpu):
            for precision in (one for one in PRECISIONS if one in engine_type(backend).graphs):
                _note(f"building {name} {backend}:{precision}")
                # Random weights: there is no accuracy to limit
                words = ["--no-time", "--min-bit-agreement", "0", "--batch", batches]
                if precision == "int8":
                    words += ["--data", str(photos), "--images", "32"]
                words += ["--backend", backend, f"--{precision}"]
                if failed := _fgdeploy("build-engine", bundle, *words):
                    _note(f"not built: {name} {backend}:{precision}: {failed}")


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(board: Scoreboard, backbone: str) -> str:
    """Return medians in ms, and how many times as fast as timm, dense fp32 and its dense twin."""
    took = {
        (line.measured.contender.name, line.calls.batch): line.calls.percentile(50)
        for line in board.lines
    }
    batches = board.settings.batches
    threads = board.settings.threads or "all"
    head = "".join(f" batch {n}, ms | p99 | / eager | / dense ORT | / dense |" for n in batches)
    rows = [f"| {backbone}, {threads} threads |{head} MiB |"]
    rows.append(f"|---|{'---|' * 5 * len(batches)}---|")
    for one in board.measured():
        name, cells = one.contender.name, ""
        for batch in batches:
            calls = one.at(batch)
            if calls is None:
                cells += " | | | | |"
                continue
            own = took[name, batch]
            twin = name.replace("eet ", "dense ") if name.startswith("eet ") else ""
            rivals = [took.get((rival, batch)) for rival in (EAGER, DENSE, twin)]
            ratios = " | ".join("" if rival is None else f"{rival / own:.2f}x" for rival in rivals)
            cells += f" {own:.1f} | {calls.percentile(99):.1f} | {ratios} |"
        rows.append(f"| {name} |{cells} {one.peak_mib:.0f} |")
    return "\n".join(rows)


def main() -> None:
    """Prepare, time, and print the table and the machine's peaks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="deit_small_patch16_224")
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--json", type=Path, help="write everything that was measured there")
    options = parser.parse_args()
    batches = tuple(int(batch) for batch in options.batch.split(","))
    settings = BenchSettings(batches, options.threads, options.rounds, options.seconds)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = options.keep or Path(name)
        folder.mkdir(exist_ok=True)
        prepare(options.backbone, options.batch, folder)
        _note(f"prepared after {time.monotonic() - start:.0f} s")
        bundles = [folder / f"{one}.fgd" for one in STAGES]
        try:
            board = run_benchmark(bundles, (), ("timm", "ort"), settings, notify=_note)
        except FgdeployError as error:
            raise SystemExit(str(error)) from None
    print(table(board, options.backbone))
    for name, why in board.not_run.items():
        print(f"not run: {name}: {why}")
    print(json.dumps(board.peaks.to_json() if board.peaks else None))
    if options.json:
        options.json.write_text(json.dumps(board.to_json()))
    _note(f"took {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
