"""Exact Hamming search over packed codes; order is always (distance, row)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fgdeploy.codes import UInt8Array, hamming
from fgdeploy.errors import UsageError

_CHUNK_CELLS = 1 << 23  # distances held at once


def search_codes(
    queries: UInt8Array, codes: UInt8Array, k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]:
    """Return the min(k, N) nearest rows of `codes` (N, bytes) for each query (Q, bytes).

    Returns rows int64 and distances uint16, both (Q, min(k, N)), ordered by (distance, row).
    Raises UsageError for k below 1, or codes that are not uint8 of one width.
    """
    _check(queries, codes)
    if not isinstance(k, (int, np.integer)) or k < 1:
        raise UsageError(f"k is {k}; ask for at least one result")
    top = min(k, len(codes))
    rows = np.empty((len(queries), top), dtype=np.int64)
    distances = np.empty((len(queries), top), dtype=np.uint16)
    if top == 0:
        return rows, distances
    step = max(1, _CHUNK_CELLS // len(codes))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        found = hamming(queries[part], codes)
        # Distance and row in one number: no two are equal, so any selection is the right one.
        keys = found.astype(np.int64) * len(codes) + np.arange(len(codes))
        if top < len(codes):
            keys = np.partition(keys, top - 1, axis=1)[:, :top]
        keys.sort(axis=1)
        rows[part] = keys % len(codes)
        distances[part] = keys // len(codes)
    return rows, distances


def search_radius(
    query: UInt8Array, codes: UInt8Array, radius: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]:
    """Return the rows of `codes` within `radius` of one query (bytes,), in the same order."""
    _check(query[None], codes)
    if radius < 0:
        raise UsageError(f"radius is {radius}; it cannot be negative")
    found = hamming(query[None], codes)[0]
    rows = np.flatnonzero(found <= radius)
    order = np.argsort(found[rows], kind="stable")
    return rows[order], found[rows][order]


def _check(queries: UInt8Array, codes: UInt8Array) -> None:
    for name, array in (("queries", queries), ("codes", codes)):
        if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != 2:
            got = getattr(array, "dtype", type(array).__name__), getattr(array, "shape", "")
            raise UsageError(
                f"{name}: expected packed codes uint8 (N, bytes), got {got[0]} {got[1]}"
            )
    if queries.shape[1] != codes.shape[1]:
        raise UsageError(
            f"queries have {queries.shape[1]} bytes, codes {codes.shape[1]}; "
            "hash both with the same model"
        )
