"""The index on disk: how fast it takes items in, and how fast a fresh process answers from it.

    .venv/bin/python benchmarks/retrieval/store.py [--codes 100000000] [--folder DIR]

Adds 1M bare codes and 1M items with path, label and content hash, filters these, then builds an
index of --codes random 64-bit codes and writes its derived files anew, from each other and from the
database. A process of its own then opens it and searches, with the page cache as it is
and, as root, after dropping it. Memory: the process's peak, and its peak without mapped files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fgdeploy.retrieval import Index, Item

MODEL, WIDTH, CHUNK = "ab" * 32, 8, 1 << 22
DROP = Path("/proc/sys/vm/drop_caches")

QUERIES = """
import json, sys, time
import numpy as np

def memory():
    fields = dict(line.split(":") for line in open("/proc/self/status"))
    return {key: int(fields[key].split()[0]) // 1024 for key in ("VmHWM", "RssAnon", "RssFile")}

start = time.perf_counter()
from fgdeploy.retrieval import Index
imported = time.perf_counter()
index = Index.open(sys.argv[1])
size = len(index)
opened = time.perf_counter()
queries = np.random.default_rng(1).integers(0, 256, (64, 8), dtype=np.uint8)
index.search(queries[:1], 10)
first = time.perf_counter()
singles = []
for n in range(7):
    begin = time.perf_counter()
    index.search(queries[n : n + 1], 10)
    singles.append(time.perf_counter() - begin)
begin = time.perf_counter()
index.search(queries, 10)
many = (time.perf_counter() - begin) / 64
print(json.dumps({"items": size, "import_s": imported - start, "open_s": opened - imported,
    "first_search_s": first - opened, "next_search_ms": 1000 * sorted(singles)[3],
    "of_64_ms": 1000 * many, **memory()}))
"""


def peak_mib() -> int:
    """Return the most memory this process has held, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) // 1024
    return 0


def items(count: int) -> Iterator[Item]:
    """Yield items as a camera would add them."""
    codes = np.random.default_rng(0).integers(0, 256, (count, WIDTH), dtype=np.uint8)
    for number, code in enumerate(codes):
        path = f"/photos/{number % 1000:03d}/{number:08d}.jpg"
        content = hashlib.sha256(path.encode()).hexdigest()  # in no order, as real ones are
        yield Item(path, code.tobytes(), f"class {number % 1000}", content)


def adding(folder: Path) -> None:
    """Time adding 1M codes and 1M items."""
    count = 1_000_000
    codes = np.random.default_rng(0).integers(0, 256, (count, WIDTH), dtype=np.uint8)
    for what in ("codes", "items"):
        with Index.create(folder / f"{what}.fgi", MODEL, 8 * WIDTH) as index:
            before, start = peak_mib(), time.perf_counter()
            if what == "codes":
                index.add_codes(codes)
            else:
                index.add(items(count))
            seconds = time.perf_counter() - start
            print(
                f"| add 1M {what} | {count / seconds:,.0f} per s, peak {peak_mib()} MiB "
                f"(before {before}) |",
                flush=True,
            )
        if what == "items":
            filtering(folder / f"{what}.fgi")
        shutil.rmtree(folder / f"{what}.fgi")


def filtering(path: Path) -> None:
    """Time filters on 1M items: the first one of a process compares every item first."""
    query = np.zeros((1, WIDTH), np.uint8)
    with Index.open(path) as index:
        index.search(query, 10)
        for what in ("first", "next"):
            start = time.perf_counter()
            index.search(query, 10, where="label = ?", params=(f"class {what == 'next':d}",))
            print(
                f"| {what} filter on 1M items | {time.perf_counter() - start:.2f} s |", flush=True
            )


def measure(path: Path) -> dict[str, float]:
    """Return what a fresh process measures."""
    run = subprocess.run(
        [sys.executable, "-c", QUERIES, str(path)], check=True, capture_output=True, text=True
    )
    answer: dict[str, float] = json.loads(run.stdout)
    return answer


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codes", type=int, default=100_000_000)
    parser.add_argument("--folder", type=Path, help="where there is room; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        print("| | |\n|---|---|")
        adding(folder)
        path, chooser = folder / "large.fgi", np.random.default_rng(2)
        with Index.create(path, MODEL, 8 * WIDTH) as index:
            start = time.perf_counter()
            for done in range(0, options.codes, CHUNK):
                rows = min(CHUNK, options.codes - done)
                index.add_codes(chooser.integers(0, 256, (rows, WIDTH), dtype=np.uint8))
            seconds = time.perf_counter() - start
            stats = index.stats()
            print(
                f"| build {options.codes:,} codes | {options.codes / seconds:,.0f} per s, "
                f"{len(stats.segments)} segments, database {stats.database_bytes / 1e9:.2f} GB, "
                f"derived {sum(size for _, _, size in stats.segments) / 1e9:.2f} GB |",
                flush=True,
            )
            start = time.perf_counter()
            index.compact()
            print(f"| compact | {time.perf_counter() - start:.1f} s |", flush=True)
            start = time.perf_counter()
            index._keeper.rebuild()
            seconds = time.perf_counter() - start
            print(f"| the same from the database, as a repair | {seconds:.1f} s |", flush=True)
        measure(path)  # compiles the kernel where it is not cached yet
        for what in ("warm", "page cache dropped"):
            if what != "warm":
                try:
                    DROP.write_text("3")
                except OSError:
                    continue
            for key, value in measure(path).items():
                print(f"| {what}: {key} | {value:,.4g} |", flush=True)


if __name__ == "__main__":
    main()
