"""Retrieval on real bird photos with a pretrained DeiT-Tiny: dense against EET, label-free heads.

    .venv/bin/python benchmarks/birds.py DATA/split.csv WEIGHTS.pth [--bits 32,64,128]

Each row is `fgdeploy export` (ITQ fitted on the train split) and `fgdeploy eval` (test split
against train split), as a user would run them. Seed 0.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def _run(*arguments: object) -> str:
    command = [sys.executable, "-m", "fgdeploy", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Export, evaluate, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("listing", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--bits", default="32,64,128")
    options = parser.parse_args()
    print("| model | G MACs | head | bits | mAP | mAP, ties averaged | R@1 | P@10 | eval s |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for bits in options.bits.split(","):
            for label, stages in (("dense", ["--set", "stages=none"]), ("EET 98/49/12", [])):
                bundle = Path(name) / f"{label.split()[0]}-{bits}.fgd"
                flags = ["--checkpoint", options.weights, "--head", "itq", "--bits", bits]
                flags += ["--fit-data", options.listing, "--no-time"]
                _run("export", *flags, *stages, "-o", bundle)
                macs = json.loads(_run("inspect", bundle, "--json"))["macs"]["exported"]
                start = time.perf_counter()
                scores = json.loads(_run("eval", options.listing, "-b", bundle, "--json"))
                seconds = time.perf_counter() - start
                print(
                    f"| {label} | {macs / 1e9:.2f} | itq | {bits} | {scores['map']:.4f} | "
                    f"{scores['tie_aware_map']:.4f} | {scores['recall']['1']:.4f} | "
                    f"{scores['precision']['10']:.4f} | {seconds:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
