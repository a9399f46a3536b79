"""How far an index has come: the number of its last transaction, its items, its last id."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import NamedTuple

from fgdeploy.retrieval.store.checksums import state_checksum
from fgdeploy.retrieval.store.sqlite_errors import damaged


class IndexState(NamedTuple):
    """The table `state`: what a transaction sees, or leaves behind."""

    version: int
    items: int
    last_id: int


CHANGED = "its state was changed (CRC)"


def state_of(connection: sqlite3.Connection, folder: Path) -> IndexState:
    """Return the state that the open transaction sees. Raises IndexStoreError if it is damaged."""
    state, intact = read(connection, folder)
    if not intact:
        raise damaged(folder, CHANGED)
    return state


def read(connection: sqlite3.Connection, folder: Path) -> tuple[IndexState, bool]:
    """Return what stands there, and whether it is what was written, for those who look further."""
    row = connection.execute("SELECT version, items, last_id, crc FROM state").fetchone()
    if row is None or not all(isinstance(value, int) for value in row):
        raise damaged(folder, "its state is not whole")
    return IndexState(*row[:3]), row[3] == state_checksum(*row[:3])


def seal(connection: sqlite3.Connection) -> None:
    """Set the checksum of the state, at the end of a transaction that began with an intact one."""
    (state,) = connection.execute("SELECT version, items, last_id FROM state")
    connection.execute("UPDATE state SET crc = ?", (state_checksum(*state),))
