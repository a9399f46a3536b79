"""The gallery index `NAME.fgi/`: SQLite holds every item, derived files make searching it fast.

Writing: one process at a time, each batch a transaction, on the disk when it is acknowledged.
Reading: any number of processes and threads; each search sees one transaction, never half of one.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from fgdeploy.core import atomic, machine
from fgdeploy.core.closing import Closing
from fgdeploy.core.codes import UInt8Array, check_bits, code_bytes
from fgdeploy.core.errors import IndexStoreError, UsageError
from fgdeploy.core.progress import Notify, Progress, no_progress
from fgdeploy.retrieval.scan.search import Found, check_packed
from fgdeploy.retrieval.store import derived, items, schema, upsert
from fgdeploy.retrieval.store.derived import MERGE_ROWS
from fgdeploy.retrieval.store.index_state import state_of
from fgdeploy.retrieval.store.integrity import Integrity
from fgdeploy.retrieval.store.items import Added, Hit, Item
from fgdeploy.retrieval.store.keeping import Keeper
from fgdeploy.retrieval.store.meta import read_meta
from fgdeploy.retrieval.store.querying import Querying
from fgdeploy.retrieval.store.rerank import Hashes
from fgdeploy.retrieval.store.segment import Ids, SegmentError
from fgdeploy.retrieval.store.session import DATABASE, Session
from fgdeploy.retrieval.store.snapshot import Reader
from fgdeploy.retrieval.store.sqlite_errors import explained
from fgdeploy.retrieval.store.stats import Stats, measure
from fgdeploy.retrieval.store.tables import fits
from fgdeploy.retrieval.store.verifying import MISSING, Problem, inspect
from fgdeploy.retrieval.store.where import Params, matching_ids

BATCH = 1 << 14  # items in a transaction
_BULK = 1 << 18  # codes in a transaction that writes a segment
_PAGE = 1000  # items read at once

_log = logging.getLogger("fgdeploy")


class Index(Closing):
    """A gallery index, opened for reading and writing; a context manager, usable from threads.

    One process writes at a time (a second is told), any number read.
    """

    def __init__(self, session: Session, notify: Notify) -> None:
        self.path = session.folder
        self._session = session
        meta = read_meta(session)
        self.bits, self.fingerprint = int(meta["bits"]), meta["fingerprint"]
        uid, width = bytes.fromhex(meta["uid"]), code_bytes(self.bits)
        self._reader = Reader(session.folder, width, uid, machine.cores())
        self._keeper = Keeper(session, self._reader, notify)
        self._integrity = Integrity(session.folder)
        self._querying = Querying(
            session, self.bits, self._reader, self._integrity, self._keeper.heal
        )

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        fingerprint: str,
        bits: int,
        notify: Notify = _log.warning,
    ) -> Index:
        """Make an empty index for one model. Raises IndexStoreError if something is there."""
        folder = Path(path)
        if folder.suffix != ".fgi":
            raise UsageError(f"{folder}: an index's name ends in .fgi")
        check_bits(bits)
        taken = IndexStoreError(f"{folder} is there already; open it, or choose another name")
        if folder.exists():
            raise taken
        if not folder.parent.is_dir():
            raise IndexStoreError(
                f"no folder {folder.parent} to write {folder.name} into; create it first"
            )
        try:
            with atomic.new_folder(folder) as fresh, explained(folder):
                connection = sqlite3.connect(fresh / DATABASE)
                try:
                    schema.create(connection, fingerprint, bits)
                finally:
                    connection.close()
        except FileExistsError:  # another process was faster
            raise taken from None
        return cls.open(folder, notify)

    @classmethod
    def open(cls, path: str | os.PathLike[str], notify: Notify = _log.warning) -> Index:
        """Open an index, brought to today's schema if it is older.

        notify: told when derived files were damaged and made again. Raises IndexStoreError if the
        index is missing, damaged or of a later schema.
        """
        session = Session(Path(path))
        try:
            return cls(session, notify)
        except BaseException:
            session.close()
            raise

    def close(self) -> None:
        """Close the database when other threads' searches and changes have ended."""
        self._session.close()

    def delete_if_empty(self) -> bool:
        """Remove the index from the disk if it holds nothing, and say whether it did.

        The write lock is held until its folder has gone, so no other process's items go with it.
        """
        with self._session.locked():
            if len(self):
                return False
            aside = self.path.with_name(f".{self.path.name}.{os.getpid()}.old")
            os.rename(self.path, aside)
            self.close()
        shutil.rmtree(aside)
        return True

    def require(self, fingerprint: str, bits: int) -> None:
        """Raise IndexStoreError unless codes of this model belong into the index."""
        if (fingerprint, bits) != (self.fingerprint, self.bits):
            raise IndexStoreError(
                f"{self.path} holds {self.bits}-bit codes of model {self.fingerprint[:12]}, these "
                f"are {bits}-bit codes of model {fingerprint[:12]}; their distances mean nothing: "
                "use the bundle that built the index, or build a new index"
            )

    # What is in it

    def __len__(self) -> int:
        with self._session.reading() as connection:
            return state_of(connection, self.path).items

    def items(self, where: str | None = None, params: Params = ()) -> Iterator[Item]:
        """Yield all items, or those for which `where` holds, in order of id.

        Read in pages, each item as it is when its turn comes, so that writers need not wait.
        """
        if where is not None:
            ids = self.matching(where, params)
            for start in range(0, len(ids), _PAGE):
                with self._session.reading() as connection:
                    part = ids[start : start + _PAGE].tolist()
                    rows = sorted(upsert.checked_rows(connection, self.path, "id", part))
                yield from map(items.item_of, rows)
            return
        last, page = 0, [Item(None, b"")]
        while page:
            with self._session.reading() as connection:
                if not last:
                    self._integrity.require_whole(connection)
                found = upsert.rows_after(connection, self.path, last, _PAGE)
                page = [items.item_of(row) for row in found]
            yield from page
            last = page[-1].id if page else 0

    def matching(self, where: str, params: Params = (), *, checked: bool = True) -> Ids:
        """Return the ids, ascending, of the items for which an SQL expression holds; see `search`.

        checked: first compare all items with their checksums, as filtered searches do, once in a
        process; without, an item that was damaged may be left out. Raises UsageError for anything
        but one reading expression, IndexStoreError for damage.
        """
        with self._session.reading() as connection:
            if checked:
                self._integrity.require(connection)
            return matching_ids(connection, where, params)

    def get(self, ids: Sequence[int]) -> list[Item]:
        """Return items in the order of `ids`. Raises IndexStoreError that names unknown ids."""
        with self._session.reading() as connection:
            rows = upsert.checked_rows(connection, self.path, "id", {n for n in ids if _is_id(n)})
            found = {row[0]: items.item_of(row) for row in rows}
        self._refuse_unknown([number for number in ids if number not in found], "nothing was read")
        return [found[number] for number in ids]

    def by_path(self, paths: Iterable[str], *, checked: bool = True) -> dict[str, Item]:
        """Return the items that have these paths, by path.

        checked: where some are not there, make sure of it, as `matching` does.
        """
        with self._session.reading() as connection:
            rows = self._integrity.rows_by(connection, "path", set(paths), checked)
            return {str(row[2]): items.item_of(row) for row in rows}

    def by_content(self, digests: Iterable[str], *, checked: bool = True) -> dict[str, Item]:
        """Return the items whose photos have these sha256, by sha256; of equal ones the first.

        checked: as in `by_path`.
        """
        with self._session.reading() as connection:
            rows = self._integrity.rows_by(connection, "sha256", set(digests), checked)
            ordered = sorted(rows, key=lambda row: -row[0])
            return {str(row[4]): items.item_of(row) for row in ordered}

    def stats(self) -> Stats:
        """Return how many items there are, and where their codes lie."""
        with self._session.reading() as connection:
            return measure(connection, self.path, self.fingerprint, self.bits)

    # Changing it

    def add(
        self, given: Iterable[Item], progress: Callable[[int], None] = lambda done: None
    ) -> Added:
        """Add items, in bounded memory; what is there already is left alone or changed.

        An item is the one of its id if it gives one, else of its path, else of its content
        (sha256). Each BATCH of items is one transaction, all of it or nothing; progress(done) is
        called when `done` items are safely on the disk. Raises IndexStoreError, UsageError.
        """
        total, checker, source = Added(), items.Checker(self.bits), iter(given)
        with self._session.locked():
            while batch := list(islice(source, BATCH)):
                for item in batch:
                    checker.check(item)
                with self._session.transaction() as connection:
                    changes = upsert.plan(connection, batch, upsert.next_id(connection))
                    upsert.write(connection, changes)
                    derived.note(connection, changes.new(), changes.recoded(), [])
                total.new += changes.added.new
                total.changed += changes.added.changed
                total.known += changes.added.known
                progress(total.total)
                self._keeper.roll()
        return total

    def add_codes(
        self,
        codes: UInt8Array,
        ids: Sequence[int] | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> Added:
        """Add packed codes (N, bytes) without paths, quickly; with `ids` (N,) as `add` does."""
        check_packed("codes", codes)
        checker = items.Checker(self.bits)
        if ids is not None:
            if len(ids) != len(codes):
                raise UsageError(f"expected an id for each code: {len(codes)}, got {len(ids)}")
            numbers = np.asarray(ids).tolist()
            pairs = zip(codes, numbers, strict=True)
            return self.add((Item(None, c.tobytes(), id=n) for c, n in pairs), progress)
        checker.check_array(codes)
        with self._session.locked():
            for start in range(0, len(codes), _BULK):
                part = codes[start : start + _BULK]
                try:
                    self._add_bulk(part)
                except (OSError, SegmentError):  # the way of single items, which says what is wrong
                    self.add(Item(None, code.tobytes()) for code in part)
                progress(start + len(part))
        return Added(new=len(codes))

    def _add_bulk(self, codes: UInt8Array) -> None:
        """Add new codes in one transaction that writes their segment too."""
        with self._session.transaction() as connection:
            first = upsert.next_id(connection)
            ids = range(first, first + len(codes))
            upsert.insert_codes(connection, codes, first)
            if large := len(codes) >= derived.TAIL_ROWS:
                fresh = (np.arange(first, ids.stop), codes)
                derived.roll(connection, self.path, self._reader, fresh)
                derived.count(connection, len(codes), ids[-1])
            else:
                derived.note(connection, ids, [], [])
        if large:
            self._keeper.clear()
        else:
            self._keeper.roll()

    def relabel(self, labels: Mapping[str, str | None]) -> int:
        """Set the labels of items by path; returns how many were another before."""
        with self._session.locked(), self._session.transaction() as connection:
            rows = upsert.checked_rows(connection, self.path, "path", set(labels))
            changes = upsert.Changes()
            for row in rows:
                if row[3] != (label := labels[str(row[2])]):
                    changes.before[row[0]] = row
                    changes.after[row[0]] = (*row[:3], label, *row[4:])
            upsert.write(connection, changes)
        return len(changes.after)

    def remove(self, ids: Sequence[int]) -> int:
        """Remove items by id, all or none. Raises IndexStoreError that names unknown ids."""
        wanted = list(dict.fromkeys(ids))
        with self._session.locked(), self._session.transaction() as connection:
            rows = upsert.rows_by(connection, "id", [n for n in wanted if _is_id(n)])
            there = {row[0] for row in rows}
            self._refuse_unknown([n for n in wanted if n not in there], "nothing was removed")
            connection.executemany("DELETE FROM items WHERE id = ?", ((n,) for n in wanted))
            derived.note(connection, [], [], wanted)
        return len(wanted)

    def compact(
        self,
        progress: Progress = no_progress,
        multi_index: bool | None = None,
    ) -> None:
        """Write all codes anew, as one derived file without those of removed items.

        multi_index: whether to write look-up tables too (12 bytes an item at 64 bits), by which
        small numbers of queries are answered without reading all codes; default: if there were
        some. Raises UsageError where they would not pay.
        """
        if multi_index and (len(self) < MERGE_ROWS or not fits(len(self), code_bytes(self.bits))):
            raise UsageError(
                f"{self.path}: look-up tables pay for 57 to 64 or 121 to 128 bits and from "
                f"{MERGE_ROWS:,} items on, it has {len(self):,} of {self.bits} bits; leave them out"
            )
        with self._session.locked():
            self._keeper.compact(progress, multi_index)

    def verify(self, progress: Progress = no_progress) -> list[Problem]:
        """Check the database, every item and every derived file; make damaged derived files anew.

        An empty list is a clean index. Where it cannot be written, nothing is repaired.
        """
        if not self._session.writable:
            with self._session.reading() as connection:
                return inspect(connection, self._reader, self.path, self.bits, progress)[0]
        with self._session.locked():
            with self._session.reading() as connection:
                found, stale = inspect(connection, self._reader, self.path, self.bits, progress)
            if any(problem.fatal for problem in found):
                return found  # nothing is repaired over damage
            if stale:
                self._keeper.rebuild()
            self._keeper.clear()
        return [replace(one, repaired=not one.what.endswith(MISSING)) for one in found]

    # Querying

    def search(
        self,
        codes: UInt8Array,
        k: int = 10,
        *,
        where: str | None = None,
        params: Params = (),
        hashes: Hashes | None = None,
        threads: int | None = None,
    ) -> list[list[Hit]]:
        """Return the min(k, N) nearest items of each query code (Q, bytes), by (distance, id).

        where: an SQL expression on id, path, label, time, sha256 and json that answers must fulfil,
        with `params` for its `?` or `:name`. hashes: the queries' real-valued hashes (Q, bits); the
        nearest answers are then ordered by (cost, distance, id), see `rerank`. threads: default one
        for each core. Raises UsageError for bad arguments.
        """
        return self._querying.hits(codes, k, where, params, hashes, threads)

    def search_ids(
        self,
        codes: UInt8Array,
        k: int = 10,
        *,
        where: str | None = None,
        params: Params = (),
        threads: int | None = None,
    ) -> Found:
        """Return what `search` finds as ids int64 and distances uint16 (Q, min(k, N)): fastest."""
        return self._querying.nearest(codes, k, where, params, threads)

    def search_radius(
        self,
        code: UInt8Array,
        radius: int,
        *,
        where: str | None = None,
        params: Params = (),
        threads: int | None = None,
    ) -> list[Hit]:
        """Return all items within `radius` bits of one code (bytes,), by (distance, id)."""
        return self._querying.within(code, radius, where, params, threads)

    def _refuse_unknown(self, unknown: Sequence[int], so: str) -> None:
        if unknown:
            raise IndexStoreError(
                f"{self.path} has no item {', '.join(map(str, unknown[:5]))}; {so}; "
                "see: fgdeploy index list"
            )


def _is_id(number: object) -> bool:
    return isinstance(number, (int, np.integer)) and 0 < int(number) <= schema.MAX_ID
