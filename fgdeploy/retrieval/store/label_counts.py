"""The labels of an index, and how many items have each."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from fgdeploy.retrieval.store.index_state import state_of
from fgdeploy.retrieval.store.integrity import Integrity
from fgdeploy.retrieval.store.session import Session

_COUNTS = "SELECT label, count(*) FROM items GROUP BY label ORDER BY count(*) DESC, label"


@dataclass(frozen=True)
class LabelCounts:
    """counts: label -> items, the most frequent first, equal ones by name; unlabelled: items.

    more: whether there are further labels.
    """

    counts: dict[str, int]
    unlabelled: int
    more: bool


class Labels:
    """What `Index.labels` offers; usable from threads."""

    def __init__(self, session: Session, integrity: Integrity) -> None:
        self._session, self._integrity = session, integrity
        self._mutex = threading.Lock()
        self._kept: tuple[int, int, LabelCounts] | None = None

    def counts(self, most: int) -> LabelCounts:
        """Return up to `most` labels. Kept until the index changes. Raises IndexStoreError."""
        with self._session.reading() as connection:
            version = state_of(connection, self._session.folder).version
            with self._mutex:
                if self._kept is not None and self._kept[:2] == (version, most):
                    return self._kept[2]
            self._integrity.require(connection)
            rows = connection.execute(_COUNTS).fetchall()
        counts = {str(label): count for label, count in rows if label is not None}
        unlabelled = sum(count for label, count in rows if label is None)
        first = dict(list(counts.items())[:most])
        found = LabelCounts(first, unlabelled, len(counts) > most)
        with self._mutex:
            self._kept = (version, most, found)
        return found
