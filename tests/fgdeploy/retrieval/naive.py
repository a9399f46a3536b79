"""What the tests of the search compare with: all distances, sorted, without any cleverness."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import UInt8Array

Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]


def distances(queries: UInt8Array, codes: UInt8Array) -> npt.NDArray[np.int64]:
    """Return how many bits differ (Q, N): those that only one of the two has, in each order."""
    left, right = (np.unpackbits(part, axis=1).astype(np.float32) for part in (queries, codes))
    return np.asarray(left @ (1 - right).T + (1 - left) @ right.T, np.int64)


def search(
    queries: UInt8Array, codes: UInt8Array, k: int, allowed: npt.NDArray[np.bool_] | None = None
) -> Found:
    """Return what `search_codes` must: rows and distances (Q, min(k, allowed rows))."""
    rows = np.arange(len(codes)) if allowed is None else np.flatnonzero(allowed)
    gaps = distances(queries, codes[rows])
    order = np.argsort(gaps, axis=1, kind="stable")[:, :k]
    return rows[order], np.take_along_axis(gaps, order, axis=1).astype(np.uint16)


def radius(
    query: UInt8Array, codes: UInt8Array, most: int, allowed: npt.NDArray[np.bool_] | None = None
) -> Found:
    """Return what `search_radius` must."""
    rows, gaps = search(query[None], codes, len(codes), allowed)
    return rows[0, gaps[0] <= most], gaps[0, gaps[0] <= most]


def draw(
    seed: int, queries: int, count: int, width: int, different: int | None = None
) -> tuple[UInt8Array, UInt8Array]:
    """Return random queries and codes, with at most `different` values, so with many ties."""
    chooser = np.random.default_rng(seed)
    if different is None:
        drawn = chooser.integers(0, 256, (queries + count, width), dtype=np.uint8)
    else:
        palette = chooser.integers(0, 256, (different, width), dtype=np.uint8)
        drawn = palette[chooser.integers(0, different, queries + count)]
    return drawn[:queries], drawn[queries:]


def same(found: Found, expected: Found) -> None:
    """Check shapes, types and every row and distance."""
    for part, other, kind in zip(found, expected, (np.int64, np.uint16), strict=True):
        assert part.dtype == kind
        np.testing.assert_array_equal(part, other)
