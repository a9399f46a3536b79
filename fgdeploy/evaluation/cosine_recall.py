"""Recall at k by the cosine of embeddings, each photo against all others; itself is left out.

The ranking is (cosine, position): the larger cosine first, equal ones in the order of the photos.
Exact: a product of matrices finds which cosines could be the nearest of the class within its
rounding, and these alone are computed one by one, in float64 and always in one order. Memory holds
a block of queries, never all pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fgdeploy.core.cosine import Unit, cosines, unit
from fgdeploy.core.errors import DataError
from fgdeploy.core.text import counted
from fgdeploy.evaluation.metrics import RECALL_AT, Labels

_CELLS = 1 << 22  # cosines that are held at once

Ranks = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CosineScores:
    """Recall of `queries` photos, each against the others. recall: k -> share of queries with a
    photo of their class among the first k, in 0..1. without_relevant: queries whose class has no
    other photo; they stay in the mean as 0."""

    queries: int
    recall: dict[int, float]
    without_relevant: int


def recall_by_cosine(
    embeddings: npt.NDArray[np.floating], labels: Labels, recall_at: Sequence[int] = RECALL_AT
) -> CosineScores:
    """Score embeddings (N, D) with labels (N,). Raises DataError for other shapes, NaN, one photo.

    A row of zeros has the cosine 0 with all others.
    """
    _check(embeddings, labels)
    if min(recall_at, default=1) < 1:
        raise DataError(f"recall at {min(recall_at)} has no meaning; give 1 or more")
    first = first_ranks(unit(embeddings), np.unique(labels, return_inverse=True)[1])
    return CosineScores(
        len(labels),
        {k: float(((first > 0) & (first <= k)).mean()) for k in recall_at},
        int((first == 0).sum()),
    )


def first_ranks(rows: Unit, classes: npt.NDArray[np.integer]) -> Ranks:
    """Return the rank (N,), from 1, of the nearest other row of each row's class; 0 for none.

    rows: unit rows (N, D); classes: (N,).
    """
    step = max(1, _CELLS // len(rows))
    blocks = (
        _of_block(rows, classes, start, min(start + step, len(rows)))
        for start in range(0, len(rows), step)
    )
    return np.concatenate(list(blocks))


def _of_block(rows: Unit, classes: npt.NDArray[np.integer], start: int, stop: int) -> Ranks:
    """Return the ranks of the queries from `start` up to `stop`."""
    scores = rows[start:stop] @ rows.T
    same = classes[start:stop, None] == classes[None]
    each = np.arange(stop - start)
    same[each, each + start] = False
    best = np.max(scores, axis=1, where=same, initial=-np.inf)[:, None]
    best[np.isinf(best)] = np.inf  # nothing to find: nothing is near it
    # Twice as far as the product and the cosine one by one can lie apart, for rows of length 1.
    margin = 8 * rows.shape[1] * np.finfo(np.float64).eps
    scores[each, each + start] = -np.inf
    surely_ahead = np.count_nonzero(scores > best + margin, axis=1)
    query, other = np.nonzero(np.abs(scores - best) <= margin)
    exact = np.concatenate([np.empty(0), *_exact(rows, query + start, other)])
    order = np.lexsort((other, -exact, query))
    query, good = query[order], same[query[order], other[order]]
    found, first = np.unique(query[good], return_index=True)
    places = np.flatnonzero(good)[first] - np.searchsorted(query, found)
    ranks = np.zeros(stop - start, np.int64)
    ranks[found] = surely_ahead[found] + places + 1
    return ranks


def _exact(rows: Unit, one: Ranks, other: Ranks) -> Iterator[npt.NDArray[np.float64]]:
    step = max(1, _CELLS // rows.shape[1])
    for start in range(0, len(one), step):
        part = slice(start, start + step)
        yield cosines(rows[one[part]], rows[other[part]])


def _check(embeddings: npt.NDArray[np.floating], labels: Labels) -> None:
    if embeddings.dtype.kind != "f" or embeddings.ndim != 2 or not embeddings.shape[1]:
        raise DataError(
            f"embeddings: expected float (N, D), got {embeddings.dtype} {embeddings.shape}; take "
            "those of Hasher.encode_full"
        )
    if labels.shape != (len(embeddings),):
        raise DataError(
            f"labels: expected one for each of {counted(len(embeddings), 'embedding')}, got "
            f"{labels.shape}; give a label for every embedding"
        )
    if len(labels) < 2:
        raise DataError(f"nothing to rank: {counted(len(labels), 'photo')}; add photos")
    if not (good := np.isfinite(embeddings).all(axis=1)).all():
        raise DataError(
            f"embedding {int(np.argmin(good))} has NaN or infinite values; check the photo and the "
            "engine"
        )
