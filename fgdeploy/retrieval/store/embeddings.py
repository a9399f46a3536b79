"""The embeddings that an index keeps beside its codes, for re-ranking by cosine.

The photos are their truth, not the database: from codes no embedding comes back, and in the
database they would make every item a hundred times as large. So the database holds what proves
them: which files there are and their CRCs, changed in the transaction that changes the items. A
damaged file is refused by name, and searches by codes go on. What is missing is made again from
the photos (`fgdeploy index embed`).
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fgdeploy.core.errors import IndexStoreError, UsageError
from fgdeploy.core.numbers import as_whole
from fgdeploy.core.text import counted, shown
from fgdeploy.retrieval.store import embedding_file, schema
from fgdeploy.retrieval.store.embedding_file import (
    KINDS,
    EmbeddingFileError,
    Owner,
    RowFormat,
    Rows,
    Seals,
    seal_of,
)
from fgdeploy.retrieval.store.items import Item, name_of
from fgdeploy.retrieval.store.segment import BLOCK_ROWS, Ids
from fgdeploy.retrieval.store.session import Session
from fgdeploy.retrieval.store.shelf import Shelf
from fgdeploy.retrieval.store.sqlite_errors import damaged

MERGE_ROWS = 1 << 16  # files from this size on are only put together by `compact`
MOST_WIDTH = 1 << 16

_KEY = "embeddings"  # in the table `meta`
# Made when it is first needed: an index without embeddings is as it was before there were any.
_TABLE = (
    "CREATE TABLE IF NOT EXISTS embeddings (number INTEGER PRIMARY KEY AUTOINCREMENT, "
    "rows INTEGER NOT NULL, crc INTEGER NOT NULL)"
)


@dataclass(frozen=True)
class EmbeddingStats:
    """The embeddings of an index. kind: float or int8; width: values in a row.

    files: (number, rows, bytes) of each; rows of photos that were removed or replaced since count
    until `compact`. row_bytes: what one takes in a file.
    """

    kind: str
    width: int
    row_bytes: int
    files: tuple[tuple[int, int, int], ...]


class Embeddings:
    """What `Index.embeddings` offers; usable from threads."""

    def __init__(self, session: Session, uid: bytes, fingerprint: str, threads: int) -> None:
        self._session, self._threads = session, threads
        self._owner = Owner(uid, fingerprint)
        self._folder = session.root
        self._open: dict[int, Rows] = {}
        self._mutex = threading.Lock()

    @property
    def path(self) -> Path:
        """The path of the index, as it was named."""
        return self._session.folder

    @property
    def form(self) -> RowFormat | None:
        """How the index keeps embeddings, None if it keeps none."""
        with self._session.reading() as connection:
            return self.form_in(connection)

    def keep(self, kind: str, width: int) -> bool:
        """Keep embeddings of `width` values from now on, as "float" or "int8".

        Where they were kept otherwise, all are dropped, and True is returned. Raises UsageError for
        other kinds and widths, IndexStoreError.
        """
        number = as_whole(width)
        if kind not in KINDS:
            raise UsageError(f"embeddings as {shown(kind)}: expected {' or '.join(KINDS)}")
        if number is None or not 1 <= number <= MOST_WIDTH:
            raise UsageError(
                f"embeddings of width {shown(width)}: expected a whole number from 1 to "
                f"{MOST_WIDTH}"
            )
        form = RowFormat(kind, number)
        with self._session.locked():
            before = self.form
            if before != form:
                self._set(form)
        return before not in (None, form)

    def drop(self) -> bool:
        """Keep none any more, and remove those that are there; return whether any were kept."""
        with self._session.locked():
            before = self.form
            if before is not None:
                self._set(None)
        return before is not None

    def _set(self, form: RowFormat | None) -> None:
        with self._session.transaction() as connection:
            connection.execute(_TABLE)
            connection.execute("DELETE FROM embeddings")
            schema.set_meta(connection, _KEY, "" if form is None else str(form))
        self.forget()
        self.clear()

    def put(self, items: Sequence[Item], rows: npt.NDArray[np.floating]) -> None:
        """Put embeddings (N, width) to items as the index gave them, in one transaction.

        An item that was replaced by another photo meanwhile does not get it. Raises UsageError for
        other shapes and values that are not finite, IndexStoreError.
        """
        with self._session.locked():
            with self._session.transaction() as connection:
                checked = self.checked(connection, items, rows)
                ids = np.array([item.id for item in items], np.int64)
                self.append(connection, ids, seals_of(items), checked)
            self.clear()

    def has(self, items: Sequence[Item]) -> npt.NDArray[np.bool_]:
        """Return for which items (N,), as the index gave them, there is an embedding."""
        with self._session.reading() as connection:
            ids = np.array([item.id for item in items], np.int64)
            return np.asarray(self.shelf(connection).find(ids, seals_of(items))[0] >= 0)

    def mend(self) -> list[str]:
        """Forget damaged files, so that what they held can be put again; return what was wrong."""
        found = []
        self.forget()
        with self._session.locked():
            with self._session.transaction() as connection:
                for number, _, crc in listed(connection):
                    try:
                        self._opened(connection, number, crc)
                    except EmbeddingFileError as error:
                        found.append(str(error))
                        connection.execute("DELETE FROM embeddings WHERE number = ?", (number,))
            self.clear()
        return found

    def clear(self) -> None:
        """Remove the files that nobody needs; for whoever holds the writer's lock."""
        with self._session.reading() as connection:
            for path in left_over(connection, self._folder):
                with contextlib.suppress(OSError):  # one that stays does no harm
                    path.unlink()

    # Within the transaction of others

    def form_in(self, connection: sqlite3.Connection) -> RowFormat | None:
        """Return how embeddings are kept. Raises IndexStoreError where nothing says it clearly."""
        row = connection.execute("SELECT value FROM meta WHERE key = ?", (_KEY,)).fetchone()
        try:
            return RowFormat.of_text(row[0]) if row and row[0] else None
        except (ValueError, AttributeError):
            raise damaged(self.path, "its meta table is not whole") from None

    def required(self, connection: sqlite3.Connection) -> RowFormat:
        """Return how embeddings are kept. Raises IndexStoreError if none are."""
        if (form := self.form_in(connection)) is None:
            path = self.path
            raise IndexStoreError(
                f"{path} keeps no embeddings, so nothing can be ranked by them; make them from "
                f"its photos with: fgdeploy index embed {path} --embeddings float (or int8)"
            )
        return form

    def checked(
        self,
        connection: sqlite3.Connection,
        items: Sequence[Item],
        rows: npt.NDArray[np.floating],
    ) -> npt.NDArray[np.float32]:
        """Return embeddings of items as float32 (N, width). Raises UsageError, IndexStoreError."""
        form = self.required(connection)
        check_rows("embeddings", rows, len(items), form.width)
        narrow = np.asarray(rows, np.float32)
        if not (good := np.isfinite(narrow).all(axis=1)).all():
            bad = items[int(np.argmin(good))]
            raise UsageError(
                f"{name_of(bad)}: its embedding has NaN or infinite values; check the photo and "
                "the engine"
            )
        return narrow

    def append(
        self,
        connection: sqlite3.Connection,
        ids: Ids,
        seals: Seals,
        rows: npt.NDArray[np.float32],
    ) -> None:
        """Write checked rows as a file, together with the latest ones that are not much larger.

        Raises IndexStoreError if it cannot be written.
        """
        if not len(ids):
            return
        form = self.required(connection)
        files, merged = [Rows.packed(form, ids, seals, rows)], list[int]()
        total = len(ids)
        for number, count, crc in reversed(listed(connection)):
            if count > min(2 * total, MERGE_ROWS):
                break
            try:
                files.append(self._opened(connection, number, crc))
            except EmbeddingFileError:  # it stays as it is, to be named when it is needed
                break
            merged.append(number)
            total += count
        shelf = Shelf(files)
        every, of_photos, found = shelf.latest()
        self._replace(connection, merged, form, shelf, (every, of_photos), found)

    def compact(self, connection: sqlite3.Connection) -> None:
        """Write the embeddings of all items as one file.

        Raises EmbeddingFileError for damaged ones, IndexStoreError if it cannot be written.
        """
        before = [number for number, _, _ in listed(connection)]
        if (form := self.form_in(connection)) is None or not before:
            return
        self.forget()  # what is copied gets new CRCs, so compare it with the old ones now
        shelf = self._shelf(connection)
        ids, seals = self._current(connection)
        files, rows = shelf.find(ids, seals)
        there = files >= 0
        index = ids[there], seals[there]
        self._replace(connection, before, form, shelf, index, (files[there], rows[there]))

    def inspect(self, connection: sqlite3.Connection) -> str | None:
        """Return what is wrong with the embeddings, looking at the files as they are now."""
        if self.form_in(connection) is None:
            return None
        self.forget()
        remedy = f"make them from the photos with: fgdeploy index embed {self.path}"
        try:
            shelf = self._shelf(connection)
        except EmbeddingFileError as error:
            return f"embeddings: {error}; {remedy}"
        ids, seals = self._current(connection)
        lacking = int(np.count_nonzero(shelf.find(ids, seals)[0] < 0))
        return f"embeddings: {counted(lacking, 'item')} without; {remedy}" if lacking else None

    def shelf(self, connection: sqlite3.Connection) -> Shelf:
        """Return the files that the open transaction sees, checked when they are first opened.

        Raises IndexStoreError for damaged ones.
        """
        self.required(connection)
        try:
            return self._shelf(connection)
        except EmbeddingFileError as error:
            path = self.path
            raise IndexStoreError(
                f"{path}: {error}, so nothing can be ranked by embeddings; search without, or "
                f"make them again from the photos with: fgdeploy index embed {path}"
            ) from error

    def measure(self, connection: sqlite3.Connection) -> EmbeddingStats | None:
        """Return the numbers of the open transaction, None without embeddings."""
        if (form := self.form_in(connection)) is None:
            return None
        files = []
        for number, rows, _ in listed(connection):
            size = 0
            with contextlib.suppress(OSError):
                size = embedding_file.path_of(self._folder, number).stat().st_size
            files.append((number, rows, size))
        return EmbeddingStats(form.kind, form.width, form.row_bytes, tuple(files))

    def forget(self) -> None:
        """Let go of all files, to open and check them anew."""
        with self._mutex:
            self._open.clear()

    def _replace(
        self,
        connection: sqlite3.Connection,
        old: Sequence[int],
        form: RowFormat,
        shelf: Shelf,
        index: tuple[Ids, Seals],
        found: tuple[Ids, Ids],
    ) -> None:
        """Write what was found as the one file in place of old ones."""
        connection.executemany("DELETE FROM embeddings WHERE number = ?", ((n,) for n in old))
        rows = len(index[0])
        if not rows:
            return
        entry = connection.execute("INSERT INTO embeddings (rows, crc) VALUES (?, 0)", (rows,))
        number = entry.lastrowid or 0
        pieces = shelf.pieces(found)
        try:
            crc = embedding_file.write(self._folder, number, form, self._owner, index, pieces)
        except OSError as error:
            raise IndexStoreError(
                f"{self.path}: embeddings cannot be written ({error.strerror}); nothing "
                "of this step was kept, make room and try again"
            ) from error
        connection.execute("UPDATE embeddings SET crc = ? WHERE number = ?", (crc, number))

    def _shelf(self, connection: sqlite3.Connection) -> Shelf:
        wanted = listed(connection)
        with self._mutex:
            for number in self._open.keys() - {number for number, _, _ in wanted}:
                del self._open[number]
        return Shelf([self._opened(connection, n, crc) for n, _, crc in reversed(wanted)])

    def _opened(self, connection: sqlite3.Connection, number: int, crc: int) -> Rows:
        with self._mutex:
            if number not in self._open:
                form = self.required(connection)
                arguments = self._folder, number, crc, form, self._owner, self._threads
                self._open[number] = embedding_file.opened(*arguments)
            return self._open[number]

    def _current(self, connection: sqlite3.Connection) -> tuple[Ids, Seals]:
        """Return ids, ascending, and seals of all items."""
        ids, seals = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
        with contextlib.closing(
            connection.execute("SELECT id, code, sha256 FROM items ORDER BY id")
        ) as rows:
            while part := rows.fetchmany(BLOCK_ROWS):
                ids.append(np.array([row[0] for row in part], np.int64))
                seals.append(np.array([seal_of(*row) for row in part], np.uint64))
        return np.concatenate(ids), np.concatenate(seals)


def listed(connection: sqlite3.Connection) -> list[tuple[int, int, int]]:
    """Return number, rows and CRC of each file that the open transaction sees, the oldest first."""
    there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'embeddings'").fetchone()
    if not there:
        return []
    found = connection.execute("SELECT number, rows, crc FROM embeddings ORDER BY number")
    # What damage has made of a number fits no file, which is said when the file is opened.
    return [
        (number, rows if type(rows) is int else 0, crc if type(crc) is int else -1)
        for number, rows, crc in found
    ]


def left_over(connection: sqlite3.Connection, folder: Path) -> list[Path]:
    """Return the files of embeddings that the database does not name, and unfinished ones."""
    named = {embedding_file.path_of(folder, number) for number, _, _ in listed(connection)}
    found = [*folder.glob("embeddings-*.rows"), *folder.glob(".embeddings-*.tmp")]
    return sorted(path for path in found if path not in named)


def seals_of(items: Sequence[Item]) -> Seals:
    """Return the seals of items that have ids."""
    return np.array([seal_of(item.id or 0, item.code, item.sha256) for item in items], np.uint64)


def check_rows(what: str, rows: npt.NDArray[np.floating], count: int, width: int) -> None:
    """Raise UsageError unless these are `count` rows of floats, `width` in each."""
    shape = getattr(rows, "shape", ())
    kind = getattr(getattr(rows, "dtype", None), "kind", "")
    if kind != "f" or shape != (count, width):
        raise UsageError(
            f"{what}: expected float ({count}, {width}), got "
            f"{getattr(rows, 'dtype', type(rows).__name__)} {shape}; make them with the bundle "
            "that built the index"
        )
