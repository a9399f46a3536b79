"""The compiled exact scan: threads take blocks of rows, all queries pass over a block in the cache.

Each thread keeps, per query, a histogram of the distances it accepted and from it the limit below
which a code can still be among the k nearest. A stretch of rows whose least distance is not below
the limit is passed over without looking at single rows; once the limit has settled that is nearly
all of them. Rows are seen in ascending order, so at equal distance the earlier row stays.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import UInt8Array
from fgdeploy.retrieval.scan import bitslice, scan_kernels
from fgdeploy.retrieval.scan.bitslice import BLOCK
from fgdeploy.retrieval.scan.pace import Pace
from fgdeploy.retrieval.scan.scan_kernels import ROW_BITS

Words = npt.NDArray[np.uint64]

CHUNK = 1 << 15  # rows that a thread takes at once, a multiple of 4096
_THREAD_WORK = 1 << 18  # words times queries that take longer than to wake another thread
_MANY = {1: 8, 2: 24}  # queries that may pay for bit-slicing codes of so many words; longer: never
_TIMED_WORK = 1 << 22  # words times queries that say which way is faster
_KEY_BYTES = 1 << 28  # bytes of keys held at once
_MOST_QUERIES = 256

_pool: ThreadPoolExecutor | None = None
_slicing = Pace()


def _forget_pool() -> None:
    global _pool
    _pool = None  # a child process has none of its parent's threads


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def nearest(
    queries: UInt8Array, codes: UInt8Array, k: int, allowed: Words | None, threads: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]:
    """Return rows and distances (Q, k) of the k nearest; `allowed` has at least k bits set.

    codes: C-contiguous (N, bytes). allowed: bit i % 64 of word i // 64 admits row i.
    """
    rows = np.empty((len(queries), k), np.int64)
    distances = np.empty((len(queries), k), np.uint16)
    room = min(2 * k, len(codes))
    tile = max(1, min(_MOST_QUERIES, _KEY_BYTES // (8 * room * threads)))
    for start in range(0, len(queries), tile):
        part = slice(start, start + tile)
        keys = _nearest_keys(as_words(queries[part]), codes, k, room, allowed, threads)
        rows[part] = keys & ((1 << ROW_BITS) - 1)
        distances[part] = keys >> ROW_BITS
    return rows, distances


def _nearest_keys(
    queries: Words, codes: UInt8Array, k: int, room: int, allowed: Words | None, threads: int
) -> npt.NDArray[np.int64]:
    count, words = queries.shape
    either = count >= _MANY.get(words, sys.maxsize)
    kind = words, count.bit_length(), k.bit_length()
    timed = either and allowed is None and len(codes) * words * count >= _TIMED_WORK
    many = either and _slicing.choose(kind, timed)
    start = time.perf_counter()
    keys = _run(queries, codes, k, room, allowed, threads, many)
    if timed:
        took = time.perf_counter() - start
        _slicing.note(kind, many, took / (len(codes) * count))
    return keys


def _run(
    queries: Words,
    codes: UInt8Array,
    k: int,
    room: int,
    allowed: Words | None,
    threads: int,
    many: bool,
) -> npt.NDArray[np.int64]:
    """Scan in one of two ways; return the sorted keys (Q, k)."""
    count, words = queries.shape
    workers = _workers(threads, len(codes), words * count)
    found = [(np.empty((count, room), np.int64), np.zeros(count, np.int64)) for _ in range(workers)]
    ticket = np.zeros(1, np.int64)
    bitmap = NO_WORDS if allowed is None else allowed
    common = (*_place(codes), queries.ctypes.data, bitmap, k, CHUNK, ticket)
    shape = (0,) * words
    sliced = (bitslice.offsets(queries), bitslice.limits(words)) if many else None

    def work(worker: int) -> None:
        if sliced is None:
            memory, scratch = _aligned(scan_kernels.memory_words(words))
            scan_kernels.scan(*common, *found[worker], scratch, shape)
        else:
            memory, scratch = _aligned(scan_kernels.memory_words_many(words))
            scan_kernels.scan_many(*common, *found[worker], scratch, *sliced, shape)
        del memory  # until here it is in use

    together(work, workers)
    widest = [int(held.max(initial=0)) for _, held in found]
    merged = np.concatenate(
        [keys[:, :width] for (keys, _), width in zip(found, widest, strict=True)], axis=1
    )
    end = 0
    for (_, held), width in zip(found, widest, strict=True):
        # What lies behind a query's own count is not a key.
        merged[:, end : end + width][np.arange(width) >= held[:, None]] = np.iinfo(np.int64).max
        end += width
    merged.sort(axis=1)
    return merged[:, :k]


def within(
    query: UInt8Array, codes: UInt8Array, radius: int, allowed: Words | None, threads: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]:
    """Return all rows within `radius` of one query (bytes,), ascending, and their distances."""
    words, chunks = as_words(query[None]), -(-len(codes) // CHUNK)
    bitmap = NO_WORDS if allowed is None else allowed
    common = (*_place(codes), words.ctypes.data, bitmap, radius, CHUNK)
    shape = (0,) * words.shape[1]

    def pass_over(
        starts: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], gaps: npt.NDArray[np.uint16]
    ) -> None:
        ticket, fill = np.zeros(1, np.int64), len(rows) > 0

        def work(_: int) -> None:
            memory, scratch = _aligned(scan_kernels.memory_words(len(shape)))
            scan_kernels.collect(*common, ticket, starts, rows, gaps, fill, scratch, shape)
            del memory  # until here it is in use

        together(work, _workers(threads, len(codes), len(shape)))

    counts, rows, distances = np.zeros(chunks, np.int64), _NO_ROWS, _NO_DISTANCES
    pass_over(counts, rows, distances)  # first count, so that each chunk knows where its rows go
    if total := int(counts.sum()):
        rows, distances = np.empty(total, np.int64), np.empty(total, np.uint16)
        pass_over(np.cumsum(counts) - counts, rows, distances)
    return rows, distances


_NO_ROWS, _NO_DISTANCES = np.empty(0, np.int64), np.empty(0, np.uint16)
NO_WORDS = np.zeros(0, np.uint64)


def warm(words: int, between: Callable[[], None] = lambda: None) -> None:
    """Compile what searches of codes of `words` words run, or load it from numba's cache.

    between: called between steps.
    """
    codes = np.zeros((BLOCK, 8 * words), np.uint8)
    for many in (False, True) if words in _MANY else (False,):
        _run(as_words(codes[:1]), codes, 1, 2, None, 1, many)
        between()
    within(codes[0], codes, 0, None, 1)


def _workers(threads: int, rows: int, words: int) -> int:
    """Return how many threads are worth their while, for `words` words to look at in each row."""
    return max(1, min(threads, -(-rows // CHUNK), rows * words // _THREAD_WORK))


def as_words(codes: UInt8Array) -> Words:
    """Return codes (N, bytes) as whole words (N, W), the last one padded with zeros."""
    padded = np.zeros((len(codes), -(-codes.shape[1] // 8) * 8), np.uint8)
    padded[:, : codes.shape[1]] = codes
    return padded.view(np.uint64)


def _place(codes: UInt8Array) -> tuple[int, int, int]:
    """Return address, rows and bytes of a row: one compiled function takes any array."""
    return codes.ctypes.data, codes.shape[0], codes.shape[1]


def _aligned(words: int) -> tuple[Words, int]:
    """Return memory of at least `words` words, and an address in it that is a multiple of 64."""
    memory = np.empty(words + 7, np.uint64)
    return memory, -(-memory.ctypes.data // 64) * 64


def together(work: Callable[[int], None], workers: int) -> None:
    """Run work(0) here and work(1..) in threads that sleep, not spin, when there is nothing to do.

    A helper that no core was free for is called off: the others have taken its chunks. No helper
    runs any more when this returns or raises, so what they work on may go.
    """
    global _pool
    if workers > 1 and (_pool is None or _pool._max_workers < workers - 1):
        _pool = ThreadPoolExecutor(max(workers, os.cpu_count() or 1), "fgdeploy-scan")
    pool = _pool
    helpers = [pool.submit(work, number) for number in range(1, workers)] if pool else []
    try:
        work(0)
    finally:
        running = [helper for helper in helpers if not helper.cancel()]
        wait(running)
    for helper in running:
        helper.result()
