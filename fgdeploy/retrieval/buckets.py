"""Exact search of short codes by bucket: up to 16 bits there are at most 65,536 different codes.

Far faster than NumPy's scan for several queries; the compiled scan is faster still.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fgdeploy.codes import UInt8Array, hamming

MAX_BYTES = 2


class Buckets:
    """Rows of codes (N, 1 or 2 bytes) sorted by code; costs one sort of N and 8 bytes a row."""

    def __init__(self, codes: UInt8Array) -> None:
        values = _numbers(codes)
        self._order = np.argsort(values, kind="stable").astype(np.int64)
        self._counts = np.bincount(values, minlength=256 ** codes.shape[1])
        self._starts = np.cumsum(self._counts) - self._counts
        self._all = np.arange(256 ** codes.shape[1], dtype=f">u{codes.shape[1]}")
        self._every = self._all.view(np.uint8).reshape(-1, codes.shape[1])

    def nearest(
        self, queries: UInt8Array, k: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]:
        """Return rows and distances (Q, k) by (distance, row), for k of at most N."""
        rows = np.empty((len(queries), k), np.int64)
        distances = np.empty((len(queries), k), np.uint16)
        for number, query in enumerate(queries):
            gaps = hamming(query[None], self._every)[0]
            filled = 0
            for gap in range(8 * queries.shape[1] + 1):
                if filled == k:
                    break
                # Rows of a bucket are in order: no more than the first ones can be needed.
                level = self._rows_of(np.flatnonzero(gaps == gap), k - filled)
                rows[number, filled : filled + len(level)] = level
                distances[number, filled : filled + len(level)] = gap
                filled += len(level)
        return rows, distances

    def _rows_of(self, values: npt.NDArray[np.intp], most: int) -> npt.NDArray[np.int64]:
        """Return the first `most` rows, ascending, of all that have one of these codes."""
        counts = np.minimum(self._counts[values], most)
        ends = np.cumsum(counts)
        within = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
        level: npt.NDArray[np.int64] = self._order[np.repeat(self._starts[values], counts) + within]
        if len(level) > most:
            level = np.partition(level, most - 1)[:most]
        level.sort()
        return level


def _numbers(codes: UInt8Array) -> npt.NDArray[np.uint16]:
    return np.ascontiguousarray(codes).view(f">u{codes.shape[1]}")[:, 0].astype(np.uint16)
