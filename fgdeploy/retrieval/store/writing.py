"""Changes to an index: each batch a transaction, on the disk when it is acknowledged."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import UInt8Array
from fgdeploy.core.errors import IndexStoreError, UsageError
from fgdeploy.core.numbers import as_whole
from fgdeploy.core.text import counted, shown
from fgdeploy.retrieval.scan.search import check_packed
from fgdeploy.retrieval.store import derived, items, upsert
from fgdeploy.retrieval.store.embeddings import Embeddings, seals_of
from fgdeploy.retrieval.store.ids import IdSet, automatic, known_ids
from fgdeploy.retrieval.store.items import Added, Item, name_of
from fgdeploy.retrieval.store.keeping import Keeper
from fgdeploy.retrieval.store.segment import SegmentError
from fgdeploy.retrieval.store.session import Session
from fgdeploy.retrieval.store.snapshot import Reader
from fgdeploy.retrieval.store.thumbnails import AT_ONCE, Thumbnails, refuse_unaligned

BATCH = 1 << 14  # items in a transaction
_BULK = 1 << 18  # codes in a transaction that writes a segment

Told = Callable[[int], None]


class Writing:
    """Changes one index from any thread, one process at a time."""

    def __init__(
        self,
        session: Session,
        bits: int,
        reader: Reader,
        keeper: Keeper,
        embeddings: Embeddings,
        thumbnails: Thumbnails,
    ) -> None:
        self._session, self._reader, self._keeper = session, reader, keeper
        self._bits, self._folder, self._embeddings = bits, session.folder, embeddings
        self._thumbnails = thumbnails

    def add(
        self,
        given: Iterable[Item],
        told: Told,
        rows: npt.NDArray[np.floating] | None = None,
        jpegs: Sequence[bytes | None] | None = None,
    ) -> Added:
        """Add items, BATCH in a transaction; told(done) when so many are on the disk.

        rows: their embeddings (N, width), jpegs: their thumbnails, both written in the same
        transactions.
        """
        total, checker, source = Added(), items.Checker(self._bits), iter(_several(given))
        if rows is not None:
            _check_aligned(given, rows)
        if jpegs is not None:
            refuse_unaligned(given, jpegs)
        most = BATCH if jpegs is None else AT_ONCE
        taken, automatic_ids = _ids_given(given), IdSet()
        with self._session.locked():
            while batch := [checker.check(item) for item in islice(source, most)]:
                for item in batch:
                    _refuse_taken(item, automatic_ids)
                    if item.id is not None:
                        taken.add(item.id)
                with self._session.transaction() as connection:
                    changes = upsert.plan(connection, batch, taken)
                    upsert.write(connection, changes)
                    derived.note(connection, changes.new(), changes.recoded(), [])
                    if rows is not None:
                        part = rows[total.total : total.total + len(batch)]
                        self._embed(connection, batch, changes.ids, part)
                    if jpegs is not None:
                        own = jpegs[total.total : total.total + len(batch)]
                        self._thumbnails.write(connection, batch, changes.ids, own)
                for number in changes.automatic:
                    automatic_ids.add(number)
                if rows is not None:
                    self._embeddings.clear()
                total += changes.added
                told(total.total)
                self._keeper.roll()
        return total

    def _embed(
        self,
        connection: sqlite3.Connection,
        batch: Sequence[Item],
        ids: Sequence[int | None],
        rows: npt.NDArray[np.floating],
    ) -> None:
        """Write the embeddings of a batch whose items got these ids, None for copies left out."""
        checked = self._embeddings.checked(connection, batch, rows)
        kept = [place for place, number in enumerate(ids) if number is not None]
        own = [replace(batch[place], id=ids[place]) for place in kept]
        numbers = np.array([item.id for item in own], np.int64)
        self._embeddings.append(connection, numbers, seals_of(own), checked[kept])

    def add_codes(self, codes: UInt8Array, ids: Sequence[int] | None, told: Told) -> Added:
        """Add packed codes (N, bytes), by `ids` (N,) or as new items."""
        check_packed("codes", codes)
        if ids is not None:
            numbers = known_ids(ids.tolist() if isinstance(ids, np.ndarray) else ids)
            if len(numbers) != len(codes):
                raise UsageError(f"expected an id for each code: {len(codes)}, got {len(numbers)}")
            pairs = zip(codes, numbers, strict=True)
            return self.add((Item(None, c.tobytes(), id=n) for c, n in pairs), told)
        items.Checker(self._bits).check_array(codes)
        with self._session.locked():
            for start in range(0, len(codes), _BULK):
                part = codes[start : start + _BULK]
                try:
                    self._add_bulk(part)
                except (OSError, SegmentError):  # the way of single items, which says what is wrong
                    self.add((Item(None, code.tobytes()) for code in part), _nobody)
                told(start + len(part))
        return Added(new=len(codes))

    def _add_bulk(self, codes: UInt8Array) -> None:
        """Add new codes in one transaction that writes their segment too."""
        with self._session.transaction() as connection:
            first = upsert.first_free(connection)
            ids = range(first, first + len(codes))
            next(automatic(ids[-1], IdSet()))  # an id is left for the last of them too
            upsert.insert_codes(connection, codes, first)
            if large := len(codes) >= derived.TAIL_ROWS:
                fresh = (np.arange(first, ids.stop), codes)
                derived.roll(connection, self._session.root, self._reader, fresh)
                derived.count(connection, len(codes), ids[-1])
            else:
                derived.note(connection, ids, [], [])
        if large:
            self._keeper.clear()
        else:
            self._keeper.roll()

    def relabel(self, labels: Mapping[str, str | None]) -> int:
        """Set the labels of items by path; returns how many were another before."""
        _check_labels(labels)
        with self._session.locked(), self._session.transaction() as connection:
            rows = upsert.checked_rows(connection, self._folder, "path", set(labels))
            changes = upsert.Changes()
            for row in rows:
                if row[3] != (label := labels[str(row[2])]):
                    changes.before[row[0]] = row
                    changes.after[row[0]] = (*row[:3], label, *row[4:])
            upsert.write(connection, changes)
        return len(changes.after)

    def remove(self, ids: Iterable[int]) -> int:
        """Remove items by id, all or none."""
        wanted = list(dict.fromkeys(known_ids(ids)))
        with self._session.locked(), self._session.transaction() as connection:
            there = {row[0] for row in upsert.rows_by(connection, "id", upsert.possible(wanted))}
            refuse_unknown(self._folder, (n for n in wanted if n not in there), "removed")
            connection.executemany("DELETE FROM items WHERE id = ?", ((n,) for n in wanted))
            derived.note(connection, [], [], wanted)
        return len(wanted)


def refuse_unknown(folder: Path, unknown: Iterable[int], done: str) -> None:
    """Raise IndexStoreError that names ids which an index has not, if there are any."""
    if names := ", ".join(shown(number) for number in islice(unknown, 5)):
        raise IndexStoreError(
            f"{folder} has no item {names}; nothing was {done}; see: fgdeploy index list"
        )


def _nobody(done: int) -> None:
    """Take a number that nobody is to be told."""


def _several(given: Iterable[Item]) -> Iterable[Item]:
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise UsageError(f"expected items in a list, got {shown(given)}; give [Item(...)]")
    return given


def _check_aligned(given: Iterable[Item], rows: npt.NDArray[np.floating]) -> None:
    if not isinstance(given, Sequence):
        raise UsageError("embeddings need their items in a list, one for each row; give both so")
    if getattr(rows, "ndim", 0) != 2 or len(rows) != len(given):
        raise UsageError(
            f"expected an embedding for each item, {counted(len(given), 'row')}, got "
            f"{shown(getattr(rows, 'shape', type(rows).__name__))}"
        )


def _ids_given(given: Iterable[Item]) -> IdSet:
    """Return the ids that items give, as far as these can be looked at twice."""
    if not isinstance(given, Sequence):
        return IdSet()
    numbers = (as_whole(getattr(item, "id", None)) for item in given)
    return IdSet(upsert.possible(number for number in numbers if number is not None))


def _refuse_taken(item: Item, automatic_ids: IdSet) -> None:
    """Refuse an id that an item of an earlier transaction of this call was given."""
    if item.id is not None and item.id in automatic_ids:
        raise UsageError(
            f"{name_of(item)}: an item before it that gives no id got id {item.id}; "
            "give all items ids or none, or all of them in a list"
        )


def _check_labels(labels: Mapping[str, str | None]) -> None:
    if not isinstance(labels, Mapping):
        raise UsageError(f"expected labels by path, got {shown(labels)}; give {{path: label}}")
    for path, label in labels.items():
        if not isinstance(path, str) or not isinstance(label, (str, type(None))):
            raise UsageError(f"expected a path and its label in text, got {path!r}: {label!r}")
