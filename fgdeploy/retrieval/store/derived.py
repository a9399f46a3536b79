"""Writing segments: the tail into a new one, small ones together, or all anew from the database.

Each runs inside the writer's transaction: first the file is on the disk, then the database says so,
and only after the commit what it replaces is removed. A file that the database does not name is
left over from a writer that was killed, and goes the next time.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from fgdeploy.core.codes import UInt8Array, code_bytes
from fgdeploy.core.errors import UsageError
from fgdeploy.core.progress import Progress
from fgdeploy.core.text import counted
from fgdeploy.retrieval.store import embeddings, segment, tables
from fgdeploy.retrieval.store.index_state import state_of
from fgdeploy.retrieval.store.merging import in_order
from fgdeploy.retrieval.store.segment import BLOCK_ROWS, Header, Ids, Segment
from fgdeploy.retrieval.store.snapshot import Reader, blocks_of, joined
from fgdeploy.retrieval.store.sqlite_errors import damaged

TAIL_ROWS = 1 << 16  # rows outside of segments from which a new one is written
MERGE_ROWS = 1 << 22  # segments from this size on are only put together by `compact`


def note(
    connection: sqlite3.Connection,
    new: Sequence[int],
    recoded: Sequence[int],
    removed: Sequence[int],
) -> None:
    """Note what became of the codes of these ids, in the transaction that changed them."""
    count(connection, len(new) - len(removed), max(new, default=0))
    connection.executemany("INSERT INTO tail VALUES (?, ?)", _spans(new, recoded))
    (last,) = connection.execute("SELECT max(number) FROM segments").fetchone()
    if last is not None:  # their rows in the segments so far are void
        connection.executemany(
            "INSERT OR REPLACE INTO dead VALUES (?, ?)",
            ((number, last) for number in (*recoded, *removed)),
        )


def count(connection: sqlite3.Connection, more: int, last_id: int) -> None:
    """Note how many items there are more, and the largest id among them."""
    connection.execute(
        "UPDATE state SET items = items + ?, last_id = max(last_id, ?)", (more, last_id)
    )


def tail_rows(connection: sqlite3.Connection) -> int:
    """Return how many rows the tail may hold."""
    row = connection.execute("SELECT ifnull(sum(last - first + 1), 0) FROM tail").fetchone()
    return int(row[0])


def roll(
    connection: sqlite3.Connection,
    folder: Path,
    reader: Reader,
    fresh: tuple[Ids, UInt8Array] | None = None,
) -> None:
    """Write the tail as a segment, together with the latest segments that are not much larger.

    fresh: ids and codes of new items that are not counted yet and shall not go into the tail.
    Raises SegmentError if a segment is damaged, OSError if the file cannot be written.
    """
    snapshot = reader.read(connection)
    ids, codes = fresh or (np.empty(0, np.int64), np.empty((0, reader.width), np.uint8))
    merged: list[int] = []
    for part in reversed(snapshot.parts):
        source = part.source
        if isinstance(source, Segment):
            if len(source) > min(2 * len(ids), MERGE_ROWS):
                break
            merged.append(source.header.number)
        ids, codes = joined([part.live_rows(0, len(source.codes)), (ids, codes)])
    connection.executemany("DELETE FROM segments WHERE number = ?", ((n,) for n in merged))
    connection.execute("DELETE FROM tail")
    if len(ids):
        consecutive = int(ids[-1] - ids[0]) + 1 == len(ids)
        _write(connection, folder, reader, len(ids), int(ids[0]), consecutive, _cut(ids, codes))
    _forget_the_dead(connection)


def compact(
    connection: sqlite3.Connection,
    folder: Path,
    reader: Reader,
    progress: Progress,
    multi_index: bool | None,
) -> None:
    """Write all codes anew as one segment, from the derived files as they are now, all checked.

    multi_index: whether it gets look-up tables; by default if there were some. Bounded memory.
    Raises SegmentError for damaged files, OSError if one cannot be written, UsageError where tables
    would not pay.
    """
    reader.forget()  # what is copied gets a new CRC, so compare it with the old one now
    snapshot = reader.read(connection)
    _replace(
        connection, folder, reader, snapshot.count, in_order(snapshot.parts), progress, multi_index
    )


def require_tables_pay(path: Path, rows: int, bits: int) -> None:
    """Raise UsageError where look-up tables would not pay for an index of so many items."""
    if rows < MERGE_ROWS or not tables.fits(rows, code_bytes(bits)):
        raise UsageError(
            f"{path}: look-up tables pay for 57 to 64 or 121 to 128 bits and from {MERGE_ROWS:,} "
            f"items on, it has {rows:,} of {bits} bits; leave them out"
        )


def rebuild(
    connection: sqlite3.Connection,
    folder: Path,
    reader: Reader,
    progress: Progress,
    multi_index: bool | None,
) -> None:
    """Do what `compact` does from the database alone. Raises IndexStoreError if it is damaged."""
    expected = state_of(connection, folder).items
    (count,) = connection.execute("SELECT count(*) FROM items").fetchone()
    if count != expected:
        raise damaged(folder, f"it holds {counted(count, 'item')} and says {expected}")
    blocks = blocks_of(connection, folder, reader.width)
    _replace(connection, folder, reader, count, blocks, progress, multi_index)


def _replace(
    connection: sqlite3.Connection,
    folder: Path,
    reader: Reader,
    count: int,
    blocks: Iterable[tuple[Ids, UInt8Array]],
    progress: Progress,
    multi_index: bool | None,
) -> None:
    """Write `count` rows as the one segment that there is from now on."""
    if multi_index is None:
        query = "SELECT count(*) FROM segments WHERE tables IS NOT NULL"
        multi_index = connection.execute(query).fetchone()[0] > 0
    first, last = connection.execute("SELECT min(id), max(id) FROM items").fetchone()
    if (first is None) is not (count == 0):
        raise damaged(folder, f"it says {counted(count, 'item')}")
    connection.execute("DELETE FROM segments")
    connection.execute("DELETE FROM tail")
    connection.execute("DELETE FROM dead")
    if count:
        told = _telling(blocks, progress, count)
        number = _write(connection, folder, reader, count, first, last - first + 1 == count, told)
        if multi_index:
            _write_tables(connection, folder, reader, number)


def _telling(
    blocks: Iterable[tuple[Ids, UInt8Array]], progress: Progress, count: int
) -> Iterator[tuple[Ids, UInt8Array]]:
    done = 0
    for block in blocks:
        yield block
        done += len(block[0])
        progress(done, count)


def _write(
    connection: sqlite3.Connection,
    folder: Path,
    reader: Reader,
    rows: int,
    first_id: int,
    consecutive: bool,
    blocks: Iterator[tuple[Ids, UInt8Array]],
) -> int:
    number = connection.execute("INSERT INTO segments (rows, crc) VALUES (?, 0)", (rows,)).lastrowid
    header = Header(reader.width, rows, number or 0, first_id, consecutive, reader.uid)
    crc = segment.write(folder, header, blocks)
    connection.execute("UPDATE segments SET crc = ? WHERE number = ?", (crc, number))
    return header.number


def _write_tables(
    connection: sqlite3.Connection, folder: Path, reader: Reader, number: int
) -> None:
    (crc,) = connection.execute("SELECT crc FROM segments WHERE number = ?", (number,)).fetchone()
    written = Segment(folder, number, crc, reader.width, reader.uid)
    crc = tables.write(folder, written, reader.threads)
    connection.execute("UPDATE segments SET tables = ? WHERE number = ?", (crc, number))


def _cut(ids: Ids, codes: UInt8Array) -> Iterator[tuple[Ids, UInt8Array]]:
    for start in range(0, len(ids), BLOCK_ROWS):
        yield ids[start : start + BLOCK_ROWS], codes[start : start + BLOCK_ROWS]


def _forget_the_dead(connection: sqlite3.Connection) -> None:
    """Drop the dead that no segment holds any more."""
    connection.execute(
        "DELETE FROM dead WHERE segment < (SELECT ifnull(min(number), segment + 1) FROM segments)"
    )


def left_over(connection: sqlite3.Connection, folder: Path) -> list[Path]:
    """Return derived files that the database does not name, and unfinished ones."""
    named = set()
    for number, crc in connection.execute("SELECT number, tables FROM segments"):
        named.add(segment.path_of(folder, number))
        if crc is not None:
            named.add(tables.path_of(folder, number))
    found = [*folder.glob("segment-*.codes"), *folder.glob("segment-*.tables")]
    found += folder.glob(".segment-*.tmp")
    found = [path for path in found if path not in named]
    return sorted([*found, *embeddings.left_over(connection, folder)])


def clear(paths: list[Path]) -> None:
    """Remove files that are not needed; one that stays does no harm."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def _spans(*several: Sequence[int]) -> list[tuple[int, int]]:
    """Return ids as spans (first, last) of neighbours."""
    if all(isinstance(ids, range) or not ids for ids in several):
        return [(ids[0], ids[-1]) for ids in several if ids]
    found: list[tuple[int, int]] = []
    for number in sorted(itertools.chain(*several)):
        if found and number <= found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found
