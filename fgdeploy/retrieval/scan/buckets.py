"""Exact search of short codes by bucket: up to 16 bits there are at most 65,536 different codes.

A query takes microseconds, however many codes there are; sorting them costs as much as some
hundred scans.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import UInt8Array, hamming

MAX_BYTES = 2


class Buckets:
    """Rows of codes (N, 1 or 2 bytes) sorted by code; costs one sort of N and 8 bytes a row."""

    def __init__(self, codes: UInt8Array) -> None:
        values = _numbers(codes)
        self._order = np.argsort(values, kind="stable").astype(np.int64)
        self._counts = np.bincount(values, minlength=256 ** codes.shape[1])
        self._starts = np.cumsum(self._counts) - self._counts
        self._masks = _masks(codes.shape[1])

    def nearest(
        self, queries: UInt8Array, k: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]:
        """Return rows and distances (Q, k) by (distance, row), for k of at most N."""
        rows = np.empty((len(queries), k), np.int64)
        distances = np.empty((len(queries), k), np.uint16)
        for number, query in enumerate(_numbers(queries)):
            filled = 0
            for gap, masks in enumerate(self._masks):
                if filled == k:
                    break
                # Rows of a bucket are in order: no more than the first ones can be needed.
                level = self._rows_of(masks ^ query, k - filled)
                rows[number, filled : filled + len(level)] = level
                distances[number, filled : filled + len(level)] = gap
                filled += len(level)
        return rows, distances

    def _rows_of(self, values: npt.NDArray[np.uint16], most: int) -> npt.NDArray[np.int64]:
        """Return the first `most` rows, ascending, of all that have one of these codes."""
        counts = np.minimum(self._counts[values], most)
        ends = np.cumsum(counts)
        within = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
        level: npt.NDArray[np.int64] = self._order[np.repeat(self._starts[values], counts) + within]
        if len(level) > most:
            level = np.partition(level, most - 1)[:most]
        level.sort()
        return level


@functools.cache
def _masks(width: int) -> list[npt.NDArray[np.uint16]]:
    """Return for each distance what two codes (of `width` bytes) at it can differ in."""
    every = np.arange(256**width, dtype=f">u{width}")
    gaps = hamming(np.zeros((1, width), np.uint8), every.view(np.uint8).reshape(-1, width))[0]
    return [np.flatnonzero(gaps == gap).astype(np.uint16) for gap in range(8 * width + 1)]


def _numbers(codes: UInt8Array) -> npt.NDArray[np.uint16]:
    return np.ascontiguousarray(codes).view(f">u{codes.shape[1]}")[:, 0].astype(np.uint16)
