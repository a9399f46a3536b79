"""Methods side by side on real photos: before training, and after `fgdeploy train`.

    .venv/bin/python benchmarks/methods.py DATA/split.csv WEIGHTS.pth --keep runs \\
        [--methods dense,glsim,dva,aftrans] [--recipes fast] [--seeds 0,1]

Each row is what a user would type, in processes of its own: `fgdeploy export --head itq --fit-data`
and `fgdeploy eval` before, `fgdeploy train` after. Queries are the test photos, the gallery the
codes of the training photos (`asym_sign`); ITQ is fitted on training photos alone. What is in
--keep already is not run again. Unknown options go to `train`; `--also METHOD:FLAGS` adds some for
one method, as `--also "dva:--boxes boxes.csv"`.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# What is not a method's name: the plain ViT, which every method is held against.
DENSE = ("eet", ["--set", "stages=none"])
PROTOCOL = "asym_sign"


def flags_of(label: str) -> list[str]:
    """Return `--method` and its options."""
    name, more = DENSE if label == "dense" else (label, [])
    return ["--method", name, *more]


def fgdeploy(*words: object) -> str:
    """Run a command of fgdeploy's and return what it printed."""
    command = [sys.executable, "-m", "fgdeploy", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def before(label: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the scores of the untrained backbone in this method with an ITQ head."""
    file: Path = options.keep / f"{label}-start-{seed}.json"
    if not file.exists():
        bundle = options.keep / f"{label}-start-{seed}.fgd"
        given = ["--checkpoint", options.weights, "--head", "itq", "--fit-data", options.data]
        size = ["--image-size", options.size, "--bits", options.bits, "--seed", seed]
        fgdeploy("export", *flags_of(label), *given, *size, "-o", bundle, "--overwrite")
        backend = ["--backend", "onnxruntime", "--json"]
        found = json.loads(fgdeploy("eval", options.data, "--bundle", bundle, *backend))
        file.write_text(json.dumps(found["protocols"]))
    return dict(json.loads(file.read_text())[PROTOCOL])


def after(label: str, recipe: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the scores after a training, with its seconds."""
    run: Path = options.keep / f"{label}-{recipe}-{seed}"
    note = run.with_suffix(".seconds")
    if not (run / "scores.json").exists():
        also = [words for words in options.also if words.partition(":")[0] == label]
        more = [word for words in also for word in shlex.split(words.partition(":")[2])]
        start = time.perf_counter()
        fgdeploy(
            *("train", options.data, *flags_of(label), "--weights", options.weights),
            *("--image-size", options.size, "--bits", options.bits, "--seed", seed),
            *("--recipe", recipe, *options.flags, *more, "-o", run, "--overwrite"),
        )
        note.write_text(f"{time.perf_counter() - start:.0f}")
    scores = json.loads((run / "scores.json").read_text())["student"][PROTOCOL]
    return {**scores, "seconds": float(note.read_text())}


def rows(options: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of the table, each run as it ends."""
    yield "| method | recipe | seed | start: mAP | R@1 | trained: mAP | R@1 | minutes |"
    yield "|---" * 8 + "|"
    for seed in options.seeds.split(","):
        for label in options.methods.split(","):
            start = before(label, int(seed), options)
            for recipe in options.recipes.split(","):
                end = after(label, recipe, int(seed), options)
                cells = [f"{part['map']:.3f} | {part['recall']['1']:.3f}" for part in (start, end)]
                minutes = f"{end['seconds'] / 60:.0f}"
                yield f"| {label} | {recipe} | {seed} | {' | '.join(cells)} | {minutes} |"


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--keep", type=Path, default=Path("methods-runs"))
    parser.add_argument("--methods", default="dense,glsim,dva,aftrans")
    parser.add_argument("--recipes", default="fast")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--also", action="append", default=[], metavar="METHOD:FLAGS")
    options, options.flags = parser.parse_known_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for line in rows(options):
        print(line, flush=True)


if __name__ == "__main__":
    main()
