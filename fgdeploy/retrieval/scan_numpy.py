"""The exact scan with NumPy alone: what runs where numba is missing, or the gallery is small."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fgdeploy.codes import UInt8Array, hamming

_CELLS = 1 << 22  # distances held at once
_ROW_BITS = 44  # a key is distance << _ROW_BITS | row: no two are equal, any selection is right


def nearest(
    queries: UInt8Array, codes: UInt8Array, k: int, allowed: npt.NDArray[np.bool_] | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]:
    """Return rows and distances (Q, k) of the k nearest; `allowed` (N,) admits at least k rows."""
    tile = max(1, min(len(queries), _CELLS // max(1, min(len(codes), _CELLS))))
    found = [
        _nearest_keys(queries[start : start + tile], codes, k, allowed, max(1, _CELLS // tile))
        for start in range(0, len(queries), tile)
    ]
    keys = np.concatenate(found) if found else np.empty((0, k), np.int64)
    return keys & ((1 << _ROW_BITS) - 1), (keys >> _ROW_BITS).astype(np.uint16)


def _nearest_keys(
    queries: UInt8Array,
    codes: UInt8Array,
    k: int,
    allowed: npt.NDArray[np.bool_] | None,
    step: int,
) -> npt.NDArray[np.int64]:
    best = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(codes), step):
        rows = np.arange(start, min(start + step, len(codes)))
        if allowed is not None:
            rows = rows[allowed[rows]]
        part = codes[start : start + step] if allowed is None else codes[rows]
        keys = hamming(queries, part).astype(np.int64) << _ROW_BITS | rows
        best = np.concatenate((best, keys), axis=1)
        if best.shape[1] > k:
            best = np.partition(best, k - 1, axis=1)[:, :k]
    best.sort(axis=1)
    return best


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
