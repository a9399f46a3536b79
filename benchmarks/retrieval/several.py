"""What it costs to search several indexes as one: 1M codes as one index, and as 2, 4 and 16.

    .venv/bin/python benchmarks/retrieval/several.py

Each contender is timed in a process of its own, in turn, round after round: SeveralIndexes (one
after the other, items read for the answers alone), and, of ids alone, the same folders one after
the other, side by side in threads, and in two processes that hold half of them each. All answers
are compared with the one index's. Codes are random, 64 bits; k=10.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import numpy as np

from fgdeploy.core import machine
from fgdeploy.core.codes import UInt8Array
from fgdeploy.gallery import SeveralIndexes
from fgdeploy.retrieval import Index, merge_nearest
from fgdeploy.retrieval.scan.search import Found

MODEL, BITS, K = "ab" * 32, 64, 10
SHARDS, QUERIES = (1, 2, 4, 16), (1, 64)
WAYS = ("as one", "ids in turn", "ids in threads", "ids in processes")
_SECONDS, _MOST = 1.5, 200  # of one contender in one round


def build(folder: Path, count: int) -> None:
    """Write the same items as one index and as several, each id in one of them."""
    codes = np.random.default_rng(0).integers(0, 256, (count, BITS // 8), dtype=np.uint8)
    for shards in SHARDS:
        for shard in range(shards):
            ids = np.arange(shard, count, shards)
            with Index.create(folder / f"{shards}-{shard}.fgi", MODEL, BITS) as index:
                index.add_codes(codes[ids], ids.tolist())
                index.compact()


def paths_of(folder: Path, shards: int) -> list[Path]:
    """Return the folders of one way to lay the items out."""
    return [folder / f"{shards}-{shard}.fgi" for shard in range(shards)]


def holder(pipe: Connection, paths: Sequence[Path]) -> None:
    """Answer queries against some indexes until there is none."""
    indexes = [Index.open(path) for path in paths]
    while (codes := pipe.recv()) is not None:
        pipe.send(merge_nearest([one.search_ids(codes, K, threads=1) for one in indexes], K))
    for index in indexes:
        index.close()


def answers(
    stack: ExitStack, way: str, paths: Sequence[Path]
) -> Callable[[UInt8Array], list[list[int]]]:
    """Return what gives the ids that answer queries, in one way."""
    if way == "as one":
        several = stack.enter_context(SeveralIndexes.open(paths))
        return lambda codes: [[hit.id for hit in hits] for hits in several.search(codes, K)]
    if way == "ids in processes":
        pipes = []
        for part in (paths[::2], paths[1::2]):
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.Process(target=holder, args=(theirs, part))
            process.start()
            stack.callback(process.join, 60)
            stack.callback(ours.send, None)
            pipes.append(ours)

        def ask(codes: UInt8Array) -> list[list[int]]:
            for pipe in pipes:
                pipe.send(codes)
            return ids_of([pipe.recv() for pipe in pipes])

        return ask
    indexes = [stack.enter_context(Index.open(path)) for path in paths]
    if way == "ids in turn":
        return lambda codes: ids_of([one.search_ids(codes, K) for one in indexes])
    pool = stack.enter_context(ThreadPoolExecutor(machine.cores()))
    return lambda codes: ids_of(
        list(pool.map(lambda one: one.search_ids(codes, K, threads=1), indexes))
    )


def ids_of(found: Sequence[Found]) -> list[list[int]]:
    """Return the ids of merged answers."""
    ids: list[list[int]] = merge_nearest(found, K)[0].tolist()
    return ids


def contend(folder: Path, shards: int, way: str) -> None:
    """Time one contender and print its medians and answers: what a process of its own runs."""
    chooser = np.random.default_rng(1)
    report: dict[str, object] = {}
    with ExitStack() as stack:
        search = answers(stack, way, paths_of(folder, shards))
        warm = chooser.integers(0, 256, (64, BITS // 8), dtype=np.uint8)
        for _ in range(20):  # until the compiled scan is ready
            search(warm)
            time.sleep(0.05)
        for queries in QUERIES:
            codes = chooser.integers(0, 256, (queries, BITS // 8), dtype=np.uint8)
            times: list[float] = []
            end = time.perf_counter() + _SECONDS
            while len(times) < _MOST and (len(times) < 5 or time.perf_counter() < end):
                start = time.perf_counter()
                found = search(codes)
                times.append(1000 * (time.perf_counter() - start))
            report[str(queries)] = [median(times), found]
    print(json.dumps(report))


def main() -> None:
    """Build, time in turn, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contend", nargs=3, metavar=("FOLDER", "SHARDS", "WAY"))
    options = parser.parse_args()
    if options.contend:
        folder, shards, way = options.contend
        contend(Path(folder), int(shards), way)
        return
    contenders = [
        (shards, way) for shards in SHARDS for way in WAYS if shards > 1 or way != WAYS[3]
    ]
    times: dict[tuple[int, str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        build(Path(name), options.count)
        truth: dict[int, object] = {}
        for _ in range(options.rounds):
            for shards, way in contenders:
                command = [sys.executable, __file__, "--contend", name, str(shards), way]
                printed = subprocess.run(command, check=True, capture_output=True, text=True)
                report = json.loads(printed.stdout)
                for queries in QUERIES:
                    taken, found = report[str(queries)]
                    times.setdefault((shards, way, queries), []).append(taken)
                    if truth.setdefault(queries, found) != found:
                        raise SystemExit(f"{shards} folders, {way}: other answers than one index")
    print(f"{options.count} codes, {machine.cores()} cores; ms a call, median (least to most)\n")
    print("| folders | way | " + " | ".join(f"{n} at once | against one" for n in QUERIES) + " |")
    print("|---|---|" + "---|---|" * len(QUERIES))
    for shards, way in contenders:
        cells = []
        for queries in QUERIES:
            mine = times[shards, way, queries]
            base = times[1, way if way == WAYS[0] else WAYS[1], queries]
            cells.append(f"{median(mine):.2f} ({min(mine):.2f} to {max(mine):.2f})")
            cells.append(f"{median(a / b for a, b in zip(mine, base, strict=True)):.2f}x")
        print(f"| {shards} | {way} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
