"""The database of an index: its tables, and the way from older schemas.

`items` is the truth. `segments`, `tail` and `dead` say which derived files hold which codes:
a live item's code is in exactly one segment or in the tail.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import sqlite3
import zlib
from collections.abc import Callable, Iterator

from fgdeploy.retrieval.store import index_state as state
from fgdeploy.retrieval.store.checksums import (
    checksum,
    code_checksum,
    meta_checksum,
    text_checksum,
    text_of,
)

SCHEMA_VERSION = 2
MAX_ID = 1 << 62  # 0 is an id as any other; no id is None

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE state (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL,  -- grows with each transaction: the last sequence number
    items INTEGER NOT NULL,    -- how many there are
    last_id INTEGER NOT NULL,  -- no id up to this is given again, also after a removal
    crc INTEGER NOT NULL       -- see `checksums`, also for items
);
INSERT INTO state VALUES (1, 0, 0, 0, 0);
CREATE TABLE items (
    id INTEGER PRIMARY KEY,
    code BLOB NOT NULL,
    crc INTEGER NOT NULL,
    path TEXT,             -- or URI
    label TEXT,
    sha256 TEXT,           -- of the photo's bytes
    time TEXT NOT NULL,    -- UTC, ISO 8601
    json TEXT              -- the user's own
);
CREATE UNIQUE INDEX items_path ON items (path) WHERE path IS NOT NULL;
CREATE INDEX items_sha256 ON items (sha256) WHERE sha256 IS NOT NULL;
CREATE TABLE segments (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    rows INTEGER NOT NULL,
    crc INTEGER NOT NULL,                  -- of its header, which holds the CRC of the rest
    tables INTEGER                         -- the same of its look-up tables, if it has them
);
CREATE TABLE tail (                        -- ranges of ids whose codes are in no segment yet
    first INTEGER NOT NULL,
    last INTEGER NOT NULL
);
CREATE TABLE dead (                        -- removed or replaced since a segment was written
    id INTEGER PRIMARY KEY,
    segment INTEGER NOT NULL               -- its rows up to this segment are void
);
"""

_NAMES = ", ".join(
    f"'{name}'" for name in re.findall(r"^CREATE (?:UNIQUE )?(?:TABLE|INDEX) (\w+)", TABLES, re.M)
)


def create(connection: sqlite3.Connection, fingerprint: str, bits: int) -> None:
    """Make the tables of an empty index for one model."""
    connection.executescript(TABLES)
    _write_meta(connection, fingerprint, bits)
    state.seal(connection)
    connection.commit()


def _write_meta(connection: sqlite3.Connection, fingerprint: str, bits: int) -> None:
    meta = {
        "schema_version": str(SCHEMA_VERSION),
        "fingerprint": fingerprint,
        "bits": str(bits),
        "uid": secrets.token_hex(16),  # segments of another index are not taken for its own
        "tables": tables_checksum(connection),
    }
    meta["crc"] = meta_checksum(meta)
    connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())


def set_meta(connection: sqlite3.Connection, key: str, value: str) -> None:
    """Set a value of the table `meta`, and its checksum, in the open transaction."""
    meta = {**dict(connection.execute("SELECT key, value FROM meta")), key: value}
    meta["crc"] = meta_checksum(meta)
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())


def _from_1(connection: sqlite3.Connection) -> None:
    """Schema 1: a photo's path was required, `time` was `added`, `json` was `extra`."""
    meta = dict(connection.execute("SELECT key, value FROM meta"))
    last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'items'").fetchone()
    connection.execute("ALTER TABLE items RENAME TO items_1")
    connection.execute("DROP TABLE meta")
    for statement in _statements(TABLES):
        connection.execute(statement)
    _write_meta(connection, meta["fingerprint"], int(meta["bits"]))
    rows = connection.execute(
        "SELECT id, code, crc, path, label, nullif(sha256, ''), added, extra FROM items_1"
    )
    connection.executemany(
        "INSERT INTO items (id, code, crc, path, label, sha256, time, json) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        _checked_again(rows),
    )
    connection.execute(
        "INSERT INTO tail SELECT first, last FROM "
        "(SELECT min(id) AS first, max(id) AS last FROM items) WHERE first IS NOT NULL"
    )
    connection.execute(
        "UPDATE state SET version = 1, items = (SELECT count(*) FROM items), last_id = ?",
        (last[0] if last else 0,),
    )
    state.seal(connection)
    connection.execute("DROP TABLE items_1")


def _checked_again(rows: sqlite3.Cursor) -> Iterator[tuple[object, ...]]:
    for number, code, crc, *text in rows:
        if not isinstance(code, bytes) or crc != zlib.crc32(code):
            raise sqlite3.DatabaseError(f"item {number}: its code is not the one that was added")
        yield (
            number,
            code,
            checksum(code_checksum(number, code), text_checksum(number, text_of(*text))),
            *text,
        )


def _statements(script: str) -> Iterator[str]:
    """Cut a script up: executescript would commit the transaction that it runs in."""
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


# Schema version -> what brings an index of that version to the next.
MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {1: _from_1}


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the database to SCHEMA_VERSION, all of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        while (version := version_of(connection)) in MIGRATIONS:
            MIGRATIONS[version](connection)
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def tables_checksum(connection: sqlite3.Connection) -> str:
    """Return the CRC-32 of what the database says its tables and indexes are.

    A flipped bit there can give a column another meaning while all items are as they were.
    """
    query = f"SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name IN ({_NAMES})"
    return str(zlib.crc32(repr(sorted(connection.execute(query))).encode()))


def version_of(connection: sqlite3.Connection) -> int:
    """Return the schema version. Raises ValueError or TypeError where there is none."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    return int(row[0])
