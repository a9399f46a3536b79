"""Photos into an index: hashed once, known again, moved, copied or skipped."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from fgdeploy.bundle import sha256
from fgdeploy.core import machine
from fgdeploy.core.errors import ImageError, IndexStoreError, UsageError
from fgdeploy.core.progress import Progress, no_progress
from fgdeploy.core.text import is_utf8
from fgdeploy.gallery.backfilling import require_width
from fgdeploy.hasher import Hasher
from fgdeploy.photos import Photo, Reading, thumbnail
from fgdeploy.retrieval import Index, Item

# Photos per transaction: an interrupted run loses at most these.
COMMIT_EVERY = 256
_DECODERS = 4  # threads

_Result = TypeVar("_Result")


@dataclass
class AddReport:
    """What became of photos: added (new or changed), already there (some with a new label or at
    another path than before), copies of photos that are there, skipped with reasons."""

    added: int = 0
    known: int = 0
    relabelled: int = 0
    moved: int = 0
    copies: int = 0
    skipped: list[str] = field(default_factory=list)


def add_photos(
    index: Index,
    hasher: Hasher,
    photos: Sequence[Photo],
    strict: bool = False,
    progress: Progress = no_progress,
) -> AddReport:
    """Hash photos and add them, with bounded memory; a photo that is there unchanged is left alone.

    A photo that is there under a path where nothing lies any more has moved and keeps its id; a
    copy of one that still is there is left out. An unreadable photo is named in the report, or
    raises ImageError if `strict`. Where the index keeps embeddings or thumbnails, those of the
    photos go in with them; known photos without a thumbnail get theirs. Raises IndexStoreError if
    the index is of another model, BundleError without embeddings.
    """
    index.require(hasher.fingerprint, hasher.bits)
    embedding, reading = require_width(index, hasher), None
    if index.thumbnails.kept:
        reading = Reading(bit_depth=hasher.bit_depth)
    if not isinstance(photos, Sequence) or not all(isinstance(photo, Photo) for photo in photos):
        raise UsageError("expected photos as fgdeploy.photos.read gives them; give [Photo(path)]")
    report = AddReport()
    wanted = list({os.path.abspath(photo.path): photo.label for photo in photos}.items())
    for start in range(0, len(wanted), COMMIT_EVERY):
        part = wanted[start : start + COMMIT_EVERY]
        fresh = _sort_out(index, part, strict, report)
        if reading is not None:
            _complete(index, [path for path, _ in part], reading)
        done = start + len(part) - len(fresh)
        kept = embedding, reading
        for hashed in _hash_and_add(index, hasher, fresh, strict, report, *kept):
            progress(done + hashed, len(wanted))
        progress(start + len(part), len(wanted))
    return report


def _hash_and_add(
    index: Index,
    hasher: Hasher,
    fresh: Sequence[Item],
    strict: bool,
    report: AddReport,
    embedding: bool,
    reading: Reading | None,
) -> Iterator[int]:
    """Yield how many photos are hashed so far, up to the last batch; then all are added.

    reading: how to read those of which thumbnails are kept.
    """

    def skip(position: int, error: ImageError) -> None:
        report.skipped.append(str(error))

    waiting: list[Item] = []
    rows: list[npt.NDArray[np.float32]] = []
    sources = (entry.path or "" for entry in fresh)
    for hashed in hasher.stream(sources, on_error=None if strict else skip):
        for position, code in zip(hashed.positions, hashed.outputs.code, strict=True):
            waiting.append(dataclasses.replace(fresh[position], code=code.tobytes()))
        if embedding and hashed.outputs.embedding is not None:
            rows.append(hashed.outputs.embedding)
        if hashed.positions[-1] + 1 < len(fresh):
            yield hashed.positions[-1] + 1
    if waiting:
        jpegs = None if reading is None else _thumbnails(waiting, reading)
        matrix = np.concatenate(rows) if embedding else None
        added = index.add(waiting, embeddings=matrix, thumbnails=jpegs)
        report.added += added.new + added.changed
        report.copies += added.copies
        report.known += added.known - added.copies  # another process was faster


def _thumbnails(items: Sequence[Item], reading: Reading) -> list[bytes | None]:
    """Return the thumbnails of the photos at the paths of items, None for one that is gone."""

    def one(item: Item) -> bytes | None:
        try:
            content = Path(item.path or "").read_bytes()
            same = not item.sha256 or hashlib.sha256(content).hexdigest() == item.sha256
            return thumbnail(content, reading) if same else None
        except (OSError, ImageError):
            return None

    with ThreadPoolExecutor(min(_DECODERS, machine.cores())) as pool:
        return list(pool.map(one, items))


def _complete(index: Index, paths: Sequence[str], reading: Reading) -> None:
    """Make the thumbnails of photos that are there unchanged and have none."""
    there = index.by_path(filter(is_utf8, paths), checked=False)
    have = index.thumbnails.has([item.id or 0 for item in there.values()])
    lacking = [item for item in there.values() if item.sha256 and item.id not in have]
    made = zip(lacking, _thumbnails(lacking, reading), strict=True)
    given = [(item, jpeg) for item, jpeg in made if jpeg is not None]
    if given:
        index.thumbnails.put([item for item, _ in given], [jpeg for _, jpeg in given])


def _sort_out(
    index: Index, photos: Sequence[tuple[str, str | None]], strict: bool, report: AddReport
) -> list[Item]:
    """Return the photos to hash, still without codes; note in `report` what became of others."""
    readable: list[tuple[str, str | None, str]] = []
    for path, label in photos:
        if is_utf8(path, label):
            readable.append((path, label, _digest(Path(path))))
        elif strict:
            raise ImageError(_NOT_UTF8.format(path))
        else:
            report.skipped.append(_NOT_UTF8.format(path))
    known = index.by_path((path for path, _, _ in readable), checked=False)
    same = index.by_content((digest for _, _, digest in readable if digest), checked=False)
    fresh, moved = [], []
    labels: dict[str, str | None] = {}
    for path, label, digest in readable:
        there, twin = known.get(path), same.get(digest)
        if there is not None and there.sha256 == digest:
            labels[path] = label
        elif there is not None or twin is None:
            fresh.append(Item(path, b"", label, digest))
        elif twin.path is not None and ("://" in twin.path or os.path.exists(twin.path)):
            report.copies += 1
        else:
            moved.append(dataclasses.replace(twin, path=path, label=label))
            del same[digest]
    report.known += len(labels)
    report.relabelled += index.relabel(labels) if labels else 0
    report.moved += index.add(moved).changed if moved else 0
    return fresh


_NOT_UTF8 = "{!r}: the name of the file or its folder is not UTF-8; rename it"


def _digest(path: Path) -> str:
    """Return a file's sha256, or nothing for one that cannot be read; decoding will say why."""
    try:
        return sha256(path)
    except OSError:
        return ""


class CodeSource(Protocol):
    """What codes are of: a hasher, or a file of codes."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def bits(self) -> int: ...


def open_or_create(path: Path, model: CodeSource) -> tuple[Index, bool]:
    """Open the index at `path`, or create it for this model; True if it was created."""
    return Index.open_or_create(path, model.fingerprint, model.bits)


def fill(path: Path, model: CodeSource, work: Callable[[Index], _Result]) -> tuple[_Result, int]:
    """Let `work` add to the index at `path`; returns its result and how many items there are now.

    The index is made if it is not there, and removed again if nothing came in. Where another
    process removes it in this way before `work` has added anything, all starts again.
    """
    while True:
        index, made = open_or_create(path, model)
        with index:
            try:
                result = work(index)
                return result, 0 if made and index.delete_if_empty() else len(index)
            except BaseException as error:
                lost = isinstance(error, IndexStoreError) and not index.is_current()
                if lost and not index.wrote:
                    continue
                if made and not lost:
                    with contextlib.suppress(IndexStoreError):
                        index.delete_if_empty()
                raise
