"""An index and the one that is to take its place: what the new one lacks, and the switch."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fgdeploy.core.closing import Closing
from fgdeploy.core.errors import IndexStoreError
from fgdeploy.core.exchange import exchange
from fgdeploy.retrieval.store import derived, lock
from fgdeploy.retrieval.store.index import Index
from fgdeploy.retrieval.store.index_state import state_of
from fgdeploy.retrieval.store.making import DATABASE
from fgdeploy.retrieval.store.sqlite_errors import explained

# A reader of the old index that has just made sure that it lies at its path then looks for its
# journal by name. So nobody may write a journal of the new one in these seconds.
_GRACE_S = 0.1

_LACKING = (
    "SELECT old.id FROM old.items AS old LEFT JOIN items AS fresh ON fresh.id = old.id "
    "WHERE old.id > ? AND (fresh.id IS NULL OR old.path IS NOT fresh.path "
    "OR old.label IS NOT fresh.label OR old.sha256 IS NOT fresh.sha256 "
    "OR old.time IS NOT fresh.time OR old.json IS NOT fresh.json) ORDER BY old.id LIMIT ?"
)
_SURPLUS = (
    "SELECT fresh.id FROM items AS fresh LEFT JOIN old.items AS old ON old.id = fresh.id "
    "WHERE old.id IS NULL ORDER BY fresh.id"
)
_PICTURES = (
    "SELECT old.id FROM old.thumbnails AS old JOIN items ON items.id = old.id "
    "LEFT JOIN thumbnails AS fresh ON fresh.id = old.id "
    "WHERE old.id > ? AND fresh.crc IS NOT old.crc ORDER BY old.id LIMIT ?"
)


class Succession(Closing):
    """Compares two opened indexes, item by item, all but their codes.

    Each answer is of one transaction of both. Raises IndexStoreError.
    """

    def __init__(self, old: Index, fresh: Index) -> None:
        self.old, self.fresh = old, fresh
        with explained(fresh.path):
            address = [f"{_database(index).as_uri()}?mode=ro" for index in (fresh, old)]
            self._both = sqlite3.connect(address[0], uri=True, isolation_level=None, timeout=60)
            self._both.execute("ATTACH ? AS old", (address[1],))

    def close(self) -> None:
        """Let go of both databases."""
        self._both.close()

    def lacking(self, after: int, most: int) -> list[int]:
        """Return up to `most` ids above `after` of items that the new index lacks, or has with
        other path, label, content, time or JSON."""
        return self._ids(_LACKING, after, most)

    def surplus(self) -> list[int]:
        """Return the ids of items that only the new index has."""
        return self._ids(_SURPLUS)

    def pictures(self, after: int, most: int) -> list[int]:
        """Return up to `most` ids above `after` of items of both whose thumbnails differ."""
        if not self.old.thumbnails.kept:
            return []
        self.fresh.thumbnails.keep()
        return self._ids(_PICTURES, after, most)

    def version(self) -> int:
        """Return the number of the old index's last transaction."""
        with self.old._session.reading() as connection:
            return state_of(connection, self.old.path).version

    def hand_over(self) -> None:
        """Let the new index give no id that the old one ever gave."""
        with self.old._session.reading() as connection:
            last = state_of(connection, self.old.path).last_id
        session = self.fresh._session
        with session.locked(), session.transaction() as connection:
            derived.count(connection, 0, last)

    def has_tables(self) -> bool:
        """Return whether the old index has look-up tables."""
        with self.old._session.reading() as connection:
            query = "SELECT count(*) FROM segments WHERE tables IS NOT NULL"
            return bool(connection.execute(query).fetchone()[0])

    def _ids(self, query: str, *values: int) -> list[int]:
        with explained(self.old.path), self.old._session.reading():
            return [row[0] for row in self._both.execute(query, values)]


@contextlib.contextmanager
def quiet(index: Index, wait_s: float | None = None) -> Iterator[None]:
    """Hold an index's write lock: nothing in it changes meanwhile.

    Raises IndexStoreError if another process has it for `wait_s` seconds.
    """
    with index._session.locked(wait_s):
        yield


def switch(old: Index, fresh: Path, sleep: Callable[[float], None] = time.sleep) -> None:
    """Exchange the folder of an index, whose write lock is held, and the one at `fresh`.

    `fresh` must not be open here. From now on a reader finds the new index, and whoever has the
    old one open is told that it was replaced. Raises IndexStoreError; then nothing has changed.
    """
    place = Path(os.path.realpath(old.path))
    with lock.held(fresh, 0):
        for folder in (place, fresh):
            if folder.joinpath(f"{DATABASE}-journal").exists():
                raise IndexStoreError(
                    f"{folder}: a writer is at work in it, or has been killed; run the command "
                    "again"
                )
        try:
            exchange(place, fresh)
        except OSError as error:
            raise IndexStoreError(
                f"{old.path} and {fresh} cannot change places ({error.strerror}); both are as "
                "they were"
            ) from error
        sleep(_GRACE_S)


def put_aside(source: Path, target: Path) -> None:
    """Move the folder of an index to where one that was kept before may lie, which goes.

    Raises IndexStoreError where something else lies there.
    """
    require_index(target)
    if target.exists():
        gone = source.with_name(f"{source.name}.gone")
        os.rename(target, gone)
        os.rename(source, target)
        shutil.rmtree(gone, ignore_errors=True)
    else:
        os.rename(source, target)


def require_index(path: Path) -> None:
    """Raise IndexStoreError if something else than an index lies there."""
    if os.path.lexists(path) and not path.joinpath(DATABASE).is_file():
        raise IndexStoreError(
            f"{path} is in the way, where the old index is to be kept; move or remove it"
        )


def _database(index: Index) -> Path:
    return Path(os.path.realpath(index.path)) / DATABASE
