"""Searches of one index: within one transaction, from the snapshot to the items that answer."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from fgdeploy.core.codes import UInt8Array
from fgdeploy.retrieval.scan.search import Allowed, Found
from fgdeploy.retrieval.store import look
from fgdeploy.retrieval.store.embeddings import Embeddings
from fgdeploy.retrieval.store.index_state import state_of
from fgdeploy.retrieval.store.integrity import Integrity
from fgdeploy.retrieval.store.items import Hit
from fgdeploy.retrieval.store.reranking import Reranking
from fgdeploy.retrieval.store.segment import SegmentError
from fgdeploy.retrieval.store.session import Session
from fgdeploy.retrieval.store.snapshot import Reader, Snapshot
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
        self._bits = bits
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
        workers = look.checked(codes, self._bits, k, None, threads)
        with self.looking(where, params) as seen:
            return seen.nearest(codes, int(k), workers)

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
        workers = look.checked(codes, self._bits, k, by, threads)
        with self.looking(where, params) as seen:
            return look.nearest_hits([seen], codes, int(k), by, workers)

    def within(
        self, code: UInt8Array, radius: int, where: str | None, params: Params, threads: int | None
    ) -> list[Hit]:
        """Return all items within a radius of one query."""
        workers = look.checked_radius(code := np.asarray(code), self._bits, radius, threads)
        with self.looking(where, params) as seen:
            return look.hits_within([seen], code, int(radius), workers)

    @contextlib.contextmanager
    def looking(
        self, where: str | None, params: Params, source: str | None = None
    ) -> Iterator[look.Look]:
        """Give what one transaction sees, filtered. source: what hits of it say they are of."""
        folder = self._session.folder
        with self._seeing() as (connection, snapshot):
            allowed = self._allowed(connection, snapshot, where, params)
            yield look.Look(folder, connection, snapshot, self._embeddings, allowed, source)

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
