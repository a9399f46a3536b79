"""The exact scan with NumPy alone: what runs where numba is missing, or the gallery is small."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import UInt8Array, hamming

_CELLS = 1 << 18  # distances held at once: they stay in the cache
_ROW_BITS = 44  # a key is distance << _ROW_BITS | row: no two are equal, any selection is right


def nearest(
    queries: UInt8Array, codes: UInt8Array, k: int, allowed: npt.NDArray[np.bool_] | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]:
    """Return rows and distances (Q, k) of the k nearest; `allowed` (N,) admits at least k rows."""
    tile = max(1, min(len(queries), _CELLS // max(1, min(len(codes), _CELLS))))
    keys = np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), tile):
        part = queries[start : start + tile]
        keys[start : start + tile] = _nearest_keys(part, codes, k, allowed, max(1, _CELLS // tile))
    return keys & ((1 << _ROW_BITS) - 1), (keys >> _ROW_BITS).astype(np.uint16)


def _nearest_keys(
    queries: UInt8Array,
    codes: UInt8Array,
    k: int,
    allowed: npt.NDArray[np.bool_] | None,
    step: int,
) -> npt.NDArray[np.int64]:
    best = [np.empty(0, np.int64) for _ in queries]
    limits = np.full(len(queries), np.iinfo(np.uint16).max, np.uint16)  # no use from there on
    for start in range(0, len(codes), step):
        distances = hamming(queries, codes[start : start + step])
        near = distances < limits[:, None]
        if allowed is not None:
            near &= allowed[start : start + step]
        for number in np.flatnonzero(near.any(axis=1)):
            rows = _few(np.flatnonzero(near[number]), distances[number], k)
            keys = distances[number, rows].astype(np.int64) << _ROW_BITS | (rows + start)
            keys = np.concatenate((best[number], keys))
            if len(keys) >= k:
                keys = np.partition(keys, k - 1)[:k]
                limits[number] = keys[k - 1] >> _ROW_BITS
            best[number] = keys
    return np.sort(np.stack(best), axis=1)


def _few(
    rows: npt.NDArray[np.intp], distances: npt.NDArray[np.uint16], k: int
) -> npt.NDArray[np.intp]:
    """Leave out rows that cannot be among the k nearest of all, by a histogram of distances."""
    if len(rows) <= 2 * k:
        return rows
    found = distances[rows]
    last = int(np.searchsorted(np.cumsum(np.bincount(found)), k))  # the k-th distance
    return rows[found <= last]


def within(
    query: UInt8Array, codes: UInt8Array, radius: int, allowed: npt.NDArray[np.bool_] | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]:
    """Return all rows within `radius` of one query (bytes,), ascending, and their distances."""
    rows, distances = [np.empty(0, np.int64)], [np.empty(0, np.uint16)]
    for start in range(0, len(codes), _CELLS):
        found = hamming(query[None], codes[start : start + _CELLS])[0]
        near = found <= radius
        if allowed is not None:
            near &= allowed[start : start + _CELLS]
        rows.append(np.flatnonzero(near) + start)
        distances.append(found[near])
    return np.concatenate(rows), np.concatenate(distances)
