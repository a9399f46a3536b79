"""Checking an index from end to end: database, every item, every derived file against the items."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgdeploy.core.codes import UInt8Array, code_bytes
from fgdeploy.core.errors import IndexStoreError
from fgdeploy.core.progress import Progress, no_progress
from fgdeploy.core.text import counted
from fgdeploy.retrieval.store import derived
from fgdeploy.retrieval.store import index_state as state
from fgdeploy.retrieval.store.items import row_checksum
from fgdeploy.retrieval.store.segment import BLOCK_ROWS, Ids, SegmentError
from fgdeploy.retrieval.store.snapshot import Reader, Snapshot

_MOST_NAMED = 100  # damaged items that are named one by one

MISSING = "no longer at the path"


@dataclass(frozen=True)
class Problem:
    """Something that `verify` found; a problem that is not fatal leaves all answers right.

    repaired: it was in a derived file, and `verify` has put it right.
    """

    what: str
    fatal: bool = True
    repaired: bool = False


def inspect(
    connection: sqlite3.Connection,
    reader: Reader,
    folder: Path,
    bits: int,
    progress: Progress = no_progress,
) -> tuple[list[Problem], bool]:
    """Return what is wrong with an index in the open transaction; changes nothing.

    Returned beside it: whether derived files must be made anew.
    """
    problems = []
    for (line,) in connection.execute("PRAGMA integrity_check"):
        if line != "ok":
            problems += [Problem(f"database: {part}") for part in line.splitlines()]
    reader.forget()  # look at the files as they are now
    snapshot, note = None, None
    try:
        snapshot = reader.read(connection)
    except SegmentError as error:
        note = str(error)
    except IndexStoreError:  # a damaged item, which is named below
        note = "derived files were not compared"
    checks = _Items(connection, bits, snapshot)
    (_, expected, _), intact = state.read(connection, folder)
    if not intact:
        problems.append(Problem(f"database: {state.CHANGED}"))
    for done in checks.run():
        progress(done, expected)
    problems += checks.problems
    if checks.count != expected:
        problems.append(
            Problem(f"database: it holds {counted(checks.count, 'item')} and says {expected}")
        )
    if any(problem.fatal for problem in problems):
        return problems, False
    if note is None and checks.differs:
        note = "derived files differ from the database"
    if note is not None:
        problems.append(Problem(note, fatal=False))
    if left := derived.left_over(connection, folder):
        names = ", ".join(path.name for path in left[:3])
        problems.append(Problem(f"{counted(len(left), 'file')} left over ({names})", fatal=False))
    if checks.missing:
        problems.append(Problem(f"{counted(checks.missing, 'photo')} {MISSING}", fatal=False))
    return problems, note is not None


class _Items:
    """One pass over all items: their checksums, and whether the snapshot holds the same codes."""

    def __init__(
        self, connection: sqlite3.Connection, bits: int, snapshot: Snapshot | None
    ) -> None:
        self._connection, self._bits, self._snapshot = connection, bits, snapshot
        self.problems: list[Problem] = []
        self.count = self.missing = 0
        self.differs = False

    def run(self) -> Iterator[int]:
        """Go over all items, yielding how many were seen."""
        columns = "id, code, path, label, sha256, time, json, crc"
        with contextlib.closing(
            self._connection.execute(f"SELECT {columns} FROM items ORDER BY id")
        ) as rows:
            while part := rows.fetchmany(BLOCK_ROWS):
                intact = [row for row in part if self._check(row)]
                self.count += len(part)
                self._compare(intact)
                yield self.count

    def _check(self, row: tuple[Any, ...]) -> bool:
        what = _wrong(row, self._bits)
        if what is None:
            self.missing += _is_gone(row[2])
            return True
        if len(self.problems) < _MOST_NAMED:
            self.problems.append(Problem(f"item {row[0]}: {what}"))
        return False

    def _compare(self, rows: list[tuple[Any, ...]]) -> None:
        if self._snapshot is None or self.problems or not rows:
            return
        ids = np.fromiter((row[0] for row in rows), np.int64, len(rows))
        codes = np.frombuffer(b"".join(row[1] for row in rows), np.uint8)
        held = self._snapshot.between(int(ids[0]), int(ids[-1]))
        self.differs |= not _same(held, (ids, codes.reshape(len(rows), -1)))


def _same(one: tuple[Ids, UInt8Array], other: tuple[Ids, UInt8Array]) -> bool:
    return np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1])


def _wrong(row: tuple[Any, ...], bits: int) -> str | None:
    *values, crc = row
    code, path = row[1], row[2]
    width, spare = code_bytes(bits), -bits % 8
    if not isinstance(code, bytes) or not isinstance(path, (str, type(None))):
        return "no code or no path"
    if len(code) != width:
        return f"code of {len(code)} bytes, expected {width}"
    if spare and code[-1] & ((1 << spare) - 1):
        return f"bits set behind bit {bits}"
    found: Any = tuple(values)
    if crc != row_checksum(found):
        return "it is not what was added (CRC)"
    return None


def _is_gone(path: str | None) -> bool:
    """Return whether a photo is missing; a URI is not looked for."""
    return path is not None and "://" not in path and not os.path.exists(path)
