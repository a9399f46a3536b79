"""What `fgdeploy train` makes of small sets: scores, what it learnt of its own photos, minutes.

    .venv/bin/python benchmarks/few_photos/trainings.py SET.csv ... --weights WEIGHTS.pth

Each row is one `fgdeploy train` in a process of its own; unknown options go to it. With --keep
FOLDER the runs stay, and those that are finished are not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def _name(data: Path) -> str:
    return data.parent.name if data.stem == "split" else data.stem


def main() -> None:
    """Train on each set with each seed and print a row."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--keep", type=Path)
    options, passed = parser.parse_known_args()
    print(
        "| set | seed | steps | asym_targets | asym_sign | symmetric | R@1 | own bits | minutes |"
    )
    print("|---" * 9 + "|")
    with tempfile.TemporaryDirectory() as name:
        keep = options.keep or Path(name)
        keep.mkdir(exist_ok=True)
        for data in options.sets:
            for seed in options.seeds:
                folder, start = keep / f"{_name(data)}-{seed}", time.monotonic()
                if not (folder / "scores.json").is_file():
                    command = [sys.executable, "-m", "fgdeploy", "train", str(data), "-o"]
                    command += [str(folder), "--seed", str(seed), *passed]
                    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                scores = json.loads((folder / "scores.json").read_text())
                facts = json.loads((folder / "model.json").read_text())["training"]
                found = scores["student"]
                maps = (found[kind]["map"] for kind in ("asym_targets", "asym_sign", "symmetric"))
                print(
                    f"| {_name(data)} | {seed} | {facts['steps']} | "
                    f"{' | '.join(f'{one:.4f}' for one in maps)} | "
                    f"{found['asym_sign']['recall']['1']:.4f} | "
                    f"{scores['training_photos']['student']['bits_equal']:.3f} | "
                    f"{(time.monotonic() - start) / 60:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
