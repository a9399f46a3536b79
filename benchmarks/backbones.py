"""Backbones side by side: sizes, multiply-accumulates, latency, agreement of engines, quality.

    .venv/bin/python benchmarks/backbones.py [--only NAME@SIZE,...] [--keep backbones-runs]
        [--weights deit_tiny_patch16_224=WEIGHTS.pth --data DATA/split.csv]

Each backbone is exported dense and with EET's published fractions, with random weights (speed does
not depend on them), and timed at batch 1 as `fgdeploy bench` does: every engine in a process of its
own, in turn. Bits are compared between ONNX Runtime and OpenVINO on generated pictures. Where
--weights names a file, quality is measured as in methods.py: ITQ on the untrained backbone, and
after the recipe `fast`, test photos against the codes of the training photos (`asym_sign`). A
backbone that fgdeploy refuses is a line with the reason. What is in --keep is not made again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

from fgdeploy.bundle import open_bundle
from fgdeploy.core import machine
from fgdeploy.core.errors import FgdeployError
from fgdeploy.engines import open_engine
from fgdeploy.export.verify import frames_for
from fgdeploy.proof.scoreboard import BenchSettings, run_benchmark

ROWS = (
    "deit_tiny_patch16_224@224",
    "deit_small_patch16_224@224",
    "vit_small_patch16_224@224",
    "vit_small_patch14_dinov2@224",
    "vit_small_patch14_dinov2@518",
    "vit_small_patch14_reg4_dinov2@224",
    "vit_base_patch16_clip_224@224",
    "vit_small_patch16_dinov3@224",
    "eva02_tiny_patch14_224@224",
    "vit_small_patch16_rope_224@224",
)
ENGINES = ("onnxruntime:fp32", "openvino:fp32")
STAGES = {"dense": ("--set", "stages=none"), "eet": ()}
TITLES = (
    *("backbone", "pixels", "M parameters", "G MACs dense", "EET"),
    *(f"{engine.partition(':')[0]} {kind}, ms" for engine in ENGINES for kind in STAGES),
    *("bits equal", "mAP untrained, ITQ", "mAP after `fast`"),
)


@dataclass(frozen=True)
class Row:
    """A backbone at an image size, and its folder."""

    backbone: str
    size: int
    folder: Path

    def bundle(self, kind: str) -> Path:
        """Return where its bundle of a kind lies."""
        return self.folder / f"{kind}.fgd"

    @property
    def flags(self) -> tuple[str, ...]:
        """Return what every command is told of it."""
        return ("--backbone", self.backbone, "--image-size", str(self.size))


def fgdeploy(*words: object) -> str:
    """Run a command and return what it printed. Raises RuntimeError with its last line."""
    command = [sys.executable, "-m", "fgdeploy", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
    return done.stdout


def exported(row: Row) -> None:
    """Make both bundles unless they are there."""
    for kind, stages in STAGES.items():
        if not row.bundle(kind).exists():
            random = ("--weights", "random", "--head", "lsh", "--no-time")
            fgdeploy("export", *row.flags, *stages, *random, "-o", row.bundle(kind))


def timed(row: Row, options: argparse.Namespace) -> dict[str, float]:
    """Return medians in ms by bundle and engine."""
    file = row.folder / "ms.json"
    if not file.exists():
        settings = BenchSettings(
            (1,), options.threads, options.rounds, options.seconds, peaks=False
        )
        board = run_benchmark([row.bundle(kind) for kind in STAGES], ENGINES, settings=settings)
        found = {one.measured.contender.name: one.calls.percentile(50) for one in board.lines}
        file.write_text(json.dumps(found))
    return dict(json.loads(file.read_text()))


def bits_equal(row: Row, images: int = 32) -> float:
    """Return the share of bits of EET's codes that both engines give alike, on drawn pictures."""
    bundle, codes = open_bundle(row.bundle("eet")), []
    frames = np.concatenate([frames_for(row.size, [], seed) for seed in range(images // 8)])
    for name in ENGINES:
        with open_engine(bundle, name) as engine:
            codes.append(engine.run(frames).code)
    differing = int(np.unpackbits(codes[0] ^ codes[1]).sum())
    return 1 - differing / (len(frames) * bundle.manifest.bits)


def quality(row: Row, weights: str, options: argparse.Namespace) -> list[str]:
    """Return mAP of the untrained backbone with ITQ, and after `fast`."""
    scores = row.folder / "itq.json"
    given = ("--bits", options.bits)
    if not scores.exists():
        bundle = row.bundle("itq")
        head = ("--checkpoint", weights, "--head", "itq", "--fit-data", options.data)
        fgdeploy("export", *row.flags, *given, *head, "-o", bundle, "--overwrite")
        words = ("--bundle", bundle, "--backend", "onnxruntime", "--json")
        scores.write_text(fgdeploy("eval", options.data, *words))
    run = row.folder / "fast"
    if not (run / "scores.json").exists():
        more = shlex.split(options.train)
        start = ("--weights", weights, "-o", run, "--overwrite")
        fgdeploy("train", options.data, *row.flags, *given, *start, *more)
    untrained = json.loads(scores.read_text())["protocols"]
    trained = json.loads((run / "scores.json").read_text())["student"]
    return [f"{one['asym_sign']['map']:.3f}" for one in (untrained, trained)]


def parameters(row: Row) -> int:
    """Return the parameters of the backbone without a class head."""
    with torch.device("meta"):
        made: Any = timm.create_model(row.backbone, num_classes=0, img_size=row.size)
    return sum(value.numel() for value in made.parameters())


def line(row: Row, options: argparse.Namespace, weights: dict[str, str]) -> str:
    """Return a backbone's line of the table. Raises what its parts raise."""
    row.folder.mkdir(parents=True, exist_ok=True)
    exported(row)
    macs = open_bundle(row.bundle("eet")).manifest.macs
    took = timed(row, options)
    names = [f"{kind} {engine}" for engine in ENGINES for kind in STAGES]
    cells = [
        row.backbone,
        str(row.size),
        f"{parameters(row) / 1e6:.1f}",
        *(f"{macs[name] / 1e9:.2f}" for name in ("dense", "exported")),
        *(f"{took[name]:.1f}" if name in took else "" for name in names),
        f"{bits_equal(row):.2%}",
        *(quality(row, weights[row.backbone], options) if row.backbone in weights else ("", "")),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table, a line at a time."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default=",".join(ROWS), help="NAME@SIZE, with commas between")
    parser.add_argument("--keep", type=Path, default=Path("backbones-runs"))
    parser.add_argument("--weights", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--data", type=Path, help="photos with labels and splits, for quality")
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--train", default="", help="more flags for `fgdeploy train`")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    weights = dict(pair.split("=", 1) for pair in options.weights)
    if weights and options.data is None:
        parser.error("--weights needs --data")
    print(f"{machine.cpu().name}, {options.threads or machine.cores()} threads:", end=" ")
    print(shlex.join(["python", *sys.argv]), end="\n\n")
    print(f"| {' | '.join(TITLES)} |\n{'|---' * len(TITLES)}|", flush=True)
    for name in options.only.split(","):
        backbone, _, size = name.partition("@")
        row = Row(backbone, int(size or 224), options.keep / name)
        try:
            print(line(row, options, weights), flush=True)
        except (FgdeployError, RuntimeError) as error:
            empty = " |" * (len(TITLES) - 3)
            print(f"| {backbone} | {row.size} | not run: {error} |{empty}", flush=True)


if __name__ == "__main__":
    main()
