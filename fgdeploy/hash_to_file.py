"""Photos to a file of codes: hashed as a stream, kept as they come, gone on with after any end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fgdeploy.code_table import CodeTable, LocalOriginals, Rows, facts_of
from fgdeploy.core.errors import DataError, ImageError
from fgdeploy.core.part_file import PartFile
from fgdeploy.core.progress import Notify, Progress, no_progress, silent
from fgdeploy.core.text import counted
from fgdeploy.hasher import Hasher
from fgdeploy.photos import Photo, skipped_of


@dataclass(frozen=True)
class FileRun:
    """What one run did.

    photos: in the file; earlier: of these, hashed by a run that was interrupted; skipped: why
    others are not in it; seconds: of hashing; engine: what it was done with, in words.
    """

    photos: int
    earlier: int
    skipped: list[str]
    seconds: float
    bits: int
    fingerprint: str
    engine: str

    @property
    def per_second(self) -> float:
        """Return the photos that this run hashed in a second."""
        return (self.photos - self.earlier) / max(self.seconds, 1e-9)

    def extras(self) -> dict[str, int]:
        """Return what else a way of hashing counts, by name."""
        return {}


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
    words = about(source, hasher.fingerprint, hasher.engine.describe(), hasher.bit_depth)
    with PartFile(target, words, again) as part:
        table = CodeTable(LocalOriginals(photos), hasher.manifest.code_bytes)
        earlier = table.recall(part.records())
        if earlier:
            notify(
                f"going on: {earlier:,} of {counted(len(photos), 'photo')} are in {part.path} "
                "(--again drops them)"
            )
        skipped = skipped_of(photos)
        start = time.monotonic()
        try:
            _hash_rest(hasher, photos, table, part, None if strict else skipped, progress)
            seconds = time.monotonic() - start
            finish(table, hasher.bits, hasher.fingerprint, skipped, target)
        except BaseException:
            if table.done.any():
                notify(f"the codes so far are kept in {part.path}; the same command goes on")
            else:
                part.remove()
            raise
        part.remove()
    made_by = (hasher.bits, hasher.fingerprint, hasher.engine.describe())
    return FileRun(int(table.done.sum()), earlier, skipped, seconds, *made_by)


def about(
    source: Path | str, fingerprint: str, engine: str, bit_depth: int | None
) -> Mapping[str, str]:
    """Return what an unfinished work is, in words; source: a path, or an address."""
    return {
        "photos of": source if isinstance(source, str) else os.path.abspath(source),
        "model": fingerprint,
        "engine": engine,
        "bit depth": str(bit_depth),
    }


def finish(
    table: CodeTable, bits: int, fingerprint: str, skipped: Sequence[str], target: Path
) -> None:
    """Write the file of what is done. Raises DataError where nothing is, OSError."""
    if not table.done.any():
        photos = counted(len(table.done), "photo")
        raise DataError(f"none of {photos} can be read; the first: {skipped[0]}")
    table.file(bits, fingerprint).save(target)


def _hash_rest(
    hasher: Hasher,
    photos: Sequence[Photo],
    table: CodeTable,
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
    paths = _paths(photos, table, rest)
    for hashed in hasher.stream(paths, None if skipped is None else skip):
        rows = rest[hashed.positions]
        table.enter(rows, hashed.outputs.code)
        part.append(table.record(rows))
        told = hashed.positions[-1] + 1
        progress(told, len(rest))
    if told < len(rest):
        progress(len(rest), len(rest))


def _paths(photos: Sequence[Photo], table: CodeTable, rows: Rows) -> Iterator[Path]:
    """Yield paths of rows, and note what their files are like at that moment."""
    for row in rows.tolist():
        path = photos[row].path
        table.note(row, facts_of(path))
        yield path
