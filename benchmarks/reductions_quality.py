"""What token reductions cost in retrieval: method x keep rate, before training and after `fast`.

    .venv/bin/python benchmarks/reductions_quality.py DATA/split.csv WEIGHTS.pth --out runs.jsonl
        [--methods evit,tome] [--with-clca evit] [--rates 0.25,0.5,0.7] [--jobs 8]
    .venv/bin/python benchmarks/reductions_quality.py --table runs.jsonl

Each run is scored twice on the test split: with an ITQ head on untrained features, and after the
recipe `fast`, with the same seed. Photos are decoded once, by the code that training and export
use: a training view depends on (seed, epoch, photo) alone, so all runs see the pixels that
`fgdeploy train` would make. One line of JSON for each run is appended to --out as it ends; runs
that are in it already are left out. CUDA is used where there is any.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import torch
from decoded import Cache, Decoded, Frames
from torch import Tensor

from fgdeploy import photos
from fgdeploy.evaluation.protocol import score_protocols
from fgdeploy.evaluation.targets import Targets
from fgdeploy.models import assembly, plan
from fgdeploy.models.heads.projection import fit_itq
from fgdeploy.models.methods import registry
from fgdeploy.models.methods.base import FAST, Recipe
from fgdeploy.models.network import Network
from fgdeploy.training import objective
from fgdeploy.training.looking import look
from fgdeploy.training.loop import Hooks, Loop
from fgdeploy.training.objective import STUDENT, Setup
from fgdeploy.training.precision import choose as choose_precision
from fgdeploy.training.run_state import RunState
from fgdeploy.training.train_settings import TrainSettings

SEED, EMBED = 0, 64
NEEDS_NO_RATE = ("dense", "eet")
Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Shared:
    """What all runs have in common."""

    cache: Cache
    classes: tuple[str, ...]
    weights: str
    recipe: Recipe
    bits: int
    precision: str
    backbone: str | None

    @property
    def names(self) -> npt.NDArray[np.str_]:
        """Return the class of each photo."""
        return np.array([photo.label for photo in self.cache.photos], dtype=np.str_)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Return the class number of each training photo."""
        found: npt.NDArray[np.int64] = np.searchsorted(self.classes, self.names)
        return found[: self.cache.train]


@dataclass(frozen=True)
class Job:
    """One run: what it is called, the method and its options; random_aggregate: PyTorch's start."""

    label: str
    method: str
    options: tuple[tuple[str, str], ...] = ()
    random_aggregate: bool = False


def jobs(options: argparse.Namespace) -> list[Job]:
    """Return the runs that are asked for, dense first."""
    known = [name for name in registry.METHODS if name not in ("eet", "clca")]
    every = [*NEEDS_NO_RATE, *known]
    methods = every if options.methods == "all" else _words(options.methods)
    under = known if options.with_clca == "all" else _words(options.with_clca)
    found = []
    if "dense" in methods:
        found.append(Job("dense", "eet", (("stages", "none"),)))
        found.append(Job("dense, square photos", known[0], (("keep_rate", "1"),)))
    if "eet" in methods:
        found.append(Job("eet 98/49/12", "eet"))
    more = tuple(tuple(pair.split("=", 1)) for pair in _words(options.set))
    for rate in _words(options.rates):
        given = (("keep_rate", rate), *more)
        found += [Job(f"{m} {rate}", m, given) for m in methods if m not in NEEDS_NO_RATE]
        for name in under:
            held = (("reduction", name), *given)
            found.append(Job(f"clca({name}) {rate}", "clca", held))
            if name in _words(options.random_aggregate):
                found.append(Job(f"clca({name}) {rate}, random aggregate", "clca", held, True))
    return found


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


# One run


class Run:
    """A job in a process of a pool."""

    def __init__(self, job: Job, shared: Shared) -> None:
        self.job, self.shared = job, shared
        torch.set_num_threads(1)
        # Deterministic kernels fill new memory too, which only costs time here.
        torch.utils.deterministic.fill_uninitialized_memory = False
        self.settings = settings_of(job, shared)
        self.precision = choose_precision(shared.precision)
        self.assembly = assembly.choose(self.settings.network(), as_trained=False)
        file = shared.cache.frames(self.assembly.preprocess)
        self.frames: Frames = np.load(file, mmap_mode="r")
        self.labels, self.train = shared.labels, shared.cache.train

    def result(self) -> dict[str, Any]:
        """Return scores, seconds and settings."""
        start = time.perf_counter()
        net = self._make(True)
        macs = plan.record(net, self.assembly.source.size).macs
        rows = look(net, lambda it: self._embeddings(it, self.train))
        projection = fit_itq(rows, self.shared.bits, SEED)
        hashes = projection.hash(self._embeddings(net, len(self.frames)))
        untrained = self._scores(np.packbits(hashes > 0, axis=1), None)
        middle = time.perf_counter()
        trained, losses = self._train()
        return {
            "label": self.job.label,
            "method": self.job.method,
            "options": dict(self.job.options),
            "bits": self.shared.bits,
            "epochs": self.shared.recipe.epochs,
            "classes": len(self.shared.classes),
            "macs": macs,
            "untrained": untrained,
            "trained": trained,
            "loss": losses,
            "precision": str(self.precision),
            "seconds": [round(middle - start, 1), round(time.perf_counter() - middle, 1)],
        }

    def _make(self, pruned: bool) -> Network:
        net = self.assembly.trainable(len(self.shared.classes), self.shared.bits, dense=not pruned)
        if self.job.random_aggregate:
            torch.manual_seed(SEED)
            net.encoder.aggregate.conv.reset_parameters()
        return net

    def _train(self) -> tuple[dict[str, Any], list[float]]:
        shared = self.shared
        setup = Setup(
            make=self._make,
            embed=lambda net: self._embeddings(net, self.train),
            labels=self.labels,
            classes=len(shared.classes),
            bits=shared.bits,
            patch=self.assembly.geometry.patch_size,
            seed=SEED,
            options=self.assembly.options,
        )
        aim = objective.build(shared.recipe, setup)
        views: Any = Decoded(shared.cache, self.labels)
        norm = self.assembly.norm
        loop = Loop(aim, shared.recipe, views, norm, self.precision, SEED, 0)
        state = RunState("")
        loop.run(state, Hooks(lambda tick: None, lambda state: None, lambda epoch: {}))
        net = aim.networks()[STUDENT]
        codes = np.concatenate([np.packbits(h > 0, axis=1) for h in self._hashes(net)])
        targets = Targets(
            np.array(shared.classes), self.labels, np.packbits(aim.targets > 0, axis=1), shared.bits
        )
        return self._scores(codes, targets), [round(row["loss"], 4) for row in state.history]

    def _batches(self, net: Network, count: int) -> Iterator[Tensor]:
        net.to(self.precision.device).eval()
        for start in range(0, count, EMBED):
            frames = torch.from_numpy(np.array(self.frames[start : min(start + EMBED, count)]))
            yield net.pixels(frames.to(self.precision.device))

    def _embeddings(self, net: Network, count: int) -> npt.NDArray[np.float32]:
        with torch.no_grad(), self.precision.autocast():
            found = [net(pixels).embedding.float().cpu() for pixels in self._batches(net, count)]
        return torch.cat(found).numpy()

    def _hashes(self, net: Network) -> Iterator[npt.NDArray[np.float32]]:
        with torch.no_grad(), self.precision.autocast():
            for pixels in self._batches(net, len(self.frames)):
                yield net.hashes(net(pixels))["hash"].float().cpu().numpy()

    def _scores(self, codes: Codes, targets: Targets | None) -> dict[str, Any]:
        cut, names = self.train, self.shared.names
        sides = (codes[cut:], names[cut:], codes[:cut], names[:cut])
        found = score_protocols(*sides, targets, bits=self.shared.bits, threads=1)
        return {
            name: {
                "map": round(detail.scores.map, 5),
                "tie_aware_map": round(detail.scores.tie_aware_map, 5),
                "r1": round(detail.scores.recall[1], 5),
            }
            for name, detail in found.items()
        }


def settings_of(job: Job, shared: Shared) -> TrainSettings:
    """Return what `fgdeploy train` would be told."""
    return TrainSettings(
        data=Path(),
        method=job.method,
        options=dict(job.options),
        weights=shared.weights,
        backbone=shared.backbone,
        image_size=shared.cache.size,
        bits=shared.bits,
        precision=shared.precision,
        seed=SEED,
    )


def measure(job: Job, shared: Shared) -> dict[str, Any]:
    """Return a run's line; what went wrong, where it failed."""
    try:
        return Run(job, shared).result()
    except Exception as error:  # the other runs go on
        where = traceback.format_exc().splitlines()[-6:]
        return {"label": job.label, "error": f"{type(error).__name__}: {error}", "where": where}


def read(file: Path) -> list[dict[str, Any]]:
    """Return the lines of runs that are there."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Return the runs as a Markdown table."""
    rows = [
        "| | G MACs | ITQ: mAP | symmetric | R@1 | after fast: mAP | symmetric | R@1 |",
        "|---" * 8 + "|",
    ]
    for line in lines:
        if "error" in line:
            continue
        cells = [line["label"], f"{line['macs'] / 1e9:.2f}"]
        for part in (line["untrained"], line["trained"]):
            asym, same = part["asym_sign"], part["symmetric"]
            cells += [f"{value:.3f}" for value in (asym["map"], same["map"], asym["r1"])]
        rows.append(f"| {' | '.join(cells)} |")
    rows += [f"failed: {line['label']}: {line['error']}" for line in lines if "error" in line]
    return "\n".join(rows)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("listing", type=Path, nargs="?")
    parser.add_argument("weights", nargs="?", help="a checkpoint, or random")
    parser.add_argument("--out", type=Path, default=Path("runs.jsonl"))
    parser.add_argument("--table", type=Path, help="print the runs of a file and end")
    parser.add_argument("--methods", default="all", help="dense, eet and reductions, by commas")
    parser.add_argument("--with-clca", default="", help="reductions to run under clca too, or all")
    parser.add_argument("--random-aggregate", default="", help="of these, PyTorch's start too")
    parser.add_argument("--rates", default="0.25,0.5,0.7")
    parser.add_argument("--set", default="", help="further options of reductions, name=value")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--cache", type=Path, default=Path("reductions-frames"))
    parser.add_argument("--epochs", type=int, default=FAST.epochs)
    parser.add_argument("--batch", type=int, default=FAST.batch)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--classes", type=int, help="the first classes alone")
    parser.add_argument("--backbone")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--precision", default="auto")
    return parser.parse_args()


def gather(options: argparse.Namespace) -> Shared:
    """Return what all runs share."""
    listed = photos.read(options.listing, None)
    classes = sorted({photo.label or "" for photo in listed})[: options.classes]
    kept = [photo for photo in listed if photo.label in classes]
    train = [photo for photo in kept if photo.split == "train"]
    recipe = dataclasses.replace(FAST, epochs=options.epochs, batch=options.batch)
    steps = -(-len(train) // recipe.batch) * recipe.epochs
    recipe = dataclasses.replace(recipe, warmup=min(recipe.warmup, max(1, steps // 6)))
    kept = (*train, *(photo for photo in kept if photo.split == "test"))
    cache = Cache(
        options.cache, kept, len(train), options.size, recipe.epochs, recipe.least_area, SEED
    )
    return Shared(
        cache,
        tuple(classes),
        options.weights,
        recipe,
        options.bits,
        options.precision,
        options.backbone,
    )


def main() -> None:
    """Run what is missing in --out, and print the table."""
    options = parse()
    if options.table or not options.listing:
        print(table(read(options.table or options.out)))
        return
    shared, start = gather(options), time.perf_counter()
    done = {line["label"] for line in read(options.out) if "error" not in line}
    wanted = [job for job in jobs(options) if job.label not in done]
    if not wanted:
        print(table(read(options.out)))
        return
    usual = {(job.method == "eet"): job for job in wanted}.values()  # one of each photometry
    chosen = [assembly.choose(settings_of(job, shared).network()) for job in usual]
    shared.cache.fill([one.preprocess for one in chosen], os.cpu_count() or 1)
    print(f"photos: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, context) as pool, options.out.open("a") as stream:
        for made in as_completed([pool.submit(measure, job, shared) for job in wanted]):
            line = made.result()
            stream.write(json.dumps(line) + "\n")
            stream.flush()
            spent = time.perf_counter() - start
            print(
                f"{spent:.0f} s: {line['label']} {line.get('error', line.get('seconds'))}",
                file=sys.stderr,
                flush=True,
            )
    print(table(read(options.out)))


if __name__ == "__main__":
    main()
