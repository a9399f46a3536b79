"""What one transaction shows of an index to a search, and answers made of such looks.

One look answers for one index, several for indexes that are searched as one: the same answers in
the same order as one index of all items would give; of equal ids the one of the earlier look stands
first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import UInt8Array, code_bytes
from fgdeploy.core.errors import UsageError
from fgdeploy.retrieval.scan import search
from fgdeploy.retrieval.scan.merge_found import nearest_places, side_by_side, taken
from fgdeploy.retrieval.scan.search import Allowed, Found
from fgdeploy.retrieval.store import upsert
from fgdeploy.retrieval.store.embeddings import Embeddings
from fgdeploy.retrieval.store.items import Hit, Row
from fgdeploy.retrieval.store.reranking import Costs, Reranking, Sight
from fgdeploy.retrieval.store.segment import Ids
from fgdeploy.retrieval.store.snapshot import Snapshot
from fgdeploy.retrieval.store.sqlite_errors import damaged


@dataclass(frozen=True)
class Look:
    """What one transaction shows. allowed: by part, the rows that may be answers; None: all.

    source: what its hits say they are of, None where one index is searched.
    """

    folder: Path
    connection: sqlite3.Connection
    snapshot: Snapshot
    embeddings: Embeddings
    allowed: Sequence[Allowed] | None
    source: str | None = None

    def nearest(self, codes: UInt8Array, k: int, threads: int) -> Found:
        """Return ids and distances (Q, min(k, allowed items)), by (distance, id)."""
        return self.snapshot.nearest(codes, k, self.allowed, threads)

    def within(self, code: UInt8Array, radius: int, threads: int) -> Found:
        """Return ids and distances of all items within `radius` of one code, by (distance, id)."""
        return self.snapshot.within(code, radius, self.allowed, threads)

    def costs(self, by: Reranking, ids: Ids) -> Costs:
        """Return the costs (Q, M) of items by id (Q, M)."""
        return by.costs(Sight(self.connection, self.snapshot, self.embeddings), ids)

    def rows(self, ids: Ids) -> dict[int, Row]:
        """Return items by their ids."""
        wanted = np.unique(ids).tolist()
        found = upsert.checked_rows(self.connection, self.folder, "id", wanted)
        return {row[0]: row for row in found}


def checked(codes: UInt8Array, bits: int, k: int, by: Reranking | None, threads: int | None) -> int:
    """Return the threads of a search of so many bits. Raises UsageError for bad arguments."""
    _check(codes, bits)
    search.check_k(k, 1)
    workers = search.check_threads(threads)
    if by is not None:
        by.check(codes, bits)
        by.pool_of(int(k))
    return workers


def checked_radius(code: UInt8Array, bits: int, radius: int, threads: int | None) -> int:
    """Return the threads of a search within a radius. Raises UsageError for bad arguments."""
    _check(code[None], bits)
    search.check_radius(radius)
    return search.check_threads(threads)


def _check(codes: UInt8Array, bits: int) -> None:
    search.check_packed("queries", codes)
    if codes.shape[1] != (width := code_bytes(bits)):
        raise UsageError(
            f"queries have {codes.shape[1]} bytes, codes {width}; hash both with the same model"
        )


def nearest_hits(
    looks: Sequence[Look], codes: UInt8Array, k: int, by: Reranking | None, threads: int
) -> list[list[Hit]]:
    """Return the k nearest items of each query, re-ranked where a way is given."""
    most = k if by is None else by.pool_of(k)
    found = [look.nearest(codes, most, threads) for look in looks]
    places = nearest_places(found, most)
    if by is None:
        return _hits(looks, codes, found, places, None)
    costs = np.take_along_axis(_costs(looks, by, found, places), places, axis=1)
    order = np.argsort(costs, axis=1, kind="stable")[:, :k]  # by (cost, distance, id)
    places, costs = np.take_along_axis(places, order, 1), np.take_along_axis(costs, order, 1)
    return _hits(looks, codes, found, places, costs)


def hits_within(looks: Sequence[Look], code: UInt8Array, radius: int, threads: int) -> list[Hit]:
    """Return all items within a radius of one query."""
    found = [look.within(code, radius, threads) for look in looks]
    alone = [(ids[None], distances[None]) for ids, distances in found]
    places = nearest_places(alone, max(1, sum(len(ids) for ids, _ in found)))
    return _hits(looks, code[None], alone, places, None)[0]


def _owners(found: Sequence[Found]) -> npt.NDArray[np.intp]:
    """Return which look each of the columns side by side is of."""
    return np.repeat(np.arange(len(found)), [ids.shape[1] for ids, _ in found])


def _costs(
    looks: Sequence[Look], by: Reranking, found: Sequence[Found], places: npt.NDArray[np.intp]
) -> Costs:
    """Return the costs of all columns side by side; inf for those that no query competes with.

    What competes of a look are its first columns, as it gave them in the same order.
    """
    owners, parts = _owners(found)[places], []
    for number, (look, (ids, _)) in enumerate(zip(looks, found, strict=True)):
        compete = int((owners == number).sum(axis=1).max(initial=0))
        costs = np.full(ids.shape, np.inf)
        costs[:, :compete] = look.costs(by, ids[:, :compete])
        parts.append(costs)
    return np.concatenate(parts, axis=1)


def _hits(
    looks: Sequence[Look],
    codes: UInt8Array,
    found: Sequence[Found],
    places: npt.NDArray[np.intp],
    costs: Costs | None,
) -> list[list[Hit]]:
    ids, distances = taken(side_by_side(found), places)
    owners = _owners(found)[places]
    rows = [look.rows(ids[owners == number]) for number, look in enumerate(looks)]
    return [
        _answer(
            looks, rows, code, owners[n], ids[n], distances[n], None if costs is None else costs[n]
        )
        for n, code in enumerate(codes)
    ]


def _answer(
    looks: Sequence[Look],
    rows: Sequence[Mapping[int, Row]],
    code: UInt8Array,
    owners: npt.NDArray[np.intp],
    ids: Ids,
    distances: npt.NDArray[np.uint16],
    costs: Costs | None,
) -> list[Hit]:
    query, hits = int.from_bytes(code.tobytes(), "big"), []
    for index, (owner, number, distance) in enumerate(
        zip(owners.tolist(), ids.tolist(), distances.tolist(), strict=True)
    ):
        look, row = looks[owner], rows[owner].get(number)
        # Derived files and database must agree on every answer that is given.
        if row is None or (int.from_bytes(row[1], "big") ^ query).bit_count() != distance:
            raise damaged(look.folder, f"its files disagree on item {number}")
        cost = None if costs is None else float(costs[index])
        hits.append(Hit(index + 1, distance, number, row[2], row[3], cost, look.source))
    return hits
