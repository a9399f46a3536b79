"""Time and memory of an evaluation: 20,000 queries against 100,000 codes of 64 bits.

    .venv/bin/python benchmarks/evaluation.py [--queries 20000] [--gallery 100000] [--bits 64]

Codes of 1,000 classes around random centres, each bit flipped with probability 0.2. Compared with
the straightforward way, per query: int64 distances by a product of +1/-1 codes, a stable argsort,
precision at the relevant ranks; it runs on 500 queries, and its seconds for all are scaled up.
Each way in a process of its own, peak memory of the whole process. Both must agree on the mAP of
these 500 queries.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fgdeploy.core.codes import unpack
from fgdeploy.evaluation import evaluate, evaluate_in_detail

CLASSES, FLIPPED, SUBSET = 1000, 0.2, 500

Side = tuple[np.ndarray, np.ndarray]


def _draw(chooser: np.random.Generator, centres: np.ndarray, count: int) -> Side:
    codes = []
    labels = chooser.integers(0, len(centres), count)
    for part in np.array_split(labels, max(1, count // 10_000)):  # so that this sets no peak
        flips = chooser.random((len(part), centres.shape[1]), dtype=np.float32) < FLIPPED
        codes.append(np.packbits(centres[part] ^ flips, axis=1))
    return np.concatenate(codes), np.array([f"class {label:04d}" for label in labels])


def _straightforward(queries: Side, gallery: Side, bits: int) -> float:
    signs = unpack(gallery[0], bits).astype(np.float32).T * 2 - 1
    names = np.concatenate((gallery[1], queries[1]))
    classes = np.unique(names, return_inverse=True)[1]  # compares integers, not text
    asked_classes, classes = np.split(classes, [len(gallery[1])])
    total = 0.0
    for code, own in zip(queries[0], classes, strict=True):
        signs_of_query = unpack(code[None], bits)[0].astype(np.float32) * 2 - 1
        distances = ((bits - signs_of_query @ signs) / 2).astype(np.int64)
        relevant = asked_classes[np.argsort(distances, kind="stable")] == own
        ranks = np.flatnonzero(relevant) + 1
        if len(ranks):
            total += float(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    return total / len(queries[0])


def _in_detail(queries: Side, gallery: Side, bits: int) -> float:
    return evaluate_in_detail(*queries, *gallery, bits=bits).scores.map


def _scores(queries: Side, gallery: Side, bits: int) -> float:
    return evaluate(*queries, *gallery).map


# What is measured, and whether on the subset only
WAYS: dict[str, tuple[Callable[[Side, Side, int], float], bool]] = {
    "straightforward NumPy": (_straightforward, True),
    "fgdeploy, the same 500": (_scores, True),
    "fgdeploy, all, with curve and classes": (_in_detail, False),
}


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    way, subset = WAYS[options.one]
    chooser = np.random.default_rng(0)
    centres = chooser.random((CLASSES, options.bits)) < 0.5
    gallery = _draw(chooser, centres, options.gallery)
    codes, labels = _draw(chooser, centres, options.queries)
    count = SUBSET if subset else options.queries
    start = time.perf_counter()
    score = way((codes[:count], labels[:count]), gallery, options.bits)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts KiB
    return {"queries": min(count, options.queries), "s": seconds, "MiB": peak, "map": score}


def main() -> None:
    """Measure each way in a fresh process and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--gallery", type=int, default=100_000)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_measure(options)))
        return
    sizes = ["--queries", options.queries, "--gallery", options.gallery, "--bits", options.bits]
    cores = len(os.sched_getaffinity(0))
    print(
        f"{options.queries:,} queries, {options.gallery:,} codes of {options.bits} bits, "
        f"{cores} cores, load {os.getloadavg()[0]:.1f} before\n"
    )
    print(f"| way | queries | s | s for {options.queries:,} | peak MiB | mAP |\n|{'---|' * 6}")
    for name in WAYS:
        command = [sys.executable, __file__, "--one", name, *map(str, sizes)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        row = json.loads(done.stdout)
        scaled = row["s"] * options.queries / row["queries"]
        print(
            f"| {name} | {row['queries']:,} | {row['s']:.1f} | {scaled:.0f} | {row['MiB']:.0f} | "
            f"{row['map']:.12f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
