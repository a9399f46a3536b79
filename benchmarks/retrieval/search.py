"""Exact Hamming search: fgdeploy against FAISS and usearch on the same codes, on this CPU.

    .venv/bin/python benchmarks/retrieval/search.py [--count 10000000] [--codes FILE.npz] [--first]

Needs faiss-cpu and usearch. Random codes; with --codes, codes like real ones: drawn from a file of
`fgdeploy hash`, each bit flipped as often as it differs between a code and the nearest other one.
Each contender runs in a process of its own, in turn, several rounds; a figure is the median over
rounds of the medians of calls, in brackets the least and the greatest (usearch, which is slow: one
round, four queries for 64). Every answer is checked against FAISS's distances. "busy": another
process burns one core meanwhile. --first only times a fresh process, from import to answer. --avx2
holds FAISS and fgdeploy to AVX2 on a CPU that has AVX-512 too.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

THREADS = len(os.sched_getaffinity(0))
CASES = {"1 query": (1, 10), "64 queries": (64, 10), "1 query, k=10,000": (1, 10_000)}


def _faiss(codes: np.ndarray) -> Callable[[np.ndarray, int], np.ndarray]:
    import faiss

    if "FAISS_SIMD_LEVEL" in os.environ:
        assert faiss.SIMDConfig.get_level_name() == os.environ["FAISS_SIMD_LEVEL"]
    faiss.omp_set_num_threads(THREADS)
    index = faiss.IndexBinaryFlat(8 * codes.shape[1])
    index.add(codes)
    return lambda queries, k: index.search(queries, k)[0]


def _usearch(codes: np.ndarray) -> Callable[[np.ndarray, int], np.ndarray]:
    from usearch.index import MetricKind, search

    def answer(queries: np.ndarray, k: int) -> np.ndarray:
        found = search(
            codes, queries, k, MetricKind.Hamming, exact=True, threads=THREADS, dtype="b1"
        )
        return np.asarray(found.distances).reshape(len(queries), k)

    return answer


def _fgdeploy(codes: np.ndarray, kernel: str = "numba") -> Callable[[np.ndarray, int], np.ndarray]:
    from fgdeploy.retrieval import search_codes

    return lambda queries, k: search_codes(queries, codes, k, threads=THREADS, kernel=kernel)[1]


AVX2 = {
    "FAISS_SIMD_LEVEL": "AVX2",
    "NUMBA_CPU_NAME": "haswell",  # the name alone would keep the features of the CPU here
    "NUMBA_CPU_FEATURES": "+64bit,+aes,+avx,+avx2,+bmi,+bmi2,+cmov,+cx16,+f16c,+fma,+fsgsbase,"
    "+fxsr,+invpcid,+lzcnt,+mmx,+movbe,+pclmul,+popcnt,+rdrnd,+sahf,+sse,+sse2,+sse3,+sse4.1,"
    "+sse4.2,+ssse3,+xsave,+xsaveopt",
}
SLOW = "usearch"  # which gets at most four queries at once, in one round, and never "busy"
CONTENDERS = {"FAISS": _faiss, "usearch": _usearch, "fgdeploy": _fgdeploy}
FIRSTS = {  # as it comes a process answers its first queries with NumPy
    **CONTENDERS,
    "fgdeploy, numba at once": _fgdeploy,
    "fgdeploy": functools.partial(_fgdeploy, kernel="auto"),
}


def _one(name: str, file: Path, seconds: float) -> dict[str, list[Any]]:
    """Return for each case the median of calls in ms a query, and a hash of each query's answer."""
    codes, queries = np.load(file), np.load(file.with_suffix(".queries.npy"))
    answer, results = CONTENDERS[name](codes), {}
    for label, (count, k) in CASES.items():
        some = queries[: min(count, 4) if name == SLOW else count]
        if name == "fgdeploy":
            answer(some, k)  # which may compile
        times, end = [], time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            start = time.perf_counter()
            distances = answer(some, k)
            times.append(1e3 * (time.perf_counter() - start) / len(some))
        digests = [hashlib.sha256(row.astype(np.int64).tobytes()).hexdigest() for row in distances]
        results[label] = [statistics.median(times), digests]
    return results


def _random(count: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, width), dtype=np.uint8)


def _like(real: np.ndarray, count: int) -> np.ndarray:
    """Return codes drawn from real ones, with each bit flipped as often as neighbours differ."""
    from fgdeploy.retrieval import search_codes

    rows, _ = search_codes(real, real, 2)
    other = np.where(rows[:, 0] == np.arange(len(real)), rows[:, 1], rows[:, 0])
    rates = np.unpackbits(real ^ real[other], axis=1).mean(axis=0)
    chooser, parts = np.random.default_rng(0), []
    for start in range(0, count, 1 << 18):
        size = min(1 << 18, count - start)
        flips = np.packbits(chooser.random((size, len(rates)), np.float32) < rates, axis=1)
        parts.append(real[chooser.integers(0, len(real), size)] ^ flips)
    print(f"real codes: {len(real)}, {100 * rates.mean():.1f} % of bits flipped", file=sys.stderr)
    return np.concatenate(parts)


@contextlib.contextmanager
def _burner(busy: bool) -> Iterator[None]:
    """Keep one core busy with another process."""
    if not busy:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def _bandwidth(mib: int = 512) -> float:
    """Return GB/s that all threads together read with a compiled loop: best of several passes."""
    import numba

    @numba.njit(nogil=True)
    def read(words: np.ndarray) -> int:
        total = np.uint64(0)
        for word in words:
            total ^= word
        return total

    words = np.ones(mib << 17, np.uint64)
    parts = np.array_split(words, THREADS)
    read(words[:8])
    best = 0.0
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(8):
            start = time.perf_counter()
            list(pool.map(read, parts))
            best = max(best, words.nbytes / (time.perf_counter() - start) / 1e9)
    return best


def _compare(files: dict[str, Path], rounds: int, seconds: float) -> None:
    """Measure and print all contenders; every round starts with the next one."""
    results: dict[tuple[str, bool, str, str], list[float]] = {}
    for turn in range(rounds):
        for kind, file in files.items():
            for busy in (False, True) if kind == next(iter(files)) else (False,):
                answers: dict[str, list[list[str]]] = {label: [] for label in CASES}
                for place in range(len(CONTENDERS)):
                    name = list(CONTENDERS)[(turn + place) % len(CONTENDERS)]
                    if name == SLOW and (turn or busy):
                        continue
                    command = [sys.executable, __file__, "--one", name, str(file), str(seconds)]
                    with _burner(busy):
                        out = subprocess.run(command, check=True, capture_output=True, text=True)
                    for label, (milliseconds, digests) in json.loads(out.stdout).items():
                        results.setdefault((kind, busy, label, name), []).append(milliseconds)
                        answers[label].append(digests)
                for same in answers.values():
                    assert all(len(set(row)) == 1 for row in zip(*same, strict=False)), kind
    print(f"| codes, {THREADS} threads, ms a query | FAISS | usearch | fgdeploy |", end="")
    print(" against FAISS | against usearch |\n|---|---|---|---|---|---|")
    for kind, busy, label, name in results:
        if name != "fgdeploy":
            continue
        ours = results[kind, busy, label, name]
        rivals = [results.get((kind, busy, label, rival)) for rival in ("FAISS", SLOW)]
        print(f"| {kind}, {label}{', busy' if busy else ''} |", end="")
        for times in rivals:
            print(f" {statistics.median(times):.2f} |" if times else " |", end="")
        print(f" {statistics.median(ours):.3f} ({min(ours):.3f} to {max(ours):.3f}) |", end="")
        for times in rivals:
            ratio = statistics.median(times) / statistics.median(ours) if times else 0
            print(f" {ratio:.1f}x |" if times else " |", end="")
        print()
    kind, file = next(iter(files.items()))
    once = statistics.median(results[kind, False, "1 query", "fgdeploy"])
    rate, peak = np.load(file, mmap_mode="r").nbytes / once / 1e6, _bandwidth()
    print(
        f"\nMemory is read at {peak:.1f} GB/s; one query on {kind} reads {rate:.1f} GB/s,", end=""
    )
    print(f" {100 * rate / peak:.0f} % of it.")


def _short(count: int) -> None:
    """Compare the scan with buckets on codes of 16 bits."""
    from fgdeploy.retrieval import search_codes
    from fgdeploy.retrieval.scan.buckets import Buckets

    codes, queries = _random(count, 2), np.random.default_rng(1).bytes(2 * 4096)
    some = np.frombuffer(queries, np.uint8).reshape(-1, 2)
    print("\n| 16 bits, 4096 queries | s in all | ms a query |\n|---|---|---|")
    search_codes(some[:99], codes[:99], 10, kernel="numba")  # which may compile
    start = time.perf_counter()
    buckets = Buckets(codes)
    sorting = time.perf_counter() - start
    answers = []
    for label, before, search in (
        ("scan", 0, lambda: search_codes(some, codes, 10, threads=THREADS, kernel="numba")),
        ("buckets", 0, lambda: buckets.nearest(some, 10)),
        ("buckets and the sort", sorting, lambda: buckets.nearest(some, 10)),
    ):
        start = time.perf_counter()
        answers.append(search())
        took = before + time.perf_counter() - start
        print(f"| {label} | {took:.2f} | {1e3 * took / len(some):.3f} |")
    assert all(np.array_equal(one, two) for one, two in zip(*answers[:2], strict=True))


def _ways(file: Path) -> None:
    """Compare the plain scan with bit planes, by the number of queries."""
    from fgdeploy.retrieval import search_codes
    from fgdeploy.retrieval.scan import scan_numba

    codes, queries = np.load(file), np.load(file.with_suffix(".queries.npy"))
    if -(-codes.shape[1] // 8) not in scan_numba._MANY:
        return
    print("\n| queries at once | plain scan, ms a query | bit planes |\n|---|---|---|")
    choose = scan_numba._slicing.choose
    for count in (8, 16, 24, 32, 64):
        medians, answers = [], []
        for planes in (False, True):
            scan_numba._slicing.choose = lambda *_, way=planes: way  # type: ignore[method-assign]
            times = []
            for _ in range(12):
                start = time.perf_counter()
                answers.append(search_codes(queries[:count], codes, 10, kernel="numba"))
                times.append(1e3 * (time.perf_counter() - start) / count)
            medians.append(statistics.median(times[1:]))  # the first one may compile
        assert all(np.array_equal(answers[0], answer) for answer in answers)
        print(f"| {count} | {medians[0]:.3f} | {medians[1]:.3f} |")
    scan_numba._slicing.choose = choose  # type: ignore[method-assign]


FIRST = """
import sys, time
import numpy as np
codes, queries = np.load(sys.argv[2]), np.load(sys.argv[3])[:1]
sys.path.insert(0, sys.argv[1])
start = time.perf_counter()
import search
search.FIRSTS[sys.argv[4]](codes)(queries, 10)
print(time.perf_counter() - start)
"""


def _first(file: Path, rounds: int) -> None:
    """Time the first answer of fresh processes; the very first one may compile, so it is left."""
    times: dict[str, list[float]] = {name: [] for name in FIRSTS}
    for turn in range(rounds + 1):
        for name, kept in times.items():
            command = [sys.executable, "-c", FIRST, str(Path(__file__).parent), str(file)]
            command += [str(file.with_suffix(".queries.npy")), name]
            out = subprocess.run(command, check=True, capture_output=True, text=True)
            if turn:
                kept.append(float(out.stdout))
    print("\n| first answer of a fresh process | s |\n|---|---|")
    for name, kept in times.items():
        print(f"| {name} | {statistics.median(kept):.2f} |")


def main() -> None:
    """Make the codes, measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000_000)
    parser.add_argument("--bits", default="64,48,128")
    parser.add_argument("--codes", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--first", action="store_true")
    parser.add_argument("--avx2", action="store_true")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_one(options.one[0], Path(options.one[1]), float(options.one[2]))))
        return
    if options.avx2:
        os.environ.update(AVX2)  # before numba is imported: here and in every contender's process
    files: dict[str, Path] = {}
    with tempfile.TemporaryDirectory() as folder:

        def keep(label: str, codes: np.ndarray) -> None:
            files[label] = Path(folder) / f"{len(files)}.npy"
            np.save(files[label], codes[64:])
            np.save(files[label].with_suffix(".queries.npy"), codes[:64])

        for bits in map(int, options.bits.split(",")):
            keep(f"{bits} bits", _random(options.count + 64, bits // 8))
        if options.codes:
            from fgdeploy.core.codes import CodeFile

            real = CodeFile.load(options.codes)
            keep(f"{real.bits} bits like real ones", _like(real.codes, options.count + 64))
        if not options.first:
            _compare(files, options.rounds, options.seconds)
            _ways(next(iter(files.values())))
            _short(options.count)
        _first(next(iter(files.values())), options.rounds)


if __name__ == "__main__":
    main()
