"""What each part of a training is worth: the paper's Table V and the choices of the fast recipe.

    .venv/bin/python benchmarks/training.py DATA --weights WEIGHTS.pth --bits 32 --epochs 6
    .venv/bin/python benchmarks/training.py drawn --only table-v

Each row is one `fgdeploy train` in a process of its own, seed 0, scored by the three protocols on
the test half. DATA is what `train` takes, or `drawn`: the demo's moths, network and sizes.
Unknown options go to `train`. With --keep FOLDER runs stay, and those that are
finished are not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TABLE_V = {
    "baseline (dense, hash and class loss)": ["--recipe", "paper", "--without", "ctp,dkt,drg"],
    "+ CTP": ["--recipe", "paper", "--without", "dkt,drg"],
    "+ CTP + DKT": ["--recipe", "paper", "--without", "drg"],
    "+ CTP + DKT + DRG (paper)": ["--recipe", "paper"],
}
FAST = {
    "fast": [],
    "fast, codes from labels alone": ["--without", "codes"],
    "fast, random heads": ["--without", "start"],
    "fast, dense": ["--without", "ctp"],
    "fast, under the dense one as frozen teacher": ["--teacher", "{fast, dense}"],
}
GROUPS = {"table-v": TABLE_V, "fast": FAST, "all": {**FAST, **TABLE_V}}


def _slug(label: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in label).strip("-")


def _drawn(folder: Path) -> tuple[Path, list[str]]:
    from fgdeploy.demo.tour import draw, settings

    table = draw(folder / "moths")
    plan = settings(table)
    same = ("backbone", "weights", "image_size", "crop", "least_area", "bits", "epochs", "batch")
    flags = [word for name in same for word in (f"--{name.replace('_', '-')}", getattr(plan, name))]
    return table, [str(word) for word in flags]


def _train(data: Path, flags: list[str], folder: Path) -> float:
    """Run `fgdeploy train` and return its minutes; nan for a run that was there already."""
    if (folder / "scores.json").is_file():
        return float("nan")
    command = [sys.executable, "-m", "fgdeploy", "train", str(data), *flags, "-o", str(folder)]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - start) / 60


def main() -> None:
    """Train every variant in turn and print one row for each network."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data")
    parser.add_argument("--only", choices=GROUPS, default="all")
    parser.add_argument("--keep", type=Path)
    options, passed = parser.parse_known_args()
    protocols = ("asym_targets", "asym_sign", "symmetric")
    print(f"| variant | network | {' | '.join(protocols)} | R@1 (asym_sign) | minutes |")
    print("|---" * 7 + "|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        keep = options.keep or Path(name)
        keep.mkdir(exist_ok=True)
        data, more = _drawn(keep) if options.data == "drawn" else (Path(options.data), [])
        for label, flags in GROUPS[options.only].items():
            places = {f"{{{known}}}": str(keep / _slug(known)) for known in FAST}
            named = [places.get(flag, flag) for flag in flags]
            minutes = _train(data, [*named, *more, *passed], keep / _slug(label))
            scores = json.loads((keep / _slug(label) / "scores.json").read_text())
            networks = [name for name in ("student", "teacher") if name in scores]
            for network, found in ((name, scores[name]) for name in networks):
                maps = " | ".join(f"{found[protocol]['map']:.4f}" for protocol in protocols)
                recall = found["asym_sign"]["recall"]["1"]
                print(
                    f"| {label} | {network} | {maps} | {recall:.4f} | {minutes:.1f} |", flush=True
                )


if __name__ == "__main__":
    main()
