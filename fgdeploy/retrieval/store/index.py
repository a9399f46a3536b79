"""The gallery index `NAME.fgi/`: SQLite holds every item, derived files make searching it fast.

Writing: one process at a time, each batch a transaction, on the disk when it is acknowledged.
Reading: any number of processes and threads; each search sees one transaction, never half of one.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from fgdeploy.core import machine
from fgdeploy.core.closing import Closing
from fgdeploy.core.codes import UInt8Array, code_bytes
from fgdeploy.core.errors import IndexStoreError
from fgdeploy.core.progress import Notify, Progress, no_progress
from fgdeploy.retrieval.scan.search import Found
from fgdeploy.retrieval.store import items, upsert
from fgdeploy.retrieval.store.derived import require_tables_pay
from fgdeploy.retrieval.store.embeddings import Embeddings
from fgdeploy.retrieval.store.ids import known_ids, texts_of
from fgdeploy.retrieval.store.index_state import state_of
from fgdeploy.retrieval.store.integrity import Integrity
from fgdeploy.retrieval.store.items import Added, Hit, Item
from fgdeploy.retrieval.store.keeping import Keeper
from fgdeploy.retrieval.store.label_counts import Labels
from fgdeploy.retrieval.store.making import Taken, folder_of, make
from fgdeploy.retrieval.store.meta import read_meta
from fgdeploy.retrieval.store.notes import Notes
from fgdeploy.retrieval.store.querying import Querying
from fgdeploy.retrieval.store.rerank import Hashes
from fgdeploy.retrieval.store.reranking import EmbeddingRows, chosen
from fgdeploy.retrieval.store.segment import Ids
from fgdeploy.retrieval.store.session import Session, settled
from fgdeploy.retrieval.store.snapshot import Reader
from fgdeploy.retrieval.store.stats import Stats, measure
from fgdeploy.retrieval.store.thumbnails import Thumbnails
from fgdeploy.retrieval.store.verifying import Problem
from fgdeploy.retrieval.store.where import Params, matching_ids
from fgdeploy.retrieval.store.writing import Writing, refuse_unknown

_PAGE = 1000  # items read at once
_TRIES = 5  # at opening an index that others make and remove

_log = logging.getLogger("fgdeploy")


class Index(Closing):
    """A gallery index, opened for reading and writing; a context manager, usable from threads.

    One process writes at a time (a second is told), any number read. bundle: where the bundle that
    built it lay then, None if nobody said. embeddings, thumbnails, notes, labels: what it keeps.
    filters: what a `where` may cost, to be set.
    """

    def __init__(self, session: Session, notify: Notify) -> None:
        self.path, self._session, self.filters = session.folder, session, session.filters
        self.name, meta = str(session.folder), read_meta(session)
        self.bits, self.fingerprint = int(meta["bits"]), meta["fingerprint"]
        self.bundle = Path(meta["bundle"]) if "bundle" in meta else None
        self.uid = meta["uid"]  # no other index has it, but for copies of this one
        uid, width = bytes.fromhex(meta["uid"]), code_bytes(self.bits)
        self._reader = Reader(session.root, width, uid, machine.cores())
        self.embeddings = Embeddings(session, uid, self.fingerprint, machine.cores())
        self.thumbnails, self.notes = Thumbnails(session), Notes(session)
        kept = self.embeddings, self.thumbnails
        self._keeper = Keeper(session, self._reader, *kept, notify)
        self._integrity = Integrity(session.folder)
        self.labels = Labels(session, self._integrity)
        self._querying = Querying(
            session, self.bits, self._reader, self._integrity, self._keeper.heal, self.embeddings
        )
        self._writing = Writing(session, self.bits, self._reader, self._keeper, *kept)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        fingerprint: str,
        bits: int,
        notify: Notify = _log.warning,
    ) -> Index:
        """Make an empty index for one model. Raises IndexStoreError if something is there."""
        folder = folder_of(path)
        make(folder, fingerprint, bits)
        return cls.open(folder, notify)

    @classmethod
    def open_or_create(
        cls,
        path: str | os.PathLike[str],
        fingerprint: str,
        bits: int,
        notify: Notify = _log.warning,
    ) -> tuple[Index, bool]:
        """Open the index of a model, or make it, whatever other processes do; True if it was made.

        Raises IndexStoreError if it is of another model, or as `open` and `create` do.
        """
        folder, failures = folder_of(path), 0
        while True:
            made = not os.path.lexists(folder)
            try:
                if made:
                    make(folder, fingerprint, bits)
            except Taken:
                made = False  # another process was faster
            try:
                index = cls.open(folder, notify)
            except IndexStoreError:
                # Whoever made it may have removed it, empty, since, and another made it again.
                failures += os.path.lexists(folder)
                if failures == _TRIES:
                    raise
                continue
            return index._of(fingerprint, bits), made

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], notify: Notify = _log.warning, read_only: bool = False
    ) -> Index:
        """Open an index, brought to today's schema if it is older.

        notify: told when derived files were damaged and made again. read_only: refuse all changes.
        Raises IndexStoreError if the index is missing, damaged or of a later schema.
        """
        session = functools.partial(Session, read_only=True) if read_only else Session
        return settled(folder_of(path), session, lambda opened: cls(opened, notify))

    def close(self) -> None:
        """Close the database when other threads' searches and changes have ended."""
        self._session.close()

    def _of(self, fingerprint: str, bits: int) -> Index:
        """Return it if it is of this model, else close it and raise IndexStoreError."""
        try:
            self.require(fingerprint, bits)
        except BaseException:
            self.close()
            raise
        return self

    def __reduce__(self) -> tuple[object, ...]:
        self._session.refuse_closed()
        return _reopen, (str(self._session.root), self.fingerprint, self.bits)

    def is_current(self) -> bool:
        """Return whether this index still lies at its path: it was not removed, moved or replaced.

        All use of one that was is refused with IndexStoreError.
        """
        return self._session.is_current()

    @property
    def wrote(self) -> bool:
        """Whether a change was acknowledged since the index was opened."""
        return self._session.wrote

    def delete_if_empty(self) -> bool:
        """Remove the index from the disk if it holds nothing, and say whether it did.

        The write lock is held until its folder has gone, so no other process's items go with it.
        """
        with self._session.locked():
            if len(self):
                return False
            folder = self._session.root
            aside = folder.with_name(f".{folder.name}.{os.getpid()}.old")
            os.rename(folder, aside)
            self.close()
        shutil.rmtree(aside)
        return True

    def require(self, fingerprint: str, bits: int) -> None:
        """Raise IndexStoreError unless codes of this model belong into the index."""
        if (fingerprint, bits) != (self.fingerprint, self.bits):
            raise IndexStoreError(
                f"{self.path} holds {self.bits}-bit codes of model {self.fingerprint[:12]}, these "
                f"are {bits}-bit codes of model {str(fingerprint)[:12]}; their distances mean "
                "nothing: use the bundle that built the index, or build a new index"
            )

    def remember_bundle(self, bundle: str | os.PathLike[str]) -> None:
        """Note where the bundle lies whose codes go in. Raises IndexStoreError."""
        path = Path(os.path.abspath(bundle))
        if path != self.bundle:
            self.notes.set("bundle", str(path))
            self.bundle = path

    # What is in it

    def __len__(self) -> int:
        with self._session.reading() as connection:
            return state_of(connection, self.path).items

    def items(
        self, where: str | None = None, params: Params = (), *, after: int = -1
    ) -> Iterator[Item]:
        """Yield all items, or those for which `where` holds, in order of id; ids above `after`.

        Read in pages, each item as it is when its turn comes, so that writers need not wait.
        """
        if where is not None:
            ids = self.matching(where, params)
            ids = ids[ids > after]
            for start in range(0, len(ids), _PAGE):
                with self._session.reading() as connection:
                    part = ids[start : start + _PAGE].tolist()
                    rows = sorted(upsert.checked_rows(connection, self.path, "id", part))
                yield from map(items.item_of, rows)
            return
        last: int | None = after  # the first id is 0
        while last is not None:
            with self._session.reading() as connection:
                if last < 0:
                    self._integrity.require_whole(connection)
                found = upsert.rows_after(connection, self.path, last, _PAGE)
            yield from map(items.item_of, found)
            last = found[-1][0] if found else None

    def matching(self, where: str, params: Params = (), *, checked: bool = True) -> Ids:
        """Return the ids, ascending, of the items for which an SQL expression holds; see `search`.

        checked: first compare all items with their checksums, as filtered searches do, once in a
        process; without, an item that was damaged may be left out. Raises UsageError for anything
        but one reading expression, IndexStoreError for damage.
        """
        with self._session.reading() as connection:
            if checked:
                self._integrity.require(connection)
            return matching_ids(connection, where, params, self.filters)

    def get(self, ids: Sequence[int]) -> list[Item]:
        """Return items in the order of `ids`. Raises IndexStoreError that names unknown ids."""
        found = self.by_id(wanted := known_ids(ids))
        refuse_unknown(self.path, (number for number in wanted if number not in found), "read")
        return [found[number] for number in wanted]

    def by_id(self, ids: Iterable[int]) -> dict[int, Item]:
        """Return the items that have these ids, by id."""
        wanted = upsert.possible(known_ids(ids))
        with self._session.reading() as connection:
            rows = upsert.checked_rows(connection, self.path, "id", set(wanted))
            return {row[0]: items.item_of(row) for row in rows}

    def by_path(self, paths: Iterable[str], *, checked: bool = True) -> dict[str, Item]:
        """Return the items that have these paths, by path.

        checked: where some are not there, make sure of it, as `matching` does.
        """
        with self._session.reading() as connection:
            rows = self._integrity.rows_by(connection, "path", texts_of("paths", paths), checked)
            return {str(row[2]): items.item_of(row) for row in rows}

    def by_content(self, digests: Iterable[str], *, checked: bool = True) -> dict[str, Item]:
        """Return the items whose photos have these sha256, by sha256; of equal ones the first.

        checked: as in `by_path`.
        """
        wanted = texts_of("digests", digests)
        with self._session.reading() as connection:
            rows = self._integrity.rows_by(connection, "sha256", wanted, checked)
            ordered = sorted(rows, key=lambda row: -row[0])
            return {str(row[4]): items.item_of(row) for row in ordered}

    def has_label(self, label: str) -> bool:
        """Return whether some item has this label."""
        return len(self.matching("label = ?", (label,), checked=False)) > 0

    def ids_of_content(self, digest: str) -> list[int]:
        """Return the ids of all items whose photos have this sha256, ascending."""
        wanted = texts_of("digests", [digest])
        with self._session.reading() as connection:
            rows = self._integrity.rows_by(connection, "sha256", wanted, False)
            return sorted(row[0] for row in rows)

    def stats(self) -> Stats:
        """Return how many items there are, and where their codes lie."""
        with self._session.reading() as connection:
            kept = self.embeddings.measure(connection), self.thumbnails.measure(connection)
            return measure(connection, self._session.root, self.fingerprint, self.bits, *kept)

    # Changing it

    def add(
        self,
        given: Iterable[Item],
        progress: Callable[[int], None] = lambda done: None,
        embeddings: EmbeddingRows | None = None,
        thumbnails: Sequence[bytes | None] | None = None,
    ) -> Added:
        """Add items, in bounded memory; what is there already is left alone or changed.

        An item is the one of its id if it gives one, else of its path, else of its content. Each
        BATCH of items is one transaction, all of it or nothing; progress(done) is called when
        `done` items are safely on the disk. embeddings: float (N, width) for a list of items, in
        the same transactions, where the index keeps some; thumbnails: JPEGs, likewise
        (`fgdeploy.photos.thumbnail`). Raises IndexStoreError, UsageError.
        """
        return self._writing.add(given, progress, embeddings, thumbnails)

    def add_codes(
        self,
        codes: UInt8Array,
        ids: Sequence[int] | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> Added:
        """Add packed codes (N, bytes) without paths, quickly; with `ids` (N,) as `add` does."""
        return self._writing.add_codes(codes, ids, progress)

    def relabel(self, labels: Mapping[str, str | None]) -> int:
        """Set the labels of items by path; returns how many were another before."""
        return self._writing.relabel(labels)

    def remove(self, ids: Sequence[int]) -> int:
        """Remove items by id, all or none. Raises IndexStoreError that names unknown ids."""
        return self._writing.remove(ids)

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
        if multi_index:
            require_tables_pay(self.path, len(self), self.bits)
        with self._session.locked():
            self._keeper.compact(progress, multi_index)

    def verify(self, progress: Progress = no_progress) -> list[Problem]:
        """Check the database, every item and every derived file; make damaged derived files anew.

        An empty list is a clean index. Where it cannot be written, nothing is repaired; embeddings
        are not either, since only the photos can make them again.
        """
        with self._session.locked() if self._session.writable else contextlib.nullcontext():
            return self._keeper.verify(self.bits, progress)

    def search(
        self,
        codes: UInt8Array,
        k: int = 10,
        *,
        where: str | None = None,
        params: Params = (),
        hashes: Hashes | None = None,
        embeddings: EmbeddingRows | None = None,
        pool: int | None = None,
        threads: int | None = None,
    ) -> list[list[Hit]]:
        """Return the min(k, N) nearest items of each query code (Q, bytes), by (distance, id).

        where: an SQL expression on id, path, label, time, sha256 and json that answers must fulfil,
        with `params` for its `?` or `:name`. hashes: the queries' real-valued hashes (Q, bits), or
        embeddings: theirs (Q, width), of which the index must keep some; the `pool` nearest answers
        (default POOL * k) are then ordered by (cost, distance, id), see `reranking`. threads:
        default one for each core. Raises UsageError for bad arguments, IndexStoreError without
        embeddings.
        """
        by = chosen(hashes, embeddings, pool)
        return self._querying.hits(codes, k, where, params, by, threads)

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


def _reopen(path: str, fingerprint: str, bits: int) -> Index:
    """Open what was pickled or copied. Raises IndexStoreError if it is of another model by now."""
    return Index.open(path)._of(fingerprint, bits)
