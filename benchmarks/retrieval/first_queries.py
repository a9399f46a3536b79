"""The first queries of a fresh process: how long the slowest waits, with and without a cache.

    .venv/bin/python benchmarks/retrieval/first_queries.py [--count 10000000] [--queries 1000]

Needs faiss-cpu. Random codes of 64 bits, k=10, one query and 64 at once; each line is a process of
its own. "empty cache": nothing was compiled before. "over": what the slowest query took beyond the
median of those that NumPy answered (FAISS: beyond the median of all).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np

THREADS = len(os.sched_getaffinity(0))
LINES = {
    "FAISS": "faiss",
    "fgdeploy, empty cache": "fgdeploy",
    "fgdeploy, warm cache": "fgdeploy",
}


def _one(name: str, count: int, batch: int, queries: int) -> dict[str, float]:
    """Return what the first queries of this process took, in ms."""
    codes = np.random.default_rng(0).integers(0, 256, (count, 8), dtype=np.uint8)
    some = np.random.default_rng(1).integers(0, 256, (batch, 8), dtype=np.uint8)
    if name == "faiss":
        import faiss

        faiss.omp_set_num_threads(THREADS)
        index = faiss.IndexBinaryFlat(64)
        index.add(codes)
    else:
        from fgdeploy.retrieval import search_codes
        from fgdeploy.retrieval.scan.ahead import ahead
    times, slow = [], 0
    begin = time.perf_counter()
    for _ in range(queries):
        start = time.perf_counter()
        if name == "faiss":
            index.search(some, 10)
        else:
            search_codes(some, codes, 10)
        times.append(1e3 * (time.perf_counter() - start))
        if name != "faiss" and 1 not in ahead._ready:
            slow, loaded = len(times), time.perf_counter() - begin
    base = float(np.median(times[:slow] or times))
    return {
        "by NumPy": slow,
        "ready after, s": loaded if slow else 0.0,
        "median": float(np.median(times)),
        "median of NumPy": base,
        "p99": float(np.percentile(times, 99)),
        "worst": max(times),
        "over": max(times) - base,
    }


def main() -> None:
    """Run each line in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, batch = options.one
        print(json.dumps(_one(name, options.count, int(batch), options.queries)))
        return
    print(f"| {options.count:,} codes, ms | answered by NumPy | ready after, s | median |", end="")
    print(" median of NumPy | p99 | worst | over |\n|---|---|---|---|---|---|---|---|")
    for batch in (1, 64):
        with tempfile.TemporaryDirectory() as cache:
            for label, name in LINES.items():
                command = [sys.executable, __file__, "--one", name, str(batch)]
                command += ["--count", str(options.count), "--queries", str(options.queries)]
                environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
                out = subprocess.run(
                    command, env=environment, check=True, capture_output=True, text=True
                )
                found = json.loads(out.stdout)
                print(f"| {label}, {batch} at once | {found['by NumPy']:.0f} |", end="")
                for key in list(found)[1:]:
                    print(f" {found[key]:.1f} |", end="")
                print(flush=True)


if __name__ == "__main__":
    main()
