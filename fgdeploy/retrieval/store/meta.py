"""What an index says of itself: schema version, model, bits; migration when it is older."""

from __future__ import annotations

import sqlite3

from fgdeploy.core.errors import IndexStoreError
from fgdeploy.retrieval.store import schema
from fgdeploy.retrieval.store.checksums import meta_checksum
from fgdeploy.retrieval.store.session import Session
from fgdeploy.retrieval.store.sqlite_errors import damaged


def read_meta(session: Session) -> dict[str, str]:
    """Return the meta table, after bringing the database to today's schema.

    Raises IndexStoreError for a later schema, an older one that cannot be written, or damage.
    """
    with session.reading() as connection:
        return _read(session, connection)


def _read(session: Session, connection: sqlite3.Connection) -> dict[str, str]:
    folder = session.folder
    try:
        version = schema.version_of(connection)
        if version in schema.MIGRATIONS:
            if not session.writable:
                raise IndexStoreError(
                    f"{folder} has schema version {version}, expected {schema.SCHEMA_VERSION}; "
                    "open it once where it can be written, which brings it up to date"
                )
            connection.execute("ROLLBACK")
            with session.locked():
                schema.migrate(connection)
            connection.execute("BEGIN")
        elif version != schema.SCHEMA_VERSION:
            raise IndexStoreError(
                f"{folder} has schema version {version}, expected {schema.SCHEMA_VERSION}; "
                "use the fgdeploy that wrote it, or build the index again"
            )
        meta = dict(connection.execute("SELECT key, value FROM meta"))
        if meta["crc"] != meta_checksum(meta):
            raise damaged(folder, "its meta table was changed")
        if meta["tables"] != schema.tables_checksum(connection):
            raise damaged(folder, "its tables are not what they were")
        int(meta["bits"]), meta["fingerprint"], bytes.fromhex(meta["uid"])
    except (KeyError, ValueError, TypeError):
        raise damaged(folder, "its meta table is not whole") from None
    return meta
