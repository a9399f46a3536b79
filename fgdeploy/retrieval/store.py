"""The gallery index `NAME.fgi/`: SQLite holds every item; searching reads the codes into memory."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fgdeploy import atomic
from fgdeploy.closing import Closing
from fgdeploy.codes import UInt8Array, check_bits, code_bytes
from fgdeploy.errors import IndexStoreError, UsageError
from fgdeploy.retrieval.search import search_codes, search_radius
from fgdeploy.retrieval.sqlite_errors import damaged, explained

SCHEMA_VERSION = 1
DATABASE = "index.sqlite"
_LOCK_WAIT_S = 5.0

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE items (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice, also after a removal
    code BLOB NOT NULL,
    crc INTEGER NOT NULL,                  -- CRC-32 of the code
    path TEXT NOT NULL UNIQUE,
    label TEXT,
    sha256 TEXT NOT NULL,                  -- of the photo's bytes
    added TEXT NOT NULL,                   -- UTC, ISO 8601
    extra TEXT                             -- JSON, the user's own
);
"""


@dataclass(frozen=True)
class Item:
    """A photo in the gallery. code: packed bytes; id and added are given by the index."""

    path: str
    code: bytes
    label: str | None
    sha256: str
    id: int = 0
    added: str = ""


@dataclass(frozen=True)
class Hit:
    """One answer to a query. rank counts from 1; distance is the number of unequal bits."""

    rank: int
    distance: int
    id: int
    path: str
    label: str | None


@dataclass(frozen=True)
class Problem:
    """Something that `verify` found; a problem that is not fatal leaves all answers right."""

    what: str
    fatal: bool = True


class Index(Closing):
    """A gallery index, opened for reading or writing; a context manager.

    One process writes at a time (a second is told), any number read.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._cached: tuple[int, npt.NDArray[np.int64], UInt8Array] | None = None
        with explained(path):
            meta = dict(connection.execute("SELECT key, value FROM meta"))
        try:
            version, self.bits = int(meta["schema_version"]), int(meta["bits"])
            self.fingerprint = str(meta["fingerprint"])
        except (KeyError, ValueError, TypeError):
            raise damaged(path, "its meta table is not whole") from None
        if version != SCHEMA_VERSION:
            raise IndexStoreError(
                f"{path} has schema version {version}, expected {SCHEMA_VERSION}; "
                "use the fgdeploy that wrote it, or build the index again"
            )

    @classmethod
    def create(cls, path: str | os.PathLike[str], fingerprint: str, bits: int) -> Index:
        """Make an empty index for one model. Raises IndexStoreError if something is there."""
        folder = Path(path)
        if folder.suffix != ".fgi":
            raise UsageError(f"{folder}: an index's name ends in .fgi")
        check_bits(bits)
        taken = IndexStoreError(f"{folder} is there already; open it, or choose another name")
        if folder.exists():
            raise taken
        if not folder.parent.is_dir():
            raise IndexStoreError(
                f"no folder {folder.parent} to write {folder.name} into; create it first"
            )
        try:
            cls._write_new(folder, fingerprint, bits)
        except FileExistsError:  # another process was faster
            raise taken from None
        return cls.open(folder)

    @staticmethod
    def _write_new(folder: Path, fingerprint: str, bits: int) -> None:
        with atomic.new_folder(folder) as fresh, explained(folder):
            connection = sqlite3.connect(fresh / DATABASE)
            try:
                connection.executescript(_SCHEMA)
                connection.executemany(
                    "INSERT INTO meta VALUES (?, ?)",
                    [
                        ("schema_version", str(SCHEMA_VERSION)),
                        ("fingerprint", fingerprint),
                        ("bits", str(bits)),
                    ],
                )
                connection.commit()
            finally:
                connection.close()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Index:
        """Open an index. Raises IndexStoreError if it is missing, damaged or of another schema."""
        folder = Path(path)
        database = folder / DATABASE
        with explained(folder):
            there = database.is_file()
        if not there:
            raise IndexStoreError(
                f"no index at {folder}; make one with: fgdeploy index add {folder} PHOTOS"
            )
        mode = "rw" if os.access(database, os.W_OK) and os.access(folder, os.W_OK) else "ro"
        with explained(folder):
            connection = sqlite3.connect(
                f"{database.resolve().as_uri()}?mode={mode}",
                uri=True,
                timeout=_LOCK_WAIT_S,
                isolation_level=None,
            )
            try:
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA trusted_schema = OFF")
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            except BaseException:
                connection.close()
                raise
        try:
            return cls(folder, connection)
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Close the database. Twice does no harm."""
        self._connection.close()

    def delete_if_empty(self) -> bool:
        """Remove the index from the disk if it holds nothing, and say whether it did.

        The write lock is held until its folder has gone, so no other process's items go with it.
        """
        with self._writing():
            if len(self):
                return False
            aside = self.path.with_name(f".{self.path.name}.{os.getpid()}.old")
            os.rename(self.path, aside)
        self.close()
        shutil.rmtree(aside)
        return True

    def require(self, fingerprint: str, bits: int) -> None:
        """Raise IndexStoreError unless codes of this model belong into the index."""
        if (fingerprint, bits) != (self.fingerprint, self.bits):
            raise IndexStoreError(
                f"{self.path} holds {self.bits}-bit codes of model {self.fingerprint[:12]}, the "
                f"bundle makes {bits}-bit codes of model {fingerprint[:12]}; their distances mean "
                "nothing: use the bundle that built the index, or build a new index"
            )

    def __len__(self) -> int:
        with explained(self.path):
            return int(self._connection.execute("SELECT count(*) FROM items").fetchone()[0])

    def known(self) -> dict[str, str]:
        """Return path -> sha256 of every item, to leave out what is there already."""
        with explained(self.path):
            return dict(self._connection.execute("SELECT path, sha256 FROM items"))

    def relabel(self, labels: Mapping[str, str | None]) -> int:
        """Set the labels of items by path; returns how many were another before."""
        changed = 0
        with self._writing():
            for path, label in labels.items():
                changed += self._connection.execute(
                    "UPDATE items SET label = ? WHERE path = ? AND label IS NOT ?",
                    (label, path, label),
                ).rowcount
        return changed

    def add(self, items: Iterable[Item]) -> int:
        """Add items in one transaction; a path that is there already is replaced and keeps its id.

        Returns how many were written; all or none. Raises IndexStoreError.
        """
        width, now = code_bytes(self.bits), datetime.now(timezone.utc).isoformat(timespec="seconds")
        count = 0
        with self._writing():
            for item in items:
                if len(item.code) != width:
                    raise IndexStoreError(
                        f"{item.path}: expected a code of {width} bytes, got {len(item.code)}; "
                        "hash it with the bundle that built the index"
                    )
                crc, time = zlib.crc32(item.code), item.added or now
                self._connection.execute(
                    "INSERT INTO items (code, crc, path, label, sha256, added) "
                    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (path) DO UPDATE SET "
                    "code = excluded.code, crc = excluded.crc, label = excluded.label, "
                    "sha256 = excluded.sha256, added = excluded.added",
                    (item.code, crc, item.path, item.label, item.sha256, time),
                )
                count += 1
        return count

    def remove(self, ids: Sequence[int]) -> int:
        """Remove items by id, all or none. Raises IndexStoreError that names unknown ids."""
        wanted = list(dict.fromkeys(ids))
        with self._writing():
            unknown = [
                number
                for number in wanted
                if abs(number) >= 1 << 63
                or not self._connection.execute(
                    "DELETE FROM items WHERE id = ?", (number,)
                ).rowcount
            ]
            if unknown:
                raise IndexStoreError(
                    f"{self.path} has no item {', '.join(map(str, unknown[:5]))}; nothing was "
                    "removed; see: fgdeploy index list"
                )
        return len(wanted)

    def items(self) -> Iterator[Item]:
        """Yield all items in order of id."""
        with explained(self.path):
            for number, code, path, label, digest, added in self._connection.execute(
                "SELECT id, code, path, label, sha256, added FROM items ORDER BY id"
            ):
                if not (isinstance(code, bytes) and isinstance(path, str)):
                    raise damaged(self.path, f"item {number} has no code or no path")
                yield Item(path, code, label, digest, number, added)

    def search(self, codes: UInt8Array, k: int = 10) -> list[list[Hit]]:
        """Return the min(k, N) nearest items of each query code (Q, bytes), by (distance, id)."""
        ids, gallery = self._codes()
        rows, distances = search_codes(codes, gallery, k)
        return [
            self._hits(ids[row], distance) for row, distance in zip(rows, distances, strict=True)
        ]

    def search_radius(self, code: UInt8Array, radius: int) -> list[Hit]:
        """Return all items within `radius` bits of one code (bytes,), by (distance, id)."""
        ids, gallery = self._codes()
        rows, distances = search_radius(code, gallery, radius)
        return self._hits(ids[rows], distances)

    def verify(self) -> list[Problem]:
        """Check the database, every code and every photo's path; an empty list is a clean index."""
        problems = []
        with explained(self.path):
            for (line,) in self._connection.execute("PRAGMA integrity_check"):
                if line != "ok":
                    problems += [Problem(f"database: {part}") for part in line.splitlines()]
            missing = 0
            for number, code, crc, path, _ in self._connection.execute(
                "SELECT id, code, crc, path, label FROM items ORDER BY id"
            ):
                if what := self._wrong(code, crc, path):
                    problems.append(Problem(f"item {number}: {what}"))
                else:
                    missing += not os.path.exists(path)
        if missing:
            problems.append(Problem(f"{missing} photos are no longer at their path", fatal=False))
        return problems

    def _wrong(self, code: object, crc: object, path: object) -> str | None:
        width, spare = code_bytes(self.bits), -self.bits % 8
        if not (isinstance(code, bytes) and isinstance(path, str)):
            return "no code or no path"
        if len(code) != width:
            return f"code of {len(code)} bytes, expected {width}"
        if spare and code[-1] & ((1 << spare) - 1):
            return f"bits set behind bit {self.bits}"
        return None if crc == zlib.crc32(code) else "its code is not the one that was added (CRC)"

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with explained(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                self._cached = None

    def _codes(self) -> tuple[npt.NDArray[np.int64], UInt8Array]:
        with explained(self.path):
            version = int(self._connection.execute("PRAGMA data_version").fetchone()[0])
            if self._cached is None or self._cached[0] != version:
                rows = self._connection.execute("SELECT id, code FROM items ORDER BY id").fetchall()
                width = code_bytes(self.bits)
                if any(not isinstance(code, bytes) or len(code) != width for _, code in rows):
                    raise damaged(self.path, "codes of unequal width")
                ids = np.array([number for number, _ in rows], dtype=np.int64)
                joined = b"".join(code for _, code in rows)
                self._cached = (version, ids, np.frombuffer(joined, np.uint8).reshape(-1, width))
            return self._cached[1], self._cached[2]

    def _hits(self, ids: npt.NDArray[np.int64], distances: npt.NDArray[np.uint16]) -> list[Hit]:
        hits = []
        with explained(self.path):
            for rank, (number, distance) in enumerate(zip(ids, distances, strict=True), start=1):
                row = self._connection.execute(
                    "SELECT path, label FROM items WHERE id = ?", (int(number),)
                ).fetchone()
                if row is not None:  # else removed since, by another process
                    hits.append(Hit(rank, int(distance), int(number), row[0], row[1]))
        return hits
