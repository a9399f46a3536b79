"""Where the relevant items stand in each query's ranking: one pass over all distances.

The ranking is (Hamming distance, position in the gallery). Queries are taken in chunks that fit a
cache and are ranked by a stable sort, which NumPy does by radix for 8 and 16 bits; everything else
touches relevant items or counts per distance only. Results do not depend on chunks or threads.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import UInt8Array, hamming

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
ClassIndices = npt.NDArray[np.unsignedinteger]

_CHUNK_CELLS = 1 << 20  # distances that one thread holds at once, about 30 MB with their order
_MAX_THREADS = 8


@dataclass(frozen=True)
class Ranked:
    """What is known of each of Q queries, and of all of them together at each distance.

    average_precision, tie_aware: float64 (Q,), 0 without relevant items. relevant: (Q,), how many
    there are. first: (Q,), the rank of the nearest one from 1, or 0. hits: (Q, cuts), relevant
    items among the first k. retrieved, found: (bits + 1,), items and relevant items at a distance.
    """

    average_precision: FloatArray
    tie_aware: FloatArray
    relevant: IntArray
    first: IntArray
    hits: IntArray
    retrieved: IntArray
    found: IntArray


@dataclass(frozen=True)
class _Task:
    """The whole problem, as every chunk of queries sees it."""

    query_codes: UInt8Array
    query_classes: ClassIndices
    gallery_codes: UInt8Array
    gallery_classes: ClassIndices
    same_set: bool
    cuts: Sequence[int]
    levels: int
    harmonic: FloatArray


def rank(
    query_codes: UInt8Array,
    query_classes: ClassIndices,
    gallery_codes: UInt8Array,
    gallery_classes: ClassIndices,
    same_set: bool,
    cuts: Sequence[int],
    bits: int,
    threads: int | None = None,
) -> Ranked:
    """Rank the gallery (N, bytes) for every query (Q, bytes); classes are unsigned (Q,) and (N,).

    same_set: query i is gallery item i and left out of its own ranking. cuts: the k of `hits`.
    bits: no distance is larger. threads: None is one for each core, up to 8.
    """
    queries, gallery = len(query_codes), len(gallery_codes)
    task = _Task(
        query_codes,
        query_classes,
        gallery_codes,
        gallery_classes,
        same_set,
        cuts,
        bits + 1,
        np.concatenate(([0.0], np.cumsum(1.0 / np.arange(1, gallery + 1)))),
    )
    step = max(1, _CHUNK_CELLS // max(gallery, task.levels))
    chunks = [range(start, min(start + step, queries)) for start in range(0, queries, step)]
    workers = min(threads or os.cpu_count() or 1, _MAX_THREADS, len(chunks))
    if workers <= 1:
        return _join([_rank_chunk(task, chunk) for chunk in chunks])
    with ThreadPoolExecutor(workers, thread_name_prefix="rank") as pool:
        try:
            return _join(list(pool.map(lambda chunk: _rank_chunk(task, chunk), chunks)))
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C need not wait for all of them


def _join(parts: Sequence[Ranked]) -> Ranked:
    return Ranked(
        np.concatenate([part.average_precision for part in parts]),
        np.concatenate([part.tie_aware for part in parts]),
        np.concatenate([part.relevant for part in parts]),
        np.concatenate([part.first for part in parts]),
        np.concatenate([part.hits for part in parts]),
        np.sum([part.retrieved for part in parts], axis=0),
        np.sum([part.found for part in parts], axis=0),
    )


def _rank_chunk(task: _Task, chunk: range) -> Ranked:
    rows, levels = len(chunk), task.levels
    # 8 bits where that leaves one value above all distances, for the query itself
    narrow = np.uint8 if levels <= 255 else np.uint16
    distances = hamming(task.query_codes[chunk.start : chunk.stop], task.gallery_codes)
    distances = distances.astype(narrow, copy=False)
    shift = levels * np.arange(rows, dtype=np.int64)
    retrieved = _count(distances + shift[:, None], rows, levels)
    count = distances.shape[1]
    if task.same_set:
        each, own = np.arange(rows), np.arange(chunk.start, chunk.stop)
        retrieved[each, distances[each, own]] -= 1
        distances[each, own] = np.iinfo(narrow).max
        count -= 1  # it now stands last

    order = np.argsort(distances, axis=1, kind="stable")[:, :count]
    wanted = task.query_classes[chunk.start : chunk.stop, None]
    # One entry for each relevant item, row by row, nearest first
    row, column = np.divmod(np.flatnonzero(task.gallery_classes[order] == wanted), count)
    relevant = np.bincount(row, minlength=rows)
    start = np.cumsum(relevant) - relevant
    ranks = column + 1
    number = np.arange(len(row)) - start[row] + 1
    first = np.zeros(rows, dtype=np.int64)
    first[relevant > 0] = ranks[start[relevant > 0]]
    hits = [np.bincount(row[ranks <= k], minlength=rows) for k in task.cuts]
    found = _count(shift[row] + distances[row, order[row, column]], rows, levels)
    return Ranked(
        average_precision=_sum_rows(row, number / ranks, rows) / np.maximum(relevant, 1),
        tie_aware=_tie_aware(retrieved, found, task.harmonic) / np.maximum(relevant, 1),
        relevant=relevant,
        first=first,
        hits=np.stack(hits, axis=1) if hits else np.zeros((rows, 0), np.int64),
        retrieved=retrieved.sum(axis=0),
        found=found.sum(axis=0),
    )


def _count(cells: IntArray, rows: int, levels: int) -> IntArray:
    """Return (rows, levels): how often row * levels + level is among the cells."""
    counts = np.bincount(cells.ravel(), minlength=rows * levels)
    return np.asarray(counts.reshape(rows, levels), dtype=np.int64)


def _sum_rows(row: IntArray, values: FloatArray, rows: int) -> FloatArray:
    # Adds in order, whatever the chunk: so results do not depend on its size
    return np.asarray(np.bincount(row, weights=values, minlength=rows), dtype=np.float64)


def _tie_aware(retrieved: IntArray, found: IntArray, harmonic: FloatArray) -> FloatArray:
    """Return the expected sum of precisions at relevant items, ties in every order alike, (rows,).

    retrieved, found: (rows, levels), items and relevant items at each distance; harmonic: H(0..N).
    In a group of n tied items with r relevant, after N items with R relevant, position i of the
    group is relevant with chance r/n, and then R + (i-1)(r-1)/(n-1) + 1 relevant items stand up to
    it (McSherry & Najork, ECIR 2008). Summing over i leaves sum 1/(N+i) = H(N+n) - H(N).
    """
    row, level = np.nonzero(found)
    size, hits = retrieved[row, level], found[row, level]
    before = np.cumsum(retrieved, axis=1)[row, level] - size
    seen = np.cumsum(found, axis=1)[row, level] - hits
    span = harmonic[before + size] - harmonic[before]
    slope = np.where(size > 1, (hits - 1) / np.maximum(size - 1, 1), 0.0)
    growth = size - (before + 1) * span  # sum over i of (i-1)/(N+i)
    return _sum_rows(row, hits / size * ((seen + 1) * span + slope * growth), len(found))
