"""Photos a second from a folder to codes: `fgdeploy hash` against DataLoader and timm in PyTorch.

    .venv/bin/python benchmarks/hashing.py PHOTOS [--photos 600] [--dense dense.fgd --eet eet.fgd]

All read the same photos into the same frames (`Preprocess`). PyTorch: two workers decode, batches
of 32, the dense model of timm with random weights, as speed does not depend on them. `fgdeploy
hash` runs as a user starts it. Each contender in a process of its own, in turn, several rounds;
the figure is the median of rounds, starting not counted. --dense, --eet: bundles with an INT8
engine of OpenVINO; without them both are exported, calibrated and built first: minutes.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fgdeploy.bundle import open_bundle
from fgdeploy.photos import read
from fgdeploy.photos.images import Preprocess

THREADS = len(os.sched_getaffinity(0))
EAGER = "DataLoader (2 workers), timm, PyTorch eager"
HASHERS = {
    "fgdeploy hash, dense, ONNX Runtime fp32": ("dense.fgd", "onnxruntime:fp32"),
    "fgdeploy hash, dense, OpenVINO INT8": ("dense.fgd", "openvino:int8"),
    "fgdeploy hash, EET, OpenVINO INT8": ("eet.fgd", "openvino:int8"),
}


class _Frames:
    """The photos as a data set of PyTorch: normalised float tensors (3, S, S)."""

    def __init__(self, paths: list[Path], preprocess: Preprocess) -> None:
        import torch

        self._paths, self._preprocess = paths, preprocess
        self._mean, self._std = (
            torch.tensor(values).view(3, 1, 1) for values in (preprocess.mean, preprocess.std)
        )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, place: int) -> Any:
        import torch

        frame = torch.from_numpy(self._preprocess.frame(self._paths[place])).permute(2, 0, 1)
        return (frame.float() / 255 - self._mean) / self._std


def eager(photos: Path, bundle: Path, batch: int) -> float:
    """Return photos a second of PyTorch."""
    import timm
    import torch
    from torch.utils.data import DataLoader

    torch.set_num_threads(THREADS)
    manifest = open_bundle(bundle).manifest
    paths = [photo.path for photo in read(photos)]
    model = timm.create_model(manifest.backbone, pretrained=False, num_classes=0).eval()
    frames: Any = _Frames(paths, manifest.preprocess)
    with torch.inference_mode():
        model(torch.stack([frames[0]] * batch))
        start = time.perf_counter()
        loader = DataLoader(frames, batch_size=batch, num_workers=2)
        count = sum(len(model(images)) for images in loader)
    return count / (time.perf_counter() - start)


def hashed(photos: Path, bundle: Path, backend: str, batch: int) -> float:
    """Return photos a second of `fgdeploy hash`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fgdeploy", "hash", str(photos), "-b", str(bundle)]
        command += ["--backend", backend, "--batch", str(batch), "-o", f"{folder}/c.npz", "--json"]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(out)["photos_per_s"])


def prepare(folder: Path, dense: Path | None, eet: Path | None) -> None:
    """Lay both bundles into a folder; make those that are not given."""
    from fgdeploy.demo.tour import draw

    photos = None
    for name, given, stages in (("dense", dense, ["--set", "stages=none"]), ("eet", eet, [])):
        target = folder / f"{name}.fgd"
        if given is not None:
            target.symlink_to(given.resolve(), target_is_directory=True)
            continue
        photos = photos or draw(folder / "moths", 8, 16, 0)
        export = ["export", "--no-time", "--weights", "random", "--head", "lsh", *stages]
        export += ["--backbone", "deit_small_patch16_224", "-o", str(target)]
        build = ["build-engine", "--int8", "--no-time", "-b", str(target), "--data", str(photos)]
        build += ["--backend", "openvino", "--images", "32", "--min-bit-agreement", "0"]
        for command in (export, [*build, "--batch", "1,8,32"]):
            subprocess.run([sys.executable, "-m", "fgdeploy", *command], check=True)


def main() -> None:
    """Measure every contender in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--photos", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8, help="of fgdeploy hash")
    parser.add_argument("--eager-batch", type=int, default=32)
    parser.add_argument("--dense", type=Path)
    parser.add_argument("--eet", type=Path)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(eager(options.source, options.one, options.eager_batch))
        return
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, options.dense, options.eet)
        found = read(options.source)
        chosen = list(found)[:: max(1, len(found) // options.photos)][: options.photos]
        with open(folder / "photos.csv", "w", newline="", encoding="utf-8") as stream:
            rows = ((os.path.abspath(photo.path), photo.label or "") for photo in chosen)
            csv.writer(stream).writerows([("path", "class"), *rows])
        for _ in range(options.rounds):
            command = [sys.executable, __file__, str(folder / "photos.csv")]
            command += ["--one", str(folder / "dense.fgd")]
            command += ["--eager-batch", str(options.eager_batch)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rates.setdefault(EAGER, []).append(float(out))
            for label, (bundle, backend) in HASHERS.items():
                rate = hashed(folder / "photos.csv", folder / bundle, backend, options.batch)
                rates.setdefault(label, []).append(rate)
    print(f"| {len(chosen)} photos, {THREADS} threads | photos/s | against eager | rounds |")
    print("|---|---|---|---|")
    for label, values in rates.items():
        median = statistics.median(values)
        ratio = median / statistics.median(rates[EAGER])
        every = " ".join(f"{value:.1f}" for value in values)
        print(f"| {label} | {median:.1f} | {ratio:.2f}x | {every} |")


if __name__ == "__main__":
    main()
