"""Checking all items, before an answer depends on an item *not* being in it.

An answer is compared with its checksum when it is given; what damage has hidden from a filter or a
look-up is not in the answer. So before the first of these a process compares every item.
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from fgdeploy.core.text import counted
from fgdeploy.retrieval.store import upsert
from fgdeploy.retrieval.store.checksums import is_text
from fgdeploy.retrieval.store.index_state import state_of
from fgdeploy.retrieval.store.items import Row
from fgdeploy.retrieval.store.sqlite_errors import damaged
from fgdeploy.retrieval.store.thumbnails import are_kept

_CHANGED = (
    "SELECT id FROM items NOT INDEXED WHERE id > ? "
    "AND NOT is_text(crc, id, path, label, sha256, time, json) LIMIT 1"
)
_PLACES = {"path": 2, "sha256": 4}  # of columns in a row


class Integrity:
    """What is known of the items of the index in `folder`; usable from threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mutex = threading.Lock()
        self._version = -1
        self._last = -(1 << 63)  # the ids up to here were compared

    def require(self, connection: sqlite3.Connection) -> None:
        """Raise IndexStoreError unless the items that the open transaction sees are as added.

        The first time all are compared (under two seconds for a million), later those with new ids.
        """
        with self._mutex:
            state = state_of(connection, self._folder)
            if state.version == self._version:
                return
            if self._version < 0:
                self.require_whole(connection)
            connection.create_function("is_text", 7, is_text, deterministic=True)
            changed = connection.execute(_CHANGED, (self._last,)).fetchone()
            if changed is not None:
                raise damaged(self._folder, f"item {changed[0]} is not what was added (CRC)")
            self._version, self._last = state.version, state.last_id

    def require_whole(self, connection: sqlite3.Connection) -> None:
        """Raise IndexStoreError unless the table is well-formed and none of its items is gone."""
        expected = state_of(connection, self._folder).items
        # Thumbnails, which no answer depends on, may be a hundred times as large as the rest.
        what = "items" if are_kept(connection) else "1"
        line, *_ = connection.execute(f"PRAGMA quick_check({what})").fetchone()
        if line != "ok":
            raise damaged(self._folder, " ".join(line.split()))
        (count,) = connection.execute("SELECT count(*) FROM items NOT INDEXED").fetchone()
        if count != expected:
            raise damaged(self._folder, f"it holds {counted(count, 'item')} and says {expected}")

    def rows_by(
        self, connection: sqlite3.Connection, column: str, keys: set[str], checked: bool
    ) -> list[Row]:
        """Return the rows whose `column` (path or sha256) is among the keys, each one compared.

        checked: make sure that no row has any of the keys that were not found. Raises
        IndexStoreError for damage.
        """
        rows = list(upsert.checked_rows(connection, self._folder, column, keys))
        missing = keys - {row[_PLACES[column]] for row in rows}
        if checked and missing:
            self.require(connection)
            query = f"SELECT id, {column} FROM items NOT INDEXED WHERE {column} IS NOT NULL"
            for number, key in connection.execute(query):
                if key in missing:
                    raise damaged(self._folder, f"its index of {column} has lost item {number}")
        return rows
