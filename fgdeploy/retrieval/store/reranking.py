"""The nearest codes in another order: by the query's real-valued hash, or by embeddings.

Answers stand by (cost, distance, id). By hash the cost is the asymmetric distance (`rerank`), which
needs nothing in the index; by embedding it is 1 - cosine, from the embeddings that the index keeps.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import UInt8Array
from fgdeploy.core.cosine import cosines, unit
from fgdeploy.core.errors import IndexStoreError, UsageError
from fgdeploy.core.numbers import as_whole
from fgdeploy.core.text import shown
from fgdeploy.retrieval.store import rerank, upsert
from fgdeploy.retrieval.store.embedding_file import seal_of
from fgdeploy.retrieval.store.embeddings import Embeddings, check_rows
from fgdeploy.retrieval.store.segment import Ids
from fgdeploy.retrieval.store.snapshot import Snapshot

EmbeddingRows = npt.NDArray[np.floating]
Costs = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sight:
    """What one transaction sees: codes and embeddings."""

    connection: sqlite3.Connection
    snapshot: Snapshot
    embeddings: Embeddings


@dataclass(frozen=True)
class Reranking(ABC):
    """A way to order the `pool` nearest answers, POOL * k by default. values: of the queries."""

    values: npt.NDArray[np.floating]
    pool: int | None

    def pool_of(self, k: int) -> int:
        """Return how many answers compete. Raises UsageError for fewer than k."""
        if self.pool is None:
            return rerank.POOL * k
        number = as_whole(self.pool)
        if number is None or number < k:
            raise UsageError(f"pool {shown(self.pool)}: expected a whole number of k, {k}, or more")
        return number

    @abstractmethod
    def check(self, codes: UInt8Array, bits: int) -> None:
        """Raise UsageError unless the values can be of these queries' codes (Q, bytes)."""

    @abstractmethod
    def costs(self, sight: Sight, ids: Ids) -> Costs:
        """Return the costs (Q, M) of items by id (Q, M)."""


class ByHash(Reranking):
    """By the asymmetric distance of the real-valued hashes (Q, bits)."""

    def check(self, codes: UInt8Array, bits: int) -> None:
        """Raise UsageError unless the codes were packed from these hashes."""
        rerank.check_hashes(self.values, codes, bits)

    def costs(self, sight: Sight, ids: Ids) -> Costs:
        """Return the asymmetric distances (Q, M)."""
        if not ids.size:
            return np.empty(ids.shape)
        unique, places = np.unique(ids, return_inverse=True)
        codes = sight.snapshot.codes_of(unique)
        return rerank.costs(self.values, codes[places.reshape(ids.shape)])


class ByEmbedding(Reranking):
    """By 1 - cosine of the embeddings (Q, width)."""

    def check(self, codes: UInt8Array, bits: int) -> None:
        """Raise UsageError unless there is a finite row for each query."""
        width = self.values.shape[1] if getattr(self.values, "ndim", 0) == 2 else 0
        check_rows("embeddings", self.values, len(codes), width)
        if not (good := np.isfinite(self.values).all(axis=1)).all():
            raise UsageError(
                f"embeddings: query {int(np.argmin(good))} has NaN or infinite values; check the "
                "photo and the engine"
            )

    def costs(self, sight: Sight, ids: Ids) -> Costs:
        """Return 1 - cosine (Q, M), each number the same whatever else is asked for."""
        form = sight.embeddings.required(sight.connection)
        check_rows("embeddings", self.values, len(ids), form.width)
        shelf = sight.embeddings.shelf(sight.connection)
        if not ids.size:
            return np.empty(ids.shape)
        unique, places = np.unique(ids, return_inverse=True)
        files, rows = shelf.find(unique, _seals(sight, unique))
        path = sight.embeddings.path
        if (files < 0).any():
            raise IndexStoreError(
                f"{path}: item {unique[int(np.argmax(files < 0))]} has no embedding, so it cannot "
                f"be ranked; make those that lack from the photos with: fgdeploy index embed {path}"
            )
        found = np.empty(ids.shape)
        queries = unit(self.values)
        for number, each in enumerate(places.reshape(ids.shape)):  # all at once may not fit
            own = unit(shelf.wide((files[each], rows[each])))
            found[number] = 1 - cosines(queries[number], own)
        return found


def _seals(sight: Sight, ids: Ids) -> npt.NDArray[np.uint64]:
    """Return the seals of items that are there, by ids ascending."""
    path = sight.embeddings.path
    rows = upsert.checked_rows(sight.connection, path, "id", ids.tolist())
    seals = {row[0]: seal_of(row[0], row[1], row[4]) for row in rows}
    return np.array([seals.get(number, 0) for number in ids.tolist()], np.uint64)


def chosen(
    hashes: rerank.Hashes | None, embeddings: EmbeddingRows | None, pool: int | None
) -> Reranking | None:
    """Return the way that the arguments of a search name, None for the order of the codes.

    Raises UsageError for two ways, or a pool without one.
    """
    if hashes is not None and embeddings is not None:
        raise UsageError("hashes and embeddings order the answers in two ways; give one of them")
    if hashes is not None:
        return ByHash(hashes, pool)
    if embeddings is not None:
        return ByEmbedding(embeddings, pool)
    if pool is not None:
        raise UsageError(f"pool {shown(pool)}: nothing is re-ranked; give hashes or embeddings")
    return None
