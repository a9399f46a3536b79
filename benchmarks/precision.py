"""What INT8, FP16 and BF16 do to the answers of trained models, on all photos of a test split.

    .venv/bin/python benchmarks/precision.py DATA/split.csv BUNDLE.fgd [BUNDLE.fgd ...]

Each bundle is copied, calibrated on 256 training photos with the default limits, and every engine
that runs here hashes both splits. Code bits and rankings are held against ONNX Runtime fp32.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from fgdeploy.bundle import open_bundle
from fgdeploy.core.errors import FgdeployError
from fgdeploy.engines import available, open_engine
from fgdeploy.engines.backends import engine_type
from fgdeploy.evaluation.metrics import mean_average_precision
from fgdeploy.photos import batches, of_split, read


def _frames(bundle: Path, data: Path, split: str, folder: Path) -> tuple[Path, np.ndarray]:
    """Decode a split once for all engines, into a file that is mapped."""
    make = open_bundle(bundle).manifest.preprocess
    photos = of_split(read(data), split)
    target = folder / f"{split}.npy"
    shape = (len(photos), make.size, make.size, 3)
    frames = np.lib.format.open_memmap(target, "w+", np.uint8, shape)
    done = 0
    for _, part in batches(photos, make, 64, [], strict=True):
        frames[done : done + len(part)] = part
        done += len(part)
    return target, np.array([photo.label for photo in photos])


def _hash(bundle: Path, name: str, frames: Path, target: Path) -> None:
    """Hash frames in a process of its own."""
    code = (
        "import sys, numpy as np\n"
        "from fgdeploy.bundle import open_bundle\n"
        "from fgdeploy.engines import open_engine\n"
        "bundle, name, frames, target = sys.argv[1:]\n"
        "data = np.load(frames, mmap_mode='r')\n"
        "with open_engine(open_bundle(bundle), name) as engine:\n"
        "    np.save(target, engine.run_all(data).code)\n"
    )
    command = [sys.executable, "-c", code, str(bundle), name, str(frames), str(target)]
    subprocess.run(command, check=True)


def _engines(bundle: Path) -> list[str]:
    opened, found = open_bundle(bundle), []
    for backend in available():
        for precision in engine_type(backend).graphs:
            try:
                open_engine(opened, backend, precision).close()
            except FgdeployError as error:
                print(f"left out: {backend}:{precision}: {error}", file=sys.stderr)
                continue
            found.append(f"{backend}:{precision}")
    return found


def _measure(bundle: Path, data: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "fgdeploy", "calibrate", "-b", str(bundle), "--again"]
    command += ["--data", str(data), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    facts = json.loads(done.stdout)
    bits = open_bundle(bundle).manifest.bits
    print(
        f"\n{bundle.name}, {bits} bits; back in float: {', '.join(facts['in_float']) or 'none'}\n"
    )
    query_frames, query_labels = _frames(bundle, data, "test", folder)
    gallery, gallery_labels = _frames(bundle, data, "train", folder)
    print("| engine | bits equal | codes equal | mAP asym_sign | mAP symmetric |")
    print("|---|---|---|---|---|")
    reference: np.ndarray | None = None
    first: tuple[float, float] = (0.0, 0.0)
    for name in _engines(bundle):
        codes = []
        for frames in (query_frames, gallery):
            target = folder / "codes.npy"
            _hash(bundle, name, frames, target)
            codes.append(np.load(target))
        queries, database = codes
        scores = (
            100 * mean_average_precision(queries, query_labels, database, gallery_labels),
            100
            * mean_average_precision(queries, query_labels, queries, query_labels, same_set=True),
        )
        if reference is None:
            reference, first = queries, scores
            print(f"| {name} (reference) | | | {scores[0]:.2f} | {scores[1]:.2f} |", flush=True)
            continue
        wrong = np.unpackbits(queries ^ reference, axis=1).sum()
        same = (queries == reference).all(axis=1).mean()
        cells = " | ".join(
            f"{one:.2f} ({one - base:+.2f})" for one, base in zip(scores, first, strict=True)
        )
        equal = 1 - wrong / (len(queries) * bits)
        print(f"| {name} | {equal:.2%} | {same:.1%} | {cells} |", flush=True)


def main() -> None:
    """Measure each bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("bundles", type=Path, nargs="+")
    options = parser.parse_args()
    for bundle in options.bundles:
        with tempfile.TemporaryDirectory() as name:
            copy = Path(name) / bundle.name
            shutil.copytree(bundle, copy, ignore=shutil.ignore_patterns("engines"))
            _measure(copy, options.data, Path(name))


if __name__ == "__main__":
    main()
