"""The exact scan on an NVIDIA GPU, by FAISS's `GpuIndexBinaryFlat`.

FAISS finds the k smallest distances and promises no order among equal ones, nor which of them it
returns where they reach beyond k. So more is fetched until the k-th distance is surely complete.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import UInt8Array
from fgdeploy.core.errors import EngineError, MissingDependency, UsageError
from fgdeploy.core.text import counted, one_line
from fgdeploy.retrieval.scan import scan_numpy

MOST_K = 2048  # that FAISS selects on a GPU
_MOST_ROWS = (1 << 31) - 1  # that it numbers there
_QUERIES = 1024  # at once
_MORE = 2  # times as many are fetched, first and after each time that ties reached too far

Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]


class GpuCodes:
    """Codes (N, bytes) kept on the first GPU, for many searches.

    Raises MissingDependency without FAISS for GPUs, EngineError without a GPU, UsageError for more
    than 2^31 - 1 codes.
    """

    def __init__(self, codes: UInt8Array) -> None:
        if len(codes) > _MOST_ROWS:
            given = counted(len(codes), "code")
            raise UsageError(f"{given}; FAISS takes {_MOST_ROWS:,} on a GPU at most")
        self._codes = np.ascontiguousarray(codes)
        self._index = _empty_index(8 * codes.shape[1])
        self._index.add(self._codes)

    def nearest(self, queries: UInt8Array, k: int) -> Found:
        """Return rows and distances (Q, k) of the k nearest, ordered by (distance, row).

        k: at most the codes, and 2048, else UsageError. Queries whose k-th distance more than 2048
        rows reach are answered by the NumPy scan: FAISS cannot tell which rows come first.
        """
        if k > MOST_K:
            raise UsageError(f"k is {k}; FAISS finds {MOST_K} on a GPU at most: ask for fewer")
        rows = np.empty((len(queries), k), np.int64)
        distances = np.empty((len(queries), k), np.uint16)
        for start in range(0, len(queries), _QUERIES):
            part = slice(start, start + _QUERIES)
            rows[part], distances[part] = self._part(queries[part], k)
        return rows, distances

    def _part(self, queries: UInt8Array, k: int) -> Found:
        most = min(MOST_K, len(self._codes))
        rows = np.empty((len(queries), k), np.int64)
        distances = np.empty((len(queries), k), np.uint16)
        todo, fetched = np.arange(len(queries)), min(_MORE * k, most)
        while len(todo):
            found, gaps, complete = self._fetch(queries[todo], k, fetched)
            done = todo[complete]
            rows[done], distances[done] = found[complete], gaps[complete]
            todo = todo[~complete]
            if fetched == most:
                break
            fetched = min(_MORE * fetched, most)
        if len(todo):
            rows[todo], distances[todo] = scan_numpy.nearest(queries[todo], self._codes, k, None)
        return rows, distances

    def _fetch(
        self, queries: UInt8Array, k: int, fetched: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16], npt.NDArray[np.bool_]]:
        """Return the k first of `fetched` in order, and which queries have all up to their k-th."""
        gaps, rows = self._index.search(np.ascontiguousarray(queries), fetched)
        order = np.lexsort((rows, gaps))
        rows = np.take_along_axis(rows, order, axis=1)
        gaps = np.take_along_axis(gaps, order, axis=1)
        # Of what is nearer than the farthest one fetched, nothing is missing
        complete = (gaps[:, k - 1] < gaps[:, -1]) | (fetched == len(self._codes))
        return rows[:, :k].astype(np.int64), gaps[:, :k].astype(np.uint16), complete


def nearest(
    queries: UInt8Array, codes: UInt8Array, k: int, allowed: npt.NDArray[np.bool_] | None
) -> Found:
    """Search as `GpuCodes` does; the codes, or those of allowed rows (N,), go to the GPU first."""
    if allowed is None:
        return GpuCodes(codes).nearest(queries, k)
    admitted = np.flatnonzero(allowed)
    rows, distances = GpuCodes(codes[admitted]).nearest(queries, k)
    return admitted[rows].astype(np.int64), distances


def _empty_index(bits: int) -> Any:
    """Return FAISS's index on the first GPU."""
    missing = MissingDependency("faiss-gpu", "search-gpu", "the scan on a GPU")
    try:
        import faiss
    except ImportError:
        raise missing from None
    except RuntimeError as error:  # which FAISS raises where NVIDIA's libraries do not load
        raise EngineError(f"faiss cannot be imported: {one_line(str(error))}") from error
    if not hasattr(faiss, "GpuIndexBinaryFlat"):  # which faiss-cpu has not
        raise missing
    if faiss.get_num_gpus() < 1:
        raise EngineError("the scan on a GPU finds no NVIDIA GPU; leave kernel='faiss-gpu' out")
    return faiss.GpuIndexBinaryFlat(faiss.StandardGpuResources(), bits)
