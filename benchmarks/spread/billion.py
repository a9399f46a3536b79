"""Exact search over shards of codes, scanned in turn and merged by (distance, id).

    python benchmarks/spread/billion.py [--codes 100000000] [--shards 8] [--queries 64] [-k 100]

Codes are random 64-bit ones with planted near copies, so that ties abound, in files that are mapped
into memory one after the other. The merged answers are compared with one scan over all codes, row
by row. What is printed for 10^9 codes is computed from what was measured.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fgdeploy.core import machine
from fgdeploy.retrieval import search_codes
from fgdeploy.retrieval.scan.merge_found import merge_nearest

Codes = npt.NDArray[np.uint8]
_WIDTH = 8  # bytes
_PIECE = 1 << 22  # codes written at once
_BILLION = 1_000_000_000


def write_codes(path: Path, count: int, queries: Codes, seed: int) -> None:
    """Write random codes; each 1,000th is a query with up to eight bits flipped."""
    random = np.random.default_rng(seed)
    with open(path, "wb") as stream:
        for start in range(0, count, _PIECE):
            codes = random.integers(0, 256, (min(_PIECE, count - start), _WIDTH), np.uint8)
            near = codes[::1000]
            near[:] = queries[random.integers(0, len(queries), len(near))]
            for _ in range(8):
                flips = 1 << random.integers(0, 9, len(near))  # 256 flips none
                byte = random.integers(0, _WIDTH, len(near))
                near[np.arange(len(near)), byte] ^= flips.astype(np.uint8)
            stream.write(codes.tobytes())


def mapped(path: Path) -> Codes:
    codes: Codes = np.memmap(path, np.uint8, "r").reshape(-1, _WIDTH)
    return codes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codes", type=int, default=100_000_000)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument("-k", type=int, default=100)
    given = parser.parse_args()
    queries = np.random.default_rng(0).integers(0, 256, (given.queries, _WIDTH), np.uint8)
    search_codes(queries, queries, 1, kernel="numba")  # compiles
    with tempfile.TemporaryDirectory() as folder:
        sizes = np.diff(np.linspace(0, given.codes, given.shards + 1).astype(int))
        paths = [Path(folder) / f"{number}.codes" for number in range(given.shards)]
        for number, (path, size) in enumerate(zip(paths, sizes, strict=True)):
            write_codes(path, int(size), queries, number + 1)
        report(paths, sizes, queries, given.k)


def report(paths: list[Path], sizes: npt.NDArray[np.int64], queries: Codes, k: int) -> None:
    firsts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    total = int(sizes.sum())
    timed, answers = [], None
    for batch in (queries[:1], queries):
        parts, scanning = [], 0.0
        for path, first in zip(paths, firsts, strict=True):
            codes = mapped(path)
            codes.max()  # into the page cache, as the scan is what is measured
            start = time.perf_counter()
            rows, distances = search_codes(batch, codes, k, kernel="numba")
            scanning += time.perf_counter() - start
            parts.append((rows + first, distances))
        start = time.perf_counter()
        answers = merge_nearest(parts, k)
        timed.append((len(batch), scanning, time.perf_counter() - start))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{total:,} codes in {len(paths)} shards, {machine.cores()} cores, k = {k}, "
        f"{peak:,.0f} MiB at most"
    )
    print("| queries at once | scan of all shards, s | merge, ms | code pairs/s | queries/s |")
    print("|---|---|---|---|---|")
    for count, scanning, merging in timed:
        pairs, rate = total * count / scanning, count / (scanning + merging)
        print(f"| {count} | {scanning:.3f} | {1e3 * merging:.2f} | {pairs:.3g} | {rate:,.1f} |")
    print("computed for 10^9 codes, 8 GB: the scan grows with the codes, the merge with the shards")
    print("| queries at once | on these cores, queries/s | on 10 such machines, queries/s |")
    print("|---|---|---|")
    for count, scanning, merging in timed:
        one = scanning * _BILLION / total
        merged = merging * 10 / len(paths)
        print(f"| {count} | {count / (one + merged):,.2f} | {count / (one / 10 + merged):,.2f} |")
    whole = np.concatenate([mapped(path) for path in paths])
    found = search_codes(queries, whole, k, kernel="numba")
    assert answers is not None
    same = np.all([(a == b).all(1) for a, b in zip(found, answers, strict=True)], axis=0)
    print(
        f"as one scan over all codes: {same.sum()} of {len(same)} queries, recall {same.mean():.3f}"
    )
    if not same.all():
        raise SystemExit("the merge is not exact")


if __name__ == "__main__":
    main()
