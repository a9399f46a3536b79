"""Exact multi-index hashing: the k nearest without reading all codes (Norouzi et al., CVPR 2012).

A code is cut into parts of 21 or 22 bits; a table lists the rows by the value of each part. Two
codes within distance d have a part within d // parts of each other, so looking up parts at growing
radius meets every code nearer than parts * (radius + 1): once the k-th distance lies below, it is
proven. Queries for which that takes too many rows are left to the scan.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import UInt8Array
from fgdeploy.retrieval.scan.scan_kernels import ROW_BITS, compiled
from fgdeploy.retrieval.scan.scan_numba import NO_WORDS, Words, as_words, together
from fgdeploy.retrieval.scan.simd import load, popcount, prefetch, take_ticket

_PARTS_OF_WORD = ((0, 22), (22, 21), (43, 21))  # shift and bits
_MOST_RADIUS = 4
_ROWS_SHARE = 256  # a query that has looked at rows / 256 is left to the scan
_AHEAD = 16  # rows from a code's prefetch to its use

Rows = npt.NDArray[np.int32]
Starts = npt.NDArray[np.uint32]


def parts_of(width: int) -> npt.NDArray[np.int64]:
    """Return word, shift, bits and where its starts begin (parts, 4) for codes of `width` bytes."""
    parts, begin = [], 0
    for word in range(width // 8):
        for shift, bits in _PARTS_OF_WORD:
            parts.append((word, shift, bits, begin))
            begin += (1 << bits) + 1
    return np.array(parts, np.int64)


def starts_of(width: int) -> int:
    """Return how many starts all tables together have."""
    return len(_PARTS_OF_WORD) * width // 8 + sum(
        1 << bits for _, bits in _PARTS_OF_WORD for _ in range(width // 8)
    )


def build(codes: UInt8Array, starts: Starts, rows: Rows, threads: int) -> None:
    """Fill starts (starts_of,) and rows (parts, N) for C-contiguous codes (N, 8 or 16)."""
    parts, ticket = parts_of(codes.shape[1]), np.zeros(1, np.int64)
    place = codes.ctypes.data

    def work(_: int) -> None:
        _list_rows(place, codes.shape[1], parts, starts, rows, ticket)

    together(work, min(threads, len(parts)))


def nearest(
    queries: UInt8Array,
    codes: UInt8Array,
    k: int,
    starts: Starts,
    rows: Rows,
    allowed: Words | None,
    threads: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16], npt.NDArray[np.bool_]]:
    """Return rows and distances (Q, k), and for which queries they are proven, others void."""
    words, ticket = as_words(queries), np.zeros(1, np.int64)
    keys, proven = np.zeros((len(queries), k), np.int64), np.zeros(len(queries), np.bool_)
    masks, ends = _masks()
    place, width = codes.ctypes.data, codes.shape[1]
    bitmap = NO_WORDS if allowed is None else allowed

    def work(_: int) -> None:
        _answer(
            words, place, width, parts_of(width), starts, rows, masks, ends, bitmap,
            len(codes) // _ROWS_SHARE, ticket, keys, proven,
        )  # fmt: skip

    together(work, min(threads, len(queries)))
    found = keys & ((1 << ROW_BITS) - 1)
    return found, (keys >> ROW_BITS).astype(np.uint16), proven


@functools.cache
def _masks() -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """Return all 22-bit values by number of set bits, and where each number ends."""
    values = np.arange(1 << max(bits for _, bits in _PARTS_OF_WORD), dtype=np.uint32)
    ones = np.zeros(len(values), np.uint8)
    for bit in range(22):
        ones += (values >> bit & 1).astype(np.uint8)
    groups = [values[ones == number] for number in range(_MOST_RADIUS + 1)]
    return np.concatenate(groups), np.cumsum([0, *map(len, groups)])


@compiled
def _part(word: Any, shift: int, bits: int) -> Any:
    return (word >> np.uint64(shift)) & np.uint64((1 << bits) - 1)


@compiled
def _list_rows(place: int, width: int, parts: Any, starts: Any, rows: Any, ticket: Any) -> None:
    """Sort the rows by the value of one part after another, as a counting sort."""
    while True:
        table = take_ticket(ticket)
        if table >= len(parts):
            break
        word, shift, bits, begin = parts[table]
        values = np.int64(1) << bits
        mine = starts[begin : begin + values + 1]
        mine[:] = 0
        for row in range(rows.shape[1]):
            mine[np.int64(_part(load(place + row * width + 8 * word), shift, bits)) + 1] += 1
        for value in range(values):
            mine[value + 1] += mine[value]
        ends = mine[:values].copy()
        for row in range(rows.shape[1]):
            found = np.int64(_part(load(place + row * width + 8 * word), shift, bits))
            rows[table, ends[found]] = row
            ends[found] += 1


@compiled
def _answer(
    queries: Any, place: int, width: int, parts: Any, starts: Any, rows: Any, masks: Any,
    ends: Any, bitmap: Any, most_rows: int, ticket: Any, keys: Any, proven: Any,
) -> None:  # fmt: skip
    """Take queries until none is left."""
    found = np.empty(max(4096, 2 * keys.shape[1]), np.int64)
    counts = np.empty(8 * width + 2, np.int64)
    while True:
        number = take_ticket(ticket)
        if number >= len(queries):
            break
        proven[number] = _answer_one(
            queries[number], place, width, parts, starts, rows, masks, ends, bitmap,
            most_rows, found, counts, keys[number],
        )  # fmt: skip


@compiled
def _answer_one(
    query: Any, place: int, width: int, parts: Any, starts: Any, rows: Any, masks: Any,
    ends: Any, bitmap: Any, most_rows: int, found: Any, counts: Any, keys: Any,
) -> bool:  # fmt: skip
    """Fill `keys` with the nearest and return True, or return False where the scan is better."""
    k, tables, held, below = len(keys), len(parts), 0, 0
    seen = np.int64(0)
    counts[:] = 0
    limit = len(counts) - 1  # codes at this distance are of no use
    for radius in range(len(ends) - 1):
        for table in range(tables):
            word, shift, bits, begin = parts[table]
            mine = _part(query[word], shift, bits)
            for index in range(ends[radius], ends[radius + 1]):
                if masks[index] >> bits:
                    continue
                at = begin + np.int64(mine ^ np.uint64(masks[index]))
                first, last = np.int64(starts[at]), np.int64(starts[at + 1])
                seen += last - first + 1
                if seen > most_rows:
                    return False
                for entry in range(first, last):
                    if entry + _AHEAD < last:
                        prefetch(place + width * rows[table, entry + _AHEAD])
                    row = np.int64(rows[table, entry])
                    distance = np.int64(0)
                    for w in range(len(query)):
                        distance += np.int64(popcount(load(place + row * width + 8 * w) ^ query[w]))
                    # Rows come in any order: at the limit an earlier row may still be needed.
                    if distance > limit or _met(query, place + row * width, parts, radius, table):
                        continue
                    if len(bitmap) and not bitmap[row >> 6] >> np.uint64(row & 63) & np.uint64(1):
                        continue
                    if held == len(found):
                        found.sort()
                        held = k
                    found[held] = distance << ROW_BITS | row
                    held += 1
                    counts[distance] += 1
                    if distance < limit:
                        below += 1
                        while below >= k:
                            limit -= 1
                            below -= counts[limit]
        if below + counts[limit] >= k and limit < tables * (radius + 1):
            found[:held].sort()
            keys[:] = found[:k]
            return True
    return False


@compiled
def _met(query: Any, code: int, parts: Any, radius: int, table: int) -> bool:
    """Return whether an earlier look-up has met this code."""
    for other in range(len(parts)):
        word, shift, bits, _ = parts[other]
        gap = popcount(_part(load(code + 8 * word) ^ query[word], shift, bits))
        if gap < radius or (gap == radius and other < table):
            return True
    return False
