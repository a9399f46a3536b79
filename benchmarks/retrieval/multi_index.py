"""Whether exact multi-index hashing beats the scan on clustered codes (Norouzi et al., CVPR 2012).

    .venv/bin/python benchmarks/retrieval/multi_index.py CODES.npz [--codes 100000000]

Codes: resampled from a file of `fgdeploy hash` (64 bits), each bit flipped as often as it differs
between photos of one class. Clustered queries are drawn the same way, uniform ones are random bits.
The scan and then the tables answer, one query at a time and all at once; both must give the
same rows. Queries that are not proven would be scanned as well.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgdeploy.core import machine
from fgdeploy.core.codes import CodeFile, unpack
from fgdeploy.retrieval import search_codes
from fgdeploy.retrieval.scan import multi_index

K = 10


def flip_rates(
    bits: npt.NDArray[np.uint8], labels: npt.NDArray[np.str_]
) -> npt.NDArray[np.float64]:
    """Return, per bit, how often photos of one class differ from the class's majority."""
    flips = np.zeros(bits.shape[1])
    for label in np.unique(labels):
        mine = bits[labels == label]
        share = mine.mean(axis=0)
        flips += np.minimum(share, 1 - share) * len(mine)
    return flips / len(bits)


def draw(
    seeds: npt.NDArray[np.uint8], rates: npt.NDArray[np.float64], count: int, seed: int
) -> npt.NDArray[np.uint8]:
    """Return `count` codes (N, bytes): seeds drawn with replacement, bits flipped by rate."""
    chooser, parts = np.random.default_rng(seed), []
    for start in range(0, count, 1 << 20):
        rows = min(1 << 20, count - start)
        flips = np.zeros((rows, seeds.shape[1]), np.uint8)
        for byte in range(seeds.shape[1]):
            for bit in range(8):
                hit = chooser.random(rows, np.float32) < rates[8 * byte + bit]
                flips[:, byte] |= (hit << (7 - bit)).astype(np.uint8)
        parts.append(seeds[chooser.integers(0, len(seeds), rows)] ^ flips)
    return np.concatenate(parts)


def timed(
    answer: Callable[[npt.NDArray[np.uint8]], Any], parts: Sequence[npt.NDArray[np.uint8]]
) -> tuple[list[float], list[Any]]:
    """Return the seconds a query of each call, all calls of one way after another, and answers."""
    answer(parts[0])  # compiled, in the cache
    took, answers = [], []
    for part in parts:
        start = time.perf_counter()
        answers.append(answer(part))
        took.append((time.perf_counter() - start) / len(part))
    return took, answers


def main() -> None:
    """Build both, query both, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--codes", type=int, default=100_000_000)
    parser.add_argument("--queries", type=int, default=64)
    options = parser.parse_args()
    source = CodeFile.load(options.source)
    rates = flip_rates(unpack(source.codes, source.bits), np.array(source.labels))
    codes = draw(source.codes, rates, options.codes, 0)
    queries = draw(source.codes, rates, options.queries, 1)
    uniform = np.random.default_rng(2).integers(0, 256, queries.shape, dtype=np.uint8)
    threads = machine.cores()
    starts = np.zeros(multi_index.starts_of(codes.shape[1]), np.uint32)
    rows = np.zeros((len(multi_index.parts_of(codes.shape[1])), len(codes)), np.int32)
    start = time.perf_counter()
    multi_index.build(codes, starts, rows, threads)
    built, extra = time.perf_counter() - start, (rows.nbytes + starts.nbytes) / 1e9
    print(
        f"{len(codes):,} codes, {rates.sum():.2f} bits flipped on average; tables of "
        f"{extra:.1f} GB built in {built:.0f} s; {threads} threads"
    )
    print(
        "| queries | at once | scan, ms per query | tables | p95 | proven | ratio | equal |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for name, wanted in (("clustered", queries), ("uniform", uniform)):
        for at_once in (1, len(wanted)):
            parts = [
                wanted[first : first + at_once]
                for first in range(0, min(len(wanted), 32 * at_once), at_once)
            ]
            scan = functools.partial(search_codes, codes=codes, k=K, kernel="numba")
            look = functools.partial(
                multi_index.nearest,
                **{"codes": codes, "k": K, "starts": starts, "rows": rows},
                **{"allowed": None, "threads": threads},
            )
            scanned, expected = timed(scan, parts)
            looked, found = timed(look, parts)
            proven = np.concatenate([answer[2] for answer in found])
            share = proven.mean()
            truth, given = (np.concatenate([a[0] for a in side]) for side in (expected, found))
            equal = np.array_equal(given[proven], truth[proven])
            one, other = np.median(scanned), np.median(looked)
            print(
                f"| {name} | {at_once} | {1e3 * one:.2f} | {1e3 * other:.2f} "
                f"| {1e3 * np.percentile(looked, 95):.2f} | {share:.0%} | {one / other:.1f}x "
                f"| {equal} |"
            )


if __name__ == "__main__":
    main()
