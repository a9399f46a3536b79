"""The database of one index, opened: connections, transactions, the writer's lock."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from fgdeploy.core.errors import IndexStoreError
from fgdeploy.retrieval.store import index_state as state
from fgdeploy.retrieval.store import lock
from fgdeploy.retrieval.store.making import DATABASE, no_index
from fgdeploy.retrieval.store.sqlite_errors import explained
from fgdeploy.retrieval.store.where import FilterLimit

LOCK_WAIT_S = 5.0
_PATIENCE = 12  # times as long a commit waits for searches that run, and a search for a commit
_TRIES = 5  # at opening an index that others replace
_CACHE_KIB = 64 * 1024  # so that a batch fits: a writer that runs over shuts readers out early

_Opened = TypeVar("_Opened")


class _Connection(sqlite3.Connection):
    """Whoever works with it holds `busy` meanwhile."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.busy, self.process = threading.RLock(), os.getpid()
        super().__init__(*arguments, **options)

    def __del__(self) -> None:
        with contextlib.suppress(sqlite3.ProgrammingError):  # it could not even be opened
            self.close()


class _OfThread:
    """Closes a thread's connection as soon as the thread has ended.

    By itself it would wait for the garbage collector, which may be off: from Python 3.11 on a
    connection refers to its cache of statements, and that to it.
    """

    def __init__(self, connection: _Connection) -> None:
        self.connection, self.process = connection, connection.process

    def __del__(self, getpid: Callable[[], int] = os.getpid) -> None:
        if self.process == getpid():  # SQLite must not be touched after a fork
            self.connection.close()


def settled(
    folder: Path, open_there: Callable[[Path], Session], make: Callable[[Session], _Opened]
) -> _Opened:
    """Return what is made of a session; again where another index takes the place meanwhile."""
    for attempt in range(_TRIES):
        with explained(folder):
            before = _place_of(folder / DATABASE)
        try:
            session = open_there(folder)
            try:
                return make(session)
            except BaseException:
                session.close()
                raise
        except IndexStoreError:
            last = attempt == _TRIES - 1
            if last or before is None or _place_of(folder / DATABASE) in (before, None):
                raise
    raise AssertionError("the last attempt returns or raises")


def _place_of(database: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(database)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


class Session:
    """Connections to the database in an index's folder. writable: whether it may be changed.

    folder: as it was named; root: the same as an absolute path, for a process that changes its
    working folder. filters: what a `where` may cost. wrote: whether a transaction was acknowledged.
    When another index, or nothing, lies at the path later, all use is refused.
    """

    def __init__(self, folder: Path, read_only: bool = False) -> None:
        """Raises IndexStoreError if it cannot be opened."""
        self.folder, self.root = folder, Path(os.path.abspath(folder))
        self.wrote = False
        self.filters = FilterLimit()
        self._database = self.root / DATABASE
        with explained(folder):
            there = self._database.is_file()
        if not there:
            raise no_index(folder)
        may = (os.access(path, os.W_OK) for path in (self._database, self.root))
        self.writable = not read_only and all(may)
        mode = "rw" if self.writable else "ro"
        self._address = f"{self._database.resolve().as_uri()}?mode={mode}"
        self._place = self._place_now()
        self._local = threading.local()
        self._all: weakref.WeakSet[_Connection] = weakref.WeakSet()
        self._mutex, self._listing = threading.RLock(), threading.Lock()
        self._closed = self._holds_lock = False
        with explained(folder):
            try:
                self._anchor = self._of_thread()  # stays open: no other file gets its inode
                self._anchor.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                self._refuse_replaced()
            except BaseException:
                self.close()
                self._refuse_replaced()
                raise

    @property
    def connection(self) -> _Connection:
        """This thread's connection. Raises IndexStoreError if the index was closed."""
        return self._of_thread().connection

    def _of_thread(self) -> _OfThread:
        self.refuse_closed()
        held: _OfThread | None = getattr(self._local, "held", None)
        if held is None or held.process != os.getpid():  # a fork must not share one
            held = _OfThread(self._connect())
            self._refuse_replaced()  # none is kept that is of another index
            self._local.held = held
        return held

    def refuse_closed(self) -> None:
        """Raise IndexStoreError if the index was closed."""
        if self._closed:
            raise IndexStoreError(f"{self.folder} is closed; open the index anew")

    def _place_now(self) -> tuple[int, int] | None:
        """Return what tells the file at the database's path from all others, None if none is."""
        return _place_of(self._database)

    def is_current(self) -> bool:
        """Return whether the index that was opened, and not closed, lies at its path."""
        return not self._closed and self._place_now() == self._place

    def _refuse_replaced(self) -> None:
        place = self._place_now()
        if place is None:
            raise IndexStoreError(
                f"{self.folder} was removed by another process; run the command again"
            )
        if place != self._place:
            raise IndexStoreError(
                f"{self.folder} was replaced by another index since it was opened; open it anew"
            )

    @contextlib.contextmanager
    def _using(self) -> Iterator[_Connection]:
        """Give this thread's connection, which nobody closes meanwhile."""
        connection = self.connection
        with connection.busy:
            self.refuse_closed()
            self._refuse_replaced()
            yield connection

    def _connect(self) -> _Connection:
        connection: _Connection = sqlite3.connect(
            self._address,
            uri=True,
            timeout=_PATIENCE * LOCK_WAIT_S,
            isolation_level=None,
            check_same_thread=False,  # only to be closed from another one
            factory=_Connection,
        )
        with connection.busy:
            with self._listing:
                self._all.add(connection)
            # FULL, and the folder synced too after a commit: power may go at any moment.
            connection.execute("PRAGMA synchronous = EXTRA")
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA secure_delete = ON")  # of a removed photo nothing stays
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        return connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give a connection that sees one state of the database throughout."""
        with explained(self.folder), self._using() as connection:
            if connection.in_transaction:
                yield connection
                return
            connection.execute("BEGIN")
            try:
                yield connection
            except Exception:
                self._refuse_replaced()  # then files of the other one were taken for damaged
                raise
            finally:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")  # nothing was written

    @contextlib.contextmanager
    def locked(self, wait_s: float | None = None) -> Iterator[None]:
        """Hold the writer's lock. Raises IndexStoreError if another process or nobody may write."""
        self.refuse_closed()
        if not self.writable:
            raise self._not_writable()
        with self._mutex, contextlib.ExitStack() as stack:
            if self._holds_lock:  # this very thread
                yield
                return
            try:
                stack.enter_context(lock.held(self.root, LOCK_WAIT_S if wait_s is None else wait_s))
                self._refuse_replaced()  # while another process had the lock
            except OSError as error:
                self._refuse_replaced()
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise IndexStoreError(
                        f"{self.folder}: the disk is full; nothing was lost, free some space "
                        "and try again"
                    ) from error
                raise self._not_writable() from error
            self._holds_lock = True
            try:
                yield
            finally:
                self._holds_lock = False

    def _not_writable(self) -> IndexStoreError:
        return IndexStoreError(
            f"{self.folder}: it cannot be written (read-only or no permission); check its rights"
        )

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give a connection whose changes are on the disk at the end, all or none."""
        with explained(self.folder), self._using() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                state.state_of(connection, self.folder)  # a damaged one must not be sealed
                yield connection
                connection.execute("UPDATE state SET version = version + 1")
                state.seal(connection)
                connection.execute("COMMIT")
            except BaseException as error:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                if isinstance(error, Exception):
                    self._refuse_replaced()  # then SQLite blames the rights
                raise
            self._refuse_replaced()  # what went into a file that is gone is not acknowledged
            self.wrote = True

    def close(self) -> None:
        """Close the connections of all threads, each when what runs on it has ended.

        SQLite crashes where a connection is closed under another thread's feet.
        """
        self._closed = True
        with self._listing:
            mine = [connection for connection in self._all if connection.process == os.getpid()]
        for connection in mine:
            with connection.busy:
                connection.close()
