"""Small pictures of items, kept in the database, for a later model to hash where no photo is.

They are changed in the transaction that changes their items, and go with them: by triggers, which
also hold where an fgdeploy of before removes an item or gives it another photo.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fgdeploy.core.errors import IndexStoreError, UsageError
from fgdeploy.core.text import counted
from fgdeploy.retrieval.store.checksums import code_checksum, is_code
from fgdeploy.retrieval.store.items import Item, name_of
from fgdeploy.retrieval.store.session import Session

MOST_BYTES = 1 << 16  # of one
AT_ONCE = 1 << 10  # items in a transaction, so that their pictures fit SQLite's cache
_KEYS_AT_ONCE = 500  # parameters of one statement
_JPEG = b"\xff\xd8\xff"

# Made when first needed: an index without them is as it was before there were any.
_SCHEMA = {
    "thumbnails": (
        "CREATE TABLE thumbnails (id INTEGER PRIMARY KEY, jpeg BLOB NOT NULL, crc INTEGER NOT NULL)"
    ),
    "thumbnails_removed": (
        "CREATE TRIGGER thumbnails_removed AFTER DELETE ON items "
        "BEGIN DELETE FROM thumbnails WHERE id = OLD.id; END"
    ),
    "thumbnails_replaced": (
        "CREATE TRIGGER thumbnails_replaced AFTER UPDATE OF code, sha256 ON items "
        "WHEN OLD.code IS NOT NEW.code OR OLD.sha256 IS NOT NEW.sha256 "
        "BEGIN DELETE FROM thumbnails WHERE id = OLD.id; END"
    ),
}


@dataclass(frozen=True)
class ThumbnailStats:
    """The thumbnails of an index: how many, and their bytes."""

    count: int
    bytes: int


class Thumbnails:
    """What `Index.thumbnails` offers; usable from threads."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def kept(self) -> bool:
        """Whether the index keeps thumbnails."""
        with self._session.reading() as connection:
            return are_kept(connection)

    def keep(self) -> None:
        """Keep the thumbnails that come with items from now on. Raises IndexStoreError."""
        if not self.kept:
            with self._session.locked(), self._session.transaction() as connection:
                if not are_kept(connection):
                    for statement in _SCHEMA.values():
                        connection.execute(statement)

    def drop(self) -> int:
        """Keep none any more, and remove those that are there; return how many they were."""
        with self._session.locked(), self._session.transaction() as connection:
            found = self.measure(connection)
            for name in ("thumbnails_removed", "thumbnails_replaced"):
                connection.execute(f"DROP TRIGGER IF EXISTS {name}")
            connection.execute("DROP TABLE IF EXISTS thumbnails")
        return 0 if found is None else found.count

    def put(self, items: Sequence[Item], jpegs: Sequence[bytes]) -> int:
        """Put thumbnails to items as the index gave them, in one transaction; returns how many.

        An item that is gone, or has another photo by now, gets none. Raises UsageError for what is
        no JPEG of up to MOST_BYTES, IndexStoreError where the index keeps none.
        """
        refuse_unaligned(items, jpegs)
        with self._session.locked(), self._session.transaction() as connection:
            there = {
                number: (code, sha256)
                for number, code, sha256 in _by_id(
                    connection, "id, code, sha256", "items", [item.id or 0 for item in items]
                )
            }
            same = [there.get(item.id) == (item.code, item.sha256 or None) for item in items]
            ids = [item.id if fits else None for item, fits in zip(items, same, strict=True)]
            self.write(connection, items, ids, jpegs)
        return sum(same)

    def has(self, ids: Sequence[int]) -> set[int]:
        """Return those of the ids that have a thumbnail."""
        with self._session.reading() as connection:
            if not are_kept(connection):
                return set()
            return {row[0] for row in _by_id(connection, "id", "thumbnails", ids)}

    def read(self, ids: Sequence[int]) -> dict[int, bytes]:
        """Return the JPEGs of those of the ids that have one; a damaged one, which `verify` names,
        counts as none."""
        with self._session.reading() as connection:
            if not are_kept(connection):
                return {}
            rows = _by_id(connection, "id, jpeg, crc", "thumbnails", ids)
            return {number: jpeg for number, jpeg, crc in rows if _is_whole(number, jpeg, crc)}

    # Within the transaction of others

    def write(
        self,
        connection: sqlite3.Connection,
        items: Sequence[Item],
        ids: Sequence[int | None],
        jpegs: Sequence[bytes | None],
    ) -> None:
        """Write the thumbnails of items that got these ids; None for an item or picture left out.

        Raises UsageError, IndexStoreError.
        """
        if not are_kept(connection):
            folder = self._session.folder
            raise IndexStoreError(
                f"{folder} keeps no thumbnails; begin with: index.thumbnails.keep(), or "
                f"fgdeploy index add {folder} PHOTOS --keep-thumbnails"
            )
        rows = []
        for item, number, jpeg in zip(items, ids, jpegs, strict=True):
            if jpeg is not None:
                _check(item, jpeg)
                if number is not None:
                    rows.append((number, jpeg, code_checksum(number, jpeg)))
        connection.executemany("INSERT OR REPLACE INTO thumbnails VALUES (?, ?, ?)", rows)

    def measure(self, connection: sqlite3.Connection) -> ThumbnailStats | None:
        """Return the numbers of the open transaction, None where none are kept."""
        if not are_kept(connection):
            return None
        query = "SELECT count(*), ifnull(sum(length(jpeg)), 0) FROM thumbnails"
        return ThumbnailStats(*connection.execute(query).fetchone())

    def inspect(self, connection: sqlite3.Connection) -> list[str]:
        """Return what is wrong with thumbnails in the open transaction."""
        if not are_kept(connection):
            return []
        named = dict(connection.execute("SELECT name, sql FROM sqlite_master"))
        found = [
            f"thumbnails: {name} is not what it was; copy the items with: fgdeploy index export"
            for name, statement in _SCHEMA.items()
            if named.get(name) != statement
        ]
        rows = connection.execute("SELECT id, jpeg, crc FROM thumbnails")
        changed = [number for number, jpeg, crc in rows if not _is_whole(number, jpeg, crc)]
        strays = "SELECT count(*) FROM thumbnails WHERE id NOT IN (SELECT id FROM items)"
        (left,) = connection.execute(strays).fetchone()
        if changed:
            found.append(
                f"thumbnails: {len(changed)} changed (CRC), the first of item {changed[0]}"
            )
        if left:
            found.append(f"thumbnails: {left} of no item")
        return found


def are_kept(connection: sqlite3.Connection) -> bool:
    """Return whether the index keeps thumbnails."""
    query = "SELECT 1 FROM sqlite_master WHERE name = 'thumbnails'"
    return connection.execute(query).fetchone() is not None


def refuse_unaligned(items: Iterable[Item], jpegs: Sequence[bytes | None]) -> None:
    """Raise UsageError unless these are lists with a thumbnail, or None, for each item."""
    if not isinstance(items, Sequence) or not isinstance(jpegs, Sequence):
        raise UsageError("thumbnails and their items come in lists, one for each; give both so")
    if len(items) != len(jpegs):
        raise UsageError(
            f"expected a thumbnail, or None, for each of {counted(len(items), 'item')}, "
            f"got {len(jpegs)}"
        )


def _check(item: Item, jpeg: object) -> None:
    if not isinstance(jpeg, bytes) or not jpeg.startswith(_JPEG):
        raise UsageError(
            f"{name_of(item)}: its thumbnail is no JPEG in bytes; make it with "
            "fgdeploy.photos.thumbnail"
        )
    if len(jpeg) > MOST_BYTES:
        raise UsageError(
            f"{name_of(item)}: its thumbnail has {len(jpeg):,} bytes, expected at most "
            f"{MOST_BYTES:,}; make it with fgdeploy.photos.thumbnail"
        )


def _is_whole(number: int, jpeg: object, crc: object) -> bool:
    return isinstance(jpeg, bytes) and isinstance(crc, int) and is_code(number, jpeg, crc)


def _by_id(
    connection: sqlite3.Connection, columns: str, table: str, ids: Sequence[int]
) -> Iterable[Any]:
    for start in range(0, len(ids), _KEYS_AT_ONCE):
        part = ids[start : start + _KEYS_AT_ONCE]
        marks = ", ".join("?" * len(part))
        yield from connection.execute(f"SELECT {columns} FROM {table} WHERE id IN ({marks})", part)
