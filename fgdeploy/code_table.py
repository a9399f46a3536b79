"""The codes of a list of photos as they come, in any order, and what tells that a photo is it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, overload

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import CodeFile
from fgdeploy.core.errors import DataError
from fgdeploy.photos import Photo

Rows = npt.NDArray[np.int64]
Facts = tuple[int, int]  # size, and time of change in ns

NO_FACTS: Facts = (-1, -1)


class Originals(Protocol):
    """The photos that a table has codes of, row by row, wherever they lie.

    written: how the file of codes names one; label: its class, empty for none; key: what stands for
    it whatever the working folder is; facts: size and time of change now, `NO_FACTS` where it is
    not there.
    """

    def __len__(self) -> int: ...
    def written(self, row: int) -> str: ...
    def label(self, row: int) -> str: ...
    def key(self, row: int) -> bytes: ...
    def facts(self, row: int) -> Facts: ...


@dataclass(frozen=True)
class LocalOriginals:
    """Photos on this machine's disks."""

    photos: Sequence[Photo]

    def __len__(self) -> int:
        return len(self.photos)

    def written(self, row: int) -> str:
        return self.photos[row].path.as_posix()

    def label(self, row: int) -> str:
        return self.photos[row].label or ""

    def key(self, row: int) -> bytes:
        return os.fsencode(os.path.abspath(self.photos[row].path))

    def facts(self, row: int) -> Facts:
        return facts_of(self.photos[row].path)


def facts_of(path: Path) -> Facts:
    """Return size and time of change (ns) of a file; of none `NO_FACTS`, and decoding says why."""
    try:
        facts = os.stat(path)
    except (OSError, ValueError):
        return NO_FACTS
    return facts.st_size, facts.st_mtime_ns


class CodeTable:
    """The codes of photos, row by row. done: bool (N,), which of them are in it."""

    def __init__(self, originals: Originals, width: int) -> None:
        count = len(originals)
        self._originals = originals
        self._codes = np.zeros((count, width), np.uint8)
        self._facts = np.zeros((count, 2), np.int64)  # from before decoding
        self._kind = np.dtype(
            [("path", "<u8"), ("facts", "<i8", (2,)), ("code", np.uint8, (width,))]
        )
        self.done = np.zeros(count, bool)

    def note(self, row: int, facts: Facts) -> None:
        """Keep what a photo's file is like at the moment that it is read."""
        self._facts[row] = facts

    def enter(self, rows: Rows, codes: npt.NDArray[np.uint8]) -> None:
        """Take in the codes of rows whose facts are noted."""
        self._codes[rows], self.done[rows] = codes, True

    def record(self, rows: Rows) -> bytes:
        """Return rows that are done as a record that `recall` reads."""
        record = np.zeros(len(rows), self._kind)
        record["path"] = [_name(self._originals.key(row)) for row in rows.tolist()]
        record["facts"], record["code"] = self._facts[rows], self._codes[rows]
        return record.tobytes()

    def recall(self, records: Iterator[bytes]) -> int:
        """Take in the codes that an earlier run left for photos unchanged; return how many."""
        content = b"".join(records)
        if len(content) % self._kind.itemsize:
            raise DataError(
                "the part file is not of codes of this length; begin anew with: --again"
            )
        known = np.frombuffer(content, self._kind)
        if not len(known):
            return 0
        known = known[np.argsort(known["path"], kind="stable")]  # of equals the last one counts
        originals, count = self._originals, len(self._originals)
        mine = np.fromiter((_name(originals.key(row)) for row in range(count)), np.uint64, count)
        last = np.searchsorted(known["path"], mine, "right") - 1
        for row in np.flatnonzero((last >= 0) & (known["path"][last] == mine)).tolist():
            found = known[last[row]]
            if tuple(found["facts"].tolist()) == originals.facts(row):
                self._facts[row], self._codes[row] = found["facts"], found["code"]
                self.done[row] = True
        return int(self.done.sum())

    def file(self, bits: int, fingerprint: str) -> CodeFile:
        """Return what is done, as a file to write."""
        rows, originals = np.flatnonzero(self.done), self._originals
        return CodeFile(
            self._codes[rows],
            _Texts(rows, originals.written),
            _Texts(rows, originals.label),
            bits,
            fingerprint,
        )


@dataclass(frozen=True)
class _Texts(Sequence[str]):
    """Texts that are made when they are asked for, so that a million of them take no memory."""

    rows: Rows
    make: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> _Texts: ...
    def __getitem__(self, place: int | slice) -> str | _Texts:
        if isinstance(place, slice):
            return _Texts(self.rows[place], self.make)
        return self.make(int(self.rows[place]))


def _name(key: bytes) -> int:
    """Return 64 bits that stand for a photo's key."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")
