"""Answers of several searches as one: exactly what one search over all their codes would give.

Each shard gives its own k nearest, so the k nearest of all are among them. Order is (distance, id);
of equal ids the one of the earlier part stands first. Parts may be merged in stages: neighbours
first, then what came of them, with the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import UInt8Array
from fgdeploy.core.errors import UsageError
from fgdeploy.retrieval.scan.search import Found, check_k, check_packed, search_codes


def merge_nearest(parts: Sequence[Found], k: int) -> Found:
    """Return the k nearest of what several searches found for the same queries.

    parts: ids int64 and distances uint16 of each, both (Q, M), M of its own. Returns ids and
    distances (Q, min(k, sum of M)), by (distance, id). Raises UsageError for no part, for parts of
    unequal queries and for k below 1.
    """
    return taken(side_by_side(parts), nearest_places(parts, k))


def nearest_places(parts: Sequence[Found], k: int) -> npt.NDArray[np.intp]:
    """Return where the answers of `merge_nearest` stand in `side_by_side`: columns (Q, answers)."""
    ids, distances = side_by_side(parts)
    most = check_k(k, ids.shape[1])
    if len(parts) == 1:  # which is in order
        return np.broadcast_to(np.arange(most), (len(ids), most))
    return np.lexsort((ids, distances), axis=1)[:, :most]


def taken(found: Found, places: npt.NDArray[np.intp]) -> Found:
    """Return ids and distances at columns (Q, answers)."""
    ids, distances = found
    return np.take_along_axis(ids, places, 1), np.take_along_axis(distances, places, 1)


def search_parts(
    queries: UInt8Array,
    parts: Sequence[UInt8Array],
    k: int,
    *,
    threads: int | None = None,
    kernel: str = "auto",
) -> Found:
    """Return what `search_codes` finds in the parts (N, bytes) laid behind each other, not copied.

    A row counts from the first code of the first part on. Raises UsageError as `search_codes` does.
    """
    check_packed("queries", queries)
    check_k(k, 1)
    found, first = [_nothing(len(queries))], 0
    for codes in parts:
        rows, distances = search_codes(queries, codes, k, threads=threads, kernel=kernel)
        found.append((rows + first, distances))
        first += len(codes)
    return merge_nearest(found, k)


def side_by_side(parts: Sequence[Found]) -> Found:
    """Return what the parts found as ids and distances (Q, sum of M), part by part.

    Raises UsageError for no part, and for parts of unequal queries.
    """
    if not parts:
        raise UsageError("there is nothing to merge; give what one search found, or more")
    shapes = [(ids.shape, distances.shape) for ids, distances in parts]
    if any(ids != gaps or len(ids) != 2 or ids[0] != shapes[0][0][0] for ids, gaps in shapes):
        raise UsageError(
            "expected ids and distances (Q, M) of the same Q queries from each search, got "
            + ", ".join(f"{ids} and {gaps}" for ids, gaps in shapes[:4])
        )
    if len(parts) == 1:
        return parts[0]
    return (
        np.concatenate([ids for ids, _ in parts], axis=1, dtype=np.int64),
        np.concatenate([distances for _, distances in parts], axis=1, dtype=np.uint16),
    )


def _nothing(queries: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]:
    return np.empty((queries, 0), np.int64), np.empty((queries, 0), np.uint16)
