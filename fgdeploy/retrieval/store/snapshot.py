"""What a search sees: the codes as of one transaction, in segments and in memory."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import UInt8Array
from fgdeploy.core.text import counted
from fgdeploy.retrieval.scan import search
from fgdeploy.retrieval.scan.buckets import MAX_BYTES, Buckets
from fgdeploy.retrieval.scan.merge_found import merge_nearest
from fgdeploy.retrieval.scan.search import Allowed, Found
from fgdeploy.retrieval.store.checksums import is_code
from fgdeploy.retrieval.store.index_state import state_of
from fgdeploy.retrieval.store.segment import BLOCK_ROWS, Ids, Segment, SegmentError
from fgdeploy.retrieval.store.sqlite_errors import damaged
from fgdeploy.retrieval.store.tables import MOST_K, Tables

_BUCKETS_FROM = 1 << 20  # short codes from which sorting them pays, after so many queries:
_BUCKETS_AFTER = 512
# Queries that look-up tables answer at once. A larger batch is faster in one scan, unless the
# tables prove the first ones of it, as they do where codes lie in clusters.
_FEW, _FIRST = 7, 2


class Codes(Protocol):
    """Codes uint8 (rows, width) of items in ascending order of their ids."""

    codes: UInt8Array

    def ids(self, rows: Ids | slice) -> Ids:
        """Return the ids of some rows."""

    def rows_of(self, ids: Ids) -> Ids:
        """Return the rows of those of the ids that are here."""

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Return the rows, from and up to, whose ids lie between two."""


class Listed:
    """Codes and their ids in memory."""

    def __init__(self, ids: Ids, codes: UInt8Array) -> None:
        self._ids, self.codes = ids, codes

    def ids(self, rows: Ids | slice) -> Ids:
        """Return the ids of some rows."""
        return self._ids[rows]

    def rows_of(self, ids: Ids) -> Ids:
        """Return the rows of those of the ids that are here."""
        return np.flatnonzero(np.isin(self._ids, ids))

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Return the rows, from and up to, whose ids lie between two."""
        start, end = np.searchsorted(self._ids, (first, last + 1))
        return int(start), int(end)


class Part:
    """Codes of a snapshot. alive: the rows that still count, None for all."""

    def __init__(self, source: Codes, alive: Allowed | None, tables: Tables | None = None) -> None:
        self.source, self.alive, self._tables = source, alive, tables
        self._buckets: Buckets | None = None
        self._queries = 0

    @property
    def live(self) -> int:
        """The number of rows that count."""
        return len(self.source.codes) if self.alive is None else self.alive.count

    def live_rows(self, start: int, end: int) -> tuple[Ids, UInt8Array]:
        """Return ids and codes of the rows from `start` up to `end` that count."""
        rows: Ids | slice = slice(start, end)
        if self.alive is not None:
            rows = np.flatnonzero(self.alive.mask[start:end]) + start
        return self.source.ids(rows), self.source.codes[rows]

    def holds(self, ids: Ids) -> int:
        """Return how many of the ids have a row that counts."""
        rows = self.source.rows_of(ids)
        return len(rows) if self.alive is None else int(self.alive.mask[rows].sum())

    def only(self, ids: Ids) -> Allowed:
        """Return the rows that count and have one of the ids."""
        mask = np.zeros(len(self.source.codes), np.bool_)
        mask[self.source.rows_of(ids)] = True
        return Allowed(mask if self.alive is None else mask & self.alive.mask)

    def nearest(
        self, queries: UInt8Array, k: int, allowed: Allowed | None, threads: int, kernel: str
    ) -> Found:
        """Return ids and distances (Q, min(k, rows)), ordered by (distance, id)."""
        codes = self.source.codes
        admitted = self.alive if allowed is None else allowed
        top = min(k, len(codes) if admitted is None else admitted.count)
        self._queries += len(queries)
        if self._tables is not None and 0 < top <= MOST_K and allowed is None:
            look_up = functools.partial(self._tables.nearest, threads=threads)
            if len(queries) <= _FEW or look_up(queries[:_FIRST], codes, top, admitted)[1].all():
                found, proven = look_up(queries, codes, top, admitted)
                if not proven.all():
                    rest = search.nearest(queries[~proven], codes, top, admitted, threads, kernel)
                    found[0][~proven], found[1][~proven] = rest
                return self.source.ids(found[0]), found[1]
        short = codes.shape[1] <= MAX_BYTES and len(codes) >= _BUCKETS_FROM and admitted is None
        if short and self._queries >= _BUCKETS_AFTER:
            self._buckets = self._buckets or Buckets(codes)
            rows, distances = self._buckets.nearest(queries, top)
        else:
            rows, distances = search.nearest(queries, codes, top, admitted, threads, kernel)
        return self.source.ids(rows), distances


@dataclass(frozen=True)
class Snapshot:
    """The codes as of one transaction. version: its number; count: live items."""

    version: int
    count: int
    parts: Sequence[Part]

    def only(self, ids: Ids) -> list[Allowed]:
        """Return, for each part, the rows that count and have one of the ids."""
        return [part.only(ids) for part in self.parts]

    def nearest(
        self,
        queries: UInt8Array,
        k: int,
        allowed: Sequence[Allowed] | None,
        threads: int,
        kernel: str = "auto",
    ) -> Found:
        """Return ids and distances (Q, min(k, allowed items)), ordered by (distance, id)."""
        chosen = search.chosen(kernel, self.bytes * len(queries), queries.shape[1])
        found = [
            part.nearest(queries, k, only, threads, chosen)
            for part, only in self._with(allowed)
            if part.live
        ]
        if len(found) == 1:
            return found[0]
        empty = (np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.uint16))
        return merge_nearest([empty, *found], k)

    def within(
        self,
        query: UInt8Array,
        radius: int,
        allowed: Sequence[Allowed] | None,
        threads: int,
        kernel: str = "auto",
    ) -> Found:
        """Return the ids of all items within `radius` of one query, ordered by (distance, id)."""
        chosen = search.chosen(kernel, self.bytes, len(query))
        ids, distances = [np.empty(0, np.int64)], [np.empty(0, np.uint16)]
        for part, only in self._with(allowed):
            admitted = part.alive if only is None else only
            codes = part.source.codes
            rows, gaps = search.within(query, codes, radius, admitted, threads, chosen)
            ids.append(part.source.ids(rows))
            distances.append(gaps)
        found, gaps = np.concatenate(ids), np.concatenate(distances)
        order = np.lexsort((found, gaps))
        return found[order], gaps[order]

    def codes_of(self, ids: Ids) -> UInt8Array:
        """Return the codes (N, bytes) of live items, by ids that are ascending."""
        codes = np.zeros(
            (len(ids), self.parts[0].source.codes.shape[1] if self.parts else 1), np.uint8
        )
        for part in self.parts:
            rows = part.source.rows_of(ids)
            if part.alive is not None:
                rows = rows[part.alive.mask[rows]]
            codes[np.searchsorted(ids, part.source.ids(rows))] = part.source.codes[rows]
        return codes

    def between(self, first: int, last: int) -> tuple[Ids, UInt8Array]:
        """Return ids and codes of the live items whose ids lie between two, ascending."""
        nothing = np.empty(0, np.int64), np.empty((0, 1), np.uint8)
        found = [part.live_rows(*part.source.span(first, last)) for part in self.parts]
        return joined(found or [nothing])

    @property
    def bytes(self) -> int:
        """The bytes of all codes."""
        return sum(part.source.codes.size for part in self.parts)

    def _with(self, allowed: Sequence[Allowed] | None) -> Iterator[tuple[Part, Allowed | None]]:
        for number, part in enumerate(self.parts):
            yield part, None if allowed is None else allowed[number]


class Reader:
    """Makes snapshots of one index, and keeps its segments open between them."""

    def __init__(self, folder: Path, width: int, uid: bytes, threads: int) -> None:
        self.width, self.uid = width, uid
        self._folder, self.threads = folder, threads
        self._open: dict[int, Segment] = {}
        self._tables: dict[int, Tables] = {}
        self._mutex = threading.Lock()  # the writer's thread reads too

    def read(self, connection: sqlite3.Connection) -> Snapshot:
        """Return what the open transaction sees. Raises SegmentError for damaged derived files."""
        try:
            return self._read(connection)
        except (TypeError, ValueError, OverflowError) as error:
            raise SegmentError(f"the list of derived files is damaged ({error})") from error

    def _read(self, connection: sqlite3.Connection) -> Snapshot:
        version, count, _ = state_of(connection, self._folder)
        with self._mutex:
            before = self._open.copy()
            segments = self._segments(connection)
        dead = _columns(connection.execute("SELECT id, segment FROM dead"))
        parts = []
        for segment in segments:
            rows = segment.rows_of(dead[0][dead[1] >= segment.header.number])
            alive = None
            if len(rows):
                mask = np.ones(len(segment), np.bool_)
                mask[rows] = False
                alive = Allowed(mask)
            parts.append(Part(segment, alive, self._tables.get(segment.header.number)))
        tail = Listed(*self._tail(connection))
        if len(tail.codes):
            parts.append(Part(tail, None))
        if (live := sum(part.live for part in parts)) != count:
            raise SegmentError(
                f"derived files hold {counted(live, 'item')}, the database says {count}"
            )
        if any(before.get(segment.header.number) is not segment for segment in segments):
            _check_lists(connection, parts)  # as often as the files themselves
        return Snapshot(version, count, parts)

    def read_database(self, connection: sqlite3.Connection) -> Snapshot:
        """Return what the open transaction sees, from the database alone: slow, always right."""
        version, count, _ = state_of(connection, self._folder)
        blocks = list(blocks_of(connection, self._folder, self.width))
        ids = np.concatenate([np.empty(0, np.int64), *(block[0] for block in blocks)])
        codes = np.concatenate(
            [np.empty((0, self.width), np.uint8), *(block[1] for block in blocks)]
        )
        if len(ids) != count:
            raise damaged(self._folder, f"it holds {counted(len(ids), 'item')} and says {count}")
        return Snapshot(version, count, [Part(Listed(ids, codes), None)])

    def _segments(self, connection: sqlite3.Connection) -> list[Segment]:
        listed = connection.execute("SELECT number, rows, crc, tables FROM segments")
        wanted = {number: values for number, *values in listed}
        for number in self._open.keys() - wanted.keys():
            del self._open[number]
            self._tables.pop(number, None)
        for number in wanted.keys() - self._open.keys():
            segment = Segment(self._folder, number, wanted[number][1], self.width, self.uid)
            if len(segment) != wanted[number][0]:
                raise SegmentError(
                    f"{segment.path.name}: expected {counted(wanted[number][0], 'row')}"
                )
            segment.check(self.threads)
            if (crc := wanted[number][2]) is not None and search.has_numba():
                self._tables[number] = Tables(self._folder, segment, crc, self.threads)
            self._open[number] = segment
        return [self._open[number] for number in sorted(wanted)]

    def _tail(self, connection: sqlite3.Connection) -> tuple[Ids, UInt8Array]:
        ranges: list[tuple[int, int]] = []
        for first, last in connection.execute("SELECT first, last FROM tail ORDER BY first"):
            if ranges and first <= ranges[-1][1]:
                ranges[-1] = (ranges[-1][0], max(ranges[-1][1], last))
            else:
                ranges.append((first, last))
        rows = []
        for span in ranges:
            rows += connection.execute(
                "SELECT id, code, crc FROM items WHERE id BETWEEN ? AND ? ORDER BY id", span
            ).fetchall()
        return arrays_of(rows, self._folder, self.width)

    def forget(self) -> None:
        """Let go of all segments, to open them anew."""
        with self._mutex:
            self._open.clear()
        self._tables.clear()


def joined(found: Sequence[tuple[Ids, UInt8Array]]) -> tuple[Ids, UInt8Array]:
    """Return ids and codes of several pieces, one at least, each ascending, as one."""
    pieces = [piece for piece in found if len(piece[0])] or list(found[:1])
    if len(pieces) == 1:
        return pieces[0]
    ids = np.concatenate([ids for ids, _ in pieces])
    codes = np.concatenate([codes for _, codes in pieces])
    if (ids[1:] > ids[:-1]).all():
        return ids, codes
    order = np.argsort(ids, kind="stable")  # which knows runs
    return ids[order], codes[order]


def _check_lists(connection: sqlite3.Connection, parts: Sequence[Part]) -> None:
    """Raise SegmentError if `tail` or `dead` was changed so that the number of items is right."""
    tail = parts[-1].source if parts else None
    if isinstance(tail, Listed) and any(part.holds(tail.ids(slice(None))) for part in parts[:-1]):
        raise SegmentError("an item is in two derived files")
    query = "SELECT dead.id FROM dead CROSS JOIN items ON items.id = dead.id ORDER BY dead.id"
    again = np.array(connection.execute(query).fetchall(), np.int64).reshape(-1)
    if sum(part.holds(again) for part in parts) != len(again):
        raise SegmentError("an item is in no derived file")


def blocks_of(
    connection: sqlite3.Connection, folder: Path, width: int
) -> Iterator[tuple[Ids, UInt8Array]]:
    """Yield ids and codes of all items in order of id, BLOCK_ROWS at a time, each code checked."""
    with contextlib.closing(
        connection.execute("SELECT id, code, crc FROM items ORDER BY id")
    ) as rows:
        while part := rows.fetchmany(BLOCK_ROWS):
            yield arrays_of(part, folder, width)


def arrays_of(
    rows: Sequence[tuple[int, bytes, int]], folder: Path, width: int
) -> tuple[Ids, UInt8Array]:
    """Return rows (id, code, crc) as arrays, each code checked. Raises IndexStoreError."""
    if any(type(code) is not bytes or len(code) != width for _, code, _ in rows):
        raise damaged(folder, "codes of unequal width")
    wrong = [
        number
        for number, code, crc in rows
        if type(crc) is not int or not is_code(number, code, crc)
    ]
    if wrong:
        raise damaged(folder, f"the code of item {wrong[0]} is not the one that was added")
    ids = np.fromiter((row[0] for row in rows), np.int64, len(rows))
    joined = b"".join([row[1] for row in rows])
    return ids, np.frombuffer(joined, np.uint8).reshape(-1, width)


def _columns(rows: sqlite3.Cursor) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    table = np.array(rows.fetchall(), np.int64).reshape(-1, 2)
    return np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 1])
