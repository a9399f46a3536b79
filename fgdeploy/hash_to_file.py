"""Photos to a file of codes: hashed as a stream, kept as they come, gone on with after any end."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import CodeFile
from fgdeploy.core.errors import DataError, ImageError
from fgdeploy.core.part_file import PartFile
from fgdeploy.core.progress import Notify, Progress, no_progress, silent
from fgdeploy.core.text import counted
from fgdeploy.hasher import Hasher
from fgdeploy.photos import Photo, skipped_of

_Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FileRun:
    """What one run did.

    photos: in the file; earlier: of these, hashed by a run that was interrupted; skipped: why
    others are not in it; seconds: of hashing.
    """

    photos: int
    earlier: int
    skipped: list[str]
    seconds: float

    @property
    def per_second(self) -> float:
        """Return the photos that this run hashed in a second."""
        return (self.photos - self.earlier) / max(self.seconds, 1e-9)


def hash_to_file(
    hasher: Hasher,
    photos: Sequence[Photo],
    target: Path,
    source: Path,
    strict: bool = False,
    again: bool = False,
    progress: Progress = no_progress,
    notify: Notify = silent,
) -> FileRun:
    """Hash photos into an .npz file (`CodeFile`), memory bounded but for the list itself.

    Codes are kept batch by batch in `target`.part. A run that ended before its time, by whatever,
    is gone on with: what has the path, size and time of change of then is not hashed again, and the
    file is the one that a single run writes. source: where the list comes from; a part that was
    begun with another source, model or engine is refused, or dropped with `again`. Unreadable
    photos are named in the result, or raise ImageError if `strict`; a later run tries them again.
    progress counts the photos that are still to be hashed. Raises DataError, OSError.
    """
    if not photos:
        raise DataError("there are no photos to hash; check the list")
    with PartFile(target, _about(hasher, source), again) as part:
        table = _Table(photos, hasher.manifest.code_bytes)
        earlier = table.recall(part.records())
        if earlier:
            notify(
                f"going on: {earlier:,} of {counted(len(photos), 'photo')} are in {part.path} "
                "(--again drops them)"
            )
        skipped = skipped_of(photos)
        start = time.monotonic()
        try:
            _hash_rest(hasher, table, part, None if strict else skipped, progress)
            seconds = time.monotonic() - start
            if not table.done.any():
                raise DataError(
                    f"none of {counted(len(photos), 'photo')} can be read; the first: {skipped[0]}"
                )
            table.file(hasher).save(target)
        except BaseException:
            if table.done.any():
                notify(f"the codes so far are kept in {part.path}; the same command goes on")
            else:
                part.remove()
            raise
        part.remove()
    return FileRun(int(table.done.sum()), earlier, skipped, seconds)


def _about(hasher: Hasher, source: Path) -> Mapping[str, str]:
    return {
        "photos of": os.path.abspath(source),
        "model": hasher.fingerprint,
        "engine": hasher.engine.describe(),
        "bit depth": str(hasher.bit_depth),
    }


def _hash_rest(
    hasher: Hasher,
    table: _Table,
    part: PartFile,
    skipped: list[str] | None,
    progress: Progress,
) -> None:
    """Hash what has no code yet. skipped: takes reasons; None raises the first."""
    rest = np.flatnonzero(~table.done)

    def skip(position: int, error: ImageError) -> None:
        assert skipped is not None
        skipped.append(str(error))

    told = 0
    for hashed in hasher.stream(table.paths(rest), None if skipped is None else skip):
        part.append(table.enter(rest[hashed.positions], hashed.outputs.code))
        told = hashed.positions[-1] + 1
        progress(told, len(rest))
    if told < len(rest):
        progress(len(rest), len(rest))


class _Table:
    """The codes of a list of photos, row by row, and what tells that a photo is the one hashed."""

    def __init__(self, photos: Sequence[Photo], width: int) -> None:
        count = len(photos)
        self._photos = photos
        self._codes = np.zeros((count, width), np.uint8)
        self._facts = np.zeros((count, 2), np.int64)  # size and time of change, before decoding
        self._kind = np.dtype(
            [("path", "<u8"), ("facts", "<i8", (2,)), ("code", np.uint8, (width,))]
        )
        self.done = np.zeros(count, bool)

    def paths(self, rows: _Rows) -> Iterator[Path]:
        """Yield paths of rows, and note what their files are like at that moment."""
        for row in rows.tolist():
            path = self._photos[row].path
            self._facts[row] = _facts(path)
            yield path

    def enter(self, rows: _Rows, codes: npt.NDArray[np.uint8]) -> bytes:
        """Take in the codes of rows; return them as a record."""
        self._codes[rows], self.done[rows] = codes, True
        record = np.zeros(len(rows), self._kind)
        record["path"] = [_name(self._photos[row].path) for row in rows.tolist()]
        record["facts"], record["code"] = self._facts[rows], codes
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
        mine = np.fromiter((_name(one.path) for one in self._photos), np.uint64, len(self._photos))
        last = np.searchsorted(known["path"], mine, "right") - 1
        for row in np.flatnonzero((last >= 0) & (known["path"][last] == mine)).tolist():
            found = known[last[row]]
            if tuple(found["facts"].tolist()) == _facts(self._photos[row].path):
                self._codes[row], self.done[row] = found["code"], True
        return int(self.done.sum())

    def file(self, hasher: Hasher) -> CodeFile:
        """Return what is done, as a file to write."""
        rows, photos = np.flatnonzero(self.done), self._photos
        return CodeFile(
            self._codes[rows],
            _Texts(rows, lambda row: photos[row].path.as_posix()),
            _Texts(rows, lambda row: photos[row].label or ""),
            hasher.bits,
            hasher.fingerprint,
        )


@dataclass(frozen=True)
class _Texts(Sequence[str]):
    """Texts that are made when they are asked for, so that a million of them take no memory."""

    rows: _Rows
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


def _name(path: Path) -> int:
    """Return 64 bits that stand for a path."""
    name = os.fsencode(os.path.abspath(path))
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


def _facts(path: Path) -> tuple[int, int]:
    """Return size and time of change (ns) of a file; (-1, -1) of none, and decoding says why."""
    try:
        facts = os.stat(path)
    except (OSError, ValueError):
        return -1, -1
    return facts.st_size, facts.st_mtime_ns
