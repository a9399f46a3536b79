"""What an index remembers beside its items: short texts by name, such as where its bundle lay."""

from __future__ import annotations

from fgdeploy.retrieval.store import schema
from fgdeploy.retrieval.store.meta import read_meta
from fgdeploy.retrieval.store.session import Session


class Notes:
    """What `Index.notes` offers; usable from threads.

    They stay when the index is compacted, and are no part of an export.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, name: str) -> str | None:
        """Return a text as it is now, None where there is none. Raises IndexStoreError."""
        return read_meta(self._session).get(name)

    def set(self, name: str, text: str) -> None:
        """Note a text in place of the one before. Raises IndexStoreError."""
        with self._session.locked(), self._session.transaction() as connection:
            schema.set_meta(connection, name, text)
