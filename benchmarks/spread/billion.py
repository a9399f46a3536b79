"""Exact search over shards of codes, scanned in turn and merged by (distance, id): rate, memory, recall.

    python benchmarks/spread/billion.py [--codes 100000000] [--shards 8] [--queries 64] [-k 100]

Codes are random 64-bit ones with planted near copies and exact doubles, in files that are mapped into memory one
after the other, as the shards of many machines would be each on its own. The merged answers are compared with one
scan over all codes, every row. What is printed for 10^9 codes is computed from these measurements, not measured.
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

Codes = npt.NDArray[np.uint8]
_WIDTH = 8  # bytes
_PIECE = 1 << 22  # codes written at once
_BILLION = 1_000_000_000


def write_codes(path: Path, count: int, queries: Codes, seed: int) -> None:
    """Write random codes; each 1,000th is a query with up to eight bits flipped, so that ties abound."""
    random = np.random.default_rng(seed)
    with open(path, "wb") as stream:
        for start in range(0, count, _PIECE):
            codes = random.integers(0, 256, (min(_PIECE, count - start), _WIDTH), np.uint8)
            near = codes[::1000]
            near[:] = queries[random.integers(0, len(queries), len(near))]
            for _ in range(8):
                flips = 1 << random.integers(0, 9, len(near))  # 256: none
                byte = random.integers(0, _WIDTH, len(near))
                near[np.arange(len(near)), byte] ^= flips.astype(np.uint8)
            stream.write(codes.tobytes())


def mapped(path: Path) -> Codes:
    codes: Codes = np.memmap(path, np.uint8, "r").reshape(-1, _WIDTH)
    return codes


def merge(parts: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]], k: int) -> tuple[
    npt.NDArray[np.int64], npt.NDArray[np.uint16]
]:
    """Return the k nearest of all parts, each (Q, k) ids and distances, by (distance, id)."""
    ids = np.concatenate([part[0] for part in parts], axis=1)
    distances = np.concatenate([part[1] for part in parts], axis=1)
    order = np.lexsort((ids, distances), axis=1)[:, :k]
    return np.take_along_axis(ids, order, 1), np.take_along_axis(distances, order, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codes", type=int, default=100_000_000)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument("-k", type=int, default=100)
    given = parser.parse_args()
    queries = np.random.default_rng(0).integers(0, 256, (given.queries, _WIDTH), np.uint8)
    search_codes(queries, queries, 1)  # compiles
    with tempfile.TemporaryDirectory() as folder:
        sizes = np.diff(np.linspace(0, given.codes, given.shards + 1).astype(int))
        paths = [Path(folder) / f"{number}.codes" for number in range(given.shards)]
        for number, (path, size) in enumerate(zip(paths, sizes, strict=True)):
            write_codes(path, int(size), queries, number + 1)
        report(paths, sizes, queries, given.k)


def report(paths: list[Path], sizes: npt.NDArray[np.int64], queries: Codes, k: int) -> None:
    firsts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    total, cores = int(sizes.sum()), machine.cores()
    rows = []
    for batch in (queries[:1], queries):
        parts, spent = [], 0.0
        for path, first in zip(paths, firsts, strict=True):
            codes = mapped(path)
            codes.max()  # in the page cache: what is measured is the scan
            start = time.perf_counter()
            found = search_codes(batch, codes, k)
            spent += time.perf_counter() - start
            parts.append((found.rows + first, found.distances))
        start = time.perf_counter()
        ids, distances = merge(parts, k)
        merging = time.perf_counter() - start
        rows.append((len(batch), spent, merging))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    whole = search_codes(queries, np.concatenate([mapped(path) for path in paths]), k)
    same = (whole.rows == ids).all(1) & (whole.distances == distances).all(1)
    print(f"{total:,} codes of 64 bits in {len(paths)} shards, {cores} cores, k = {k}; peak {peak:,.0f} MiB")
    print("| queries at once | scan of all shards, s | merge, ms | codes x queries/s | 10^9 codes, these cores, s | 10^9 codes, 10 such machines, queries/s |")
    print("|---|---|---|---|---|---|")
    for count, spent, merging in rows:
        at_billion = spent * _BILLION / total
        apart = count / (at_billion / 10 + merging)
        print(
            f"| {count} | {spent:.3f} | {1000 * merging:.2f} | {total * count / spent:.3g} | "
            f"{at_billion:.2f} (computed) | {apart:.1f} (computed) |"
        )
    print(f"answers equal to one scan over all codes: {same.sum()} of {len(same)} queries, recall {same.mean():.3f}")
    print(f"10^9 codes: {_BILLION * _WIDTH / 1e9:.0f} GB of codes in all, {_BILLION * _WIDTH / 1e10:.1f} GB on each of 10 machines (computed)")
    if not same.all():
        raise SystemExit("the merge is not exact")


if __name__ == "__main__":
    main()
