"""The compiled exact scan: threads take blocks of rows, all queries pass over a block in the cache.

Each thread keeps, per query, a histogram of the distances it accepted and from it the limit below
which a code can still be among the k nearest. A stretch of rows whose least distance is not below
the limit is passed over without looking at single rows; once the limit has settled that is nearly
all of them. Rows are seen in ascending order, so at equal distance the earlier row stays.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from fgdeploy.codes import UInt8Array
from fgdeploy.retrieval.simd import (
    STEP,
    closer_than,
    least_distance,
    load,
    load_byte,
    popcount,
    store,
    take_ticket,
)
from fgdeploy.retrieval.simd import trailing_zeros as lowest

Words = npt.NDArray[np.uint64]

CHUNK = 1 << 15  # rows that a thread takes at once
_STRETCH = 512  # rows between two looks at the limit; a multiple of STEP and of 64
_L1_WORDS = 4096  # 8-byte words of a block that stay in the first cache
_ROW_BITS = 44  # a key is distance << _ROW_BITS | row
_KEY_BYTES = 1 << 28  # bytes of keys held at once
_MOST_QUERIES = 256

assert _STRETCH % STEP == 0 and _STRETCH % 64 == 0

_pool: ThreadPoolExecutor | None = None


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
        keys = _nearest_keys(_words(queries[part]), codes, k, room, allowed, threads)
        rows[part] = keys & ((1 << _ROW_BITS) - 1)
        distances[part] = keys >> _ROW_BITS
    return rows, distances


def _nearest_keys(
    queries: Words, codes: UInt8Array, k: int, room: int, allowed: Words | None, threads: int
) -> npt.NDArray[np.int64]:
    workers = max(1, min(threads, -(-len(codes) // CHUNK)))
    count, words = queries.shape
    found = [(np.empty((count, room), np.int64), np.zeros(count, np.int64)) for _ in range(workers)]
    ticket = np.zeros(1, np.int64)
    bitmap = _NO_WORDS if allowed is None else allowed

    def work(worker: int) -> None:
        keys, held = found[worker]
        place = queries.ctypes.data
        _scan(*_place(codes), queries, place, bitmap, k, ticket, keys, held, (0,) * words)

    _together(work, workers)
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
    asked, chunks = _words(query[None]), -(-len(codes) // CHUNK)
    bitmap = _NO_WORDS if allowed is None else allowed
    shape = (0,) * asked.shape[1]

    def pass_over(
        starts: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], gaps: npt.NDArray[np.uint16]
    ) -> None:
        ticket, fill = np.zeros(1, np.int64), len(rows) > 0
        place = asked.ctypes.data
        _together(
            lambda _: _collect(
                *_place(codes), place, bitmap, radius, ticket, starts, rows, gaps, fill, shape
            ),
            max(1, min(threads, chunks)),
        )

    counts, rows, distances = np.zeros(chunks, np.int64), _NO_ROWS, _NO_DISTANCES
    pass_over(counts, rows, distances)  # first count, so that each chunk knows where its rows go
    if total := int(counts.sum()):
        rows, distances = np.empty(total, np.int64), np.empty(total, np.uint16)
        pass_over(np.cumsum(counts) - counts, rows, distances)
    return rows, distances


_NO_ROWS, _NO_DISTANCES = np.empty(0, np.int64), np.empty(0, np.uint16)
_NO_WORDS = np.zeros(0, np.uint64)


def _words(codes: UInt8Array) -> Words:
    """Return codes (N, bytes) as whole words (N, W), the last one padded with zeros."""
    padded = np.zeros((len(codes), -(-codes.shape[1] // 8) * 8), np.uint8)
    padded[:, : codes.shape[1]] = codes
    return padded.view(np.uint64)


def _place(codes: UInt8Array) -> tuple[int, int, int]:
    """Return address, rows and bytes of a row: one compiled function takes any array."""
    return codes.ctypes.data, codes.shape[0], codes.shape[1]


def _together(work: Callable[[int], None], workers: int) -> None:
    """Run work(0) here and work(1..) in threads that sleep, not spin, when there is nothing to do.

    A helper that no core was free for is called off: the others have taken its chunks.
    """
    global _pool
    if workers > 1 and (_pool is None or _pool._max_workers < workers - 1):
        _pool = ThreadPoolExecutor(max(workers, os.cpu_count() or 1), "fgdeploy-scan")
    pool = _pool
    helpers = [pool.submit(work, number) for number in range(1, workers)] if pool else []
    try:
        work(0)
    finally:
        for helper in helpers:
            helper.cancel()
    for helper in helpers:
        if not helper.cancelled():
            helper.result()


_compile: Callable[..., Any] = numba.njit(nogil=True, cache=True, boundscheck=False)


@_compile
def _word(codes: int, width: int, row: int, word: int) -> Any:
    """Return word `word` of a code, zeros behind its last byte; reads no byte outside the codes."""
    begin, left = codes + row * width + 8 * word, width - 8 * word
    if left >= 8:
        return load(begin)
    if begin + left - 8 >= codes:  # the 8 bytes that end where the code ends
        return load(begin + left - 8) >> np.uint64(8 * (8 - left))
    value = np.uint64(0)
    for index in range(left):
        value |= load_byte(begin + index) << np.uint64(8 * index)
    return value


@_compile
def _gather(
    codes: int, width: int, first: int, last: int, scratch: int, apart: int, shape: Any
) -> None:
    """Lay the codes of rows first..last out by word: what vectors need, and aligned to them."""
    if width == 8:  # a plain copy, which the compiler makes a fast one
        for row in range(last - first):
            store(scratch + 8 * row, load(codes + 8 * (first + row)))
        return
    for word in range(len(shape)):
        for row in range(first, last):
            store(scratch + word * apart + 8 * (row - first), _word(codes, width, row, word))


@_compile
def _admitted(bitmap: Any, row: int, rows: int) -> Any:
    """Return which of the 64 rows from `row` on exist and are allowed."""
    bits = ~np.uint64(0)
    if rows - row < 64:
        bits >>= np.uint64(64 - (rows - row))
    if len(bitmap):
        bits &= bitmap[row >> 6]
    return bits


@_compile
def _none_admitted(bitmap: Any, first: int, last: int) -> bool:
    if len(bitmap) == 0:
        return False
    return not bitmap[first >> 6 : (last + 63) >> 6].any()


@_compile
def _distance(place: int, apart: int, query: int, row: int, shape: Any) -> Any:
    total = np.int64(0)
    for word in range(len(shape)):
        code = load(place + word * apart + 8 * row)
        total += np.int64(popcount(code ^ load(query + 8 * word)))
    return total


@_compile
def _block_rows(words: int) -> int:
    return max(_STRETCH, _L1_WORDS // words // _STRETCH * _STRETCH)


@_compile
def _scan(
    codes: int, rows: int, width: int, queries: Any, query_place: int, bitmap: Any, k: int,
    ticket: Any, keys: Any, held: Any, shape: Any,
) -> None:  # fmt: skip
    """Take chunks until none is left; leave at most k keys of each query, in ascending order."""
    words, count = len(shape), len(queries)
    histogram = np.zeros((count, 64 * words + 2), np.int64)
    limit = np.full(count, 64 * words + 1, np.int64)  # codes at this distance are of no use
    below = np.zeros(count, np.int64)  # accepted codes nearer than the limit
    block = _block_rows(words)
    buffer = np.empty(words * block + 8, np.uint64)
    scratch = (buffer.ctypes.data + 63) & ~63
    while True:
        chunk = take_ticket(ticket) * CHUNK
        if chunk >= rows:
            break
        for first in range(chunk, min(chunk + CHUNK, rows), block):
            last = min(first + block, rows)
            if _none_admitted(bitmap, first, last):
                continue
            # One query on codes that are words already reads them where they lie.
            place, apart = codes + 8 * first, 0
            if width != 8 or last - first < block or (count > 1 and codes & 63):
                place, apart = scratch, 8 * block
                _gather(codes, width, first, last, place, apart, shape)
            for number in range(count):
                query = query_place + 8 * words * number
                for at in range(0, last - first, _STRETCH):
                    near = least_distance(place + 8 * at, apart, query, _STRETCH, shape)
                    if near < limit[number]:
                        _visit(
                            place, apart, first, at, rows, number, query, bitmap, k,
                            keys, held, histogram, limit, below, shape,
                        )  # fmt: skip
    for number in range(count):
        _drop(number, k, keys, held, limit, below)


@_compile
def _visit(
    place: int, apart: int, first: int, start: int, rows: int, number: int, query: int,
    bitmap: Any, k: int, keys: Any, held: Any, histogram: Any, limit: Any, below: Any, shape: Any,
) -> None:  # fmt: skip
    """Accept the rows of one stretch that are nearer than the limit, in order."""
    for at in range(start, min(start + _STRETCH, rows - first), 64):
        bits = closer_than(limit[number], place + 8 * at, apart, query, shape)
        bits &= _admitted(bitmap, first + at, rows)
        while bits:
            row = at + np.int64(lowest(bits))
            bits &= bits - np.uint64(1)
            distance = _distance(place, apart, query, row, shape)
            if distance >= limit[number]:  # which has fallen since
                continue
            keys[number, held[number]] = distance << _ROW_BITS | (first + row)
            held[number] += 1
            histogram[number, distance] += 1
            below[number] += 1
            while below[number] >= k:
                limit[number] -= 1
                below[number] -= histogram[number, limit[number]]
            if held[number] == keys.shape[1]:
                _drop(number, k, keys, held, limit, below)


@_compile
def _drop(number: int, k: int, keys: Any, held: Any, limit: Any, below: Any) -> None:
    """Keep the k first keys in order of (distance, row): all below the limit, and some at it."""
    kept, at_limit = 0, k - below[number]
    for index in range(held[number]):
        distance = keys[number, index] >> _ROW_BITS
        if distance > limit[number]:
            continue
        if distance == limit[number]:
            if at_limit <= 0:
                continue
            at_limit -= 1
        keys[number, kept] = keys[number, index]
        kept += 1
    held[number] = kept


@_compile
def _collect(
    codes: int, rows: int, width: int, query: int, bitmap: Any, radius: int, ticket: Any,
    counts: Any, found: Any, distances: Any, fill: bool, shape: Any,
) -> None:  # fmt: skip
    """Count the rows within the radius in each chunk, or write them from counts[chunk] on."""
    words = len(shape)
    block = _block_rows(words)
    buffer = np.empty(words * block + 8, np.uint64)
    scratch = (buffer.ctypes.data + 63) & ~63
    while True:
        number = take_ticket(ticket)
        chunk = number * CHUNK
        if chunk >= rows:
            break
        end = counts[number] if fill else np.int64(0)
        for first in range(chunk, min(chunk + CHUNK, rows), block):
            last = min(first + block, rows)
            if _none_admitted(bitmap, first, last):
                continue
            _gather(codes, width, first, last, scratch, 8 * block, shape)
            for at in range(0, last - first, 64):
                bits = closer_than(radius + 1, scratch + 8 * at, 8 * block, query, shape)
                bits &= _admitted(bitmap, first + at, rows)
                if not fill:
                    end += np.int64(popcount(bits))
                    continue
                while bits:
                    row = at + np.int64(lowest(bits))
                    bits &= bits - np.uint64(1)
                    found[end] = first + row
                    distances[end] = _distance(scratch, 8 * block, query, row, shape)
                    end += 1
        if not fill:
            counts[number] = end
