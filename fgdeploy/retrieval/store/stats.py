"""Numbers about an index: what it holds and where its codes lie."""

from __future__ import annotations

import importlib.metadata
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from fgdeploy.retrieval.scan.search import has_numba
from fgdeploy.retrieval.store import segment
from fgdeploy.retrieval.store.embeddings import EmbeddingStats
from fgdeploy.retrieval.store.index_state import state_of
from fgdeploy.retrieval.store.making import DATABASE
from fgdeploy.retrieval.store.schema import SCHEMA_VERSION
from fgdeploy.retrieval.store.thumbnails import ThumbnailStats


@dataclass(frozen=True)
class Stats:
    """What an index holds. version: transactions so far; first_time, last_time: of items.

    segments: (number, rows, bytes) of each derived file; tail: rows that are in none yet; dead:
    items removed or replaced since their segment was written. kernel: what large searches run.
    embeddings, thumbnails: None where none are kept.
    """

    items: int
    bits: int
    fingerprint: str
    schema_version: int
    version: int
    labels: int
    first_time: str | None
    last_time: str | None
    segments: tuple[tuple[int, int, int], ...]
    tail: int
    dead: int
    database_bytes: int
    kernel: str
    embeddings: EmbeddingStats | None = None
    thumbnails: ThumbnailStats | None = None


def measure(
    connection: sqlite3.Connection,
    folder: Path,
    fingerprint: str,
    bits: int,
    embeddings: EmbeddingStats | None,
    thumbnails: ThumbnailStats | None,
) -> Stats:
    """Return the numbers of the open transaction."""

    def one(query: str) -> tuple[object, ...]:
        row: tuple[object, ...] = connection.execute(query).fetchone()
        return row

    version, items, _ = state_of(connection, folder)
    (labels,) = one("SELECT count(DISTINCT label) FROM items WHERE label IS NOT NULL")
    first, last = one("SELECT min(time), max(time) FROM items")
    (tail,) = one(
        "SELECT count(DISTINCT items.id) FROM tail "
        "CROSS JOIN items ON items.id BETWEEN tail.first AND tail.last"
    )
    (dead,) = one("SELECT count(*) FROM dead")
    listed = connection.execute("SELECT number, rows FROM segments ORDER BY number").fetchall()
    return Stats(
        items=_number(items),
        bits=bits,
        fingerprint=fingerprint,
        schema_version=SCHEMA_VERSION,
        version=_number(version),
        labels=_number(labels),
        first_time=None if first is None else str(first),
        last_time=None if last is None else str(last),
        segments=tuple((n, rows, _size(segment.path_of(folder, n))) for n, rows in listed),
        tail=_number(tail),
        dead=_number(dead),
        database_bytes=_size(folder / DATABASE),
        kernel=kernel(),
        embeddings=embeddings,
        thumbnails=thumbnails,
    )


def kernel() -> str:
    """Return which scan large searches run, and its version."""
    if has_numba():
        return f"numba {importlib.metadata.version('numba')}"
    return 'numpy (about ten times slower than numba: pip install "fgdeploy[search]")'


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
