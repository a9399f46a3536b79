"""Searches of one index: within one transaction, from the snapshot to the items that answer."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import UInt8Array, code_bytes
from fgdeploy.core.errors import UsageError
from fgdeploy.retrieval.scan import search
from fgdeploy.retrieval.scan.search import Allowed, Found
from fgdeploy.retrieval.store import upsert
from fgdeploy.retrieval.store.embeddings import Embeddings
from fgdeploy.retrieval.store.index_state import state_of
from fgdeploy.retrieval.store.integrity import Integrity
from fgdeploy.retrieval.store.items import Hit, Row
from fgdeploy.retrieval.store.reranking import Reranking, Sight
from fgdeploy.retrieval.store.segment import Ids, SegmentError
from fgdeploy.retrieval.store.session import Session
from fgdeploy.retrieval.store.snapshot import Reader, Snapshot
from fgdeploy.retrieval.store.sqlite_errors import damaged
from fgdeploy.retrieval.store.where import Params, matching_ids, plain, reads_the_clock

_FILTERS_KEPT = 8


class Querying:
    """Answers queries against one index from any thread. heal: called for damaged derived files."""

    def __init__(
        self,
        session: Session,
        bits: int,
        reader: Reader,
        integrity: Integrity,
        heal: Callable[[SegmentError], None],
        embeddings: Embeddings,
    ) -> None:
        self._session, self._reader, self._integrity, self._heal = session, reader, integrity, heal
        self._embeddings = embeddings
        self._bits, self._width = bits, code_bytes(bits)
        self._mutex = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._filters: dict[object, list[Allowed]] = {}

    def nearest(
        self,
        codes: UInt8Array,
        k: int,
        where: str | None,
        params: Params,
        threads: int | None,
    ) -> Found:
        """Return ids and distances (Q, min(k, items)), by (distance, id)."""
        self._check(codes)
        search.check_k(k, 1)
        workers = search.check_threads(threads)
        with self._seeing() as (connection, snapshot):
            allowed = self._allowed(connection, snapshot, where, params)
            return snapshot.nearest(codes, int(k), allowed, workers)

    def hits(
        self,
        codes: UInt8Array,
        k: int,
        where: str | None,
        params: Params,
        by: Reranking | None,
        threads: int | None,
    ) -> list[list[Hit]]:
        """Return the nearest items of each query, re-ranked where a way is given."""
        self._check(codes)
        search.check_k(k, 1)
        workers = search.check_threads(threads)
        if by is not None:
            by.check(codes, self._bits)
        most = int(k) if by is None else by.pool_of(int(k))
        with self._seeing() as (connection, snapshot):
            allowed = self._allowed(connection, snapshot, where, params)
            ids, distances = snapshot.nearest(codes, most, allowed, workers)
            costs = None
            if by is not None:
                sight = Sight(connection, snapshot, self._embeddings)
                ids, distances, costs = by.ranked(sight, (ids, distances), int(k))
            rows = self._rows(connection, ids)
        return [
            self._answer(code, rows, ids[n], distances[n], None if costs is None else costs[n])
            for n, code in enumerate(codes)
        ]

    def within(
        self, code: UInt8Array, radius: int, where: str | None, params: Params, threads: int | None
    ) -> list[Hit]:
        """Return all items within a radius of one query."""
        code = np.asarray(code)
        self._check(code[None])
        search.check_radius(radius)
        workers = search.check_threads(threads)
        with self._seeing() as (connection, snapshot):
            allowed = self._allowed(connection, snapshot, where, params)
            ids, distances = snapshot.within(code, int(radius), allowed, workers)
            rows = self._rows(connection, ids)
        return self._answer(code, rows, ids, distances, None)

    def _check(self, codes: UInt8Array) -> None:
        search.check_packed("queries", codes)
        if codes.shape[1] != self._width:
            raise UsageError(
                f"queries have {codes.shape[1]} bytes, codes {self._width}; "
                "hash both with the same model"
            )

    @contextlib.contextmanager
    def _seeing(self) -> Iterator[tuple[sqlite3.Connection, Snapshot]]:
        """Give what one transaction sees; damaged derived files are healed or gone around."""
        damage = None
        with self._session.reading() as connection:
            try:
                snapshot = self._current(connection, self._reader.read)
            except SegmentError as error:
                damage = error
            else:
                yield connection, snapshot
        if damage is None:
            return
        self._reader.forget()
        self._heal(damage)
        with self._session.reading() as connection:
            try:
                snapshot = self._current(connection, self._reader.read)
            except SegmentError:
                snapshot = self._current(connection, self._reader.read_database)
            yield connection, snapshot

    def _current(
        self, connection: sqlite3.Connection, read: Callable[[sqlite3.Connection], Snapshot]
    ) -> Snapshot:
        version = state_of(connection, self._session.folder).version
        with self._mutex:
            if self._snapshot is None or self._snapshot.version != version:
                self._snapshot = read(connection)
                self._filters.clear()
            return self._snapshot

    def _allowed(
        self,
        connection: sqlite3.Connection,
        snapshot: Snapshot,
        where: str | None,
        params: Params,
    ) -> Sequence[Allowed] | None:
        if where is None:
            return None
        params = plain(where, params)
        values = sorted(params.items()) if isinstance(params, Mapping) else params
        key = (snapshot.version, repr(where), repr(values))
        with self._mutex:
            if (kept := self._filters.get(key)) is not None:
                return kept
        self._integrity.require(connection)
        found = snapshot.only(matching_ids(connection, where, params, self._session.filters))
        if reads_the_clock(where):
            return found
        with self._mutex:
            while len(self._filters) >= _FILTERS_KEPT:
                del self._filters[next(iter(self._filters))]
            self._filters[key] = found
        return found

    def _rows(self, connection: sqlite3.Connection, ids: Ids) -> dict[int, Row]:
        folder = self._session.folder
        wanted = np.unique(ids).tolist()
        return {row[0]: row for row in upsert.checked_rows(connection, folder, "id", wanted)}

    def _answer(
        self,
        code: UInt8Array,
        rows: Mapping[int, Row],
        ids: Ids,
        distances: npt.NDArray[np.uint16],
        costs: npt.NDArray[np.float64] | None,
    ) -> list[Hit]:
        query, hits = int.from_bytes(code.tobytes(), "big"), []
        for index, (number, distance) in enumerate(
            zip(ids.tolist(), distances.tolist(), strict=True)
        ):
            row = rows.get(number)
            # Derived files and database must agree on every answer that is given.
            if row is None or (int.from_bytes(row[1], "big") ^ query).bit_count() != distance:
                raise damaged(self._session.folder, f"its files disagree on item {number}")
            cost = None if costs is None else float(costs[index])
            hits.append(Hit(index + 1, distance, number, row[2], row[3], cost))
        return hits
