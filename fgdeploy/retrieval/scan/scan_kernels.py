"""The compiled loops of the exact scan: what each thread runs, without Python's lock.

Codes, queries and scratch memory are given as addresses, so that one compiled function takes any
array. `shape` is a tuple of W zeros, for codes of W words: the compiler sees W, not the zeros.

What an address points at belongs to the caller. Numba frees an array after the last line that names
it, also if its address is still in use: no function here takes the address of an array it made.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
from numba.extending import register_jitable

from fgdeploy.retrieval.scan import bitslice, simd
from fgdeploy.retrieval.scan.bitslice import (
    BLOCK,
    HEAD_LIMIT,
    any_closer,
    perhaps_closer,
    scratch_words,
    slice_block,
    spread,
)
from fgdeploy.retrieval.scan.simd import (
    STEP,
    closer_than,
    lay_out,
    least_distance,
    load,
    load_byte,
    popcount,
    prefetch,
    store,
    take_ticket,
)
from fgdeploy.retrieval.scan.simd import trailing_zeros as lowest

ROW_BITS = 44  # a key is distance << ROW_BITS | row
_L1_WORDS = 2048  # 8-byte words of a block, so that it and what is read fit the first cache

assert BLOCK // 2 % STEP == 0 and STEP % 64 == 0


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function when it is first called; keep the machine code for other processes.

    Numba's cache knows a function by name and looks for changes in its file only. What the
    functions here are made of lies in two more, so the name holds a digest of these.
    """
    function.__qualname__ += f"_{_SOURCES}"
    return numba.njit(nogil=True, boundscheck=False, cache=_MAY_CACHE)(function)


def _may_cache() -> bool:
    """Tell whether Numba's cache can lie where NUMBA_CACHE_DIR says, or beside this file.

    Else Numba would write to the home folder: then each process compiles for itself.
    """
    folder = Path(numba.config.CACHE_DIR or Path(__file__).parent / "__pycache__")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _digest(*modules: ModuleType) -> str:
    """Return eight letters that change with the source of any of these modules."""
    return sha256("".join(map(inspect.getsource, modules)).encode()).hexdigest()[:8]


_SOURCES, _MAY_CACHE = _digest(bitslice, simd), _may_cache()


@compiled
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


@compiled
def _gather(
    codes: int, rows: int, width: int, first: int, last: int, scratch: int, apart: int, shape: Any
) -> None:
    """Lay the codes of rows first..last out by word: what vectors need, and aligned to them."""
    # Vectors read past the codes that they lay out, but not past the last one of all.
    room = (rows - first) * width - 64 * len(shape)
    groups = min((last - first) // 8, room // (8 * width) + 1) if room >= 0 else 0
    done = lay_out(codes + first * width, width, groups, scratch, apart, shape)
    for word in range(len(shape)):
        for row in range(first + done, last):
            store(scratch + word * apart + 8 * (row - first), _word(codes, width, row, word))


@compiled
def _admitted(bitmap: Any, row: int, rows: int) -> Any:
    """Return which of the 64 rows from `row` on exist and are allowed."""
    bits = ~np.uint64(0)
    if row >= rows:
        return np.uint64(0)
    if rows - row < 64:
        bits >>= np.uint64(64 - (rows - row))
    if len(bitmap):
        bits &= bitmap[row >> 6]
    return bits


@compiled
def _none_admitted(bitmap: Any, first: int, last: int) -> bool:
    if len(bitmap) == 0:
        return False
    return not bitmap[first >> 6 : (last + 63) >> 6].any()


@compiled
def _distance(place: int, apart: int, query: int, row: int, shape: Any) -> Any:
    total = np.int64(0)
    for word in range(len(shape)):
        code = load(place + word * apart + 8 * row)
        total += np.int64(popcount(code ^ load(query + 8 * word)))
    return total


@register_jitable
def _stretch_rows(words: int) -> int:
    """Return the rows between two looks at the limit: a multiple of STEP."""
    return BLOCK if words <= 4 else BLOCK // 2


@register_jitable
def _block_rows(words: int) -> int:
    """Return the rows that all queries pass over before the next ones: whole stretches."""
    stretch: int = _stretch_rows(words)
    return max(stretch, _L1_WORDS // words // stretch * stretch)


def memory_words(words: int) -> int:
    """Return the 8-byte words of scratch memory that `scan` and `collect` need."""
    return words * int(_block_rows(words))


def memory_words_many(words: int) -> int:
    """Return the 8-byte words of scratch memory that `scan_many` needs."""
    return words * BLOCK + int(scratch_words(words)) + 2 * BLOCK // 64


@compiled
def scan(
    codes: int, rows: int, width: int, queries: int, bitmap: Any, k: int,
    chunk_rows: int, ticket: Any, keys: Any, held: Any, scratch: int, shape: Any,
) -> None:  # fmt: skip
    """Take chunks until none is left; leave at most k keys of each query, in ascending order.

    scratch: `memory_words` of this thread's own, from a multiple of 64 on.
    """
    words, count = len(shape), len(keys)
    histogram = np.zeros((count, 64 * words + 2), np.int64)
    limit = np.full(count, 64 * words + 1, np.int64)  # codes at this distance are of no use
    below = np.zeros(count, np.int64)  # accepted codes nearer than the limit
    block, stretch = _block_rows(words), _stretch_rows(words)
    while True:
        chunk = take_ticket(ticket) * chunk_rows
        if chunk >= rows:
            break
        for first in range(chunk, min(chunk + chunk_rows, rows), block):
            last = min(first + block, rows)
            if _none_admitted(bitmap, first, last):
                continue
            # One query on codes that are words already reads them where they lie.
            place, apart = codes + 8 * first, 0
            if width != 8 or last - first < block or (count > 1 and codes & 63):
                place, apart = scratch, 8 * block
                _gather(codes, rows, width, first, last, place, apart, shape)
            for number in range(count):
                query = queries + 8 * words * number
                for at in range(0, last - first, stretch):
                    near = least_distance(place + 8 * at, apart, query, stretch, shape)
                    if near < limit[number]:
                        _visit(
                            place, apart, first, at, stretch, rows, number, query, bitmap, k,
                            keys, held, histogram, limit, below, shape,
                        )  # fmt: skip
    for number in range(count):
        _drop(number, k, keys, held, limit, below)


@compiled
def scan_many(
    codes: int, rows: int, width: int, queries: int, bitmap: Any, k: int,
    chunk_rows: int, ticket: Any, keys: Any, held: Any, scratch: int, offsets: Any, limits: Any,
    shape: Any,
) -> None:  # fmt: skip
    """Do what `scan` does, on bit planes: for many queries. offsets, limits: see `bitslice`.

    scratch: `memory_words_many` of this thread's own, from a multiple of 64 on.
    """
    words, count = len(shape), len(keys)
    histogram = np.zeros((count, 64 * words + 2), np.int64)
    limit = np.full(count, 64 * words + 1, np.int64)
    below = np.zeros(count, np.int64)
    table = scratch + 8 * words * BLOCK
    plane = table + 8 * scratch_words(words)  # the admitted rows in the order of a plane
    bits = plane + BLOCK // 8
    lines = -(-BLOCK * width // (64 * count))  # of the next block that each query fetches
    while True:
        chunk = take_ticket(ticket) * chunk_rows
        if chunk >= rows:
            break
        for first in range(chunk, min(chunk + chunk_rows, rows), BLOCK):
            last = min(first + BLOCK, rows)
            if _none_admitted(bitmap, first, last):
                continue
            for at in range(0, BLOCK, 64):
                store(bits + at // 8, _admitted(bitmap, first + at, rows))
            spread(bits, plane)
            place = codes + 8 * first
            if width != 8 or last - first < BLOCK:
                place = scratch
                _gather(codes, rows, width, first, last, place, 8 * BLOCK, shape)
            slice_block(place, 8 * BLOCK, table, shape)
            ahead = codes + last * width
            for number in range(count):
                for _ in range(lines):
                    prefetch(ahead)
                    ahead += 64
                offset = offsets.ctypes.data + 2 * offsets.shape[1] * number
                bound = limits.ctypes.data + 8 * limits.shape[1] * limit[number]
                if limit[number] == 0:
                    continue
                headed = words == 1 and limit[number] <= HEAD_LIMIT
                if headed and not perhaps_closer(table, offset, bound, plane):
                    continue
                if any_closer(table, offset, bound, plane, shape):
                    _visit(
                        place, 8 * BLOCK, first, 0, BLOCK, rows, number,
                        queries + 8 * words * number, bitmap, k,
                        keys, held, histogram, limit, below, shape,
                    )  # fmt: skip
    for number in range(count):
        _drop(number, k, keys, held, limit, below)


@compiled
def _visit(
    place: int, apart: int, first: int, start: int, stretch: int, rows: int, number: int,
    query: int, bitmap: Any, k: int, keys: Any, held: Any, histogram: Any, limit: Any,
    below: Any, shape: Any,
) -> None:  # fmt: skip
    """Accept the rows of one stretch that are nearer than the limit, in order."""
    for at in range(start, min(start + stretch, rows - first), 64):
        bits = closer_than(limit[number], place + 8 * at, apart, query, shape)
        bits &= _admitted(bitmap, first + at, rows)
        while bits:
            row = at + np.int64(lowest(bits))
            bits &= bits - np.uint64(1)
            distance = _distance(place, apart, query, row, shape)
            if distance >= limit[number]:  # which has fallen since
                continue
            keys[number, held[number]] = distance << ROW_BITS | (first + row)
            held[number] += 1
            histogram[number, distance] += 1
            below[number] += 1
            while below[number] >= k:
                limit[number] -= 1
                below[number] -= histogram[number, limit[number]]
            if held[number] == keys.shape[1]:
                _drop(number, k, keys, held, limit, below)


@compiled
def _drop(number: int, k: int, keys: Any, held: Any, limit: Any, below: Any) -> None:
    """Keep the k first keys in order of (distance, row): all below the limit, and some at it."""
    kept, at_limit = 0, k - below[number]
    for index in range(held[number]):
        distance = keys[number, index] >> ROW_BITS
        if distance > limit[number]:
            continue
        if distance == limit[number]:
            if at_limit <= 0:
                continue
            at_limit -= 1
        keys[number, kept] = keys[number, index]
        kept += 1
    held[number] = kept


@compiled
def collect(
    codes: int, rows: int, width: int, query: int, bitmap: Any, radius: int,
    chunk_rows: int, ticket: Any, counts: Any, found: Any, distances: Any, fill: bool,
    scratch: int, shape: Any,
) -> None:  # fmt: skip
    """Count the rows within the radius in each chunk, or write them from counts[chunk] on."""
    words = len(shape)
    block = _block_rows(words)
    while True:
        number = take_ticket(ticket)
        chunk = number * chunk_rows
        if chunk >= rows:
            break
        end = counts[number] if fill else np.int64(0)
        for first in range(chunk, min(chunk + chunk_rows, rows), block):
            last = min(first + block, rows)
            if _none_admitted(bitmap, first, last):
                continue
            _gather(codes, rows, width, first, last, scratch, 8 * block, shape)
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
